#include "interruption.hpp"

#include <utility>

namespace floats_rt {

Interruption::~Interruption() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Interruption::cancel() {
  const std::lock_guard lock(mutex_);
  interrupt(Reason::cancelled);
}

void Interruption::set_limit(std::chrono::nanoseconds limit) {
  if (limit != kNoTimeLimit && !thread_.joinable()) thread_ = std::thread([this] { watch(); });
  limit_ = limit;
}

void Interruption::check() const {
  switch (reason_) {
    case Reason::none:
      return;
    case Reason::cancelled:
      throw Error(ErrorCode::cancelled, "the inference was cancelled.", "infer again: the model is as it was");
    case Reason::late:
      throw Error(ErrorCode::deadline_exceeded, "the inference took longer than the model's time limit.",
                  "infer again, on fewer images or with a longer limit: the model is as it was");
  }
}

Interruption::Handler::Handler(Interruption& interruption, std::function<void()> stop) : interruption_(interruption) {
  const std::lock_guard lock(interruption_.mutex_);
  interruption_.check();
  interruption_.stop_ = std::move(stop);
}

Interruption::Handler::~Handler() {
  const std::lock_guard lock(interruption_.mutex_);
  interruption_.stop_ = nullptr;
}

Interruption::Running::Running(Interruption& interruption) : interruption_(interruption) {
  Time deadline = Time::max();
  if (interruption_.is_limited()) {
    const Time now = std::chrono::steady_clock::now();
    if (interruption_.limit_ < deadline - now) deadline = now + interruption_.limit_;
  }
  bool is_early = false;
  {
    const std::lock_guard lock(interruption_.mutex_);
    interruption_.running_ = true;
    interruption_.reason_ = Reason::none;
    interruption_.deadline_ = deadline;
    is_early = deadline < interruption_.wakes_;
  }
  if (is_early) interruption_.changed_.notify_all();
}

Interruption::Running::~Running() {
  const std::lock_guard lock(interruption_.mutex_);
  interruption_.running_ = false;
  interruption_.deadline_ = Time::max();
}

// With the mutex held.
void Interruption::interrupt(Reason reason) {
  if (!running_ || reason_ != Reason::none) return;
  reason_ = reason;
  deadline_ = Time::max();
  if (stop_) stop_();
}

void Interruption::watch() {
  std::unique_lock lock(mutex_);
  while (!ending_) {
    wakes_ = deadline_;
    if (wakes_ == Time::max()) {
      changed_.wait(lock);
    } else {
      changed_.wait_until(lock, wakes_);
    }
    if (std::chrono::steady_clock::now() >= deadline_) interrupt(Reason::late);
  }
}

}  // namespace floats_rt
