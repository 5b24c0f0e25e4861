// The knob turned by one thread while another infers. Under the thread sanitizer too: tools/test_cpp.
#include <algorithm>
#include <atomic>
#include <filesystem>
#include <limits>
#include <map>
#include <set>
#include <thread>

#include "lambda_requests.hpp"
#include "support.hpp"

namespace floats_rt {
namespace {

std::vector<float> one_image(const Model& model) {
  std::vector<float> image(model.input().size());
  for (std::size_t i = 0; i < image.size(); ++i) image[i] = static_cast<float>(i % 97) / 97;
  return image;
}

std::vector<float> logits_of(Model& model, const std::vector<float>& image) {
  std::vector<float> logits(model.output().size());
  model.infer(image, 1, logits);
  return logits;
}

// What set_lambda gives at each lambda of a sweep.
std::map<float, std::vector<float>> logits_by_lambda(Model& model, const std::vector<float>& image) {
  std::vector<float> lambdas = model.lambda_range().values;
  for (int i = 0; lambdas.empty() || (i > 0 && i < 32); ++i) lambdas.push_back(static_cast<float>(i) / 31);
  std::map<float, std::vector<float>> wanted;
  for (const float lam : lambdas) {
    model.set_lambda(lam);
    wanted[lam] = logits_of(model, image);
  }
  return wanted;
}

// Infers until `lam` is in force.
void infer_until(Model& model, float lam, const std::vector<float>& image) {
  while (model.lambda() != lam) logits_of(model, image);
}

std::set<std::filesystem::path> threads() {
  const std::filesystem::directory_iterator first("/proc/self/task"), none;
  return std::set<std::filesystem::path>(first, none);
}

template <typename Call>
bool starts_thread(const Call& call) {
  const auto before = threads();  // one that has ended may still be listed
  call();
  const auto after = threads();
  return !std::includes(before.begin(), before.end(), after.begin(), after.end());
}

// A backend of the test's: what it prepares waits for the test, and fails where it is told to.
class ScriptedRunner : public Runner {
 public:
  std::unique_ptr<Runner> clone() const override { return nullptr; }
  void set_lambda(float lam) override { current = lam; }
  void infer(const float*, std::size_t, float*, Interruption&) override {}
  std::string version() const override { return ""; }
  void prepare(float lam) override {
    std::unique_lock lock(mutex_);
    preparing_ = lam;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !preparing_; });
    if (lam == failing) throw Error(ErrorCode::runtime, "the test wants it so.", "none");
    next_ = lam;
  }
  void take() noexcept override { current = next_; }

  // The lambda that is being prepared, once one is.
  float preparing() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return preparing_.has_value(); });
    return *preparing_;
  }

  void go_on() {
    const std::lock_guard lock(mutex_);
    preparing_.reset();
    changed_.notify_all();
  }

  float current = 0, failing = -1;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<float> preparing_;
  float next_ = 0;
};

std::optional<float> taken(LambdaRequests& requests) {
  for (;;) {
    if (const auto lam = requests.take()) return lam;
    if (requests.failure()) return std::nullopt;
    std::this_thread::yield();
  }
}

}  // namespace

TEST_CASE("while weights are made inferences wait for nothing; of those that wait the latest is made next") {
  ScriptedRunner runner;
  const Options options = on_cpu();
  LambdaRequests requests(runner, options);
  requests.request(0.1f);
  CHECK(runner.preparing() == 0.1f);
  CHECK_FALSE(requests.take());  // returns, although what is made waits for this thread
  requests.request(0.2f);
  requests.request(0.3f);
  runner.go_on();
  CHECK(taken(requests) == 0.1f);  // made, so it is used
  CHECK(runner.current == 0.1f);
  CHECK(runner.preparing() == 0.3f);
  runner.go_on();
  CHECK(taken(requests) == 0.3f);
  requests.request(0.3f);  // is there already: nothing is prepared, or the next line would not return
  CHECK_FALSE(requests.take());
}

TEST_CASE("a request that fails changes nothing, is logged and is told until the next") {
  ScriptedRunner runner;
  std::string logged;
  Options options = on_cpu();
  options.log = [&](const LogLine& line) { logged += line.text; };
  LambdaRequests requests(runner, options);
  runner.failing = 0.1f;
  for (int attempt = 0; attempt < 2; ++attempt) {  // the same may be asked for again
    requests.request(0.1f);
    runner.preparing();
    CHECK_FALSE(requests.failure());
    runner.go_on();
    CHECK_FALSE(taken(requests));
    CHECK(requests.failure()->code() == ErrorCode::runtime);
    CHECK(logged.find("the test wants it so.") != std::string::npos);
    CHECK(runner.current == 0);
  }
  requests.request(0.2f);
  CHECK_FALSE(requests.failure());
  runner.preparing();
  runner.go_on();
  CHECK(taken(requests) == 0.2f);
}

TEST_CASE("an exception of the application's log about a failed request ends nothing") {
  Options options = on_cpu();
  SUBCASE("of the standard library") {
    options.log = [](const LogLine&) { throw std::runtime_error("a full disk"); };
  }
  SUBCASE("of any other type") {
    options.log = [](const LogLine&) { throw 1; };
  }
  ScriptedRunner runner;
  LambdaRequests requests(runner, options);
  runner.failing = 0.1f;
  requests.request(0.1f);
  runner.preparing();
  runner.go_on();
  CHECK_FALSE(taken(requests));
  CHECK(requests.failure());
}

