// In place of tensorrt.cpp in a library that was built without it.
#include "runner.hpp"

namespace floats_rt {

void check_tensorrt(const Bundle&, const Options&) {
  throw Error(ErrorCode::backend_unavailable, "this floats_rt was built without TensorRT.",
              "build it with cmake -DFLOATS_RT_TENSORRT=ON");
}

std::unique_ptr<Runner> open_tensorrt(const Bundle& bundle, const Options& options) {
  check_tensorrt(bundle, options);
  return nullptr;
}

}  // namespace floats_rt
