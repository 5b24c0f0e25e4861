#include "onnx_initializers.hpp"

#include <utility>

namespace floats_rt {
namespace {

// Numbers of fields in onnx.proto.
constexpr std::uint64_t kModelGraph = 7, kGraphInitializer = 5;
constexpr std::uint64_t kTensorDims = 1, kTensorType = 2, kTensorName = 8, kTensorRawData = 9, kTensorExternalData = 13;

enum class Wire { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

struct Field {
  std::uint64_t number = 0;
  Wire wire = Wire::varint;
  std::uint64_t value = 0;              // of a varint
  Span<const std::uint8_t> bytes = {};  // of a string, a message or packed numbers
};

[[noreturn]] void invalid(const std::string& what) {
  throw Error(ErrorCode::bundle_invalid, "a graph of the bundle is not valid ONNX: " + what + ".",
              "export the bundle again: floats-edge export CHECKPOINT -o DIR");
}

// Reads a message field by field.
class Reader {
 public:
  explicit Reader(Span<const std::uint8_t> message) : at_(message.begin()), end_(message.end()) {}

  bool done() const { return at_ == end_; }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const std::uint8_t byte = *skip(1);
      value |= std::uint64_t{byte & 0x7fu} << shift;
      if (!(byte & 0x80u)) return value;
    }
    invalid("a number that does not end");
  }

  Field next() {
    const std::uint64_t key = varint();
    Field field{key >> 3, static_cast<Wire>(key & 7u)};
    switch (field.wire) {
      case Wire::varint:
        field.value = varint();
        return field;
      case Wire::fixed64:
        skip(8);
        return field;
      case Wire::bytes: {
        const std::uint64_t size = varint();
        field.bytes = {skip(size), static_cast<std::size_t>(size)};
        return field;
      }
      case Wire::fixed32:
        skip(4);
        return field;
    }
    invalid("a field of an unknown kind");
  }

 private:
  // The next `count` bytes, passed over.
  const std::uint8_t* skip(std::uint64_t count) {
    if (count > static_cast<std::uint64_t>(end_ - at_)) invalid("it is cut off");
    return std::exchange(at_, at_ + count);
  }

  const std::uint8_t *at_, *end_;
};

// Adds one TensorProto, which lies somewhere in `model`.
void read_tensor(Span<const std::uint8_t> tensor, Span<const std::uint8_t> model,
                 std::map<std::string, Initializer>& initializers) {
  Initializer initializer;
  std::string name;
  for (Reader reader(tensor); !reader.done();) {
    const Field field = reader.next();
    if (field.number == kTensorDims && field.wire == Wire::varint) {
      initializer.dims.push_back(field.value);
    } else if (field.number == kTensorDims && field.wire == Wire::bytes) {  // packed
      for (Reader dims(field.bytes); !dims.done();) initializer.dims.push_back(dims.varint());
    } else if (field.number == kTensorType && field.wire == Wire::varint) {
      initializer.type = field.value;
    } else if (field.number == kTensorName && field.wire == Wire::bytes) {
      name.assign(field.bytes.begin(), field.bytes.end());
    } else if (field.number == kTensorRawData && field.wire == Wire::bytes) {
      initializer.begin = static_cast<std::size_t>(field.bytes.begin() - model.begin());
      initializer.bytes = field.bytes.size();
    } else if (field.number == kTensorExternalData) {
      invalid("it reads weights from another file");
    }
  }
  if (!initializers.emplace(std::move(name), std::move(initializer)).second) invalid("two initializers of one name");
}

}  // namespace

std::map<std::string, Initializer> raw_initializers(Span<const std::uint8_t> model) {
  std::map<std::string, Initializer> initializers;
  for (Reader reader(model); !reader.done();) {
    const Field graph = reader.next();
    if (graph.number != kModelGraph || graph.wire != Wire::bytes) continue;
    for (Reader fields(graph.bytes); !fields.done();) {
      const Field field = fields.next();
      if (field.number == kGraphInitializer && field.wire == Wire::bytes) read_tensor(field.bytes, model, initializers);
    }
  }
  return initializers;
}

}  // namespace floats_rt
