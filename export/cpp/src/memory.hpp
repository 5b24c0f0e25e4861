// How much memory a bundle asks for, known from its manifest before any of it is allocated.
#pragma once

#include <cstdint>

#include "manifest.hpp"

namespace floats_rt {

// Throws Error, out_of_memory, if the files that are read and the weights that are computed from them take more than
// `max_bytes`.
void check_memory(const Manifest& manifest, std::uint64_t max_bytes);

}  // namespace floats_rt
