// The border of the library: nothing but Error comes out of it.
#pragma once

#include <exception>
#include <new>

#include "floats_rt/floats_rt.hpp"

namespace floats_rt {

// The Error of memory that ran out; made beforehand, because making one takes memory.
const Error& out_of_memory();

// Calls call() and makes an Error of whatever else it throws.
template <typename Call>
auto translated(const Call& call) -> decltype(call()) {
  try {
    return call();
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw Error(out_of_memory());
  } catch (const std::exception& error) {
    throw Error(ErrorCode::runtime, std::string("the system or the application's log failed: ") + error.what() + ".",
                "mend what is named, and load the bundle again");
  }
}

}  // namespace floats_rt
