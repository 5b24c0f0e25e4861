#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <utility>

#include "border.hpp"
#include "bundle.hpp"
#include "floats_rt/floats_rt.hpp"
#include "golden.hpp"
#include "image.hpp"
#include "lambda_requests.hpp"
#include "log.hpp"
#include "runner.hpp"

namespace floats_rt {

struct Model::State {
  std::shared_ptr<const Bundle> bundle;
  Options options;
  Backend backend;
  std::unique_ptr<Runner> runner;
  std::string backend_version = runner->version();
  std::atomic<float> lambda{std::numeric_limits<float>::quiet_NaN()};  // none yet
  std::atomic<bool> broken{false};
  Preprocessor preprocessor{bundle->manifest().preprocessing};
  std::vector<float> pixels{};  // where the runner has no memory for them
  Interruption interruption{};
  LambdaRequests requests{*runner, options};  // ends before what it works on

  State(std::shared_ptr<const Bundle> from, const Options& with, Backend on, std::unique_ptr<Runner> running)
      : bundle(std::move(from)), options(with), backend(on), runner(std::move(running)) {}

  const Manifest& manifest() const noexcept { return bundle->manifest(); }

  // Puts a lambda in force, in place of all that was requested before.
  void put(float lam) {
    const LambdaRequests::Replacement replacement(requests, lam);
    if (lam == lambda) return;
    try {
      runner->set_lambda(lam);
    } catch (const std::exception&) {
      broken = true;
      throw;
    }
    lambda = lam;
  }

  // Puts in force what was asked for and is made.
  void take() noexcept {
    if (const auto taken = requests.take()) lambda = *taken;
  }

