// A libnvinfer whose plans are text: a line per tensor (name, f32, f16, bf16 or i8, axes), one per refittable weight,
// and one for what the engine adds:
//
//   images f32 -1 1 16 16
//   stem.weight f16 16 1 3 3
//   refittable stem.bias f16 16
//   logits f32 -1 10
//   add 0.5
//
// It gives logits[n][c] = sum(images[n]) * (c + 1) + sum over the elements i of the other inputs and of the refitted
// weights of value[i] * (i % 7 + 1) + add, and takes batches from 2 to 4. A line "fail load", "fail context" or "fail
// run" makes it fail there; "fail refitter" when a refitter is made, "fail forget" lists one refittable weight too few,
// and "fail set", "fail missing" and "fail refit" (after having changed half of the weights) make the third refit fail.
// FAKE_VERSION is what it says its version is.
#include <NvInferRuntime.h>

#include <algorithm>
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
  std::vector<Tensor> tensors, refittable;
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
  if (tensor.type == DataType::kINT8) return static_cast<const std::int8_t*>(data)[index];
  const std::uint16_t bits = static_cast<const std::uint16_t*>(data)[index];
  if (tensor.type == DataType::kHALF) return half_value(bits);
  const std::uint32_t wide = std::uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

DataType type_of(const std::string& name) {
  if (name == "f16") return DataType::kHALF;
  if (name == "bf16") return DataType::kBF16;
  return name == "i8" ? DataType::kINT8 : DataType::kFLOAT;
}

std::int64_t volume(const Dims& dims) {
  std::int64_t product = 1;
  for (int i = 0; i < dims.nbDims; ++i) product *= std::abs(dims.d[i]);
  return product;
}

double weighted_sum(const Tensor& tensor, const void* data) {
  double sum = 0;
  for (std::int64_t i = 0; i < volume(tensor.dims); ++i) {
    sum += element(tensor, data, i) * static_cast<double>(i % 7 + 1);
  }
  return sum;
}

class Context : public IExecutionContext {
 public:
  Context(const Plan& plan, const std::map<std::string, double>& refitted) : plan_(plan), refitted_(refitted) {}

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
      if (tensor.dims.nbDims == 0 || tensor.dims.d[0] != -1) sum += weighted_sum(tensor, addresses_.at(tensor.name));
    }
    for (const auto& [name, value] : refitted_) sum += value;
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
  const std::map<std::string, double>& refitted_;
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
  const Plan& plan() const { return plan_; }
  std::map<std::string, double> refitted;  // sums over weights that were refitted, by name

  IExecutionContext* createExecutionContext() noexcept override {
    return plan_.fail == "context" ? nullptr : new Context(plan_, refitted);
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

class Refitter : public IRefitter {
 public:
  explicit Refitter(CudaEngine& engine) : engine_(engine), plan_(engine.plan()) {}

  bool setNamedWeights(const char* name, Weights weights) noexcept override {
    if (refits_ == 2 && plan_.fail == "set") return false;
    for (const Tensor& tensor : plan_.refittable) {
      if (tensor.name != name || tensor.type != weights.type || volume(tensor.dims) != weights.count) continue;
      set_[name] = {&tensor, weights.values};
      return true;
    }
    return false;
  }

  int32_t getMissingWeights(int32_t size, const char** names) noexcept override {
    if (refits_ < 2 || plan_.fail != "missing") return 0;
    if (size > 0) names[0] = nullptr;
    return 1;
  }

  int32_t getAllWeights(int32_t size, const char** names) noexcept override {
    const auto count = static_cast<int32_t>(plan_.refittable.size()) - (plan_.fail == "forget");
    for (int32_t i = 0; i < std::min(size, count); ++i) {
      names[i] = plan_.refittable[static_cast<std::size_t>(i)].name.c_str();
    }
    return count;
  }

  bool refitCudaEngine() noexcept override {
    const bool fails = ++refits_ == 3 && plan_.fail == "refit";
    std::size_t left = fails ? set_.size() / 2 : set_.size();
    for (const auto& [name, weights] : set_) {
      if (left-- == 0) break;
      engine_.refitted[name] = weighted_sum(*weights.first, weights.second);
    }
    return !fails;
  }

 private:
  CudaEngine& engine_;
  const Plan& plan_;
  std::map<std::string, std::pair<const Tensor*, const void*>> set_;
  int refits_ = 0;
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
        const bool refittable = name == "refittable";
        if (refittable) words >> name;
        words >> type;
        Tensor tensor{name, type_of(type), {}};
        while (words >> tensor.dims.d[tensor.dims.nbDims]) ++tensor.dims.nbDims;
        (refittable ? plan.refittable : plan.tensors).push_back(tensor);
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
void* createInferRefitter_INTERNAL(void* engine, void*, int32_t) noexcept {
  auto& fake = *static_cast<CudaEngine*>(static_cast<ICudaEngine*>(engine));
  return fake.plan().fail == "refitter" ? nullptr : new Refitter(fake);
}
}
