#include "border.hpp"
#include "json_text.hpp"
#include "log.hpp"

namespace floats_rt {

std::string printable(std::string_view text) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string line;
  std::size_t left = 0;  // bytes of a character that is written by its bytes' numbers
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte >= '\t' && byte <= '\r') {
      line += ' ';
      continue;
    }
    if (left == 0) left = control_character(text.substr(i));
    if (left == 0) {
      line += text[i];
    } else {
      line += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
      --left;
    }
  }
  return line;
}

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
    : std::runtime_error(printable(what + " Remedy: " + remedy)), code_(code) {}

const Error& out_of_memory() {
  static const Error error(ErrorCode::out_of_memory, "there is not enough memory.",
                           "close other programs, or lower Options::max_bytes to refuse bundles that ask for so much");
  return error;
}

[[maybe_unused]] static const Error& made_while_there_is_memory = out_of_memory();

}  // namespace floats_rt
