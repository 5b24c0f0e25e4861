// floats_rt.h on top of floats_rt.hpp: no exception leaves it, and nothing null or unknown enters it.
#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "border.hpp"
#include "floats_rt/floats_rt.h"

using namespace floats_rt;

struct floats_rt_model {
  Model model;
  std::vector<ImageView> images{};  // of the last call
};

namespace {

static_assert(FLOATS_RT_BUNDLE_NOT_FOUND == static_cast<int>(ErrorCode::bundle_not_found));
static_assert(FLOATS_RT_BUNDLE_INVALID == static_cast<int>(ErrorCode::bundle_invalid));
static_assert(FLOATS_RT_BACKEND_UNAVAILABLE == static_cast<int>(ErrorCode::backend_unavailable));
static_assert(FLOATS_RT_NO_DEVICE == static_cast<int>(ErrorCode::no_device));
static_assert(FLOATS_RT_ENGINE_INCOMPATIBLE == static_cast<int>(ErrorCode::engine_incompatible));
static_assert(FLOATS_RT_LAMBDA_OUT_OF_RANGE == static_cast<int>(ErrorCode::lambda_out_of_range));
static_assert(FLOATS_RT_LAMBDA_UNSUPPORTED == static_cast<int>(ErrorCode::lambda_unsupported));
static_assert(FLOATS_RT_BAD_SHAPE == static_cast<int>(ErrorCode::bad_shape));
static_assert(FLOATS_RT_RUNTIME == static_cast<int>(ErrorCode::runtime));
static_assert(FLOATS_RT_OUT_OF_MEMORY == static_cast<int>(ErrorCode::out_of_memory));
static_assert(FLOATS_RT_CANCELLED == static_cast<int>(ErrorCode::cancelled));
static_assert(FLOATS_RT_DEADLINE_EXCEEDED == static_cast<int>(ErrorCode::deadline_exceeded));
static_assert(FLOATS_RT_NO_TIME_LIMIT == kNoTimeLimit.count());
static_assert(FLOATS_RT_AUTOMATIC == static_cast<int>(Backend::automatic));
static_assert(FLOATS_RT_TENSORRT == static_cast<int>(Backend::tensorrt));
static_assert(FLOATS_RT_ONNXRUNTIME == static_cast<int>(Backend::onnxruntime));
static_assert(FLOATS_RT_INFO == static_cast<int>(Severity::info));
static_assert(FLOATS_RT_WARNING == static_cast<int>(Severity::warning));
static_assert(FLOATS_RT_ERROR == static_cast<int>(Severity::error));
static_assert(FLOATS_RT_RGB == static_cast<int>(Colours::rgb));
static_assert(FLOATS_RT_BGR == static_cast<int>(Colours::bgr));
static_assert(FLOATS_RT_GREY == static_cast<int>(Colours::grey));
static_assert(FLOATS_RT_RGBA == static_cast<int>(Colours::rgba));
static_assert(FLOATS_RT_BGRA == static_cast<int>(Colours::bgra));

constexpr float kNoNumber = std::numeric_limits<float>::quiet_NaN();
constexpr std::size_t kFirstOptions = 64;      // the size of the first version of floats_rt_options
constexpr std::size_t kLargestOptions = 4096;  // beyond that it is no size

thread_local std::optional<Error> last_error;  // copying an Error takes no memory

// What is wrong with a call. Not an std::exception, so that translated() lets it pass.
struct InvalidArgument {
  Error error;
  InvalidArgument(const std::string& what, const std::string& remedy) : error(ErrorCode::runtime, what, remedy) {}
};

floats_rt_status failed(floats_rt_status status, const Error& error) noexcept {
  last_error = error;
  return status;
}

floats_rt_status failed(const Error& error) noexcept { return failed(static_cast<int>(error.code()), error); }

const Error& foreign() {
  static const Error error(ErrorCode::runtime, "the application's log threw what is no std::exception.",
                           "let nothing be thrown there");
  return error;
}

[[maybe_unused]] const Error& made_while_there_is_memory = foreign();

// Calls call(), and makes a status of what it throws.
template <typename Call>
floats_rt_status status_of(const Call& call) noexcept {
  try {
    translated(call);
    return FLOATS_RT_OK;
  } catch (const InvalidArgument& invalid) {
    return failed(FLOATS_RT_INVALID_ARGUMENT, invalid.error);
  } catch (const Error& error) {
    return failed(error);
  } catch (...) {
    return failed(foreign());
  }
}

template <typename T>
T& given(T* pointer, const char* name) {
  if (pointer) return *pointer;
  throw InvalidArgument(std::string(name) + " is NULL.", "pass a pointer to what floats_rt.h says");
}

// An enumerator, from `first` to `last`, of a number.
template <typename Enum>
Enum enumerator(std::int32_t number, Enum last, const char* name) {
  if (number >= 0 && number <= static_cast<std::int32_t>(last)) return static_cast<Enum>(number);
  throw InvalidArgument(std::string(name) + " cannot be " + std::to_string(number) + ".",
                        "choose one that floats_rt.h lists");
}

// The options that this version knows, of a program that was compiled against this version or another.
floats_rt_options known(const floats_rt_options& options) {
  floats_rt_options result{};
  const std::size_t size = options.struct_size;
  const auto* const bytes = reinterpret_cast<const unsigned char*>(&options);
  if (size < kFirstOptions || size > kLargestOptions) {
    throw InvalidArgument("struct_size of the options is " + std::to_string(size) + ".",
                          "set it: floats_rt_options options = {.struct_size = sizeof options}");
  }
  const bool is_known =
      size <= sizeof result || std::all_of(bytes + sizeof result, bytes + size, [](auto byte) { return byte == 0; });
  if (!is_known) {
    throw InvalidArgument("the program sets options that floats_rt " + std::string(version()) + " does not know.",
                          "use the library of which the program had floats_rt.h, or a newer one");
  }
  std::memcpy(&result, &options, std::min(size, sizeof result));
  return result;
}

Options options_of(const floats_rt_options* from) {
  Options options;
  if (!from) return options;
  const floats_rt_options set = known(*from);
  options.backend = enumerator(set.backend, Backend::onnxruntime, "the backend");
  options.check_golden = !set.skip_golden;
  options.threads = set.threads;
  options.device = set.device;
  if (set.max_bytes) options.max_bytes = set.max_bytes;
  if (set.onnxruntime_library) options.onnxruntime_library = set.onnxruntime_library;
  if (set.tensorrt_library) options.tensorrt_library = set.tensorrt_library;
  if (set.log) {
    options.log = [log = set.log, context = set.log_context](const LogLine& line) {
      log(context, static_cast<floats_rt_severity>(line.severity), line.source.c_str(), line.text.c_str());
    };
  }
  return options;
}

}  // namespace

