// Reading safetensors: a length, a JSON header, and the tensors' bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "floats_rt/floats_rt.hpp"

namespace floats_rt {

enum class DType { f32, u8, other };

// One tensor; its bytes belong to the file and need not be aligned.
struct TensorView {
  DType dtype;
  std::vector<std::size_t> shape;
  Span<const std::uint8_t> bytes;
};

using Tensors = std::map<std::string, TensorView>;

// The tensors of a file; they live as long as its bytes. Throws Error: bundle_invalid.
Tensors read_safetensors(Span<const std::uint8_t> file);

// A float32 tensor copied out.
std::vector<float> to_floats(const TensorView& tensor);

}  // namespace floats_rt
