// Where an ONNX file stores its weights: as much of protobuf as that takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "floats_rt/floats_rt.hpp"

namespace floats_rt {

// One initializer of a graph, stored as raw bytes.
struct Initializer {
  std::uint64_t type = 0;  // a TensorProto.DataType: 1 is float32, 10 float16, 16 bfloat16
  std::vector<std::uint64_t> dims;
  std::size_t begin = 0, bytes = 0;  // where its elements are in the model
};

// The initializers of a serialised ModelProto, by name; what they hold otherwise than as raw bytes has none here.
// Throws Error, bundle_invalid, for what is no protobuf, names two initializers alike, or keeps one in another file.
std::map<std::string, Initializer> raw_initializers(Span<const std::uint8_t> model);

}  // namespace floats_rt
