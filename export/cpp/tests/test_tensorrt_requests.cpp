// The TensorRT backend against a fake of TensorRT, on any CUDA runtime: the knob turned by one thread while another
// infers.
#include <atomic>
#include <chrono>
#include <map>
#include <thread>

#include "device.hpp"
#include "engine_bundle.hpp"

namespace floats_rt {
namespace {

const std::vector<float> kLambdas = {0, 0.25f, 0.5f, 0.75f, 1};

void infer_until(Model& model, float lam, const std::vector<float>& images) {
  while (model.lambda() != lam) logits_of(model, images);
}

}  // namespace

TEST_CASE("turned by another thread, every inference is of one lambda, and of the one that is told") {
  for (const std::string name : {"bank", "bound", "bound-int8", "input", "refit"}) {
    CAPTURE(name);
    const EngineBundle bundle(name);
    Model model = bundle.load();
    const std::vector<float> images = some_images(2);
    std::map<float, std::vector<float>> wanted;
    for (const float lam : kLambdas) {
      model.set_lambda(lam);
      wanted[lam] = logits_of(model, images);
    }
    constexpr int kTurns = 50, kPerTurn = 10;
    std::atomic<int> done{0};
    std::thread knob([&] {
      for (int i = 0; i < kTurns; ++i) {
        while (done < i * kPerTurn) std::this_thread::yield();
        model.request_lambda(kLambdas[static_cast<std::size_t>(i) % kLambdas.size()]);
      }
    });
    bool right = true;
    for (; done < kTurns * kPerTurn; ++done) {
      const std::vector<float> logits = logits_of(model, images);
      right = right && logits == wanted.at(model.lambda());
    }
    knob.join();
    CHECK(right);
    infer_until(model, 1, images);
  }
}

TEST_CASE("weights are not written over before what infer_async queued with them is done") {
  for (const std::string name : {"bound", "refit"}) {
    CAPTURE(name);
    const EngineBundle bundle(name);
    Model model = bundle.load();
    const std::vector<float> pixels = some_images(2);
    request(model, 0.25f, pixels);
    request(model, 0.5f, pixels);  // now there is memory for two lambdas
    const Floats images(pixels), first(2 * kClasses), later(2 * kClasses);
    const cuda::Stream stream;
    model.infer_async(images.data(), 2, first.data(), stream.get());
    for (const float lam : {1.0f, 0.75f}) {  // the second is written where 0.5 is
      model.request_lambda(lam);
      while (model.lambda() != lam) {
        model.infer_async(images.data(), 2, later.data(), stream.get());
        std::this_thread::sleep_for(std::chrono::milliseconds(2));  // so that a real device keeps pace
      }
    }
    check_logits(logits_of(model, pixels), pixels, lambda_sum(name, 0.75f));  // waits for all of them
    check_logits(first.values(), pixels, lambda_sum(name, 0.5f));
    check_logits(later.values(), pixels, lambda_sum(name, 0.75f));
  }
}

TEST_CASE("requests are met while a stream is captured, and leave the capture whole") {
  const std::vector<float> images = some_images(2);
  for (const std::string name : {"bank", "bound", "refit"}) {
    CAPTURE(name);
    const EngineBundle bundle(name);
    Model model = bundle.load();
    const cuda::Stream stream;
    Capture capture(stream);
    for (const float lam : {0.25f, 0.5f, 1.0f}) {
      request(model, lam, images);
      REQUIRE_FALSE(model.request_failure());
      check_logits(logits_of(model, images), images, name == "bank" ? lam : lambda_sum(name, lam));
    }
    CHECK(capture.is_whole());
  }
}

TEST_CASE(
    "refit: an engine that could not be refitted beside is not used, and a new one is made for the next request") {
  const std::vector<float> images = some_images(1);
  for (const std::string failure : {"set", "missing", "refit"}) {  // at the third refit of an engine
    CAPTURE(failure);
    const EngineBundle bundle("refit", "fail " + failure);
    Model model = bundle.load();
    for (const float lam : {0.1f, 0.2f, 0.3f}) request(model, lam, images);  // two engines take turns
    CHECK(model.lambda() == 0.3f);
    bool failed = false;
    for (const float lam : {0.4f, 0.5f, 0.6f, 0.7f, 0.8f}) {
      const float before = model.lambda();
      request(model, lam, images);
      failed = failed || model.request_failure();
      CHECK(model.lambda() == (model.request_failure() ? before : lam));
      check_logits(logits_of(model, images), images, lambda_sum("refit", model.lambda()));
    }
    CHECK(failed);
  }
}

}  // namespace floats_rt
