// Image files as what a network takes.
#pragma once

#include <string>
#include <vector>

#include "floats_rt/floats_rt.hpp"

// A PNG or JPEG file as float32 [channels, height, width] in [0, 1], in grey for one channel and RGB for three, resized
// as a network wants it whose preprocessing is `resize: squash` (bilinear, averaging where it shrinks; Pillow's
// rounding may differ by 1/255). Where a bundle says otherwise (floats-edge inspect), crop or fill up images of other
// proportions first. Throws std::runtime_error.
std::vector<float> load_image(const std::string& path, const floats_rt::InputSpec& spec);

// The backend that arguments[at] names, if there are so many; otherwise the one that runs the bundle here.
floats_rt::Options options_from(int count, char** arguments, int at);
