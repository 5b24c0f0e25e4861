// Bundles on ONNX Runtime's CPU.
#include <algorithm>
#include <cstring>
#include <map>
#include <tuple>
#include <utility>

#include "graph_check.hpp"
#include "lambda_tensors.hpp"
#include "onnxruntime_library.hpp"
#include "parallel.hpp"
#include "runner.hpp"

namespace floats_rt {
namespace {

// What the runners of a bundle share; immutable.
struct Network {
  Options options;  // outlives all that logs
  OnnxRuntime runtime;
  InputSpec input;
  OutputSpec output;
  std::vector<Handle<OrtSession>> sessions;  // one per lambda in modes fixed and bank, one in modes bound and input
  std::vector<float> lambdas;                // of the sessions in modes fixed and bank
  std::optional<LambdaTensors> tensors;      // modes bound, input and refit
  Bytes model;                               // mode refit: the graph, and where in it each of the tensors lies
  std::vector<std::size_t> places;
};

[[noreturn]] void invalid_graph(const std::string& what) {
  throw Error(ErrorCode::bundle_invalid, "a graph of the bundle does not " + what + " that the manifest states.",
              "export the bundle again: floats-edge export CHECKPOINT -o DIR");
}

ONNXTensorElementDataType onnx_type(Element element) {
  switch (element) {
    case Element::f32:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    case Element::f16:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
    case Element::bf16:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
    case Element::i8:
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
  }
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

// What a graph takes or gives: an element's type and a shape, in which -1 is an axis of any size, as the batch is.
struct Described {
  ONNXTensorElementDataType type;
  std::vector<std::int64_t> shape;

  bool operator==(const Described& other) const { return type == other.type && shape == other.shape; }
};
using DescribedByName = std::map<std::string, Described>;

std::vector<std::int64_t> signed_shape(const std::vector<std::size_t>& shape) { return {shape.begin(), shape.end()}; }

Described described(const OnnxRuntime& runtime, const OrtTypeInfo* type) {
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;
  runtime.check(runtime.api().CastTypeInfoToTensorInfo(type, &tensor));
  if (!tensor) return {ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED, {}};  // a sequence, a map
  Described found{};
  std::size_t axes = 0;
  runtime.check(runtime.api().GetTensorElementType(tensor, &found.type));
  runtime.check(runtime.api().GetDimensionsCount(tensor, &axes));
  found.shape.resize(axes);
  runtime.check(runtime.api().GetDimensions(tensor, found.shape.data(), axes));
  return found;
}

// The inputs or the outputs of a session, by the functions of the API that count, name and describe these.
template <typename Count, typename GetName, typename GetType>
DescribedByName described(const OnnxRuntime& runtime, const OrtSession* session, Count count, GetName get_name,
                          GetType get_type) {
  OrtAllocator* allocator = nullptr;
  runtime.check(runtime.api().GetAllocatorWithDefaultOptions(&allocator));
  std::size_t number = 0;
  runtime.check(count(session, &number));
  DescribedByName found;
  for (std::size_t i = 0; i < number; ++i) {
    const auto type = runtime.make(runtime.api().ReleaseTypeInfo, get_type, session, i);
    char* name = nullptr;
    runtime.check(get_name(session, i, allocator, &name));
    found.emplace(name, described(runtime, type.get()));
    runtime.check(runtime.api().AllocatorFree(allocator, name));
  }
  return found;
}

// The graph must take the images and, in modes bound and input, what depends on lambda, and give the logits.
void check_session(const Network& network, const OrtSession* session) {
  const OrtApi& api = network.runtime.api();
  const InputSpec& input = network.input;
  std::vector<std::int64_t> images = signed_shape({input.channels, input.height, input.width});
  images.insert(images.begin(), -1);
  const auto classes = static_cast<std::int64_t>(network.output.size());
  DescribedByName inputs;
  if (network.tensors && network.model.empty()) {
    for (const LambdaTensor& tensor : network.tensors->tensors()) {
      inputs[tensor.name] = {onnx_type(tensor.element), signed_shape(tensor.shape)};
    }
  }
  inputs[input.name] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, images};
  const DescribedByName outputs = {{network.output.name, {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, {-1, classes}}}};
  if (described(network.runtime, session, api.SessionGetInputCount, api.SessionGetInputName,
                api.SessionGetInputTypeInfo) != inputs) {
    invalid_graph("take the inputs");
  }
  if (described(network.runtime, session, api.SessionGetOutputCount, api.SessionGetOutputName,
                api.SessionGetOutputTypeInfo) != outputs) {
    invalid_graph("give the logits");
  }
}

// Where in a serialised model the elements of each tensor lie.
std::vector<std::size_t> places_of(const std::vector<LambdaTensor>& tensors, const Bytes& model) {
  const auto constants = checked_constants(model);
  std::vector<std::size_t> places;
  for (const LambdaTensor& tensor : tensors) {
    const auto found = constants.find(tensor.name);
    const std::vector<std::int64_t> dims(tensor.shape.begin(), tensor.shape.end());
    if (found == constants.end() || found->second.type != onnx_type(tensor.element) || found->second.dims != dims) {
      invalid_graph("hold the weights");
    }
    places.push_back(static_cast<std::size_t>(found->second.raw.begin() - model.data()));
  }
  return places;
}

// A session with its inputs and outputs bound.
class BoundSession {
 public:
  BoundSession(const Network& network, OrtSession* session)
      : network_(network),
        session_(session),
        options_(network.runtime.make(network.runtime.api().ReleaseRunOptions, network.runtime.api().CreateRunOptions)),
        binding_(network.runtime.make(network.runtime.api().ReleaseIoBinding, network.runtime.api().CreateIoBinding,
                                      session)),
        images_(nullptr, network.runtime.api().ReleaseValue),
        logits_(nullptr, network.runtime.api().ReleaseValue) {}

