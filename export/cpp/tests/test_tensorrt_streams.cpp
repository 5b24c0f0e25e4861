// The TensorRT backend against fakes: in which order, on which device and in which thread things happen. No GPU.
#include <array>
#include <atomic>
#include <chrono>
#include <optional>
#include <thread>

#include "engine_bundle.hpp"
#include "fakes/fake_cuda.hpp"
#include "fakes/include/cuda_runtime_api.h"

namespace floats_rt {
namespace {

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

TEST_CASE("infer_async uses the caller's memory and stream, and what comes later waits for it") {
  const fake_cuda::Reset reset;
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
  const fake_cuda::Reset reset;
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

TEST_CASE("an inference whose time is over leaves what is queued to the device, and the next one waits for it") {
  const fake_cuda::Reset reset;
  const std::vector<float> pixels = some_images(2);
  for (const std::string name : {"bank", "bound", "refit"}) {
    CAPTURE(name);
    const EngineBundle bundle(name);
    Model model = bundle.load();
    const double before = name == "bank" ? 0 : lambda_sum(name, 0), after = name == "bank" ? 1 : lambda_sum(name, 1);
    model.set_time_limit(std::chrono::hours(1));
    check_logits(logits_of(model, pixels), pixels, before);
    model.set_time_limit(std::chrono::milliseconds(5));
    fake_cuda::stuck = true;
    const auto left = [&] {  // what the caller gave is gone then, and the device must not miss it
      std::vector<float> images = some_images(2), logits(2 * kClasses, 0.5f);
      CHECK(code_of([&] { model.infer(images, 2, logits); }) == ErrorCode::deadline_exceeded);
      CHECK(logits == std::vector<float>(2 * kClasses, 0.5f));
      return fake_cuda::pending();
    };
    const std::size_t once = left();
    CHECK(once > 0);
    CHECK(left() == once);  // while the device is stuck, no more is queued
    fake_cuda::stuck = false;
    model.set_time_limit(kNoTimeLimit);
    check_logits(logits_of(model, pixels), pixels, before);
    CHECK(fake_cuda::pending() == 0);

    fake_cuda::stuck = true;
    model.set_time_limit(std::chrono::milliseconds(5));
    CHECK(code_of([&] { logits_of(model, pixels); }) == ErrorCode::deadline_exceeded);
    model.set_lambda(1);
    if (name != "bank") CHECK(fake_cuda::pending() == 0);  // weights are not replaced under it
    fake_cuda::stuck = false;
    model.set_time_limit(std::chrono::hours(1));
    check_logits(logits_of(model, pixels), pixels, after);
  }
}

TEST_CASE("an inference that waits for the device can be cancelled where it has a limit") {
  const fake_cuda::Reset reset;
  fake_cuda::noting = false;
  const EngineBundle bundle("bound");
  Model model = bundle.load();
  const std::vector<float> pixels = some_images(2);
  model.set_time_limit(std::chrono::hours(1));
  fake_cuda::stuck = true;
  std::atomic<bool> ended{false};
  std::thread canceller([&] {
    while (!ended) model.cancel();
  });
  CHECK(code_of([&] { logits_of(model, pixels); }) == ErrorCode::cancelled);
  ended = true;
  canceller.join();
  fake_cuda::stuck = false;
  check_logits(logits_of(model, pixels), pixels, lambda_sum("bound", 0));
}

TEST_CASE("images of any size give what their pixels give, also after some were left to the device") {
  const fake_cuda::Reset reset;
  const EngineBundle bundle("bound");
  Model model = bundle.load();
  std::vector<std::uint8_t> bytes(5 * 40 * 30);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * 37 % 251);
  for (const std::size_t batch : {1, 4, 5}) {  // 5: in two parts
    CAPTURE(batch);
    std::vector<ImageView> views;
    std::vector<float> pixels(batch * kPixels), logits(batch * kClasses);
    for (std::size_t i = 0; i < batch; ++i) {
      views.push_back({bytes.data() + i * 40 * 30, 40, 30, Colours::grey});
      model.preprocess(views[i], {pixels.data() + i * kPixels, kPixels});
    }
    model.set_time_limit(std::chrono::milliseconds(5));
    fake_cuda::stuck = true;
    CHECK(code_of([&] { model.infer(views, logits); }) == ErrorCode::deadline_exceeded);
    CHECK(code_of([&] { model.infer(views, logits); }) == ErrorCode::deadline_exceeded);
    fake_cuda::stuck = false;
    model.set_time_limit(kNoTimeLimit);
    model.infer(views, logits);
    check_logits(logits, pixels, lambda_sum("bound", 0));
    CHECK(logits_of(model, pixels) == logits);
  }
}

TEST_CASE("what is queued on another stream waits for an inference that was left to the device") {
  const fake_cuda::Reset reset;
  const EngineBundle bundle("bound");
  Model model = bundle.load();
  const std::vector<float> pixels = some_images(2);
  const fake_cuda::Floats images(pixels), logits(2 * kClasses);
  CUstream_st* const stream = fake_cuda::user_stream();
  model.set_time_limit(std::chrono::milliseconds(5));
  fake_cuda::stuck = true;
  CHECK(code_of([&] { logits_of(model, pixels); }) == ErrorCode::deadline_exceeded);
  model.infer_async(images.data(), 2, logits.data(), stream);
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  CHECK(fake_cuda::pending() == 0);
  check_logits(logits.values(), pixels, lambda_sum("bound", 0));
}

TEST_CASE("an inference waits for what infer_async queued after one that was left to the device") {
  const fake_cuda::Reset reset;
  const std::vector<float> pixels = some_images(2);
  const fake_cuda::Floats images(pixels), logits(2 * kClasses);
  for (const std::string name : {"bank", "bound", "refit"}) {
    CAPTURE(name);
    const EngineBundle bundle(name);
    Model model = bundle.load();
    model.set_time_limit(std::chrono::milliseconds(5));
    fake_cuda::stuck = true;
    CHECK(code_of([&] { logits_of(model, pixels); }) == ErrorCode::deadline_exceeded);
    model.infer_async(images.data(), 2, logits.data(), fake_cuda::user_stream());
    fake_cuda::stuck = false;
    model.set_time_limit(std::chrono::hours(1));
    check_logits(logits_of(model, pixels), pixels, name == "bank" ? 0 : lambda_sum(name, 0));
    CHECK(fake_cuda::pending() == 0);
  }
}

TEST_CASE("the caller's device is the caller's, and an inference sets its own once") {
  const fake_cuda::Reset reset;
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
    options.log = [&log](const LogLine& line) {
      log += std::string(to_string(line.severity)) + " of " + line.source + ": " + line.text + "|";
    };
    CHECK(EngineBundle("fixed", "fail load").refusal(options) == ErrorCode::engine_incompatible);
    CHECK(log == "error of TensorRT: the fake was told to fail|");
    log.clear();
    models.push_back(EngineBundle("fixed", "fail run").load(options));
  }
  Model clone = models[1].clone();
  for (Model* model : {&clone, &models[1]}) {
    CHECK(code_of([&] { logits_of(*model, pixels); }) == ErrorCode::runtime);
    CHECK(logs[1] == "error of TensorRT: the fake was told to fail|");
    logs[1].clear();
  }
  CHECK(logs[0].empty());
  Options throwing = on_fake_gpu();
  throwing.log = [](const LogLine&) { throw std::runtime_error("a full disk"); };
  CHECK(EngineBundle("fixed", "fail load").refusal(throwing) == ErrorCode::engine_incompatible);
}

TEST_CASE("a failure stays one where the inference was cancelled, too") {
  std::optional<Model> model;
  Options options = on_fake_gpu();
  options.log = [&](const LogLine&) { model->cancel(); };
  model = EngineBundle("fixed", "fail run").load(options);
  CHECK(code_of([&] { logits_of(*model, some_images(2)); }) == ErrorCode::runtime);
}

TEST_CASE("an Error holds the last error that TensorRT told about it, and no older one") {
  const std::vector<float> pixels = some_images(2);
  const auto words = [&](Model& model) -> std::string {
    try {
      logits_of(model, pixels);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  Model failing = EngineBundle("fixed", "fail run").load(), silent = EngineBundle("fixed", "fail silently").load();
  CHECK(words(failing).find("TensorRT failed to run: the fake was told to fail. Remedy: ") == 0);
  CHECK(words(silent).find("TensorRT failed to run; the log may say why. Remedy: ") == 0);
}

TEST_CASE("clones in two threads give, at lambdas of their own, what one thread gives") {
  const fake_cuda::Reset reset;
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
  const fake_cuda::Reset reset;
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
  const fake_cuda::Reset reset;
  const EngineBundle bundle("refit");
  Model model = bundle.load();
  fake_cuda::calls.clear();
  model.set_lambda(0.5f);
  CHECK(fake_cuda::calls == std::vector<std::string>{"cudaEventSynchronize", "cudaStreamSynchronize own"});
  fake_cuda::failing = {"cudaEventSynchronize"};
  CHECK(code_of([&] { model.set_lambda(1); }) == ErrorCode::runtime);
}

}  // namespace floats_rt
