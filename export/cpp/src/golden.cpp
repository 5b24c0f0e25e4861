#include "golden.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "safetensors.hpp"

namespace floats_rt {
namespace {

constexpr std::size_t kMostImages = 256;

[[noreturn]] void invalid(const std::string& what) {
  throw Error(ErrorCode::bundle_invalid, "the golden outputs do not fit the manifest: " + what + ".",
              "export the bundle again: floats-edge export CHECKPOINT -o DIR");
}

// A tensor of finite float32 numbers with these axes after the first, of which there are at most `rows`.
std::vector<float> values_of(const Tensors& tensors, const std::string& name, std::vector<std::size_t> axes,
                             std::size_t rows) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) invalid(name + " is missing");
  const TensorView& tensor = found->second;
  const std::size_t count = tensor.shape.empty() ? 0 : tensor.shape[0];
  axes.insert(axes.begin(), count);
  if (tensor.dtype != DType::f32 || tensor.shape != axes || count == 0 || count > rows) {
    invalid(name + " is of another type or shape");
  }
  std::vector<float> values = to_floats(tensor);
  if (!std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); })) {
    invalid(name + " holds what is no number");
  }
  return values;
}

}  // namespace

GoldenOutputs read_golden(const Bundle& bundle) {
  const Manifest& manifest = bundle.manifest();
  const InputSpec& input = manifest.input;
  const Bytes file = bundle.read(manifest.golden.file);
  const Tensors tensors = read_safetensors(file);
  GoldenOutputs golden{};
  golden.images = values_of(tensors, "images", {input.channels, input.height, input.width}, kMostImages);
  golden.batch = golden.images.size() / input.size();
  for (std::size_t i = 0; i < manifest.golden.lambdas.size(); ++i) {
    const std::string name = "logits_" + std::to_string(i);
    std::vector<float> logits = values_of(tensors, name, {manifest.output.size()}, golden.batch);
    if (logits.size() != golden.batch * manifest.output.size()) invalid(name + " are not of every image");
    const auto [least, most] = std::minmax_element(logits.begin(), logits.end());
    const float range = *most - *least;
    if (!(range > 0 && std::isfinite(range))) invalid(name + " span no range");
    golden.allowed.push_back(manifest.golden.tolerance * double{range});
    golden.logits.push_back(std::move(logits));
  }
  return golden;
}

}  // namespace floats_rt
