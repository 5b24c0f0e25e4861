// What things are called in a log.
#include "floats_rt/floats_rt.hpp"

namespace floats_rt {

const char* version() noexcept { return FLOATS_RT_VERSION; }

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
    case ErrorCode::policy_invalid:
      return "policy_invalid";
    case ErrorCode::cancelled:
      return "cancelled";
    case ErrorCode::deadline_exceeded:
      return "deadline_exceeded";
  }
  return "unknown";
}

const char* to_string(Backend backend) noexcept {
  switch (backend) {
    case Backend::automatic:
      return "automatic";
    case Backend::tensorrt:
      return "tensorrt";
    case Backend::onnxruntime:
      return "onnxruntime";
  }
  return "unknown";
}

const char* to_string(Mode mode) noexcept {
  switch (mode) {
    case Mode::fixed:
      return "fixed";
    case Mode::bank:
      return "bank";
    case Mode::bound:
      return "bound";
    case Mode::refit:
      return "refit";
    case Mode::input:
      return "input";
  }
  return "unknown";
}

const char* to_string(Precision precision) noexcept {
  switch (precision) {
    case Precision::fp32:
      return "fp32";
    case Precision::fp16:
      return "fp16";
    case Precision::bf16:
      return "bf16";
    case Precision::int8:
      return "int8";
  }
  return "unknown";
}

const char* to_string(Severity severity) noexcept {
  switch (severity) {
    case Severity::info:
      return "info";
    case Severity::warning:
      return "warning";
    case Severity::error:
      return "error";
  }
  return "unknown";
}

}  // namespace floats_rt
