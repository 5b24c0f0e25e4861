// Which TensorRT and which GPU there is, and which engines of a bundle they can run.
#pragma once

#include <NvInferRuntime.h>

#include <memory>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "cuda.hpp"
#include "shared_library.hpp"

namespace floats_rt {

// {10, 3, 0} -> "10.3.0"
std::string joined(const std::vector<int>& version);

// The end of a sentence about a failure: the last error that TensorRT told this thread in its Visit.
std::string why();

// libnvinfer, of a version that goes with the headers this was compiled with.
class TensorRt {
 public:
  // Throws Error, backend_unavailable, if the library is missing or of another version: nothing else is called before.
  explicit TensorRt(const std::string& path);

  // Version numbers, the most significant first: three, or four where the library tells its build.
  const std::vector<int>& version() const noexcept { return version_; }

  std::unique_ptr<nvinfer1::IRuntime> runtime() const;

  // What replaces the weights of an engine, which must outlive it. Throws Error, runtime, if it cannot be refitted.
  std::unique_ptr<nvinfer1::IRefitter> refitter(nvinfer1::ICudaEngine& engine) const;

 private:
  SharedLibrary library_;
  std::vector<int> version_;
};

// What a thread needs while it works with TensorRT: the device of the options is current, captures of streams are left
// alone, and TensorRT's warnings and errors go to their log. Ends as it began.
class Visit {
 public:
  // The options must live as long. Throws Error, no_device.
  explicit Visit(const Options& options);
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;
  ~Visit();

 private:
  cuda::OnDevice here_;
  cuda::BesideCaptures beside_captures_;
  const Options* before_;
};

// The compute capability of a CUDA device, for example "sm_87". Throws Error, no_device, if there is none of this
// number.
std::string compute_capability(int device);

// For each lambda of the bundle (for its only graph, where that serves any) the first engine that runs here.
// Throws Error, engine_incompatible, saying of each engine why it does not.
std::vector<Engine> fitting_engines(const Bundle& bundle, const std::vector<int>& version, const std::string& target);

}  // namespace floats_rt
