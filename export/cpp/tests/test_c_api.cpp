// The C interface: every status, what is null or unknown, who owns what, and whose error is whose.
#include <array>
#include <cmath>
#include <thread>

#include "bundle_copy.hpp"
#include "floats_rt/floats_rt.h"
#include "support.hpp"

namespace floats_rt {

namespace {

floats_rt_options options() {
  floats_rt_options options{};
  options.struct_size = sizeof options;
  options.backend = FLOATS_RT_ONNXRUNTIME;
  options.threads = 1;
  return options;
}

// A model that is freed when the test ends.
class Loaded {
 public:
  explicit Loaded(const std::string& name) {
    const floats_rt_options with = options();
    const floats_rt_status status = floats_rt_load(bundle_path(name).c_str(), &with, &model_);
    REQUIRE_MESSAGE(status == FLOATS_RT_OK, floats_rt_last_error());
  }
  Loaded(const Loaded&) = delete;
  Loaded& operator=(const Loaded&) = delete;
  ~Loaded() { floats_rt_free(model_); }
  operator floats_rt_model*() const { return model_; }

 private:
  floats_rt_model* model_ = nullptr;
};

// That a call failed so, and said so.
void check_failed(floats_rt_status got, floats_rt_status wanted, const std::string& said = "Remedy: ") {
  CHECK_MESSAGE(got == wanted, floats_rt_status_name(got));
  CHECK_MESSAGE(std::string(floats_rt_last_error()).find(said) != std::string::npos, floats_rt_last_error());
}

floats_rt_status load_status(const std::filesystem::path& bundle, const floats_rt_options& with) {
  floats_rt_model* model = reinterpret_cast<floats_rt_model*>(1);
  const floats_rt_status status = floats_rt_load(bundle.c_str(), &with, &model);
  CHECK((model != nullptr) == (status == FLOATS_RT_OK));
  floats_rt_free(model);
  return status;
}

std::vector<float> inferred(floats_rt_model* model, float value = 0.5f) {
  std::vector<float> image(floats_rt_input_size(model), value), logits(floats_rt_label_count(model));
  const auto status = floats_rt_infer(model, image.data(), image.size(), 1, logits.data(), logits.size());
  REQUIRE_MESSAGE(status == FLOATS_RT_OK, floats_rt_last_error());
  return logits;
}

}  // namespace

TEST_CASE("C: a model is what it is in C++, and gives the same") {
  Options cpp;
  cpp.backend = Backend::onnxruntime;
  cpp.threads = 1;
  for (const std::string name : {"bound", "bank"}) {
    CAPTURE(name);
    Model expected = Model::load(bundle_path(name).string(), cpp);
    const Loaded model(name);
    CHECK(floats_rt_channels(model) == expected.input().channels);
    CHECK(floats_rt_height(model) == expected.input().height);
    CHECK(floats_rt_width(model) == expected.input().width);
    CHECK(floats_rt_input_size(model) == expected.input().size());
    CHECK(floats_rt_lambda_minimum(model) == expected.lambda_range().minimum);
    CHECK(floats_rt_lambda_maximum(model) == expected.lambda_range().maximum);
    CHECK(floats_rt_mode(model) == name);
    CHECK(floats_rt_precision(model) == std::string("fp32"));
    CHECK(floats_rt_backend_name(model) == std::string("onnxruntime"));
    CHECK(floats_rt_backend_version(model) == expected.backend_version());
    REQUIRE(floats_rt_label_count(model) == expected.labels().size());
    for (std::size_t i = 0; i < expected.labels().size(); ++i) CHECK(floats_rt_label(model, i) == expected.labels()[i]);
    REQUIRE(floats_rt_lambda_count(model) == expected.lambda_range().values.size());
    for (std::size_t i = 0; i < expected.lambda_range().values.size(); ++i) {
      CHECK(floats_rt_lambda_value(model, i) == expected.lambda_range().values[i]);
    }
    const float lambda = expected.lambda_range().maximum;
    expected.set_lambda(lambda);
    REQUIRE(floats_rt_set_lambda(model, lambda) == FLOATS_RT_OK);
    CHECK(floats_rt_lambda(model) == lambda);
    std::vector<float> image(expected.input().size(), 0.5f), logits(expected.output().size());
    expected.infer(image, 1, logits);
    CHECK(inferred(model) == logits);
  }
}

TEST_CASE("C: images of any size are made ready as in C++") {
  Options cpp;
  cpp.backend = Backend::onnxruntime;
  cpp.threads = 1;
  Model expected = Model::load(bundle_path("bound").string(), cpp);
  const Loaded model("bound");
  std::vector<std::uint8_t> bytes(40 * 100);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * 37 % 251);
  const std::array<ImageView, 2> views{
      {{bytes.data(), 40, 30, Colours::bgr, 100}, {bytes.data(), 20, 20, Colours::grey}}};
  const std::array<floats_rt_image_view, 2> images{
      {{bytes.data(), 40, 30, 100, FLOATS_RT_BGR}, {bytes.data(), 20, 20, 0, FLOATS_RT_GREY}}};
  std::vector<float> logits(2 * expected.output().size()), same(logits.size());
  expected.infer(views, logits);
  REQUIRE(floats_rt_infer_images(model, images.data(), 2, same.data(), same.size()) == FLOATS_RT_OK);
  CHECK(same == logits);
}

