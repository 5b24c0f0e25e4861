// The TensorRT backend against fakes of both TensorRT and CUDA: what only a fake CUDA shows, or can be told to do. No
// GPU.
#include <cuda_runtime_api.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "device.hpp"
#include "engine_bundle.hpp"
#include "fakes/fake_cuda.hpp"

extern std::atomic<std::size_t> allocations;  // counting_new.cpp

namespace floats_rt {

TEST_CASE("once warm, infer and a switch allocate nothing") {
  const fake_cuda::Reset reset;
  for (const std::string name : {"bank", "bound", "input"}) {
    CAPTURE(name);
    const EngineBundle bundle(name);
    Model model = bundle.load();
    const std::vector<float> images = some_images(11);  // in three parts
    std::vector<float> logits(11 * kClasses);
    if (name == "bound") model.set_time_limit(std::chrono::hours(1));
    const auto work = [&] {
      for (const float lam : {0.0f, 0.5f}) {
        model.set_lambda(lam);
        model.infer(images, 11, logits);
      }
    };
    work();
    const std::size_t before = allocations;
    work();
    CHECK(allocations == before);
  }
}

TEST_CASE("once warm, an inference that puts what was requested in force allocates nothing") {
  const fake_cuda::Reset reset;
  for (const std::string name : {"bank", "bound", "input"}) {
    CAPTURE(name);
    const EngineBundle bundle(name);
    Model model = bundle.load();
    const std::vector<float> images = some_images(2);
    std::vector<float> logits(2 * kClasses);
    const auto turn = [&] {
      for (const float lam : {0.5f, 0.0f}) {
        model.request_lambda(lam);
        while (model.lambda() != lam) model.infer(images, 2, logits);
      }
    };
    turn();
    const std::size_t before = allocations;
    turn();
    CHECK(allocations == before);
  }
}

TEST_CASE("no device, and no such device") {
  const fake_cuda::Reset reset;
  CHECK(compute_capability(0) == "sm_87");
  const EngineBundle bundle("fixed");
  Options second = with_fake_tensorrt();
  second.device = 1;
  CHECK(bundle.foreseen_refusal(second) == ErrorCode::no_device);
  second.device = -1;
  CHECK(bundle.foreseen_refusal(second) == ErrorCode::no_device);
  fake_cuda::devices = 0;
  CHECK(bundle.foreseen_refusal() == ErrorCode::no_device);
}

TEST_CASE("another version of TensorRT is refused before anything of it is called") {
  const EngineBundle bundle("fixed");
  Options options = with_fake_tensorrt();
  options.tensorrt_library = FAKE_NVINFER_11;
  CHECK(bundle.foreseen_refusal(options) == ErrorCode::backend_unavailable);
  options.tensorrt_library = FAKE_NVINFER_10_2;
  CHECK(bundle.foreseen_refusal(options) == ErrorCode::backend_unavailable);
  options.tensorrt_library = "/does/not/exist.so";
  CHECK(bundle.foreseen_refusal(options) == ErrorCode::backend_unavailable);
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

TEST_CASE("weights that cannot be made leave the model as it is, and the next request is met") {
  const fake_cuda::Reset reset;
  const std::vector<float> images = some_images(1);
  const EngineBundle bundle("bound");
  std::string logged;
  Options options = with_fake_tensorrt();
  options.log = [&](const LogLine& line) { logged += line.text; };
  Model model = bundle.load(options);
  request(model, 0.25f, images);
  fake_cuda::failing = {"cudaMemcpyAsync"};
  model.request_lambda(0.5f);
  while (!model.request_failure()) std::this_thread::yield();
  fake_cuda::failing.clear();
  CHECK(model.request_failure()->code() == ErrorCode::runtime);
  CHECK(logged.find("lambda stays as it is") != std::string::npos);
  check_logits(logits_of(model, images), images, lambda_sum("bound", 0.25f));
  CHECK(model.lambda() == 0.25f);
  request(model, 0.5f, images);
  check_logits(logits_of(model, images), images, lambda_sum("bound", 0.5f));
}

TEST_CASE("infer_async waits in the caller's stream first, records there last, and leaves all of it to the device") {
  const fake_cuda::Reset reset;
  const EngineBundle bundle("bound");
  Model model = bundle.load();
  const Floats images(some_images(2)), logits(2 * kClasses);
  CUstream_st* const stream = fake_cuda::user_stream();
  fake_cuda::noting = true;
  model.infer_async(images.data(), 2, logits.data(), stream);
  CHECK(fake_cuda::calls.front() == "cudaStreamWaitEvent user");
  CHECK(fake_cuda::calls.back() == "cudaEventRecord user");
  CHECK(fake_cuda::pending() > 0);

  fake_cuda::calls.clear();
  model.set_lambda(0.5f);
  CHECK(fake_cuda::calls ==
        std::vector<std::string>{"cudaStreamWaitEvent own", "cudaMemcpyAsync own", "cudaStreamSynchronize own"});
}

TEST_CASE("nothing that was queued outlives an exception") {
  const fake_cuda::Reset reset;
  const EngineBundle failing("fixed", "fail run"), bundle("fixed");
  const std::vector<float> pixels = some_images(2);
  const Floats images(pixels), logits(2 * kClasses);
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
  for (const std::size_t batch : {2, 11}) {
    for (const std::string name : {"bank", "bound", "refit"}) {
      CAPTURE(batch);
      CAPTURE(name);
      const std::vector<float> pixels = some_images(batch);
      const EngineBundle bundle(name);
      Model model = bundle.load();
      const double before = name == "bank" ? 0 : lambda_sum(name, 0), after = name == "bank" ? 1 : lambda_sum(name, 1);
      model.set_time_limit(std::chrono::hours(1));
      check_logits(logits_of(model, pixels), pixels, before);
      model.set_time_limit(std::chrono::milliseconds(5));
      fake_cuda::stuck = true;
      const auto left = [&] {  // what the caller gave is gone then, and the device must not miss it
        std::vector<float> images = some_images(batch), logits(batch * kClasses, 0.5f);
        CHECK(code_of([&] { model.infer(images, batch, logits); }) == ErrorCode::deadline_exceeded);
        CHECK(logits == std::vector<float>(batch * kClasses, 0.5f));
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
}

TEST_CASE("an inference that waits for the device can be cancelled where it has a limit") {
  const fake_cuda::Reset reset;
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
  std::vector<std::uint8_t> bytes(11 * 40 * 30);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * 37 % 251);
  for (const std::size_t batch : {1, 4, 5, 11}) {  // 5: in two parts, 11: in three
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
  const Floats images(pixels), logits(2 * kClasses);
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
  const Floats images(pixels), logits(2 * kClasses);
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
  fake_cuda::noting = true;
  Options options = with_fake_tensorrt();
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

TEST_CASE("refit: not before what was queued on the engine is done") {
  const fake_cuda::Reset reset;
  const EngineBundle bundle("refit");
  Model model = bundle.load();
  fake_cuda::noting = true;
  model.set_lambda(0.5f);
  CHECK(fake_cuda::calls == std::vector<std::string>{"cudaEventSynchronize", "cudaStreamSynchronize own"});
  fake_cuda::failing = {"cudaEventSynchronize"};
  CHECK(code_of([&] { model.set_lambda(1); }) == ErrorCode::runtime);
}

}  // namespace floats_rt
