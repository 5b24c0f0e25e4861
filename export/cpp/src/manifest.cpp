#include "manifest.hpp"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "schema.hpp"

namespace floats_rt {
namespace {

using nlohmann::json;

constexpr int kSchemaVersion = 1;
constexpr std::size_t kLargestProduct = std::size_t{1} << 31;  // of a shape: 8 GiB of floats

[[noreturn]] void invalid(const std::string& what) {
  throw Error(ErrorCode::bundle_invalid, "manifest.json is not valid: " + what + ".",
              "export the bundle again: floats-edge export CHECKPOINT -o DIR");
}

// Product of the axes, each at least 1.
std::size_t checked_product(const std::vector<std::size_t>& shape, const std::string& where) {
  std::size_t product = 1;
  for (const std::size_t axis : shape) {
    if (axis == 0 || axis > kLargestProduct / product) invalid(where + ": a shape of this size");
    product *= axis;
  }
  return product;
}

std::vector<std::size_t> read_shape(const json& axes, const std::string& where) {
  std::vector<std::size_t> shape;
  for (const json& axis : axes) {
    if (!axis.is_number_unsigned()) invalid(where + ": a negative axis");
    shape.push_back(axis.get<std::size_t>());
  }
  return shape;
}

std::optional<float> read_lambda(const json& value) {
  return value.is_null() ? std::nullopt : std::optional(value.get<float>());
}

Mode read_mode(const json& manifest) {
  // Before the schema is asked: newer modes are no damage.
  const json& lam = manifest.at("lam");
  if (!lam.is_object() || !lam.contains("mode") || !lam["mode"].is_string()) invalid("lam.mode: missing");
  const std::string mode = lam["mode"];
  if (mode == "fixed") return Mode::fixed;
  if (mode == "bank") return Mode::bank;
  if (mode == "bound") return Mode::bound;
  if (mode == "refit" || mode == "input") {
    throw Error(ErrorCode::lambda_unsupported, "this floats_rt does not serve lambda mode " + mode + ".",
                "use a newer floats_rt, or export with --lambda runtime and no --switch: mode bound");
  }
  invalid("lam.mode: not one of the values allowed");
}

// Of the weights that set_lambda computes: in modes fixed and bank they are the graph's own affair.
Precision read_precision(const std::string& precision, Mode mode) {
  if (mode != Mode::bound || precision == "fp32") return Precision::fp32;
  if (precision == "fp16") return Precision::fp16;
  throw Error(ErrorCode::lambda_unsupported, "this floats_rt does not compute weights in " + precision + ".",
              "use a newer floats_rt, or export with --precision fp32 or fp16, or with --lambda VALUE");
}

void check_file_name(const std::string& name) {
  const std::filesystem::path path(name);
  const bool climbs =
      std::any_of(path.begin(), path.end(), [](const auto& part) { return part == ".." || part == "."; });
  if (name.empty() || path.is_absolute() || climbs || name.find('\\') != std::string::npos ||
      name.find('\0') != std::string::npos || path.filename().empty()) {
    invalid("files: a name that is not that of a file inside the bundle");
  }
}

InputSpec read_input(const json& input) {
  const auto shape = read_shape(input["shape"], "input.shape");
  checked_product(shape, "input.shape");
  return {input["name"], shape[0], shape[1], shape[2], input["minimum"], input["maximum"]};
}

LambdaRange read_lambdas(const json& lam, Mode mode) {
  LambdaRange range{0, 1, {}};
  if (!lam["values"].is_null()) {
    range.values = lam["values"].get<std::vector<float>>();
    const auto [least, most] = std::minmax_element(range.values.begin(), range.values.end());
    if (!range.values.empty()) range.minimum = *least, range.maximum = *most;
  }
  const bool fits = mode == Mode::bound ? lam["values"].is_null()
                                        : !range.values.empty() && (mode == Mode::bank || range.values.size() == 1);
  if (!fits) invalid("lam.values: do not go with the mode");
  return range;
}

std::vector<LayerSpec> read_layers(const json& layers) {
  std::vector<LayerSpec> specs;
  for (const json& layer : layers) {
    LayerSpec spec{layer["name"], read_shape(layer["shape"], "layers"), 0, layer["nonzeros"]};
    spec.size = checked_product(spec.shape, "layers");
    if (spec.shape.empty() || spec.nonzeros > spec.size) invalid("layers: " + spec.name + " has no such weights");
    specs.push_back(std::move(spec));
  }
  return specs;
}

std::vector<Engine> read_engines(const json& engines) {
  std::vector<Engine> result;
  for (const json& engine : engines) {
    const auto batch = read_shape(engine["batch"], "engines.batch");
    checked_product(batch, "engines.batch");
    if (batch[0] > batch[1] || batch[1] > batch[2]) invalid("engines.batch: not in ascending order");
    const json& compatibility = engine["compatibility"];
    const bool brings_runtime = std::find(compatibility.begin(), compatibility.end(), "version") != compatibility.end();
    result.push_back({engine["file"], read_lambda(engine["lam"]), engine["flavour"], engine["version"],
                      engine["platform"], engine["targets"], batch[0], batch[2], brings_runtime,
                      !engine["dla"].is_null()});
  }
  return result;
}

void check_references(const Manifest& manifest) {
  const auto listed = [&](const std::string& file) {
    if (!manifest.files.count(file)) invalid("files: a file that is used is not listed");
  };
  const auto served = [&](const std::optional<float>& lam) {
    const auto& values = manifest.lambdas.values;
    return lam ? std::find(values.begin(), values.end(), *lam) != values.end() : manifest.mode == Mode::bound;
  };
  for (const Graph& graph : manifest.graphs) {
    listed(graph.file);
    if (!served(graph.lam)) invalid("graphs: a lambda that does not go with the mode");
  }
  for (const float lam : manifest.lambdas.values) {
    const auto at_lam = [&](const Graph& graph) { return graph.lam == lam; };
    if (std::none_of(manifest.graphs.begin(), manifest.graphs.end(), at_lam)) invalid("graphs: a lambda has none");
  }
  for (const Engine& engine : manifest.engines) {
    listed(engine.file);
    if (!served(engine.lam)) invalid("engines: a lambda that does not go with the mode");
  }
  for (const float lam : manifest.golden.lambdas) {
    if (manifest.mode != Mode::bound && !served(lam)) invalid("golden.lambdas: one that does not go with the mode");
  }
  listed(manifest.golden.file);
  if (manifest.mode == Mode::bound) listed(manifest.weights);
}

Manifest read_manifest(const json& document) {
  Manifest manifest{};
  const json& lam = document["lam"];
  manifest.input = read_input(document["input"]);
  manifest.output = {document["output"]["name"], document["output"]["labels"]};
  manifest.mode = read_mode(document);
  manifest.rule = lam["rule"] == "paper" ? Rule::paper : Rule::interpolate;
  manifest.precision = read_precision(document["precision"].get_ref<const std::string&>(), manifest.mode);
  if (!lam["noise_seed"].is_number_unsigned()) invalid("lam.noise_seed: negative");
  manifest.noise_seed = lam["noise_seed"];
  manifest.lambdas = read_lambdas(lam, manifest.mode);
  manifest.layers = read_layers(document["layers"]);
  for (const json& graph : document["graphs"]) manifest.graphs.push_back({graph["file"], read_lambda(graph["lam"])});
  if (!document["weights"].is_null()) manifest.weights = document["weights"];
  manifest.engines = read_engines(document["engines"]);
  const json& golden = document["golden"];
  manifest.golden = {golden["file"], golden["lambdas"], golden["tolerance"]};
  for (const auto& [name, entry] : document["files"].items()) {
    check_file_name(name);
    manifest.files.emplace(name, FileEntry{entry["sha256"], entry["bytes"]});
  }
  if (manifest.output.labels.empty()) invalid("output.labels: empty");
  checked_product({manifest.output.labels.size(), manifest.input.size()}, "output.labels");
  check_references(manifest);
  return manifest;
}

}  // namespace

Manifest parse_manifest(std::string_view text) {
  json document = json::parse(text.begin(), text.end(), nullptr, false);
  if (!document.is_object()) invalid("not a JSON object");
  if (!document.contains("schema_version") || document["schema_version"] != kSchemaVersion) {
    throw Error(ErrorCode::bundle_invalid, "manifest.json is not of schema version 1, the one this floats_rt reads.",
                "use a newer floats_rt, or export the bundle again with the floats-edge that goes with this one");
  }
  if (!document.contains("lam")) invalid("lam: missing");
  read_mode(document);
  if (const std::string violation = schema_violation(document, manifest_schema()); !violation.empty()) {
    invalid(violation);
  }
  return read_manifest(document);
}

}  // namespace floats_rt
