// Bundles on TensorRT.
#include <algorithm>
#include <utility>

#include "cuda.hpp"
#include "log.hpp"
#include "runner.hpp"
#include "tensorrt_engine.hpp"

namespace floats_rt {
namespace {

// Modes bound and input: memory of the device from which an engine reads what depends on lambda. It is computed on the
// CPU, where the arithmetic exists once and is Python's, and copied over in one piece.
class DeviceTensors {
 public:
  explicit DeviceTensors(const LambdaTensors& tensors)
      : tensors_(tensors), host_(tensors.bytes()), device_(tensors.bytes()) {}

  void bind(nvinfer1::IExecutionContext& context) const {
    for (const LambdaTensor& tensor : tensors_.tensors()) {
      must(context.setTensorAddress(tensor.name.c_str(), device_.get() + tensor.offset), "bind " + tensor.name);
    }
  }

  void put(float lam, cudaStream_t stream) {
    tensors_.at(lam, host_.as<std::byte>());
    cuda::check(cudaMemcpyAsync(device_.get(), host_.as<void>(), tensors_.bytes(), cudaMemcpyHostToDevice, stream),
                "copy what depends on lambda");
  }

 private:
  const LambdaTensors& tensors_;
  cuda::PinnedMemory host_;
  cuda::DeviceMemory device_;
};

class TensorRtRunner : public Runner {
 public:
  explicit TensorRtRunner(std::shared_ptr<const Network> network)
      : network_(std::move(network)),
        engines_(network_->refittable ? std::vector{load_engine(*network_, *network_->refittable)} : network_->engines),
        images_(largest_batch() * network_->input.size() * sizeof(float)),
        logits_(largest_batch() * network_->output.size() * sizeof(float)) {
    // Below the engine's smallest batch, whatever lies in the buffer makes up the number.
    cuda::check(cudaMemset(images_.get(), 0, largest_batch() * network_->input.size() * sizeof(float)), "clear memory");
    for (const LoadedEngine& loaded : engines_) {
      contexts_.emplace_back(loaded.engine->createExecutionContext());
      must(contexts_.back() != nullptr, "make an execution context");
    }
    if (network_->mode == Mode::refit) {
      refit_.emplace(*network_, *engines_.front().engine);
    } else if (network_->tensors) {
      device_tensors_.emplace(*network_->tensors);
      device_tensors_->bind(*contexts_.front());
    }
  }

  ~TensorRtRunner() override { cudaEventSynchronize(queued_.get()); }

  std::unique_ptr<Runner> clone() const override {
    use_device(network_->device);
    return std::make_unique<TensorRtRunner>(network_);
  }

  void set_lambda(float lam) override {
    use_device(network_->device);
    if (refit_) {
      queued_.synchronize();
      stream_.synchronize();
      refit_->put(lam);
    } else if (device_tensors_) {
      queued_.hold_back(stream_.get());
      device_tensors_->put(lam, stream_.get());
      stream_.synchronize();
    } else {
      const auto& lambdas = network_->lambdas;
      current_ = static_cast<std::size_t>(std::find(lambdas.begin(), lambdas.end(), lam) - lambdas.begin());
    }
  }

  void infer(const float* images, std::size_t batch, float* logits) override {
    use_device(network_->device);
    const std::size_t largest = engines_[current_].largest_batch;
    for (std::size_t start = 0; start < batch; start += largest) {
      infer_part(images + start * network_->input.size(), std::min(largest, batch - start),
                 logits + start * network_->output.size());
    }
  }

  void infer_async(const float* device_images, std::size_t batch, float* device_logits, CUstream_st* stream) override {
    const LoadedEngine& engine = engines_[current_];
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
    for (const LoadedEngine& loaded : engines_) largest = std::max(largest, loaded.largest_batch);
    return largest;
  }

  void infer_part(const float* images, std::size_t count, float* logits) {
    const std::size_t rows = std::max(count, engines_[current_].smallest_batch);
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
    must(context.setInputShape(input.name.c_str(), shape), "take a batch of this size");
    must(context.setTensorAddress(input.name.c_str(), const_cast<float*>(images)), "bind the images");
    must(context.setTensorAddress(network_->output.name.c_str(), logits), "bind the logits");
    must(context.enqueueV3(stream), "run");
  }

  std::shared_ptr<const Network> network_;
  std::vector<LoadedEngine> engines_;  // one per lambda, or one for any; in mode refit this runner's own
  cuda::Stream stream_;
  cuda::Event queued_;                                                  // the end of what infer_async queued last
  cuda::DeviceMemory images_, logits_;                                  // of the largest batch
  std::optional<DeviceTensors> device_tensors_;                         // modes bound and input
  std::vector<std::unique_ptr<nvinfer1::IExecutionContext>> contexts_;  // one per engine
  std::optional<Refit> refit_;                                          // mode refit
  std::size_t current_ = 0;
};

}  // namespace

void check_tensorrt(const Bundle& bundle, const Options& options) {
  const TensorRt library(options.tensorrt_library);
  fitting_engines(bundle, library.version(), use_device(options.device));
}

std::unique_ptr<Runner> open_tensorrt(const Bundle& bundle, const Options& options) {
  const Manifest& manifest = bundle.manifest();
  const std::string path = bundle.path().string();
  TensorRt library(options.tensorrt_library);
  const std::string target = use_device(options.device);
  const std::vector<Engine> engines = fitting_engines(bundle, library.version(), target);
  auto runtime = library.runtime();
  auto network = std::make_shared<Network>(Network{std::move(library),
                                                   std::move(runtime),
                                                   options.device,
                                                   manifest.mode,
                                                   manifest.input,
                                                   manifest.output,
                                                   "floats-edge export " + path + " -o " + path + " --trt",
                                                   manifest.lambdas.values,
                                                   lambda_tensors(bundle, options.threads),
                                                   {},
                                                   {}});
  for (const Engine& engine : engines) {
    if (!engine.mismatch.empty()) {
      report(options, engine.file + " was exported with --allow-mismatch: " + engine.mismatch);
    }
    Plan plan{engine, bundle.read(engine.file)};  // a plan is executable code: this checks its hash
    if (manifest.mode == Mode::refit) {
      network->refittable = std::move(plan);
    } else {
      network->engines.push_back(load_engine(*network, plan));
    }
  }
  return std::make_unique<TensorRtRunner>(std::move(network));
}

}  // namespace floats_rt
