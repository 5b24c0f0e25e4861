// What a test can make the fake CUDA do, and see of it.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <set>
#include <string>
#include <vector>

struct CUstream_st;

namespace fake_cuda {

inline int devices = 1;                 // there are; their compute capability is 8.7
inline std::set<std::string> failing;   // functions that fail, for example "cudaMalloc"
inline std::vector<std::string> calls;  // that order or move something, with their streams
inline std::vector<std::string> asked;  // calls about devices
inline bool noting = false;             // whether calls are added to these
inline std::atomic<bool> stuck{false};  // whether nothing gets done unless it is waited for

// Called first by each function that `calls` may hold, with its name.
inline std::function<void(const std::string&)> before;

// A non-blocking stream on the current device that is called "user" in `calls`; lives until the process ends.
CUstream_st* user_stream();

// How much is queued in all streams and not done.
std::size_t pending();

// Makes it at its end what it is at the start.
struct Reset {
  Reset() = default;
  Reset(const Reset&) = delete;
  Reset& operator=(const Reset&) = delete;
  ~Reset() {
    noting = false;
    before = nullptr;
    stuck = false;
    devices = 1;
    failing.clear();
    calls.clear();
    asked.clear();
  }
};

}  // namespace fake_cuda
