// What reading a stranger's bytes must not do, watched: opening files, and taking more memory than the bytes are worth.
#pragma once

#include <cstddef>

namespace floats_rt {

// While one of these lives, opening a file, or holding more than `bytes` of memory taken since, ends the process with a
// message. Works where the sanitizers' allocator does.
class Watched {
 public:
  explicit Watched(std::size_t bytes);
  ~Watched();
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;
};

}  // namespace floats_rt
