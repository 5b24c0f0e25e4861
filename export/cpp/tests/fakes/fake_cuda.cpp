// CUDA with host memory for devices. As on a device, what is put into a stream happens later: when somebody waits for
// it, and so that what was not ordered goes wrong: work of the legacy stream comes between that of non-blocking ones.
// No program can follow an address of device memory. What might be unsafe while a stream is captured is refused and
// breaks the capture, as CUDA's documents have it of cudaMalloc; that waiting for an event is such a call too, NCCL and
// PyTorch found out.
#include "fake_cuda.hpp"

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

extern std::atomic<std::size_t> allocations;  // counting_new.cpp

namespace {

struct Operation {
  enum class Kind { copy, set, wait, call } kind;
  void* to;
  const void* from;
  std::size_t size;
  int value;
  CUstream_st* other;  // to wait for
  std::size_t point;   // of it
  cudaHostFn_t function;
};

}  // namespace

struct CUstream_st {
  const char* name = "own";
  int device = 0;
  bool capturing = false, invalidated = false;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;  // of the capture
  std::thread::id capturer;
  std::vector<Operation> operations;
  std::size_t done = 0;  // of operations
};

struct CUevent_st {
  int device = 0;
  CUstream_st* stream = nullptr;  // null before the first record
  std::size_t point = 0;          // of the stream
  bool captured = false;
};

namespace {

std::recursive_mutex mutex;
std::vector<std::unique_ptr<CUstream_st>> streams;  // also those that were destroyed: their work still ends
CUstream_st legacy;
thread_local int current = 0;
thread_local cudaStreamCaptureMode beside_captures = cudaStreamCaptureModeGlobal;

// What the fake allocates is not the library's doing.
class Uncounted {
 public:
  ~Uncounted() { allocations = before_; }

 private:
  std::lock_guard<std::recursive_mutex> lock_{mutex};
  std::size_t before_ = allocations;
};

cudaError_t result(const char* function) {
  return !fake_cuda::failing.empty() && fake_cuda::failing.count(function) ? cudaErrorUnknown : cudaSuccess;
}

cudaError_t noted(const char* function, const std::string& where = "") {
  if (fake_cuda::before) fake_cuda::before(function);
  if (fake_cuda::noting) fake_cuda::calls.push_back(function + where);
  return result(function);
}

cudaError_t noted(const char* function, cudaStream_t stream) {
  return noted(function, std::string(" ") + (stream ? stream->name : "legacy"));
}

cudaError_t asked(const std::string& function) {
  if (fake_cuda::noting) fake_cuda::asked.push_back(function);
  return result(function.substr(0, function.find(' ')).c_str());
}

// A bit that no address of a program has tells device memory from the memory behind it.
constexpr std::uintptr_t kDevice = std::uintptr_t{1} << 55;

bool is_device(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) & kDevice; }

template <typename T>
T* behind(T* pointer) {
  return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(pointer) & ~kDevice);
}

cudaError_t invalidate(CUstream_st& stream, cudaError_t error) {
  stream.invalidated = true;
  return error;
}

// Of a call that might be unsafe while a stream is captured.
cudaError_t refused_for_captures() {
  cudaError_t error = cudaSuccess;
  for (const auto& stream : streams) {
    if (!stream->capturing || beside_captures == cudaStreamCaptureModeRelaxed) continue;
    const bool own = stream->capturer == std::this_thread::get_id() && stream->mode != cudaStreamCaptureModeRelaxed;
    const bool global = stream->mode == cudaStreamCaptureModeGlobal && beside_captures == cudaStreamCaptureModeGlobal;
    if (own || global) error = invalidate(*stream, cudaErrorStreamCaptureUnsupported);
  }
  return error;
}

cudaError_t allocate(const char* function, void** pointer, std::size_t size) {
  const Uncounted lock;
  if (const cudaError_t error = refused_for_captures(); error != cudaSuccess) return error;
  if (result(function) != cudaSuccess) return cudaErrorMemoryAllocation;
  const std::size_t rounded = (size + 255) / 256 * 256;
  *pointer = rounded < size ? nullptr : std::aligned_alloc(256, rounded ? rounded : 256);
  if (!*pointer) return cudaErrorMemoryAllocation;
  std::memset(*pointer, 0xff, size);  // NaN, as far as floats go
  return cudaSuccess;
}

void run_to(CUstream_st& stream, std::size_t point);

void run(const Operation& operation) {
  switch (operation.kind) {
    case Operation::Kind::copy:
      std::memcpy(operation.to, operation.from, operation.size);
      break;
    case Operation::Kind::set:
      std::memset(operation.to, operation.value, operation.size);
      break;
    case Operation::Kind::wait:
      run_to(*operation.other, operation.point);
      break;
    case Operation::Kind::call:
      operation.function(operation.to);
  }
}

void run_to(CUstream_st& stream, std::size_t point) {
  while (stream.done < point) {
    const Operation operation = stream.operations[stream.done++];
    run(operation);
    if (&stream != &legacy && legacy.done < legacy.operations.size()) run_to(legacy, legacy.done + 1);
  }
}

// Whether the stream has come to a point. Where it has not, and the device is not stuck, the work goes on by one step.
cudaError_t progress(CUstream_st& stream, std::size_t point) {
  if (stream.done >= point) return cudaSuccess;
  if (!fake_cuda::stuck) run_to(stream, stream.done + 1);
  return cudaErrorNotReady;
}

void run_all(CUstream_st& stream) { run_to(stream, stream.operations.size()); }

cudaError_t put(cudaStream_t stream, const Operation& operation) {
  CUstream_st& into = stream ? *stream : legacy;
  if (into.invalidated) return cudaErrorStreamCaptureInvalidated;
  if (!into.capturing) into.operations.push_back(operation);
  return cudaSuccess;
}

