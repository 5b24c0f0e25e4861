// From a camera's image to what the network takes.
#pragma once

#include <memory>

#include "floats_rt/floats_rt.hpp"
#include "scaler.hpp"

namespace floats_rt {

// Belongs to one thread at a time. What it computes for images of one size, and the memory that it takes, stay.
class Preprocessor {
 public:
  explicit Preprocessor(const Preprocessing& rule);

  // Throws Error, bad_shape, for what is no image or cannot be scaled.
  void check(const ImageView& image) const;

  // Fills pixels, float32 [C, H, W] in [0, 1], with an image that was checked.
  void run(const ImageView& image, float* pixels);

 private:
  void prepare(std::size_t height, std::size_t width);

  Preprocessing rule_;
  std::unique_ptr<Scaler> scaler_;
  Axis rows_{}, columns_{};  // that the scaler is prepared for
};

}  // namespace floats_rt
