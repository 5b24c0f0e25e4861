// An operator new that counts, for the whole process: also for ONNX Runtime. Beyond a size it fails. The thread
// sanitizer has one of its own, with which nothing is counted.
#include <atomic>
#include <cstdlib>
#include <new>

std::atomic<std::size_t> allocations{0}, largest_allocation{~std::size_t{0}};

#ifndef __has_feature
#  define __has_feature(feature) 0
#endif
#if !__has_feature(thread_sanitizer)
void* operator new(std::size_t size) {
  ++allocations;
  if (size <= largest_allocation) {
    if (void* const memory = std::malloc(size ? size : 1)) return memory;
  }
  throw std::bad_alloc();
}
void* operator new[](std::size_t size) { return operator new(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
#endif
