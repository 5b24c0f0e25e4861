// Bundles on ONNX Runtime's CPU, in modes fixed, bank and bound.
#define ORT_API_MANUAL_INIT
#include <onnxruntime_c_api.h>

#include <array>
#include <set>
#include <utility>

#include "fold.hpp"
#include "parallel.hpp"
#include "runner.hpp"
#include "shared_library.hpp"

namespace floats_rt {
namespace {

constexpr std::uint32_t kApiVersion = 17;  // the oldest that has all that is used here

template <typename T>
using Handle = std::unique_ptr<T, void (*)(T*)>;

// The library and its environment.
class OnnxRuntime {
 public:
  explicit OnnxRuntime(const std::string& path)
      : library_(path, "FLOATS_RT_ONNXRUNTIME", {"libonnxruntime.so.1", "libonnxruntime.so"}),
        api_(load(library_)),
        environment_(nullptr, api_->ReleaseEnv),
        memory_(nullptr, api_->ReleaseMemoryInfo) {
    environment_ = make(api_->ReleaseEnv, api_->CreateEnv, ORT_LOGGING_LEVEL_ERROR, "floats_rt");
    memory_ = make(api_->ReleaseMemoryInfo, api_->CreateCpuMemoryInfo, OrtDeviceAllocator, OrtMemTypeDefault);
  }

  const OrtApi& api() const noexcept { return *api_; }

  void check(OrtStatus* failure, ErrorCode code = ErrorCode::runtime) const {
    if (!failure) return;
    const Handle<OrtStatus> status(failure, api_->ReleaseStatus);
    throw Error(code, std::string("ONNX Runtime failed: ") + api_->GetErrorMessage(failure) + ".",
                "if memory is short, use a smaller batch; otherwise export the bundle again or update ONNX Runtime");
  }

  // Calls create(arguments..., &object).
  template <typename T, typename Create, typename... Arguments>
  Handle<T> make(void (*release)(T*), Create create, Arguments... arguments) const {
    T* made = nullptr;
    check(create(arguments..., &made));
    return {made, release};
  }

  Handle<OrtSession> session(const Bytes& model, int threads) const {
    const auto options = make(api_->ReleaseSessionOptions, api_->CreateSessionOptions);
    check(api_->SetIntraOpNumThreads(options.get(), threads));
    OrtSession* made = nullptr;
    check(api_->CreateSessionFromArray(environment_.get(), model.data(), model.size(), options.get(), &made),
          ErrorCode::engine_incompatible);
    return {made, api_->ReleaseSession};
  }

  // A tensor over memory that must outlive it.
  Handle<OrtValue> tensor(const void* data, std::size_t bytes, const std::vector<std::int64_t>& shape,
                          ONNXTensorElementDataType type) const {
    return make(api_->ReleaseValue, api_->CreateTensorWithDataAsOrtValue, memory_.get(), const_cast<void*>(data), bytes,
                shape.data(), shape.size(), type);
  }

 private:
  static const OrtApi* load(const SharedLibrary& library) {
    const OrtApiBase* const base = library.get<const OrtApiBase*()>("OrtGetApiBase")();
    if (const OrtApi* const api = base->GetApi(kApiVersion)) return api;
    throw Error(ErrorCode::backend_unavailable,
                library.name() + " is ONNX Runtime " + base->GetVersionString() + ", older than 1.17.",
                "install a newer ONNX Runtime");
  }

  SharedLibrary library_;
  const OrtApi* api_;
  Handle<OrtEnv> environment_;
  Handle<OrtMemoryInfo> memory_;
};

// What the runners of a bundle share; immutable.
struct Network {
  OnnxRuntime runtime;
  InputSpec input;
  OutputSpec output;
  Precision precision;
  std::vector<float> lambdas;                // of the sessions; empty in mode bound
  std::vector<Handle<OrtSession>> sessions;  // one per lambda; one in mode bound
  std::optional<LambdaWeights> weights;      // mode bound
};

// The graph's inputs must be the images and the weights, by name; ONNX Runtime itself checks types and shapes.
void check_inputs(const Network& network) {
  const OrtApi& api = network.runtime.api();
  std::set<std::string> wanted = {network.input.name};
  if (network.weights) {
    for (const WeightTensor& tensor : network.weights->tensors()) wanted.insert(tensor.name);
  }
  OrtAllocator* allocator = nullptr;
  network.runtime.check(api.GetAllocatorWithDefaultOptions(&allocator));
  for (const Handle<OrtSession>& session : network.sessions) {
    std::size_t count = 0;
    network.runtime.check(api.SessionGetInputCount(session.get(), &count));
    std::set<std::string> found;
    for (std::size_t i = 0; i < count; ++i) {
      char* name = nullptr;
      network.runtime.check(api.SessionGetInputName(session.get(), i, allocator, &name));
      found.insert(name);
      network.runtime.check(api.AllocatorFree(allocator, name));
    }
    if (found == wanted) continue;
    throw Error(ErrorCode::bundle_invalid, "a graph of the bundle does not take the inputs that the manifest states.",
                "export the bundle again: floats-edge export CHECKPOINT -o DIR");
  }
}

// A session with its inputs and outputs bound.
class BoundSession {
 public:
  BoundSession(const Network& network, OrtSession* session)
      : network_(network),
        session_(session),
        binding_(network.runtime.make(network.runtime.api().ReleaseIoBinding, network.runtime.api().CreateIoBinding,
                                      session)),
        images_(nullptr, network.runtime.api().ReleaseValue),
        logits_(nullptr, network.runtime.api().ReleaseValue) {}