  void bind_input(const std::string& name, const OrtValue* value) {
    network_.runtime.check(network_.runtime.api().BindInput(binding_.get(), name.c_str(), value));
  }

  void run(const float* images, std::size_t batch, float* logits, Interruption& interruption) {
    const OrtApi& api = network_.runtime.api();
    if (const Call call{images, batch, logits}; call != bound_) bind(call);
    network_.runtime.check(api.RunOptionsUnsetTerminate(options_.get()));
    const Interruption::Handler handler(interruption, [this] {
      network_.runtime.check(network_.runtime.api().RunOptionsSetTerminate(options_.get()));
    });
    try {
      network_.runtime.check(api.RunWithBinding(session_, options_.get(), binding_.get()));
    } catch (const Error&) {
      interruption.check();  // one that was made to end fails like any other
      throw;
    }
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
  Handle<OrtRunOptions> options_;
  Handle<OrtIoBinding> binding_;
  Handle<OrtValue> images_, logits_;
  Call bound_{};  // what images_ and logits_ stand for
};

// Modes fixed and bank: a session per lambda.
class BankRunner : public Runner {
 public:
  explicit BankRunner(std::shared_ptr<const Network> network) : network_(std::move(network)) {
    for (const Handle<OrtSession>& session : network_->sessions) sessions_.emplace_back(*network_, session.get());
  }

  std::unique_ptr<Runner> clone() const override { return std::make_unique<BankRunner>(network_); }
  std::string version() const override { return network_->runtime.version(); }

  void set_lambda(float lam) override {
    prepare(lam);
    take();
  }

  void prepare(float lam) override {
    const auto& lambdas = network_->lambdas;
    next_ = static_cast<std::size_t>(std::find(lambdas.begin(), lambdas.end(), lam) - lambdas.begin());
  }

  void take() noexcept override { current_ = next_; }

  void infer(const float* images, std::size_t batch, float* logits, Interruption& interruption) override {
    sessions_[current_].run(images, batch, logits, interruption);
  }

 private:
  std::shared_ptr<const Network> network_;
  std::vector<BoundSession> sessions_;
  std::size_t current_ = 0, next_ = 0;
};

// Memory that a session reads the weights from, or lambda: nothing is copied.
class LambdaInputs {
 public:
  explicit LambdaInputs(const Network& network)
      : network_(network), buffer_(network.tensors->bytes()), session_(network, network.sessions.front().get()) {
    for (const LambdaTensor& tensor : network.tensors->tensors()) {
      values_.push_back(network.runtime.tensor(buffer_.data() + tensor.offset, tensor.bytes(),
                                               {tensor.shape.begin(), tensor.shape.end()}, onnx_type(tensor.element)));
      session_.bind_input(tensor.name, values_.back().get());
    }
  }

  void put(float lam, std::size_t threads) { network_.tensors->at(lam, buffer_.data(), threads); }
  BoundSession& session() noexcept { return session_; }

 private:
  const Network& network_;
  std::vector<std::byte> buffer_;
  std::vector<Handle<OrtValue>> values_;
  BoundSession session_;
};

// Modes bound and input: set_lambda writes where the session reads, prepare where the next one will.
class InputRunner : public Runner {
 public:
  explicit InputRunner(std::shared_ptr<const Network> network)
      : network_(std::move(network)), current_(std::make_unique<LambdaInputs>(*network_)) {}

