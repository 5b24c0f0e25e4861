#include <cmath>
#include <cstring>

#include "lambda_tensors.hpp"
#include "noise.hpp"
#include "support.hpp"

namespace floats_rt {
namespace {

LambdaTensors open_tensors(const std::string& name, int threads) {
  return *lambda_tensors(Bundle(bundle_path(name).string()), threads);
}

std::vector<std::byte> buffer_at(const LambdaTensors& tensors, float lam, std::size_t threads = 1) {
  std::vector<std::byte> buffer(tensors.bytes());
  tensors.at(lam, buffer.data(), threads);
  return buffer;
}

// Element i as a number; halves and bfloat16 as their bits, so that neighbours differ by 1.
double number(Element element, const void* data, std::size_t i) {
  if (element == Element::f32) return static_cast<const float*>(data)[i];
  if (element == Element::i8) return static_cast<const std::int8_t*>(data)[i];
  return static_cast<const std::uint16_t*>(data)[i];
}

// How many elements are not Python's bits; those may be off by rounding alone.
std::size_t count_differing(const LambdaTensors& tensors, const std::vector<std::byte>& got, const Bytes& wanted) {
  std::size_t differing = 0, at = 0;
  for (const LambdaTensor& tensor : tensors.tensors()) {
    REQUIRE(at + tensor.bytes() <= wanted.size());
    const std::vector<std::uint8_t> python(wanted.begin() + static_cast<std::ptrdiff_t>(at),
                                           wanted.begin() + static_cast<std::ptrdiff_t>(at + tensor.bytes()));
    at += tensor.bytes();
    const std::byte* const ours = got.data() + tensor.offset;
    if (std::memcmp(ours, python.data(), python.size()) == 0) continue;
    for (std::size_t i = 0; i < tensor.size; ++i) {
      const double a = number(tensor.element, ours, i), b = number(tensor.element, python.data(), i);
      if (a == b) continue;
      ++differing;
      REQUIRE(std::abs(a - b) <= (tensor.element == Element::f32 ? 2.4e-7 * std::max(1.0, std::abs(b)) : 1));
    }
  }
  CHECK(at == wanted.size());
  return differing;
}

// A network of one layer, and tensors for it, theta apart. At lambda 0 its weight is theta and its bias 2; above, they
// are theta * (2 - lambda / 2) + noise * lambda / 4 and 3 + 4 * lambda.
struct SmallNetwork {
  Manifest manifest{};
  Bytes bytes;  // of all tensors
  Tensors tensors;

  explicit SmallNetwork(LayerSpec spec) {
    manifest.mode = Mode::bound;
    manifest.noise_seed = 7;
    const std::size_t channels = spec.shape[0];
    manifest.layers = {std::move(spec)};
    bytes.reserve(1 << 16);
    const auto vector = [&](const char* kind, float value) {
      add(kind, {channels}, std::vector<float>(channels, value));
    };
    vector("gain_clean", 1);
    vector("gain_base", 2);
    vector("gain_slope", -0.5f);
    vector("noise_slope", 0.25f);
    vector("bias_clean", 2);
    vector("bias_base", 3);
    vector("bias_slope", 4);
  }

  void add(const std::string& kind, std::vector<std::size_t> shape, const std::vector<float>& values) {
    add(kind, DType::f32, std::move(shape), values.data(), values.size() * sizeof(float));
  }

  void add(const std::string& kind, DType dtype, std::vector<std::size_t> shape, const void* data, std::size_t size) {
    const auto* const from = static_cast<const std::uint8_t*>(data);
    REQUIRE(bytes.size() + size <= bytes.capacity());
    bytes.insert(bytes.end(), from, from + size);
    tensors[manifest.layers[0].name + "." + kind] = {
        dtype, std::move(shape), {bytes.data() + bytes.size() - size, size}};
  }

  std::vector<float> weight_at(float lam) const { return tensor_at(lam, 0); }
  std::vector<float> bias_at(float lam) const { return tensor_at(lam, 1); }

  std::vector<float> tensor_at(float lam, std::size_t index) const {
    const LambdaTensors made(manifest, tensors, 1);
    const std::vector<std::byte> buffer = buffer_at(made, lam);
    const LambdaTensor& tensor = made.tensors()[index];
    std::vector<float> values(tensor.size);
    std::memcpy(values.data(), buffer.data() + tensor.offset, tensor.bytes());
    return values;
  }

