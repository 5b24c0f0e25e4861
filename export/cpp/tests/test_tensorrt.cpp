// The TensorRT backend against fakes: what it asks of TensorRT and CUDA, and what it makes of their answers. No GPU.
#include <cmath>
#include <numeric>
#include <sstream>

#include "bundle_copy.hpp"
#include "fakes/fake_cuda.hpp"
#include "floats_rt/floats_rt.hpp"
#include "fold.hpp"
#include "sha256.hpp"

namespace floats_rt {
namespace {

using nlohmann::json;

constexpr std::size_t kPixels = 256, kClasses = 10;

Options on_fake_gpu() {
  Options options;
  options.tensorrt_library = FAKE_NVINFER;
  options.check_golden = false;  // the fake computes something else
  options.threads = 1;
  return options;
}

// The text of a plan: see fakes/fake_nvinfer.cpp.
std::string plan_text(const json& manifest, const std::string& more) {
  std::ostringstream plan;
  plan << "images f32 -1 1 16 16\nlogits f32 -1 10\n";
  const std::string type = manifest["precision"] == "fp16" ? "f16" : "f32";
  if (manifest["lam"]["mode"] == "bound") {
    for (const json& layer : manifest["layers"]) {
      plan << layer["name"].get<std::string>() << ".weight " << type;
      for (const json& axis : layer["shape"]) plan << ' ' << axis;
      plan << '\n' << layer["name"].get<std::string>() << ".bias " << type << ' ' << layer["shape"][0] << '\n';
    }
  }
  plan << more;
  return plan.str();
}

// A copy of a bundle with a plan for every graph; the plan of lambda L adds L.
class EngineBundle : public BundleCopy {
 public:
  explicit EngineBundle(const std::string& name, const std::string& more = "", const json& changes = json::object())
      : BundleCopy(name) {
    change_manifest([&](json& manifest) {
      for (std::size_t i = 0; i < manifest["graphs"].size(); ++i) {
        const json lam = manifest["graphs"][i]["lam"];
        const std::string file = "engine" + std::to_string(i) + ".plan";
        const std::string text = plan_text(manifest, more + "\nadd " + (lam.is_null() ? "0" : lam.dump()));
        json engine = {{"file", file},
                       {"lam", lam},
                       {"flavour", "tensorrt"},
                       {"version", "10.14.1.48.post1"},
                       {"platform", FAKE_PLATFORM},
                       {"targets", {"sm_87"}},
                       {"precision", manifest["precision"]},
                       {"batch", {2, 3, 4}}};
        engine.update(changes);
        write_file(path() / file, text);
        manifest["engines"].push_back(engine);
        const auto* const bytes = reinterpret_cast<const std::uint8_t*>(text.data());
        manifest["files"][file] = {{"sha256", sha256(bytes, text.size())}, {"bytes", text.size()}};
      }
    });
  }

  Model load(const Options& options = on_fake_gpu()) const { return Model::load(path().string(), options); }

  ErrorCode refusal(const Options& options = on_fake_gpu()) const {
    return code_of([&] { load(options); });
  }

  // The same, and that it is known beforehand.
  ErrorCode foreseen_refusal(const Options& options = on_fake_gpu()) const {
    const std::optional<Error> reason = check_compatibility(path().string(), options);
    REQUIRE(reason);
    CHECK(reason->code() == refusal(options));
    return reason->code();
  }
};

std::vector<float> some_images(std::size_t batch) {
  std::vector<float> images(batch * kPixels);
  for (std::size_t i = 0; i < images.size(); ++i) images[i] = static_cast<float>(i % 97) / 97;
  return images;
}

std::vector<float> logits_of(Model& model, const std::vector<float>& images) {
  std::vector<float> logits(images.size() / kPixels * kClasses);
  model.infer(images, images.size() / kPixels, logits);
  return logits;
}

// What the fake should give for one image when its weights and what it adds sum up to `sum`.
void check_logits(const std::vector<float>& logits, const std::vector<float>& images, double sum) {
  REQUIRE(logits.size() * kPixels == images.size() * kClasses);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const float* const image = images.data() + i / kClasses * kPixels;
    const double wanted = std::accumulate(image, image + kPixels, 0.0) * static_cast<double>(i % kClasses + 1) + sum;
    REQUIRE(std::abs(logits[i] - wanted) <= 1e-4 * std::max(1.0, std::abs(wanted)));
  }
}

// The fake's sum over W(lambda).
double weight_sum(const std::string& name, float lam) {
  const Bundle bundle(bundle_path(name).string());
  const Bytes file = bundle.read(bundle.manifest().weights);
  const LambdaWeights weights(bundle.manifest(), read_safetensors(file), 1);
  std::vector<float> buffer(weights.size());
  weights.at(lam, buffer.data());
  double sum = 0;
  for (const WeightTensor& tensor : weights.tensors()) {
    for (std::size_t i = 0; i < tensor.size; ++i)
      sum += double{buffer[tensor.offset + i]} * static_cast<double>(i % 7 + 1);
  }
  return sum;
}

struct FakeReset {
  ~FakeReset() {
    fake_cuda::devices = 1;
    fake_cuda::failing.clear();
    fake_cuda::calls.clear();
  }
};

}  // namespace

