#include "tensorrt_host.hpp"

#include <cuda_runtime_api.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cctype>
#include <optional>

#include "log.hpp"

namespace floats_rt {
namespace {

constexpr int kMajor = NV_TENSORRT_MAJOR;
constexpr int kOldestMajor = 10, kOldestMinor = 3;

thread_local const Options* listening = nullptr;  // whose log gets what this thread makes TensorRT say
thread_local std::string last_error;              // of what it said

// TensorRT keeps the first logger it is given for as long as the process lives, so this one does, and serves all.
class Logger : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override {
    if (severity > Severity::kWARNING) return;
    const bool is_error = severity != Severity::kWARNING;
    try {
      if (is_error) last_error = message;
      report(listening ? *listening : Options{}, is_error ? floats_rt::Severity::error : floats_rt::Severity::warning,
             message, "TensorRT");
    } catch (...) {  // TensorRT cannot pass on what a log throws
    }
  }
};

Logger& logger() {
  static Logger* const instance = new Logger;
  return *instance;
}

// "10.3.0.30.post1" -> 10, 3, 0, 30
std::vector<int> parsed(const std::string& version) {
  std::vector<int> parts;
  for (std::size_t at = 0; at < version.size() && parts.size() < 4 && std::isdigit(version[at]); ++at) {
    int part = 0;
    for (; at < version.size() && std::isdigit(version[at]) && part < 100000; ++at)
      part = 10 * part + version[at] - '0';
    parts.push_back(part);
  }
  return parts;
}

// Whether the numbers agree as far as both are known, but at least three.
bool same_version(const std::vector<int>& a, const std::vector<int>& b) {
  const std::size_t known = std::min(a.size(), b.size());
  return known >= 3 && std::equal(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(known), b.begin());
}

std::string host_platform() {
  utsname names{};
  ::uname(&names);
  std::string platform = std::string(names.sysname) + "-" + names.machine;
  std::transform(platform.begin(), platform.end(), platform.begin(), [](unsigned char c) { return std::tolower(c); });
  return platform;
}

// Why an engine does not run here; empty if it does.
std::string misfit(const Engine& engine, const std::vector<int>& version, const std::string& target) {
  if (engine.flavour != "tensorrt") return "is for " + engine.flavour + ", which floats_rt does not run";
  if (!engine.needs.empty()) return "needs " + engine.needs + ", which floats_rt does not provide for";
  if (!same_version(parsed(engine.version), version)) {
    return "was built by TensorRT " + engine.version + "; here is " + joined(version);
  }
  if (engine.platform != host_platform()) return "was built for " + engine.platform + "; this is " + host_platform();
  if (std::find(engine.targets.begin(), engine.targets.end(), target) != engine.targets.end()) return "";
  std::string targets;
  for (const std::string& each : engine.targets) targets += (targets.empty() ? "" : ", ") + each;
  return "was built for " + targets + "; this GPU is " + target;
}

Engine fitting_engine(const Bundle& bundle, std::optional<float> lam, const std::vector<int>& version,
                      const std::string& target) {
  std::string reasons;
  for (const Engine& engine : bundle.manifest().engines) {
    if (engine.lam != lam) continue;
    const std::string problem = misfit(engine, version, target);
    if (problem.empty()) return engine;
    reasons += " " + engine.file + " " + problem + ".";
  }
  if (reasons.empty()) reasons = " It holds none.";
  const std::string path = bundle.path().string();
  throw Error(ErrorCode::engine_incompatible,
              path + " has no TensorRT engine" + (lam ? " for lambda " + std::to_string(*lam) : "") +
                  " that runs here." + reasons,
              "on this machine: floats-edge export " + path + " -o " + path + " --trt");
}

}  // namespace

std::string joined(const std::vector<int>& version) {
  std::string text;
  for (const int part : version) text += (text.empty() ? "" : ".") + std::to_string(part);
  return text;
}

std::string why() { return last_error.empty() ? "; the log may say why." : ": " + last_error + "."; }

TensorRt::TensorRt(const std::string& path)
    : library_(path, "FLOATS_RT_TENSORRT", {"libnvinfer.so." + std::to_string(kMajor), "libnvinfer.so"}) {
  for (const char* part : {"getInferLibMajorVersion", "getInferLibMinorVersion", "getInferLibPatchVersion"}) {
    version_.push_back(library_.get<int32_t() noexcept>(part)());
  }
  if (auto* const build = library_.find<int32_t() noexcept>("getInferLibBuildVersion")) version_.push_back(build());
  if (version_[0] != kMajor || (version_[0] == kOldestMajor && version_[1] < kOldestMinor)) {
    throw Error(ErrorCode::backend_unavailable,
                library_.name() + " is TensorRT " + joined(version_) + "; this floats_rt was built for " +
                    std::to_string(kMajor) + "." + (kMajor == kOldestMajor ? "3 and later." : "x."),
                "build floats_rt with the headers of the TensorRT that is installed");
  }
}

std::unique_ptr<nvinfer1::IRuntime> TensorRt::runtime() const {
  auto* const create = library_.get<void*(void*, int32_t) noexcept>("createInferRuntime_INTERNAL");
  auto* const runtime = static_cast<nvinfer1::IRuntime*>(create(&logger(), NV_TENSORRT_VERSION));
  if (runtime) return std::unique_ptr<nvinfer1::IRuntime>(runtime);
  throw Error(ErrorCode::backend_unavailable, "TensorRT could not be started" + why(), "check the GPU's driver");
}

std::unique_ptr<nvinfer1::IRefitter> TensorRt::refitter(nvinfer1::ICudaEngine& engine) const {
  auto* const create = library_.get<void*(void*, void*, int32_t) noexcept>("createInferRefitter_INTERNAL");
  auto* const refitter = static_cast<nvinfer1::IRefitter*>(create(&engine, &logger(), NV_TENSORRT_VERSION));
  if (refitter) return std::unique_ptr<nvinfer1::IRefitter>(refitter);
  throw Error(ErrorCode::runtime, "TensorRT cannot refit the engine" + why(),
              "rebuild the engine: floats-edge export --trt");
}

Visit::Visit(const Options& options) : here_(options.device), before_(listening) {
  listening = &options;
  last_error.clear();
}
Visit::~Visit() { listening = before_; }

std::string compute_capability(int device) {
  int count = 0, major = 0, minor = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || device < 0 || device >= count ||
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess) {
    throw Error(ErrorCode::no_device,
                "there is no CUDA device " + std::to_string(device) + ": " +
                    (status == cudaSuccess ? std::to_string(count) + " found" : cudaGetErrorString(status)) + ".",
                "check the driver with nvidia-smi (Jetson: tegrastats); in a container start it with --gpus all");
  }
  return "sm_" + std::to_string(major) + std::to_string(minor);
}

std::vector<Engine> fitting_engines(const Bundle& bundle, const std::vector<int>& version, const std::string& target) {
  const std::vector<float>& lambdas = bundle.manifest().lambdas.values;
  if (lambdas.empty()) return {fitting_engine(bundle, std::nullopt, version, target)};
  std::vector<Engine> engines;
  for (const float lam : lambdas) engines.push_back(fitting_engine(bundle, lam, version, target));
  return engines;
}

}  // namespace floats_rt
