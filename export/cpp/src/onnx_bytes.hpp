// The bytes of an ONNX graph, field by field: what export/schema/graph.json does not name is refused.
//
// None of the messages that it names can hold itself, so the depth is bounded. Where protobuf would make something of a
// message that no exporter writes, this refuses: a field twice that may stand once (protobuf merges, or takes the
// last), a key of more than two bytes, a group.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "floats_rt/floats_rt.hpp"
#include "graph_schema.hpp"

namespace floats_rt {

using ByteSpan = Span<const std::uint8_t>;

// Throws Error, bundle_invalid: "a graph of the bundle " and what is wrong with it.
[[noreturn]] void refuse_graph(const std::string& fault);

// One message; messages in it are left as bytes, which must outlive it.
class OnnxMessage {
 public:
  // Throws Error, bundle_invalid, for what is no such message or holds what it may not.
  OnnxMessage(ByteSpan bytes, const std::string& kind);

  bool has(std::string_view field) const { return fields_.count(field) > 0; }
  std::size_t fields() const noexcept { return fields_.size(); }
  std::int64_t integer(std::string_view field, std::int64_t otherwise) const;
  std::vector<std::int64_t> integers(std::string_view field) const;
  std::size_t count(std::string_view field) const;  // of its values
  ByteSpan bytes(std::string_view field) const;     // empty if it is not there
  std::vector<ByteSpan> all_bytes(std::string_view field) const;
  std::string text(std::string_view field) const;
  std::vector<std::string> texts(std::string_view field) const;

 private:
  struct Values {
    std::vector<std::int64_t> integers;
    std::vector<ByteSpan> bytes;
    std::size_t count = 0;
  };

  const Values& values(std::string_view field) const;
  void add_integers(const FieldRule& rule, int wire, std::uint64_t number, ByteSpan bytes);
  void add_reals(const FieldRule& rule, int wire, ByteSpan bytes);
  void add_bytes(const FieldRule& rule, int wire, ByteSpan bytes);

  std::map<std::string_view, Values> fields_;  // the names are the schema's
};

}  // namespace floats_rt
