#include <nlohmann/json.hpp>
#include <set>

#include "manifest.hpp"
#include "schema.hpp"
#include "support.hpp"

namespace floats_rt {
namespace {

using nlohmann::json;

json manifest_of(const std::string& bundle) { return json::parse(file_bytes(bundle_path(bundle) / "manifest.json")); }

// The code with which a changed manifest is refused.
template <typename Change>
ErrorCode refusal(const std::string& bundle, const Change& change) {
  json manifest = manifest_of(bundle);
  change(manifest);
  const std::string text = manifest.dump();
  CAPTURE(text);
  return code_of([&] { parse_manifest(text); });
}

TEST_CASE("manifests that floats-edge wrote are read") {
  const Manifest bound = parse_manifest(manifest_of("bound").dump());
  CHECK(bound.mode == Mode::bound);
  CHECK(bound.precision == Precision::fp32);
  CHECK(bound.noise_seed == 12345678901234567u);
  CHECK(bound.lambdas.values.empty());
  CHECK(bound.input.size() == bound.input.channels * bound.input.height * bound.input.width);
  CHECK(bound.preprocessing.height == 16);
  CHECK(bound.preprocessing.covered_width == 16);
  CHECK(bound.preprocessing.resize == Resize::short_side);
  CHECK(bound.preprocessing.antialias);
  CHECK(bound.preprocessing.colours == Colours::grey);
  CHECK(bound.output.labels.size() == 10);
  CHECK(bound.layers.size() == 10);
  CHECK(bound.layers[1].nonzeros < bound.layers[1].size);

  const Manifest bank = parse_manifest(manifest_of("bank-fp16").dump());
  CHECK(bank.mode == Mode::bank);
  CHECK(bank.lambdas.values == std::vector<float>{0, 0.25, 0.5, 0.75, 1});
  CHECK(bank.graphs.size() == 5);
  CHECK(parse_manifest(manifest_of("fixed").dump()).lambdas.values == std::vector<float>{0.3f});

  CHECK(parse_manifest(manifest_of("bound-fp16").dump()).precision == Precision::fp16);
  CHECK(parse_manifest(manifest_of("bound-bf16").dump()).precision == Precision::bf16);
  const Manifest int8 = parse_manifest(manifest_of("input-int8").dump()),
                 refit = parse_manifest(manifest_of("refit").dump());
  CHECK(int8.precision == Precision::int8);
  CHECK(int8.mode == Mode::input);
  CHECK(int8.weights.empty());
  CHECK(int8.kept_in_fp16.empty());
  CHECK(parse_manifest(manifest_of("input-int8-kept-fp16").dump()).kept_in_fp16 ==
        std::set<std::string>{"blocks.1.conv1", "stem"});
  CHECK(refit.mode == Mode::refit);
  CHECK(refit.weights == "weights.safetensors");
}

TEST_CASE("every keyword of the schema is understood") { CHECK(unknown_keyword(manifest_schema()) == ""); }

TEST_CASE("a value of another type is refused, and every field is needed that has no default") {
  const json manifest = manifest_of("bound"), values = manifest.flatten();
  const std::set<std::string> optional = {"/input/name",
                                          "/input/layout",
                                          "/input/dtype",
                                          "/input/minimum",
                                          "/input/maximum",
                                          "/output/name",
                                          "/output/dtype",
                                          "/input/preprocessing/resize",
                                          "/input/preprocessing/antialias"};
  for (const auto& each : values.items()) {
    const std::string pointer = each.key();
    if (pointer.rfind("/recipe", 0) == 0) continue;  // nothing to this library
    CAPTURE(pointer);
    const json::json_pointer at(pointer), parent = at.parent_pointer();
    CHECK(refusal("bound", [&](json& m) { m[at] = json::array({json::object()}); }) == ErrorCode::bundle_invalid);
    if (manifest[parent].is_array() || each.value().is_null()) continue;
    json without = manifest;
    without[parent].erase(at.back());
    if (optional.count(pointer)) {
      CHECK_NOTHROW(parse_manifest(without.dump()));
    } else if (pointer.rfind("/files/", 0) != 0 || parent != json::json_pointer("/files")) {
      CHECK(code_of([&] { parse_manifest(without.dump()); }) == ErrorCode::bundle_invalid);
    }
  }
}

TEST_CASE("defaults are filled in, and a recipe of the future is no obstacle") {
  json manifest = manifest_of("bound");
  manifest["input"].erase("name");
  manifest.erase("engines");
  manifest["recipe"]["invented"] = {{"later", 1}};
  const Manifest read = parse_manifest(manifest.dump());
  CHECK(read.input.name == "images");
  CHECK(read.engines.empty());
}

TEST_CASE("what is no manifest is refused") {
  for (const std::string text : {"", "[]", "1", "{", "{}", "{\"schema_version\":2}", "{\"schema_version\":2,\"lam\":1}",
                                 "{\"schema_version\":2,\"lam\":{\"mode\":7}}", "\xff\xfe"}) {
    CAPTURE(text);
    CHECK(code_of([&] { parse_manifest(text); }) == ErrorCode::bundle_invalid);
  }
  CHECK(code_of([] { parse_manifest(std::string(1000000, '[')); }) == ErrorCode::bundle_invalid);
  const std::string deep = "{\"schema_version\":" + std::string(500000, '[') + std::string(500000, ']') + "}";
  CHECK(code_of([&] { parse_manifest(deep); }) == ErrorCode::bundle_invalid);
}

TEST_CASE("what a newer floats-edge wrote needs a newer floats_rt, and what this one wrote must be exported again") {
  const auto told = [](const auto& change) {
    json manifest = manifest_of("bound");
    change(manifest);
    try {
      parse_manifest(manifest.dump());
    } catch (const Error& error) {
      return std::string(error.what()).find("use a newer floats_rt") != std::string::npos ? "newer" : "again";
    }
    return "taken";
  };
  CHECK(told([](json& m) { m["surprise"] = 1; }) == std::string("newer"));
  CHECK(told([](json& m) { m["golden"]["surprise"] = 1; }) == std::string("newer"));
  CHECK(told([](json& m) { m["schema_version"] = 3; }) == std::string("newer"));
  CHECK(told([](json& m) { m.erase("layers"); }) == std::string("again"));
  CHECK(told([](json& m) { m["schema_version"] = 1; }) == std::string("again"));
  for (const char* version : {"0.1.1", "0.2", "1", "99.0.0rc1"}) {
    CAPTURE(version);
    CHECK(told([&](json& m) { m.erase("layers"), m["floats_edge_version"] = version; }) == std::string("newer"));
  }
  for (const char* version : {"0.1.0", "0.0.9", "", "x", "99999999999999999999"}) {
    CAPTURE(version);
    CHECK(told([&](json& m) { m.erase("layers"), m["floats_edge_version"] = version; }) == std::string("again"));
  }
  CHECK(told([](json& m) { m["floats_edge_version"] = "99.0.0"; }) == std::string("taken"));
}

TEST_CASE("a newer schema, and modes and precisions that are none, are refused") {
  CHECK(refusal("bound", [](json& m) { m["schema_version"] = 3; }) == ErrorCode::bundle_invalid);
  CHECK(refusal("bound", [](json& m) { m["lam"]["mode"] = "magic"; }) == ErrorCode::bundle_invalid);
  CHECK(refusal("bound", [](json& m) { m["precision"] = "fp1"; }) == ErrorCode::bundle_invalid);
  CHECK(refusal("refit", [](json& m) { m["precision"] = "int8"; }) == ErrorCode::lambda_unsupported);
}

TEST_CASE("a layer that lost channels says what its noise was drawn for") {
  json manifest = manifest_of("bound");
  json& layer = manifest["layers"][0];
  layer["shape"] = {15, 1, 3, 3};
  layer["nonzeros"] = 135;
  layer["drawn"] = {16, 1, 3, 3};
  CHECK(parse_manifest(manifest.dump()).layers[0].drawn == 144);
  CHECK(parse_manifest(manifest_of("bound").dump()).layers[0].drawn == 0);
  for (const json& drawn :
       {json{14, 1, 3, 4}, json{16, 9}, json{-16, -1, 3, 3}, json{1 << 30, 1 << 30, 3, 3}, json(144)}) {
    layer["drawn"] = drawn;
    CHECK(code_of([&] { parse_manifest(manifest.dump()); }) == ErrorCode::bundle_invalid);
  }
  layer["drawn"] = {16, 1, 3, 3};
  layer["nonzeros"] = 134;
  CHECK(code_of([&] { parse_manifest(manifest.dump()); }) == ErrorCode::bundle_invalid);
}

TEST_CASE("how an image becomes the input is read whole, and goes with its shape") {
  json manifest = manifest_of("bound");
  json& values = manifest["input"]["preprocessing"];
  manifest["input"]["shape"] = {3, 16, 12};
  values = {{"size", {16, 12}}, {"resize_size", {20, 13}}, {"antialias", false}, {"colours", "bgr"}};
  const Preprocessing read = parse_manifest(manifest.dump()).preprocessing;
  CHECK(read.height == 16);
  CHECK(read.width == 12);
  CHECK(read.covered_height == 20);
  CHECK(read.covered_width == 13);
  CHECK(read.resize == Resize::short_side);
  CHECK(!read.antialias);
  CHECK(read.colours == Colours::bgr);
  values["resize_size"] = nullptr;
  values["colours"] = "rgb";
  for (const auto& [name, resize] : {std::pair{"squash", Resize::squash}, std::pair{"pad", Resize::pad}}) {
    values["resize"] = name;
    const Preprocessing without = parse_manifest(manifest.dump()).preprocessing;
    CHECK(without.resize == resize);
    CHECK(without.covered_height == 16);
    CHECK(without.colours == Colours::rgb);
  }
  const json good = values;
  const auto invalid = [&](const std::string& key, const json& value) {
    CAPTURE(key);
    CAPTURE(value.dump());
    values = good;
    values[key] = value;
    CHECK(code_of([&] { parse_manifest(manifest.dump()); }) == ErrorCode::bundle_invalid);
  };
  invalid("size", {12, 16});
  invalid("size", {16, 0});
  invalid("size", {16, 4097});
  invalid("size", {16, 12, 1});
  invalid("size", nullptr);
  invalid("colours", "grey");
  invalid("colours", nullptr);
  invalid("resize", "stretch");
  invalid("resize_size", {20, 20});  // of pad
  values = good;
  values["resize"] = "short-side";
  values["resize_size"] = {16, 11};
  CHECK(code_of([&] { parse_manifest(manifest.dump()); }) == ErrorCode::bundle_invalid);
}

TEST_CASE("no file name leaves the bundle") {
  for (const std::string name : {"../model.onnx", "/etc/passwd", "a/../../b", "", "..", ".", "a\\b", "a/", "./a",
                                 "d//a", "d/./a", ".a", "a b", "a\nb", "\x1b[2J"}) {
    CAPTURE(name);
    CHECK(refusal("bound", [&](json& m) {
            m["files"][name] = m["files"]["model.onnx"];
            m["graphs"][0]["file"] = name;
          }) == ErrorCode::bundle_invalid);
  }
  CHECK(refusal("bound", [](json& m) { m["files"][std::string("a\0b", 3)] = m["files"]["model.onnx"]; }) ==
        ErrorCode::bundle_invalid);
}

TEST_CASE("values that do not go together are refused") {
  const auto invalid = [](const std::string& bundle, auto change) {
    CHECK(refusal(bundle, change) == ErrorCode::bundle_invalid);
  };
  const json engine = {{"file", "model.onnx"},  {"lam", nullptr},       {"flavour", "tensorrt"}, {"version", "10.3.0"},
                       {"platform", "linux-x"}, {"targets", {"sm_87"}}, {"precision", "fp32"},   {"batch", {1, 1, 1}}};
  json good = manifest_of("bound");
  good["engines"] = json::array({engine});
  CHECK_NOTHROW(parse_manifest(good.dump()));

  invalid("bound", [](json& m) { m["layers"][0]["shape"] = {4294967296, 4294967296, 4294967296, 2}; });
  invalid("bound", [](json& m) { m["layers"][0]["shape"] = {1, 0, 3, 3}; });
  invalid("bound", [](json& m) { m["layers"][0]["shape"] = {-16, -1, 3, 3}; });
  invalid("bound", [](json& m) { m["layers"][0]["shape"] = json::array(); });
  invalid("bound", [](json& m) { m["layers"][0]["nonzeros"] = 145; });
  invalid("bound", [](json& m) { m["layers"][0]["nonzeros"] = -1; });
  invalid("bound", [](json& m) { m["input"]["shape"] = {1, 65536, 65536}; });
  invalid("bound", [](json& m) { m["input"]["shape"] = {1, 16}; });
  invalid("bound", [](json& m) { m["output"]["labels"] = json::array(); });
  invalid("bound", [](json& m) { m["lam"]["noise_seed"] = -1; });
  invalid("bound", [](json& m) { m["lam"]["values"] = {0.5}; });
  invalid("bound", [](json& m) { m["weights"] = nullptr; });
  invalid("bound", [](json& m) { m["weights"] = "elsewhere"; });
  invalid("bound", [](json& m) { m["graphs"][0]["lam"] = 0.5; });
  invalid("bound", [](json& m) { m["graphs"].push_back(m["graphs"][0]); });
  invalid("refit", [](json& m) { m["weights"] = nullptr; });
  invalid("refit", [](json& m) { m["lam"]["values"] = {0.5}; });
  invalid("input", [](json& m) { m["lam"]["values"] = {0.5}; });
  invalid("input", [](json& m) { m["graphs"][0]["lam"] = 0.5; });
  invalid("bound", [](json& m) { m["files"].erase("golden.safetensors"); });
  invalid("bound", [](json& m) { m["files"]["model.onnx"]["sha256"] = "0"; });
  invalid("bound", [](json& m) { m["files"]["model.onnx"]["bytes"] = -1; });
  invalid("bound", [](json& m) { m["golden"]["lambdas"] = {1.5}; });
  invalid("bound", [](json& m) { m["surprise"] = 1; });
  invalid("fixed", [](json& m) { m["lam"]["values"] = {0.3, 0.4}; });
  invalid("fixed", [](json& m) { m["lam"]["values"] = nullptr; });
  invalid("fixed", [](json& m) { m["graphs"][0]["lam"] = nullptr; });
  invalid("bank", [](json& m) { m["lam"]["values"] = json::array(); });
  invalid("bank", [](json& m) { m["lam"]["values"].push_back(0.9); });
  invalid("bank", [](json& m) { m["golden"]["lambdas"] = {0.9}; });
  invalid("bound", [&](json& m) { m["engines"] = json::array({engine}), m["engines"][0]["batch"] = {2, 1, 1}; });
  invalid("bound", [&](json& m) { m["engines"] = json::array({engine}), m["engines"][0]["batch"] = {0, 1, 1}; });
  invalid("bound", [&](json& m) { m["engines"] = json::array({engine}), m["engines"][0]["lam"] = 0.5; });
  invalid("bound", [&](json& m) { m["engines"] = json::array({engine}), m["engines"][0]["file"] = "elsewhere"; });
}

}  // namespace
}  // namespace floats_rt