  ErrorCode refusal() const {
    return code_of([&] { LambdaTensors(manifest, tensors, 1); });
  }
};

}  // namespace

TEST_CASE("what a graph takes is Python's to the last bit, but for 1 ulp of the noise where libm differs") {
  for (const std::string name :
       {"bound", "bound-paper", "refit", "bound-fp16", "refit-fp16", "bound-bf16", "bound-int8", "bound-int8-kept-fp16",
        "bound-narrow", "bound-wide", "bound-narrow-wide"}) {
    CAPTURE(name);
    const Expected expected(name);
    const LambdaTensors tensors = open_tensors(name, 2);
    const std::vector<float> lambdas = expected.floats("lambdas");
    std::size_t all_differing = 0;
    for (std::size_t i = 0; i < lambdas.size(); ++i) {
      CAPTURE(lambdas[i]);
      const Bytes wanted = expected.bytes("weights_" + std::to_string(i));
      const std::size_t differing = count_differing(tensors, buffer_at(tensors, lambdas[i]), wanted);
      CHECK(differing <= 8);                      // of 77,418
      CHECK((lambdas[i] > 0 || differing == 0));  // no noise at lambda 0
      all_differing += differing;
    }
    MESSAGE(name << ": " << all_differing << " weights at " << lambdas.size() << " lambdas are not the same bits");
  }
}

TEST_CASE("each weight has the type of the precision; int8 leaves the classifier and biases in float32") {
  const auto element_of = [](const std::string& bundle, const std::string& name) {
    const LambdaTensors tensors = open_tensors(bundle, 1);
    for (const LambdaTensor& tensor : tensors.tensors()) {
      if (tensor.name == name) return tensor.element;
    }
    FAIL(name);
    return Element::f32;
  };
  CHECK(element_of("bound", "stem.weight") == Element::f32);
  CHECK(element_of("bound-fp16", "stem.bias") == Element::f16);
  CHECK(element_of("bound-bf16", "stem.weight") == Element::bf16);
  CHECK(element_of("bound-int8", "stem.weight") == Element::i8);
  CHECK(element_of("bound-int8", "stem.bias") == Element::f32);
  CHECK(element_of("bound-int8", "head.weight") == Element::f32);
}

TEST_CASE("a layer that int8 keeps in fp16 has its weight and its bias in fp16") {
  const LambdaTensors tensors = open_tensors("bound-int8-kept-fp16", 1);
  for (const LambdaTensor& tensor : tensors.tensors()) {
    CAPTURE(tensor.name);
    const std::string layer = tensor.name.substr(0, tensor.name.rfind('.'));
    const bool kept = layer == "stem" || layer == "blocks.1.conv1";
    const bool quantised = !kept && layer != "head" && tensor.name == layer + ".weight";
    CHECK(tensor.element == (kept ? Element::f16 : quantised ? Element::i8 : Element::f32));
  }
}

TEST_CASE("the buffer does not depend on the number of threads, and every tensor has an aligned place of its own") {
  for (const std::string name : {"bound", "bound-int8"}) {
    const LambdaTensors one = open_tensors(name, 1), three = open_tensors(name, 3);
    CHECK(buffer_at(one, 0.7f, 1) == buffer_at(three, 0.7f, 3));
    std::size_t end = 0;
    for (const LambdaTensor& tensor : one.tensors()) {
      CHECK(tensor.offset % kAlignment == 0);
      CHECK(tensor.offset >= end);
      end = tensor.offset + tensor.bytes();
    }
    CHECK(end <= one.bytes());
  }
}

TEST_CASE("in mode input the one tensor is lambda itself; in modes fixed and bank there is none") {
  const LambdaTensors tensors = open_tensors("input", 1);
  REQUIRE(tensors.tensors().size() == 1);
  CHECK(tensors.tensors()[0].name == "lambda");
  CHECK(tensors.tensors()[0].shape.empty());
  for (const float lam : {0.0f, 0.1f, 1.0f}) {
    const std::vector<std::byte> buffer = buffer_at(tensors, lam);
    CHECK(std::memcmp(buffer.data(), &lam, sizeof lam) == 0);
  }
  CHECK_FALSE(lambda_tensors(Bundle(bundle_path("bank").string()), 1));
}

TEST_CASE("what depends on lambda is known: all but the classifier's bias") {
  const LambdaTensors tensors = open_tensors("refit", 1);
  for (const LambdaTensor& tensor : tensors.tensors()) {
    CAPTURE(tensor.name);
    CHECK(tensor.varies == (tensor.name != "head.bias"));
  }
}

TEST_CASE("a layer with one axis, a BatchNorm alone, is a weight and a bias per channel") {
  SmallNetwork network({"norm", {3}, 3, 3, 0});
  network.add("theta", {3}, {1, 1, 1});
  const std::vector<float> noise = standard_normal(7, 0, 3, 1);
  CHECK(network.weight_at(0) == std::vector<float>{1, 1, 1});
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(network.weight_at(1)[i] == doctest::Approx(1.5f + noise[i] / 4));
    CHECK(network.weight_at(0.5f)[i] == doctest::Approx(1.75f + noise[i] / 8));
  }
  CHECK(network.bias_at(0) == std::vector<float>{2, 2, 2});
  CHECK(network.bias_at(0.5f) == std::vector<float>{5, 5, 5});
}

