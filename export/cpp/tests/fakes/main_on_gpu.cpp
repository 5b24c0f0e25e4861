#define DOCTEST_CONFIG_IMPLEMENT
#include <cstdio>

#include "support.hpp"
#include "tensorrt_host.hpp"

// Exits with 77 where there is no GPU to test on, as fakes/CMakeLists.txt tells CTest.
int main(int argc, char** argv) {
  try {
    floats_rt::compute_capability(0);
  } catch (const floats_rt::Error& error) {
    std::printf("skipped: %s\n", error.what());
    return 77;
  }
  return doctest::Context(argc, argv).run();
}
