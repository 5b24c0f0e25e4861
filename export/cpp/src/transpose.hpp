// Turning rows of bytes into columns.
#pragma once

#include <cstddef>
#include <cstdint>

namespace floats_rt {

// out[column * out_stride + row] = in[row * in_stride + column]
void transpose(const std::uint8_t* in, std::size_t in_stride, std::size_t rows, std::size_t columns, std::uint8_t* out,
               std::size_t out_stride);

}  // namespace floats_rt
