// floats_rt: run a bundle that `floats-edge export` made, and turn its lambda knob, from C99 and whatever calls C.
//
//   floats_rt_model* model;
//   if (floats_rt_load("bundle", NULL, &model) != FLOATS_RT_OK) return fail(floats_rt_last_error());
//   floats_rt_set_lambda(model, 0.5f);                                  // 0: clean accuracy, 1: robustness
//   floats_rt_image_view image = {pixels, height, width, 0, FLOATS_RT_BGR};
//   float logits[10];                                                   // floats_rt_label_count(model) of them
//   if (floats_rt_infer_images(model, &image, 1, logits, 10) != FLOATS_RT_OK) return fail(floats_rt_last_error());
//   floats_rt_free(model);
//
// What can fail returns a status, and floats_rt_last_error() says what happened and how to mend it. A null pointer, or
// a number that means nothing, is a status too (FLOATS_RT_INVALID_ARGUMENT); it crashes nothing. What cannot fail
// returns its value: 0, NULL or NaN where the model is NULL or there is none at that index.
//
// Threads: a model belongs to one thread at a time. Any thread, at any time, may call what says so. For several threads
// give each a clone: clones share what they only read. Do not free a model while another thread calls something on it.
//
// Strings are UTF-8. Those that are given out live as long as their model.
//
// The interface stays as it is until the library is libfloats_rt.so.1: there may be more functions, more numbers at the
// end of a list, more members at the end of floats_rt_options; nothing else changes. floats_rt.hpp is the same in C++,
// and more: verdicts, how images are made ready, and CUDA streams.
#ifndef FLOATS_RT_FLOATS_RT_H
#define FLOATS_RT_FLOATS_RT_H

#include <stddef.h>
#include <stdint.h>

#include "floats_rt/export.h"

