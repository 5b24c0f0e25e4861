// What a bundle says of itself: manifest.json, read as if a stranger had written it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "floats_rt/floats_rt.hpp"

namespace floats_rt {

// Whether one graph serves any lambda.
constexpr bool serves_any_lambda(Mode mode) { return mode != Mode::fixed && mode != Mode::bank; }

// Whether the weights are computed outside the graph, from a weights file.
constexpr bool has_weights_apart(Mode mode) { return mode == Mode::bound || mode == Mode::refit; }

// One conditioned layer; its position in the manifest is the noise's layer index.
struct LayerSpec {
  std::string name;
  std::vector<std::size_t> shape;  // of the weight: [out, in, kh, kw], [out, in] or [channels]
  std::size_t size;                // product of the shape
  std::size_t nonzeros;            // weights inside the mask
  std::size_t drawn;               // weights that the noise was drawn for, where channels were removed since; else 0
};

// One ONNX file; lam is none in modes that serve any.
struct Graph {
  std::string file;
  std::optional<float> lam;
};

// One TensorRT plan and the hosts that can run it.
struct Engine {
  std::string file;
  std::optional<float> lam;
  std::string flavour, version, platform;
  std::vector<std::string> targets;  // compute capabilities, for example sm_87
  std::size_t smallest_batch, largest_batch;
  std::string mismatch;  // how it missed the golden outputs, if it was let pass; empty if it was not
  std::string needs;     // what this library does not give it, for example "a DLA"; empty for a plain engine
};

struct Golden {
  std::string file;
  std::vector<float> lambdas;
  double tolerance;  // of the absolute logit error over the range of the golden logits
};

struct FileEntry {
  std::string sha256;
  std::uint64_t bytes;
};

struct Manifest {
  InputSpec input;
  Preprocessing preprocessing;
  OutputSpec output;
  Mode mode;
  Precision precision;
  std::set<std::string> kept_in_fp16;  // int8: layers whose weights and biases are fp16
  std::uint64_t noise_seed;
  LambdaRange lambdas;
  std::vector<LayerSpec> layers;
  std::vector<Graph> graphs;
  std::string weights;  // file of the affine weights; empty unless they are apart
  std::vector<Engine> engines;
  Golden golden;
  std::map<std::string, FileEntry> files;
  std::string mismatch;                     // what the export had against the graphs, and let pass; empty if nothing
  std::map<std::string, Verdict> verdicts;  // of floats-edge verify, by floats-edge's name of a backend
};

// Parses and validates. Throws Error: bundle_invalid, or lambda_unsupported for a mode and precision that do not go
// together.
Manifest parse_manifest(std::string_view json);

}  // namespace floats_rt
