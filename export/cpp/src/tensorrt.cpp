// Bundles on TensorRT, in modes fixed, bank and bound.
#include <algorithm>
#include <map>
#include <utility>

#include "cuda.hpp"
#include "fold.hpp"
#include "parallel.hpp"
#include "runner.hpp"
#include "tensorrt_host.hpp"

namespace floats_rt {
namespace {

using Shape = std::vector<std::int64_t>;  // the batch axis is -1

struct LoadedEngine {
  std::unique_ptr<nvinfer1::ICudaEngine> engine;
  std::size_t smallest_batch, largest_batch;
};

// What the runners of a bundle share; immutable.
struct Network {
  TensorRt library;
  std::unique_ptr<nvinfer1::IRuntime> runtime;  // outlives its engines
  int device;
  InputSpec input;
  OutputSpec output;
  std::vector<float> lambdas;            // of the engines; empty in mode bound
  std::vector<LoadedEngine> engines;     // one per lambda; one in mode bound
  std::optional<LambdaWeights> weights;  // mode bound
  Precision precision;

  std::size_t weight_bytes() const { return precision == Precision::fp16 ? sizeof(Half) : sizeof(float); }
};

void must(bool done, const std::string& what) {
  if (done) return;
  throw Error(ErrorCode::runtime, "TensorRT failed to " + what + "; it says why on standard error.",
              "if memory is short, use a smaller batch; otherwise rebuild the engine: floats-edge export --trt");
}

using TensorTypes = std::map<std::string, std::pair<nvinfer1::DataType, Shape>>;

TensorTypes wanted_tensors(const Network& network) {
  const auto signed_shape = [](const std::vector<std::size_t>& shape) { return Shape(shape.begin(), shape.end()); };
  Shape images = signed_shape({network.input.channels, network.input.height, network.input.width});
  images.insert(images.begin(), -1);
  TensorTypes tensors;
  tensors[network.input.name] = {nvinfer1::DataType::kFLOAT, images};
  tensors[network.output.name] = {nvinfer1::DataType::kFLOAT, {-1, static_cast<std::int64_t>(network.output.size())}};
  if (!network.weights) return tensors;
  const auto type = network.precision == Precision::fp16 ? nvinfer1::DataType::kHALF : nvinfer1::DataType::kFLOAT;
  for (const WeightTensor& tensor : network.weights->tensors())
    tensors[tensor.name] = {type, signed_shape(tensor.shape)};
  return tensors;
}

TensorTypes found_tensors(const nvinfer1::ICudaEngine& engine) {
  TensorTypes tensors;
  for (int32_t i = 0; i < engine.getNbIOTensors(); ++i) {
    const char* const name = engine.getIOTensorName(i);
    const nvinfer1::Dims dims = engine.getTensorShape(name);
    Shape shape(dims.d, dims.d + std::max(dims.nbDims, 0));
    tensors[name] = {engine.getTensorDataType(name), std::move(shape)};
  }
  return tensors;
}

LoadedEngine load_engine(const Network& network, const Bundle& bundle, const Engine& engine) {
  const Bytes plan = bundle.read(engine.file);  // a plan is executable code: this checks its hash
  LoadedEngine loaded{
      std::unique_ptr<nvinfer1::ICudaEngine>(network.runtime->deserializeCudaEngine(plan.data(), plan.size())),
      engine.smallest_batch, engine.largest_batch};
  if (!loaded.engine) {
    throw Error(ErrorCode::engine_incompatible,
                "TensorRT could not load " + engine.file + "; it says why on standard error.",
                "free memory on this GPU, or rebuild the engine: floats-edge export " + bundle.path().string() +
                    " -o " + bundle.path().string() + " --trt");
  }
  if (found_tensors(*loaded.engine) != wanted_tensors(network)) {
    throw Error(ErrorCode::bundle_invalid,
                engine.file + " does not take and give what the manifest states, in name, type or shape.",
                "rebuild the engine: floats-edge export " + bundle.path().string() + " -o " + bundle.path().string() +
                    " --trt");
  }
  return loaded;
}

class TensorRtRunner : public Runner {
 public:
  explicit TensorRtRunner(std::shared_ptr<const Network> network)
      : network_(std::move(network)),
        images_(largest_batch() * network_->input.size() * sizeof(float)),
        logits_(largest_batch() * network_->output.size() * sizeof(float)) {
    // Below the engine's smallest batch, whatever lies in the buffer makes up the number.
    cuda::check(cudaMemset(images_.get(), 0, largest_batch() * network_->input.size() * sizeof(float)), "clear memory");
    for (const LoadedEngine& loaded : network_->engines) {
      contexts_.emplace_back(loaded.engine->createExecutionContext());
      must(contexts_.back() != nullptr, "make an execution context");
    }
    if (network_->weights) bind_weights();
  }

  ~TensorRtRunner() override { cudaEventSynchronize(queued_.get()); }

  std::unique_ptr<Runner> clone() const override {
    use_device(network_->device);
    return std::make_unique<TensorRtRunner>(network_);
  }

  void set_lambda(float lam) override {
    if (!network_->weights) {
      const auto& lambdas = network_->lambdas;
      current_ = static_cast<std::size_t>(std::find(lambdas.begin(), lambdas.end(), lam) - lambdas.begin());
      return;
    }
    use_device(network_->device);
    if (network_->precision == Precision::fp16) {
      network_->weights->at(lam, host_weights_->as<Half>());
    } else {
      network_->weights->at(lam, host_weights_->as<float>());
    }
    queued_.hold_back(stream_.get());
    cuda::check(
        cudaMemcpyAsync(device_weights_->get(), host_weights_->as<void>(),
                        network_->weights->size() * network_->weight_bytes(), cudaMemcpyHostToDevice, stream_.get()),
        "copy the weights");
    stream_.synchronize();
  }

