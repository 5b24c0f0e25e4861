// What a test can make the fake CUDA do.
#pragma once

#include <set>
#include <string>
#include <vector>

namespace fake_cuda {

inline int devices = 1;                 // there are; their compute capability is 8.7
inline std::set<std::string> failing;   // functions that fail, for example "cudaMalloc"
inline std::vector<std::string> calls;  // that order or move something, with their streams
inline bool noting = true;              // whether calls are added to that

}  // namespace fake_cuda
