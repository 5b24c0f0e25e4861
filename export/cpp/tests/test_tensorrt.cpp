// The TensorRT backend against fakes: what it asks of TensorRT and CUDA, and what it makes of their answers. No GPU.
#include <array>
#include <atomic>
#include <thread>

#include "engine_bundle.hpp"
#include "fakes/fake_cuda.hpp"
#include "fakes/include/cuda_runtime_api.h"
#include "schema.hpp"

extern std::atomic<std::size_t> allocations;  // counting_new.cpp

namespace floats_rt {
namespace {

using nlohmann::json;

struct FakeReset {
  ~FakeReset() {
    fake_cuda::noting = true;
    fake_cuda::devices = 1;
    fake_cuda::failing.clear();
    fake_cuda::calls.clear();
    fake_cuda::asked.clear();
  }
};

// Lets two threads do something and tells whether both could.
template <typename Call>
bool both_can(const Call& call) {
  std::array<bool, 2> could{};
  const auto attempt = [&](std::size_t i) {
    try {
      call(i);
      could[i] = true;
    } catch (const Error&) {
    }
  };
  std::thread other(attempt, 1);
  attempt(0);
  other.join();
  return could[0] && could[1];
}

}  // namespace

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

TEST_CASE("infer_async uses the caller's memory and stream, and what comes later waits for it") {
  const FakeReset reset;
  const EngineBundle bundle("bound");
  Model model = bundle.load();
  const std::vector<float> pixels = some_images(2);
  const fake_cuda::Floats images(pixels), logits(2 * kClasses);
  CUstream_st* const stream = fake_cuda::user_stream();
  fake_cuda::calls.clear();
  model.infer_async(images.data(), 2, logits.data(), stream);
  CHECK(fake_cuda::calls == std::vector<std::string>{"cudaStreamWaitEvent user", "cudaEventRecord user"});
  CHECK(fake_cuda::pending() > 0);

  fake_cuda::calls.clear();
  model.set_lambda(0.5f);
  CHECK(fake_cuda::calls ==
        std::vector<std::string>{"cudaStreamWaitEvent own", "cudaMemcpyAsync own", "cudaStreamSynchronize own"});
  check_logits(logits.values(), pixels, lambda_sum("bound", 0));              // the switch came after it
  check_logits(logits_of(model, pixels), pixels, lambda_sum("bound", 0.5f));  // on its own buffers again
  CHECK(code_of([&] { model.infer_async(images.data(), 1, logits.data(), stream); }) == ErrorCode::bad_shape);
  CHECK(code_of([&] { model.infer_async(images.data(), 5, logits.data(), stream); }) == ErrorCode::bad_shape);
}

TEST_CASE("infer_async refuses addresses that TensorRT would not take, and says which") {
  const EngineBundle bundle("fixed");
  Model model = bundle.load();
  const fake_cuda::Floats images(some_images(3)), logits(64 + 2 * kClasses);
  CUstream_st* const stream = fake_cuda::user_stream();
  const auto refusal = [&](const float* from, float* to) -> std::string {
    try {
      model.infer_async(from, 2, to, stream);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::bad_shape);
      return error.what();
    }
    return "";
  };
  CHECK(refusal(images.data() + 1, logits.data()).find("the images") == 0);
  CHECK(refusal(images.data(), logits.data() + 32).find("the logits") == 0);  // 128 bytes
  CHECK(refusal(nullptr, logits.data()).find("256") != std::string::npos);
  CHECK(fake_cuda::pending() == 0);
  CHECK(refusal(images.data() + 64, logits.data() + 64).empty());
}

TEST_CASE("infer_async refuses a stream that is being captured: the capture goes on, and the model is whole") {
  const std::vector<float> pixels = some_images(2);
  const fake_cuda::Floats images(pixels), logits(2 * kClasses);
  for (const std::string name : {"bound", "refit"}) {
    CAPTURE(name);
    const EngineBundle bundle(name);
    Model model = bundle.load();
    for (int round = 0; round < 2; ++round) {  // the second time, something was queued before
      CUstream_st* const stream = fake_cuda::user_stream();
      fake_cuda::begin_capture(stream);
      CHECK(code_of([&] { model.infer_async(images.data(), 2, logits.data(), stream); }) == ErrorCode::runtime);
      model.set_lambda(0.5f);
      check_logits(logits_of(model, pixels), pixels, lambda_sum(name, 0.5f));
      CHECK(fake_cuda::end_capture(stream));
      model.infer_async(images.data(), 2, logits.data(), stream);
      model.set_lambda(0);
      check_logits(logits_of(model, pixels), pixels, lambda_sum(name, 0));
    }
  }
}

TEST_CASE("nothing that was queued outlives an exception") {
  const FakeReset reset;
  const EngineBundle failing("fixed", "fail run"), bundle("fixed");
  const std::vector<float> pixels = some_images(2);
  const fake_cuda::Floats images(pixels), logits(2 * kClasses);
  Model broken = failing.load(), model = bundle.load();
  CUstream_st* const stream = fake_cuda::user_stream();
  CHECK(code_of([&] { logits_of(broken, pixels); }) == ErrorCode::runtime);
  CHECK(fake_cuda::pending() == 0);
  fake_cuda::failing = {"cudaEventRecord"};
  CHECK(code_of([&] { model.infer_async(images.data(), 2, logits.data(), stream); }) == ErrorCode::runtime);
  CHECK(fake_cuda::pending() == 0);
  check_logits(logits.values(), pixels, 0.3);
}

