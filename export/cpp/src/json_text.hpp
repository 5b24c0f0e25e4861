// JSON from strangers: text that every reader takes for the same value. Python's floats_edge/artifacts/json_text.py has
// the same rules.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace floats_rt {

// What is wrong with a JSON text: it is none, it holds too many values, it is nested too deeply, or an object holds a
// key twice or one that is too long; empty if nothing is.
std::string json_violation(std::string_view text);

// Length in bytes of the control character that a text in UTF-8 starts with, of ASCII or U+0080 to U+009F; 0 if none.
std::size_t control_character(std::string_view text);

// Number of characters of a text in UTF-8.
std::size_t characters(std::string_view text);

}  // namespace floats_rt
