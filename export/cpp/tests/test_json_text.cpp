#include "json_text.hpp"
#include "log.hpp"
#include "support.hpp"

namespace floats_rt {

TEST_CASE("JSON that every reader takes for the same value is taken") {
  for (const std::string text : {"{}", " [1, 2.5, null, true, \"\\u00e9\", {\"a\": {\"a\": 1}}] ", "1"}) {
    CAPTURE(text);
    CHECK(json_violation(text) == "");
  }
  CHECK(json_violation(std::string(32, '[') + std::string(32, ']')) == "");
  CHECK(json_violation("{\"" + std::string(512, 'a') + "\": 1}") == "");
}

TEST_CASE("JSON that readers take differently, or that costs more than it is worth, is refused") {
  const auto told = [](const std::string& text, const std::string& violation) {
    CAPTURE(text.substr(0, 40));
    CHECK(json_violation(text).find(violation) != std::string::npos);
  };
  told(std::string(33, '[') + std::string(33, ']'), "nested too deeply");
  told(std::string(4000000, '['), "nested too deeply");
  told("[{\"b\": {\"a\": 1, \"\\u0061\": 2}}]", "occurs twice");
  told("{\"" + std::string(513, 'a') + "\": 1}", "too long");
  std::string values = "[0";
  for (int i = 0; i <= 1 << 16; ++i) values += ",0";
  told(values + "]", "more values");
  for (const std::string text : {"", "NaN", "[-Infinity]", "\xef\xbb\xbf{}", "\xff", "[1e999]", "{} // no", "{}{}"}) {
    told(text, "not JSON");
  }
  told(std::string("{}\0", 3), "not JSON");
}

TEST_CASE("what is printed is one line that no terminal obeys") {
  CHECK(printable("a\x1b[2J\x7f\nb\t\xc2\x9b"
                  "c") == "a\\x1b[2J\\x7f b \\xc2\\x9bc");
  CHECK(printable("Sch\xc3\xa4"
                  "ferhund \xe7\x8a\xac") ==
        "Sch\xc3\xa4"
        "ferhund \xe7\x8a\xac");
  const Error error(ErrorCode::runtime, "a\x1b[2J", "b\nRemedy: none");
  CHECK(std::string(error.what()) == "a\\x1b[2J Remedy: b Remedy: none");
}

}  // namespace floats_rt
