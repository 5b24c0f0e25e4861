// What of lambda a graph is given: the weights at lambda (modes bound and refit), or lambda itself (mode input).
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "elements.hpp"
#include "fold.hpp"

namespace floats_rt {

constexpr const char* kLambdaInput = "lambda";  // the scalar float32 graph input of mode input
constexpr std::size_t kAlignment = 256;         // bytes: what TensorRT asks of an address, and vector units like

// One tensor, and where it lies in the buffer.
struct LambdaTensor {
  std::string name;  // of the graph's input or initializer
  std::vector<std::size_t> shape;
  Element element;
  std::size_t size;    // in elements
  std::size_t offset;  // in bytes, a multiple of kAlignment
  bool varies;         // whether it depends on lambda

  std::size_t bytes() const { return size * width(element); }
};

// The tensors at any lambda, in one buffer of the caller's. Immutable: threads may share it.
class LambdaTensors {
 public:
  // W(lambda) and b(lambda) of every layer, in the types in which a graph of the manifest's precision takes them.
  // Throws Error, bundle_invalid, if `tensors` do not fit the manifest.
  LambdaTensors(const Manifest& manifest, Tensors tensors, std::size_t threads);

  // Lambda itself.
  static LambdaTensors scalar();

  const std::vector<LambdaTensor>& tensors() const noexcept { return tensors_; }

  // Size of the buffer, padding included.
  std::size_t bytes() const noexcept { return bytes_; }

  // Fills a buffer for a lambda in [0, 1], with so many threads. The arithmetic is Python's, step by step. Padding is
  // not written.
  void at(float lam, std::byte* buffer, std::size_t threads) const;

 private:
  LambdaTensors() = default;
  void append(Line line, Element element, std::vector<float> scale);
  void write(std::size_t index, float lam, std::size_t begin, std::size_t end, std::byte* buffer) const;

  std::size_t elements_ = 0, bytes_ = 0;
  std::vector<LambdaTensor> tensors_;
  std::vector<Line> lines_;                 // of tensors_
  std::vector<std::vector<float>> scales_;  // of tensors_: one per output channel of an int8 weight, else empty
};

// Those of a bundle; nothing in modes fixed and bank. Throws Error, bundle_invalid.
std::optional<LambdaTensors> lambda_tensors(const Bundle& bundle, int threads);

}  // namespace floats_rt
