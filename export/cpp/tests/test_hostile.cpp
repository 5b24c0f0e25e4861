// Bundles as a stranger might make them: what Python refuses is refused here too, and what it takes is taken. They are
// those of tests/fixtures/hostile, written by make_bundles.py.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "floats_rt/floats_rt.hpp"
#include "support.hpp"

namespace floats_rt {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
constexpr bool kSanitized = __has_feature(address_sanitizer);
#else
constexpr bool kSanitized = false;
#endif

#ifdef __x86_64__
constexpr double kLongest = 2;  // seconds of the processor
#else
constexpr double kLongest = 20;  // emulated
#endif
constexpr long kLargest = 256;  // MiB

constexpr int kTaken = 0, kRefused = 1, kGarbled = 2;  // what a process that loads a bundle ends with

int load(const std::filesystem::path& folder) {
  Options options;
  options.backend = Backend::onnxruntime;
  options.threads = 1;
  options.log = [](const LogLine& line) {
    if (std::any_of(line.text.begin(), line.text.end(), [](unsigned char c) { return c < 0x20; })) ::_exit(kGarbled);
  };
  try {
    Model::load(folder.string(), options);
    return kTaken;
  } catch (const Error& error) {
    const std::string what = error.what();
    const bool garbled = std::any_of(what.begin(), what.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
    return garbled ? kGarbled : kRefused;
  }
}

// Loads every bundle of a folder, each in a process of its own, which must end so.
void expect(const char* folder, int wanted) {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(bundle_path("hostile") / folder)) {
    if (!entry.is_directory()) continue;  // what a bundle links to
    CAPTURE(entry.path().string());
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) ::_exit(load(entry.path()));
    int status = 0;
    rusage used{};
    REQUIRE(::wait4(child, &status, 0, &used) == child);
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == wanted);
    const auto seconds = [](const timeval& time) {
      return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    CHECK(seconds(used.ru_utime) + seconds(used.ru_stime) < kLongest);
    if (!kSanitized) CHECK(used.ru_maxrss / 1024 < kLargest);
    ++count;
  }
  CHECK(count > 10);
}

}  // namespace

TEST_CASE("what Python refuses is refused, with words that no terminal obeys, at little cost") {
  expect("refused", kRefused);
}

TEST_CASE("what is odd and honest is taken") { expect("taken", kTaken); }

}  // namespace floats_rt
