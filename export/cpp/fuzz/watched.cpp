#include "watched.hpp"

#include <fcntl.h>
#include <sanitizer/allocator_interface.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace {

std::atomic<std::ptrdiff_t> limit{0};  // bytes; 0: nobody watches
std::atomic<std::ptrdiff_t> held{0};

[[noreturn]] void broken(const char* what, const char* which) {
  limit = 0;
  std::fprintf(stderr, "broken property: %s %s\n", what, which);
  std::abort();
}

void on_allocation(const volatile void* /*memory*/, std::size_t size) {
  if (limit && (held += static_cast<std::ptrdiff_t>(size)) > limit) broken("memory beyond the bound", "");
}

void on_release(const volatile void* memory) {
  if (limit) held -= static_cast<std::ptrdiff_t>(__sanitizer_get_allocated_size(memory));
}

// The last argument of open and openat, which is there only where a file may be created.
mode_t mode_of(int flags, va_list arguments) {
  return flags & (O_CREAT | O_TMPFILE) ? static_cast<mode_t>(va_arg(arguments, int)) : 0;
}

int opened(int folder, const char* path, int flags, mode_t mode) {
  if (limit) broken("a file is opened:", path);
  return static_cast<int>(::syscall(SYS_openat, folder, path, flags, mode));
}

}  // namespace

// In place of the C library's, for ONNX Runtime too.
extern "C" {

int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return opened(AT_FDCWD, path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int openat(int folder, const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return opened(folder, path, flags, mode);
}

FILE* fopen(const char* path, const char* mode) {
  const bool reads = mode[0] == 'r';
  const int file = opened(AT_FDCWD, path, reads ? O_RDONLY : O_WRONLY | O_CREAT | (mode[0] == 'a' ? O_APPEND : O_TRUNC),
                          S_IRUSR | S_IWUSR | S_IRGRP | S_IROTH);
  return file < 0 ? nullptr : ::fdopen(file, mode);
}

}  // extern "C"

namespace floats_rt {

Watched::Watched(std::size_t bytes) {
  static const int installed = __sanitizer_install_malloc_and_free_hooks(on_allocation, on_release);
  if (!installed) broken("no hooks:", "the sanitizers' allocator is not there");
  held = 0;
  limit = static_cast<std::ptrdiff_t>(bytes);
}

Watched::~Watched() { limit = 0; }

}  // namespace floats_rt