  void bind_input(const std::string& name, const OrtValue* value) {
    network_.runtime.check(network_.runtime.api().BindInput(binding_.get(), name.c_str(), value));
  }

  void run(const float* images, std::size_t batch, float* logits) {
    if (const Call call{images, batch, logits}; call != bound_) bind(call);
    network_.runtime.check(network_.runtime.api().RunWithBinding(session_, nullptr, binding_.get()));
  }

 private:
  using Call = std::tuple<const float*, std::size_t, float*>;

  // An application that reuses its buffers gets here once.
  void bind(const Call& call) {
    const auto [images, batch, logits] = call;
    const auto rows = static_cast<std::int64_t>(batch);
    const InputSpec& input = network_.input;
    const std::vector<std::int64_t> shape = {rows, static_cast<std::int64_t>(input.channels),
                                             static_cast<std::int64_t>(input.height),
                                             static_cast<std::int64_t>(input.width)};
    const std::size_t classes = network_.output.size();
    bound_ = {};
    images_ = network_.runtime.tensor(images, batch * input.size() * sizeof(float), shape,
                                      ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
    logits_ = network_.runtime.tensor(logits, batch * classes * sizeof(float),
                                      {rows, static_cast<std::int64_t>(classes)}, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
    bind_input(input.name, images_.get());
    network_.runtime.check(
        network_.runtime.api().BindOutput(binding_.get(), network_.output.name.c_str(), logits_.get()));
    bound_ = call;
  }

  const Network& network_;
  OrtSession* session_;
  Handle<OrtIoBinding> binding_;
  Handle<OrtValue> images_, logits_;
  Call bound_{};  // what images_ and logits_ stand for
};

class OnnxRuntimeRunner : public Runner {
 public:
  explicit OnnxRuntimeRunner(std::shared_ptr<const Network> network) : network_(std::move(network)) {
    for (const Handle<OrtSession>& session : network_->sessions) sessions_.emplace_back(*network_, session.get());
    current_ = &sessions_.front();
    if (!network_->weights) return;
    if (network_->precision == Precision::fp16) {
      bind_weights(halves_, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16);
    } else {
      bind_weights(floats_, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
    }
  }

  std::unique_ptr<Runner> clone() const override { return std::make_unique<OnnxRuntimeRunner>(network_); }

  void set_lambda(float lam) override {
    if (!network_->weights) {
      const auto& lambdas = network_->lambdas;
      current_ = &sessions_[static_cast<std::size_t>(std::find(lambdas.begin(), lambdas.end(), lam) - lambdas.begin())];
    } else if (network_->precision == Precision::fp16) {
      network_->weights->at(lam, halves_.data());
    } else {
      network_->weights->at(lam, floats_.data());
    }
  }

  void infer(const float* images, std::size_t batch, float* logits) override { current_->run(images, batch, logits); }

  void infer_async(const float*, std::size_t, float*, CUstream_st*) override {
    throw Error(ErrorCode::backend_unavailable, "ONNX Runtime runs on the CPU here: it has no CUDA stream.",
                "use infer, or Backend::tensorrt");
  }

 private:
  // The graph reads the weights where set_lambda writes them: nothing is copied.
  template <typename Element>
  void bind_weights(std::vector<Element>& buffer, ONNXTensorElementDataType type) {
    buffer.resize(network_->weights->size());
    for (const WeightTensor& tensor : network_->weights->tensors()) {
      weights_.push_back(network_->runtime.tensor(buffer.data() + tensor.offset, tensor.size * sizeof(Element),
                                                  {tensor.shape.begin(), tensor.shape.end()}, type));
      sessions_.front().bind_input(tensor.name, weights_.back().get());
    }
  }

  std::shared_ptr<const Network> network_;
  std::vector<float> floats_;  // W(lambda) in mode bound, in the one of the two that the precision asks for
  std::vector<Half> halves_;
  std::vector<Handle<OrtValue>> weights_;
  std::vector<BoundSession> sessions_;
  BoundSession* current_;
};

}  // namespace

void check_onnxruntime(const Bundle&, const Options& options) { OnnxRuntime{options.onnxruntime_library}; }

std::unique_ptr<Runner> open_onnxruntime(const Bundle& bundle, const Options& options) {
  const Manifest& manifest = bundle.manifest();
  auto network = std::make_shared<Network>(Network{
      OnnxRuntime(options.onnxruntime_library), manifest.input, manifest.output, manifest.precision, {}, {}, {}});
  for (const Graph& graph : manifest.graphs) {
    network->sessions.push_back(network->runtime.session(bundle.read(graph.file), options.threads));
    if (graph.lam) network->lambdas.push_back(*graph.lam);
  }
  if (manifest.mode == Mode::bound) {
    const Bytes weights = bundle.read(manifest.weights);
    network->weights.emplace(manifest, read_safetensors(weights), thread_count(options.threads));
  }
  check_inputs(*network);
  return std::make_unique<OnnxRuntimeRunner>(std::move(network));
}

}  // namespace floats_rt
