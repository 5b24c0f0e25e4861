#include "image.hpp"

#include <algorithm>
#include <cstdint>
#include <string>

namespace floats_rt {

namespace {

constexpr std::size_t kLargestSide = 65535;           // of an image, as of a JPEG file
constexpr std::uint64_t kLargestScaled = 89'478'485;  // pixels of an image while it is scaled, as in Python

struct Size {
  std::uint64_t height, width;
};

std::string text(const Size& size) { return std::to_string(size.width) + "x" + std::to_string(size.height); }

[[noreturn]] void refuse(const std::string& what, const char* remedy) {
  throw Error(ErrorCode::bad_shape, what, remedy);
}

// What an image is scaled to, before it is cropped or filled up.
Size scaled_size(const Size& stored, const Preprocessing& rule) {
  const Size box{rule.covered_height, rule.covered_width};
  if (rule.resize == Resize::squash) return box;
  const std::uint64_t by_height = stored.height * box.width, by_width = stored.width * box.height;
  if (rule.resize == Resize::pad ? by_width <= by_height : by_height <= by_width) {
    return {box.height, std::max<std::uint64_t>(1, by_width / stored.height)};
  }
  return {std::max<std::uint64_t>(1, by_height / stored.width), box.width};
}

// Half of a number; a half is rounded to the even one.
std::size_t half(std::size_t number) { return number / 2 + (number % 4 == 3); }

// The part of a scaled side that is kept: its middle, or all of it.
Axis axis_of(std::size_t stored, std::size_t scaled, std::size_t wanted) {
  return {stored, scaled, scaled > wanted ? half(scaled - wanted) : 0, std::min(scaled, wanted)};
}

}  // namespace

Preprocessor::Preprocessor(const Preprocessing& rule)
    : rule_(rule), scaler_(rule.antialias ? antialiasing_scaler() : two_taps_scaler()) {}

void Preprocessor::check(const ImageView& image) const {
  const std::size_t pixel = bytes_per_pixel(image.colours);
  if (!pixel) refuse("an image has colours that there are not.", "choose one of floats_rt::Colours");
  if (!image.data || !image.height || !image.width) refuse("an image has no pixels.", "pass one that was captured");
  const Size stored{image.height, image.width};
  if (std::max(image.height, image.width) > kLargestSide) {
    refuse("an image has " + text(stored) + " pixels, and at most 65535 are taken in each direction.",
           "pass a part of it");
  }
  if (stride_of(image) < image.width * pixel || stride_of(image) > PTRDIFF_MAX / image.height) {
    refuse("rows of " + std::to_string(image.width * pixel) + " bytes cannot be " + std::to_string(image.stride) +
               " bytes apart.",
           "state in ImageView::stride how many bytes lie between the beginnings of two rows, or 0");
  }
  const Size scaled = scaled_size(stored, rule_);
  const bool is_scaled = scaled.height != stored.height || scaled.width != stored.width;
  if (is_scaled && std::max(stored.height, scaled.height) * scaled.width > kLargestScaled) {
    refuse("an image cannot be scaled: it has " + text(stored) + " pixels and is too thin: to scale it to " +
               text(scaled) + " takes more than 89478485 pixels.",
           "leave it out, or train with -o data.preprocessing.resize=pad");
  }
}

void Preprocessor::prepare(std::size_t height, std::size_t width) {
  if (rows_.inputs == height && columns_.inputs == width) return;
  const Size scaled = scaled_size({height, width}, rule_);
  rows_ = {};  // unless the next lines end well
  columns_ = axis_of(width, scaled.width, rule_.width);
  const Axis rows = axis_of(height, scaled.height, rule_.height);
  scaler_->prepare(rows, columns_);
  rows_ = rows;
}

void Preprocessor::run(const ImageView& image, float* pixels) {
  prepare(image.height, image.width);
  const Rows rows(image, rule_.colours);
  const std::uint8_t* const scaled = scaler_->scale(rows);
  const std::size_t planes = rule_.colours == Colours::grey ? 1 : 3, plane = rule_.height * rule_.width;
  const std::size_t top = (rule_.height - rows_.count) / 2, left = (rule_.width - columns_.count) / 2;
  if (rule_.resize == Resize::pad) std::fill_n(pixels, planes * plane, 0.0f);
  for (std::size_t c = 0; c < planes; ++c) {
    for (std::size_t y = 0; y < rows_.count; ++y) {
      const std::size_t line = y * rows.channels() + (rows.channels() == 1 ? 0 : c);
      const std::uint8_t* const from = scaled + line * columns_.count;
      float* const to = pixels + c * plane + (top + y) * rule_.width + left;
      for (std::size_t x = 0; x < columns_.count; ++x) to[x] = static_cast<float>(from[x]) / 255;
    }
  }
}

}  // namespace floats_rt
