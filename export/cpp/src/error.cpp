#include "border.hpp"

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
    case ErrorCode::out_of_memory:
      return "out_of_memory";
  }
  return "unknown";
}

Error::Error(ErrorCode code, const std::string& what, const std::string& remedy)
    : std::runtime_error(what + " Remedy: " + remedy), code_(code) {}

const Error& out_of_memory() {
  static const Error error(ErrorCode::out_of_memory, "there is not enough memory.",
                           "close other programs, or lower Options::max_bytes to refuse bundles that ask for so much");
  return error;
}

[[maybe_unused]] static const Error& made_while_there_is_memory = out_of_memory();

}  // namespace floats_rt
