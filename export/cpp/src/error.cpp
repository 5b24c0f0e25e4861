#include "floats_rt/floats_rt.hpp"

namespace floats_rt {

const char* to_string(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::bundle_not_found:
      return "bundle_not_found";
    case ErrorCode::bundle_invalid:
      return "bundle_invalid";
    case ErrorCode::backend_unavailable:
      return "backend_unavailable";
    case ErrorCode::no_device:
      return "no_device";
    case ErrorCode::engine_incompatible:
      return "engine_incompatible";
    case ErrorCode::lambda_out_of_range:
      return "lambda_out_of_range";
    case ErrorCode::lambda_unsupported:
      return "lambda_unsupported";
    case ErrorCode::bad_shape:
      return "bad_shape";
    case ErrorCode::runtime:
      return "runtime";
  }
  return "unknown";
}

Error::Error(ErrorCode code, const std::string& what, const std::string& remedy)
    : std::runtime_error(what + " Remedy: " + remedy), code_(code) {}

}  // namespace floats_rt
