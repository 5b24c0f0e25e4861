#include "onnxruntime_library.hpp"
#include "support.hpp"

namespace floats_rt {

TEST_CASE("what ONNX Runtime warns of reaches the log of the options that the session was made with") {
  const Bytes plain = file_bytes(bundle_path("fixed") / "model.onnx");
  Bytes odd = plain;
  // graph { initializer { dims: 1 data_type: FLOAT name: "spare" raw_data: 4 bytes } }, which nothing uses; appended
  const std::string graph("\x3a\x13\x2a\x11\x08\x01\x10\x01\x42\x05spare\x4a\x04\0\0\0\0", 21);
  odd.insert(odd.end(), graph.begin(), graph.end());
  std::vector<LogLine> log, other;
  Options options, others;
  options.log = [&](const LogLine& line) { log.push_back(line); };
  others.log = [&](const LogLine& line) { other.push_back(line); };
  const OnnxRuntime runtime("");
  runtime.session(plain, others);
  runtime.session(odd, options);
  REQUIRE(log.size() == 1);
  CHECK(log[0].severity == Severity::warning);
  CHECK(log[0].source == "ONNX Runtime");
  CHECK(log[0].text.find("spare") != std::string::npos);
  CHECK(other.empty());
  options.log = [](const LogLine&) { throw std::runtime_error("a full disk"); };
  CHECK_NOTHROW(runtime.session(odd, options));
}

}  // namespace floats_rt
