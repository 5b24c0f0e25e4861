// The engines of a bundle: from plans to objects that take and give what the manifest states.
#pragma once

#include <NvInferRuntime.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bundle.hpp"
#include "lambda_tensors.hpp"
#include "tensorrt_host.hpp"

namespace floats_rt {

struct LoadedEngine {
  std::shared_ptr<nvinfer1::ICudaEngine> engine;
  std::size_t smallest_batch, largest_batch;
};

// An engine that is yet to be deserialised.
struct Plan {
  Engine spec;
  Bytes bytes;  // of the stated sha256
};

// What the runners of a bundle share; immutable but for the mutex.
struct Network {
  Options options;  // outlives all that logs
  TensorRt library;
  std::unique_ptr<nvinfer1::IRuntime> runtime;  // outlives its engines
  std::unique_ptr<std::mutex> making;           // held to make or end what is of the runtime or of a shared engine
  Mode mode;
  InputSpec input;
  OutputSpec output;
  std::string rebuild;                   // the command that makes the engines again
  std::vector<float> lambdas;            // of the engines; empty where one serves any
  std::optional<LambdaTensors> tensors;  // modes bound, input and refit
  std::vector<LoadedEngine> engines;     // one per lambda, or one for any; none in mode refit:
  std::optional<Plan> refittable;        // there each runner makes its own of this
};

// Throws Error, runtime, if TensorRT did not do `what`.
void must(bool done, std::string_view what);

nvinfer1::DataType data_type(Element element);

// Throws Error: engine_incompatible if TensorRT cannot load it, bundle_invalid if it is not the manifest's.
LoadedEngine load_engine(const Network& network, const Plan& plan);

// Replaces the weights of an engine by those at a lambda.
class Refit {
 public:
  // Throws Error, bundle_invalid, unless the engine's refittable weights are exactly those that depend on lambda.
  Refit(const Network& network, nvinfer1::ICudaEngine& engine);

  // Computes the weights with so many threads. No inference may be under way on the engine. If it throws, the engine
  // holds weights of two lambdas, and must be refitted again before it is used. Throws Error, runtime.
  void put(float lam, std::size_t threads);

 private:
  const LambdaTensors& tensors_;
  std::unique_ptr<nvinfer1::IRefitter> refitter_;
  std::vector<std::byte> buffer_;  // the engine's own copy is made from it
};

}  // namespace floats_rt
