#include "memory.hpp"

#include <algorithm>

namespace floats_rt {
namespace {

// Sums are doubles: they cannot wrap.
double size_of(const Manifest& manifest, const std::string& file) {
  return static_cast<double>(manifest.files.at(file).bytes);
}

double golden_bytes(const Manifest& manifest) { return 2 * size_of(manifest, manifest.golden.file); }  // and as floats

double graph_bytes(const Manifest& manifest) {
  double bytes = 0;
  for (const Graph& graph : manifest.graphs) bytes += size_of(manifest, graph.file);
  return manifest.mode == Mode::refit ? 2 * bytes : bytes;  // and the copy into which weights are written
}

// Of several engines for a lambda, one is used.
double engine_bytes(const Manifest& manifest) {
  const auto image = static_cast<double>(sizeof(float) * (manifest.input.size() + manifest.output.size()));
  std::map<std::optional<float>, double> largest;
  for (const Engine& engine : manifest.engines) {
    const double bytes = size_of(manifest, engine.file) + image * static_cast<double>(engine.largest_batch);
    largest[engine.lam] = std::max(largest[engine.lam], bytes);
  }
  double bytes = 0;
  for (const auto& [lam, most] : largest) bytes += most;
  return bytes;
}

// See Line, LambdaTensors and fold.cpp: the weights on their line and at one lambda, and while a layer is folded its
// theta and noise, the noise that was drawn, and those inside the mask with their places.
double weight_bytes(const Manifest& manifest) {
  if (!has_weights_apart(manifest.mode)) return 0;
  double kept = size_of(manifest, manifest.weights), folding = 0;
  for (const LayerSpec& layer : manifest.layers) {
    const auto size = static_cast<double>(layer.size), drawn = static_cast<double>(layer.drawn);
    const auto inside = static_cast<double>(layer.nonzeros);
    kept += 4 * sizeof(float) * size;
    folding = std::max(folding, sizeof(float) * (2 * size + std::max(size, drawn) + inside) + sizeof(size_t) * inside);
  }
  return kept + folding;
}

}  // namespace

void check_memory(const Manifest& manifest, std::uint64_t max_bytes) {
  const double bytes = golden_bytes(manifest) + graph_bytes(manifest) + engine_bytes(manifest) + weight_bytes(manifest);
  if (bytes <= static_cast<double>(max_bytes)) return;
  throw Error(ErrorCode::out_of_memory,
              "the bundle asks for " + std::to_string(static_cast<std::uint64_t>(bytes / (1 << 20)) + 1) +
                  " MiB of memory, and Options::max_bytes allows " + std::to_string(max_bytes >> 20) + ".",
              "raise Options::max_bytes if you trust the bundle");
}

}  // namespace floats_rt
