#include <cmath>
#include <cstring>

#include "fold.hpp"
#include "support.hpp"

namespace floats_rt {

static LambdaWeights open_weights(const std::string& name, std::size_t threads) {
  const Bundle bundle(bundle_path(name).string());
  const Bytes file = bundle.read(bundle.manifest().weights);
  return LambdaWeights(bundle.manifest(), read_safetensors(file), threads);
}

// The buffer without its padding, as Python has it.
template <typename Element>
static std::vector<Element> packed(const LambdaWeights& weights, const std::vector<Element>& buffer) {
  std::vector<Element> result;
  for (const WeightTensor& tensor : weights.tensors()) {
    const Element* const begin = buffer.data() + tensor.offset;
    result.insert(result.end(), begin, begin + tensor.size);
  }
  return result;
}

TEST_CASE("W(lambda) is Python's to the last bit, but for 1 ulp of the noise where libm differs") {
  for (const std::string name : {"bound", "bound-paper"}) {
    CAPTURE(name);
    const Expected expected(name);
    const LambdaWeights weights = open_weights(name, 2);
    std::vector<float> buffer(weights.size());
    const std::vector<float> lambdas = expected.floats("lambdas");
    for (std::size_t i = 0; i < lambdas.size(); ++i) {
      CAPTURE(lambdas[i]);
      weights.at(lambdas[i], buffer.data());
      const std::vector<float> got = packed(weights, buffer), wanted = expected.floats("weights_" + std::to_string(i));
      REQUIRE(got.size() == wanted.size());
      std::size_t differing = 0;
      for (std::size_t j = 0; j < got.size(); ++j) {
        if (std::memcmp(&got[j], &wanted[j], sizeof(float)) == 0) continue;
        ++differing;
        REQUIRE(std::abs(got[j] - wanted[j]) <= 2.4e-7f * std::max(1.0f, std::abs(wanted[j])));
      }
      MESSAGE(name << " at lambda " << lambdas[i] << ": " << differing << " of " << got.size()
                   << " weights are not the same bits");
      CHECK(differing <= got.size() / 10000);
      CHECK((lambdas[i] > 0 || differing == 0));  // no noise at lambda 0
    }
  }
}

TEST_CASE("half precision is the float32 weights, correctly rounded") {
  for (const float lam : {0.0f, 0.7f}) {
    const LambdaWeights weights = open_weights("bound-paper", 1);
    std::vector<float> floats(weights.size());
    std::vector<Half> halves(weights.size());
    weights.at(lam, floats.data());
    weights.at(lam, halves.data());
    bool same = true;
    for (std::size_t i = 0; i < floats.size(); ++i) same = same && halves[i].bits == to_half(floats[i]).bits;
    CHECK(same);
  }
}

TEST_CASE("every tensor starts at an aligned place and none overlaps the next") {
  const LambdaWeights weights = open_weights("bound", 1);
  std::size_t end = 0;
  for (const WeightTensor& tensor : weights.tensors()) {
    CHECK(tensor.offset % kAlignment == 0);
    CHECK(tensor.offset >= end);
    end = tensor.offset + tensor.size;
  }
  CHECK(end <= weights.size());
}

TEST_CASE("weights that do not fit the manifest are refused") {
  const Bundle bundle(bundle_path("bound").string());
  const Bytes file = bundle.read(bundle.manifest().weights);
  const Tensors tensors = read_safetensors(file);
  const std::string sparse = "blocks.0.conv1", dense = "stem";
  REQUIRE(tensors.count(sparse + ".mask") == 1);
  REQUIRE(tensors.count(dense + ".mask") == 0);
  const auto refused = [&](Tensors changed, Manifest manifest) {
    CHECK(code_of([&] { LambdaWeights(manifest, std::move(changed), 1); }) == ErrorCode::bundle_invalid);
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
