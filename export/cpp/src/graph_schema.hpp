// What a graph of a bundle may hold, as export/schema/graph.json says it to Python too.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace floats_rt {

enum class Holds { integer, real, bytes, name, nothing, message };  // real: a float

struct FieldRule {
  std::string name;
  Holds holds = Holds::bytes;
  std::string message;   // whose bytes it holds, if it does
  std::size_t most = 1;  // how often it may stand in one message
};

using MessageRule = std::map<std::uint64_t, FieldRule>;  // by number

struct AttributeRule {
  std::int64_t type = 0;  // an AttributeProto.AttributeType
  std::string kind, field;
  std::set<std::string> values;  // of a text, where only some are allowed
};

struct OperatorRule {
  std::string makes;  // the rule for the sizes of its results
  std::size_t least_inputs = 0, most_inputs = 0, outputs = 1;
  std::map<std::string, AttributeRule> attributes;
};

struct GraphSchema {
  std::map<std::string, MessageRule> messages;
  std::map<std::string, OperatorRule> operators;
  std::map<std::int64_t, std::uint64_t> element_bytes;  // by TensorProto.DataType
  std::set<std::int64_t> ir_versions, opsets;
  std::size_t name_bytes = 0, known_numbers = 0, rank = 0;
  std::int64_t tensor_elements = 0, all_elements = 0, constant_elements = 0, multiplications = 0;
};

const GraphSchema& graph_schema();

}  // namespace floats_rt
