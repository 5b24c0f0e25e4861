#include "lambda_requests.hpp"

#include "border.hpp"
#include "log.hpp"

namespace floats_rt {

LambdaRequests::~LambdaRequests() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void LambdaRequests::request(float lam) {
  {
    const std::lock_guard lock(mutex_);
    if (lam == newest_) return;
    if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
    wanted_ = newest_ = lam;
    failure_.reset();
  }
  changed_.notify_all();
}

std::optional<Error> LambdaRequests::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

std::optional<float> LambdaRequests::take() noexcept {
  std::optional<float> taken;
  {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock || !made_) return taken;
    runner_.take();
    taken.swap(made_);
  }
  changed_.notify_all();
  return taken;
}

LambdaRequests::Replacement::Replacement(LambdaRequests& requests, float lam) : requests_(requests) {
  std::unique_lock lock(requests_.mutex_);
  requests_.changed_.wait(lock, [this] { return !requests_.busy_; });
  requests_.busy_ = true;
  requests_.wanted_.reset();
  requests_.made_.reset();
  requests_.failure_.reset();
  requests_.newest_ = lam;
}

LambdaRequests::Replacement::~Replacement() {
  {
    const std::lock_guard lock(requests_.mutex_);
    requests_.busy_ = false;
  }
  requests_.changed_.notify_all();
}

void LambdaRequests::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ending_ || (wanted_ && !made_ && !busy_); });
    if (ending_) return;
    const float lam = *wanted_;
    wanted_.reset();
    busy_ = true;
    lock.unlock();
    std::optional<Error> failure = make(lam);
    lock.lock();
    busy_ = false;
    if (!failure) made_ = lam;
    if (failure && !wanted_) {
      failure_ = std::move(failure);
      newest_ = std::numeric_limits<float>::quiet_NaN();
    }
    changed_.notify_all();
  }
}

std::optional<Error> LambdaRequests::make(float lam) const {
  try {
    translated([&] { runner_.prepare(lam); });
    return std::nullopt;
  } catch (const Error& error) {
    try {
      report(options_, Severity::error,
             "lambda stays as it is, because that of a request could not be made: " + std::string(error.what()));
    } catch (...) {  // what the application's log throws has nowhere to go
    }
    return error;
  }
}

}  // namespace floats_rt
