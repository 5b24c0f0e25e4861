// What a bundle says of itself: manifest.json, read as if a stranger had written it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "floats_rt/floats_rt.hpp"

namespace floats_rt {

enum class Mode { fixed, bank, bound };
enum class Rule { interpolate, paper };
enum class Precision { fp32, fp16 };

// One conditioned layer; its position in the manifest is the noise's layer index.
struct LayerSpec {
  std::string name;
  std::vector<std::size_t> shape;  // of the weight: [out, in, kh, kw] or [out, in]; at least one axis
  std::size_t size;                // product of the shape
  std::size_t nonzeros;            // weights inside the mask
};

// One ONNX file; lam is none in mode bound.
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
  bool brings_runtime;  // made for newer TensorRTs too: the plan holds a library that would be run
  bool for_dla;
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
  OutputSpec output;
  Mode mode;
  Rule rule;
  Precision precision;  // of the weights in mode bound; otherwise fp32
  std::uint64_t noise_seed;
  LambdaRange lambdas;
  std::vector<LayerSpec> layers;
  std::vector<Graph> graphs;
  std::string weights;  // file of the affine weights; empty unless the mode is bound
  std::vector<Engine> engines;
  Golden golden;
  std::map<std::string, FileEntry> files;
};

// Parses and validates. Throws Error: bundle_invalid, or lambda_unsupported for a mode this library does not know.
Manifest parse_manifest(std::string_view json);

}  // namespace floats_rt