cudaError_t new_stream(cudaStream_t* stream, const char* name) {
  streams.push_back(std::make_unique<CUstream_st>());
  *stream = streams.back().get();
  (*stream)->name = name;
  (*stream)->device = current;
  return cudaSuccess;
}

}  // namespace

namespace fake_cuda {

CUstream_st* user_stream() {
  const Uncounted lock;
  cudaStream_t stream = nullptr;
  new_stream(&stream, "user");
  return stream;
}

std::size_t pending() {
  const Uncounted lock;
  std::size_t count = legacy.operations.size() - legacy.done;
  for (const auto& stream : streams) count += stream->operations.size() - stream->done;
  return count;
}

}  // namespace fake_cuda

extern "C" {
const char* cudaGetErrorString(cudaError_t) { return "a fake error"; }

cudaError_t cudaGetDeviceCount(int* count) {
  const Uncounted lock;
  *count = fake_cuda::devices;
  asked("cudaGetDeviceCount");
  return fake_cuda::devices ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  const Uncounted lock;
  const cudaError_t error = asked("cudaSetDevice " + std::to_string(device));
  if (error == cudaSuccess) current = device;
  return error;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const Uncounted lock;
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? 8 : 7;
  return asked("cudaDeviceGetAttribute");
}

cudaError_t cudaMalloc(void** pointer, std::size_t size) {
  const cudaError_t error = allocate("cudaMalloc", pointer, size);
  if (error == cudaSuccess) *pointer = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(*pointer) | kDevice);
  return error;
}
cudaError_t cudaMallocHost(void** pointer, std::size_t size) { return allocate("cudaMallocHost", pointer, size); }
cudaError_t cudaFree(void* pointer) {  // waits for the device, as the real one does
  const Uncounted lock;
  if (const cudaError_t error = refused_for_captures(); error != cudaSuccess) return error;
  run_all(legacy);
  for (const auto& stream : streams) run_all(*stream);
  return std::free(behind(pointer)), cudaSuccess;
}
cudaError_t cudaFreeHost(void* pointer) { return cudaFree(pointer); }

cudaError_t cudaMemsetAsync(void* pointer, int value, std::size_t size, cudaStream_t stream) {
  const Uncounted lock;
  return put(stream, {Operation::Kind::set, behind(pointer), nullptr, size, value, nullptr, 0, nullptr});
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind kind, cudaStream_t stream) {
  const Uncounted lock;
  if (noted("cudaMemcpyAsync", stream) != cudaSuccess) return cudaErrorUnknown;
  const bool to_device = kind == cudaMemcpyHostToDevice;
  if (is_device(to) != to_device || is_device(from) == to_device) return cudaErrorInvalidValue;
  return put(stream, {Operation::Kind::copy, behind(to), behind(from), size, 0, nullptr, 0, nullptr});
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  const Uncounted lock;
  return put(stream, {Operation::Kind::call, data, nullptr, 0, 0, nullptr, 0, function});
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const Uncounted lock;
  if (result("cudaStreamCreateWithFlags") != cudaSuccess) return cudaErrorUnknown;
  return new_stream(stream, "own");
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Uncounted lock;
  if (noted("cudaStreamSynchronize", stream) != cudaSuccess) return cudaErrorUnknown;
  if (stream->capturing) return invalidate(*stream, cudaErrorStreamCaptureUnsupported);
  run_all(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const Uncounted lock;
  if (noted("cudaStreamQuery", stream) != cudaSuccess) return cudaErrorUnknown;
  return progress(*stream, stream->operations.size());
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const Uncounted lock;
  stream->capturing = true;
  stream->mode = mode;
  stream->capturer = std::this_thread::get_id();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t*) {
  const Uncounted lock;
  const bool whole = !stream->invalidated;
  for (const auto& each : streams) each->capturing = each->invalidated = false;
  return whole ? cudaSuccess : cudaErrorStreamCaptureInvalidated;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, beside_captures);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = stream && stream->capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Uncounted lock;
  if (noted("cudaStreamWaitEvent", stream) != cudaSuccess) return cudaErrorUnknown;
  if (!event->stream) return cudaSuccess;
  if (stream->capturing && !event->captured) return invalidate(*stream, cudaErrorStreamCaptureIsolation);
  if (event->captured) stream->capturing = true;  // joins the capture
  return put(stream, {Operation::Kind::wait, nullptr, nullptr, 0, 0, event->stream, event->point, nullptr});
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  if (result("cudaEventCreateWithFlags") != cudaSuccess) return cudaErrorUnknown;
  *event = new CUevent_st;
  (*event)->device = current;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Uncounted lock;
  if (noted("cudaEventRecord", stream) != cudaSuccess) return cudaErrorUnknown;
  if (event->device != stream->device) return cudaErrorInvalidResourceHandle;
  event->stream = stream;
  event->point = stream->operations.size();
  event->captured = stream->capturing;
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Uncounted lock;
  if (noted("cudaEventSynchronize") != cudaSuccess) return cudaErrorUnknown;
  if (event->captured) return cudaErrorCapturedEvent;
  if (const cudaError_t error = refused_for_captures(); error != cudaSuccess) return error;
  if (event->stream) run_to(*event->stream, event->point);
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Uncounted lock;
  if (noted("cudaEventQuery") != cudaSuccess) return cudaErrorUnknown;
  if (event->captured) return cudaErrorCapturedEvent;
  if (const cudaError_t error = refused_for_captures(); error != cudaSuccess) return error;
  return event->stream ? progress(*event->stream, event->point) : cudaSuccess;
}
}
