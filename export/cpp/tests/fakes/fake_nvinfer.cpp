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
// weights of value[i] * (i % 7 + 1) + add, when its stream comes to it, and takes batches from 2 to 4, or as a line
// "batch 2 8" says. A line "odd NAME host", "odd NAME hwc8" or "odd NAME output" makes a tensor one of that kind. A
// line "fail load", "fail context" or "fail run" ("fail silently": without a word) makes it fail there; "fail refitter"
// when a refitter is made, "fail forget" lists one refittable weight too few, and "fail set", "fail missing" and "fail
// refit" (after having changed half of the weights) make the third refit fail. FAKE_VERSION is what it says its version
// is.
//
// What it computes with it copies to memory of its context first, so that it reaches device memory by the CUDA runtime
// alone: a fake one, or the real one on a GPU.
//
// Like the real one it runs on the device on which it was loaded, wants addresses at multiples of 256 bytes, tells the
// first logger that it was ever given, and breaks when two threads use one of its objects at once.
#include <NvInferRuntime.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace nvinfer1;

struct Tensor {
  std::string name;
  DataType type;
  Dims dims;
  std::string odd;
};

struct Plan {
  std::vector<Tensor> tensors, refittable;
  std::int64_t smallest = 2, largest = 4;
  float add = 0;
  std::string fail;

  std::size_t index(std::string_view name) const {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].name == name) return i;
    }
    std::abort();
  }
  const Tensor& find(const std::string& name) const { return tensors[index(name)]; }
};

std::atomic<ILogger*> first_logger{nullptr};

void log_error(const char* message) { first_logger.load()->log(ILogger::Severity::kERROR, message); }

void keep_logger(void* logger) {
  ILogger* none = nullptr;
  first_logger.compare_exchange_strong(none, static_cast<ILogger*>(logger));
}

// Tells whether another thread is inside of the same object.
class Use {
 public:
  explicit Use(std::atomic<int>& users) : users_(users), alone_(++users == 1) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    alone_ = alone_ && users_ == 1;
    if (!alone_) log_error("two threads use one object at once");
  }
  ~Use() { --users_; }
  bool alone() const { return alone_; }

 private:
  std::atomic<int>& users_;
  bool alone_;
};

int current_device() {
  int device = -1;
  cudaGetDevice(&device);
  return device;
}

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

std::size_t bytes_of(const Tensor& tensor, std::int64_t batch) {
  const std::int64_t width = tensor.type == DataType::kFLOAT ? 4 : tensor.type == DataType::kINT8 ? 1 : 2;
  return static_cast<std::size_t>(volume(tensor.dims) * width * (tensor.dims.d[0] == -1 ? batch : 1));
}

// Page-locked, as a copy that is queued must find it. Null if there is none.
class HostMemory {
 public:
  explicit HostMemory(std::size_t bytes) {
    void* memory = nullptr;
    if (cudaMallocHost(&memory, bytes) == cudaSuccess) memory_.reset(memory);
  }
  void* get() const { return memory_.get(); }

 private:
  struct Free {
    void operator()(void* memory) const { cudaFreeHost(memory); }
  };
  std::unique_ptr<void, Free> memory_;
};

// The inferences of one batch size, one after the other. It stays where it is: a CUDA graph may repeat what is queued.
class Inference {
 public:
  Inference(const Plan& plan, const std::map<std::string, double>& refitted, std::int64_t batch)
      : plan_(plan), refitted_(refitted), batch_(batch) {
    for (const Tensor& tensor : plan.tensors) memory_.emplace_back(bytes_of(tensor, batch));
  }
  Inference(const Inference&) = delete;
  Inference& operator=(const Inference&) = delete;

  bool has_memory() const {
    return std::all_of(memory_.begin(), memory_.end(), [](const HostMemory& memory) { return memory.get(); });
  }

  bool enqueue(const std::vector<void*>& addresses, cudaStream_t stream) {
    const auto copy = [&](void* to, const void* from, std::size_t i, cudaMemcpyKind kind) {
      return cudaMemcpyAsync(to, from, bytes_of(plan_.tensors[i], batch_), kind, stream) == cudaSuccess;
    };
    const std::size_t logits = plan_.index("logits");
    for (std::size_t i = 0; i < memory_.size(); ++i) {
      if (i != logits && !copy(memory_[i].get(), addresses[i], i, cudaMemcpyDeviceToHost)) return false;
    }
    return cudaLaunchHostFunc(stream, run, this) == cudaSuccess &&
           copy(addresses[logits], memory_[logits].get(), logits, cudaMemcpyHostToDevice);
  }

 private:
  static void run(void* inference) { static_cast<const Inference*>(inference)->compute(); }

  void compute() const {
    double sum = plan_.add;
    for (std::size_t i = 0; i < plan_.tensors.size(); ++i) {
      const Tensor& tensor = plan_.tensors[i];
      if (tensor.dims.nbDims == 0 || tensor.dims.d[0] != -1) sum += weighted_sum(tensor, memory_[i].get());
    }
    for (const auto& [name, value] : refitted_) sum += value;
    const auto* const images = static_cast<const float*>(memory_[plan_.index("images")].get());
    auto* const logits = static_cast<float*>(memory_[plan_.index("logits")].get());
    const std::int64_t pixels = volume(plan_.find("images").dims), classes = volume(plan_.find("logits").dims);
    for (std::int64_t n = 0; n < batch_; ++n) {
      double total = 0;
      for (std::int64_t i = 0; i < pixels; ++i) total += images[n * pixels + i];
      for (std::int64_t c = 0; c < classes; ++c) {
        logits[n * classes + c] = static_cast<float>(total * static_cast<double>(c + 1) + sum);
      }
    }
  }

