// Bundles on TensorRT.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <thread>
#include <utility>

#include "cuda.hpp"
#include "log.hpp"
#include "parallel.hpp"
#include "runner.hpp"
#include "tensorrt_buffers.hpp"
#include "tensorrt_engine.hpp"

namespace floats_rt {
namespace {

// Modes bound and input: memory of the device from which an engine reads what depends on lambda. It is computed on the
// CPU, where the arithmetic exists once and is Python's, and copied over in one piece.
class DeviceTensors {
 public:
  explicit DeviceTensors(const LambdaTensors& tensors)
      : tensors_(tensors), host_(tensors.bytes()), current_(std::make_unique<cuda::DeviceMemory>(tensors.bytes())) {}

  void bind(nvinfer1::IExecutionContext& context) const {
    for (const LambdaTensor& tensor : tensors_.tensors()) {
      if (context.setTensorAddress(tensor.name.c_str(), current_->get() + tensor.offset)) continue;
      must(false, "bind " + tensor.name);
    }
  }

  void put(float lam, std::size_t threads, cudaStream_t stream) { write(*current_, lam, threads, stream); }

  void prepare(float lam, cudaStream_t stream) {
    if (!next_) next_ = std::make_unique<cuda::DeviceMemory>(tensors_.bytes());
    write(*next_, lam, 1, stream);  // the other cores are for the application
  }

  void take() noexcept { current_.swap(next_); }

 private:
  void write(const cuda::DeviceMemory& to, float lam, std::size_t threads, cudaStream_t stream) {
    tensors_.at(lam, host_.as<std::byte>(), threads);
    cuda::check(cudaMemcpyAsync(to.get(), host_.as<void>(), tensors_.bytes(), cudaMemcpyHostToDevice, stream),
                "copy what depends on lambda");
  }

  const LambdaTensors& tensors_;
  cuda::PinnedMemory host_;
  std::unique_ptr<cuda::DeviceMemory> current_, next_;  // the other since the first prepare
};

// An engine with what one runner needs of it.
struct EngineInUse {
  LoadedEngine loaded;  // in mode refit this one's own
  std::unique_ptr<nvinfer1::IExecutionContext> context;
  std::unique_ptr<Refit> refit;  // mode refit
};

EngineInUse put_to_use(const Network& network, LoadedEngine loaded) {
  EngineInUse engine{std::move(loaded), nullptr, nullptr};
  engine.context.reset(engine.loaded.engine->createExecutionContext());
  must(engine.context != nullptr, "make an execution context");
  if (network.mode == Mode::refit) engine.refit = std::make_unique<Refit>(network, *engine.loaded.engine);
  return engine;
}

// The engines at work in memory of their own, on the device that is current.
class Inference {
 public:
  explicit Inference(const Network& network)
      : network_(network),
        threads_(thread_count(network.options.threads)),
        engines_(engines_in_use(network)),
        buffers_(largest_batch(), network.input.size(), network.output.size(), stream_) {
    if (network.tensors && network.mode != Mode::refit) device_tensors_.emplace(*network.tensors);
  }
  Inference(const Inference&) = delete;
  Inference& operator=(const Inference&) = delete;
  ~Inference() { cudaEventSynchronize(queued_.get()); }

  void set_lambda(float lam) {
    if (Refit* const refit = engines_.front().refit.get()) {
      queued_.synchronize();
      stream_.synchronize();
      refit->put(lam, threads_);
    } else if (device_tensors_) {
      queued_.hold_back(stream_.get());
      device_tensors_->put(lam, threads_, stream_.get());
      stream_.synchronize();
    } else {
      current_ = index_of(lam);
    }
  }

  // What was in force before may still be in use by what infer_async queued.
  void prepare(float lam) {
    if (network_.refittable) {
      queued_.synchronize();
      prepare_engine(lam);
    } else if (device_tensors_) {
      if (!beside_) beside_.emplace();
      queued_.hold_back(beside_->get());
      device_tensors_->prepare(lam, beside_->get());
      beside_->synchronize();
    } else {
      next_ = index_of(lam);
    }
  }

  void take() noexcept {
    if (network_.refittable) {
      std::swap(engines_.front(), *next_engine_);
    } else if (device_tensors_) {
      device_tensors_->take();
      bound_ = false;
    } else {
      current_ = next_;
    }
  }

  // Page-locked memory for the images of a batch that the engine takes, once what was queued reads it no longer.
  Span<float> staging(const Interruption& interruption) {
    if (unfinished_) finish(interruption);
    return {buffers_.staging(), engines_[current_].loaded.largest_batch * network_.input.size()};
  }

  void infer(const float* images, std::size_t batch, float* logits, const Interruption& interruption) {
    interruption.check();
    if (unfinished_) finish(interruption);
    if (batch > engines_[current_].loaded.largest_batch) {
      infer_parts(images, batch, logits, interruption);
    } else {
      infer_whole(images, batch, logits, interruption);
    }
  }

