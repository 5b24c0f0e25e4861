#include "fold.hpp"

#include <utility>

#include "noise.hpp"

namespace floats_rt {
namespace {

// theta and the masked noise m * eta of a layer, both of its full shape.
struct MaskedWeights {
  std::vector<float> theta, noise;
};

// The positions at which a bit mask (C order, least significant bit first) over `size` weights is set: `count` of them.
std::vector<std::size_t> read_mask(const LayerSpec& spec, Tensors& tensors, std::size_t size, std::size_t count) {
  const Span<const std::uint8_t> mask = take(tensors, spec.name + ".mask", DType::u8, {(size + 7) / 8}).bytes;
  std::vector<std::size_t> positions;
  for (std::size_t i = 0; i < size; ++i) {
    if (!(mask[i / 8] >> i % 8 & 1)) continue;
    if (positions.size() == count) misfit(spec.name + ".mask holds more than is stated");
    positions.push_back(i);
  }
  if (positions.size() != count) misfit(spec.name + ".mask holds fewer than is stated");
  if (size % 8 != 0 && mask[size / 8] >> size % 8 != 0) misfit(spec.name + ".mask holds more than its weights");
  return positions;
}

MaskedWeights read_weights(const LayerSpec& spec, Tensors& tensors, std::uint64_t seed, std::size_t index,
                           std::size_t threads) {
  if (!spec.drawn && spec.nonzeros == spec.size) {
    std::vector<float> theta = to_floats(take(tensors, spec.name + ".theta", DType::f32, spec.shape));
    return {std::move(theta), standard_normal(seed, index, spec.size, threads)};
  }
  const std::size_t drawn = spec.drawn ? spec.drawn : spec.size;
  const std::vector<float> inside = to_floats(take(tensors, spec.name + ".theta", DType::f32, {spec.nonzeros}));
  const std::vector<std::size_t> positions = read_mask(spec, tensors, drawn, spec.nonzeros);
  const std::vector<float> noise = standard_normal(seed, index, drawn, threads);
  MaskedWeights weights{std::vector<float>(spec.size), std::vector<float>(spec.size)};
  for (std::size_t i = 0; i < positions.size(); ++i) {
    const std::size_t at = spec.drawn ? i : positions[i];  // what was removed from a drawn layer leaves no gap
    weights.theta[at] = inside[i];
    weights.noise[at] = noise[positions[i]];
  }
  return weights;
}

// One number per output channel each.
struct Gains {
  std::vector<float> clean, base, slope, noise_slope;
};

Line fold_weight(const LayerSpec& spec, const MaskedWeights& weights, const Gains& gains) {
  const std::size_t row = spec.size / spec.shape[0];
  Line line{spec.name + ".weight", spec.shape, std::vector<float>(spec.size), std::vector<float>(spec.size), {}};
  for (std::size_t i = 0; i < spec.size; ++i) {
    const std::size_t channel = i / row;
    line.base[i] = weights.theta[i] * gains.base[channel];
    line.slope[i] = weights.theta[i] * gains.slope[channel] + weights.noise[i] * gains.noise_slope[channel];
  }
  if (gains.clean != gains.base) {
    line.clean.resize(spec.size);
    for (std::size_t i = 0; i < spec.size; ++i) line.clean[i] = weights.theta[i] * gains.clean[i / row];
  }
  return line;
}

}  // namespace

void misfit(const std::string& what) {
  throw Error(ErrorCode::bundle_invalid, "the weights do not fit the manifest: " + what + ".",
              "export the bundle again: floats-edge export CHECKPOINT -o DIR");
}

TensorView take(Tensors& tensors, const std::string& name, DType dtype, const std::vector<std::size_t>& shape) {
  const auto node = tensors.extract(name);
  if (node.empty()) misfit(name + " is missing");
  if (node.mapped().dtype != dtype || node.mapped().shape != shape) misfit(name + " is of another type or shape");
  return node.mapped();
}

std::vector<Line> fold(const Manifest& manifest, Tensors& tensors, std::size_t threads) {
  std::vector<Line> lines;
  for (std::size_t i = 0; i < manifest.layers.size(); ++i) {
    const LayerSpec& spec = manifest.layers[i];
    const auto vector = [&](const char* kind) {
      return to_floats(take(tensors, spec.name + "." + kind, DType::f32, {spec.shape[0]}));
    };
    const Gains gains{vector("gain_clean"), vector("gain_base"), vector("gain_slope"), vector("noise_slope")};
    Line bias{spec.name + ".bias", {spec.shape[0]}, vector("bias_base"), vector("bias_slope"), vector("bias_clean")};
    const MaskedWeights weights = read_weights(spec, tensors, manifest.noise_seed, i, threads);
    lines.push_back(fold_weight(spec, weights, gains));
    lines.push_back(std::move(bias));
  }
  return lines;
}

}  // namespace floats_rt
