// What several tests share.
#pragma once

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "bundle.hpp"
#include "safetensors.hpp"

namespace floats_rt {

inline Options on_cpu(int threads = 1) {
  Options options;
  options.backend = Backend::onnxruntime;
  options.threads = threads;
  return options;
}

// A bundle of make_bundles.py.
inline std::filesystem::path bundle_path(const std::string& name) {
  const char* const folder = std::getenv("FLOATS_RT_BUNDLES");
  REQUIRE_MESSAGE(folder, "set FLOATS_RT_BUNDLES to a folder that tests/make_bundles.py filled");
  return std::filesystem::path(folder) / name;
}

// The names of all of them.
inline std::vector<std::string> bundle_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(bundle_path(""))) {
    if (std::filesystem::exists(entry.path() / "manifest.json")) names.push_back(entry.path().filename().string());
  }
  REQUIRE(names.size() >= 16);
  return names;
}

inline Bytes file_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE_MESSAGE(file, path.string());
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// What Python computes from a bundle.
class Expected {
 public:
  explicit Expected(const std::string& name)
      : bytes_(file_bytes(bundle_path(name + ".expected.safetensors"))), tensors_(read_safetensors(bytes_)) {}

  std::vector<float> floats(const std::string& tensor) const { return to_floats(tensors_.at(tensor)); }
  Bytes bytes(const std::string& tensor) const {
    return {tensors_.at(tensor).bytes.begin(), tensors_.at(tensor).bytes.end()};
  }

 private:
  Bytes bytes_;
  Tensors tensors_;
};

// The code of the Error that the call throws; fails the test if it throws none.
template <typename Call>
ErrorCode code_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    CHECK(std::string(error.what()).find("Remedy: ") != std::string::npos);
    return error.code();
  }
  FAIL("no Error was thrown");
  return ErrorCode::runtime;
}

}  // namespace floats_rt

namespace doctest {
template <>
struct StringMaker<floats_rt::ErrorCode> {
  static String convert(floats_rt::ErrorCode code) { return floats_rt::to_string(code); }
};
}  // namespace doctest