  void infer_async(const float* device_images, std::size_t batch, float* device_logits, cudaStream_t stream) {
    check_batch(batch);
    check_address(device_images, "the images");
    check_address(device_logits, "the logits");
    cuda::check_runs(stream);
    const cuda::EmptyOnError guard(stream);
    enqueue(device_images, batch, device_logits, stream);
    queued_.record(stream);
  }

 private:
  static std::vector<EngineInUse> engines_in_use(const Network& network) {
    std::vector<EngineInUse> engines;
    if (network.refittable) engines.push_back(put_to_use(network, load_engine(network, *network.refittable)));
    for (const LoadedEngine& loaded : network.engines) engines.push_back(put_to_use(network, loaded));
    return engines;
  }

  std::size_t index_of(float lam) const {
    const auto& lambdas = network_.lambdas;
    return static_cast<std::size_t>(std::find(lambdas.begin(), lambdas.end(), lam) - lambdas.begin());
  }

  // One that could not be refitted is not used again.
  void prepare_engine(float lam) {
    if (!next_engine_) {
      const std::lock_guard lock(*network_.making);
      next_engine_ = put_to_use(network_, load_engine(network_, *network_.refittable));
    }
    try {
      next_engine_->refit->put(lam, 1);
    } catch (const std::exception&) {
      const std::lock_guard lock(*network_.making);
      next_engine_.reset();
      throw;
    }
  }

  std::size_t largest_batch() const {
    std::size_t largest = 0;
    for (const EngineInUse& engine : engines_) largest = std::max(largest, engine.loaded.largest_batch);
    return largest;
  }

  void check_batch(std::size_t batch) const {
    const LoadedEngine& engine = engines_[current_].loaded;
    if (batch >= engine.smallest_batch && batch <= engine.largest_batch) return;
    throw Error(ErrorCode::bad_shape,
                "the engine takes batches from " + std::to_string(engine.smallest_batch) + " to " +
                    std::to_string(engine.largest_batch) + ", not " + std::to_string(batch) + ".",
                "use infer, or build an engine for this batch: floats-edge export --trt --batch MIN:OPT:MAX");
  }

  void check_address(const float* address, const std::string& what) const {
    if (address && reinterpret_cast<std::uintptr_t>(address) % kAlignment == 0) return;
    throw Error(ErrorCode::bad_shape,
                what + " do not lie at a multiple of " + std::to_string(kAlignment) + " bytes, as TensorRT asks.",
                "pass the pointer that cudaMalloc gave, or copy what begins inside of a buffer to the front of one");
  }

  void infer_whole(const float* images, std::size_t batch, float* logits, const Interruption& interruption) {
    buffers_.stage(images, batch);
    {
      const cuda::EmptyOnError guard(stream_.get());
      queued_.hold_back(stream_.get());
      buffers_.send(batch, stream_.get());
      compute(buffers_, batch);
    }
    finish(interruption);
    buffers_.read(logits, batch);
  }

  // While the engine computes one part, the next is staged and goes up beside it.
  // Source: Triton's TensorRT backend, instance_state.cc: one execution context, whose addresses are set anew before
  // each enqueueV3, whether the one before has ended or not.
  void infer_parts(const float* images, std::size_t batch, float* logits, const Interruption& interruption) {
    const std::size_t largest = engines_[current_].loaded.largest_batch, parts = (batch + largest - 1) / largest;
    const std::size_t pixels = network_.input.size(), classes = network_.output.size();
    if (!turns_) turns_.emplace(largest_batch(), pixels, classes);
    const Buffers* const buffers[] = {&buffers_, &turns_->second};
    const auto count = [&](std::size_t part) { return std::min(largest, batch - part * largest); };
    const auto read = [&](std::size_t part) {
      wait_for(turns_->done[part % 2], interruption);
      buffers[part % 2]->read(logits + part * largest * classes, count(part));
    };
    std::optional<cuda::EmptyOnError> none_left;  // to the device, if this is cancelled
    if (!interruption.is_limited()) none_left.emplace(stream_.get());
    for (std::size_t part = 0; part < parts; ++part) {
      if (part >= 2) read(part - 2);
      interruption.check();
      buffers[part % 2]->stage(images + part * largest * pixels, count(part));
      const cuda::EmptyOnError guard(stream_.get()), guard_up(turns_->up.get());
      buffers[part % 2]->send(count(part), turns_->up.get());
      turns_->sent.record(turns_->up.get());
      turns_->sent.hold_back(stream_.get());
      compute(*buffers[part % 2], count(part));
      turns_->done[part % 2].record(stream_.get());
    }
    read(parts - 2);
    read(parts - 1);
    unfinished_ = false;
  }

  // Queues the inference of images that are on the device or on their way, and the copy of their logits back.
  void compute(const Buffers& buffers, std::size_t count) {
    enqueue(buffers.images(), std::max(count, engines_[current_].loaded.smallest_batch), buffers.logits(),
            stream_.get());
    buffers.fetch(count, stream_.get());
    queued_.record(stream_.get());
    unfinished_ = true;
  }

