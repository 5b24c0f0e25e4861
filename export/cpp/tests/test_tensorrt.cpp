// The TensorRT backend against a fake of TensorRT, on any CUDA runtime: what it asks of it, and makes of its answers.
#include "engine_bundle.hpp"
#include "schema.hpp"

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

TEST_CASE("an engine for another machine is refused, with the reason") {
  const auto refused = [](const json& changes, const std::string& reason) {
    const EngineBundle bundle("fixed", "", changes);
    CHECK(bundle.foreseen_refusal() == ErrorCode::engine_incompatible);
    CHECK(std::string(check_compatibility(bundle.path().string(), with_fake_tensorrt())->what()).find(reason) !=
          std::string::npos);
  };
  refused({{"version", "10.13.1.48"}}, "10.14.1.48");
  refused({{"version", "10.14.1.49"}}, "10.14.1.48");
  refused({{"version", "10"}}, "10.14.1.48");
  refused({{"version", ""}}, "10.14.1.48");
  refused({{"platform", "plan9-vax"}}, "plan9-vax");
  refused({{"targets", {"sm_1", "sm_2"}}}, "sm_1, sm_2; this GPU is " + compute_capability(0));
  refused({{"flavour", "tensorrt_rtx"}}, "tensorrt_rtx");
  CHECK_NOTHROW(EngineBundle("fixed", "", {{"version", "10.14.1"}}).load());
  refused({{"dla", 0}}, "a DLA");
  refused({{"compatibility", {"version"}}}, "host code");
  CHECK_NOTHROW(EngineBundle("fixed", "", {{"compatibility", {"ampere+"}}}).load());
}

TEST_CASE("a bundle without engines, or without one for a lambda, is refused") {
  const BundleCopy none("fixed");
  CHECK(check_compatibility(none.path().string(), with_fake_tensorrt())->code() == ErrorCode::engine_incompatible);
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

TEST_CASE("golden outputs are checked, and for `automatic` the CPU stands in") {
  const EngineBundle bundle("bound");
  Options options = with_fake_tensorrt();
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
  Options options = with_fake_tensorrt();
  std::string logged;
  options.log = [&](const LogLine& line) { logged += line.text; };
  CHECK_NOTHROW(bundle.load(options));
  CHECK(logged.find("engine0.plan was exported with --allow-mismatch: it differs.") != std::string::npos);
}

}  // namespace floats_rt
