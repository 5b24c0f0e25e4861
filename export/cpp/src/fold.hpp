// From the affine weights of a bundle to plain weights on a line over lambda: floats_edge/method/fold.py, repeated.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "manifest.hpp"
#include "safetensors.hpp"

namespace floats_rt {

// One weight or bias of the folded network: slope * lambda + base, in float32 and in this order. At lambda 0 it is
// `clean`, or base where that is empty: then the line goes through it.
struct Line {
  std::string name;  // of the graph's input or initializer, for example stem.weight
  std::vector<std::size_t> shape;
  std::vector<float> base, slope, clean;
};

// The weight and the bias of every layer, in the order of the manifest. Takes the tensors that it uses out of
// `tensors`. Throws Error, bundle_invalid, if they do not fit the manifest.
std::vector<Line> fold(const Manifest& manifest, Tensors& tensors, std::size_t threads);

// Throws Error, bundle_invalid, saying of the weights of a bundle `what` does not fit.
[[noreturn]] void misfit(const std::string& what);

// Takes a tensor of this type and shape out of `tensors`, so that what is left over at the end is superfluous.
// Throws Error, bundle_invalid, if there is none.
TensorView take(Tensors& tensors, const std::string& name, DType dtype, const std::vector<std::size_t>& shape);

}  // namespace floats_rt
