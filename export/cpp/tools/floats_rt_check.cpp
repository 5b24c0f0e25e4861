// floats-rt-check: says whether a bundle will run here, and why not.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "floats_rt/floats_rt.hpp"

namespace {

constexpr const char* kUsage =
    "usage: floats-rt-check BUNDLE [--backend tensorrt|onnxruntime] [--load]\n"
    "       floats-rt-check --version\n"
    "\n"
    "Says for each backend, or the one named, whether BUNDLE will run here, and why not. --load also loads it and\n"
    "compares its golden outputs. Exit status: 0 if a backend runs it, 1 if none does, 2 for a wrong call.\n";

// What of a model one may want to know.
std::string described(const floats_rt::Model& model) {
  const auto verdict = model.verdict();
  return model.backend_version() + ", mode " + to_string(model.mode()) + ", " + to_string(model.precision()) + ", " +
         (!verdict            ? "not verified on this backend"
          : verdict->let_pass ? "failed verify, let pass"
                              : "verified");
}

// Says how one backend does; returns whether it runs the bundle.
bool check(const std::string& bundle, floats_rt::Backend backend, bool load) {
  const char* const name = to_string(backend);
  floats_rt::Options options;
  options.backend = backend;
  try {
    if (const auto reason = floats_rt::check_compatibility(bundle, options)) throw *reason;
    std::string state = "will run";
    if (load) state = "runs, and gives the golden outputs: " + described(floats_rt::Model::load(bundle, options));
    std::printf("%s: %s\n", name, state.c_str());
    return true;
  } catch (const floats_rt::Error& error) {
    std::printf("%s: %s: %s\n", name, to_string(error.code()), error.what());
    return false;
  }
}

}  // namespace

int main(int count, char** arguments) {
  std::string bundle, backend;
  bool load = false;
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    if (argument == "--version") {
      std::puts(floats_rt::version());
      return EXIT_SUCCESS;
    }
    if (argument == "--load") {
      load = true;
    } else if (argument == "--backend" && i + 1 < count) {
      backend = arguments[++i];
    } else if (bundle.empty() && argument[0] != '-') {
      bundle = argument;
    } else {
      bundle.clear();
      break;
    }
  }
  if (bundle.empty() || (!backend.empty() && backend != "tensorrt" && backend != "onnxruntime")) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  bool runs = false;
  if (backend != "onnxruntime") runs = check(bundle, floats_rt::Backend::tensorrt, load);
  if (backend != "tensorrt") runs = check(bundle, floats_rt::Backend::onnxruntime, load) || runs;
  return runs ? EXIT_SUCCESS : EXIT_FAILURE;
}
