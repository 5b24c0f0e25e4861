#include "safetensors.hpp"
#include "support.hpp"

namespace floats_rt {

static Bytes file_of(const std::string& header, std::size_t data, std::uint64_t length) {
  Bytes bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<std::uint8_t>(length >> 8 * i));
  bytes.insert(bytes.end(), header.begin(), header.end());
  bytes.resize(bytes.size() + data, 0x3f);
  return bytes;
}

static Bytes file_of(const std::string& header, std::size_t data) { return file_of(header, data, header.size()); }

TEST_CASE("tensors are read, also at odd places, and metadata is passed over") {
  const Bytes file = file_of(R"({"__metadata__":{"a":"b"},"m":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
                             R"("w":{"dtype":"F32","shape":[1,2],"data_offsets":[3,11]},)"
                             R"("none":{"dtype":"F32","shape":[0,9],"data_offsets":[11,11]}})",
                             11);
  const Tensors tensors = read_safetensors(file);
  REQUIRE(tensors.size() == 3);
  CHECK(tensors.at("m").dtype == DType::u8);
  CHECK(tensors.at("m").bytes.size() == 3);
  CHECK(tensors.at("w").shape == std::vector<std::size_t>{1, 2});
  CHECK(to_floats(tensors.at("w")) == std::vector<float>{0x1.7e7e7ep-1f, 0x1.7e7e7ep-1f});
  CHECK(to_floats(tensors.at("none")).empty());
}

TEST_CASE("the files of a bundle are read") {
  const Bytes file = file_bytes(bundle_path("bound") / "weights.safetensors");
  CHECK(read_safetensors(file).size() > 40);
}

TEST_CASE("hostile files are refused") {
  const auto refused = [](const Bytes& file) {
    CHECK(code_of([&] { read_safetensors(file); }) == ErrorCode::bundle_invalid);
  };
  const auto one = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"w":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
  };
  refused({});
  refused(Bytes(7));
  refused(file_of("{}", 0, 3));                           // longer than the file
  refused(file_of("{}", 0, ~std::uint64_t{0}));           // overflow
  refused(file_of("{}", 4));                              // bytes nobody owns
  refused(file_of("[]", 0));                              // not an object
  refused(file_of("{\"w\":", 0));                         // cut off
  refused(file_of(std::string(200000, '['), 0));          // deep
  refused(file_of("{}" + std::string(1000000, ' '), 0));  // longer than 1 MB
  refused(file_of(" {}", 0));                             // starts late
  refused(file_of(R"({"__metadata__":{"a":1}})", 0));     // metadata that is not text
  refused(file_of(R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                  R"("w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                  4));                                                  // a name that occurs twice
  refused(file_of(R"({"w":1})", 0));                                    // not a tensor
  refused(file_of(one("F32", "[1]", "[0,8]"), 4));                      // past the end
  refused(file_of(one("F32", "[1]", "[8,4]"), 8));                      // backwards
  refused(file_of(one("F32", "[2]", "[0,4]"), 4));                      // shape does not fit
  refused(file_of(one("F32", "[4294967296,4294967296]", "[0,4]"), 4));  // product overflows
  refused(file_of(one("F32", "[4611686018427387904]", "[0,0]"), 0));    // product overflows to zero
  refused(file_of(one("F32", "[-1]", "[0,4]"), 4));                     // negative
  refused(file_of(one("F32", "[1.0]", "[0,4]"), 4));                    // not an integer
  refused(file_of(one("F31", "[1]", "[0,4]"), 4));                      // unknown type
  refused(file_of(one("F32", "[1]", "[4,8]"), 8));                      // a gap
  refused(file_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                  R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
                  6));  // overlap
}

}  // namespace floats_rt
