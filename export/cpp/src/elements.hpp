// The types in which a graph takes weights, and float32 made into them as Python does it. Free of branches, so that
// loops over these functions vectorise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace floats_rt {

enum class Element { f32, f16, bf16, i8 };

// Bytes of one.
constexpr std::size_t width(Element element) { return element == Element::f32 ? 4 : element == Element::i8 ? 1 : 2; }

inline std::uint32_t bits_of(float number) {
  std::uint32_t bits;
  std::memcpy(&bits, &number, sizeof bits);
  return bits;
}

// The bits of IEEE 754's half precision: correctly rounded, to nearest, ties to even.
inline std::uint16_t to_half(float value) {
  const std::uint32_t bits = bits_of(value), sign = bits & 0x80000000u, magnitude = bits ^ sign;
  // Below 2^-14 the result is subnormal: adding 0.5 leaves it in the low bits, rounded by the addition.
  float absolute;
  std::memcpy(&absolute, &magnitude, sizeof absolute);
  const std::uint32_t subnormal = bits_of(absolute + 0.5f) - 0x3f000000u;
  const std::uint32_t normal = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  const std::uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;  // NaN or infinity
  const std::uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  return static_cast<std::uint16_t>((magnitude < 0x47800000u ? finite : special) | sign >> 16);
}

// The bits of bfloat16, for finite values: correctly rounded, ties to even.
inline std::uint16_t to_bfloat16(float value) {
  const std::uint32_t bits = bits_of(value);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// ONNX's QuantizeLinear with zero point 0: the nearest multiple of the scale (ties to even) within [-128, 127] of it.
inline std::int8_t to_int8(float value, float scale) {
  const float steps = value / scale;
  const float raised = steps > -128.0f ? steps : -128.0f;  // also where steps is NaN
  const float limited = raised < 127.0f ? raised : 127.0f;
  const float rounded = (limited + 0x1.8p23f) - 0x1.8p23f;  // what std::rint gives, and cheaper where it is a call
  return static_cast<std::int8_t>(static_cast<int>(rounded));
}

}  // namespace floats_rt
