#include <cmath>
#include <nlohmann/json.hpp>

#include "floats_rt/lambda_policy.hpp"
#include "support.hpp"

namespace floats_rt {

using nlohmann::json;

TEST_CASE("a policy gives what Python's gives, in number and reason") {
  const Bytes text = file_bytes(POLICY_CASES);
  const json cases = json::parse(text);
  CHECK(cases.size() > 5);
  const auto number = [](const json& value) { return value.is_null() ? std::nan("") : value.get<double>(); };
  for (const json& each : cases) {
    CAPTURE(each["name"].get<std::string>());
    PolicySettings settings;
    const json& given = each["settings"];
    settings.quiet = given.value("quiet", settings.quiet);
    settings.alert = given.value("alert", settings.alert);
    settings.enter = given.value("enter", settings.enter);
    settings.leave = given.value("leave", settings.leave);
    settings.per_second = given.value("per_second", settings.per_second);
    settings.hold = given.value("hold", settings.hold);
    LambdaPolicy policy(settings);
    for (const json& step : each["steps"]) {
      CAPTURE(step.dump());
      const Decision decision = policy.update(number(step[0]), number(step[1]));
      CHECK(decision.lambda == step[2].get<float>());
      CHECK(to_string(decision.reason) == step[3].get<std::string>());
      CHECK(decision.limited == step[4].get<bool>());
    }
  }
}

TEST_CASE("settings that do not go together are refused") {
  const auto refused = [](double PolicySettings::*setting, double value) {
    PolicySettings settings;
    settings.*setting = value;
    CHECK(code_of([&] { LambdaPolicy{settings}; }) == ErrorCode::policy_invalid);
  };
  const double infinity = std::numeric_limits<double>::infinity();
  refused(&PolicySettings::quiet, -0.1);
  refused(&PolicySettings::alert, 1.1);
  refused(&PolicySettings::alert, std::nan(""));
  refused(&PolicySettings::enter, 0.4);
  refused(&PolicySettings::leave, std::nan(""));
  refused(&PolicySettings::enter, infinity);
  refused(&PolicySettings::per_second, 0);
  refused(&PolicySettings::hold, -1);
  refused(&PolicySettings::hold, infinity);
}

}  // namespace floats_rt
