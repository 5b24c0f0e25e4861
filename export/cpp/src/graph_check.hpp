// Whether a graph from a stranger may be given to ONNX Runtime, found out from its bytes.
#pragma once

#include <map>
#include <string>

#include "graph_parts.hpp"

namespace floats_rt {

// The constants of a graph that holds nothing but what an export writes and makes no tensor larger than networks need,
// by name. Throws Error, bundle_invalid, for any other: see export/schema/graph.json.
//
// A graph of a few bytes can ask for terabytes: ConstantOfShape, Expand, Pad, or 40 times Concat of a tensor with
// itself. So the shapes of all results are told before anything is computed. Not bounded: what an engine takes beside
// the tensors themselves, such as rearranged weights, and how long an operation takes beyond the number of its
// multiplications.
std::map<std::string, GraphTensor> checked_constants(ByteSpan model);

}  // namespace floats_rt