TEST_CASE("set_lambda stands in place of what was requested before, and comes before what is requested meanwhile") {
  ScriptedRunner runner;
  const Options options = on_cpu();
  LambdaRequests requests(runner, options);
  requests.request(0.1f);
  runner.preparing();
  requests.request(0.2f);
  runner.go_on();
  {
    const LambdaRequests::Replacement replacement(requests, 0.5f);  // waits for 0.1
    CHECK_FALSE(requests.take());
    requests.request(0.3f);
    runner.set_lambda(0.5f);
  }
  CHECK(runner.preparing() == 0.3f);  // 0.2 is forgotten
  runner.go_on();
  CHECK(taken(requests) == 0.3f);
}

TEST_CASE("turned a thousand times by another thread, every inference is of one lambda, and of the one that is told") {
  for (const std::string name : {"bound", "bound-fp16", "bound-int8", "input", "bank", "refit"}) {
    CAPTURE(name);
    Model model = Model::load(bundle_path(name).string(), on_cpu());
    const std::vector<float> image = one_image(model);
    const auto wanted = logits_by_lambda(model, image);
    const int turns = name == "bound" ? 1000 : 50, per_turn = 10;
    std::vector<float> lambdas;
    for (const auto& entry : wanted) lambdas.push_back(entry.first);
    std::atomic<int> done{0};
    float last = 0;
    std::thread knob([&] {  // in step with the inferences, so that the speed of the machine decides nothing
      for (int i = 0; i < turns; ++i) {
        while (done < i * per_turn) std::this_thread::yield();
        model.request_lambda(last = lambdas[static_cast<std::size_t>(i * 7 % static_cast<int>(lambdas.size()))]);
        model.lambda();
      }
    });
    bool right = true;
    std::size_t changes = 0;
    std::vector<float> logits(model.output().size());
    for (; done < turns * per_turn; ++done) {
      const float before = model.lambda();
      model.infer(image, 1, logits);
      changes += model.lambda() != before;
      right = right && logits == wanted.at(model.lambda());
    }
    knob.join();
    infer_until(model, last, image);
    CHECK(right);
    CHECK_FALSE(model.request_failure());
    MESSAGE(name << ": " << turns << " requests, " << changes << " changes in " << turns * per_turn << " inferences");
  }
}

TEST_CASE("a request for the lambda in force starts no thread, so that nothing is prepared") {
  for (const std::string name : {"bound", "bank", "input", "refit"}) {
    CAPTURE(name);
    Model loaded = Model::load(bundle_path(name).string(), on_cpu());
    CHECK_FALSE(starts_thread([&] { loaded.request_lambda(loaded.lambda()); }));
    loaded.set_lambda(1);
    Model copy = loaded.clone();
    CHECK_FALSE(starts_thread([&] { copy.request_lambda(1); }));
    CHECK_FALSE(starts_thread([&] { loaded.request_lambda(1); }));
    CHECK(starts_thread([&] { copy.request_lambda(0); }));
  }
}

TEST_CASE("a request that is refused throws where it is made, and changes nothing") {
  Model bound = Model::load(bundle_path("bound").string(), on_cpu());
  Model bank = Model::load(bundle_path("bank").string(), on_cpu());
  bound.set_lambda(0.5f);
  for (const float lam : {-0.1f, 1.1f, std::numeric_limits<float>::quiet_NaN()}) {
    CHECK(code_of([&] { bound.request_lambda(lam); }) == ErrorCode::lambda_out_of_range);
  }
  CHECK(code_of([&] { bank.request_lambda(0.3f); }) == ErrorCode::lambda_unsupported);
  logits_of(bound, one_image(bound));
  CHECK(bound.lambda() == 0.5f);
  CHECK_FALSE(bound.request_failure());
}

TEST_CASE("set_lambda and request_lambda take turns, and a clone or a moved model has a knob of its own") {
  for (const std::string name : {"bound", "input", "refit"}) {
    CAPTURE(name);
    Model original = Model::load(bundle_path(name).string(), on_cpu());
    const std::vector<float> image = one_image(original);
    const auto wanted = logits_by_lambda(original, image);
    original.request_lambda(wanted.begin()->first);
    infer_until(original, wanted.begin()->first, image);
    for (const auto& [lam, logits] : wanted) {
      original.request_lambda(lam);
      original.set_lambda(0.5f);
      original.set_lambda(lam);
      CHECK(logits_of(original, image) == logits);
      CHECK(original.lambda() == lam);
    }
    original.request_lambda(0);
    Model copy = original.clone();
    CHECK(copy.lambda() == 1);
    Model moved = std::move(original);
    infer_until(moved, 0, image);
    CHECK(logits_of(moved, image) == wanted.at(0));
    CHECK(logits_of(copy, image) == wanted.at(1));
    copy.request_lambda(0);  // and is destroyed at once
  }
}

}  // namespace floats_rt
