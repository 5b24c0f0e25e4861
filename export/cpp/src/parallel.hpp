// A loop over several threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <exception>
#include <thread>
#include <vector>

namespace floats_rt {

// How many threads Options::threads means here.
inline std::size_t thread_count(int threads) {
  return threads > 0 ? static_cast<std::size_t>(threads) : std::max(1u, std::thread::hardware_concurrency());
}

// Threads that are waited for, whatever happens.
class Workers {
 public:
  Workers() = default;
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;
  ~Workers() {
    for (std::thread& thread : threads_) thread.join();
  }

  // Whether a thread could be started to run work(); there may be a limit on how many, or no memory for another.
  template <typename Work>
  bool start(const Work& work) {
    try {
      threads_.emplace_back(work);
      return true;
    } catch (const std::exception&) {
      return false;
    }
  }

 private:
  std::vector<std::thread> threads_;
};

// Calls body(begin, end) on consecutive parts of [0, count), none but the last smaller than `least`; body must not
// throw. What no thread can be started for, the calling one does.
template <typename Body>
void parallel_for(std::size_t count, std::size_t threads, std::size_t least, const Body& body) {
  const std::size_t parts = std::clamp<std::size_t>(count / least, 1, threads);
  const std::size_t part = (count + parts - 1) / parts;
  Workers workers;
  std::size_t begin = 0;
  while (count - begin > part && workers.start([&body, begin, part] { body(begin, begin + part); })) begin += part;
  body(begin, count);
}

}  // namespace floats_rt