const char* floats_rt_status_name(floats_rt_status status) {
  if (status == FLOATS_RT_OK) return "ok";
  if (status == FLOATS_RT_INVALID_ARGUMENT) return "invalid_argument";
  return to_string(static_cast<ErrorCode>(status));
}

const char* floats_rt_last_error(void) { return last_error ? last_error->what() : ""; }

const char* floats_rt_version(void) { return version(); }

floats_rt_status floats_rt_check(const char* bundle, const floats_rt_options* options) {
  return status_of([&] {
    if (const auto reason = check_compatibility(&given(bundle, "bundle"), options_of(options))) throw *reason;
  });
}

floats_rt_status floats_rt_load(const char* bundle, const floats_rt_options* options, floats_rt_model** model) {
  return status_of([&] {
    given(model, "model") = nullptr;
    *model = new floats_rt_model{Model::load(&given(bundle, "bundle"), options_of(options))};
  });
}

floats_rt_status floats_rt_clone(const floats_rt_model* model, floats_rt_model** clone) {
  return status_of([&] {
    given(clone, "clone") = nullptr;
    *clone = new floats_rt_model{given(model, "model").model.clone()};
  });
}

void floats_rt_free(floats_rt_model* model) { delete model; }

floats_rt_status floats_rt_infer_images(floats_rt_model* model, const floats_rt_image_view* images, size_t count,
                                        float* logits, size_t logits_size) {
  return status_of([&] {
    std::vector<ImageView>& views = given(model, "model").images;
    const floats_rt_image_view* const first = &given(images, "images");
    views.clear();
    std::for_each(first, first + count, [&](const floats_rt_image_view& image) {
      const Colours colours = enumerator(image.colours, Colours::bgra, "the colours of an image");
      views.push_back({&given(image.data, "data of an image"), image.height, image.width, colours, image.stride});
    });
    model->model.infer(views, {&given(logits, "logits"), logits_size});
  });
}

