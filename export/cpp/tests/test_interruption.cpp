// Inferences that are cancelled or take too long, on ONNX Runtime. Under the thread sanitizer too: tools/test_cpp.
#include <atomic>
#include <chrono>
#include <thread>

#include "floats_rt/floats_rt.h"
#include "support.hpp"

namespace floats_rt {
namespace {

using namespace std::chrono_literals;

// A model with as many images as it runs at once, and what it gives for them.
struct Job {
  Model model;
  std::size_t batch;
  std::vector<float> images = std::vector<float>(batch * model.input().size());
  std::vector<float> logits = std::vector<float>(batch * model.output().size());
  std::vector<float> wanted = logits;

  Job(const std::string& name, std::size_t number)
      : model(Model::load(bundle_path(name).string(), on_cpu())), batch(number) {
    for (std::size_t i = 0; i < images.size(); ++i) images[i] = static_cast<float>(i % 97) / 97;
    model.infer(images, batch, wanted);
  }

  void infer() { model.infer(images, batch, logits); }

  // Whether it gives what it gave at first.
  bool is_whole() {
    std::fill(logits.begin(), logits.end(), -1.0f);
    infer();
    return logits == wanted;
  }
};

// Some hundredths of a second.
Job slow(const std::string& name) { return {name, 1000}; }

// Cancels again and again, up to two milliseconds apart, until it is destroyed.
class Canceller {
 public:
  explicit Canceller(Model& model)
      : thread_([this, &model] {
          for (int i = 0; !ended_; ++i) {
            model.cancel();
            std::this_thread::sleep_for(i * 37 % 2000 * 1us);
          }
        }) {}
  ~Canceller() {
    ended_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

}  // namespace

TEST_CASE("an inference that another thread cancels ends, and the next one is whole") {
  for (const std::string name : {"bound", "bank", "refit"}) {
    CAPTURE(name);
    Job job = slow(name);
    {
      const Canceller canceller(job.model);
      CHECK(code_of([&] { job.infer(); }) == ErrorCode::cancelled);
    }
    CHECK(job.is_whole());
    job.model.set_lambda(job.model.lambda_range().maximum);
    job.model.set_lambda(job.model.lambda_range().minimum);
    CHECK(job.is_whole());
  }
}

TEST_CASE("an inference that takes longer than its limit ends, and the next one is whole") {
  Job job = slow("bound");
  job.model.set_time_limit(1ms);
  Model copy = job.model.clone();
  for (int round = 0; round < 3; ++round) CHECK(code_of([&] { job.infer(); }) == ErrorCode::deadline_exceeded);
  CHECK(code_of([&] { copy.infer(job.images, job.batch, job.logits); }) == ErrorCode::deadline_exceeded);
  job.model.set_time_limit(-1ms);
  CHECK(code_of([&] { job.infer(); }) == ErrorCode::deadline_exceeded);
  for (const auto limit : {std::chrono::nanoseconds(1h), kNoTimeLimit - 1ns, kNoTimeLimit}) {
    job.model.set_time_limit(limit);
    CHECK(job.is_whole());
  }
}

TEST_CASE("images are not scaled to the end of a batch when their time is over") {
  Model model = Model::load(bundle_path("bound").string(), on_cpu());
  const std::vector<std::uint8_t> pixels(2000 * 2000);
  const std::vector<ImageView> images(2000, ImageView{pixels.data(), 2000, 2000, Colours::grey});
  std::vector<float> logits(images.size() * model.output().size());
  const auto start = std::chrono::steady_clock::now();
  model.set_time_limit(1ms);
  CHECK(code_of([&] { model.infer(images, logits); }) == ErrorCode::deadline_exceeded);
  CHECK(std::chrono::steady_clock::now() - start < 1s);
}

TEST_CASE("cancelled at any time, an inference is whole or says that it was cancelled") {
  for (const std::string name : {"bound", "bank"}) {
    CAPTURE(name);
    Job job(name, 8);
    int whole = 0, cut = 0, wrong = 0;
    {
      const Canceller canceller(job.model);
      while (whole < 100 || cut < 100) {
        try {
          ++(job.is_whole() ? whole : wrong);
        } catch (const Error& error) {
          ++(error.code() == ErrorCode::cancelled ? cut : wrong);
        }
        if (wrong) break;
      }
    }
    CHECK(wrong == 0);
    CHECK(job.is_whole());
    MESSAGE(name << ": " << whole << " inferences were whole, " << cut << " were cancelled");
  }
}

TEST_CASE("with a limit of about what it takes, an inference is whole or says that it was too late") {
  Job job("bound", 8);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 20; ++i) job.infer();
  std::chrono::nanoseconds limit = (std::chrono::steady_clock::now() - start) / 20;
  int whole = 0, late = 0, wrong = 0;
  for (int i = 0; i < 300 || !whole || !late; ++i) {
    job.model.set_time_limit(limit);
    try {
      ++(job.is_whole() ? whole : wrong);
      limit -= limit / 50;
    } catch (const Error& error) {
      ++(error.code() == ErrorCode::deadline_exceeded ? late : wrong);
      limit += limit / 50;
    }
  }
  CHECK(wrong == 0);
  job.model.set_time_limit(kNoTimeLimit);
  CHECK(job.is_whole());
  MESSAGE(whole << " inferences were whole, " << late << " were too late");
}

TEST_CASE("cancelling what does not run changes nothing") {
  Job job("bound", 1);
  job.model.cancel();
  CHECK(job.is_whole());
  job.model.cancel();
  job.model.set_lambda(1);
  job.model.request_lambda(0);
  while (job.model.lambda() != 0) job.infer();
  CHECK(job.is_whole());
}

TEST_CASE("C: an inference is cancelled and has a limit, too") {
  floats_rt_options options{};
  options.struct_size = sizeof options;
  options.backend = FLOATS_RT_ONNXRUNTIME;
  options.threads = 1;
  floats_rt_model* model = nullptr;
  REQUIRE(floats_rt_load(bundle_path("bound").c_str(), &options, &model) == FLOATS_RT_OK);
  const std::size_t batch = 1000;
  std::vector<float> images(batch * floats_rt_input_size(model)), logits(batch * floats_rt_label_count(model));
  const auto infer = [&] {
    return floats_rt_infer(model, images.data(), images.size(), batch, logits.data(), logits.size());
  };
  CHECK(floats_rt_set_time_limit(model, 1'000'000) == FLOATS_RT_OK);
  CHECK(infer() == FLOATS_RT_DEADLINE_EXCEEDED);
  CHECK(floats_rt_set_time_limit(model, FLOATS_RT_NO_TIME_LIMIT) == FLOATS_RT_OK);
  std::atomic<bool> ended{false};
  std::thread canceller([&] {
    while (!ended) CHECK(floats_rt_cancel(model) == FLOATS_RT_OK);
  });
  CHECK(infer() == FLOATS_RT_CANCELLED);
  ended = true;
  canceller.join();
  CHECK(infer() == FLOATS_RT_OK);
  CHECK(floats_rt_cancel(nullptr) == FLOATS_RT_INVALID_ARGUMENT);
  CHECK(floats_rt_set_time_limit(nullptr, 0) == FLOATS_RT_INVALID_ARGUMENT);
  floats_rt_free(model);
}

}  // namespace floats_rt
