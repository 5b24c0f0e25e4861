// Image files, decoded.
#pragma once

#include <string>
#include <vector>

#include "floats_rt/floats_rt.hpp"

// The pixels of a file, red first or grey.
struct Picture {
  std::vector<unsigned char> bytes;
  std::size_t height, width;
  floats_rt::Colours colours;

  floats_rt::ImageView view() const { return {bytes.data(), height, width, colours}; }
};

// A PNG or JPEG file. What is transparent is laid over white, as floats-edge does; an orientation in its EXIF is not
// heeded. Throws std::runtime_error.
Picture load_picture(const std::string& path);

// The backend that arguments[at] names, if there are so many; otherwise the one that runs the bundle here.
floats_rt::Options options_from(int count, char** arguments, int at);