TEST_CASE("where channels were removed the noise is that of what remained") {
  // [2, 2] of [3, 3]: rows 0 and 2, columns 1 and 2; bits 1, 2, 7 and 8.
  const std::uint8_t mask[] = {0x86, 0x01};
  const auto make = [&](const std::uint8_t* bits) {
    SmallNetwork network({"a", {2, 2}, 4, 4, 9});
    network.add("theta", {4}, {10, 20, 30, 40});
    network.add("mask", DType::u8, {2}, bits, 2);
    return network;
  };
  const std::vector<float> noise = standard_normal(7, 0, 9, 1), weight = make(mask).weight_at(1);
  const std::vector<std::size_t> kept = {1, 2, 7, 8};
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(weight[i] == doctest::Approx(15 * static_cast<float>(i + 1) + noise[kept[i]] / 4));
  }
  const std::uint8_t fewer[] = {0x06, 0x01}, more[] = {0x8e, 0x01}, beyond[] = {0x86, 0x81};
  CHECK(make(fewer).refusal() == ErrorCode::bundle_invalid);
  CHECK(make(more).refusal() == ErrorCode::bundle_invalid);
  CHECK(make(beyond).refusal() == ErrorCode::bundle_invalid);  // a bit that is no weight's
}

TEST_CASE("scales that are no scales are refused, and in other precisions any") {
  const auto refusal = [](std::vector<float> scale, Precision precision) {
    SmallNetwork network({"a", {2, 2}, 4, 4, 0});
    network.manifest.precision = precision;
    network.add("theta", {2, 2}, {1, 2, 3, 4});
    network.add("weight.scale", {scale.size()}, scale);
    return network.refusal();
  };
  SmallNetwork good({"a", {2, 2}, 4, 4, 0});
  good.manifest.precision = Precision::int8;
  good.add("theta", {2, 2}, {1, 2, 3, 4});
  CHECK_NOTHROW(LambdaTensors(good.manifest, good.tensors, 1));  // not every weight is quantised
  for (const float bad : {0.0f, -1.0f, std::nanf(""), HUGE_VALF}) {
    CHECK(refusal({1, bad}, Precision::int8) == ErrorCode::bundle_invalid);
  }
  CHECK(refusal({1}, Precision::int8) == ErrorCode::bundle_invalid);
  CHECK(refusal({1, 1}, Precision::fp32) == ErrorCode::bundle_invalid);
}

TEST_CASE("weights that do not fit the manifest are refused") {
  const Bundle bundle(bundle_path("bound").string());
  const Bytes file = bundle.read(bundle.manifest().weights);
  const Tensors tensors = read_safetensors(file);
  const std::string sparse = "blocks.0.conv1", dense = "stem";
  REQUIRE(tensors.count(sparse + ".mask") == 1);
  REQUIRE(tensors.count(dense + ".mask") == 0);
  const auto refused = [&](Tensors changed, Manifest manifest) {
    CHECK(code_of([&] { LambdaTensors(manifest, std::move(changed), 1); }) == ErrorCode::bundle_invalid);
  };

  for (const auto& each : tensors) {  // each one is needed, in its type and shape
    const std::string& name = each.first;
    CAPTURE(name);
    Tensors without = tensors, other_type = tensors, other_shape = tensors;
    without.erase(name);
    refused(without, bundle.manifest());
    other_type.at(name).dtype = DType::other;
    refused(other_type, bundle.manifest());
    other_shape.at(name).shape.push_back(1);
    refused(other_shape, bundle.manifest());
  }
  Tensors superfluous = tensors;
  superfluous.emplace("nobody.theta", tensors.begin()->second);
  refused(superfluous, bundle.manifest());

  Bytes full_mask(tensors.at(sparse + ".mask").bytes.size(), 0xff), empty_mask(full_mask.size(), 0);
  for (Bytes* mask : {&full_mask, &empty_mask}) {
    Tensors other_mask = tensors;
    other_mask.at(sparse + ".mask").bytes = {mask->data(), mask->size()};
    refused(other_mask, bundle.manifest());
  }
  Manifest twice = bundle.manifest();
  twice.layers.push_back(twice.layers.front());
  refused(tensors, twice);
}

}  // namespace floats_rt
