// What a stranger's bundle, or a machine with little to spare, may not bring about.
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <stdexcept>
#include <system_error>
#include <thread>

#include "bundle_copy.hpp"
#include "lambda_tensors.hpp"
#include "noise.hpp"

namespace floats_rt {
namespace {

constexpr std::uint64_t kTerabyte = std::uint64_t{1} << 40;

// The limit on threads holds for no superuser: another user starts them then, still with the files of this one.
bool limit_threads() {
  const rlimit none{0, 0};
  __user_cap_header_struct version{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct no_rights[_LINUX_CAPABILITY_U32S_3]{};
  if (::getuid() == 0 && (::setresuid(65534, 0, 0) != 0 || ::syscall(SYS_capset, &version, no_rights) != 0))
    return false;
  return ::setrlimit(RLIMIT_NPROC, &none) == 0;
}

// Whether a call returns true, and throws nothing, in a process that may start no thread.
template <typename Call>
bool without_threads(const Call& call) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    bool done = false;
    try {
      done = limit_threads() && call();
    } catch (const std::exception&) {  // must not get into the copy of the other tests
    }
    ::_exit(done ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return status == 0;
}

bool can_start_a_thread() {
  try {
    std::thread([] {}).join();
    return true;
  } catch (const std::system_error&) {
    return false;
  }
}

ErrorCode refusal(const std::filesystem::path& path, const Options& options) {
  const auto reason = check_compatibility(path.string(), options);
  REQUIRE(reason);
  CHECK(code_of([&] { Model::load(path.string(), options); }) == reason->code());
  return reason->code();
}

}  // namespace

TEST_CASE("where no thread can be started, what they should do is done all the same") {
  const std::vector<float> wanted = standard_normal(7, 3, 100001, 1);
  CHECK(without_threads([&] { return !can_start_a_thread() && standard_normal(7, 3, 100001, 3) == wanted; }));
}

TEST_CASE("where no thread can be started, a request for a lambda is refused, and set_lambda does it") {
  const std::string path = bundle_path("bound").string();
  CHECK(without_threads([&] {
    Model model = Model::load(path, on_cpu(1));
    return code_of([&] { model.request_lambda(0.5f); }) == ErrorCode::runtime && model.set_lambda(0.5f) == 0.5f;
  }));
}

TEST_CASE("where ONNX Runtime can start no thread, one does, and with more that is an Error") {
  const std::string path = bundle_path("bound").string();
  CHECK(without_threads([&] { return Model::load(path, on_cpu(1)).set_lambda(0.5f) == 0.5f; }));
  CHECK(without_threads([&] {
    try {
      Model::load(path, on_cpu(4)).set_lambda(0.5f);
      return true;
    } catch (const Error&) {
      return true;
    }
  }));
}

TEST_CASE("a file of a terabyte that the manifest states is refused before it is read") {
  for (const std::string file : {"model.onnx", "weights.safetensors", "golden.safetensors"}) {
    CAPTURE(file);
    BundleCopy copy("bound");
    std::filesystem::resize_file(copy.path() / file, kTerabyte);  // sparse
    copy.change_manifest([&](nlohmann::json& manifest) { manifest["files"][file]["bytes"] = kTerabyte; });
    CHECK(refusal(copy.path(), on_cpu(1)) == ErrorCode::out_of_memory);
  }
}

TEST_CASE("weights that the manifest states and no file holds are refused before they are made room for") {
  BundleCopy copy("bound");  // a mask of zeros: a bit for each of 2^31 weights, none of which is stored
  copy.change_manifest([](nlohmann::json& manifest) {
    manifest["layers"][1]["shape"] = {1 << 16, 1 << 15, 1, 1};
    manifest["layers"][1]["nonzeros"] = 0;
  });
  CHECK(refusal(copy.path(), on_cpu(1)) == ErrorCode::out_of_memory);
}

TEST_CASE("an engine whose largest batch no memory holds is refused") {
  BundleCopy copy("fixed");
  copy.change_manifest([](nlohmann::json& manifest) {
    nlohmann::json engine = {{"file", "model.onnx"},  {"lam", manifest["graphs"][0]["lam"]},
                             {"flavour", "tensorrt"}, {"version", "10.14.1.48"},
                             {"platform", "linux"},   {"targets", {"sm_87"}},
                             {"precision", "fp32"},   {"batch", {1, 1, 1 << 23}}};
    manifest["engines"].push_back(engine);
  });
  CHECK(refusal(copy.path(), {}) == ErrorCode::out_of_memory);
}

TEST_CASE("max_bytes is what is allowed: honest bundles need little of it, and less than they need is too little") {
  Options options = on_cpu(1);
  for (const std::string& name : bundle_names()) {
    CAPTURE(name);
    options.max_bytes = std::uint64_t{16} << 20;
    CHECK_NOTHROW(Bundle(bundle_path(name).string(), options.max_bytes));
    options.max_bytes = 10000;
    CHECK(refusal(bundle_path(name), options) == ErrorCode::out_of_memory);
  }
}

TEST_CASE("an exception of the application's log comes back as an Error") {
  Options options;  // TensorRT is not here, so that there is something to log
  options.log = [](const LogLine&) { throw std::invalid_argument("the disk is full"); };
  CHECK(code_of([&] { Model::load(bundle_path("fixed").string(), options); }) == ErrorCode::runtime);
}

}  // namespace floats_rt
