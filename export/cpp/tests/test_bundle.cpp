#include <sys/stat.h>

#include "bundle.hpp"
#include "bundle_copy.hpp"

namespace floats_rt {
namespace fs = std::filesystem;

static ErrorCode refusal(const fs::path& path) {
  return code_of([&] { Bundle{path.string()}; });
}

TEST_CASE("bundles that floats-edge made are opened, and their files read") {
  for (const std::string& name : bundle_names()) {
    CAPTURE(name);
    const Bundle bundle(bundle_path(name).string());
    for (const auto& [file, entry] : bundle.manifest().files) CHECK(bundle.read(file).size() == entry.bytes);
  }
}

TEST_CASE("where there is no bundle, that is what is said") {
  CHECK(refusal("/does/not/exist") == ErrorCode::bundle_not_found);
  CHECK(refusal(fs::temp_directory_path()) == ErrorCode::bundle_not_found);
  CHECK(refusal(bundle_path("bound") / "model.onnx") == ErrorCode::bundle_not_found);
}

TEST_CASE("a file that is missing, cut, grown or replaced by something else is noticed on opening") {
  BundleCopy missing("bound"), cut("bound"), grown("bound"), folder("bound"), pipe("bound");
  fs::remove(missing.path() / "golden.safetensors");
  CHECK(refusal(missing.path()) == ErrorCode::bundle_invalid);
  fs::resize_file(cut.path() / "model.onnx", 100);
  CHECK(refusal(cut.path()) == ErrorCode::bundle_invalid);
  fs::resize_file(grown.path() / "model.onnx", std::uintmax_t{1} << 40);  // sparse: no terabyte is allocated
  CHECK(refusal(grown.path()) == ErrorCode::bundle_invalid);
  fs::remove(folder.path() / "model.onnx");
  fs::create_directory(folder.path() / "model.onnx");
  CHECK(refusal(folder.path()) == ErrorCode::bundle_invalid);
  fs::remove(pipe.path() / "model.onnx");
  REQUIRE(::mkfifo((pipe.path() / "model.onnx").c_str(), 0600) == 0);
  CHECK(refusal(pipe.path()) == ErrorCode::bundle_invalid);
}

TEST_CASE("a manifest that is huge or a folder is refused") {
  BundleCopy huge("bound"), folder("bound");
  fs::resize_file(huge.path() / "manifest.json", std::uintmax_t{1} << 40);
  CHECK(refusal(huge.path()) == ErrorCode::bundle_invalid);
  fs::remove(folder.path() / "manifest.json");
  fs::create_directory(folder.path() / "manifest.json");
  CHECK(refusal(folder.path()) == ErrorCode::bundle_invalid);
}

TEST_CASE("a link may point inside the bundle and nowhere else") {
  BundleCopy inside("bound"), outside("bound"), dangling("bound"), sibling("bound");
  fs::rename(inside.path() / "model.onnx", inside.path() / "real.onnx");
  fs::create_symlink("real.onnx", inside.path() / "model.onnx");
  CHECK_NOTHROW(Bundle(inside.path().string()).read("model.onnx"));
  fs::remove(outside.path() / "model.onnx");
  fs::create_symlink(bundle_path("bound") / "model.onnx", outside.path() / "model.onnx");
  CHECK(refusal(outside.path()) == ErrorCode::bundle_invalid);
  fs::remove(dangling.path() / "model.onnx");
  fs::create_symlink("nothing", dangling.path() / "model.onnx");
  CHECK(refusal(dangling.path()) == ErrorCode::bundle_invalid);

  BundleCopy manifest("bound");
  fs::rename(manifest.path() / "manifest.json", manifest.path() / "real.json");
  fs::create_symlink("real.json", manifest.path() / "manifest.json");
  CHECK_NOTHROW(Bundle(manifest.path().string()));
  fs::remove(manifest.path() / "manifest.json");
  fs::create_symlink(bundle_path("bound") / "manifest.json", manifest.path() / "manifest.json");
  CHECK(refusal(manifest.path()) == ErrorCode::bundle_invalid);

  const fs::path beside = sibling.path().string() + "-beside";  // its path starts with the bundle's
  fs::create_directory(beside);
  fs::rename(sibling.path() / "model.onnx", beside / "model.onnx");
  fs::create_symlink(beside / "model.onnx", sibling.path() / "model.onnx");
  CHECK(refusal(sibling.path()) == ErrorCode::bundle_invalid);
  fs::remove_all(beside);
}

TEST_CASE("a bit that flipped is noticed before the file is used") {
  BundleCopy copy("bound");
  Bytes bytes = file_bytes(copy.path() / "model.onnx");
  bytes[bytes.size() / 2] ^= 1;
  write_file(copy.path() / "model.onnx", {bytes.begin(), bytes.end()});
  const Bundle bundle(copy.path().string());
  CHECK(code_of([&] { bundle.read("model.onnx"); }) == ErrorCode::bundle_invalid);
  CHECK_NOTHROW(bundle.read("golden.safetensors"));
  fs::resize_file(copy.path() / "golden.safetensors", std::uintmax_t{1} << 40);  // after it was opened
  CHECK(code_of([&] { bundle.read("golden.safetensors"); }) == ErrorCode::bundle_invalid);
}

}  // namespace floats_rt
