#include "manifest.hpp"

#include <algorithm>
#include <filesystem>
#include <functional>
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

Mode read_mode(const std::string& mode) {
  if (mode == "fixed") return Mode::fixed;
  if (mode == "bank") return Mode::bank;
  if (mode == "bound") return Mode::bound;
  return mode == "refit" ? Mode::refit : Mode::input;
}

Precision read_precision(const std::string& precision, Mode mode) {
  if (precision == "fp32") return Precision::fp32;
  if (precision == "fp16") return Precision::fp16;
  if (precision == "bf16") return Precision::bf16;
  if (mode != Mode::refit) return Precision::int8;
  throw Error(ErrorCode::lambda_unsupported, "an int8 engine cannot be refitted.",
              "export with --switch bound, or with --precision fp16");
}

// The layers that an int8 network takes in fp16.
std::set<std::string> read_kept_in_fp16(const json& calibration) {
  if (calibration.is_null() || calibration["kept_precision"] != "fp16") return {};
  return calibration["kept"];
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
  const bool fits = serves_any_lambda(mode) ? lam["values"].is_null()
                                            : !range.values.empty() && (mode == Mode::bank || range.values.size() == 1);
  if (!fits) invalid("lam.values: do not go with the mode");
  return range;
}

// Whether a shape is what can be left of another when channels are removed.
bool is_part(const std::vector<std::size_t>& shape, const std::vector<std::size_t>& whole) {
  return shape.size() == whole.size() && std::equal(shape.begin(), shape.end(), whole.begin(), std::less_equal<>());
}

LayerSpec read_layer(const json& layer) {
  LayerSpec spec{layer["name"], read_shape(layer["shape"], "layers"), 0, layer["nonzeros"], 0};
  spec.size = checked_product(spec.shape, "layers");
  bool fits = !spec.shape.empty() && spec.nonzeros <= spec.size;
  if (layer.contains("drawn") && !layer["drawn"].is_null()) {
    const std::vector<std::size_t> drawn = read_shape(layer["drawn"], "layers");
    spec.drawn = checked_product(drawn, "layers");
    fits = fits && is_part(spec.shape, drawn) && spec.nonzeros == spec.size;
  }
  if (!fits) invalid("layers: " + spec.name + " has no such weights");
  return spec;
}

std::vector<LayerSpec> read_layers(const json& layers) {
  std::vector<LayerSpec> specs;
  for (const json& layer : layers) specs.push_back(read_layer(layer));
  return specs;
}

// What an engine needs besides a GPU and a TensorRT of its version.
std::string read_needs(const json& engine) {
  if (engine.contains("dla") && !engine["dla"].is_null()) return "a DLA";
  const json compatibility = engine.value("compatibility", json::array());
  const bool holds_code = std::find(compatibility.begin(), compatibility.end(), "version") != compatibility.end();
  return holds_code ? "host code of its own to be run" : "";
}

std::vector<Engine> read_engines(const json& engines) {
  std::vector<Engine> result;
  for (const json& engine : engines) {
    const auto batch = read_shape(engine["batch"], "engines.batch");
    checked_product(batch, "engines.batch");
    if (batch[0] > batch[1] || batch[1] > batch[2]) invalid("engines.batch: not in ascending order");
    result.push_back({engine["file"], read_lambda(engine["lam"]), engine["flavour"], engine["version"],
                      engine["platform"], engine["targets"], batch[0], batch[2], read_needs(engine)});
  }
  return result;
}

// Verdicts of floats-edge verify that were not let pass.
std::map<std::string, std::string> read_failed(const json& verdicts) {
  std::map<std::string, std::string> failed;
  for (const json& verdict : verdicts) {
    if (verdict["problems"].empty() || verdict.value("let_pass", false)) continue;
    failed.emplace(verdict["backend"], verdict["problems"][0]);
  }
  return failed;
}

void check_references(const Manifest& manifest) {
  const auto listed = [&](const std::string& file) {
    if (!manifest.files.count(file)) invalid("files: a file that is used is not listed");
  };
  const auto served = [&](const std::optional<float>& lam) {
    const auto& values = manifest.lambdas.values;
    return lam ? std::find(values.begin(), values.end(), *lam) != values.end() : serves_any_lambda(manifest.mode);
  };
  for (const Graph& graph : manifest.graphs) {
    listed(graph.file);
    if (!served(graph.lam)) invalid("graphs: a lambda that does not go with the mode");
  }
  if (serves_any_lambda(manifest.mode) && manifest.graphs.size() != 1) invalid("graphs: more than one for any lambda");
  for (const float lam : manifest.lambdas.values) {
    const auto at_lam = [&](const Graph& graph) { return graph.lam == lam; };
    if (std::none_of(manifest.graphs.begin(), manifest.graphs.end(), at_lam)) invalid("graphs: a lambda has none");
  }
  for (const Engine& engine : manifest.engines) {
    listed(engine.file);
    if (!served(engine.lam)) invalid("engines: a lambda that does not go with the mode");
  }
  for (const float lam : manifest.golden.lambdas) {
    if (!serves_any_lambda(manifest.mode) && !served(lam)) invalid("golden.lambdas: one that is not served");
  }
  listed(manifest.golden.file);
  if (has_weights_apart(manifest.mode)) listed(manifest.weights);
}

Manifest read_manifest(const json& document) {
  Manifest manifest{};
  const json& lam = document["lam"];
  manifest.input = read_input(document["input"]);
  manifest.output = {document["output"]["name"], document["output"]["labels"]};
  manifest.mode = read_mode(lam["mode"].get_ref<const std::string&>());
  manifest.rule = lam["rule"] == "paper" ? Rule::paper : Rule::interpolate;
  manifest.precision = read_precision(document["precision"].get_ref<const std::string&>(), manifest.mode);
  manifest.kept_in_fp16 = read_kept_in_fp16(document["calibration"]);
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
  manifest.failed = read_failed(document["verdicts"]);
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
  if (const std::string violation = schema_violation(document, manifest_schema()); !violation.empty()) {
    invalid(violation);
  }
  return read_manifest(document);
}

}  // namespace floats_rt
