// ONNX Runtime's C API, from a library that is opened while the program runs.
#pragma once

#define ORT_API_MANUAL_INIT
#include <onnxruntime_c_api.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "log.hpp"
#include "shared_library.hpp"

namespace floats_rt {

constexpr std::uint32_t kOrtApiVersion = 17;  // the oldest that has all that is used here

template <typename T>
using Handle = std::unique_ptr<T, void (*)(T*)>;

// The library and its environment.
class OnnxRuntime {
 public:
  explicit OnnxRuntime(const std::string& path)
      : library_(path, "FLOATS_RT_ONNXRUNTIME", {"libonnxruntime.so.1", "libonnxruntime.so"}),
        base_(library_.get<const OrtApiBase*()>("OrtGetApiBase")()),
        api_(load(library_, *base_)),
        environment_(nullptr, api_->ReleaseEnv),
        memory_(nullptr, api_->ReleaseMemoryInfo) {
    environment_ = make(api_->ReleaseEnv, api_->CreateEnv, ORT_LOGGING_LEVEL_ERROR, "floats_rt");
    check(api_->DisableTelemetryEvents(environment_.get()));
    memory_ = make(api_->ReleaseMemoryInfo, api_->CreateCpuMemoryInfo, OrtDeviceAllocator, OrtMemTypeDefault);
  }

  const OrtApi& api() const noexcept { return *api_; }
  std::string version() const { return base_->GetVersionString(); }

  void check(OrtStatus* failure, ErrorCode code = ErrorCode::runtime) const {
    if (!failure) return;
    const Handle<OrtStatus> status(failure, api_->ReleaseStatus);
    throw Error(code, std::string("ONNX Runtime failed: ") + api_->GetErrorMessage(failure) + ".",
                "if memory is short, use a smaller batch; otherwise export the bundle again or update ONNX Runtime");
  }

  // Calls create(arguments..., &object).
  template <typename T, typename Create, typename... Arguments>
  Handle<T> make(void (*release)(T*), Create create, Arguments... arguments) const {
    T* made = nullptr;
    check(create(arguments..., &made));
    return {made, release};
  }

  // The options must outlive it: their log is told what it warns of.
  Handle<OrtSession> session(const Bytes& model, const Options& asked) const {
    const auto options = make(api_->ReleaseSessionOptions, api_->CreateSessionOptions);
    check(api_->SetIntraOpNumThreads(options.get(), asked.threads));
    check(api_->SetUserLoggingFunction(options.get(), log, const_cast<Options*>(&asked)));
    check(api_->SetSessionLogSeverityLevel(options.get(), ORT_LOGGING_LEVEL_WARNING));
    // As floats-edge does: idle threads that look for work for long keep cores from the rest of the application.
    check(api_->AddSessionConfigEntry(options.get(), "session.intra_op.spin_duration_us", "300"));
    // What the bytes were checked to be; ONNX Runtime would guess, and has a format of its own.
    check(api_->AddSessionConfigEntry(options.get(), "session.load_model_format", "ONNX"));
    OrtSession* made = nullptr;
    check(api_->CreateSessionFromArray(environment_.get(), model.data(), model.size(), options.get(), &made),
          ErrorCode::engine_incompatible);
    return {made, api_->ReleaseSession};
  }

  // A tensor over memory that must outlive it.
  Handle<OrtValue> tensor(const void* data, std::size_t bytes, const std::vector<std::int64_t>& shape,
                          ONNXTensorElementDataType type) const {
    return make(api_->ReleaseValue, api_->CreateTensorWithDataAsOrtValue, memory_.get(), const_cast<void*>(data), bytes,
                shape.data(), shape.size(), type);
  }

 private:
  static void log(void* options, OrtLoggingLevel severity, const char*, const char*, const char*, const char* text) {
    try {
      report(*static_cast<const Options*>(options),
             severity < ORT_LOGGING_LEVEL_ERROR ? Severity::warning : Severity::error, text, "ONNX Runtime");
    } catch (...) {  // ONNX Runtime cannot pass on what a log throws
    }
  }

  static const OrtApi* load(const SharedLibrary& library, const OrtApiBase& base) {
    if (const OrtApi* const api = base.GetApi(kOrtApiVersion)) return api;
    throw Error(ErrorCode::backend_unavailable,
                library.name() + " is ONNX Runtime " + base.GetVersionString() + ", older than 1.17.",
                "install a newer ONNX Runtime");
  }

  SharedLibrary library_;
  const OrtApiBase* base_;
  const OrtApi* api_;
  Handle<OrtEnv> environment_;
  Handle<OrtMemoryInfo> memory_;
};

}  // namespace floats_rt