floats_rt_status floats_rt_infer(floats_rt_model* model, const float* images, size_t images_size, size_t batch,
                                 float* logits, size_t logits_size) {
  return status_of([&] {
    given(model, "model")
        .model.infer({&given(images, "images"), images_size}, batch, {&given(logits, "logits"), logits_size});
  });
}

floats_rt_status floats_rt_cancel(floats_rt_model* model) {
  return status_of([&] { given(model, "model").model.cancel(); });
}

floats_rt_status floats_rt_set_time_limit(floats_rt_model* model, int64_t nanoseconds) {
  return status_of([&] { given(model, "model").model.set_time_limit(std::chrono::nanoseconds(nanoseconds)); });
}

floats_rt_status floats_rt_set_lambda(floats_rt_model* model, float lambda) {
  return status_of([&] { given(model, "model").model.set_lambda(lambda); });
}

floats_rt_status floats_rt_request_lambda(floats_rt_model* model, float lambda) {
  return status_of([&] { given(model, "model").model.request_lambda(lambda); });
}

floats_rt_status floats_rt_request_failure(const floats_rt_model* model) {
  return status_of([&] {
    if (const auto failure = given(model, "model").model.request_failure()) throw *failure;
  });
}

float floats_rt_lambda(const floats_rt_model* model) { return model ? model->model.lambda() : kNoNumber; }

float floats_rt_lambda_minimum(const floats_rt_model* model) {
  return model ? model->model.lambda_range().minimum : kNoNumber;
}

float floats_rt_lambda_maximum(const floats_rt_model* model) {
  return model ? model->model.lambda_range().maximum : kNoNumber;
}

size_t floats_rt_lambda_count(const floats_rt_model* model) {
  return model ? model->model.lambda_range().values.size() : 0;
}

float floats_rt_lambda_value(const floats_rt_model* model, size_t index) {
  return index < floats_rt_lambda_count(model) ? model->model.lambda_range().values[index] : kNoNumber;
}

size_t floats_rt_channels(const floats_rt_model* model) { return model ? model->model.input().channels : 0; }
size_t floats_rt_height(const floats_rt_model* model) { return model ? model->model.input().height : 0; }
size_t floats_rt_width(const floats_rt_model* model) { return model ? model->model.input().width : 0; }
size_t floats_rt_input_size(const floats_rt_model* model) { return model ? model->model.input().size() : 0; }
size_t floats_rt_label_count(const floats_rt_model* model) { return model ? model->model.labels().size() : 0; }

const char* floats_rt_label(const floats_rt_model* model, size_t index) {
  return index < floats_rt_label_count(model) ? model->model.labels()[index].c_str() : nullptr;
}

const char* floats_rt_mode(const floats_rt_model* model) { return model ? to_string(model->model.mode()) : nullptr; }

const char* floats_rt_precision(const floats_rt_model* model) {
  return model ? to_string(model->model.precision()) : nullptr;
}

const char* floats_rt_backend_name(const floats_rt_model* model) {
  return model ? to_string(model->model.backend()) : nullptr;
}

const char* floats_rt_backend_version(const floats_rt_model* model) {
  return model ? model->model.backend_version().c_str() : nullptr;
}