TEST_CASE("C: the knob is turned by request, too") {
  const Loaded model("bound");
  const std::vector<float> before = inferred(model);
  std::thread([&] { CHECK(floats_rt_request_lambda(model, 1) == FLOATS_RT_OK); }).join();
  while (floats_rt_lambda(model) != 1) inferred(model);
  CHECK(floats_rt_request_failure(model) == FLOATS_RT_OK);
  const std::vector<float> after = inferred(model);
  CHECK(after != before);
  REQUIRE(floats_rt_set_lambda(model, 1) == FLOATS_RT_OK);
  CHECK(inferred(model) == after);
}

TEST_CASE("C: a clone outlives what it was made from") {
  floats_rt_model *model = nullptr, *clone = nullptr;
  const floats_rt_options with = options();
  REQUIRE(floats_rt_load(bundle_path("bound").c_str(), &with, &model) == FLOATS_RT_OK);
  REQUIRE(floats_rt_set_lambda(model, 0.5f) == FLOATS_RT_OK);
  const std::vector<float> logits = inferred(model);
  REQUIRE(floats_rt_clone(model, &clone) == FLOATS_RT_OK);
  floats_rt_free(model);
  CHECK(floats_rt_lambda(clone) == 0.5f);
  CHECK(inferred(clone) == logits);
  floats_rt_free(clone);
}

TEST_CASE("C: every failure has its status") {
  floats_rt_options with = options();
  check_failed(load_status(bundle_path("nowhere"), with), FLOATS_RT_BUNDLE_NOT_FOUND);
  check_failed(load_status(bundle_path("bound-bf16"), with), FLOATS_RT_ENGINE_INCOMPATIBLE);
  check_failed(floats_rt_check(bundle_path("nowhere").c_str(), &with), FLOATS_RT_BUNDLE_NOT_FOUND);
  CHECK(floats_rt_check(bundle_path("bound").c_str(), &with) == FLOATS_RT_OK);

  with.max_bytes = 1000;
  check_failed(load_status(bundle_path("bound"), with), FLOATS_RT_OUT_OF_MEMORY);
  with = options();
  with.onnxruntime_library = "/nowhere/libonnxruntime.so";
  check_failed(load_status(bundle_path("bound"), with), FLOATS_RT_BACKEND_UNAVAILABLE, "/nowhere/libonnxruntime.so");
  with = options();
  with.backend = FLOATS_RT_TENSORRT;
  check_failed(load_status(bundle_path("bound"), with), FLOATS_RT_BACKEND_UNAVAILABLE);

  const Loaded bank("bank");
  check_failed(floats_rt_set_lambda(bank, 2), FLOATS_RT_LAMBDA_OUT_OF_RANGE);
  check_failed(floats_rt_request_lambda(bank, std::nanf("")), FLOATS_RT_LAMBDA_OUT_OF_RANGE);
  check_failed(floats_rt_set_lambda(bank, 0.123f), FLOATS_RT_LAMBDA_UNSUPPORTED);
  std::vector<float> image(floats_rt_input_size(bank)), logits(floats_rt_label_count(bank));
  check_failed(floats_rt_infer(bank, image.data(), image.size(), 2, logits.data(), logits.size()), FLOATS_RT_BAD_SHAPE);
  check_failed(floats_rt_infer(bank, image.data(), image.size(), 1, logits.data(), 1), FLOATS_RT_BAD_SHAPE);
  const std::uint8_t pixel = 0;
  const floats_rt_image_view endless{&pixel, 1, 70000, 0, FLOATS_RT_GREY};
  check_failed(floats_rt_infer_images(bank, &endless, 1, logits.data(), logits.size()), FLOATS_RT_BAD_SHAPE);
}

