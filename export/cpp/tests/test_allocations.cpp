// How often infer allocates, compared with ONNX Runtime's C API called bare. A program of its own, with an operator new
// that counts.
#include <atomic>
#include <chrono>
#include <cstddef>

#include "bare_onnxruntime.hpp"
#include "border.hpp"
#include "floats_rt/floats_rt.h"
#include "floats_rt/floats_rt.hpp"
#include "image.hpp"
#include "support.hpp"

extern std::atomic<std::size_t> allocations, largest_allocation;  // counting_new.cpp

namespace floats_rt {

// Allocations of one call, once the first calls have warmed it up.
template <typename Call>
static std::size_t allocations_of(const Call& call) {
  for (int i = 0; i < 10; ++i) call();
  const std::size_t before = allocations;
  for (int i = 0; i < 100; ++i) call();
  return (allocations - before) / 100;
}

TEST_CASE("once warm, infer allocates nothing of its own") {
  Options options;
  options.backend = Backend::onnxruntime;
  options.threads = 1;
  Model model = Model::load(bundle_path("fixed").string(), options);
  std::vector<float> images(model.input().size(), 0.5f), logits(model.output().size());
  const std::size_t ours = allocations_of([&] { model.infer(images, 1, logits); });

  const auto height = static_cast<int64_t>(model.input().height), width = static_cast<int64_t>(model.input().width);
  BareOnnxRuntime bare((bundle_path("fixed") / "model.onnx").string(), 1, images, {1, 1, height, width}, logits);
  const std::size_t theirs = allocations_of([&] { bare.run(); });
  MESSAGE("allocations per inference: floats_rt " << ours << ", bare " << theirs);
  CHECK(theirs > 0);  // ONNX Runtime's own are seen, so ours would be
  CHECK(ours == theirs);
  model.set_time_limit(std::chrono::hours(1));
  CHECK(allocations_of([&] { model.infer(images, 1, logits); }) == theirs);
}

TEST_CASE("once warm, images of one size allocate nothing, whatever the rule and the order of their bytes") {
  const std::vector<std::uint8_t> bytes(90 * 70 * 4);
  std::vector<float> pixels(3 * 40 * 30);
  for (const Resize resize : {Resize::short_side, Resize::squash, Resize::pad}) {
    for (const bool antialias : {true, false}) {
      for (const Colours wanted : {Colours::rgb, Colours::grey}) {
        Preprocessor preprocessor({40, 30, resize, 40, 30, antialias, wanted});
        CHECK(allocations_of([&] {
                for (const Colours colours : {Colours::rgb, Colours::bgra, Colours::grey}) {
                  preprocessor.run({bytes.data(), 90, 70, colours}, pixels.data());
                }
              }) == 0);
      }
    }
  }
}

TEST_CASE("once warm, a model takes images without allocating anything of its own") {
  Options options;
  options.backend = Backend::onnxruntime;
  options.threads = 1;
  const Model loaded = Model::load(bundle_path("fixed").string(), options);
  Model model = loaded.clone();
  const std::vector<std::uint8_t> bytes(90 * 70 * 3);
  const ImageView images[] = {{bytes.data(), 90, 70, Colours::rgb}, {bytes.data(), 90, 70, Colours::bgr}};
  std::vector<float> logits(2 * model.output().size()), pixels(2 * model.input().size());
  const std::size_t network = allocations_of([&] { model.infer(pixels, 2, logits); });
  CHECK(allocations_of([&] { model.infer(images, logits); }) == network);
}

// Calls call() again and again where there are at most 1, 2, 4, ... KiB in one piece, until it gets through; how often
// it did not. All it may throw is Error.
template <typename Call>
static int failures_of(const Call& call) {
  for (int failures = 0;; ++failures) {
    largest_allocation = std::size_t{1024} << failures;
    std::optional<ErrorCode> code;
    try {
      call();
    } catch (const Error& error) {
      code = error.code();
    }
    largest_allocation = ~std::size_t{0};
    if (!code) return failures;
    if (*code != ErrorCode::out_of_memory) FAIL(to_string(*code));
  }
}

TEST_CASE("where memory is short, that is an Error") {
  Options options;
  options.backend = Backend::onnxruntime;
  options.threads = 1;
  for (const std::string name : {"bound", "bound-int8", "bank", "refit"}) {
    CAPTURE(name);
    const std::string path = bundle_path(name).string();
    CHECK(failures_of([&] {
            if (const auto reason = check_compatibility(path, options)) throw *reason;
          }) >= 3);
    CHECK(failures_of([&] { Model::load(path, options); }) > 5);
    const Model model = Model::load(path, options);
    if (name != "bank") CHECK(failures_of([&] { model.clone(); }) > 5);
  }
}

TEST_CASE("where memory is short, that is a status in C") {
  const std::string path = bundle_path("bound").string();
  floats_rt_options options{};
  options.struct_size = sizeof options;
  options.backend = FLOATS_RT_ONNXRUNTIME;
  options.threads = 1;
  CHECK(failures_of([&] {
          floats_rt_model* model = nullptr;
          const floats_rt_status status = floats_rt_load(path.c_str(), &options, &model);
          floats_rt_free(model);
          if (status == FLOATS_RT_OUT_OF_MEMORY) throw Error(out_of_memory());
          if (status != FLOATS_RT_OK) FAIL(floats_rt_last_error());
        }) > 5);

  largest_allocation = 0;
  const floats_rt_status loaded = floats_rt_load(path.c_str(), &options, nullptr);
  const floats_rt_status checked = floats_rt_check(path.c_str(), &options);
  largest_allocation = ~std::size_t{0};
  CHECK(loaded == FLOATS_RT_OUT_OF_MEMORY);  // there was no memory to say that a pointer is null
  CHECK(checked == FLOATS_RT_OUT_OF_MEMORY);
  CHECK(floats_rt_last_error() == std::string(out_of_memory().what()));
}

}  // namespace floats_rt
