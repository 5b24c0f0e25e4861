// SHA-256 (FIPS 180-4). Our own, so that a board needs no library for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace floats_rt {

// Hex digest, lower case.
std::string sha256(const std::uint8_t* data, std::size_t size);

}  // namespace floats_rt
