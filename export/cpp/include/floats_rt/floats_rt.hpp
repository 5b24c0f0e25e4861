// floats_rt: run a bundle that `floats-edge export` made, and turn its lambda knob, from C++17.
//
// Images are 8-bit pixels of any size, as a camera or a decoder gives them (ImageView), or float32, NCHW, in [0, 1].
// Normalisation is inside the network. Logits are float32, [batch, classes].
// Lambda is the knob: 0 is the most accurate on clean images, 1 the most robust against attacked ones.
//
// Threads: a Model belongs to one thread at a time. Any thread, at any time, may call what says so: it may turn the
// knob while the model's own thread infers. For several threads give each its own clone(); clones share the loaded
// engines and weights, which are never written to, and nothing else. Everything here that fails throws Error, also
// where memory runs out.
#ifndef FLOATS_RT_FLOATS_RT_HPP
#define FLOATS_RT_FLOATS_RT_HPP

#if __cplusplus < 201703L
#  error "floats_rt.hpp needs C++17: compile with -std=c++17"
#endif

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "floats_rt/export.h"

struct CUstream_st;  // what cudaStream_t points to

namespace floats_rt {

enum class ErrorCode {
  bundle_not_found = 1,  // there is no bundle at that path
  bundle_invalid,        // the bundle is damaged, altered, hostile, or made by a floats-edge this library does not know
  backend_unavailable,   // the backend's library is missing, too old, or was not compiled in
  no_device,             // there is no usable CUDA device
  engine_incompatible,   // no engine runs here, it does not give the golden outputs, or floats-edge verify failed on it
  lambda_out_of_range,   // lambda is not a number in [0, 1]
  lambda_unsupported,    // the bundle does not serve this lambda, or in a mode that does not go with its precision
  bad_shape,             // a span does not have the size that the batch asks for, or a pointer not the alignment
  runtime,               // the backend failed, or an earlier failure left the model broken
  out_of_memory,         // there is not enough memory, or the bundle asks for more than Options::max_bytes
  policy_invalid,        // the settings of a LambdaPolicy do not go together
  cancelled,             // Model::cancel() ended the inference
  deadline_exceeded,     // the inference took longer than Model::set_time_limit() allows
};

// The name of a code, for example "bundle_invalid".
FLOATS_RT_API const char* to_string(ErrorCode code) noexcept;

// What happened, and how to mend it: what() holds both.
class FLOATS_RT_API Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& what, const std::string& remedy);
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

// A view of contiguous elements that someone else owns: an array, a std::array, a std::vector, another Span.
template <typename T>
class Span {
 public:
  constexpr Span() noexcept = default;
  constexpr Span(T* data, std::size_t size) noexcept : data_(data), size_(size) {}
  template <std::size_t N>
  constexpr Span(T (&array)[N]) noexcept : data_(array), size_(N) {}
  template <typename Container, typename Element = std::remove_pointer_t<decltype(std::declval<Container&>().data())>,
            typename = std::enable_if_t<std::is_convertible_v<Element (*)[], T (*)[]>>>  // const may be added, no more
  constexpr Span(Container& container) noexcept : data_(container.data()), size_(container.size()) {}
  template <typename U, typename = std::enable_if_t<std::is_convertible_v<U (*)[], T (*)[]>>>
  constexpr Span(const Span<U>& other) noexcept : data_(other.data()), size_(other.size()) {}

