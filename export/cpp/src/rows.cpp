#include "rows.hpp"

namespace floats_rt {

namespace {

// Where red, green and blue are in a pixel.
std::array<std::size_t, 3> offsets_of(Colours colours) {
  if (colours == Colours::grey) return {0, 0, 0};
  if (colours == Colours::rgb || colours == Colours::rgba) return {0, 1, 2};
  return {2, 1, 0};
}

// Pillow's rule.
constexpr std::uint8_t grey(std::uint32_t red, std::uint32_t green, std::uint32_t blue) {
  return static_cast<std::uint8_t>((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16);
}

}  // namespace

std::size_t bytes_per_pixel(Colours colours) {
  switch (colours) {
    case Colours::grey:
      return 1;
    case Colours::rgb:
    case Colours::bgr:
      return 3;
    case Colours::rgba:
    case Colours::bgra:
      return 4;
  }
  return 0;
}

Rows::Rows(const ImageView& image, Colours wanted)
    : data_(image.data),
      stride_(stride_of(image)),
      step_(bytes_per_pixel(image.colours)),
      channels_(image.colours == Colours::grey || wanted == Colours::grey ? 1 : 3),
      offsets_(offsets_of(image.colours)),
      is_mixed_(wanted == Colours::grey && image.colours != Colours::grey) {
  if (wanted == Colours::bgr) std::swap(offsets_[0], offsets_[2]);
}

RowBytes Rows::at(std::size_t row, std::size_t count, std::size_t column, std::size_t columns,
                  std::vector<std::uint8_t>& scratch) const {
  const std::uint8_t* const first = data_ + row * stride_ + column * step_;
  if (!is_mixed_) return {first, stride_};
  scratch.resize(count * columns);
  std::uint8_t* mixed = scratch.data();
  for (std::size_t y = 0; y < count; ++y) {
    const std::uint8_t* pixel = first + y * stride_;
    for (std::size_t x = 0; x < columns; ++x, pixel += step_) {
      *mixed++ = grey(pixel[offsets_[0]], pixel[offsets_[1]], pixel[offsets_[2]]);
    }
  }
  return {scratch.data(), columns};
}

}  // namespace floats_rt
