// The rows of an image, with the channels that a network takes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "floats_rt/floats_rt.hpp"

namespace floats_rt {

// Bytes of a pixel; 0: there are no such colours.
std::size_t bytes_per_pixel(Colours colours);

// Bytes from one row to the next.
inline std::size_t stride_of(const ImageView& image) {
  return image.stride ? image.stride : image.width * bytes_per_pixel(image.colours);
}

// Consecutive rows in memory.
struct RowBytes {
  const std::uint8_t* data;
  std::size_t stride;
};

class Rows {
 public:
  Rows(const ImageView& image, Colours wanted);

  // How many channels there are to be scaled: one of a grey image or for a network that takes grey, else three.
  std::size_t channels() const { return channels_; }

  // Bytes of a pixel in what at() gives, and which of them is a channel, in the order that the network takes.
  std::size_t step() const { return is_mixed_ ? 1 : step_; }
  std::size_t offset(std::size_t channel) const { return is_mixed_ ? 0 : offsets_[channel]; }

  // `count` rows from `row` on, from `column` on; of `columns` pixels if they must be made grey first, in `scratch`.
  RowBytes at(std::size_t row, std::size_t count, std::size_t column, std::size_t columns,
              std::vector<std::uint8_t>& scratch) const;

 private:
  const std::uint8_t* data_;
  std::size_t stride_, step_, channels_;
  std::array<std::size_t, 3> offsets_;
  bool is_mixed_;  // grey is made of red, green and blue
};

}  // namespace floats_rt
