#include <iostream>

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

void report(const Options& options, Severity severity, std::string_view text, const char* source) {
  if (options.log) {
    options.log({severity, source, printable(text)});
  } else if (severity != Severity::info) {
    std::cerr << source << ": " << printable(text) << '\n';
  }
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