TEST_CASE("bound: W(lambda) is on the device, each tensor where the engine reads it") {
  const EngineBundle bundle("bound");
  Model model = bundle.load();
  CHECK(model.backend() == Backend::tensorrt);
  const std::vector<float> images = some_images(3);
  for (const float lam : {0.0f, 0.5f, 1.0f, 0.0f}) {
    model.set_lambda(lam);
    check_logits(logits_of(model, images), images, weight_sum("bound", lam));
  }
  CHECK(std::abs(weight_sum("bound", 0) - weight_sum("bound", 1)) > 0.1);
}

TEST_CASE("bound in fp16: the weights are halves") {
  const EngineBundle bundle("bound-fp16");
  Model model = bundle.load();
  model.set_lambda(1);
  const std::vector<float> images = some_images(2);
  const std::vector<float> logits = logits_of(model, images);
  const double sum = weight_sum("bound-fp16", 1);
  const double image = std::accumulate(images.begin(), images.begin() + kPixels, 0.0);
  CHECK(std::abs(logits[0] - image - sum) <= 2e-2 * (1 + std::abs(sum)));
}

TEST_CASE("fixed and bank: every lambda has its engine") {
  const EngineBundle fixed("fixed"), bank("bank");
  const std::vector<float> images = some_images(2);
  Model one = fixed.load(), five = bank.load();
  check_logits(logits_of(one, images), images, 0.3);
  for (const float lam : {0.75f, 0.0f, 1.0f}) {
    five.set_lambda(lam);
    check_logits(logits_of(five, images), images, lam);
  }
}

TEST_CASE("any batch is run: in parts above the engine's largest, made up below its smallest") {
  const EngineBundle bundle("fixed");
  Model model = bundle.load();
  for (const std::size_t batch : {1, 2, 4, 5, 9}) {
    CAPTURE(batch);
    const std::vector<float> images = some_images(batch);
    check_logits(logits_of(model, images), images, 0.3);
  }
}

TEST_CASE("infer_async uses the caller's memory and stream, and what comes later waits for it") {
  const FakeReset reset;
  const EngineBundle bundle("bound");
  Model model = bundle.load();
  const std::vector<float> images = some_images(2);
  std::vector<float> logits(2 * kClasses);
  auto* const stream = reinterpret_cast<CUstream_st*>(1);
  fake_cuda::calls.clear();
  model.infer_async(images.data(), 2, logits.data(), stream);
  CHECK(fake_cuda::calls == std::vector<std::string>{"cudaStreamWaitEvent user", "cudaEventRecord user"});
  check_logits(logits, images, weight_sum("bound", 0));

  fake_cuda::calls.clear();
  model.set_lambda(0.5f);
  CHECK(fake_cuda::calls == std::vector<std::string>{"cudaStreamWaitEvent own", "cudaMemcpyAsync own"});
  check_logits(logits_of(model, images), images, weight_sum("bound", 0.5f));  // on its own buffers again
  CHECK(code_of([&] { model.infer_async(images.data(), 1, logits.data(), stream); }) == ErrorCode::bad_shape);
  CHECK(code_of([&] { model.infer_async(images.data(), 5, logits.data(), stream); }) == ErrorCode::bad_shape);
}

TEST_CASE("clones have weights of their own") {
  const EngineBundle bundle("bound");
  Model first = bundle.load();
  first.set_lambda(0.5f);
  Model second = first.clone();
  first.set_lambda(1);
  const std::vector<float> images = some_images(2);
  check_logits(logits_of(second, images), images, weight_sum("bound", 0.5f));
  check_logits(logits_of(first, images), images, weight_sum("bound", 1));
}

TEST_CASE("another version of TensorRT is refused before anything of it is called") {
  const EngineBundle bundle("fixed");
  Options options = on_fake_gpu();
  options.tensorrt_library = FAKE_NVINFER_11;
  CHECK(bundle.foreseen_refusal(options) == ErrorCode::backend_unavailable);
  options.tensorrt_library = FAKE_NVINFER_10_2;
  CHECK(bundle.foreseen_refusal(options) == ErrorCode::backend_unavailable);
  options.tensorrt_library = "/does/not/exist.so";
  CHECK(bundle.foreseen_refusal(options) == ErrorCode::backend_unavailable);
}

TEST_CASE("no device, and no such device") {
  const FakeReset reset;
  const EngineBundle bundle("fixed");
  Options second = on_fake_gpu();
  second.device = 1;
  CHECK(bundle.foreseen_refusal(second) == ErrorCode::no_device);
  second.device = -1;
  CHECK(bundle.foreseen_refusal(second) == ErrorCode::no_device);
  fake_cuda::devices = 0;
  CHECK(bundle.foreseen_refusal() == ErrorCode::no_device);
}

