#include "bundle.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <system_error>

#include "memory.hpp"
#include "sha256.hpp"

namespace floats_rt {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kLargestManifest = 4 << 20;  // bytes

[[noreturn]] void invalid(const std::string& what) {
  throw Error(ErrorCode::bundle_invalid, what + ".", "export the bundle again: floats-edge export CHECKPOINT -o DIR");
}

}  // namespace

// A regular file, open for reading.
class File {
 public:
  explicit File(const fs::path& path)  // O_NONBLOCK: opening a pipe must not wait for a writer
      : path_(path), handle_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    struct stat status {};
    if (handle_ < 0 || ::fstat(handle_, &status) != 0 || !S_ISREG(status.st_mode)) {
      if (handle_ >= 0) ::close(handle_);
      invalid(path.string() + " is missing or cannot be read");
    }
    size_ = static_cast<std::uint64_t>(status.st_size);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { ::close(handle_); }

  std::uint64_t size() const noexcept { return size_; }

  Bytes read() const {
    Bytes bytes(size_);
    for (std::size_t at = 0; at < bytes.size();) {
      const ssize_t count = ::read(handle_, bytes.data() + at, bytes.size() - at);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) invalid(path_.string() + " cannot be read to its end");
      at += static_cast<std::size_t>(count);
    }
    return bytes;
  }

 private:
  fs::path path_;
  int handle_;
  std::uint64_t size_ = 0;
};

namespace {

Manifest read_manifest(const fs::path& path) {
  const File file(path);
  if (file.size() > kLargestManifest) invalid(path.string() + " is larger than any manifest");
  const Bytes bytes = file.read();
  return parse_manifest({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

fs::path existing(const std::string& directory) {
  std::error_code error;
  const fs::path path = fs::canonical(directory, error);
  if (error || !fs::exists(path / "manifest.json", error)) {
    throw Error(ErrorCode::bundle_not_found, "there is no bundle at " + directory + ": it holds no manifest.json.",
                "name a directory that floats-edge export made");
  }
  return path;
}

}  // namespace

Bundle::Bundle(const std::string& directory, std::uint64_t max_bytes)
    : path_(existing(directory)), manifest_(read_manifest(resolved("manifest.json"))) {
  for (const auto& [name, entry] : manifest_.files) check_size(File(resolved(name)), name);
  check_memory(manifest_, max_bytes);
}

std::filesystem::path Bundle::resolved(const std::string& name) const {
  std::error_code error;
  const fs::path real = fs::canonical(path_ / name, error);  // follows symbolic links
  if (error) invalid((path_ / name).string() + " is missing");
  if (std::mismatch(path_.begin(), path_.end(), real.begin(), real.end()).first != path_.end()) {
    invalid((path_ / name).string() + " leads out of the bundle");
  }
  return real;
}

void Bundle::check_size(const File& file, const std::string& name) const {
  if (file.size() != manifest_.files.at(name).bytes) {
    invalid((path_ / name).string() + " is truncated or altered: its size differs");
  }
}

Bytes Bundle::read(const std::string& name) const {
  const File file(resolved(name));
  check_size(file, name);
  Bytes bytes = file.read();
  if (sha256(bytes.data(), bytes.size()) != manifest_.files.at(name).sha256) {
    invalid((path_ / name).string() + " was altered: its sha256 differs");
  }
  return bytes;
}

}  // namespace floats_rt
