// In place of onnxruntime.cpp in a library that was built without it.
#include "runner.hpp"

namespace floats_rt {

void check_onnxruntime(const Bundle&, const Options&) {
  throw Error(ErrorCode::backend_unavailable, "this floats_rt was built without ONNX Runtime.",
              "build it with cmake -DFLOATS_RT_ONNXRUNTIME=ON");
}

std::unique_ptr<Runner> open_onnxruntime(const Bundle& bundle, const Options& options) {
  check_onnxruntime(bundle, options);
  return nullptr;
}

}  // namespace floats_rt