TEST_CASE("the caller's device is the caller's, and an inference sets its own once") {
  const FakeReset reset;
  fake_cuda::devices = 3;
  Options options = on_fake_gpu();
  options.device = 2;
  const auto current = [] {
    int device = -1;
    cudaGetDevice(&device);
    return device;
  };
  for (const std::string name : {"bound", "refit"}) {
    CAPTURE(name);
    const EngineBundle bundle(name);
    const std::vector<float> pixels = some_images(2);
    {
      CHECK_FALSE(check_compatibility(bundle.path().string(), options));
      CHECK(current() == 0);
      Model model = bundle.load(options), second = model.clone();
      CHECK(current() == 0);
      second.set_lambda(0.5f);
      CHECK(current() == 0);
      fake_cuda::asked.clear();
      check_logits(logits_of(second, pixels), pixels, lambda_sum(name, 0.5f));
      CHECK(fake_cuda::asked == std::vector<std::string>{"cudaSetDevice 2", "cudaSetDevice 0"});
      fake_cuda::asked.clear();
    }
    CHECK(current() == 0);
    CHECK_FALSE(fake_cuda::asked.empty());  // what is freed is freed where it lies
  }
  fake_cuda::failing = {"cudaSetDevice"};
  CHECK(EngineBundle("fixed").refusal() == ErrorCode::no_device);
}

TEST_CASE("TensorRT's messages reach the log of the model that they are about") {
  const std::vector<float> pixels = some_images(2);
  std::array<std::string, 2> logs;
  std::vector<Model> models;
  for (std::string& log : logs) {
    Options options = on_fake_gpu();
    options.log = [&log](const std::string& line) { log += line + "|"; };
    CHECK(EngineBundle("fixed", "fail load").refusal(options) == ErrorCode::engine_incompatible);
    CHECK(log == "TensorRT: the fake was told to fail|");
    log.clear();
    models.push_back(EngineBundle("fixed", "fail run").load(options));
  }
  Model clone = models[1].clone();
  for (Model* model : {&clone, &models[1]}) {
    CHECK(code_of([&] { logits_of(*model, pixels); }) == ErrorCode::runtime);
    CHECK(logs[1] == "TensorRT: the fake was told to fail|");
    logs[1].clear();
  }
  CHECK(logs[0].empty());
  Options throwing = on_fake_gpu();
  throwing.log = [](const std::string&) { throw std::runtime_error("a full disk"); };
  CHECK(EngineBundle("fixed", "fail load").refusal(throwing) == ErrorCode::engine_incompatible);
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

TEST_CASE("clones in two threads give, at lambdas of their own, what one thread gives") {
  const FakeReset reset;
  for (const std::string name : {"bank", "bound", "refit"}) {
    CAPTURE(name);
    const EngineBundle bundle(name);
    Model first = bundle.load(), second = first.clone();
    const std::vector<float> images = some_images(2);
    std::vector<std::vector<float>> wanted;
    for (const float lam : {0.25f, 0.5f, 1.0f}) {
      first.set_lambda(lam);
      wanted.push_back(logits_of(first, images));
    }
    fake_cuda::noting = false;
    bool right[2] = {true, true};
    const auto work = [&](Model& model, bool& correct, std::size_t offset) {
      for (std::size_t i = offset; i < offset + 30; ++i) {
        model.set_lambda(std::array{0.25f, 0.5f, 1.0f}[i % 3]);
        correct = correct && logits_of(model, images) == wanted[i % 3];
      }
    };
    std::thread other(work, std::ref(second), std::ref(right[1]), 1);
    work(first, right[0], 0);
    other.join();
    CHECK(right[0]);
    CHECK(right[1]);
  }
}

TEST_CASE("threads may clone at once") {
  const FakeReset reset;
  fake_cuda::noting = false;
  for (const std::string name : {"bank", "bound", "refit"}) {
    CAPTURE(name);
    const EngineBundle bundle(name);
    std::array<Model, 2> models{bundle.load(), bundle.load()};
    models[1] = models[0].clone();
    CHECK(both_can([&](std::size_t i) {
      for (int round = 0; round < 4; ++round) models[i].clone();
    }));
  }
}

TEST_CASE("refit: not before what was queued on the engine is done") {
  const FakeReset reset;
  const EngineBundle bundle("refit");
  Model model = bundle.load();
  fake_cuda::calls.clear();
  model.set_lambda(0.5f);
  CHECK(fake_cuda::calls == std::vector<std::string>{"cudaEventSynchronize", "cudaStreamSynchronize own"});
  fake_cuda::failing = {"cudaEventSynchronize"};
  CHECK(code_of([&] { model.set_lambda(1); }) == ErrorCode::runtime);
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
  const FakeReset reset;
  for (const std::string name : {"bank", "bound", "input"}) {
    CAPTURE(name);
    const EngineBundle bundle(name);
    Model model = bundle.load();
    const std::vector<float> images = some_images(5);
    std::vector<float> logits(5 * kClasses);
    fake_cuda::noting = false;
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

TEST_CASE("an engine that was let pass with --allow-mismatch says so when it is loaded") {
  const EngineBundle bundle("bound", "", {{"mismatch", "it differs."}});
  Options options = on_fake_gpu();
  std::string logged;
  options.log = [&](const std::string& line) { logged += line; };
  CHECK_NOTHROW(bundle.load(options));
  CHECK(logged.find("engine0.plan was exported with --allow-mismatch: it differs.") != std::string::npos);
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
