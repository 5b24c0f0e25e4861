#include "tensorrt_engine.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <utility>

namespace floats_rt {
namespace {

using Shape = std::vector<std::int64_t>;  // the batch axis is -1
using TensorTypes = std::map<std::string, std::pair<nvinfer1::DataType, Shape>>;

TensorTypes wanted_tensors(const Network& network) {
  const auto signed_shape = [](const std::vector<std::size_t>& shape) { return Shape(shape.begin(), shape.end()); };
  Shape images = signed_shape({network.input.channels, network.input.height, network.input.width});
  images.insert(images.begin(), -1);
  TensorTypes tensors;
  tensors[network.input.name] = {nvinfer1::DataType::kFLOAT, images};
  tensors[network.output.name] = {nvinfer1::DataType::kFLOAT, {-1, static_cast<std::int64_t>(network.output.size())}};
  if (!network.tensors || network.mode == Mode::refit) return tensors;
  for (const LambdaTensor& tensor : network.tensors->tensors()) {
    tensors[tensor.name] = {data_type(tensor.element), signed_shape(tensor.shape)};
  }
  return tensors;
}

TensorTypes found_tensors(const nvinfer1::ICudaEngine& engine) {
  TensorTypes tensors;
  for (int32_t i = 0; i < engine.getNbIOTensors(); ++i) {
    const char* const name = engine.getIOTensorName(i);
    const nvinfer1::Dims dims = engine.getTensorShape(name);
    Shape shape(dims.d, dims.d + std::max(dims.nbDims, 0));
    tensors[name] = {engine.getTensorDataType(name), std::move(shape)};
  }
  return tensors;
}

// Calls a function of the refitter that lists names; weights without a name come as "".
template <typename List>
std::set<std::string> names_of(const List& list) {
  const int32_t count = list(0, nullptr);
  std::vector<const char*> names(static_cast<std::size_t>(std::max(count, 0)));
  list(count, names.data());
  std::set<std::string> result;
  for (const char* name : names) result.insert(name ? name : "");
  return result;
}

}  // namespace

void must(bool done, std::string_view what) {
  if (done) return;
  throw Error(ErrorCode::runtime, "TensorRT failed to " + std::string(what) + "; it says why on standard error.",
              "if memory is short, use a smaller batch; otherwise rebuild the engine: floats-edge export --trt");
}

nvinfer1::DataType data_type(Element element) {
  switch (element) {
    case Element::f32:
      return nvinfer1::DataType::kFLOAT;
    case Element::f16:
      return nvinfer1::DataType::kHALF;
    case Element::bf16:
      return nvinfer1::DataType::kBF16;
    default:
      return nvinfer1::DataType::kINT8;
  }
}

LoadedEngine load_engine(const Network& network, const Plan& plan) {
  LoadedEngine loaded{std::shared_ptr<nvinfer1::ICudaEngine>(
                          network.runtime->deserializeCudaEngine(plan.bytes.data(), plan.bytes.size())),
                      plan.spec.smallest_batch, plan.spec.largest_batch};
  if (!loaded.engine) {
    throw Error(ErrorCode::engine_incompatible,
                "TensorRT could not load " + plan.spec.file + "; it says why on standard error.",
                "free memory on this GPU, or rebuild the engine: " + network.rebuild);
  }
  if (found_tensors(*loaded.engine) != wanted_tensors(network)) {
    throw Error(ErrorCode::bundle_invalid,
                plan.spec.file + " does not take and give what the manifest states, in name, type or shape.",
                "rebuild the engine: " + network.rebuild);
  }
  return loaded;
}

Refit::Refit(const Network& network, nvinfer1::ICudaEngine& engine)
    : tensors_(*network.tensors), refitter_(network.library.refitter(engine)), buffer_(tensors_.bytes()) {
  std::set<std::string> expected;
  for (const LambdaTensor& tensor : tensors_.tensors()) {
    if (tensor.varies) expected.insert(tensor.name);
  }
  if (names_of([&](int32_t size, const char** names) { return refitter_->getAllWeights(size, names); }) == expected) {
    return;
  }
  throw Error(ErrorCode::bundle_invalid, "the weights that the engine lets be refitted are not those of lambda.",
              "rebuild the engine: " + network.rebuild);
}

void Refit::put(float lam) {
  tensors_.at(lam, buffer_.data());
  for (const LambdaTensor& tensor : tensors_.tensors()) {
    if (!tensor.varies) continue;
    const nvinfer1::Weights weights{data_type(tensor.element), buffer_.data() + tensor.offset,
                                    static_cast<std::int64_t>(tensor.size)};
    must(refitter_->setNamedWeights(tensor.name.c_str(), weights), "take " + tensor.name);
  }
  const auto missing =
      names_of([&](int32_t size, const char** names) { return refitter_->getMissingWeights(size, names); });
  must(missing.empty(), "refit the engine without " + (missing.empty() ? "" : *missing.begin()));
  must(refitter_->refitCudaEngine(), "refit the engine to lambda " + std::to_string(lam));
}

}  // namespace floats_rt
