// What several tests share.
#pragma once

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "bundle.hpp"
#include "safetensors.hpp"

namespace floats_rt {

// A bundle of make_bundles.py.
inline std::filesystem::path bundle_path(const std::string& name) {
  const char* const folder = std::getenv("FLOATS_RT_BUNDLES");
  REQUIRE_MESSAGE(folder, "set FLOATS_RT_BUNDLES to a folder that tests/make_bundles.py filled");
  return std::filesystem::path(folder) / name;
}

inline Bytes file_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE_MESSAGE(file, path.string());
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void write_file(const std::filesystem::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

// What Python computes from a bundle.
class Expected {
 public:
  explicit Expected(const std::string& name)
      : bytes_(file_bytes(bundle_path(name + ".expected.safetensors"))), tensors_(read_safetensors(bytes_)) {}

  std::vector<float> floats(const std::string& tensor) const { return to_floats(tensors_.at(tensor)); }

 private:
  Bytes bytes_;
  Tensors tensors_;
};

// A copy of a bundle to spoil, removed at the end.
class BundleCopy {
 public:
  explicit BundleCopy(const std::string& name) {
    std::string pattern = (std::filesystem::temp_directory_path() / "floats_rt-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
    std::filesystem::copy(bundle_path(name), path_, std::filesystem::copy_options::recursive);
  }
  BundleCopy(const BundleCopy&) = delete;
  BundleCopy& operator=(const BundleCopy&) = delete;
  ~BundleCopy() { std::filesystem::remove_all(path_); }

  const std::filesystem::path& path() const { return path_; }

  template <typename Change>
  void change_manifest(const Change& change) {
    const Bytes bytes = file_bytes(path_ / "manifest.json");
    auto manifest = nlohmann::json::parse(bytes);
    change(manifest);
    write_file(path_ / "manifest.json", manifest.dump());
  }

 private:
  std::filesystem::path path_;
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
