#include "fold.hpp"

#include <cstring>

#include "noise.hpp"
#include "parallel.hpp"

namespace floats_rt {
namespace {

constexpr std::size_t kWeightsPerThread = std::size_t{1} << 18;  // fewer are computed before a thread has started

[[noreturn]] void misfit(const std::string& what) {
  throw Error(ErrorCode::bundle_invalid, "the weights do not fit the manifest: " + what + ".",
              "export the bundle again: floats-edge export CHECKPOINT -o DIR");
}

// Removes a tensor of this type and shape, so that what is left over at the end is superfluous.
TensorView take(Tensors& tensors, const std::string& name, DType dtype, const std::vector<std::size_t>& shape) {
  const auto node = tensors.extract(name);
  if (node.empty()) misfit(name + " is missing");
  if (node.mapped().dtype != dtype || node.mapped().shape != shape) misfit(name + " is of another type or shape");
  return node.mapped();
}

// theta and the masked noise m * eta of a layer, both of its full shape.
struct MaskedWeights {
  std::vector<float> theta, noise;
};

MaskedWeights read_weights(const LayerSpec& spec, Tensors& tensors, std::uint64_t seed, std::size_t index,
                           std::size_t threads) {
  if (spec.nonzeros == spec.size) {
    std::vector<float> theta = to_floats(take(tensors, spec.name + ".theta", DType::f32, spec.shape));
    return {std::move(theta), standard_normal(seed, index, spec.size, threads)};
  }
  const Span<const std::uint8_t> mask = take(tensors, spec.name + ".mask", DType::u8, {(spec.size + 7) / 8}).bytes;
  const std::vector<float> inside = to_floats(take(tensors, spec.name + ".theta", DType::f32, {spec.nonzeros}));
  MaskedWeights weights{std::vector<float>(spec.size), standard_normal(seed, index, spec.size, threads)};
  std::size_t used = 0;
  for (std::size_t i = 0; i < spec.size; ++i) {
    const bool active = mask[i / 8] >> i % 8 & 1;
    if (active && used == inside.size()) misfit(spec.name + ".mask holds more than is stated");
    weights.theta[i] = active ? inside[used++] : 0.0f;
    if (!active) weights.noise[i] = 0.0f;
  }
  if (used != inside.size()) misfit(spec.name + ".mask holds fewer than is stated");
  return weights;
}

}  // namespace

LambdaWeights::LambdaWeights(const Manifest& manifest, Tensors tensors, std::size_t threads) : threads_(threads) {
  for (std::size_t i = 0; i < manifest.layers.size(); ++i) add_layer(manifest.layers[i], i, manifest, tensors);
  if (!tensors.empty()) misfit(tensors.begin()->first + " belongs to no layer");
}

WeightTensor& LambdaWeights::append(const std::string& name, std::vector<std::size_t> shape, std::size_t size) {
  tensors_.push_back({name, std::move(shape), base_.size(), size});
  const std::size_t padded = (size + kAlignment - 1) / kAlignment * kAlignment;
  base_.resize(base_.size() + padded);
  slope_.resize(base_.size());
  return tensors_.back();
}

void LambdaWeights::add_layer(const LayerSpec& spec, std::size_t index, const Manifest& manifest, Tensors& tensors) {
  const bool paper = manifest.rule == Rule::paper;
  const std::size_t channels = spec.shape[0], row = spec.size / channels;
  const auto vector = [&](const char* kind) {
    return to_floats(take(tensors, spec.name + "." + kind, DType::f32, {channels}));
  };
  const float noise_scale = to_floats(take(tensors, spec.name + ".noise_scale", DType::f32, {1}))[0];
  const std::vector<float> gain_clean = vector("gain_clean"), gain_adv = vector("gain_adv");
  const std::vector<float> bias_clean = vector("bias_clean"), bias_adv = vector("bias_adv");
  const MaskedWeights weights = read_weights(spec, tensors, manifest.noise_seed, index, threads_);

  const std::size_t weight_at = append(spec.name + ".weight", spec.shape, spec.size).offset;
  const std::size_t bias_at = append(spec.name + ".bias", {channels}, channels).offset;
  if (paper) clean_.resize(base_.size());
  for (std::size_t i = 0; i < spec.size; ++i) {
    const std::size_t channel = i / row;
    const float theta = weights.theta[i], noise = weights.noise[i] * noise_scale;
    const float clean = theta * gain_clean[channel];
    base_[weight_at + i] = paper ? theta * gain_adv[channel] : clean;
    slope_[weight_at + i] = paper ? noise * gain_adv[channel] : (theta + noise) * gain_adv[channel] - clean;
    if (paper) clean_[weight_at + i] = clean;
  }
  for (std::size_t i = 0; i < channels; ++i) {
    base_[bias_at + i] = paper ? bias_adv[i] : bias_clean[i];
    slope_[bias_at + i] = paper ? bias_adv[i] * 0 : bias_adv[i] - bias_clean[i];
    if (paper) clean_[bias_at + i] = bias_clean[i];
  }
}

void LambdaWeights::at(float lam, float* buffer) const {
  if (lam == 0) {
    std::memcpy(buffer, (clean_.empty() ? base_ : clean_).data(), size() * sizeof(float));
    return;
  }
  const float *base = base_.data(), *slope = slope_.data();
  parallel_for(size(), threads_, kWeightsPerThread, [=](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) buffer[i] = slope[i] * lam + base[i];
  });
}

void LambdaWeights::at(float lam, Half* buffer) const {
  const float* base = (lam == 0 && !clean_.empty() ? clean_ : base_).data();
  const float* slope = slope_.data();
  parallel_for(size(), threads_, kWeightsPerThread, [=](std::size_t begin, std::size_t end) {
    if (lam == 0) {
      for (std::size_t i = begin; i < end; ++i) buffer[i] = to_half(base[i]);
    } else {
      for (std::size_t i = begin; i < end; ++i) buffer[i] = to_half(slope[i] * lam + base[i]);
    }
  });
}

}  // namespace floats_rt