  std::unique_ptr<Runner> clone() const override { return std::make_unique<InputRunner>(network_); }
  std::string version() const override { return network_->runtime.version(); }
  void set_lambda(float lam) override { current_->put(lam, thread_count(network_->options.threads)); }

  void prepare(float lam) override {
    if (!next_) next_ = std::make_unique<LambdaInputs>(*network_);
    next_->put(lam, 1);  // the other cores are for the inference
  }

  void take() noexcept override { current_.swap(next_); }

  void infer(const float* images, std::size_t batch, float* logits, Interruption& interruption) override {
    current_->session().run(images, batch, logits, interruption);
  }

 private:
  std::shared_ptr<const Network> network_;
  std::unique_ptr<LambdaInputs> current_, next_;  // the other since the first prepare
};

// Mode refit: ONNX Runtime cannot refit a session, so switching makes a new one, of the graph with the weights at
// lambda.
class RefitRunner : public Runner {
 public:
  explicit RefitRunner(std::shared_ptr<const Network> network)
      : network_(std::move(network)), model_(network_->model), buffer_(network_->tensors->bytes()) {}

  std::unique_ptr<Runner> clone() const override { return std::make_unique<RefitRunner>(network_); }
  std::string version() const override { return network_->runtime.version(); }

  void set_lambda(float lam) override {
    make(lam, thread_count(network_->options.threads));
    take();
    next_.reset();
  }

  void prepare(float lam) override { make(lam, 1); }
  void take() noexcept override { current_.swap(next_); }
  void infer(const float* images, std::size_t batch, float* logits, Interruption& interruption) override {
    current_->bound.run(images, batch, logits, interruption);
  }

 private:
  struct Refitted {
    Handle<OrtSession> session;
    BoundSession bound;
  };

  void make(float lam, std::size_t threads) {
    next_.reset();  // at most two are there at once
    network_->tensors->at(lam, buffer_.data(), threads);
    for (std::size_t i = 0; i < network_->places.size(); ++i) {
      const LambdaTensor& tensor = network_->tensors->tensors()[i];
      std::memcpy(model_.data() + network_->places[i], buffer_.data() + tensor.offset, tensor.bytes());
    }
    Handle<OrtSession> session = network_->runtime.session(model_, network_->options);
    check_session(*network_, session.get());
    BoundSession bound(*network_, session.get());
    next_ = std::make_unique<Refitted>(Refitted{std::move(session), std::move(bound)});
  }

  std::shared_ptr<const Network> network_;
  Bytes model_;
  std::vector<std::byte> buffer_;
  std::unique_ptr<Refitted> current_, next_;
};

void check_precision(const Manifest& manifest) {
  if (manifest.precision != Precision::bf16) return;
  throw Error(ErrorCode::engine_incompatible, "the bundle is in bf16, and ONNX Runtime's CPU has no bf16 convolution.",
              "use Backend::tensorrt, or export with --precision fp32, fp16 or int8");
}

}  // namespace

void check_onnxruntime(const Bundle& bundle, const Options& options) {
  OnnxRuntime{options.onnxruntime_library};
  check_precision(bundle.manifest());
}

std::unique_ptr<Runner> open_onnxruntime(const Bundle& bundle, const Options& options) {
  const Manifest& manifest = bundle.manifest();
  OnnxRuntime runtime(options.onnxruntime_library);
  check_precision(manifest);
  auto network = std::make_shared<Network>(Network{options,
                                                   std::move(runtime),
                                                   manifest.input,
                                                   manifest.output,
                                                   {},
                                                   {},
                                                   lambda_tensors(bundle, options.threads),
                                                   {},
                                                   {}});
  if (manifest.mode == Mode::refit) {
    network->model = bundle.read(manifest.graphs.front().file);
    network->places = places_of(network->tensors->tensors(), network->model);
    return std::make_unique<RefitRunner>(std::move(network));
  }
  for (const Graph& graph : manifest.graphs) {
    const Bytes model = bundle.read(graph.file);
    checked_constants(model);
    network->sessions.push_back(network->runtime.session(model, network->options));
    check_session(*network, network->sessions.back().get());
    if (graph.lam) network->lambdas.push_back(*graph.lam);
  }
  if (network->tensors) return std::make_unique<InputRunner>(std::move(network));
  return std::make_unique<BankRunner>(std::move(network));
}

}  // namespace floats_rt
