// Where one line of log goes.
#pragma once

#include <iostream>
#include <string>

#include "floats_rt/floats_rt.hpp"

namespace floats_rt {

inline void report(const Options& options, const std::string& line) {
  if (options.log) {
    options.log(line);
  } else {
    std::cerr << "floats_rt: " << line << '\n';
  }
}

}  // namespace floats_rt