  void infer(const float* images, std::size_t batch, float* logits) override {
    use_device(network_->device);
    const std::size_t largest = network_->engines[current_].largest_batch;
    for (std::size_t start = 0; start < batch; start += largest) {
      infer_part(images + start * network_->input.size(), std::min(largest, batch - start),
                 logits + start * network_->output.size());
    }
  }

  void infer_async(const float* device_images, std::size_t batch, float* device_logits, CUstream_st* stream) override {
    const LoadedEngine& engine = network_->engines[current_];
    if (batch < engine.smallest_batch || batch > engine.largest_batch) {
      throw Error(ErrorCode::bad_shape,
                  "the engine takes batches from " + std::to_string(engine.smallest_batch) + " to " +
                      std::to_string(engine.largest_batch) + ", not " + std::to_string(batch) + ".",
                  "use infer, or build an engine for this batch: floats-edge export --trt --batch MIN:OPT:MAX");
    }
    use_device(network_->device);
    enqueue(device_images, batch, device_logits, stream);
    queued_.record(stream);
  }

 private:
  std::size_t largest_batch() const {
    std::size_t largest = 0;
    for (const LoadedEngine& loaded : network_->engines) largest = std::max(largest, loaded.largest_batch);
    return largest;
  }

  void bind_weights() {
    const std::size_t each = network_->weight_bytes(), bytes = network_->weights->size() * each;
    host_weights_.emplace(bytes);
    device_weights_.emplace(bytes);
    for (const WeightTensor& tensor : network_->weights->tensors()) {
      must(contexts_.front()->setTensorAddress(tensor.name.c_str(), device_weights_->get() + tensor.offset * each),
           "bind " + tensor.name);
    }
  }

  void infer_part(const float* images, std::size_t count, float* logits) {
    const std::size_t rows = std::max(count, network_->engines[current_].smallest_batch);
    queued_.hold_back(stream_.get());
    cuda::check(cudaMemcpyAsync(images_.get(), images, count * network_->input.size() * sizeof(float),
                                cudaMemcpyHostToDevice, stream_.get()),
                "copy the images");
    enqueue(reinterpret_cast<const float*>(images_.get()), rows, reinterpret_cast<float*>(logits_.get()),
            stream_.get());
    cuda::check(cudaMemcpyAsync(logits, logits_.get(), count * network_->output.size() * sizeof(float),
                                cudaMemcpyDeviceToHost, stream_.get()),
                "copy the logits");
    stream_.synchronize();
  }

  // A context's buffers serve one inference at a time, so each waits for what infer_async queued before.
  void enqueue(const float* images, std::size_t batch, float* logits, cudaStream_t stream) {
    nvinfer1::IExecutionContext& context = *contexts_[current_];
    const InputSpec& input = network_->input;
    nvinfer1::Dims shape{};
    shape.nbDims = 4;
    const std::size_t axes[] = {batch, input.channels, input.height, input.width};
    std::transform(std::begin(axes), std::end(axes), shape.d,
                   [](std::size_t axis) { return static_cast<int64_t>(axis); });
    queued_.hold_back(stream);
    must(context.setInputShape(input.name.c_str(), shape), "take a batch of " + std::to_string(batch));
    must(context.setTensorAddress(input.name.c_str(), const_cast<float*>(images)), "bind the images");
    must(context.setTensorAddress(network_->output.name.c_str(), logits), "bind the logits");
    must(context.enqueueV3(stream), "run");
  }

  std::shared_ptr<const Network> network_;
  cuda::Stream stream_;
  cuda::Event queued_;                              // the end of what infer_async queued last
  cuda::DeviceMemory images_, logits_;              // of the largest batch
  std::optional<cuda::PinnedMemory> host_weights_;  // W(lambda) in mode bound
  std::optional<cuda::DeviceMemory> device_weights_;
  std::vector<std::unique_ptr<nvinfer1::IExecutionContext>> contexts_;  // one per engine
  std::size_t current_ = 0;
};

}  // namespace

void check_tensorrt(const Bundle& bundle, const Options& options) {
  const TensorRt library(options.tensorrt_library);
  fitting_engines(bundle, library.version(), use_device(options.device));
}

std::unique_ptr<Runner> open_tensorrt(const Bundle& bundle, const Options& options) {
  const Manifest& manifest = bundle.manifest();
  TensorRt library(options.tensorrt_library);
  const std::string target = use_device(options.device);
  const std::vector<Engine> engines = fitting_engines(bundle, library.version(), target);
  auto runtime = library.runtime();
  auto network = std::make_shared<Network>(Network{std::move(library),
                                                   std::move(runtime),
                                                   options.device,
                                                   manifest.input,
                                                   manifest.output,
                                                   manifest.lambdas.values,
                                                   {},
                                                   {},
                                                   manifest.precision});
  if (manifest.mode == Mode::bound) {
    const Bytes weights = bundle.read(manifest.weights);
    network->weights.emplace(manifest, read_safetensors(weights), thread_count(options.threads));
  }
  for (const Engine& engine : engines) network->engines.push_back(load_engine(*network, bundle, engine));
  return std::make_unique<TensorRtRunner>(std::move(network));
}

}  // namespace floats_rt