  void finish(const Interruption& interruption) {
    wait_for(stream_, interruption);
    unfinished_ = false;
  }

  // Waits until what infer queued is done, or is to wait no longer: then all that comes later waits for it.
  template <typename Queued>
  static void wait_for(const Queued& queued, const Interruption& interruption) {
    if (!interruption.is_limited()) return queued.synchronize();
    while (!queued.is_done()) {
      interruption.check();
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }

  // A context's buffers serve one inference at a time, so each waits for what infer_async queued before.
  void enqueue(const float* images, std::size_t batch, float* logits, cudaStream_t stream) {
    nvinfer1::IExecutionContext& context = *engines_[current_].context;
    const InputSpec& input = network_.input;
    nvinfer1::Dims shape{};
    shape.nbDims = 4;
    const std::size_t axes[] = {batch, input.channels, input.height, input.width};
    std::transform(std::begin(axes), std::end(axes), shape.d,
                   [](std::size_t axis) { return static_cast<int64_t>(axis); });
    queued_.hold_back(stream);
    if (device_tensors_ && !bound_) device_tensors_->bind(context);
    bound_ = true;
    must(context.setInputShape(input.name.c_str(), shape), "take a batch of this size");
    must(context.setTensorAddress(input.name.c_str(), const_cast<float*>(images)), "bind the images");
    must(context.setTensorAddress(network_.output.name.c_str(), logits), "bind the logits");
    must(context.enqueueV3(stream), "run");
  }

  const Network& network_;
  std::size_t threads_;
  std::vector<EngineInUse> engines_;  // one per lambda, or one for any
  cuda::Stream stream_;
  cuda::Event queued_;                           // the end of what was queued last
  Buffers buffers_;                              // of the largest batch
  std::optional<Turns> turns_;                   // since the first batch that was larger
  bool unfinished_ = false;                      // infer ended before what it queued was done
  std::optional<DeviceTensors> device_tensors_;  // modes bound and input
  bool bound_ = false;                           // whether the engine reads from where these are
  std::size_t current_ = 0, next_ = 0;           // of engines_
  std::optional<cuda::Stream> beside_;           // of prepare, since the first
  std::optional<EngineInUse> next_engine_;       // mode refit: since the first prepare
};

// TensorRT lets several threads run contexts of an engine, but says nothing of making and ending them: one at a time.
class TensorRtRunner : public Runner {
 public:
  explicit TensorRtRunner(std::shared_ptr<const Network> network) : network_(std::move(network)) {
    const Visit visit(network_->options);
    const std::lock_guard lock(*network_->making);
    inference_ = std::make_unique<Inference>(*network_);
  }

  ~TensorRtRunner() override {
    std::optional<Visit> visit;
    try {
      visit.emplace(network_->options);
    } catch (const Error&) {  // a device that is gone took its memory with it
    }
    {
      const std::lock_guard lock(*network_->making);
      inference_.reset();
    }
    network_.reset();
  }

  std::unique_ptr<Runner> clone() const override { return std::make_unique<TensorRtRunner>(network_); }

  void set_lambda(float lam) override {
    const Visit visit(network_->options);
    inference_->set_lambda(lam);
  }

  void prepare(float lam) override {
    const Visit visit(network_->options);
    inference_->prepare(lam);
  }

  void take() noexcept override { inference_->take(); }

  std::string version() const override { return joined(network_->library.version()); }

  Span<float> staging(const Interruption& interruption) override {
    const Visit visit(network_->options);
    return inference_->staging(interruption);
  }

  void infer(const float* images, std::size_t batch, float* logits, Interruption& interruption) override {
    const Visit visit(network_->options);
    inference_->infer(images, batch, logits, interruption);
  }

  void infer_async(const float* device_images, std::size_t batch, float* device_logits, CUstream_st* stream) override {
    const Visit visit(network_->options);
    inference_->infer_async(device_images, batch, device_logits, stream);
  }

 private:
  std::shared_ptr<const Network> network_;
  std::unique_ptr<Inference> inference_;
};

}  // namespace

void check_tensorrt(const Bundle& bundle, const Options& options) {
  const TensorRt library(options.tensorrt_library);
  fitting_engines(bundle, library.version(), compute_capability(options.device));
}

std::unique_ptr<Runner> open_tensorrt(const Bundle& bundle, const Options& options) {
  const Manifest& manifest = bundle.manifest();
  const std::string path = bundle.path().string();
  TensorRt library(options.tensorrt_library);
  const std::string target = compute_capability(options.device);
  const std::vector<Engine> engines = fitting_engines(bundle, library.version(), target);
  const Visit visit(options);
  auto runtime = library.runtime();
  auto network = std::make_shared<Network>(Network{options,
                                                   std::move(library),
                                                   std::move(runtime),
                                                   std::make_unique<std::mutex>(),
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
      report(options, Severity::warning, engine.file + " was exported with --allow-mismatch: " + engine.mismatch);
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
