#include "transpose.hpp"

#include <algorithm>
#include <cstring>

namespace floats_rt {

namespace {

constexpr std::size_t kSide = 8;   // of a tile: each of its rows is one number, the first byte the lowest
constexpr std::size_t kTiles = 2;  // side by side, in a vector that every 64-bit processor has
constexpr std::size_t kWidth = kTiles * kSide;
using TileRows [[gnu::vector_size(kTiles * sizeof(std::uint64_t))]] = std::uint64_t;

// Swaps the bits of `upper` above `mask` with those of `lower` inside it.
inline void swap_blocks(TileRows& upper, TileRows& lower, std::uint64_t mask, int bits) {
  const TileRows difference = (upper >> bits ^ lower) & mask;
  lower ^= difference;
  upper ^= difference << bits;
}

// Of at most 8 x 16 bytes: the corners of a tile are swapped, then those of each quarter, then those of their quarters.
inline void transpose_tiles(const std::uint8_t* in, std::size_t in_stride, std::size_t rows, std::size_t columns,
                            std::uint8_t* out, std::size_t out_stride) {
  TileRows tiles[kSide] = {};
  for (std::size_t i = 0; i < rows; ++i) std::memcpy(&tiles[i], in + i * in_stride, columns);
  for (std::size_t i = 0; i < 4; ++i) swap_blocks(tiles[i], tiles[i + 4], 0x00000000ffffffff, 32);
  for (std::size_t i : {0, 1, 4, 5}) swap_blocks(tiles[i], tiles[i + 2], 0x0000ffff0000ffff, 16);
  for (std::size_t i : {0, 2, 4, 6}) swap_blocks(tiles[i], tiles[i + 1], 0x00ff00ff00ff00ff, 8);
  for (std::size_t i = 0; i < columns; ++i) {
    const std::uint64_t column = tiles[i % kSide][i / kSide];
    std::memcpy(out + i * out_stride, &column, rows);
  }
}

}  // namespace

void transpose(const std::uint8_t* in, std::size_t in_stride, std::size_t rows, std::size_t columns, std::uint8_t* out,
               std::size_t out_stride) {
  for (std::size_t y = 0; y < rows; y += kSide) {
    for (std::size_t x = 0; x < columns; x += kWidth) {
      const std::uint8_t* const from = in + y * in_stride + x;
      std::uint8_t* const to = out + x * out_stride + y;
      const std::size_t high = std::min(kSide, rows - y), wide = std::min(kWidth, columns - x);
      if (high == kSide && wide == kWidth) {
        transpose_tiles(from, in_stride, kSide, kWidth, to, out_stride);  // of a size that the compiler knows
      } else {
        transpose_tiles(from, in_stride, high, wide, to, out_stride);
      }
    }
  }
}

}  // namespace floats_rt
