#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "border.hpp"
#include "bundle.hpp"
#include "floats_rt/floats_rt.hpp"
#include "log.hpp"
#include "runner.hpp"
#include "safetensors.hpp"

namespace floats_rt {

struct Model::State {
  std::shared_ptr<const Bundle> bundle;
  Backend backend;
  std::unique_ptr<Runner> runner;
  float lambda;
  bool broken = false;

  const Manifest& manifest() const noexcept { return bundle->manifest(); }

  void put(float lam) {
    broken = true;  // unless the next line ends well
    runner->set_lambda(lam);
    broken = false;
    lambda = lam;
  }

  void check_usable() const {
    if (!broken) return;
    throw Error(ErrorCode::runtime, "an earlier set_lambda failed and left this model's weights undefined.",
                "load the bundle again");
  }

  void check_served(float lam) const {
    if (!(lam >= 0 && lam <= 1)) {
      throw Error(ErrorCode::lambda_out_of_range, "lambda must be a number in [0, 1], not " + std::to_string(lam) + ".",
                  "choose a lambda from 0 (clean) to 1 (robust)");
    }
    const std::vector<float>& values = manifest().lambdas.values;
    if (!values.empty() && std::find(values.begin(), values.end(), lam) == values.end()) {
      throw Error(ErrorCode::lambda_unsupported, "this bundle does not serve lambda " + std::to_string(lam) + ".",
                  "choose one of lambda_range().values, or export with --lambda runtime for any lambda");
    }
  }

  void check_shape(std::size_t batch) const {
    const std::size_t largest = std::numeric_limits<std::ptrdiff_t>::max() / sizeof(float) /
                                (manifest().input.size() + manifest().output.size());
    if (batch >= 1 && batch <= largest) return;
    throw Error(ErrorCode::bad_shape, "a batch of " + std::to_string(batch) + " cannot be run.",
                "run at least one image");
  }

