#include "shared_library.hpp"

#include <dlfcn.h>

#include <cstdlib>

#include "floats_rt/floats_rt.hpp"

namespace floats_rt {

SharedLibrary::SharedLibrary(const std::string& path, const char* variable, const std::vector<std::string>& names) {
  // Nothing is named to a program that runs with more rights than its user: the user must not choose its code.
  const char* const named = ::secure_getenv(variable);
  const std::string wanted = !path.empty() ? path : named ? named : "";
  std::string problems;
  for (const std::string& name : wanted.empty() ? names : std::vector{wanted}) {
    handle_ = ::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    name_ = name;
    if (handle_) return;
    const char* const problem = ::dlerror();
    problems += problems.empty() ? "" : "; ";
    problems += problem ? problem : name;
  }
  throw Error(ErrorCode::backend_unavailable, "a library cannot be opened: " + problems + ".",
              std::string("install it, or name its file in ") + variable + " or in Options");
}

void* SharedLibrary::address(const char* symbol) const noexcept { return ::dlsym(handle_, symbol); }

void* SharedLibrary::required_address(const char* symbol) const {
  if (void* const found = address(symbol)) return found;
  throw Error(ErrorCode::backend_unavailable, name_ + " has no function " + symbol + ".",
              "name the right library, of a supported version");
}

}  // namespace floats_rt
