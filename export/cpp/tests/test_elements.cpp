#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>

#include "elements.hpp"

namespace floats_rt {

// Exact value of a finite half.
static double half_value(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double magnitude = exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
  return bits >> 15 ? -magnitude : magnitude;
}

// Exact value of a finite bfloat16: the upper half of a float.
static double bfloat16_value(std::uint16_t bits) {
  const std::uint32_t wide = std::uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

// Checks, for each number from 0 to below infinity, itself and what lies between it and the next one up.
template <typename Value, typename Convert>
static void check_rounding(std::uint16_t infinity, double above_largest, const Value& value, const Convert& convert) {
  for (std::uint16_t bits = 0; bits < infinity; ++bits) {
    const auto above = static_cast<std::uint16_t>(bits + 1);
    const double low = value(bits), high = above == infinity ? above_largest : value(above);
    const auto middle = static_cast<float>((low + high) / 2);  // exact in float
    bool right = true;  // one assertion for all of them: under qemu assertions are slow
    for (const int sign : {0, 1}) {
      const auto converted = [&](float number) { return convert(sign ? -number : number) ^ sign << 15; };
      right = right && converted(static_cast<float>(low)) == bits;
      right = right && converted(std::nextafter(middle, 0.0f)) == bits;
      right = right && converted(middle) == (bits % 2 ? above : bits);
      right = right && converted(std::nextafter(middle, std::numeric_limits<float>::infinity())) == above;
    }
    if (!right) FAIL(bits);
  }
}

TEST_CASE("half: every one survives, and what lies between two goes to the nearer, or to the even one") {
  check_rounding(0x7c00, 65536.0, half_value, to_half);
}

TEST_CASE("bfloat16: likewise") { check_rounding(0x7f80, 0x1p128, bfloat16_value, to_bfloat16); }

TEST_CASE("half: what is too large becomes infinity, and NaN stays NaN") {
  CHECK(to_half(65536.0f) == 0x7c00);
  CHECK(to_half(-1e30f) == 0xfc00);
  CHECK(to_half(std::numeric_limits<float>::infinity()) == 0x7c00);
  CHECK((to_half(std::numeric_limits<float>::quiet_NaN()) & 0x7fff) > 0x7c00);
  CHECK(to_half(std::numeric_limits<float>::denorm_min()) == 0);
}

TEST_CASE("int8: the nearest step, ties to even, within [-128, 127]") {
  for (int step = -130; step <= 130; ++step) {
    for (const float part : {-0.5f, -0.49f, 0.0f, 0.49f, 0.5f}) {
      const float steps = static_cast<float>(step) + part;
      const double wanted = std::fmin(std::fmax(std::nearbyint(double{steps}), -128), 127);
      REQUIRE(to_int8(steps, 1) == wanted);
      REQUIRE(to_int8(steps / 8, 0.125f) == wanted);
    }
  }
  CHECK(to_int8(1e30f, 1e-30f) == 127);
  CHECK(to_int8(-1e30f, 1e-30f) == -128);
  CHECK_NOTHROW(to_int8(std::numeric_limits<float>::quiet_NaN(), 1));  // some number, as the sanitizer can tell
}

}  // namespace floats_rt
