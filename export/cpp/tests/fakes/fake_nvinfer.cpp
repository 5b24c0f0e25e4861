// A libnvinfer whose plans are text, one line per tensor (name, f32 or f16, axes) and one for what the engine adds:
//
//   images f32 -1 1 16 16
//   stem.weight f16 16 1 3 3
//   logits f32 -1 10
//   add 0.5
//
// It gives logits[n][c] = sum(images[n]) * (c + 1) + sum over the other inputs' elements i of value[i] * (i % 7 + 1) +
// add, and takes batches from 2 to 4. A line "fail load", "fail context" or "fail run" makes it fail there.
// FAKE_VERSION is what it says its version is.
#include <NvInferRuntime.h>

#include <cmath>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace {

using namespace nvinfer1;

struct Tensor {
  std::string name;
  DataType type;
  Dims dims;
};

struct Plan {
  std::vector<Tensor> tensors;
  float add = 0;
  std::string fail;
};

double half_value(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double magnitude = exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
  return bits >> 15 ? -magnitude : magnitude;
}

double element(const Tensor& tensor, const void* data, std::int64_t index) {
  if (tensor.type == DataType::kFLOAT) return static_cast<const float*>(data)[index];
  return half_value(static_cast<const std::uint16_t*>(data)[index]);
}

std::int64_t volume(const Dims& dims) {
  std::int64_t product = 1;
  for (int i = 0; i < dims.nbDims; ++i) product *= std::abs(dims.d[i]);
  return product;
}

class Context : public IExecutionContext {
 public:
  explicit Context(const Plan& plan) : plan_(plan) {}

  bool setInputShape(const char* name, const Dims& dims) noexcept override {
    batch_ = dims.d[0];
    return std::string(name) == "images" && dims.nbDims == 4 && batch_ >= 2 && batch_ <= 4;
  }

  bool setTensorAddress(const char* name, void* data) noexcept override {
    addresses_[name] = data;
    return data != nullptr;
  }

  bool enqueueV3(cudaStream_t) noexcept override {
    if (plan_.fail == "run" || batch_ == 0 || addresses_.size() != plan_.tensors.size()) return false;
    double sum = plan_.add;
    for (const Tensor& tensor : plan_.tensors) {
      if (tensor.dims.d[0] == -1) continue;
      for (std::int64_t i = 0; i < volume(tensor.dims); ++i) {
        sum += element(tensor, addresses_.at(tensor.name), i) * static_cast<double>(i % 7 + 1);
      }
    }
    const auto* const images = static_cast<const float*>(addresses_.at("images"));
    auto* const logits = static_cast<float*>(addresses_.at("logits"));
    const std::int64_t pixels = volume(find("images").dims), classes = volume(find("logits").dims);
    for (std::int64_t n = 0; n < batch_; ++n) {
      double total = 0;
      for (std::int64_t i = 0; i < pixels; ++i) total += images[n * pixels + i];
      for (std::int64_t c = 0; c < classes; ++c) {
        logits[n * classes + c] = static_cast<float>(total * static_cast<double>(c + 1) + sum);
      }
    }
    return true;
  }

 private:
  const Tensor& find(const std::string& name) const {
    for (const Tensor& tensor : plan_.tensors) {
      if (tensor.name == name) return tensor;
    }
    std::abort();
  }

  const Plan& plan_;
  std::int64_t batch_ = 0;
  std::map<std::string, void*> addresses_;
};

class CudaEngine : public ICudaEngine {
 public:
  explicit CudaEngine(Plan plan) : plan_(std::move(plan)) {}

  int32_t getNbIOTensors() const noexcept override { return static_cast<int32_t>(plan_.tensors.size()); }
  const char* getIOTensorName(int32_t index) const noexcept override {
    return plan_.tensors[static_cast<std::size_t>(index)].name.c_str();
  }
  Dims getTensorShape(const char* name) const noexcept override { return find(name).dims; }
  DataType getTensorDataType(const char* name) const noexcept override { return find(name).type; }
  IExecutionContext* createExecutionContext() noexcept override {
    return plan_.fail == "context" ? nullptr : new Context(plan_);
  }

 private:
  const Tensor& find(const std::string& name) const {
    for (const Tensor& tensor : plan_.tensors) {
      if (tensor.name == name) return tensor;
    }
    std::abort();
  }

  Plan plan_;
};

class Runtime : public IRuntime {
 public:
  explicit Runtime(ILogger& logger) : logger_(logger) {}

  ICudaEngine* deserializeCudaEngine(const void* blob, std::size_t size) noexcept override {
    std::istringstream text(std::string(static_cast<const char*>(blob), size));
    Plan plan;
    for (std::string line; std::getline(text, line);) {
      std::istringstream words(line);
      std::string name, type;
      if (!(words >> name)) continue;
      if (name == "add") {
        words >> plan.add;
      } else if (name == "fail") {
        words >> plan.fail;
      } else {
        words >> type;
        Tensor tensor{name, type == "f16" ? DataType::kHALF : DataType::kFLOAT, {}};
        while (words >> tensor.dims.d[tensor.dims.nbDims]) ++tensor.dims.nbDims;
        plan.tensors.push_back(tensor);
      }
    }
    if (plan.fail != "load") return new CudaEngine(plan);
    logger_.log(ILogger::Severity::kERROR, "the fake was told to fail");
    return nullptr;
  }

 private:
  ILogger& logger_;
};

constexpr int kVersion[] = {FAKE_VERSION};

}  // namespace

extern "C" {
int32_t getInferLibMajorVersion() noexcept { return kVersion[0]; }
int32_t getInferLibMinorVersion() noexcept { return kVersion[1]; }
int32_t getInferLibPatchVersion() noexcept { return kVersion[2]; }
int32_t getInferLibBuildVersion() noexcept { return kVersion[3]; }
void* createInferRuntime_INTERNAL(void* logger, int32_t) noexcept {
  if (kVersion[0] != NV_TENSORRT_MAJOR) std::abort();  // as the real one may: the guard must have come first
  return new Runtime(*static_cast<ILogger*>(logger));
}
}
