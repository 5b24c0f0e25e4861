// What a graph holds, read from its bytes by the rules of export/schema/graph.json; anything else is refused.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "onnx_bytes.hpp"

namespace floats_rt {

// A constant: its elements are `raw`, of exactly the size that `dims` say.
struct GraphTensor {
  std::int64_t type = 0;  // a TensorProto.DataType: 1 is float32, 10 float16, 16 bfloat16
  std::vector<std::int64_t> dims;
  ByteSpan raw;
};

// One attribute of an operation; which member holds its value its kind says.
struct GraphAttribute {
  std::string kind;
  std::vector<std::int64_t> integers;  // one, of kind integer
  std::string text;
  std::optional<GraphTensor> tensor;
  std::size_t count = 0;  // of its values
};

// One operation; an input that is left out is empty.
struct GraphNode {
  std::string operation;
  std::vector<std::string> inputs, outputs;
  std::map<std::string, GraphAttribute> attributes;
};

// A graph, read as far as its constants. The model's bytes must outlive it.
struct GraphParts {
  std::map<std::string, std::vector<std::optional<std::int64_t>>> inputs;  // nothing: a size that is free
  std::vector<std::string> outputs;
  std::map<std::string, GraphTensor> constants;
  std::vector<ByteSpan> nodes;  // to be read with read_node
};

// Both throw Error, bundle_invalid, for what is no such thing or holds what it may not.
GraphParts read_parts(ByteSpan model);
GraphNode read_node(ByteSpan node);

}  // namespace floats_rt
