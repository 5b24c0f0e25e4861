#include "onnx_initializers.hpp"
#include "support.hpp"

namespace floats_rt {
namespace {

std::string field(int number, const std::string& bytes) {
  REQUIRE(bytes.size() < 128);
  return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size())} + bytes;
}

std::string number(int field, int value) {
  REQUIRE(value < 128);
  return {static_cast<char>(field << 3), static_cast<char>(value)};
}

Bytes bytes_of(const std::string& text) { return {text.begin(), text.end()}; }

// A ModelProto whose graph has these TensorProtos.
Bytes model_of(const std::vector<std::string>& tensors) {
  std::string graph;
  for (const std::string& tensor : tensors) graph += field(5, tensor);
  return bytes_of(number(1, 10) + field(7, graph));
}

}  // namespace

TEST_CASE("the weights of an exported graph are found, in their types and shapes") {
  const Bytes model = file_bytes(bundle_path("refit-fp16") / "model.onnx");
  const auto initializers = raw_initializers(model);
  const Initializer& stem = initializers.at("stem.weight");
  CHECK(stem.type == 10);
  CHECK(stem.dims == std::vector<std::uint64_t>{16, 1, 3, 3});
  CHECK(stem.bytes == 2 * 16 * 9);
  CHECK(stem.begin + stem.bytes <= model.size());
}

TEST_CASE("dimensions may be packed, and unknown fields are passed over") {
  const std::string fixed = std::string{12 << 3 | 1} + "12345678" + std::string{15 << 3 | 5} + "1234";
  const Bytes model =
      model_of({field(1, "\2\3") + number(2, 1) + field(8, "w") + fixed + field(9, std::string(24, 'x')),
                number(1, 2) + field(8, "nothing raw")});
  const auto initializers = raw_initializers(model);
  CHECK(initializers.at("w").dims == std::vector<std::uint64_t>{2, 3});
  CHECK(initializers.at("w").bytes == 24);
  CHECK(model[initializers.at("w").begin] == 'x');
  CHECK(initializers.at("nothing raw").bytes == 0);
}

TEST_CASE("what is no protobuf, cut off or ambiguous is refused") {
  const Bytes whole = model_of({number(1, 2) + field(8, "w") + field(9, "12345678")});
  for (std::size_t size = 1; size < whole.size(); ++size) {
    CAPTURE(size);
    if (size == 2) continue;  // the version alone is a message
    const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    CHECK(code_of([&] { raw_initializers(cut); }) == ErrorCode::bundle_invalid);
  }
  const auto refused = [](const Bytes& model) {
    CHECK(code_of([&] { raw_initializers(model); }) == ErrorCode::bundle_invalid);
  };
  refused(model_of({field(8, "w"), field(8, "w")}));
  refused(model_of({field(8, "w") + field(13, field(1, "location") + field(2, "/etc/passwd"))}));
  refused(bytes_of(std::string{1 << 3 | 3}));  // a group
  refused(Bytes(20, 0xff));                    // a number that does not end
  refused(
      bytes_of("\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
               "abc"));  // longer than memory
}

}  // namespace floats_rt
