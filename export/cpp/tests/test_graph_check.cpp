#include <algorithm>
#include <chrono>

#include "bundle_copy.hpp"
#include "graph_check.hpp"
#include "sha256.hpp"
#include "support.hpp"

namespace floats_rt {
namespace {

constexpr double kSeconds = 2;

// The graphs of tests/fixtures/hostile_graphs.py, which make_bundles.py wrote.
std::vector<std::filesystem::path> hostile_graphs() {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(bundle_path("hostile-graphs")))
    paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  REQUIRE(paths.size() >= 60);
  return paths;
}

}  // namespace

TEST_CASE("the weights of an exported graph are found, in their types and shapes") {
  const Bytes model = file_bytes(bundle_path("refit-fp16") / "model.onnx");
  const auto constants = checked_constants(model);
  const GraphTensor& stem = constants.at("stem.weight");
  CHECK(stem.type == 10);
  CHECK(stem.dims == std::vector<std::int64_t>{16, 1, 3, 3});
  CHECK(stem.raw.size() == 2 * 16 * 9);
  CHECK(stem.raw.begin() >= model.data());
  CHECK(stem.raw.end() <= model.data() + model.size());
}

TEST_CASE("every graph that was exported passes") {
  for (const std::string& name : bundle_names()) {
    CAPTURE(name);
    const Bundle bundle(bundle_path(name).string());
    for (const Graph& graph : bundle.manifest().graphs) {
      const Bytes model = bundle.read(graph.file);
      CHECK_NOTHROW(checked_constants(model));
    }
  }
}

TEST_CASE("the graph that the hostile ones were made of passes") {
  const Bytes model = file_bytes(bundle_path("honest.onnx"));
  CHECK_NOTHROW(checked_constants(model));
}

TEST_CASE("every hostile graph is refused from its bytes, at once") {
  for (const std::filesystem::path& path : hostile_graphs()) {
    CAPTURE(path.filename().string());
    const Bytes model = file_bytes(path);
    const auto begun = std::chrono::steady_clock::now();
    CHECK(code_of([&] { checked_constants(model); }) == ErrorCode::bundle_invalid);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begun;
    CHECK(taken.count() < kSeconds);
  }
}

TEST_CASE("a bundle with a hostile graph is not loaded, in any mode") {
  for (const char* const name : {"fixed", "bank", "bound", "input", "refit"}) {
    BundleCopy copy(name);
    const std::string file = Bundle(copy.path().string()).manifest().graphs.back().file;
    for (const char* const hostile : {"external-constant", "function-recursive", "filled", "key-large"}) {
      CAPTURE(name);
      CAPTURE(hostile);
      const Bytes graph = file_bytes(bundle_path("hostile-graphs") / (std::string(hostile) + ".onnx"));
      write_file(copy.path() / file, std::string(graph.begin(), graph.end()));
      copy.change_manifest([&](nlohmann::json& manifest) {
        manifest["files"][file] = {{"bytes", graph.size()}, {"sha256", sha256(graph.data(), graph.size())}};
      });
      Options options;
      options.backend = Backend::onnxruntime;
      CHECK(code_of([&] { Model::load(copy.path().string(), options); }) == ErrorCode::bundle_invalid);
    }
  }
}

TEST_CASE("a graph that is cut off anywhere is refused") {
  const Bytes whole = file_bytes(bundle_path("honest.onnx"));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    CHECK(code_of([&] { checked_constants(cut); }) == ErrorCode::bundle_invalid);
  }
}

}  // namespace floats_rt
