#include "floats_rt/lambda_policy.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "floats_rt/floats_rt.hpp"

namespace floats_rt {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void check(bool fits, const std::string& what, const char* remedy) {
  if (!fits) throw Error(ErrorCode::policy_invalid, what, remedy);
}

bool is_lambda(double value) { return value >= 0 && value <= 1; }

}  // namespace

const char* to_string(Reason reason) noexcept {
  switch (reason) {
    case Reason::quiet:
      return "quiet";
    case Reason::entered:
      return "entered";
    case Reason::alert:
      return "alert";
    case Reason::between:
      return "between";
    case Reason::held:
      return "held";
    case Reason::left:
      return "left";
    case Reason::no_signal:
      return "no signal";
  }
  return "unknown";
}

LambdaPolicy::LambdaPolicy(const PolicySettings& settings) : settings_(settings), lambda_(settings.quiet) {
  check(is_lambda(settings.quiet), "quiet is " + std::to_string(settings.quiet) + ", no lambda.",
        "choose quiet from 0 to 1");
  check(is_lambda(settings.alert), "alert is " + std::to_string(settings.alert) + ", no lambda.",
        "choose alert from 0 to 1");
  check(-kInfinity < settings.leave && settings.leave <= settings.enter && settings.enter < kInfinity,
        "alert begins at " + std::to_string(settings.enter) + " and ends at " + std::to_string(settings.leave) +
            ": the second must not be higher.",
        "choose leave <= enter; if low is bad, as of a battery, pass the signal's negative");
  check(settings.per_second > 0, "per_second is " + std::to_string(settings.per_second) + ".",
        "choose a number above 0, or infinity");
  check(settings.hold >= 0 && settings.hold < kInfinity, "hold is " + std::to_string(settings.hold) + " seconds.",
        "choose 0 or more");
}

Decision LambdaPolicy::update(double signal, double seconds) noexcept {
  const double elapsed = passed(seconds);
  const Reason reason = judge(signal);
  const double target = alert_ ? settings_.alert : settings_.quiet;
  const double step = std::isinf(settings_.per_second) ? kInfinity : settings_.per_second * elapsed;
  lambda_ = std::min(std::max(target, lambda_ - step), lambda_ + step);
  return {static_cast<float>(lambda_), reason, lambda_ != target};
}

double LambdaPolicy::passed(double seconds) noexcept {
  if (!std::isfinite(seconds) || (begun_ && seconds <= now_)) return 0;
  const double elapsed = begun_ ? seconds - now_ : 0;
  begun_ = true;
  now_ = seconds;
  return elapsed;
}

Reason LambdaPolicy::judge(double signal) noexcept {
  if (std::isnan(signal)) return Reason::no_signal;
  if (signal >= settings_.enter) {
    const bool entered = !alert_;
    alert_ = true;
    alerted_at_ = now_;
    return entered ? Reason::entered : Reason::alert;
  }
  if (signal > settings_.leave) return Reason::between;
  if (!alert_) return Reason::quiet;
  if (now_ - alerted_at_ < settings_.hold) return Reason::held;
  alert_ = false;
  return Reason::left;
}

}  // namespace floats_rt
