// What programs that were compiled against floats_rt.h rely on: it may grow, but nothing here may change, or the
// library must become libfloats_rt.so.1. tools/test_cpp compares the names with what a shared library exports.
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "floats_rt/floats_rt.h"

#define PROMISED(function, ...) static_assert(std::is_same_v<decltype(function), __VA_ARGS__>)
#define AT(structure, member, offset) static_assert(offsetof(structure, member) == offset)

PROMISED(floats_rt_backend_name, const char*(const floats_rt_model*));
PROMISED(floats_rt_backend_version, const char*(const floats_rt_model*));
PROMISED(floats_rt_cancel, std::int32_t(floats_rt_model*));
PROMISED(floats_rt_channels, std::size_t(const floats_rt_model*));
PROMISED(floats_rt_check, std::int32_t(const char*, const floats_rt_options*));
PROMISED(floats_rt_clone, std::int32_t(const floats_rt_model*, floats_rt_model**));
PROMISED(floats_rt_free, void(floats_rt_model*));
PROMISED(floats_rt_height, std::size_t(const floats_rt_model*));
PROMISED(floats_rt_infer, std::int32_t(floats_rt_model*, const float*, std::size_t, std::size_t, float*, std::size_t));
PROMISED(floats_rt_infer_images,
         std::int32_t(floats_rt_model*, const floats_rt_image_view*, std::size_t, float*, std::size_t));
PROMISED(floats_rt_input_size, std::size_t(const floats_rt_model*));
PROMISED(floats_rt_label, const char*(const floats_rt_model*, std::size_t));
PROMISED(floats_rt_label_count, std::size_t(const floats_rt_model*));
PROMISED(floats_rt_lambda, float(const floats_rt_model*));
PROMISED(floats_rt_lambda_count, std::size_t(const floats_rt_model*));
PROMISED(floats_rt_lambda_maximum, float(const floats_rt_model*));
PROMISED(floats_rt_lambda_minimum, float(const floats_rt_model*));
PROMISED(floats_rt_lambda_value, float(const floats_rt_model*, std::size_t));
PROMISED(floats_rt_last_error, const char*());
PROMISED(floats_rt_load, std::int32_t(const char*, const floats_rt_options*, floats_rt_model**));
PROMISED(floats_rt_mode, const char*(const floats_rt_model*));
PROMISED(floats_rt_precision, const char*(const floats_rt_model*));
PROMISED(floats_rt_request_failure, std::int32_t(const floats_rt_model*));
PROMISED(floats_rt_request_lambda, std::int32_t(floats_rt_model*, float));
PROMISED(floats_rt_set_lambda, std::int32_t(floats_rt_model*, float));
PROMISED(floats_rt_set_time_limit, std::int32_t(floats_rt_model*, std::int64_t));
PROMISED(floats_rt_status_name, const char*(std::int32_t));
PROMISED(floats_rt_version, const char*());
PROMISED(floats_rt_width, std::size_t(const floats_rt_model*));

static_assert(std::is_same_v<floats_rt_log, void (*)(void*, std::int32_t, const char*, const char*)>);

static_assert(sizeof(floats_rt_image_view) == 40);
AT(floats_rt_image_view, data, 0);
AT(floats_rt_image_view, height, 8);
AT(floats_rt_image_view, width, 16);
AT(floats_rt_image_view, stride, 24);
AT(floats_rt_image_view, colours, 32);

static_assert(sizeof(floats_rt_options) == 64);  // may grow
AT(floats_rt_options, struct_size, 0);
AT(floats_rt_options, backend, 8);
AT(floats_rt_options, skip_golden, 12);
AT(floats_rt_options, threads, 16);
AT(floats_rt_options, device, 20);
AT(floats_rt_options, max_bytes, 24);
AT(floats_rt_options, onnxruntime_library, 32);
AT(floats_rt_options, tensorrt_library, 40);
AT(floats_rt_options, log, 48);
AT(floats_rt_options, log_context, 56);

static_assert(FLOATS_RT_INVALID_ARGUMENT == -1 && FLOATS_RT_OK == 0);
static_assert(FLOATS_RT_BUNDLE_NOT_FOUND == 1 && FLOATS_RT_BUNDLE_INVALID == 2 && FLOATS_RT_BACKEND_UNAVAILABLE == 3);
static_assert(FLOATS_RT_NO_DEVICE == 4 && FLOATS_RT_ENGINE_INCOMPATIBLE == 5 && FLOATS_RT_LAMBDA_OUT_OF_RANGE == 6);
static_assert(FLOATS_RT_LAMBDA_UNSUPPORTED == 7 && FLOATS_RT_BAD_SHAPE == 8 && FLOATS_RT_RUNTIME == 9);
static_assert(FLOATS_RT_OUT_OF_MEMORY == 10 && FLOATS_RT_CANCELLED == 12 && FLOATS_RT_DEADLINE_EXCEEDED == 13);
static_assert(FLOATS_RT_NO_TIME_LIMIT == INT64_MAX);
static_assert(FLOATS_RT_AUTOMATIC == 0 && FLOATS_RT_TENSORRT == 1 && FLOATS_RT_ONNXRUNTIME == 2);
static_assert(FLOATS_RT_INFO == 0 && FLOATS_RT_WARNING == 1 && FLOATS_RT_ERROR == 2);
static_assert(FLOATS_RT_RGB == 0 && FLOATS_RT_BGR == 1 && FLOATS_RT_GREY == 2);
static_assert(FLOATS_RT_RGBA == 3 && FLOATS_RT_BGRA == 4);
