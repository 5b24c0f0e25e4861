#include <doctest/doctest.h>

#include <array>
#include <type_traits>
#include <vector>

#include "floats_rt/floats_rt.hpp"

namespace floats_rt {

struct Base {};
struct Derived : Base {
  int more;
};

template <typename From, typename T>
constexpr bool makes = std::is_convertible_v<From, Span<T>>;

TEST_CASE("a span is made of arrays, std::array, vectors and spans, and sees their elements") {
  float array[] = {1, 2, 3};
  const float constant[] = {1, 2, 3};
  std::array<float, 3> standard = {1, 2, 3};
  std::vector<float> vector = {1, 2, 3};
  const std::vector<float> constant_vector = {1, 2, 3};
  const auto holds = [](Span<const float> span) {
    return std::vector<float>(span.begin(), span.end()) == std::vector<float>{1, 2, 3};
  };
  CHECK(holds(array));
  CHECK(holds(constant));
  CHECK(holds(standard));
  CHECK(holds(vector));
  CHECK(holds(constant_vector));
  CHECK(holds(Span<float>(array)));
  CHECK(holds({vector.data(), vector.size()}));
  const Span<float> of_array = array, of_standard = standard;
  of_array[1] = 4;
  of_standard[1] = 5;
  CHECK(array[1] == 4);
  CHECK(standard[1] == 5);
}

TEST_CASE("a span never drops const, and never takes elements of another size") {
  CHECK(makes<float(&)[3], float>);
  CHECK(makes<float(&)[3], const float>);
  CHECK(makes<Span<float>&, const float>);
  CHECK_FALSE(makes<const float(&)[3], float>);
  CHECK_FALSE(makes<const std::vector<float>&, float>);
  CHECK_FALSE(makes<const std::array<float, 3>&, float>);
  CHECK_FALSE(makes<Derived(&)[3], Base>);
  CHECK_FALSE(makes<std::vector<Derived>&, Base>);
}

}  // namespace floats_rt
