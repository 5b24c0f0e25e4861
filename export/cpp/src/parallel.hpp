// A loop over several threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <thread>
#include <vector>

namespace floats_rt {

// How many threads Options::threads means here.
inline std::size_t thread_count(int threads) {
  return threads > 0 ? static_cast<std::size_t>(threads) : std::max(1u, std::thread::hardware_concurrency());
}

// Calls body(begin, end) on consecutive parts of [0, count), none but the last smaller than `least`; body must not
// throw.
template <typename Body>
void parallel_for(std::size_t count, std::size_t threads, std::size_t least, const Body& body) {
  const std::size_t parts = std::clamp<std::size_t>(count / least, 1, threads);
  const std::size_t part = (count + parts - 1) / parts;
  std::vector<std::thread> workers;
  for (std::size_t begin = part; begin < count; begin += part) {
    workers.emplace_back([&body, begin, end = std::min(begin + part, count)] { body(begin, end); });
  }
  body(std::size_t{0}, std::min(part, count));
  for (std::thread& worker : workers) worker.join();
}

}  // namespace floats_rt
