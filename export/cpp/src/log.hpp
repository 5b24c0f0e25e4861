// Where one line of log goes.
#pragma once

#include <string>
#include <string_view>

#include "floats_rt/floats_rt.hpp"

namespace floats_rt {

// A text in one line that no terminal obeys: names in it may be a stranger's. Whitespace becomes spaces; control
// characters are written by the numbers of their bytes.
std::string printable(std::string_view text);

// Throws what the application's log throws.
void report(const Options& options, Severity severity, std::string_view text, const char* source = "floats_rt");

}  // namespace floats_rt
