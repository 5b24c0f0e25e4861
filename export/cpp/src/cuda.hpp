// CUDA runtime handles that free themselves, and errors that are thrown.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <string>

#include "floats_rt/floats_rt.hpp"

namespace floats_rt::cuda {

inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw Error(ErrorCode::runtime, std::string("CUDA failed to ") + what + ": " + cudaGetErrorString(status) + ".",
              "if memory is short, use a smaller batch or close other programs on this GPU; otherwise load again");
}

// Uninitialised device memory.
class DeviceMemory {
 public:
  explicit DeviceMemory(std::size_t bytes) { check(cudaMalloc(&pointer_, bytes), "allocate device memory"); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory() { cudaFree(pointer_); }

  std::byte* get() const noexcept { return static_cast<std::byte*>(pointer_); }

 private:
  void* pointer_ = nullptr;
};

// Page-locked host memory, which the device copies from without staging.
class PinnedMemory {
 public:
  explicit PinnedMemory(std::size_t bytes) { check(cudaMallocHost(&pointer_, bytes), "allocate page-locked memory"); }
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;
  ~PinnedMemory() { cudaFreeHost(pointer_); }

  template <typename T>
  T* as() const noexcept {
    return static_cast<T*>(pointer_);
  }

 private:
  void* pointer_ = nullptr;
};

class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "create a stream"); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(stream_); }

  cudaStream_t get() const noexcept { return stream_; }
  void synchronize() const { check(cudaStreamSynchronize(stream_), "finish what was queued"); }

 private:
  cudaStream_t stream_ = nullptr;
};

// A point in a stream that other streams can wait for. Before the first record, there is nothing to wait for.
class Event {
 public:
  Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "create an event"); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { cudaEventDestroy(event_); }

  void record(cudaStream_t stream) const { check(cudaEventRecord(event_, stream), "record an event"); }
  cudaEvent_t get() const noexcept { return event_; }
  void synchronize() const { check(cudaEventSynchronize(event_), "wait for an event"); }
  void hold_back(cudaStream_t stream) const { check(cudaStreamWaitEvent(stream, event_, 0), "wait for an event"); }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace floats_rt::cuda
