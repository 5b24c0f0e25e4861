// A bundle to spoil.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "support.hpp"

namespace floats_rt {

inline void write_file(const std::filesystem::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

// A copy of a bundle of make_bundles.py, removed at the end.
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

}  // namespace floats_rt
