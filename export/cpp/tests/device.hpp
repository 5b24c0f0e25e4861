// Device memory and captures for tests, by nothing but the CUDA runtime: a fake one, or the real one on a GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "cuda.hpp"

namespace floats_rt {

// Device memory of floats.
class Floats {
 public:
  explicit Floats(std::size_t size) : size_(size), memory_(size * sizeof(float)) {}
  explicit Floats(const std::vector<float>& values) : Floats(values.size()) {
    copy(data(), values.data(), cudaMemcpyHostToDevice);
  }

  float* data() const { return reinterpret_cast<float*>(memory_.get()); }

  // As they are now: no other stream is waited for.
  std::vector<float> values() const {
    std::vector<float> values(size_);
    copy(values.data(), data(), cudaMemcpyDeviceToHost);
    return values;
  }

 private:
  void copy(void* to, const void* from, cudaMemcpyKind kind) const {
    const cuda::Stream stream;
    cuda::check(cudaMemcpyAsync(to, from, size_ * sizeof(float), kind, stream.get()), "copy");
    stream.synchronize();
  }

  std::size_t size_;
  cuda::DeviceMemory memory_;
};

// While there is one, a stream records in the mode that is CUDA's default.
class Capture {
 public:
  explicit Capture(const cuda::Stream& stream) : stream_(stream.get()) {
    cuda::check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal), "begin a capture");
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  ~Capture() {
    if (stream_) is_whole();
  }

  // Ends it, and tells whether nothing broke it.
  bool is_whole() {
    cudaGraph_t graph = nullptr;
    const cudaError_t status = cudaStreamEndCapture(stream_, &graph);
    if (graph) cudaGraphDestroy(graph);
    stream_ = nullptr;
    return status == cudaSuccess;
  }

 private:
  cudaStream_t stream_;
};

}  // namespace floats_rt
