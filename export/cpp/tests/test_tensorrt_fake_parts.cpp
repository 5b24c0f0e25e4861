// Batches that are larger than the engine takes at once, against fakes of both TensorRT and CUDA. No GPU.
#include <cuda_runtime_api.h>

#include <array>
#include <chrono>
#include <optional>

#include "device.hpp"
#include "engine_bundle.hpp"
#include "fakes/fake_cuda.hpp"

namespace floats_rt {
namespace {

using namespace std::chrono_literals;

// A model that is about to infer 11 images, in three parts. What happens at any call of CUDA must leave it as it was.
struct Job {
  std::string name;
  Model model = EngineBundle(name).load();
  std::array<double, 2> sums{sum(0), sum(0.5f)};  // at these lambdas
  std::size_t changes = 0, failures = 0;

  double sum(float lam) const { return name == "bank" ? double{lam} : lambda_sum(name, lam); }

  // Infers, and calls what(function) at one of its calls, which may make it fail. Tells whether it has so many.
  template <typename What>
  bool has_call(std::size_t at, ErrorCode failure, const What& what) {
    std::size_t calls = 0;
    fake_cuda::before = [&](const std::string& function) {
      if (calls++ == at) what(function);
    };
    const std::vector<float> images = some_images(11);
    std::vector<float> logits(11 * kClasses);
    try {
      model.infer(images, 11, logits);
      check_logits(logits, images, sums[changes % 2]);
    } catch (const Error& error) {
      CHECK(error.code() == failure);
      ++failures;
    }
    fake_cuda::before = nullptr;
    return calls > at;
  }

  // Whatever comes next, it gives what it should.
  void check_next() {
    model.set_time_limit(kNoTimeLimit);
    const double now = sums[changes % 2];
    const std::vector<float> few = other_images(3), many = other_images(11);
    const Floats images(few), logits(3 * kClasses);
    CUstream_st* const stream = fake_cuda::user_stream();
    switch (changes % 5) {
      case 0:
        check_logits(logits_of(model, few), few, now);
        break;
      case 1:
        check_logits(logits_of(model, many), many, now);
        break;
      case 2:
        model.infer_async(images.data(), 3, logits.data(), stream);
        CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
        check_logits(logits.values(), few, now);
        break;
      case 3:
        model.infer_async(images.data(), 3, logits.data(), stream);
        check_logits(logits_of(model, many), many, now);
        check_logits(logits.values(), few, now);
    }
    model.set_lambda(++changes % 2 ? 0.5f : 0);
    check_logits(logits_of(model, many), many, sums[changes % 2]);
  }
};

}  // namespace

TEST_CASE("two parts are queued before the first is waited for, and the second is under way while that is read") {
  const fake_cuda::Reset reset;
  const EngineBundle bundle("fixed");
  Model model = bundle.load();
  std::size_t records = 0, waits = 0;
  std::optional<std::size_t> pending;
  fake_cuda::before = [&](const std::string& function) {
    if (waits == 0 && function == "cudaEventRecord") ++records;
    if (waits == 1 && !pending) pending = fake_cuda::pending();
    if (function == "cudaEventSynchronize") ++waits;
  };
  logits_of(model, some_images(11));
  fake_cuda::before = nullptr;
  CHECK(records == 2 * 3);  // images sent, queued last, done
  CHECK(pending.value_or(0) > 0);
  CHECK(waits == 3);
}

TEST_CASE("what fits is run as ever, also after what does not") {
  const fake_cuda::Reset reset;
  const EngineBundle bundle("fixed");
  Model model = bundle.load();
  const std::vector<float> few = some_images(4);
  for (int round = 0; round < 2; ++round) {
    fake_cuda::calls.clear();
    fake_cuda::noting = true;
    check_logits(logits_of(model, few), few, 0.3);
    fake_cuda::noting = false;
    CHECK(fake_cuda::calls ==
          std::vector<std::string>{"cudaStreamWaitEvent own", "cudaMemcpyAsync own", "cudaStreamWaitEvent own",
                                   "cudaMemcpyAsync own", "cudaMemcpyAsync own",  // of the fake TensorRT
                                   "cudaMemcpyAsync own", "cudaEventRecord own", "cudaStreamSynchronize own"});
    logits_of(model, some_images(11));
  }
}

TEST_CASE("the first batch that does not fit takes memory, all of it or none, and only that one") {
  const fake_cuda::Reset reset;
  const std::vector<float> few = some_images(4), many = some_images(12);
  const EngineBundle bundle("fixed");
  for (const std::string function :
       {"cudaMalloc", "cudaMallocHost", "cudaStreamCreateWithFlags", "cudaEventCreateWithFlags"}) {
    CAPTURE(function);
    Model model = bundle.load();
    check_logits(logits_of(model, few), few, 0.3);  // for a new batch, the fake TensorRT takes memory
    fake_cuda::failing = {function};
    for (int round = 0; round < 2; ++round) {
      check_logits(logits_of(model, few), few, 0.3);
      CHECK(code_of([&] { logits_of(model, many); }) == ErrorCode::runtime);
    }
    fake_cuda::failing.clear();
    check_logits(logits_of(model, many), many, 0.3);
    fake_cuda::failing = {function};
    check_logits(logits_of(model, many), many, 0.3);
    fake_cuda::failing.clear();
  }
}

TEST_CASE("a large batch that is cancelled at any of its calls leaves the model as it was") {
  const fake_cuda::Reset reset;
  for (const std::string name : {"bank", "bound", "refit"}) {
    Job job{name};
    for (const auto limit : {kNoTimeLimit, std::chrono::nanoseconds(1h)}) {
      bool left = false;
      job.failures = 0;
      for (std::size_t at = 0;; ++at) {
        CAPTURE(name);
        CAPTURE(at);
        job.model.set_time_limit(limit);
        if (!job.has_call(at, ErrorCode::cancelled, [&](const std::string&) { job.model.cancel(); })) break;
        left = left || fake_cuda::pending() > 0;
        job.check_next();
      }
      CHECK(job.failures > 0);
      CHECK(left == (limit != kNoTimeLimit));  // where there is none, it waits
    }
  }
}

TEST_CASE("a large batch that fails at any of its calls leaves the model as it was") {
  const fake_cuda::Reset reset;
  for (const std::string name : {"bound", "refit"}) {
    Job job{name};
    std::size_t calls = 0;
    for (const auto limit : {kNoTimeLimit, std::chrono::nanoseconds(1h)}) {
      for (std::size_t at = 0;; ++at) {
        job.model.set_time_limit(limit);
        std::string failed;
        const auto fail = [&](const std::string& function) { fake_cuda::failing = {failed = function}; };
        if (!job.has_call(at, ErrorCode::runtime, fail)) break;
        fake_cuda::failing.clear();
        CAPTURE(name);
        CAPTURE(at);
        CAPTURE(failed);
        CHECK(job.failures == ++calls);
        if (failed != "cudaEventQuery") CHECK(fake_cuda::pending() == 0);
        job.check_next();
      }
    }
  }
}

}  // namespace floats_rt