TEST_CASE("C: an altered bundle is refused") {
  const BundleCopy copy("bound");
  write_file(copy.path() / "manifest.json", "{}");
  check_failed(load_status(copy.path(), options()), FLOATS_RT_BUNDLE_INVALID);
}

TEST_CASE("C: statuses have names") {
  CHECK(floats_rt_status_name(FLOATS_RT_OK) == std::string("ok"));
  CHECK(floats_rt_status_name(FLOATS_RT_INVALID_ARGUMENT) == std::string("invalid_argument"));
  CHECK(floats_rt_status_name(FLOATS_RT_BAD_SHAPE) == std::string("bad_shape"));
  CHECK(floats_rt_status_name(12345) == std::string("unknown"));
  CHECK(floats_rt_version() == std::string(version()));
}

TEST_CASE("C: nothing null is looked at") {
  const floats_rt_status invalid = FLOATS_RT_INVALID_ARGUMENT;
  const Loaded model("bound");
  floats_rt_model* made = nullptr;
  const std::string bundle = bundle_path("bound").string();
  std::vector<float> image(floats_rt_input_size(model)), logits(floats_rt_label_count(model));
  const std::uint8_t pixel = 0;
  const floats_rt_image_view view{&pixel, 1, 1, 0, FLOATS_RT_GREY}, empty{nullptr, 1, 1, 0, FLOATS_RT_GREY};
  check_failed(floats_rt_check(nullptr, nullptr), invalid, "bundle is NULL");
  check_failed(floats_rt_load(nullptr, nullptr, &made), invalid, "bundle is NULL");
  check_failed(floats_rt_load(bundle.c_str(), nullptr, nullptr), invalid, "model is NULL");
  check_failed(floats_rt_clone(nullptr, &made), invalid, "model is NULL");
  check_failed(floats_rt_clone(model, nullptr), invalid, "clone is NULL");
  check_failed(floats_rt_infer(nullptr, image.data(), image.size(), 1, logits.data(), logits.size()), invalid);
  check_failed(floats_rt_infer(model, nullptr, image.size(), 1, logits.data(), logits.size()), invalid);
  check_failed(floats_rt_infer(model, image.data(), image.size(), 1, nullptr, logits.size()), invalid);
  check_failed(floats_rt_infer_images(nullptr, &view, 1, logits.data(), logits.size()), invalid);
  check_failed(floats_rt_infer_images(model, nullptr, 1, logits.data(), logits.size()), invalid);
  check_failed(floats_rt_infer_images(model, &empty, 1, logits.data(), logits.size()), invalid);
  check_failed(floats_rt_infer_images(model, &view, 1, nullptr, logits.size()), invalid);
  check_failed(floats_rt_set_lambda(nullptr, 0), invalid);
  check_failed(floats_rt_request_lambda(nullptr, 0), invalid);
  check_failed(floats_rt_request_failure(nullptr), invalid);
  CHECK(made == nullptr);
  floats_rt_free(nullptr);
}

