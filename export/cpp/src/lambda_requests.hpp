// Changes of lambda that another thread asked for, made beside what runs.
#pragma once

#include <condition_variable>
#include <limits>
#include <mutex>
#include <optional>
#include <thread>

#include "floats_rt/floats_rt.hpp"
#include "runner.hpp"

namespace floats_rt {

// A thread makes the weights of the latest request; the thread that infers takes them when they are made. What is made
// is never thrown away for a later request: requests that come faster than weights are made would starve otherwise.
class LambdaRequests {
 public:
  // Both must outlive this. No thread is started yet.
  LambdaRequests(Runner& runner, const Options& options) : runner_(runner), options_(options) {}
  LambdaRequests(const LambdaRequests&) = delete;
  LambdaRequests& operator=(const LambdaRequests&) = delete;

  // Waits for what is being made.
  ~LambdaRequests();

  // Any thread: asks for a lambda that the bundle serves. Throws std::system_error if no thread can be started.
  void request(float lam);

  // Any thread: why the latest request could not be met; nothing if it was, or is not made yet.
  std::optional<Error> failure() const;

  // The thread that infers: puts in force what is made, and returns its lambda. Waits for nobody.
  std::optional<float> take() noexcept;

  // The thread that infers: while there is one, `lam` is put in force in place of all that was requested before, and
  // nothing is made beside. Waits for what is being made.
  class Replacement {
   public:
    Replacement(LambdaRequests& requests, float lam);
    Replacement(const Replacement&) = delete;
    Replacement& operator=(const Replacement&) = delete;
    ~Replacement();

   private:
    LambdaRequests& requests_;
  };

 private:
  void work();
  std::optional<Error> make(float lam) const;

  Runner& runner_;
  const Options& options_;
  mutable std::mutex mutex_;  // held briefly, or while the thread is started; never while something is made
  std::condition_variable changed_;
  std::optional<float> wanted_, made_;                      // not begun yet; not taken yet
  float newest_ = std::numeric_limits<float>::quiet_NaN();  // what was asked for last, unless that failed
  bool busy_ = false, ending_ = false;                      // busy: the runner is not to be prepared
  std::optional<Error> failure_;
  std::thread thread_;  // since the first request
};

}  // namespace floats_rt
