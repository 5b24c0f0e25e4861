// Inferences that end before they are done.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "floats_rt/floats_rt.hpp"

namespace floats_rt {

// Ends an inference because another thread wants it, or because its time is over. With a time limit, a thread watches
// the clock.
class Interruption {
 public:
  Interruption() = default;
  Interruption(const Interruption&) = delete;
  Interruption& operator=(const Interruption&) = delete;
  ~Interruption();

  // Any thread: the inference that is running is to end; if none is, nothing happens.
  void cancel();

  // The thread that infers: how long each inference may take. Throws std::system_error if no thread can be started.
  void set_limit(std::chrono::nanoseconds limit);
  std::chrono::nanoseconds limit() const noexcept { return limit_; }
  bool is_limited() const noexcept { return limit_ != kNoTimeLimit; }

  // The thread that infers: while there is one, an inference is running.
  class Running {
   public:
    explicit Running(Interruption& interruption);
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;
    ~Running();

   private:
    Interruption& interruption_;
  };

  // Throws Error, cancelled or deadline_exceeded, if what is running is to end.
  void check() const;

  // The thread that infers: while there is one, stop() is called once what is running is to end, by whichever thread
  // wants that. Throws what check() throws.
  class Handler {
   public:
    Handler(Interruption& interruption, std::function<void()> stop);
    Handler(const Handler&) = delete;
    Handler& operator=(const Handler&) = delete;
    ~Handler();

   private:
    Interruption& interruption_;
  };

 private:
  using Time = std::chrono::steady_clock::time_point;
  enum class Reason { none, cancelled, late };

  void interrupt(Reason reason);
  void watch();

  std::chrono::nanoseconds limit_ = kNoTimeLimit;
  std::mutex mutex_;  // held briefly
  std::condition_variable changed_;
  bool running_ = false, ending_ = false;
  std::atomic<Reason> reason_{Reason::none};  // for which what is running is to end
  std::function<void()> stop_;
  Time deadline_ = Time::max();  // of what is running
  Time wakes_ = Time::max();     // when the thread looks at the deadline again
  std::thread thread_;           // since the first limit
};

}  // namespace floats_rt