  constexpr T* data() const noexcept { return data_; }
  constexpr std::size_t size() const noexcept { return size_; }
  constexpr T* begin() const noexcept { return data_; }
  constexpr T* end() const noexcept { return data_ + size_; }
  constexpr T& operator[](std::size_t index) const noexcept { return data_[index]; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

// The version of this library, for example "0.1.0".
FLOATS_RT_API const char* version() noexcept;

enum class Backend {
  automatic,    // TensorRT if it runs the bundle here; else ONNX Runtime, and the log says why
  tensorrt,     // NVIDIA GPU; the bundle holds an engine that was built for this machine
  onnxruntime,  // CPU
};

// How the lambda of a bundle is turned, and the type in which it computes: see floats-edge export --help.
enum class Mode { fixed, bank, bound, refit, input };
enum class Precision { fp32, fp16, bf16, int8 };

// A line of the log. Who said it is "floats_rt", "TensorRT" or "ONNX Runtime".
enum class Severity { info, warning, error };
struct LogLine {
  Severity severity;
  std::string source;
  std::string text;  // without line end
};

// Names, for example "tensorrt", "bound", "fp16" and "warning".
FLOATS_RT_API const char* to_string(Backend backend) noexcept;
FLOATS_RT_API const char* to_string(Mode mode) noexcept;
FLOATS_RT_API const char* to_string(Precision precision) noexcept;
FLOATS_RT_API const char* to_string(Severity severity) noexcept;

struct Options {
  Backend backend = Backend::automatic;

  // Compare with the golden outputs of the bundle while loading; costs a few inferences.
  bool check_golden = true;

  // CPU threads for ONNX Runtime and for computing W(lambda); 0: as many as there are cores.
  int threads = 0;

  // Most memory, in bytes, that the manifest of a bundle may ask this library for: for its files and for the weights
  // that are computed from them. Refused beyond that (out_of_memory), before it is allocated. What the backend makes of
  // it comes on top, and so do clones and what request_lambda() needs.
  std::uint64_t max_bytes = std::uint64_t{4} << 30;

  // CUDA device of TensorRT. The calling thread's current device is the same after a call as before it.
  int device = 0;

  // The backends' libraries. Empty: the file that FLOATS_RT_ONNXRUNTIME or FLOATS_RT_TENSORRT names, otherwise
  // libonnxruntime.so or libnvinfer.so from where the dynamic linker looks.
  std::string onnxruntime_library;
  std::string tensorrt_library;

  // Told what is worth knowing, also the warnings and errors of TensorRT and ONNX Runtime, by whichever thread it
  // happens in: that of a model, of a clone, of request_lambda or of the backend, so that calls may overlap. Empty:
  // warnings and errors go to standard error.
  std::function<void(const LogLine&)> log;
};

enum class Colours { rgb, bgr, grey, rgba, bgra };  // in the order of the bytes; alpha is ignored

// An image that someone else owns: upright, 8 bits a channel, the channels of a pixel next to each other.
struct ImageView {
  const std::uint8_t* data;   // the first row
  std::size_t height, width;  // in pixels, up to 65,535
  Colours colours;
  std::size_t stride = 0;  // bytes from one row to the next; 0: they follow each other
};

enum class Resize {
  short_side,  // scaled until it covers a size, then its centre is kept
  squash,      // scaled to the size, whatever the proportions
  pad,         // scaled until it fits into the size, centred on black
};

// How an image becomes what a network takes: as in its training, to the bit. floats_edge/preprocessing.py has the
// rules.
struct Preprocessing {
  std::size_t height, width;  // of what the network takes
  Resize resize;
  std::size_t covered_height, covered_width;  // short_side: what the scaled image covers before it is cropped
  bool antialias;                             // average over all pixels when scaling down; off: two in each direction
  Colours colours;                            // rgb, bgr or grey: what the network takes
};

struct InputSpec {
  std::string name;
  std::size_t channels, height, width;
  float minimum, maximum;  // of pixel values

  // Number of floats in one image.
  std::size_t size() const noexcept { return channels * height * width; }
};

struct OutputSpec {
  std::string name;
  std::vector<std::string> labels;  // in the order of the logits

  std::size_t size() const noexcept { return labels.size(); }
};

struct LambdaRange {
  float minimum, maximum;
  std::vector<float> values;  // the only ones served; empty: any from minimum to maximum
};

// What floats-edge verify found on a backend.
struct Verdict {
  std::string library;   // that it was found with, and its version
  std::string problems;  // empty: it passed
  bool let_pass;         // there are problems, and whoever verified it allowed them
};

// Why Model::load would throw for this bundle and these options, as far as can be told without deserialising an engine
// or a graph; nothing if there is no reason.
FLOATS_RT_API std::optional<Error> check_compatibility(const std::string& directory, const Options& options = {});

// What Model::set_time_limit() takes for none.
inline constexpr std::chrono::nanoseconds kNoTimeLimit = std::chrono::nanoseconds::max();

// A bundle, loaded and ready to run. Movable, not copyable; a moved-from model may only be destroyed or assigned to.
class FLOATS_RT_API Model {
 public:
  // Loads a bundle at the first lambda that it serves (0 if it serves any). Nothing is deserialised before its sha256
  // has been checked.
  static Model load(const std::string& directory, const Options& options = {});

  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;
  ~Model();

  // A second model for another thread, at this model's lambda and with its time limit. In mode `refit` it has an engine
  // of its own.
  Model clone() const;

  const InputSpec& input() const noexcept;
  const Preprocessing& preprocessing() const noexcept;
  const OutputSpec& output() const noexcept;
  const std::vector<std::string>& labels() const noexcept { return output().labels; }
  const LambdaRange& lambda_range() const noexcept;
  Mode mode() const noexcept;
  Precision precision() const noexcept;
  Backend backend() const noexcept;                     // the one that runs it, never `automatic`
  const std::string& backend_version() const noexcept;  // of its library, for example "1.23.2"
  std::optional<Verdict> verdict() const;               // on that backend; nothing if it was not verified there

  // The lambda in force: after an inference, the one that this inference used. Any thread may ask.
  float lambda() const noexcept;

  // Asks for `lambda` and returns at once; any thread may ask, also while another infers, but not while the model is
  // moved or destroyed. A thread of the model's makes the weights beside those in use, and the first inference that
  // begins after, or the next one, puts them in force. Inferences wait for nothing, and each runs at one lambda. Of
  // several requests that wait the latest wins. The first request for a lambda that is not in force starts the thread
  // and takes memory: as much again as what depends on lambda, and in mode `refit` another engine. With TensorRT the
  // thread allocates device memory at a time of its own; if your program captures a CUDA graph then, in global mode
  // too, the capture stays whole (never tried on a GPU). If the request is refused (lambda_out_of_range,
  // lambda_unsupported) or there can be no thread (runtime), it throws, and nothing changes.
  void request_lambda(float lambda);

  // Why the weights that were asked for last could not be made: lambda then stays as it is, the model runs on, and the
  // log has it too. Nothing if they were, or are not yet. Any thread may ask.
  std::optional<Error> request_failure() const;

  // Puts `lambda` in force and returns it; takes effect with the next inference. In mode `bound` it recomputes all
  // weights on the CPU, and with TensorRT copies them to the GPU; in mode `refit` it also refits the engine, or with
  // ONNX Runtime makes the session anew; otherwise it is instant. What was requested before is forgotten, after what
  // is being made of it. If it is refused (lambda_out_of_range, lambda_unsupported), nothing changes; if it fails
  // (runtime), the model is broken and every later call but destruction throws. Whoever chooses `lambda` chooses how
  // robust the network is: take it from nobody you do not trust.
  float set_lambda(float lambda);

  // Makes of images what the network takes, each by preprocessing(), runs them as one batch and fills logits
  // [images, classes]. bad_shape: an image without pixels, with too many, or too thin to be scaled; nothing has run
  // then. What this takes of memory is kept: once warm, images of the same size allocate nothing.
  void infer(Span<const ImageView> images, Span<float> logits);
  void infer(const ImageView& image, Span<float> logits);

  // The same without the network: fills pixels [channels, height, width], for infer and infer_async, or to look at.
  void preprocess(const ImageView& image, Span<float> pixels);

  // Runs `batch` images [batch, channels, height, width] and fills logits [batch, classes]. Any batch from 1 on: with
  // TensorRT, more than the engine's largest batch is run in parts, and while the GPU computes one, the next is copied
  // to it (never run on a GPU). The first such batch takes memory that is kept: as much again as images and logits of
  // the engine's largest batch take, on the GPU and page-locked. If there is not as much it throws (runtime), and takes
  // none.
  void infer(Span<const float> images, std::size_t batch, Span<float> logits);

  // Ends the infer that is running, which throws `cancelled`; nothing if none is. Any thread may cancel, but not while
  // the model is moved or destroyed. The logits are then undefined, and the model is as it was: the next infer gives
  // what it would have given. ONNX Runtime ends when the layer that it computes is done. What TensorRT has queued on
  // the device runs on, in memory of the model's own: where there is a time limit infer no longer waits for it, but the
  // next one does; where there is none infer waits for it.
  void cancel();

  // From now on an infer that takes longer ends in the same way and throws `deadline_exceeded`. One that is done gives
  // its logits, also if it is late. A thread of the model's watches the clock, from the first limit on; with TensorRT
  // infer looks about every 0.1 ms whether the device is done, in place of CUDA's own way of waiting. If there can be
  // no thread (runtime), it throws, and nothing changes.
  void set_time_limit(std::chrono::nanoseconds limit);

  // TensorRT only: queues the same on `stream` and returns. The pointers are device memory at multiples of 256 bytes,
  // as cudaMalloc gives it, and the batch is within the limits of the engine: otherwise bad_shape. Later calls on this
  // model wait on the device for this one, whatever their stream; the stream must live until it is done. A stream that
  // is being captured is refused (runtime), and the capture goes on: later calls could not wait for a CUDA graph, which
  // would read weights while others are written. If it fails after it has queued something, it waits for the stream
  // before it throws.
  void infer_async(const float* device_images, std::size_t batch, float* device_logits, CUstream_st* stream);

 private:
  struct State;
  explicit Model(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

}  // namespace floats_rt

#endif  // FLOATS_RT_FLOATS_RT_HPP
