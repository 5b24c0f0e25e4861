// Where images lie on their way to an engine, and logits on their way back.
#pragma once

#include <cstddef>
#include <cstring>
#include <string>

#include "cuda.hpp"

namespace floats_rt {

// Room for a batch of images and its logits, on the device and, page-locked, on the host: what is queued may outlive
// the inference that queued it.
class Buffers {
 public:
  // For batches up to `largest`, of images of `pixels` floats. Throws Error: bundle_invalid where there are no such
  // numbers, runtime.
  Buffers(std::size_t largest, std::size_t pixels, std::size_t classes, const cuda::Stream& stream)
      : image_bytes_(pixels * sizeof(float)),
        logits_bytes_(classes * sizeof(float)),
        images_(batch_bytes(largest, pixels)),
        logits_(batch_bytes(largest, classes)),
        host_images_(batch_bytes(largest, pixels)),
        host_logits_(batch_bytes(largest, classes)) {
    // Below the engine's smallest batch, whatever lies in the buffer makes up the number.
    cuda::check(cudaMemsetAsync(images_.get(), 0, largest * image_bytes_, stream.get()), "clear memory");
    stream.synchronize();
  }

  float* staging() const noexcept { return host_images_.as<float>(); }
  float* images() const noexcept { return reinterpret_cast<float*>(images_.get()); }  // on the device, as these:
  float* logits() const noexcept { return reinterpret_cast<float*>(logits_.get()); }

  // Puts images where send() takes them from, unless they lie there.
  void stage(const float* images, std::size_t count) const noexcept {
    if (images != staging()) std::memcpy(staging(), images, count * image_bytes_);
  }

  // Queues the copy of as many images to the device.
  void send(std::size_t count, cudaStream_t stream) const {
    cuda::check(cudaMemcpyAsync(images_.get(), staging(), count * image_bytes_, cudaMemcpyHostToDevice, stream),
                "copy the images");
  }

  // Queues the copy of as many logits back.
  void fetch(std::size_t count, cudaStream_t stream) const {
    cuda::check(
        cudaMemcpyAsync(host_logits_.as<void>(), logits_.get(), count * logits_bytes_, cudaMemcpyDeviceToHost, stream),
        "copy the logits");
  }

  // Fills `logits` with those that were fetched.
  void read(float* logits, std::size_t count) const noexcept {
    std::memcpy(logits, host_logits_.as<void>(), count * logits_bytes_);
  }

 private:
  static std::size_t batch_bytes(std::size_t batch, std::size_t each) {
    std::size_t bytes = 0;
    if (!__builtin_mul_overflow(batch, each, &bytes) && !__builtin_mul_overflow(bytes, sizeof(float), &bytes)) {
      return bytes;
    }
    throw Error(ErrorCode::bundle_invalid, "a batch of " + std::to_string(batch) + " is larger than any memory.",
                "build the engine for smaller batches: floats-edge export --trt --batch MIN:OPT:MAX");
  }

  std::size_t image_bytes_, logits_bytes_;  // of one
  cuda::DeviceMemory images_, logits_;
  cuda::PinnedMemory host_images_, host_logits_;
};

// What a large batch needs besides one set of buffers, so that two take turns.
struct Turns {
  Turns(std::size_t largest, std::size_t pixels, std::size_t classes) : second(largest, pixels, classes, up) {}

  cuda::Stream up;      // of the images
  cuda::Event sent;     // the end of what went up last
  cuda::Event done[2];  // of what is queued on each set of buffers
  Buffers second;
};

}  // namespace floats_rt
