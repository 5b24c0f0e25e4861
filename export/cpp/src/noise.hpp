// The frozen, seeded noise eta, identical to floats_edge/method/noise.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace floats_rt {

// `count` standard-normal float32: Philox 4x64-10 keyed by (seed, layer index), Box-Muller in float64. Equal to
// Python's to the last bit, but for 1 ulp where the two mathematical libraries round log, sin or cos differently.
std::vector<float> standard_normal(std::uint64_t seed, std::uint64_t layer_index, std::size_t count,
                                   std::size_t threads);

}  // namespace floats_rt
