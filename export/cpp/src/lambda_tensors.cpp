#include "lambda_tensors.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "parallel.hpp"

namespace floats_rt {
namespace {

constexpr std::size_t kElementsPerThread = std::size_t{1} << 18;  // fewer are computed before a thread has started

// Of a layer's weights and biases that are not quantised.
Element element_of(const Manifest& manifest, const LayerSpec& layer) {
  switch (manifest.precision) {
    case Precision::fp16:
      return Element::f16;
    case Precision::bf16:
      return Element::bf16;
    case Precision::int8:
      return manifest.kept_in_fp16.count(layer.name) ? Element::f16 : Element::f32;
    default:
      return Element::f32;
  }
}

// The scales of an int8 weight, taken out of `tensors`; empty if the weight is not quantised.
std::vector<float> take_scale(const LayerSpec& spec, Tensors& tensors) {
  const std::string name = spec.name + ".weight.scale";
  if (!tensors.count(name)) return {};
  std::vector<float> scale = to_floats(take(tensors, name, DType::f32, {spec.shape[0]}));
  const auto usable = [](float value) { return std::isfinite(value) && value > 0; };
  if (!std::all_of(scale.begin(), scale.end(), usable)) misfit(name + " is not a positive number per channel");
  return scale;
}

// value(i), for i from begin to end, as elements of a tensor that starts at `out`.
template <typename Value>
void store(Element element, const std::vector<float>& scale, std::size_t row, std::size_t begin, std::size_t end,
           std::byte* out, const Value& value) {
  if (element == Element::f32) {
    auto* const to = reinterpret_cast<float*>(out);
    for (std::size_t i = begin; i < end; ++i) to[i] = value(i);
  } else if (element == Element::f16) {
    auto* const to = reinterpret_cast<std::uint16_t*>(out);
    for (std::size_t i = begin; i < end; ++i) to[i] = to_half(value(i));
  } else if (element == Element::bf16) {
    auto* const to = reinterpret_cast<std::uint16_t*>(out);
    for (std::size_t i = begin; i < end; ++i) to[i] = to_bfloat16(value(i));
  } else {
    auto* const to = reinterpret_cast<std::int8_t*>(out);
    while (begin < end) {
      const std::size_t channel = begin / row, stop = std::min(end, (channel + 1) * row);
      const float step = scale[channel];
      for (; begin < stop; ++begin) to[begin] = to_int8(value(begin), step);
    }
  }
}

bool depends_on_lambda(const Line& line) {
  const auto is_zero = [](float value) { return value == 0; };
  return !std::all_of(line.slope.begin(), line.slope.end(), is_zero) ||
         (!line.clean.empty() && line.clean != line.base);
}

}  // namespace

LambdaTensors::LambdaTensors(const Manifest& manifest, Tensors tensors, std::size_t threads) {
  std::vector<std::vector<float>> scales(manifest.layers.size());
  if (manifest.precision == Precision::int8) {
    for (std::size_t i = 0; i < scales.size(); ++i) scales[i] = take_scale(manifest.layers[i], tensors);
  }
  std::vector<Line> lines = fold(manifest, tensors, threads);
  if (!tensors.empty()) misfit(tensors.begin()->first + " belongs to no layer");
  for (std::size_t i = 0; i < scales.size(); ++i) {
    const Element element = element_of(manifest, manifest.layers[i]);
    const Element of_weight = scales[i].empty() ? element : Element::i8;
    append(std::move(lines[2 * i]), of_weight, std::move(scales[i]));
    append(std::move(lines[2 * i + 1]), element, {});
  }
}

LambdaTensors LambdaTensors::scalar() {
  LambdaTensors tensors;
  tensors.append({kLambdaInput, {}, {0}, {1}, {}}, Element::f32, {});
  return tensors;
}

void LambdaTensors::append(Line line, Element element, std::vector<float> scale) {
  const std::size_t size = line.base.size();
  tensors_.push_back({line.name, line.shape, element, size, bytes_, depends_on_lambda(line)});
  elements_ += size;
  bytes_ += (size * width(element) + kAlignment - 1) / kAlignment * kAlignment;
  lines_.push_back(std::move(line));
  scales_.push_back(std::move(scale));
}

void LambdaTensors::at(float lam, std::byte* buffer, std::size_t threads) const {
  // Threads share the elements of all tensors, one after the other.
  parallel_for(elements_, threads, kElementsPerThread, [&](std::size_t begin, std::size_t end) {
    std::size_t first = 0;  // of the tensor
    for (std::size_t i = 0; i < tensors_.size() && first < end; ++i) {
      const std::size_t last = first + tensors_[i].size;
      if (last > begin) write(i, lam, std::max(begin, first) - first, std::min(end, last) - first, buffer);
      first = last;
    }
  });
}

void LambdaTensors::write(std::size_t index, float lam, std::size_t begin, std::size_t end, std::byte* buffer) const {
  const LambdaTensor& tensor = tensors_[index];
  const Line& line = lines_[index];
  const std::size_t row = tensor.shape.empty() ? 1 : tensor.size / tensor.shape[0];
  const auto put = [&](const auto& value) {
    store(tensor.element, scales_[index], row, begin, end, buffer + tensor.offset, value);
  };
  const float *base = line.base.data(), *slope = line.slope.data();
  if (lam == 0) {
    const float* const clean = line.clean.empty() ? base : line.clean.data();
    put([=](std::size_t i) { return clean[i]; });
  } else {
    put([=](std::size_t i) { return slope[i] * lam + base[i]; });
  }
}

std::optional<LambdaTensors> lambda_tensors(const Bundle& bundle, int threads) {
  const Manifest& manifest = bundle.manifest();
  if (manifest.mode == Mode::input) return LambdaTensors::scalar();
  if (!has_weights_apart(manifest.mode)) return std::nullopt;
  const Bytes file = bundle.read(manifest.weights);
  return LambdaTensors(manifest, read_safetensors(file), thread_count(threads));
}

}  // namespace floats_rt
