// Bundles with engines for the fake TensorRT, and what those should give.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <sstream>

#include "bundle_copy.hpp"
#include "floats_rt/floats_rt.hpp"
#include "lambda_tensors.hpp"
#include "sha256.hpp"
#include "tensorrt_host.hpp"

namespace floats_rt {

inline constexpr std::size_t kPixels = 256, kClasses = 10;

inline Options with_fake_tensorrt() {
  Options options;
  options.backend = Backend::tensorrt;
  options.tensorrt_library = FAKE_NVINFER;
  options.check_golden = false;  // the fake computes something else
  options.threads = 1;
  return options;
}

inline const char* type_name(Element element) {
  switch (element) {
    case Element::f32:
      return "f32";
    case Element::f16:
      return "f16";
    case Element::bf16:
      return "bf16";
    default:
      return "i8";
  }
}

// The text of a plan for a bundle: see fakes/fake_nvinfer.cpp.
inline std::string plan_text(const Bundle& bundle, const std::string& more) {
  std::ostringstream plan;
  plan << "images f32 -1 1 16 16\nlogits f32 -1 10\n";
  const bool refit = bundle.manifest().mode == Mode::refit;
  if (const auto tensors = lambda_tensors(bundle, 1)) {
    for (const LambdaTensor& tensor : tensors->tensors()) {
      if (refit && !tensor.varies) continue;
      plan << (refit ? "refittable " : "") << tensor.name << ' ' << type_name(tensor.element);
      for (const std::size_t axis : tensor.shape) plan << ' ' << axis;
      plan << '\n';
    }
  }
  plan << more;
  return plan.str();
}

// A copy of a bundle with a plan for every graph; the plan of lambda L adds L.
class EngineBundle : public BundleCopy {
 public:
  explicit EngineBundle(const std::string& name, const std::string& more = "",
                        const nlohmann::json& changes = nlohmann::json::object())
      : BundleCopy(name) {
    const Bundle bundle(path().string());
    change_manifest([&](nlohmann::json& manifest) {
      for (std::size_t i = 0; i < manifest["graphs"].size(); ++i) {
        const nlohmann::json lam = manifest["graphs"][i]["lam"];
        const std::string file = "engine" + std::to_string(i) + ".plan";
        const std::string text = plan_text(bundle, more + "\nadd " + (lam.is_null() ? "0" : lam.dump()));
        nlohmann::json engine = {{"file", file},
                                 {"lam", lam},
                                 {"flavour", "tensorrt"},
                                 {"version", "10.14.1.48.post1"},
                                 {"platform", FAKE_PLATFORM},
                                 {"targets", {compute_capability(0)}},
                                 {"precision", manifest["precision"]},
                                 {"batch", {2, 3, 4}}};
        engine.update(changes);
        manifest["engines"].push_back(engine);
        write_plan(manifest, file, text);
      }
    });
  }

  void write_plan(nlohmann::json& manifest, const std::string& file, const std::string& text) const {
    const auto* const bytes = reinterpret_cast<const std::uint8_t*>(text.data());
    manifest["files"][file] = {{"sha256", sha256(bytes, text.size())}, {"bytes", text.size()}};
    write_file(path() / file, text);
  }

  Model load(const Options& options = with_fake_tensorrt()) const { return Model::load(path().string(), options); }

  ErrorCode refusal(const Options& options = with_fake_tensorrt()) const {
    return code_of([&] { load(options); });
  }

  // The same, and that it is known beforehand.
  ErrorCode foreseen_refusal(const Options& options = with_fake_tensorrt()) const {
    const std::optional<Error> reason = check_compatibility(path().string(), options);
    REQUIRE(reason);
    CHECK(reason->code() == refusal(options));
    return reason->code();
  }
};

inline std::vector<float> some_images(std::size_t batch) {
  std::vector<float> images(batch * kPixels);
  for (std::size_t i = 0; i < images.size(); ++i) images[i] = static_cast<float>(i % 97) / 97;
  return images;
}

// Others, so that logits of those are wrong for them.
inline std::vector<float> other_images(std::size_t batch) {
  std::vector<float> images = some_images(batch);
  std::reverse(images.begin(), images.end());
  return images;
}

inline std::vector<float> logits_of(Model& model, const std::vector<float>& images) {
  std::vector<float> logits(images.size() / kPixels * kClasses);
  model.infer(images, images.size() / kPixels, logits);
  return logits;
}

// Asks for a lambda, and infers until it is in force or could not be made.
inline void request(Model& model, float lam, const std::vector<float>& images) {
  model.request_lambda(lam);
  while (model.lambda() != lam && !model.request_failure()) logits_of(model, images);
}

// What the fake should give for one image when its weights and what it adds sum up to `sum`.
inline void check_logits(const std::vector<float>& logits, const std::vector<float>& images, double sum) {
  REQUIRE(logits.size() * kPixels == images.size() * kClasses);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const float* const image = images.data() + i / kClasses * kPixels;
    const double wanted = std::accumulate(image, image + kPixels, 0.0) * static_cast<double>(i % kClasses + 1) + sum;
    REQUIRE(std::abs(logits[i] - wanted) <= 1e-4 * std::max(1.0, std::abs(wanted)));
  }
}

inline double element(const LambdaTensor& tensor, const std::byte* data, std::size_t i) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, data + i * width(tensor.element), width(tensor.element));
  switch (tensor.element) {
    case Element::i8:
      return static_cast<std::int8_t>(bits);
    case Element::f16: {
      const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
      const double magnitude = exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
      return bits >> 15 ? -magnitude : magnitude;
    }
    default: {
      if (tensor.element == Element::bf16) bits <<= 16;
      float value;
      std::memcpy(&value, &bits, sizeof value);
      return value;
    }
  }
}

// The fake's sum over what of lambda it is given.
inline double lambda_sum(const std::string& name, float lam) {
  const Bundle bundle(bundle_path(name).string());
  const LambdaTensors tensors = *lambda_tensors(bundle, 1);
  std::vector<std::byte> buffer(tensors.bytes());
  tensors.at(lam, buffer.data(), 1);
  double sum = 0;
  for (const LambdaTensor& tensor : tensors.tensors()) {
    if (bundle.manifest().mode == Mode::refit && !tensor.varies) continue;
    for (std::size_t i = 0; i < tensor.size; ++i) {
      sum += element(tensor, buffer.data() + tensor.offset, i) * static_cast<double>(i % 7 + 1);
    }
  }
  return sum;
}

}  // namespace floats_rt
