// Fuzzes what reads a stranger's bytes: the manifest, safetensors, ONNX, and the tensors with the manifest.
//
// Whatever they are, no file is opened, and no more memory is taken than they are worth. The first byte chooses: '{' is
// a manifest, 8 (the first field of a ModelProto) an ONNX model, anything else a tensor file, read as the weights of a
// small network. With FLOATS_RT_ONNXRUNTIME in the environment, graphs that pass the check are loaded by ONNX Runtime,
// which must open no file either.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string_view>

#include "graph_check.hpp"
#include "lambda_tensors.hpp"
#include "manifest.hpp"
#include "onnxruntime_library.hpp"
#include "safetensors.hpp"
#include "watched.hpp"

namespace {

constexpr std::size_t kAtLeast = 4 << 20;  // bytes that any input may take
constexpr std::size_t kPerByte = 256;      // and for each of its own
constexpr std::size_t kByOnnxRuntime = std::size_t{256} << 20;

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
  for (const float lam : {0.0f, 0.5f}) tensors.at(lam, buffer.data(), 1);
}

const floats_rt::OnnxRuntime* onnxruntime() {
  static const auto runtime =
      std::getenv("FLOATS_RT_ONNXRUNTIME") ? std::make_unique<floats_rt::OnnxRuntime>("") : nullptr;
  return runtime.get();
}

void read(floats_rt::Span<const std::uint8_t> file) {
  if (file.size() > 0 && file[0] == '{') {
    floats_rt::parse_manifest({reinterpret_cast<const char*>(file.data()), file.size()});
  } else if (file.size() > 0 && file[0] == 8) {
    floats_rt::checked_constants(file);
  } else {
    read_weights(file);
  }
}

const floats_rt::Options& one_silent_thread() {
  static const auto options = [] {
    floats_rt::Options made;
    made.threads = 1;
    made.log = [](const floats_rt::LogLine&) {};
    return made;
  }();
  return options;
}

void load(floats_rt::Span<const std::uint8_t> file) {
  const floats_rt::Bytes model(file.begin(), file.end());
  const floats_rt::Watched watched(kByOnnxRuntime);
  onnxruntime()->session(model, one_silent_thread());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerInitialize(int* /*count*/, char*** /*arguments*/) {
  // What is made once is not the input's.
  floats_rt::graph_schema();
  onnxruntime();
  one_silent_thread();
  for (const char* const first : {"{", "\x08", "x"})
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(first), 1);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const floats_rt::Span<const std::uint8_t> file(data, size);
  try {
    {
      const floats_rt::Watched watched(kAtLeast + kPerByte * size);
      read(file);
    }
    if (onnxruntime() && size > 0 && data[0] == 8) load(file);
  } catch (const floats_rt::Error&) {  // the only way out but success
  }
  return 0;
}
