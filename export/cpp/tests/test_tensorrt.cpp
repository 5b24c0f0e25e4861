// The TensorRT backend against fakes: what it asks of TensorRT and CUDA, and what it makes of their answers. No GPU.
#include <atomic>
#include <chrono>

#include "engine_bundle.hpp"
#include "fakes/fake_cuda.hpp"
#include "schema.hpp"

extern std::atomic<std::size_t> allocations;  // counting_new.cpp

namespace floats_rt {

using nlohmann::json;

TEST_CASE("what of lambda an engine takes reaches it, each tensor in its place and type") {
  for (const std::string name : {"bound", "bound-paper", "bound-fp16", "bound-bf16", "bound-int8",
                                 "bound-int8-kept-fp16", "input", "input-fp16", "input-int8", "refit", "refit-fp16"}) {
    CAPTURE(name);
    const EngineBundle bundle(name);
    Model model = bundle.load();
    CHECK(model.backend() == Backend::tensorrt);
    const std::vector<float> images = some_images(3);
    for (const float lam : {0.0f, 0.5f, 1.0f, 0.0f}) {
      model.set_lambda(lam);
      check_logits(logits_of(model, images), images, lambda_sum(name, lam));
    }
    CHECK(std::abs(lambda_sum(name, 0) - lambda_sum(name, 1)) > 0.1);
  }
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

TEST_CASE("clones have a lambda of their own, and where it is in the engine an engine of their own") {
  for (const std::string name : {"bound", "input", "refit"}) {
    CAPTURE(name);
    const EngineBundle bundle(name);
    Model first = bundle.load();
    first.set_lambda(0.5f);
    Model second = first.clone();
    first.set_lambda(1);
    const std::vector<float> images = some_images(2);
    check_logits(logits_of(second, images), images, lambda_sum(name, 0.5f));
    check_logits(logits_of(first, images), images, lambda_sum(name, 1));
  }
}

TEST_CASE("refit: an engine with other refittable weights than those of lambda is refused") {
  CHECK(EngineBundle("refit", "refittable fc.bias f32 10").refusal() == ErrorCode::bundle_invalid);
  CHECK(EngineBundle("refit", "fail forget").refusal() == ErrorCode::bundle_invalid);  // stem.weight
  CHECK(EngineBundle("refit", "fail refitter").refusal() == ErrorCode::runtime);
}

TEST_CASE("refit: one that fails leaves the model marked as broken, not half refitted") {
  const std::vector<float> images = some_images(1);
  for (const std::string failure : {"set", "missing", "refit"}) {  // from the third switch on
    CAPTURE(failure);
    const EngineBundle bundle("refit", "fail " + failure);
    Model model = bundle.load();
    model.set_lambda(0.5f);
    check_logits(logits_of(model, images), images, lambda_sum("refit", 0.5f));
    CHECK(code_of([&] { model.set_lambda(1); }) == ErrorCode::runtime);
    CHECK(code_of([&] { logits_of(model, images); }) == ErrorCode::runtime);
    CHECK(code_of([&] { model.set_lambda(0.5f); }) == ErrorCode::runtime);
    CHECK(code_of([&] { model.clone(); }) == ErrorCode::runtime);
  }
}

TEST_CASE("once warm, infer and a switch allocate nothing") {
  const fake_cuda::Reset reset;
  for (const std::string name : {"bank", "bound", "input"}) {
    CAPTURE(name);
    const EngineBundle bundle(name);
    Model model = bundle.load();
    const std::vector<float> images = some_images(5);
    std::vector<float> logits(5 * kClasses);
    fake_cuda::noting = false;
    if (name == "bound") model.set_time_limit(std::chrono::hours(1));
    const auto work = [&] {
      for (const float lam : {0.0f, 0.5f}) {
        model.set_lambda(lam);
        model.infer(images, 5, logits);
      }
    };
    work();
    const std::size_t before = allocations;
    work();
    CHECK(allocations == before);
  }
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
  const fake_cuda::Reset reset;
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
  CHECK_NOTHROW(EngineBundle("fixed", "", {{"version", "10.14.1"}}).load());
  refused({{"dla", 0}}, "a DLA");
  refused({{"compatibility", {"version"}}}, "host code");
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

TEST_CASE("an engine with tensors of another direction, place or layout, or for other batches, is refused") {
  for (const std::string odd : {"host", "hwc8", "output"}) {
    CAPTURE(odd);
    CHECK(EngineBundle("input", "odd lambda " + odd).refusal() == ErrorCode::bundle_invalid);
    CHECK(EngineBundle("fixed", "odd images " + odd).refusal() == ErrorCode::bundle_invalid);
  }
  for (const std::string batch : {"1 4", "2 3", "2 5"}) {
    CAPTURE(batch);
    CHECK(EngineBundle("fixed", "batch " + batch).refusal() == ErrorCode::bundle_invalid);
  }
  CHECK_NOTHROW(EngineBundle("fixed", "batch 1 8", {{"batch", {1, 1, 8}}}).load());
}

TEST_CASE("a batch whose bytes are more than there are numbers for is refused") {
  EngineBundle bundle("fixed");
  bundle.change_manifest([&](json& manifest) {  // 2^31 images of 2^31 floats of 4 bytes
    manifest["input"]["shape"] = {1, 1 << 15, 1 << 16};
    manifest["output"]["labels"] = {"one"};
    manifest["engines"][0]["batch"] = {1, 1, std::int64_t{1} << 31};
    const std::string plan = "images f32 -1 1 32768 65536\nlogits f32 -1 1\nbatch 1 2147483648";
    bundle.write_plan(manifest, "engine0.plan", plan);
  });
  CHECK(bundle.refusal() == ErrorCode::bundle_invalid);
}

TEST_CASE("failures of TensorRT and CUDA have codes, and leak nothing") {
  const fake_cuda::Reset reset;
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
  const fake_cuda::Reset reset;
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

TEST_CASE("golden outputs are checked, and for `automatic` the CPU stands in") {
  const EngineBundle bundle("bound");
  Options options = on_fake_gpu();
  options.check_golden = true;
  CHECK(bundle.refusal(options) == ErrorCode::engine_incompatible);
  std::string logged;
  options.log = [&](const LogLine& line) { logged += line.text; };
  options.backend = Backend::automatic;
  CHECK(bundle.load(options).backend() == Backend::onnxruntime);
  CHECK(logged.find("golden") != std::string::npos);
  options.check_golden = false;
  logged.clear();
  const Model model = bundle.load(options);
  CHECK(model.backend() == Backend::tensorrt);
  CHECK(model.backend_version() == "10.14.1.48");
  CHECK_FALSE(model.verdict());
  CHECK(logged.empty());
}

TEST_CASE("an engine that was let pass with --allow-mismatch says so when it is loaded") {
  const EngineBundle bundle("bound", "", {{"mismatch", "it differs."}});
  Options options = on_fake_gpu();
  std::string logged;
  options.log = [&](const LogLine& line) { logged += line.text; };
  CHECK_NOTHROW(bundle.load(options));
  CHECK(logged.find("engine0.plan was exported with --allow-mismatch: it differs.") != std::string::npos);
}

}  // namespace floats_rt
