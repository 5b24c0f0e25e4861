#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "noise.hpp"

namespace floats_rt {

// At most one unit in the last place apart.
static bool close(float a, float b) { return std::nextafter(a, b) == b; }

TEST_CASE("the noise is Python's") {
  // floats_edge.method.noise.standard_normal(seed, layer, (5,))
  const std::vector<float> first = {0x1.44ad64p-3f, 0x1.7dcefep+1f, -0x1.ecfa26p+0f, -0x1.a65ca4p-1f, -0x1.9eba0ap-3f};
  const std::vector<float> last = {0x1.c923cap+0f, 0x1.c19fb2p-1f, -0x1.1a7e88p+0f, 0x1.bbb126p-2f, 0x1.159e7cp-2f};
  const auto got_first = standard_normal(0, 0, 5, 1), got_last = standard_normal((1ull << 63) - 1, 21, 5, 1);
  CHECK(std::equal(first.begin(), first.end(), got_first.begin(), got_first.end(), close));
  CHECK(std::equal(last.begin(), last.end(), got_last.begin(), got_last.end(), close));

  const auto many = standard_normal(7, 3, 100001, 2);  // (7, 3, (100001,))
  CHECK(close(many[65536], -0x1.2fa254p-4f));
  CHECK(close(many[100000], -0x1.31f198p+0f));
}

TEST_CASE("the noise does not depend on the number of threads") {
  CHECK(standard_normal(7, 3, 100001, 1) == standard_normal(7, 3, 100001, 3));
  CHECK(standard_normal(7, 3, 0, 3).empty());
}

}  // namespace floats_rt
