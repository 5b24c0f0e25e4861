// Libraries that are found while the program runs.
#pragma once

#include <string>
#include <vector>

namespace floats_rt {

// A library opened with dlopen. It stays in the process for good: what these libraries leave behind cannot be unloaded.
class SharedLibrary {
 public:
  // Opens `path`; if that is empty, the file that the environment variable names; if that is unset, the first of
  // `names` that the dynamic linker finds. Throws Error: backend_unavailable.
  SharedLibrary(const std::string& path, const char* variable, const std::vector<std::string>& names);

  // What was opened.
  const std::string& name() const noexcept { return name_; }

  // A function of type F; nullptr if the library has none of this name.
  template <typename F>
  F* find(const char* symbol) const noexcept {
    return reinterpret_cast<F*>(address(symbol));
  }

  // The same. Throws Error, backend_unavailable, if the library has none of this name.
  template <typename F>
  F* get(const char* symbol) const {
    return reinterpret_cast<F*>(required_address(symbol));
  }

 private:
  void* address(const char* symbol) const noexcept;
  void* required_address(const char* symbol) const;

  std::string name_;
  void* handle_ = nullptr;
};

}  // namespace floats_rt
