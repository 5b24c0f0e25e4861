#include "tensorrt_engine.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <tuple>
#include <utility>

namespace floats_rt {
namespace {

using nvinfer1::TensorFormat;
using nvinfer1::TensorIOMode;
using nvinfer1::TensorLocation;
using Shape = std::vector<std::int64_t>;  // the batch axis is -1
using IoTensor = std::tuple<TensorIOMode, TensorLocation, TensorFormat, nvinfer1::DataType, Shape>;
using IoTensors = std::map<std::string, IoTensor>;

constexpr int32_t kProfile = 0;  // the one that contexts begin with

IoTensor plain(TensorIOMode mode, nvinfer1::DataType type, Shape shape) {
  return {mode, TensorLocation::kDEVICE, TensorFormat::kLINEAR, type, std::move(shape)};
}

Shape shape_of(const std::vector<std::size_t>& axes) { return Shape(axes.begin(), axes.end()); }
Shape shape_of(const nvinfer1::Dims& dims) { return Shape(dims.d, dims.d + std::max(dims.nbDims, 0)); }

Shape images_shape(const InputSpec& input, std::int64_t batch) {
  const auto axis = [](std::size_t size) { return static_cast<std::int64_t>(size); };
  return {batch, axis(input.channels), axis(input.height), axis(input.width)};
}

IoTensors wanted_tensors(const Network& network) {
  const Shape logits = {-1, static_cast<std::int64_t>(network.output.size())};
  IoTensors tensors;
  tensors[network.input.name] =
      plain(TensorIOMode::kINPUT, nvinfer1::DataType::kFLOAT, images_shape(network.input, -1));
  tensors[network.output.name] = plain(TensorIOMode::kOUTPUT, nvinfer1::DataType::kFLOAT, logits);
  if (!network.tensors || network.mode == Mode::refit) return tensors;
  for (const LambdaTensor& tensor : network.tensors->tensors()) {
    tensors[tensor.name] = plain(TensorIOMode::kINPUT, data_type(tensor.element), shape_of(tensor.shape));
  }
  return tensors;
}

IoTensors found_tensors(const nvinfer1::ICudaEngine& engine) {
  IoTensors tensors;
  for (int32_t i = 0; i < engine.getNbIOTensors(); ++i) {
    const char* const name = engine.getIOTensorName(i);
    tensors[name] = {engine.getTensorIOMode(name), engine.getTensorLocation(name),
                     engine.getTensorFormat(name, kProfile), engine.getTensorDataType(name),
                     shape_of(engine.getTensorShape(name))};
  }
  return tensors;
}

bool takes_batches(const nvinfer1::ICudaEngine& engine, const Network& network, const Engine& spec) {
  const auto limit = [&](nvinfer1::OptProfileSelector select) {
    return shape_of(engine.getProfileShape(network.input.name.c_str(), kProfile, select));
  };
  const auto images = [&](std::size_t batch) { return images_shape(network.input, static_cast<std::int64_t>(batch)); };
  return limit(nvinfer1::OptProfileSelector::kMIN) == images(spec.smallest_batch) &&
         limit(nvinfer1::OptProfileSelector::kMAX) == images(spec.largest_batch);
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
  throw Error(ErrorCode::runtime, "TensorRT failed to " + std::string(what) + why(),
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
    throw Error(ErrorCode::engine_incompatible, "TensorRT could not load " + plan.spec.file + why(),
                "free memory on this GPU, or rebuild the engine: " + network.rebuild);
  }
  if (found_tensors(*loaded.engine) != wanted_tensors(network)) {
    throw Error(ErrorCode::bundle_invalid,
                plan.spec.file + " does not take and give what the manifest states, in name, type, shape or layout.",
                "rebuild the engine: " + network.rebuild);
  }
  if (!takes_batches(*loaded.engine, network, plan.spec)) {
    throw Error(ErrorCode::bundle_invalid, plan.spec.file + " does not take the batches that the manifest states.",
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

void Refit::put(float lam, std::size_t threads) {
  tensors_.at(lam, buffer_.data(), threads);
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
