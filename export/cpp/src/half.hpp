// IEEE 754 half precision, as storage.
#pragma once

#include <cstdint>
#include <cstring>

namespace floats_rt {

struct Half {
  std::uint16_t bits;
};

// Correctly rounded (to nearest, ties to even); without branches, so that loops over it vectorise.
inline Half to_half(float value) {
  const auto bits_of = [](float number) {
    std::uint32_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    return bits;
  };
  const std::uint32_t bits = bits_of(value), sign = bits & 0x80000000u, magnitude = bits ^ sign;
  // Below 2^-14 the result is subnormal: adding 0.5 leaves it in the low bits, rounded by the addition.
  float absolute;
  std::memcpy(&absolute, &magnitude, sizeof absolute);
  const std::uint32_t subnormal = bits_of(absolute + 0.5f) - 0x3f000000u;
  const std::uint32_t normal = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  const std::uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;  // NaN or infinity
  const std::uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  return {static_cast<std::uint16_t>((magnitude < 0x47800000u ? finite : special) | sign >> 16)};
}

}  // namespace floats_rt