  void check_span(const char* what, std::size_t size, std::size_t batch, std::size_t each) const {
    if (size == batch * each) return;
    throw Error(ErrorCode::bad_shape,
                std::string(what) + " hold " + std::to_string(size) + " floats; a batch of " + std::to_string(batch) +
                    " has " + std::to_string(batch * each) + ".",
                "pass spans of batch * input().size() and batch * output().size() floats");
  }
};

namespace {

// Whether another backend may do where one failed like this.
bool is_about_backend(ErrorCode code) {
  return code == ErrorCode::backend_unavailable || code == ErrorCode::no_device ||
         code == ErrorCode::engine_incompatible;
}

// Calls attempt(backend), and if that fails for the backend's sake and the options ask for it, attempt(onnxruntime).
template <typename Attempt>
auto with_fallback(const Options& options, const Attempt& attempt) {
  try {
    return attempt(options.backend);
  } catch (const Error& error) {
    if (!options.cpu_fallback || options.backend == Backend::onnxruntime || !is_about_backend(error.code())) throw;
    report(options, std::string("running on the CPU with ONNX Runtime instead of TensorRT: ") + error.what());
    return attempt(Backend::onnxruntime);
  }
}

float first_lambda(const Manifest& manifest) {
  return manifest.lambdas.values.empty() ? 0.0f : manifest.lambdas.values.front();
}

// The float32 values of a tensor of rows of `each`; there are `rows` of them, or any number from 1 on if that is 0.
std::vector<float> golden_values(const Tensors& tensors, const std::string& name, std::size_t rows, std::size_t each) {
  const auto found = tensors.find(name);
  if (found != tensors.end() && found->second.dtype == DType::f32) {
    std::vector<float> values = to_floats(found->second);
    const bool right = rows ? values.size() == rows * each : !values.empty() && values.size() % each == 0;
    if (right) return values;
  }
  throw Error(ErrorCode::bundle_invalid, "the golden outputs do not fit the manifest: " + name + ".",
              "export the bundle again: floats-edge export CHECKPOINT -o DIR");
}

// Throws Error, engine_incompatible, unless the runner gives the golden logits of its bundle.
void check_golden(Runner& runner, const Bundle& bundle) {
  const Manifest& manifest = bundle.manifest();
  const Bytes file = bundle.read(manifest.golden.file);
  const Tensors tensors = read_safetensors(file);
  const std::vector<float> images = golden_values(tensors, "images", 0, manifest.input.size());
  const std::size_t batch = images.size() / manifest.input.size();
  std::vector<float> logits(batch * manifest.output.size());
  for (std::size_t i = 0; i < manifest.golden.lambdas.size(); ++i) {
    const std::string name = "logits_" + std::to_string(i);
    const std::vector<float> wanted = golden_values(tensors, name, batch, manifest.output.size());
    runner.set_lambda(manifest.golden.lambdas[i]);
    runner.infer(images.data(), batch, logits.data());
    const auto [least, most] = std::minmax_element(wanted.begin(), wanted.end());
    const double allowed = manifest.golden.tolerance * (double{*most} - *least);
    const auto agrees = [&](float got, float want) { return std::abs(double{got} - want) <= allowed; };
    if (std::equal(logits.begin(), logits.end(), wanted.begin(), agrees)) continue;
    throw Error(ErrorCode::engine_incompatible,
                "the backend differs from the golden logits at lambda " + std::to_string(manifest.golden.lambdas[i]) +
                    " by more than " + std::to_string(allowed) + ".",
                "rebuild the engine on this machine: floats-edge export " + bundle.path().string() + " -o " +
                    bundle.path().string() + " --trt");
  }
}

// Throws Error, engine_incompatible, if floats-edge verify found that the bundle fails on this backend.
void check_verdict(Backend backend, const Bundle& bundle) {
  const std::string name = backend == Backend::tensorrt ? "trt" : "ort-cpu", path = bundle.path().string();
  const auto found = bundle.manifest().failed.find(name);
  if (found == bundle.manifest().failed.end()) return;
  const std::string rebuild =
      "rebuild the engine on this machine: floats-edge export " + path + " -o " + path + " --trt";
  throw Error(ErrorCode::engine_incompatible, path + " failed floats-edge verify on " + name + ": " + found->second,
              (backend == Backend::tensorrt ? rebuild : "export it again: floats-edge export CHECKPOINT -o DIR") +
                  "; or, to use it all the same: floats-edge verify " + path + " --backend " + name +
                  " --allow-mismatch");
}

std::unique_ptr<Runner> open(Backend backend, const Bundle& bundle, const Options& options) {
  check_verdict(backend, bundle);
  auto runner = backend == Backend::tensorrt ? open_tensorrt(bundle, options) : open_onnxruntime(bundle, options);
  if (options.check_golden) check_golden(*runner, bundle);
  return runner;
}

}  // namespace

std::optional<Error> check_compatibility(const std::string& directory, const Options& options) {
  try {
    translated([&] {
      const Bundle bundle(directory, options.max_bytes);
      with_fallback(options, [&](Backend backend) {
        check_verdict(backend, bundle);
        backend == Backend::tensorrt ? check_tensorrt(bundle, options) : check_onnxruntime(bundle, options);
      });
    });
    return std::nullopt;
  } catch (const Error& error) {
    return error;
  }
}

Model Model::load(const std::string& directory, const Options& options) {
  return translated([&] {
    const auto bundle = std::make_shared<const Bundle>(directory, options.max_bytes);
    auto state = with_fallback(options, [&](Backend backend) {
      return std::make_unique<State>(State{bundle, backend, open(backend, *bundle, options), 0});
    });
    state->put(first_lambda(bundle->manifest()));
    return Model(std::move(state));
  });
}

Model Model::clone() const {
  return translated([&] {
    state_->check_usable();
    auto state = std::make_unique<State>(State{state_->bundle, state_->backend, state_->runner->clone(), 0});
    state->put(state_->lambda);
    return Model(std::move(state));
  });
}

Model::Model(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;
Model::~Model() = default;

const InputSpec& Model::input() const noexcept { return state_->manifest().input; }
const OutputSpec& Model::output() const noexcept { return state_->manifest().output; }
const LambdaRange& Model::lambda_range() const noexcept { return state_->manifest().lambdas; }
Backend Model::backend() const noexcept { return state_->backend; }
float Model::lambda() const noexcept { return state_->lambda; }

float Model::set_lambda(float lambda) {
  return translated([&] {
    state_->check_usable();
    state_->check_served(lambda);
    if (lambda != state_->lambda) state_->put(lambda);
    return lambda;
  });
}

void Model::infer(Span<const float> images, std::size_t batch, Span<float> logits) {
  translated([&] {
    state_->check_usable();
    state_->check_shape(batch);
    state_->check_span("the images", images.size(), batch, input().size());
    state_->check_span("the logits", logits.size(), batch, output().size());
    state_->runner->infer(images.data(), batch, logits.data());
  });
}

void Model::infer_async(const float* device_images, std::size_t batch, float* device_logits, CUstream_st* stream) {
  translated([&] {
    state_->check_usable();
    state_->check_shape(batch);
    state_->runner->infer_async(device_images, batch, device_logits, stream);
  });
}

}  // namespace floats_rt
