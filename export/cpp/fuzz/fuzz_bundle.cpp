// Fuzzes what reads a stranger's bytes: the manifest, safetensors, and the two together.
//
// The first byte chooses: '{' is a manifest, anything else a tensor file, read as the weights of a small network.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "fold.hpp"
#include "manifest.hpp"
#include "safetensors.hpp"

namespace {

floats_rt::Manifest small_network() {
  floats_rt::Manifest manifest{};
  manifest.layers = {{"a", {4, 1, 3, 3}, 36, 10}, {"b", {3, 4}, 12, 12}};
  return manifest;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    if (size > 0 && data[0] == '{') {
      floats_rt::parse_manifest({reinterpret_cast<const char*>(data), size});
    } else {
      static const floats_rt::Manifest manifest = small_network();
      floats_rt::LambdaWeights(manifest, floats_rt::read_safetensors({data, size}), 1);
    }
  } catch (const floats_rt::Error&) {  // the only way out but success
  }
  return 0;
}