TEST_CASE("an engine for another machine is refused, with the reason") {
  const auto refused = [](const json& changes, const std::string& reason) {
    const EngineBundle bundle("fixed", "", changes);
    CHECK(bundle.foreseen_refusal() == ErrorCode::engine_incompatible);
    CHECK(std::string(check_compatibility(bundle.path().string(), on_fake_gpu())->what()).find(reason) !=
          std::string::npos);
  };
  refused({{"version", "10.13.1.48"}}, "10.14.1.48");
  refused({{"version", "10.14.1.49"}}, "10.14.1.48");
  refused({{"version", "10"}}, "10.14.1.48");
  refused({{"version", ""}}, "10.14.1.48");
  refused({{"platform", "plan9-vax"}}, "plan9-vax");
  refused({{"targets", {"sm_86", "sm_90"}}}, "sm_86, sm_90; this GPU is sm_87");
  refused({{"flavour", "tensorrt_rtx"}}, "tensorrt_rtx");
  refused({{"dla", 0}}, "a DLA");
  refused({{"compatibility", {"version"}}}, "a TensorRT of its own");
  CHECK_NOTHROW(EngineBundle("fixed", "", {{"version", "10.14.1"}}).load());
  CHECK_NOTHROW(EngineBundle("fixed", "", {{"compatibility", {"ampere+"}}}).load());
}

TEST_CASE("a bundle without engines, or without one for a lambda, is refused") {
  const BundleCopy none("fixed");
  CHECK(check_compatibility(none.path().string(), on_fake_gpu())->code() == ErrorCode::engine_incompatible);
  EngineBundle some("bank");
  some.change_manifest([](json& manifest) { manifest["engines"].erase(3); });
  CHECK(some.foreseen_refusal() == ErrorCode::engine_incompatible);
}

TEST_CASE("a plan that was altered is not deserialised") {
  const EngineBundle bundle("fixed", "fail load");
  std::string text(1, 'x');
  const Bytes bytes = file_bytes(bundle.path() / "engine0.plan");
  text.append(bytes.begin() + 1, bytes.end());
  write_file(bundle.path() / "engine0.plan", text);
  CHECK(bundle.refusal() == ErrorCode::bundle_invalid);  // and not engine_incompatible, as "fail load" would give
}

TEST_CASE("an engine with other tensors than the manifest's is refused") {
  CHECK(EngineBundle("fixed", "extra.weight f32 3").refusal() == ErrorCode::bundle_invalid);
  EngineBundle other_type("bound"), other_shape("bound");
  other_type.change_manifest([](json& manifest) { manifest["precision"] = "fp16"; });
  CHECK(other_type.refusal() == ErrorCode::bundle_invalid);
  other_shape.change_manifest([](json& manifest) { manifest["output"]["labels"].push_back("eleventh"); });
  CHECK(other_shape.refusal() == ErrorCode::bundle_invalid);
}

TEST_CASE("failures of TensorRT and CUDA have codes, and leak nothing") {
  const FakeReset reset;
  CHECK(EngineBundle("fixed", "fail load").refusal() == ErrorCode::engine_incompatible);
  CHECK(EngineBundle("fixed", "fail context").refusal() == ErrorCode::runtime);
  const EngineBundle failing("fixed", "fail run"), bundle("bound");
  Model model = failing.load();
  CHECK(code_of([&] { logits_of(model, some_images(1)); }) == ErrorCode::runtime);
  for (const std::string function : {"cudaMalloc", "cudaMallocHost", "cudaStreamCreateWithFlags",
                                     "cudaEventCreateWithFlags", "cudaMemcpyAsync", "cudaStreamSynchronize"}) {
    CAPTURE(function);
    fake_cuda::failing = {function};
    CHECK(bundle.refusal() == ErrorCode::runtime);
  }
}

TEST_CASE("a switch that fails leaves the model marked as broken, not half switched") {
  const FakeReset reset;
  const EngineBundle bundle("bound");
  Model model = bundle.load();
  const std::vector<float> images = some_images(1);
  fake_cuda::failing = {"cudaMemcpyAsync"};
  CHECK(code_of([&] { logits_of(model, images); }) == ErrorCode::runtime);  // an inference may fail: it is not broken
  CHECK(code_of([&] { model.set_lambda(0.5f); }) == ErrorCode::runtime);
  fake_cuda::failing.clear();
  CHECK(code_of([&] { logits_of(model, images); }) == ErrorCode::runtime);
  CHECK(code_of([&] { model.set_lambda(0); }) == ErrorCode::runtime);
  CHECK(code_of([&] { model.clone(); }) == ErrorCode::runtime);
  CHECK_NOTHROW(bundle.load());
}

TEST_CASE("golden outputs are checked, and the CPU stands in only when asked") {
  const EngineBundle bundle("bound");
  Options options = on_fake_gpu();
  options.check_golden = true;
  CHECK(bundle.refusal(options) == ErrorCode::engine_incompatible);
  std::string logged;
  options.log = [&](const std::string& line) { logged += line; };
  options.cpu_fallback = true;
  CHECK(bundle.load(options).backend() == Backend::onnxruntime);
  CHECK(logged.find("golden") != std::string::npos);
}

}  // namespace floats_rt
