// Scaling 8-bit images, as floats_edge/preprocessing.py states it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "rows.hpp"

namespace floats_rt {

// One direction: `inputs` pixels are scaled to `outputs`, of which `count` from `first` on are kept.
struct Axis {
  std::size_t inputs, outputs, first, count;
};

// Scales images of one size to another. Belongs to one thread at a time; keeps the memory that it takes.
class Scaler {
 public:
  virtual ~Scaler() = default;

  // Sets both sizes.
  virtual void prepare(const Axis& rows, const Axis& columns) = 0;

  // What is kept, [rows.count][image.channels()][columns.count]; it stays until the next call.
  virtual const std::uint8_t* scale(const Rows& image) = 0;
};

// Averages over all pixels when scaling down: Pillow's BILINEAR.
std::unique_ptr<Scaler> antialiasing_scaler();

// Takes the two nearest pixels in each direction.
std::unique_ptr<Scaler> two_taps_scaler();

}  // namespace floats_rt
