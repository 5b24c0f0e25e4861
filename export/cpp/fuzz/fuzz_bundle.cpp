// Fuzzes what reads a stranger's bytes: the manifest, safetensors, ONNX, and the tensors with the manifest.
//
// The first byte chooses: '{' is a manifest, 8 (the first field of a ModelProto) an ONNX model, anything else a tensor
// file, read as the weights of a small network.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "lambda_tensors.hpp"
#include "manifest.hpp"
#include "onnx_initializers.hpp"
#include "safetensors.hpp"

namespace {

// A sparse layer with a scale, a dense one, a BatchNorm alone, and one that lost channels: see make_corpus.py.
floats_rt::Manifest small_network() {
  floats_rt::Manifest manifest{};
  manifest.mode = floats_rt::Mode::bound;
  manifest.precision = floats_rt::Precision::int8;
  manifest.kept_in_fp16 = {"b"};
  manifest.layers = {
      {"a", {4, 1, 3, 3}, 36, 10, 0}, {"b", {3, 4}, 12, 12, 0}, {"c", {5}, 5, 5, 0}, {"d", {2, 3}, 6, 6, 20}};
  return manifest;
}

void read_weights(floats_rt::Span<const std::uint8_t> file) {
  static const floats_rt::Manifest manifest = small_network();
  const floats_rt::LambdaTensors tensors(manifest, floats_rt::read_safetensors(file), 1);
  std::vector<std::byte> buffer(tensors.bytes());
  for (const float lam : {0.0f, 0.5f}) tensors.at(lam, buffer.data());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const floats_rt::Span<const std::uint8_t> file(data, size);
  try {
    if (size > 0 && data[0] == '{') {
      floats_rt::parse_manifest({reinterpret_cast<const char*>(data), size});
    } else if (size > 0 && data[0] == 8) {
      floats_rt::raw_initializers(file);
    } else {
      read_weights(file);
    }
  } catch (const floats_rt::Error&) {  // the only way out but success
  }
  return 0;
}
