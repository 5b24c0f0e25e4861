#include "safetensors.hpp"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "json_text.hpp"

namespace floats_rt {
namespace {

using nlohmann::json;

constexpr std::size_t kPrefix = 8;               // the header's length, little endian
constexpr std::size_t kLargestHeader = 1000000;  // bytes, as in Python

[[noreturn]] void invalid(const std::string& what) {
  throw Error(ErrorCode::bundle_invalid, "a tensor file is not valid safetensors: " + what + ".",
              "export the bundle again: floats-edge export CHECKPOINT -o DIR");
}

// Bytes per element; 0 if the type is unknown.
std::size_t width(const std::string& dtype) {
  static const std::map<std::string, std::size_t> widths = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"I16", 2}, {"U16", 2}, {"F16", 2}, {"BF16", 2},
      {"I32", 4},  {"U32", 4}, {"F32", 4}, {"I64", 8}, {"U64", 8}, {"F64", 8}};
  const auto found = widths.find(dtype);
  return found == widths.end() ? 0 : found->second;
}

bool is_naturals(const json& value) {
  return value.is_array() &&
         std::all_of(value.begin(), value.end(), [](const json& item) { return item.is_number_unsigned(); });
}

TensorView read_tensor(const json& entry, Span<const std::uint8_t> data) {
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() || !entry.contains("shape") ||
      !is_naturals(entry["shape"]) || !entry.contains("data_offsets") || !is_naturals(entry["data_offsets"]) ||
      entry["data_offsets"].size() != 2) {
    invalid("a tensor's description");
  }
  const std::string dtype = entry["dtype"];
  const std::size_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
  if (begin > end || end > data.size()) invalid("a tensor outside the file");
  TensorView tensor{dtype == "F32"  ? DType::f32
                    : dtype == "U8" ? DType::u8
                                    : DType::other,
                    entry["shape"],
                    {data.data() + begin, end - begin}};
  std::size_t bytes = width(dtype);
  if (bytes == 0) invalid("a type that is not known");
  for (const std::size_t axis : tensor.shape) {
    if (axis != 0 && bytes > data.size() / axis) invalid("a shape larger than the file");
    bytes *= axis;
  }
  if (bytes != tensor.bytes.size()) invalid("a shape that does not fit its bytes");
  return tensor;
}

// The format wants the tensors side by side, from the first byte to the last.
void check_layout(const Tensors& tensors, Span<const std::uint8_t> data) {
  std::vector<std::pair<const std::uint8_t*, const std::uint8_t*>> ranges;
  for (const auto& [name, tensor] : tensors) ranges.emplace_back(tensor.bytes.begin(), tensor.bytes.end());
  std::sort(ranges.begin(), ranges.end());
  const std::uint8_t* at = data.begin();
  for (const auto& [begin, end] : ranges) {
    if (begin != at) invalid("tensors that overlap or leave a gap");
    at = end;
  }
  if (at != data.end()) invalid("bytes after the last tensor");
}

// The format's own words about a file are text by text.
void check_metadata(const json& header) {
  if (!header.contains("__metadata__")) return;
  const json& metadata = header["__metadata__"];
  if (metadata.is_null()) return;
  if (!metadata.is_object() ||
      !std::all_of(metadata.begin(), metadata.end(), [](const json& value) { return value.is_string(); })) {
    invalid("metadata that is not text");
  }
}

}  // namespace

Tensors read_safetensors(Span<const std::uint8_t> file) {
  if (file.size() < kPrefix) invalid("shorter than its header's length");
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kPrefix; ++i) length |= std::uint64_t{file[i]} << 8 * i;
  if (length > kLargestHeader) invalid("a header of more than 1 MB");
  if (length > file.size() - kPrefix) invalid("a header longer than the file");

  const std::uint8_t* const begin = file.data() + kPrefix;
  const std::string_view text(reinterpret_cast<const char*>(begin), length);
  if (const std::string violation = json_violation(text); !violation.empty()) invalid("its header: " + violation);
  const json header = json::parse(text.begin(), text.end());
  if (!header.is_object() || text[0] != '{') invalid("a header that is not a JSON object");
  check_metadata(header);
  const Span<const std::uint8_t> data(begin + length, file.size() - kPrefix - length);
  Tensors tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name != "__metadata__") tensors.emplace(name, read_tensor(entry, data));
  }
  check_layout(tensors, data);
  return tensors;
}

std::vector<float> to_floats(const TensorView& tensor) {
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), tensor.bytes.data(), values.size() * sizeof(float));
  return values;
}

}  // namespace floats_rt
