#include "image.hpp"

#include <png.h>
#include <turbojpeg.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>

namespace {

// Interleaved pixels, 0 to 255.
struct Pixels {
  std::size_t width, height, channels;
  std::vector<unsigned char> values;
};

[[noreturn]] void fail(const std::string& path, const std::string& why) { throw std::runtime_error(path + ": " + why); }

Pixels read_png(const std::string& path, const std::vector<unsigned char>& file, std::size_t channels) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  const std::unique_ptr<png_image, void (*)(png_image*)> freed(&image, png_image_free);
  if (!png_image_begin_read_from_memory(&image, file.data(), file.size())) fail(path, image.message);
  image.format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  Pixels pixels{image.width, image.height, channels, std::vector<unsigned char>(PNG_IMAGE_SIZE(image))};
  const png_color black{};
  if (!png_image_finish_read(&image, &black, pixels.values.data(), 0, nullptr)) fail(path, image.message);
  return pixels;
}

Pixels read_jpeg(const std::string& path, const std::vector<unsigned char>& file, std::size_t channels) {
  const std::unique_ptr<void, int (*)(tjhandle)> decoder(tjInitDecompress(), tjDestroy);
  int width, height, subsampling, colours;
  const auto size = static_cast<unsigned long>(file.size());
  if (tjDecompressHeader3(decoder.get(), file.data(), size, &width, &height, &subsampling, &colours) != 0) {
    fail(path, tjGetErrorStr2(decoder.get()));
  }
  Pixels pixels{static_cast<std::size_t>(width), static_cast<std::size_t>(height), channels, {}};
  pixels.values.resize(pixels.width * pixels.height * channels);
  const int format = channels == 1 ? TJPF_GRAY : TJPF_RGB;
  if (tjDecompress2(decoder.get(), file.data(), size, pixels.values.data(), width, 0, height, format, 0) != 0) {
    fail(path, tjGetErrorStr2(decoder.get()));
  }
  return pixels;
}

// Resamples lines of `from` values each to `to`, with a triangle as wide as the step, but no narrower than 1.
std::vector<float> resampled(const std::vector<float>& lines, std::size_t from, std::size_t to) {
  const double scale = static_cast<double>(from) / static_cast<double>(to), support = std::max(scale, 1.0);
  const std::size_t count = lines.size() / from;
  std::vector<float> result(count * to);
  for (std::size_t i = 0; i < to; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const auto first = static_cast<std::size_t>(std::max(0.0, std::floor(centre - support)));
    const std::size_t last = std::min(from, static_cast<std::size_t>(std::ceil(centre + support)));
    double total = 0;
    std::vector<double> weights;
    for (std::size_t j = first; j < last; ++j) {
      weights.push_back(std::max(0.0, 1 - std::abs(static_cast<double>(j) + 0.5 - centre) / support));
      total += weights.back();
    }
    for (std::size_t line = 0; line < count; ++line) {
      double sum = 0;
      for (std::size_t j = first; j < last; ++j) sum += weights[j - first] * double{lines[line * from + j]};
      result[line * to + i] = static_cast<float>(sum / total);
    }
  }
  return result;
}

// [planes, rows, columns] -> [planes, columns, rows]
std::vector<float> transposed(const std::vector<float>& values, std::size_t rows, std::size_t columns) {
  std::vector<float> result(values.size());
  for (std::size_t plane = 0; plane < values.size(); plane += rows * columns) {
    for (std::size_t i = 0; i < rows * columns; ++i) {
      result[plane + i % columns * rows + i / columns] = values[plane + i];
    }
  }
  return result;
}

}  // namespace

std::vector<float> load_image(const std::string& path, const floats_rt::InputSpec& spec) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) fail(path, "cannot be read");
  const std::vector<unsigned char> file{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  if (spec.channels != 1 && spec.channels != 3) fail(path, "the network takes neither grey nor RGB images");
  const bool is_png = file.size() > 8 && png_sig_cmp(file.data(), 0, 8) == 0;
  const Pixels pixels = is_png ? read_png(path, file, spec.channels) : read_jpeg(path, file, spec.channels);

  const std::size_t plane = pixels.width * pixels.height;
  std::vector<float> values(pixels.values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {  // [H, W, C] -> [C, H, W]
    values[i % pixels.channels * plane + i / pixels.channels] = static_cast<float>(pixels.values[i]) / 255;
  }
  if (pixels.width != spec.width) values = resampled(values, pixels.width, spec.width);
  if (pixels.height != spec.height) {
    values = transposed(values, pixels.height, spec.width);
    values = transposed(resampled(values, pixels.height, spec.height), spec.width, spec.height);
  }
  return values;
}

floats_rt::Options options_from(int count, char** arguments, int at) {
  floats_rt::Options options;
  if (count <= at) return options;
  for (const auto backend : {floats_rt::Backend::tensorrt, floats_rt::Backend::onnxruntime}) {
    options.backend = backend;
    if (std::string(arguments[at]) == to_string(backend)) return options;
  }
  throw std::runtime_error(std::string("there is no backend ") + arguments[at]);
}
