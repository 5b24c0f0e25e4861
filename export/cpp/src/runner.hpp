// The one interface behind which every backend runs.
#pragma once

#include <cstddef>
#include <memory>

#include "bundle.hpp"
#include "floats_rt/floats_rt.hpp"
#include "interruption.hpp"

namespace floats_rt {

// The engines of a bundle on one backend. Belongs to one thread at a time, but for prepare(); sizes and lambdas are
// checked by the caller.
class Runner {
 public:
  Runner() = default;
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;
  virtual ~Runner() = default;

  // Another for another thread, at no lambda yet; shares what is immutable.
  virtual std::unique_ptr<Runner> clone() const = 0;

  // Puts a lambda in force that the bundle serves. If it throws, this runner must not be used any more.
  virtual void set_lambda(float lam) = 0;

  // Makes what a lambda needs that the bundle serves, beside what is in force. Another thread may do so while infer
  // runs, but not while set_lambda, take or another prepare does. If it throws, what is in force stays as it was.
  virtual void prepare(float lam) = 0;

  // Puts in force what prepare() made last: exchanges pointers, no more.
  virtual void take() noexcept = 0;

  // Of the backend's library.
  virtual std::string version() const = 0;

  // Memory from which infer takes images without copying them on the host, until the next call; none without a device.
  // Throws what the interruption's check() throws.
  virtual Span<float> staging(const Interruption&) { return {}; }

  // See Model. Throws what the interruption's check() throws, where that is soon enough; the next one is whole again.
  // A backend without a device refuses infer_async.
  virtual void infer(const float* images, std::size_t batch, float* logits, Interruption& interruption) = 0;
  virtual void infer_async(const float*, std::size_t, float*, CUstream_st*) {
    throw Error(ErrorCode::backend_unavailable, "this model runs on the CPU: it has no CUDA stream.",
                "use infer, or Backend::tensorrt");
  }
};

// Loads the engines of a bundle; set_lambda comes next. Throw Error: backend_unavailable, no_device,
// engine_incompatible, bundle_invalid, runtime.
std::unique_ptr<Runner> open_onnxruntime(const Bundle& bundle, const Options& options);
std::unique_ptr<Runner> open_tensorrt(const Bundle& bundle, const Options& options);

// Throw what the above would, as far as can be told without deserialising anything.
void check_onnxruntime(const Bundle& bundle, const Options& options);
void check_tensorrt(const Bundle& bundle, const Options& options);

}  // namespace floats_rt
