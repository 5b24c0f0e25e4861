// CUDA runtime handles that free themselves, and errors that are thrown.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <exception>
#include <string>

#include "floats_rt/floats_rt.hpp"

namespace floats_rt::cuda {

inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw Error(ErrorCode::runtime, std::string("CUDA failed to ") + what + ": " + cudaGetErrorString(status) + ".",
              "if memory is short, use a smaller batch or close other programs on this GPU; otherwise load again");
}

// Makes a device current for the calling thread, and at its end the one that was.
class OnDevice {
 public:
  explicit OnDevice(int device) : device_(device) {
    check(cudaGetDevice(&before_), "tell which device is in use");
    const cudaError_t status = cudaSetDevice(device);
    if (status == cudaSuccess) return;
    throw Error(ErrorCode::no_device,
                "CUDA device " + std::to_string(device) + " cannot be used: " + cudaGetErrorString(status) + ".",
                "check it with nvidia-smi (Jetson: tegrastats), and close other programs on it");
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  ~OnDevice() {
    if (before_ != device_) cudaSetDevice(before_);
  }

 private:
  int device_, before_ = 0;
};

// Lets the calling thread allocate, free and wait while any thread captures a stream for a CUDA graph: CUDA would
// refuse it, and break the capture, because it cannot know that none of this is meant to be in the graph.
class BesideCaptures {
 public:
  BesideCaptures() { check(cudaThreadExchangeStreamCaptureMode(&mode_), "work beside captures"); }
  BesideCaptures(const BesideCaptures&) = delete;
  BesideCaptures& operator=(const BesideCaptures&) = delete;
  ~BesideCaptures() { cudaThreadExchangeStreamCaptureMode(&mode_); }

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

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

// Whether what was queued is done, as CUDA answers the question.
inline bool is_done(cudaError_t status) {
  if (status != cudaErrorNotReady) check(status, "finish what was queued");
  return status == cudaSuccess;
}

class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "create a stream"); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(stream_); }

  cudaStream_t get() const noexcept { return stream_; }
  void synchronize() const { check(cudaStreamSynchronize(stream_), "finish what was queued"); }
  bool is_done() const { return cuda::is_done(cudaStreamQuery(stream_)); }

 private:
  cudaStream_t stream_ = nullptr;
};

// Lets an exception pass only when a stream is empty: the memory that queued work uses may be gone after it.
class EmptyOnError {
 public:
  explicit EmptyOnError(cudaStream_t stream) noexcept : stream_(stream) {}
  EmptyOnError(const EmptyOnError&) = delete;
  EmptyOnError& operator=(const EmptyOnError&) = delete;
  ~EmptyOnError() {
    if (std::uncaught_exceptions() > before_) cudaStreamSynchronize(stream_);
  }

 private:
  cudaStream_t stream_;
  int before_ = std::uncaught_exceptions();
};

// Throws Error, runtime, if what is put into a stream is recorded for a CUDA graph instead of run.
inline void check_runs(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream, &status), "tell whether a stream is being captured");
  if (status == cudaStreamCaptureStatusNone) return;
  throw Error(ErrorCode::runtime,
              "the stream is being captured: later calls could not wait for a CUDA graph's replays.",
              "call infer_async outside of the capture");
}

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
  bool is_done() const { return cuda::is_done(cudaEventQuery(event_)); }
  void hold_back(cudaStream_t stream) const { check(cudaStreamWaitEvent(stream, event_, 0), "wait for an event"); }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace floats_rt::cuda
