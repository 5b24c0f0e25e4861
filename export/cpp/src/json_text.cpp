#include "json_text.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

namespace floats_rt {
namespace {

using nlohmann::json;

constexpr std::size_t kDeepest = 32;      // objects and arrays around a value
constexpr std::size_t kLongestKey = 512;  // characters
constexpr std::ptrdiff_t kMostCommas = std::ptrdiff_t{1} << 16;
constexpr const char* kByteOrderMark = "\xef\xbb\xbf";

// Told by the parser what it reads, without a value being made of it; false ends the parsing.
class Reader {
 public:
  const std::string& violation() const noexcept { return violation_; }

  bool null() { return true; }
  bool boolean(bool) { return true; }
  bool number_integer(json::number_integer_t) { return true; }
  bool number_unsigned(json::number_unsigned_t) { return true; }
  bool number_float(json::number_float_t, const std::string&) { return true; }
  bool string(std::string&) { return true; }
  template <typename Binary>
  bool binary(Binary&) {
    return true;
  }
  bool start_object(std::size_t) { return open(); }
  bool start_array(std::size_t) { return open(); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }

  bool key(std::string& key) {
    if (characters(key) > kLongestKey) return fail("a key of an object is too long");
    return keys_.back().insert(key).second || fail("a key occurs twice in an object");
  }

  template <typename Exception>
  bool parse_error(std::size_t, const std::string&, const Exception&) {
    return fail("not JSON");
  }

 private:
  bool open() {
    keys_.emplace_back();
    return keys_.size() <= kDeepest || fail("nested too deeply");
  }

  bool close() {
    keys_.pop_back();
    return true;
  }

  bool fail(const char* violation) {
    violation_ = violation;
    return false;
  }

  std::vector<std::set<std::string>> keys_;  // of the objects around; an array has none
  std::string violation_;
};

}  // namespace

std::string json_violation(std::string_view text) {
  // The parser would take a NUL for the end and pass over a byte order mark.
  if (text.find('\0') != std::string_view::npos || text.substr(0, 3) == kByteOrderMark) return "not JSON";
  if (std::count(text.begin(), text.end(), ',') > kMostCommas) return "more values than any bundle has";
  Reader reader;
  json::sax_parse(text.begin(), text.end(), &reader);
  return reader.violation();
}

std::size_t control_character(std::string_view text) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0xff; };
  if (byte(0) < 0x20 || byte(0) == 0x7f) return 1;
  return byte(0) == 0xc2 && byte(1) < 0xa0 ? 2 : 0;
}

std::size_t characters(std::string_view text) {
  const auto starts = [](char byte) { return (static_cast<unsigned char>(byte) & 0xc0) != 0x80; };
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), starts));
}

}  // namespace floats_rt
