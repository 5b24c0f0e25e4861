// From the affine weights of a bundle to plain weights at any lambda: floats_edge/method/fold.py, repeated.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "half.hpp"
#include "manifest.hpp"
#include "safetensors.hpp"

namespace floats_rt {

// Where one weight or bias lies in the buffer.
struct WeightTensor {
  std::string name;  // of the graph's input, for example stem.weight
  std::vector<std::size_t> shape;
  std::size_t offset, size;  // in elements; the offset is a multiple of kAlignment
};

constexpr std::size_t kAlignment = 128;  // elements: 256 bytes of Half, what CUDA and vector units like

// W(lambda) and b(lambda) of every layer, in one buffer. Immutable: threads may share it.
class LambdaWeights {
 public:
  // Throws Error, bundle_invalid, if the tensors do not fit the manifest.
  LambdaWeights(const Manifest& manifest, Tensors tensors, std::size_t threads);

  const std::vector<WeightTensor>& tensors() const noexcept { return tensors_; }

  // Elements in the buffer, padding included.
  std::size_t size() const noexcept { return base_.size(); }

  // Fills a buffer of size() elements for a lambda in [0, 1]. The float32 arithmetic is Python's, step by step.
  void at(float lam, float* buffer) const;
  void at(float lam, Half* buffer) const;  // the same, then correctly rounded

 private:
  void add_layer(const LayerSpec& spec, std::size_t index, const Manifest& manifest, Tensors& tensors);
  WeightTensor& append(const std::string& name, std::vector<std::size_t> shape, std::size_t size);

  std::size_t threads_;
  std::vector<WeightTensor> tensors_;
  std::vector<float> base_, slope_;  // W = slope * lambda + base
  std::vector<float> clean_;         // rule paper: W at lambda 0; rule interpolate: empty, it is base_
};

}  // namespace floats_rt
