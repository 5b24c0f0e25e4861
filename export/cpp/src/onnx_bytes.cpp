#include "onnx_bytes.hpp"

#include <algorithm>
#include <utility>

namespace floats_rt {
namespace {

constexpr int kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5;  // how protobuf may store a field
constexpr std::ptrdiff_t kLongestKey = 2;                           // bytes: the fields of ONNX have small numbers

// Reads numbers and bytes one after the other.
class Reader {
 public:
  explicit Reader(ByteSpan bytes) : at_(bytes.begin()), end_(bytes.end()) {}

  bool done() const { return at_ == end_; }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const std::uint8_t byte = *take(1).begin();
      if (shift == 63 && byte > 1) break;
      value |= std::uint64_t{byte & 0x7fu} << shift;
      if (!(byte & 0x80u)) return value;
    }
    refuse_graph("is not valid ONNX: a number that does not end");
  }

  std::uint64_t key() {
    const std::uint8_t* const start = at_;
    const std::uint64_t value = varint();
    if (at_ - start > kLongestKey) refuse_graph("has a field number that ONNX does not know");
    return value;
  }

  ByteSpan take(std::uint64_t count) {
    if (count > static_cast<std::uint64_t>(end_ - at_)) refuse_graph("is not valid ONNX: it is cut off");
    const std::uint8_t* const start = std::exchange(at_, at_ + count);
    return {start, static_cast<std::size_t>(count)};
  }

 private:
  const std::uint8_t *at_, *end_;
};

ByteSpan bytes_of(Reader& reader, int wire) {
  switch (wire) {
    case kBytes:
      return reader.take(reader.varint());
    case kFixed32:
      return reader.take(4);
    case kFixed64:
      return reader.take(8);
    default:
      refuse_graph("is not valid ONNX: a field of an unknown kind");
  }
}

// Names reach logs, and C, which ends them at a zero: only what can be printed may be one.
void check_name(ByteSpan name, const std::string& field) {
  if (name.size() > graph_schema().name_bytes) refuse_graph("has a name (" + field + ") that is too long");
  if (!std::all_of(name.begin(), name.end(), [](std::uint8_t byte) { return byte >= 0x20 && byte < 0x7f; })) {
    refuse_graph("has a name (" + field + ") that cannot be printed in ASCII");
  }
}

[[noreturn]] void stored_otherwise(const FieldRule& rule) {
  refuse_graph("is not valid ONNX: " + rule.name + " is stored as something else");
}

}  // namespace

void refuse_graph(const std::string& fault) {
  throw Error(ErrorCode::bundle_invalid, "a graph of the bundle " + fault + ".",
              "export the bundle again: floats-edge export CHECKPOINT -o DIR");
}

OnnxMessage::OnnxMessage(ByteSpan bytes, const std::string& kind) {
  const MessageRule& known = graph_schema().messages.at(kind);
  for (Reader reader(bytes); !reader.done();) {
    const std::uint64_t key = reader.key();
    const auto rule = known.find(key >> 3);
    const auto named = [&] { return has("name") ? kind + " " + text("name") : kind; };
    const int wire = static_cast<int>(key & 7);
    const std::uint64_t number = wire == kVarint ? reader.varint() : 0;
    const ByteSpan content = wire == kVarint ? ByteSpan{} : bytes_of(reader, wire);
    if (rule == known.end()) {
      refuse_graph("has field " + std::to_string(key >> 3) + " in " + named() + ", which no export writes");
    }
    const FieldRule& field = rule->second;
    if (field.holds == Holds::integer) {
      add_integers(field, wire, number, content);
    } else if (field.holds == Holds::real) {
      add_reals(field, wire, content);
    } else {
      add_bytes(field, wire, content);
    }
    if (count(field.name) > field.most) {
      refuse_graph("has more than " + std::to_string(field.most) + " " + field.name + " in " + named());
    }
  }
}

void OnnxMessage::add_integers(const FieldRule& rule, int wire, std::uint64_t number, ByteSpan bytes) {
  Values& values = fields_[rule.name];
  if (wire == kVarint) {
    values.integers.push_back(static_cast<std::int64_t>(number));
  } else if (wire == kBytes && rule.most > 1) {  // packed
    for (Reader packed(bytes); !packed.done() && values.integers.size() <= rule.most;) {
      values.integers.push_back(static_cast<std::int64_t>(packed.varint()));
    }
  } else {
    stored_otherwise(rule);
  }
  values.count = values.integers.size();
}

void OnnxMessage::add_reals(const FieldRule& rule, int wire, ByteSpan bytes) {
  if (wire != kFixed32 && !(wire == kBytes && rule.most > 1)) stored_otherwise(rule);
  if (bytes.size() % 4 || bytes.size() > 4 * rule.most) refuse_graph("has a damaged " + rule.name);
  fields_[rule.name].count += bytes.size() / 4;
}

void OnnxMessage::add_bytes(const FieldRule& rule, int wire, ByteSpan bytes) {
  if (wire != kBytes) stored_otherwise(rule);
  if (rule.holds == Holds::nothing && bytes.size()) refuse_graph("has another " + rule.name + " than ONNX's own");
  if (rule.holds == Holds::name) check_name(bytes, rule.name);
  Values& values = fields_[rule.name];
  values.bytes.push_back(bytes);
  values.count = values.bytes.size();
}

const OnnxMessage::Values& OnnxMessage::values(std::string_view field) const {
  static const Values none;
  const auto found = fields_.find(field);
  return found == fields_.end() ? none : found->second;
}

std::int64_t OnnxMessage::integer(std::string_view field, std::int64_t otherwise) const {
  const Values& found = values(field);
  return found.integers.empty() ? otherwise : found.integers.front();
}

std::vector<std::int64_t> OnnxMessage::integers(std::string_view field) const { return values(field).integers; }

std::size_t OnnxMessage::count(std::string_view field) const { return values(field).count; }

ByteSpan OnnxMessage::bytes(std::string_view field) const {
  const Values& found = values(field);
  return found.bytes.empty() ? ByteSpan{} : found.bytes.front();
}

std::vector<ByteSpan> OnnxMessage::all_bytes(std::string_view field) const { return values(field).bytes; }

std::string OnnxMessage::text(std::string_view field) const {
  const ByteSpan found = bytes(field);
  return {found.begin(), found.end()};
}

std::vector<std::string> OnnxMessage::texts(std::string_view field) const {
  std::vector<std::string> all;
  for (const ByteSpan& bytes : values(field).bytes) all.emplace_back(bytes.begin(), bytes.end());
  return all;
}

}  // namespace floats_rt