#ifdef __cplusplus
extern "C" {
#endif

// ---- Status and errors

typedef int32_t floats_rt_status;
enum {
  FLOATS_RT_INVALID_ARGUMENT = -1,    // a pointer is null, or a number means nothing to this version of the library
  FLOATS_RT_OK = 0,                   // it worked
  FLOATS_RT_BUNDLE_NOT_FOUND = 1,     // there is no bundle at that path
  FLOATS_RT_BUNDLE_INVALID = 2,       // the bundle is damaged, altered, hostile, or of a version not known here
  FLOATS_RT_BACKEND_UNAVAILABLE = 3,  // the backend's library is missing, too old, or was not compiled in
  FLOATS_RT_NO_DEVICE = 4,            // there is no usable CUDA device
  FLOATS_RT_ENGINE_INCOMPATIBLE = 5,  // no engine runs here, or not as it should: see floats-edge verify
  FLOATS_RT_LAMBDA_OUT_OF_RANGE = 6,  // lambda is not a number in [0, 1]
  FLOATS_RT_LAMBDA_UNSUPPORTED = 7,   // the bundle does not serve this lambda
  FLOATS_RT_BAD_SHAPE = 8,            // a size is not what the batch asks for, or an image cannot be scaled
  FLOATS_RT_RUNTIME = 9,              // the backend failed, or an earlier failure left the model broken
  FLOATS_RT_OUT_OF_MEMORY = 10,       // there is not enough memory, or the bundle asks for more than max_bytes
  FLOATS_RT_CANCELLED = 12,           // floats_rt_cancel ended the inference
  FLOATS_RT_DEADLINE_EXCEEDED = 13    // the inference took longer than floats_rt_set_time_limit allows
};

// The name of a status, for example "bundle_invalid"; "unknown" if there is none.
FLOATS_RT_API const char* floats_rt_status_name(floats_rt_status status);

// What happened in the last call that failed on this thread, and how to mend it; "" if none has. Valid until this
// thread calls anything here again.
FLOATS_RT_API const char* floats_rt_last_error(void);

// The version of this library, for example "0.1.0".
FLOATS_RT_API const char* floats_rt_version(void);

// ---- Loading

typedef int32_t floats_rt_backend;
enum {
  FLOATS_RT_AUTOMATIC = 0,   // TensorRT if it runs the bundle here; else ONNX Runtime, and the log says why
  FLOATS_RT_TENSORRT = 1,    // NVIDIA GPU; the bundle holds an engine that was built for this machine
  FLOATS_RT_ONNXRUNTIME = 2  // CPU
};

typedef int32_t floats_rt_severity;
enum { FLOATS_RT_INFO = 0, FLOATS_RT_WARNING = 1, FLOATS_RT_ERROR = 2 };

// Told what is worth knowing, by whichever thread it happens in: calls may overlap. `source` is "floats_rt", "TensorRT"
// or "ONNX Runtime"; `text` is one line, without its end. Both are gone when it returns.
typedef void (*floats_rt_log)(void* context, floats_rt_severity severity, const char* source, const char* text);

// Everything is 0 or NULL unless it is set, which means what stands first in each line:
//   floats_rt_options options = {.struct_size = sizeof options, .threads = 1};
typedef struct floats_rt_options {
  size_t struct_size;               // sizeof(floats_rt_options), by which later versions know what the program knew
  floats_rt_backend backend;        // automatic
  int32_t skip_golden;              // 0: compare with the golden outputs of the bundle while loading; 1: do not
  int32_t threads;                  // 0: as many CPU threads as there are cores; or how many
  int32_t device;                   // 0: the first CUDA device; or another
  uint64_t max_bytes;               // 0: 4 GiB; or the most memory that a bundle may ask this library for
  const char* onnxruntime_library;  // NULL: where FLOATS_RT_ONNXRUNTIME says, or the dynamic linker looks; or a path
  const char* tensorrt_library;     // NULL: the same with FLOATS_RT_TENSORRT; or a path
  floats_rt_log log;                // NULL: warnings and errors go to standard error; or a function that is told
  void* log_context;                // given to `log`
} floats_rt_options;

typedef struct floats_rt_model floats_rt_model;

// Whether floats_rt_load would succeed, as far as can be told without deserialising an engine or a graph: its status if
// not. Here and below, options may be NULL.
FLOATS_RT_API floats_rt_status floats_rt_check(const char* bundle, const floats_rt_options* options);

// Loads the bundle in a folder, at the first lambda that it serves (0 if it serves any). *model is NULL if that fails.
FLOATS_RT_API floats_rt_status floats_rt_load(const char* bundle, const floats_rt_options* options,
                                              floats_rt_model** model);

// Makes a second model for another thread, at this model's lambda and with its time limit. *clone is NULL if that
// fails.
FLOATS_RT_API floats_rt_status floats_rt_clone(const floats_rt_model* model, floats_rt_model** clone);

// Frees a model. Its clones stay. NULL: nothing happens.
FLOATS_RT_API void floats_rt_free(floats_rt_model* model);

// ---- Inference

typedef int32_t floats_rt_colours;  // in the order of the bytes; alpha is ignored
enum { FLOATS_RT_RGB = 0, FLOATS_RT_BGR = 1, FLOATS_RT_GREY = 2, FLOATS_RT_RGBA = 3, FLOATS_RT_BGRA = 4 };

// An image of yours: upright, 8 bits a channel, the channels of a pixel next to each other.
typedef struct floats_rt_image_view {
  const uint8_t* data;   // the first row
  size_t height, width;  // in pixels, up to 65,535
  size_t stride;         // bytes from one row to the next; 0: they follow each other
  floats_rt_colours colours;
} floats_rt_image_view;

// Runs `count` images of any size as one batch. Each is first scaled and cropped as in training, to the bit. Fills
// logits [count, labels], which has room for `logits_size` floats: exactly count * floats_rt_label_count(model).
FLOATS_RT_API floats_rt_status floats_rt_infer_images(floats_rt_model* model, const floats_rt_image_view* images,
                                                      size_t count, float* logits, size_t logits_size);

// Runs `batch` images that are ready: float32 [batch, channels, height, width] in [0, 1]. The sizes are in floats:
// exactly batch * floats_rt_input_size(model) and batch * floats_rt_label_count(model).
FLOATS_RT_API floats_rt_status floats_rt_infer(floats_rt_model* model, const float* images, size_t images_size,
                                               size_t batch, float* logits, size_t logits_size);

// Ends the inference that is running on a model, which returns FLOATS_RT_CANCELLED; nothing happens if none is. Any
// thread may cancel, but not while the model is freed. The logits are then undefined, and the model is as it was. ONNX
// Runtime ends when the layer that it computes is done; what TensorRT has queued on the device runs on, but is no
// longer waited for where there is a time limit.
FLOATS_RT_API floats_rt_status floats_rt_cancel(floats_rt_model* model);

// From now on an inference that takes longer than so many nanoseconds ends in the same way and returns
// FLOATS_RT_DEADLINE_EXCEEDED; one that is done gives its logits, also if it is late. FLOATS_RT_NO_TIME_LIMIT: it may
// take as long as it likes.
#define FLOATS_RT_NO_TIME_LIMIT INT64_MAX
FLOATS_RT_API floats_rt_status floats_rt_set_time_limit(floats_rt_model* model, int64_t nanoseconds);

// ---- The knob: 0 is the most accurate on clean images, 1 the most robust against attacked ones. Whoever chooses
// lambda chooses how robust the network is: take it from nobody you do not trust.

// Puts lambda in force, for the next inference, before it returns. If it is refused, nothing changes; if it fails
// (FLOATS_RT_RUNTIME), the model is broken: free it and load it again.
FLOATS_RT_API floats_rt_status floats_rt_set_lambda(floats_rt_model* model, float lambda);

// Asks for lambda and returns at once. Any thread may ask, also while another infers: inferences wait for nothing, and
// the first one that begins after the weights are made, or the next one, uses them. Of several requests that wait the
// latest wins. With TensorRT a thread of the model's allocates device memory at a time of its own: do not request, nor
// have a request under way, while your program captures a CUDA graph in global mode (never tried on a GPU).
FLOATS_RT_API floats_rt_status floats_rt_request_lambda(floats_rt_model* model, float lambda);

// Why the weights that were asked for last could not be made: the model then runs on as it is. FLOATS_RT_OK if they
// were, or are not yet. Any thread may ask.
FLOATS_RT_API floats_rt_status floats_rt_request_failure(const floats_rt_model* model);

// The lambda in force: after an inference, the one that this inference used. Any thread may ask.
FLOATS_RT_API float floats_rt_lambda(const floats_rt_model* model);

// Which lambdas the bundle serves: `count` values, each by its index; if count is 0, any from minimum to maximum.
FLOATS_RT_API float floats_rt_lambda_minimum(const floats_rt_model* model);
FLOATS_RT_API float floats_rt_lambda_maximum(const floats_rt_model* model);
FLOATS_RT_API size_t floats_rt_lambda_count(const floats_rt_model* model);
FLOATS_RT_API float floats_rt_lambda_value(const floats_rt_model* model, size_t index);

// ---- What a model is

// Of one image of floats_rt_infer; the size is their product.
FLOATS_RT_API size_t floats_rt_channels(const floats_rt_model* model);
FLOATS_RT_API size_t floats_rt_height(const floats_rt_model* model);
FLOATS_RT_API size_t floats_rt_width(const floats_rt_model* model);
FLOATS_RT_API size_t floats_rt_input_size(const floats_rt_model* model);

// The names of the classes, in the order of the logits.
FLOATS_RT_API size_t floats_rt_label_count(const floats_rt_model* model);
FLOATS_RT_API const char* floats_rt_label(const floats_rt_model* model, size_t index);

// For example "bound", "fp16", "onnxruntime" and "1.23.2".
FLOATS_RT_API const char* floats_rt_mode(const floats_rt_model* model);
FLOATS_RT_API const char* floats_rt_precision(const floats_rt_model* model);
FLOATS_RT_API const char* floats_rt_backend_name(const floats_rt_model* model);
FLOATS_RT_API const char* floats_rt_backend_version(const floats_rt_model* model);

#ifdef __cplusplus
}
#endif

#endif  // FLOATS_RT_FLOATS_RT_H
