// The files of a bundle on disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "manifest.hpp"

namespace floats_rt {

using Bytes = std::vector<std::uint8_t>;

class File;

// An opened bundle: its manifest is valid, every file it lists is there, inside, and of the stated size, and all
// together asks for no more memory than is allowed.
class Bundle {
 public:
  // Throws Error: bundle_not_found, bundle_invalid or out_of_memory (or what parse_manifest throws).
  explicit Bundle(const std::string& directory, std::uint64_t max_bytes = Options{}.max_bytes);

  const Manifest& manifest() const noexcept { return manifest_; }
  const std::filesystem::path& path() const noexcept { return path_; }

  // The bytes of a listed file, of the stated sha256. Throws Error: bundle_invalid.
  Bytes read(const std::string& name) const;

 private:
  std::filesystem::path resolved(const std::string& name) const;  // inside, links followed
  void check_size(const File& file, const std::string& name) const;

  std::filesystem::path path_;
  Manifest manifest_;
};

}  // namespace floats_rt