  const Plan& plan_;
  const std::map<std::string, double>& refitted_;
  std::int64_t batch_;
  std::vector<HostMemory> memory_;  // of the plan's tensors
};

class Context : public IExecutionContext {
 public:
  Context(const Plan& plan, const std::map<std::string, double>& refitted)
      : plan_(plan), refitted_(refitted), addresses_(plan.tensors.size()) {}

  bool setInputShape(const char* name, const Dims& dims) noexcept override {
    const std::int64_t batch = dims.d[0];
    if (std::string(name) != "images" || dims.nbDims != 4 || batch < plan_.smallest || batch > plan_.largest) {
      return false;
    }
    inference_ = &inferences_.try_emplace(batch, plan_, refitted_, batch).first->second;
    return inference_->has_memory();
  }

  bool setTensorAddress(const char* name, void* data) noexcept override {
    addresses_[plan_.index(name)] = data;
    return reinterpret_cast<std::uintptr_t>(data) % 256 == 0;
  }

  bool enqueueV3(cudaStream_t stream) noexcept override {
    if (plan_.fail == "silently") return false;
    if (plan_.fail == "run") return refuse("the fake was told to fail");
    if (current_device() != device_) return refuse("this context is of another device");
    if (!inference_) return refuse("the batch is not known");
    if (std::count(addresses_.begin(), addresses_.end(), nullptr)) return refuse("a tensor has no address");
    return inference_->enqueue(addresses_, stream);
  }

 private:
  static bool refuse(const char* reason) {
    log_error(reason);
    return false;
  }

  const Plan& plan_;
  const std::map<std::string, double>& refitted_;
  std::vector<void*> addresses_;                  // of the plan's tensors
  std::map<std::int64_t, Inference> inferences_;  // by batch
  Inference* inference_ = nullptr;                // of the batch that was set last
  int device_ = current_device();
};

class CudaEngine : public ICudaEngine {
 public:
  explicit CudaEngine(Plan plan) : plan_(std::move(plan)) {}

  int32_t getNbIOTensors() const noexcept override { return static_cast<int32_t>(plan_.tensors.size()); }
  const char* getIOTensorName(int32_t index) const noexcept override {
    return plan_.tensors[static_cast<std::size_t>(index)].name.c_str();
  }
  Dims getTensorShape(const char* name) const noexcept override { return plan_.find(name).dims; }
  DataType getTensorDataType(const char* name) const noexcept override { return plan_.find(name).type; }
  TensorIOMode getTensorIOMode(const char* name) const noexcept override {
    const bool output = name == std::string("logits") || plan_.find(name).odd == "output";
    return output ? TensorIOMode::kOUTPUT : TensorIOMode::kINPUT;
  }
  TensorLocation getTensorLocation(const char* name) const noexcept override {
    return plan_.find(name).odd == "host" ? TensorLocation::kHOST : TensorLocation::kDEVICE;
  }
  TensorFormat getTensorFormat(const char* name, int32_t profile) const noexcept override {
    return profile == 0 && plan_.find(name).odd == "hwc8" ? TensorFormat::kHWC8 : TensorFormat::kLINEAR;
  }
  Dims getProfileShape(const char* name, int32_t profile, OptProfileSelector select) const noexcept override {
    if (profile != 0 || name != std::string("images")) return Dims{-1, {}};
    Dims dims = plan_.find(name).dims;
    dims.d[0] = select == OptProfileSelector::kMIN ? plan_.smallest : plan_.largest;
    return dims;
  }
  const Plan& plan() const { return plan_; }
  std::map<std::string, double> refitted;  // sums over weights that were refitted, by name

  IExecutionContext* createExecutionContext() noexcept override {
    const Use use(users_);
    return plan_.fail == "context" || !use.alone() ? nullptr : new Context(plan_, refitted);
  }

 private:
  Plan plan_;
  std::atomic<int> users_{0};
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

Plan parsed(std::istream& text) {
  Plan plan;
  for (std::string line; std::getline(text, line);) {
    std::istringstream words(line);
    std::string name, type;
    if (!(words >> name)) continue;
    if (name == "add") {
      words >> plan.add;
    } else if (name == "fail") {
      words >> plan.fail;
    } else if (name == "batch") {
      words >> plan.smallest >> plan.largest;
    } else if (name == "odd") {
      words >> name;
      words >> plan.tensors[plan.index(name)].odd;
    } else {
      const bool refittable = name == "refittable";
      if (refittable) words >> name;
      words >> type;
      Tensor tensor{name, type_of(type), {}, ""};
      while (words >> tensor.dims.d[tensor.dims.nbDims]) ++tensor.dims.nbDims;
      (refittable ? plan.refittable : plan.tensors).push_back(tensor);
    }
  }
  return plan;
}

class Runtime : public IRuntime {
 public:
  ICudaEngine* deserializeCudaEngine(const void* blob, std::size_t size) noexcept override {
    const Use use(users_);
    std::istringstream text(std::string(static_cast<const char*>(blob), size));
    Plan plan = parsed(text);
    if (plan.fail != "load" && use.alone()) return new CudaEngine(plan);
    log_error("the fake was told to\nfail");
    return nullptr;
  }

 private:
  std::atomic<int> users_{0};
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
  keep_logger(logger);
  return new Runtime;
}
void* createInferRefitter_INTERNAL(void* engine, void* logger, int32_t) noexcept {
  keep_logger(logger);
  auto& fake = *static_cast<CudaEngine*>(static_cast<ICudaEngine*>(engine));
  return fake.plan().fail == "refitter" ? nullptr : new Refitter(fake);
}
}
