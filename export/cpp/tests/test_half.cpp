#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>

#include "half.hpp"

namespace floats_rt {

// Exact value of a finite half.
static double value(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double magnitude = exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
  return bits >> 15 ? -magnitude : magnitude;
}

TEST_CASE("every half survives, and what lies between two goes to the nearer, or to the even one") {
  for (std::uint16_t bits = 0; bits < 0x7c00; ++bits) {
    const auto low = static_cast<float>(value(bits));
    const double high = bits == 0x7bff ? 65536.0 : value(static_cast<std::uint16_t>(bits + 1));
    const auto middle = static_cast<float>((low + high) / 2);  // exact in float
    const auto above = static_cast<std::uint16_t>(bits + 1);
    for (const int sign : {0, 1}) {
      const auto convert = [&](float number) { return to_half(sign ? -number : number).bits ^ sign << 15; };
      REQUIRE(convert(low) == bits);
      REQUIRE(convert(std::nextafter(middle, 0.0f)) == bits);
      REQUIRE(convert(middle) == (bits % 2 ? above : bits));
      REQUIRE(convert(std::nextafter(middle, 1e9f)) == above);
    }
  }
}

TEST_CASE("what is too large becomes infinity, and NaN stays NaN") {
  CHECK(to_half(65536.0f).bits == 0x7c00);
  CHECK(to_half(-1e30f).bits == 0xfc00);
  CHECK(to_half(std::numeric_limits<float>::infinity()).bits == 0x7c00);
  CHECK((to_half(std::numeric_limits<float>::quiet_NaN()).bits & 0x7fff) > 0x7c00);
  CHECK(to_half(std::numeric_limits<float>::denorm_min()).bits == 0);
}

}  // namespace floats_rt
