// The TensorRT backend against a fake of TensorRT, on any CUDA runtime: streams and threads, and what TensorRT says
// there.
#include <array>
#include <atomic>
#include <chrono>
#include <optional>
#include <thread>

#include "device.hpp"
#include "engine_bundle.hpp"

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
  const EngineBundle bundle("bound");
  Model model = bundle.load();
  const std::vector<float> pixels = some_images(2);
  const Floats images(pixels), logits(2 * kClasses);
  const cuda::Stream stream;
  model.infer_async(images.data(), 2, logits.data(), stream.get());
  model.set_lambda(0.5f);
  check_logits(logits.values(), pixels, lambda_sum("bound", 0));              // the switch came after it
  check_logits(logits_of(model, pixels), pixels, lambda_sum("bound", 0.5f));  // on its own buffers again
  CHECK(code_of([&] { model.infer_async(images.data(), 1, logits.data(), stream.get()); }) == ErrorCode::bad_shape);
  CHECK(code_of([&] { model.infer_async(images.data(), 5, logits.data(), stream.get()); }) == ErrorCode::bad_shape);
}

TEST_CASE("a batch in any number of parts, at any lambda, also after infer_async") {
  const std::vector<float> few = some_images(2);
  const Floats images(few), logits(2 * kClasses);
  for (const std::string name : {"bank", "bound", "refit", "input"}) {
    CAPTURE(name);
    const EngineBundle bundle(name);
    Model model = bundle.load();
    const cuda::Stream stream;
    for (const std::size_t batch : {8, 5, 11, 27}) {  // 2, 3 and 7 parts, of which the last may be smaller
      const std::vector<float> pixels = some_images(batch);
      for (const float lam : {0.5f, 0.25f}) {
        const double sum = name == "bank" ? double{lam} : lambda_sum(name, lam);
        request(model, lam, pixels);
        model.infer_async(images.data(), 2, logits.data(), stream.get());
        check_logits(logits_of(model, pixels), pixels, sum);
        check_logits(logits.values(), few, sum);
        check_logits(logits_of(model, few), few, sum);
      }
    }
  }
}

TEST_CASE("the first large batch leaves a stream that is captured whole") {
  const EngineBundle bundle("fixed");
  Model model = bundle.load();
  const std::vector<float> pixels = some_images(11);
  const cuda::Stream stream;
  Capture capture(stream);
  check_logits(logits_of(model, pixels), pixels, 0.3);
  CHECK(capture.is_whole());
}

TEST_CASE("a large batch is cancelled at any time, and the next inference is whole") {
  const EngineBundle bundle("bound");
  Model model = bundle.load();
  const std::vector<float> pixels = some_images(27);
  const double sum = lambda_sum("bound", 0);
  for (int round = 0; round < 40; ++round) {
    model.set_time_limit(round % 2 ? std::chrono::nanoseconds(std::chrono::hours(1)) : kNoTimeLimit);
    std::atomic<bool> ended{false};
    std::thread canceller([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(100 * round));
      while (!ended) model.cancel();
    });
    CHECK(code_of([&] {
            for (;;) check_logits(logits_of(model, pixels), pixels, sum);
          }) == ErrorCode::cancelled);
    ended = true;
    canceller.join();
    const std::vector<float> next = other_images(round % 3 ? 11 : 3);
    check_logits(logits_of(model, next), next, sum);
  }
}

TEST_CASE("infer_async refuses addresses that TensorRT would not take, and says which") {
  const EngineBundle bundle("fixed");
  Model model = bundle.load();
  const Floats images(some_images(3)), logits(64 + 2 * kClasses);
  const cuda::Stream stream;
  const auto refusal = [&](const float* from, float* to) -> std::string {
    try {
      model.infer_async(from, 2, to, stream.get());
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::bad_shape);
      return error.what();
    }
    return "";
  };
  CHECK(refusal(images.data() + 1, logits.data()).find("the images") == 0);
  CHECK(refusal(images.data(), logits.data() + 32).find("the logits") == 0);  // 128 bytes
  CHECK(refusal(nullptr, logits.data()).find("256") != std::string::npos);
  CHECK(stream.is_done());
  CHECK(refusal(images.data() + 64, logits.data() + 64).empty());
}

TEST_CASE("infer_async refuses a stream that is being captured: the capture goes on, and the model is whole") {
  const std::vector<float> pixels = some_images(2);
  const Floats images(pixels), logits(2 * kClasses);
  for (const std::string name : {"bound", "refit"}) {
    CAPTURE(name);
    const EngineBundle bundle(name);
    Model model = bundle.load();
    for (int round = 0; round < 2; ++round) {  // the second time, something was queued before
      const cuda::Stream stream;
      Capture capture(stream);
      CHECK(code_of([&] { model.infer_async(images.data(), 2, logits.data(), stream.get()); }) == ErrorCode::runtime);
      model.set_lambda(0.5f);
      check_logits(logits_of(model, pixels), pixels, lambda_sum(name, 0.5f));
      CHECK(capture.is_whole());
      model.infer_async(images.data(), 2, logits.data(), stream.get());
      model.set_lambda(0);
      check_logits(logits_of(model, pixels), pixels, lambda_sum(name, 0));
    }
  }
}

TEST_CASE(
    "models are loaded, cloned and unloaded by two threads while one of them captures a stream, which stays whole") {
  for (const std::string name : {"bank", "bound", "refit"}) {
    CAPTURE(name);
    const EngineBundle bundle(name);
    const cuda::Stream stream;
    Capture capture(stream);
    CHECK(both_can([&](std::size_t) { bundle.load().clone(); }));
    CHECK(capture.is_whole());
  }
}

TEST_CASE("TensorRT's messages reach the log of the model that they are about") {
  const std::vector<float> pixels = some_images(2);
  std::array<std::string, 2> logs;
  std::vector<Model> models;
  for (std::string& log : logs) {
    Options options = with_fake_tensorrt();
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
  Options throwing = with_fake_tensorrt();
  throwing.log = [](const LogLine&) { throw std::runtime_error("a full disk"); };
  CHECK(EngineBundle("fixed", "fail load").refusal(throwing) == ErrorCode::engine_incompatible);
}

TEST_CASE("a failure stays one where the inference was cancelled, too") {
  std::optional<Model> model;
  Options options = with_fake_tensorrt();
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

}  // namespace floats_rt