  // Where the pixels of a batch are made.
  float* pixels_for(std::size_t batch) {
    const std::size_t size = batch * manifest().input.size();
    const Span<float> staging = runner->staging(interruption);
    if (staging.size() >= size) return staging.data();
    pixels.resize(size);
    return pixels.data();
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

// Calls attempt(backend). For `automatic` that is attempt(tensorrt), and attempt(onnxruntime) if it fails for the
// backend's sake: nothing to be warned of where the bundle has no engines.
template <typename Attempt>
auto with_backend(const Bundle& bundle, const Options& options, const Attempt& attempt) {
  if (options.backend != Backend::automatic) return attempt(options.backend);
  try {
    return attempt(Backend::tensorrt);
  } catch (const Error& error) {
    if (!is_about_backend(error.code())) throw;
    report(options, bundle.manifest().engines.empty() ? Severity::info : Severity::warning,
           std::string("ONNX Runtime on the CPU instead of TensorRT: ") + error.what());
    return attempt(Backend::onnxruntime);
  }
}

float first_lambda(const Manifest& manifest) {
  return manifest.lambdas.values.empty() ? 0.0f : manifest.lambdas.values.front();
}

const char* name_of(Backend backend) { return backend == Backend::tensorrt ? "trt" : "ort-cpu"; }

std::optional<Verdict> verdict_on(Backend backend, const Bundle& bundle) {
  const auto found = bundle.manifest().verdicts.find(name_of(backend));
  if (found == bundle.manifest().verdicts.end()) return std::nullopt;
  return found->second;
}

// What mends a bundle that computes something else on this backend than it should.
std::string mend(Backend backend, const Bundle& bundle) {
  const std::string path = bundle.path().string();
  return backend == Backend::tensorrt
             ? "rebuild the engine on this machine: floats-edge export " + path + " -o " + path + " --trt"
             : "export it again: floats-edge export CHECKPOINT -o DIR";
}

// Throws Error, engine_incompatible, unless the runner gives the golden logits of its bundle.
void check_golden(Runner& runner, Backend backend, const Bundle& bundle) {
  const GoldenOutputs golden = read_golden(bundle);
  std::vector<float> logits(golden.batch * bundle.manifest().output.size());
  Interruption never;
  for (std::size_t i = 0; i < golden.logits.size(); ++i) {
    const float lam = bundle.manifest().golden.lambdas[i];
    runner.set_lambda(lam);
    runner.infer(golden.images.data(), golden.batch, logits.data(), never);
    const auto agrees = [&](float got, float wanted) { return std::abs(double{got} - wanted) <= golden.allowed[i]; };
    if (std::equal(logits.begin(), logits.end(), golden.logits[i].begin(), agrees)) continue;
    throw Error(ErrorCode::engine_incompatible,
                "the backend differs from the golden logits at lambda " + std::to_string(lam) + " by more than " +
                    std::to_string(golden.allowed[i]) + ".",
                mend(backend, bundle));
  }
}

// What floats-edge verify found wrong on a backend, if that is not let pass: throws Error, engine_incompatible.
void check_verdict(Backend backend, const Bundle& bundle) {
  const std::string name = name_of(backend), path = bundle.path().string();
  const std::optional<Verdict> found = verdict_on(backend, bundle);
  if (!found || found->problems.empty() || found->let_pass) return;
  throw Error(ErrorCode::engine_incompatible, path + " failed floats-edge verify on " + name + ": " + found->problems,
              mend(backend, bundle) + "; or, to use it all the same: floats-edge verify " + path + " --backend " +
                  name + " --allow-mismatch");
}

// Says what was found wrong with the bundle and let pass; what of its engines, the backend says.
void report_let_pass(Backend backend, const Bundle& bundle, const Options& options) {
  const Manifest& manifest = bundle.manifest();
  const std::string path = bundle.path().string();
  if (!manifest.mismatch.empty()) {
    report(options, Severity::warning, path + " was exported with --allow-mismatch: " + manifest.mismatch);
  }
  const std::optional<Verdict> found = verdict_on(backend, bundle);
  if (!found || found->problems.empty()) return;
  report(options, Severity::warning,
         path + " failed floats-edge verify on " + name_of(backend) + " (" + found->library + "): " + found->problems +
             " It was let pass with --allow-mismatch.");
}

std::unique_ptr<Runner> open(Backend backend, const Bundle& bundle, const Options& options) {
  check_verdict(backend, bundle);
  auto runner = backend == Backend::tensorrt ? open_tensorrt(bundle, options) : open_onnxruntime(bundle, options);
  if (options.check_golden) check_golden(*runner, backend, bundle);
  report_let_pass(backend, bundle, options);
  return runner;
}

}  // namespace

std::optional<Error> check_compatibility(const std::string& directory, const Options& options) {
  try {
    translated([&] {
      const Bundle bundle(directory, options.max_bytes);
      with_backend(bundle, options, [&](Backend backend) {
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
    auto state = with_backend(*bundle, options, [&](Backend backend) {
      return std::make_unique<State>(bundle, options, backend, open(backend, *bundle, options));
    });
    state->put(first_lambda(bundle->manifest()));
    return Model(std::move(state));
  });
}

Model Model::clone() const {
  return translated([&] {
    state_->check_usable();
    auto state = std::make_unique<State>(state_->bundle, state_->options, state_->backend, state_->runner->clone());
    state->put(state_->lambda);
    state->interruption.set_limit(state_->interruption.limit());
    return Model(std::move(state));
  });
}

Model::Model(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;
Model::~Model() = default;

const InputSpec& Model::input() const noexcept { return state_->manifest().input; }
const Preprocessing& Model::preprocessing() const noexcept { return state_->manifest().preprocessing; }
const OutputSpec& Model::output() const noexcept { return state_->manifest().output; }
const LambdaRange& Model::lambda_range() const noexcept { return state_->manifest().lambdas; }
Mode Model::mode() const noexcept { return state_->manifest().mode; }
Precision Model::precision() const noexcept { return state_->manifest().precision; }
Backend Model::backend() const noexcept { return state_->backend; }
const std::string& Model::backend_version() const noexcept { return state_->backend_version; }
std::optional<Verdict> Model::verdict() const { return verdict_on(state_->backend, *state_->bundle); }
float Model::lambda() const noexcept { return state_->lambda; }

float Model::set_lambda(float lambda) {
  return translated([&] {
    state_->check_usable();
    state_->check_served(lambda);
    state_->put(lambda);
    return lambda;
  });
}

void Model::request_lambda(float lambda) {
  translated([&] {
    state_->check_usable();
    state_->check_served(lambda);
    state_->requests.request(lambda);
  });
}

std::optional<Error> Model::request_failure() const { return state_->requests.failure(); }

void Model::infer(Span<const float> images, std::size_t batch, Span<float> logits) {
  translated([&] {
    state_->check_usable();
    state_->check_shape(batch);
    state_->check_span("the images", images.size(), batch, input().size());
    state_->check_span("the logits", logits.size(), batch, output().size());
    const Interruption::Running running(state_->interruption);
    state_->take();
    state_->runner->infer(images.data(), batch, logits.data(), state_->interruption);
  });
}

void Model::infer(Span<const ImageView> images, Span<float> logits) {
  translated([&] {
    const std::size_t batch = images.size();
    state_->check_usable();
    state_->check_shape(batch);
    state_->check_span("the logits", logits.size(), batch, output().size());
    for (const ImageView& image : images) state_->preprocessor.check(image);
    const Interruption::Running running(state_->interruption);
    state_->take();
    float* const pixels = state_->pixels_for(batch);
    for (std::size_t i = 0; i < batch; ++i) {
      state_->interruption.check();
      state_->preprocessor.run(images[i], pixels + i * input().size());
    }
    state_->runner->infer(pixels, batch, logits.data(), state_->interruption);
  });
}

void Model::infer(const ImageView& image, Span<float> logits) { infer(Span<const ImageView>(&image, 1), logits); }

void Model::preprocess(const ImageView& image, Span<float> pixels) {
  translated([&] {
    state_->check_span("the pixels", pixels.size(), 1, input().size());
    state_->preprocessor.check(image);
    state_->preprocessor.run(image, pixels.data());
  });
}

void Model::cancel() {
  translated([&] { state_->interruption.cancel(); });
}

void Model::set_time_limit(std::chrono::nanoseconds limit) {
  translated([&] { state_->interruption.set_limit(limit); });
}

void Model::infer_async(const float* device_images, std::size_t batch, float* device_logits, CUstream_st* stream) {
  translated([&] {
    state_->check_usable();
    state_->check_shape(batch);
    state_->take();
    state_->runner->infer_async(device_images, batch, device_logits, stream);
  });
}

}  // namespace floats_rt