TEST_CASE("C: of no model, and beyond the last, there is nothing") {
  const Loaded model("bound");
  CHECK(floats_rt_label(model, floats_rt_label_count(model)) == nullptr);
  CHECK(std::isnan(floats_rt_lambda_value(model, 0)));
  CHECK(std::isnan(floats_rt_lambda(nullptr)));
  CHECK(std::isnan(floats_rt_lambda_minimum(nullptr)));
  CHECK(std::isnan(floats_rt_lambda_maximum(nullptr)));
  CHECK(std::isnan(floats_rt_lambda_value(nullptr, 0)));
  const auto sizes = {floats_rt_lambda_count, floats_rt_channels,   floats_rt_height,
                      floats_rt_width,        floats_rt_input_size, floats_rt_label_count};
  for (const auto& size : sizes) CHECK(size(nullptr) == 0);
  CHECK(floats_rt_label(nullptr, 0) == nullptr);
  const auto names = {floats_rt_mode, floats_rt_precision, floats_rt_backend_name, floats_rt_backend_version};
  for (const auto& name : names) CHECK(name(nullptr) == nullptr);
}

TEST_CASE("C: a number that means nothing is refused") {
  const std::string bundle = bundle_path("bound").string();
  for (const std::int32_t backend : {-1, 3}) {
    floats_rt_options with = options();
    with.backend = backend;
    check_failed(load_status(bundle, with), FLOATS_RT_INVALID_ARGUMENT, "the backend cannot be ");
  }
  const Loaded model("bound");
  std::vector<float> logits(floats_rt_label_count(model));
  const std::uint8_t pixel = 0;
  const floats_rt_image_view view{&pixel, 1, 1, 0, 5};
  check_failed(floats_rt_infer_images(model, &view, 1, logits.data(), logits.size()), FLOATS_RT_INVALID_ARGUMENT,
               "the colours of an image cannot be 5");
}

TEST_CASE("C: options of another version are taken if they ask for nothing unknown") {
  struct Newer {
    floats_rt_options known;
    std::uint64_t unknown;
  };
  const std::string bundle = bundle_path("bound").string();
  Newer newer{options(), 0};
  newer.known.struct_size = sizeof newer;
  CHECK(load_status(bundle, newer.known) == FLOATS_RT_OK);
  newer.unknown = 1;
  check_failed(load_status(bundle, newer.known), FLOATS_RT_INVALID_ARGUMENT, "does not know");
  for (const std::size_t size : {std::size_t{0}, std::size_t{8}, ~std::size_t{0}}) {
    newer.known.struct_size = size;
    check_failed(load_status(bundle, newer.known), FLOATS_RT_INVALID_ARGUMENT, "struct_size");
  }
}

TEST_CASE("C: the log is told, and may not stop the program") {
  floats_rt_options with = options();
  with.backend = FLOATS_RT_AUTOMATIC;
  std::string said;
  with.log_context = &said;
  with.log = [](void* context, floats_rt_severity severity, const char* source, const char* text) {
    CHECK(severity == FLOATS_RT_INFO);
    *static_cast<std::string*>(context) += std::string(source) + ": " + text + '\n';
  };
  CHECK(load_status(bundle_path("bound"), with) == FLOATS_RT_OK);
  CHECK(said.find("floats_rt: ONNX Runtime on the CPU instead of TensorRT") == 0);
  with.log = [](void*, floats_rt_severity, const char*, const char*) { throw 1; };
  check_failed(load_status(bundle_path("bound"), with), FLOATS_RT_RUNTIME, "log threw");
}

TEST_CASE("C: the last error is a thread's own") {
  check_failed(floats_rt_check("/nowhere/here", nullptr), FLOATS_RT_BUNDLE_NOT_FOUND, "/nowhere/here");
  std::thread([] {
    CHECK(floats_rt_last_error() == std::string());
    check_failed(floats_rt_check("/nowhere/there", nullptr), FLOATS_RT_BUNDLE_NOT_FOUND, "/nowhere/there");
  }).join();
  CHECK(std::string(floats_rt_last_error()).find("/nowhere/here") != std::string::npos);
}

}  // namespace floats_rt
