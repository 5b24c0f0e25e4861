#include "image.hpp"

#include <png.h>
#include <turbojpeg.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>

namespace {

using floats_rt::Colours;

[[noreturn]] void fail(const std::string& path, const std::string& why) { throw std::runtime_error(path + ": " + why); }

Picture read_png(const std::string& path, const std::vector<unsigned char>& file) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  const std::unique_ptr<png_image, void (*)(png_image*)> freed(&image, png_image_free);
  if (!png_image_begin_read_from_memory(&image, file.data(), file.size())) fail(path, image.message);
  const bool is_grey = !(image.format & PNG_FORMAT_FLAG_COLOR);
  image.format = is_grey ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  Picture picture{{}, image.height, image.width, is_grey ? Colours::grey : Colours::rgb};
  picture.bytes.resize(PNG_IMAGE_SIZE(image));
  const png_color white{255, 255, 255};
  if (!png_image_finish_read(&image, &white, picture.bytes.data(), 0, nullptr)) fail(path, image.message);
  return picture;
}

Picture read_jpeg(const std::string& path, const std::vector<unsigned char>& file) {
  const std::unique_ptr<void, int (*)(tjhandle)> decoder(tjInitDecompress(), tjDestroy);
  int width, height, subsampling, colours;
  const auto size = static_cast<unsigned long>(file.size());
  if (tjDecompressHeader3(decoder.get(), file.data(), size, &width, &height, &subsampling, &colours) != 0) {
    fail(path, tjGetErrorStr2(decoder.get()));
  }
  const bool is_grey = colours == TJCS_GRAY;
  Picture picture{
      {}, static_cast<std::size_t>(height), static_cast<std::size_t>(width), is_grey ? Colours::grey : Colours::rgb};
  picture.bytes.resize(picture.height * picture.width * (is_grey ? 1 : 3));
  const int format = is_grey ? TJPF_GRAY : TJPF_RGB;
  if (tjDecompress2(decoder.get(), file.data(), size, picture.bytes.data(), width, 0, height, format, 0) != 0) {
    fail(path, tjGetErrorStr2(decoder.get()));
  }
  return picture;
}

}  // namespace

Picture load_picture(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) fail(path, "cannot be read");
  const std::vector<unsigned char> file{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  const bool is_png = file.size() > 8 && png_sig_cmp(file.data(), 0, 8) == 0;
  return is_png ? read_png(path, file) : read_jpeg(path, file);
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
