// CUDA with host memory for a device and streams that are always empty.
#include "fake_cuda.hpp"

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>

using fake_cuda::calls;

static cudaError_t result(const char* function) {
  return !fake_cuda::failing.empty() && fake_cuda::failing.count(function) ? cudaErrorUnknown : cudaSuccess;
}

static cudaError_t allocate(const char* function, void** pointer, std::size_t size) {
  if (result(function) != cudaSuccess) return cudaErrorMemoryAllocation;
  *pointer = std::malloc(size);
  return cudaSuccess;
}

static cudaError_t noted(const char* function, cudaStream_t stream) {
  if (fake_cuda::noting) {
    calls.push_back(std::string(function) + (stream == reinterpret_cast<cudaStream_t>(1) ? " user" : " own"));
  }
  return result(function);
}

extern "C" {
const char* cudaGetErrorString(cudaError_t) { return "a fake error"; }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = fake_cuda::devices;
  return fake_cuda::devices ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaSetDevice(int) { return result("cudaSetDevice"); }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? 8 : 7;
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** pointer, std::size_t size) { return allocate("cudaMalloc", pointer, size); }
cudaError_t cudaMallocHost(void** pointer, std::size_t size) { return allocate("cudaMallocHost", pointer, size); }
cudaError_t cudaFree(void* pointer) { return std::free(pointer), cudaSuccess; }
cudaError_t cudaFreeHost(void* pointer) { return std::free(pointer), cudaSuccess; }
cudaError_t cudaMemset(void* pointer, int value, std::size_t size) {
  return std::memset(pointer, value, size), cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind, cudaStream_t stream) {
  if (noted("cudaMemcpyAsync", stream) != cudaSuccess) return cudaErrorUnknown;
  return std::memcpy(to, from, size), cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return allocate("cudaStreamCreateWithFlags", reinterpret_cast<void**>(stream), 1);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return std::free(stream), cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return noted("cudaStreamSynchronize", stream); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t, unsigned) {
  return noted("cudaStreamWaitEvent", stream);
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return allocate("cudaEventCreateWithFlags", reinterpret_cast<void**>(event), 1);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) { return std::free(event), cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t stream) { return noted("cudaEventRecord", stream); }
cudaError_t cudaEventSynchronize(cudaEvent_t) {
  if (fake_cuda::noting) calls.push_back("cudaEventSynchronize");
  return result("cudaEventSynchronize");
}
}
