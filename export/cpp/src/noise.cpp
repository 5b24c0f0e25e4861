#include "noise.hpp"

#include <array>
#include <cmath>

#include "parallel.hpp"

namespace floats_rt {
namespace {

__extension__ using Wide = unsigned __int128;
using Block = std::array<std::uint64_t, 4>;

constexpr std::size_t kBlocksPerThread = 4096;  // fewer are drawn before a thread has started
constexpr double kTwoPi = 2.0 * 3.141592653589793;

// Philox 4x64-10 (Salmon et al., SC 2011).
Block philox(Block counter, std::uint64_t key0, std::uint64_t key1) {
  for (int round = 0; round < 10; ++round) {
    const Wide product0 = Wide{0xD2E7470EE14C6C93u} * counter[0];
    const Wide product1 = Wide{0xCA5A826395121157u} * counter[2];
    counter = {static_cast<std::uint64_t>(product1 >> 64) ^ counter[1] ^ key0, static_cast<std::uint64_t>(product1),
               static_cast<std::uint64_t>(product0 >> 64) ^ counter[3] ^ key1, static_cast<std::uint64_t>(product0)};
    key0 += 0x9E3779B97F4A7C15u;
    key1 += 0xBB67AE8584CAA73Bu;
  }
  return counter;
}

double uniform(std::uint64_t word) { return static_cast<double>((word >> 11) + 1) * 0x1p-53; }

}  // namespace

std::vector<float> standard_normal(std::uint64_t seed, std::uint64_t layer_index, std::size_t count,
                                   std::size_t threads) {
  std::vector<float> noise(count);
  const auto draw = [&](std::size_t begin, std::size_t end) {
    for (std::size_t block = begin; block < end; ++block) {
      const Block words = philox({block + 1, 0, 0, 0}, seed, layer_index);  // NumPy counts before it draws
      for (std::size_t pair = 0; pair < 2; ++pair) {
        const double radius = std::sqrt(-2.0 * std::log(uniform(words[2 * pair])));
        const double angle = kTwoPi * uniform(words[2 * pair + 1]);
        const std::size_t at = 4 * block + 2 * pair;
        if (at < count) noise[at] = static_cast<float>(radius * std::cos(angle));
        if (at + 1 < count) noise[at + 1] = static_cast<float>(radius * std::sin(angle));
      }
    }
  };
  parallel_for((count + 3) / 4, threads, kBlocksPerThread, draw);
  return noise;
}

}  // namespace floats_rt
