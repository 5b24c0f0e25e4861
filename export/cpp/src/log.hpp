// Where one line of log goes.
#pragma once

#include <iostream>
#include <string>
#include <string_view>

#include "floats_rt/floats_rt.hpp"

namespace floats_rt {

// A text in one line that no terminal obeys: names in it may be a stranger's. Whitespace becomes spaces; control
// characters are written by the numbers of their bytes.
std::string printable(std::string_view text);

inline void report(const Options& options, const std::string& line) {
  if (options.log) {
    options.log(printable(line));
  } else {
    std::cerr << "floats_rt: " << printable(line) << '\n';
  }
}

}  // namespace floats_rt
