// From a signal of the application to a lambda: a detector's score, a battery's level, a switch. No clock is read:
// whoever calls passes the time. floats_edge/lambda_policy.py is the same in Python.
#ifndef FLOATS_RT_LAMBDA_POLICY_HPP
#define FLOATS_RT_LAMBDA_POLICY_HPP

#include <limits>

#include "floats_rt/export.h"

namespace floats_rt {

// How a signal moves lambda.
struct PolicySettings {
  double quiet = 0;  // lambda while the signal is low, in [0, 1]
  double alert = 1;  // lambda after the signal was high, in [0, 1]

  // Alert begins when the signal is `enter` or higher, and ends when it is `leave` or lower. Between the two nothing
  // changes, so a noisy signal near one threshold does not switch lambda back and forth. leave <= enter.
  double enter = 0.8;
  double leave = 0.5;

  // Lambda changes by no more than this in one second; infinite: at once.
  double per_second = std::numeric_limits<double>::infinity();

  // Alert lasts at least so many seconds after the signal last reached `enter`.
  double hold = 0;
};

// Why a policy aims where it does.
enum class Reason {
  quiet,      // the signal is low
  entered,    // the signal has just reached `enter`
  alert,      // the signal is still there
  between,    // the signal is between `leave` and `enter`: what was goes on
  held,       // the signal is low, but `hold` is not over
  left,       // the signal is low, and alert has just ended
  no_signal,  // the signal is not a number: what was goes on
};

// For example "no signal".
FLOATS_RT_API const char* to_string(Reason reason) noexcept;

struct Decision {
  float lambda;  // in [0, 1]
  Reason reason;
  bool limited;  // lambda is not where it goes yet, because of `per_second`
};

// Begins quiet. Belongs to one thread at a time; what it says may be given to Model::request_lambda.
class FLOATS_RT_API LambdaPolicy {
 public:
  // Throws Error, policy_invalid, if the settings do not go together.
  explicit LambdaPolicy(const PolicySettings& settings = {});

  // Which lambda to use from `seconds` on, where the signal is this: the higher, the more there is to guard against.
  // Not a number: nothing is known. The time is that of any clock that does not stop; one that is no number, or earlier
  // than the last, counts as the last.
  Decision update(double signal, double seconds) noexcept;

 private:
  double passed(double seconds) noexcept;
  Reason judge(double signal) noexcept;

  PolicySettings settings_;
  double lambda_;
  bool alert_ = false, begun_ = false;  // begun: there was a time
  double now_ = 0, alerted_at_ = 0;
};

}  // namespace floats_rt

#endif  // FLOATS_RT_LAMBDA_POLICY_HPP
