// The C API of ONNX Runtime called as sparingly as it allows: what floats_rt is measured against.
#pragma once

#define ORT_API_MANUAL_INIT
#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <cstdlib>
#include <string>
#include <vector>

// A graph at one lambda (mode fixed), everything bound beforehand.
class BareOnnxRuntime {
 public:
  // images [batch, C, H, W] is read and logits [batch, classes] written by every run().
  BareOnnxRuntime(const std::string& graph, int threads, std::vector<float>& images, std::vector<int64_t> images_shape,
                  std::vector<float>& logits) {
    void* const library = dlopen(std::getenv("FLOATS_RT_ONNXRUNTIME"), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    const auto base = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
    api_ = base()->GetApi(17);
    OrtSessionOptions* options;
    OrtMemoryInfo* memory;
    const int64_t logits_shape[] = {images_shape[0], static_cast<int64_t>(logits.size()) / images_shape[0]};
    must(api_->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "bare", &environment_));
    must(api_->CreateSessionOptions(&options));
    must(api_->SetIntraOpNumThreads(options, threads));
    must(api_->CreateSession(environment_, graph.c_str(), options, &session_));
    must(api_->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory));
    must(api_->CreateTensorWithDataAsOrtValue(memory, images.data(), 4 * images.size(), images_shape.data(), 4,
                                              ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &images_));
    must(api_->CreateTensorWithDataAsOrtValue(memory, logits.data(), 4 * logits.size(), logits_shape, 2,
                                              ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &logits_));
    api_->ReleaseSessionOptions(options);
    api_->ReleaseMemoryInfo(memory);
    must(api_->CreateRunOptions(&run_options_));  // or each run makes some
    must(api_->CreateIoBinding(session_, &binding_));
    must(api_->BindInput(binding_, "images", images_));
    must(api_->BindOutput(binding_, "logits", logits_));
  }

  BareOnnxRuntime(const BareOnnxRuntime&) = delete;
  BareOnnxRuntime& operator=(const BareOnnxRuntime&) = delete;
  ~BareOnnxRuntime() {
    api_->ReleaseIoBinding(binding_);
    api_->ReleaseRunOptions(run_options_);
    api_->ReleaseValue(images_);
    api_->ReleaseValue(logits_);
    api_->ReleaseSession(session_);
    api_->ReleaseEnv(environment_);
  }

  void run() { must(api_->RunWithBinding(session_, run_options_, binding_)); }

 private:
  static void must(OrtStatus* failure) {
    if (failure) std::abort();
  }

  const OrtApi* api_;
  OrtEnv* environment_;
  OrtSession* session_;
  OrtRunOptions* run_options_;
  OrtValue *images_, *logits_;
  OrtIoBinding* binding_;
};
