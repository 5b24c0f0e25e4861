#include "graph_parts.hpp"

#include <utility>

namespace floats_rt {
namespace {

void check_texts(const OnnxMessage& holder) {
  for (const ByteSpan& entry : holder.all_bytes("metadata_props")) OnnxMessage(entry, "StringStringEntryProto");
}

std::pair<std::string, GraphTensor> read_tensor(ByteSpan bytes) {
  const OnnxMessage message(bytes, "TensorProto");
  const std::string name = message.text("name");
  GraphTensor tensor{message.integer("data_type", 0), message.integers("dims"), message.bytes("raw_data")};
  const auto size = graph_schema().element_bytes.find(tensor.type);
  if (size == graph_schema().element_bytes.end()) {
    refuse_graph("has a constant " + name + " of type " + std::to_string(tensor.type) + ", which no export writes");
  }
  std::uint64_t wanted = size->second;
  bool too_large = false, empty = false, negative = false;
  for (const std::int64_t dim : tensor.dims) {
    negative |= dim < 0;
    empty |= dim == 0;
    too_large |= __builtin_mul_overflow(wanted, static_cast<std::uint64_t>(dim), &wanted);
  }
  if (negative || (empty ? tensor.raw.size() != 0 : too_large || wanted != tensor.raw.size())) {
    refuse_graph("has a constant " + name + " that is not of the size it states");
  }
  return {name, std::move(tensor)};
}

// Name and shape of an input or output.
std::pair<std::string, std::vector<std::optional<std::int64_t>>> read_value(ByteSpan bytes) {
  const OnnxMessage message(bytes, "ValueInfoProto");
  check_texts(message);
  const std::string name = message.text("name");
  const OnnxMessage type(message.bytes("type"), "TypeProto");
  const OnnxMessage tensor(type.bytes("tensor_type"), "TypeProto.Tensor");
  if (!graph_schema().element_bytes.count(tensor.integer("elem_type", 0)) || !tensor.has("shape")) {
    refuse_graph("has an input or output " + name + " without a type and a shape that an export writes");
  }
  std::vector<std::optional<std::int64_t>> dims;
  for (const ByteSpan& dim : OnnxMessage(tensor.bytes("shape"), "TensorShapeProto").all_bytes("dim")) {
    const OnnxMessage size(dim, "TensorShapeProto.Dimension");
    if (size.fields() != 1 || size.integer("dim_value", 0) < 0) {
      refuse_graph("has an input or output " + name + " of no shape that an export writes");
    }
    dims.push_back(size.has("dim_value") ? std::optional(size.integer("dim_value", 0)) : std::nullopt);
  }
  return {name, std::move(dims)};
}

GraphAttribute read_attribute(const std::string& name, const OnnxMessage& message, const AttributeRule& rule) {
  const std::size_t value = message.has(rule.field) ? 1 : 0;
  if (message.integer("type", 0) != rule.type || message.fields() != 2 + value) {
    refuse_graph("has an attribute " + name + " of another type than an export writes");
  }
  GraphAttribute attribute{rule.kind, message.integers(rule.field), message.text(rule.field), std::nullopt,
                           message.count(rule.field)};
  if (!value && rule.kind != "integers" && rule.kind != "floats") {
    refuse_graph("has an attribute " + name + " without a value");
  }
  if (!rule.values.empty() && !rule.values.count(attribute.text)) {
    refuse_graph("has an attribute " + name + " that is none of those allowed");
  }
  if (rule.kind == "tensor") attribute.tensor = read_tensor(message.bytes(rule.field)).second;
  return attribute;
}

// The ways in and out of an operation must be as many as its rule says; those that it needs, named.
void check_arity(const GraphNode& node, const OperatorRule& rule) {
  bool fits = node.inputs.size() >= rule.least_inputs && node.inputs.size() <= rule.most_inputs &&
              !node.outputs.empty() && node.outputs.size() <= rule.outputs;
  for (std::size_t i = 0; fits && i < rule.least_inputs; ++i) fits = !node.inputs[i].empty();
  if (!fits) {
    refuse_graph("has an operation " + node.operation + " of " + std::to_string(node.inputs.size()) + " inputs and " +
                 std::to_string(node.outputs.size()) + " outputs");
  }
}

}  // namespace

GraphParts read_parts(ByteSpan bytes) {
  const OnnxMessage model(bytes, "ModelProto");
  check_texts(model);
  if (!graph_schema().ir_versions.count(model.integer("ir_version", 0))) {
    refuse_graph("is of a version of ONNX's format that is not known here");
  }
  const OnnxMessage opset(model.bytes("opset_import"), "OperatorSetIdProto");
  if (!graph_schema().opsets.count(opset.integer("version", 0))) refuse_graph("is of an opset that is not known here");
  if (!model.has("graph")) refuse_graph("holds no graph");
  const OnnxMessage graph(model.bytes("graph"), "GraphProto");
  check_texts(graph);

  GraphParts parts;
  bool distinct = true;
  for (const ByteSpan& tensor : graph.all_bytes("initializer")) {
    distinct &= parts.constants.insert(read_tensor(tensor)).second;
  }
  for (const ByteSpan& input : graph.all_bytes("input")) {
    const auto [place, is_new] = parts.inputs.insert(read_value(input));
    distinct &= is_new && !parts.constants.count(place->first);
  }
  if (!distinct) refuse_graph("has two inputs or constants of one name");
  for (const ByteSpan& output : graph.all_bytes("output")) parts.outputs.push_back(read_value(output).first);
  parts.nodes = graph.all_bytes("node");
  return parts;
}

GraphNode read_node(ByteSpan bytes) {
  const OnnxMessage message(bytes, "NodeProto");
  GraphNode node{message.text("op_type"), message.texts("input"), message.texts("output"), {}};
  const auto rule = graph_schema().operators.find(node.operation);
  if (rule == graph_schema().operators.end()) {
    refuse_graph("has an operation " + (node.operation.empty() ? "without a name" : node.operation) +
                 ", which no export writes");
  }
  check_arity(node, rule->second);
  for (const ByteSpan& entry : message.all_bytes("attribute")) {
    const OnnxMessage attribute(entry, "AttributeProto");
    const std::string name = attribute.text("name");
    const auto allowed = rule->second.attributes.find(name);
    if (allowed == rule->second.attributes.end() || node.attributes.count(name)) {
      refuse_graph("has an attribute " + name + " of " + node.operation + ", which no export writes");
    }
    node.attributes.emplace(name, read_attribute(node.operation + "." + name, attribute, allowed->second));
  }
  return node;
}

}  // namespace floats_rt
