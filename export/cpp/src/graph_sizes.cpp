#include "graph_sizes.hpp"

#include <algorithm>
#include <cstring>

namespace floats_rt {
namespace {

constexpr std::int64_t kMost = std::int64_t{1} << 62;
constexpr std::int64_t kInt64 = 7;  // TensorProto.INT64

[[noreturn]] void beyond_memory() { refuse_graph("computes sizes that no memory holds"); }

Size bounded(Size size) {
  for (const std::int64_t part : {size.fixed, size.per_image}) {
    if (part > kMost || part < -kMost) beyond_memory();
  }
  return size;
}

std::int64_t product(std::int64_t left, std::int64_t right) {
  std::int64_t result = 0;
  if (__builtin_mul_overflow(left, right, &result)) beyond_memory();
  return result;
}

std::int64_t sum(std::int64_t left, std::int64_t right) {
  std::int64_t result = 0;
  if (__builtin_add_overflow(left, right, &result)) beyond_memory();
  return result;
}

std::int64_t difference(std::int64_t left, std::int64_t right) {
  std::int64_t result = 0;
  if (__builtin_sub_overflow(left, right, &result)) beyond_memory();
  return result;
}

[[noreturn]] void does_not_divide() { refuse_graph("divides sizes that do not divide"); }

}  // namespace

Size Size::operator+(Size other) const { return bounded({sum(fixed, other.fixed), sum(per_image, other.per_image)}); }

Size Size::operator-(Size other) const {
  return bounded({difference(fixed, other.fixed), difference(per_image, other.per_image)});
}

Size Size::operator*(Size other) const {
  if (per_image && other.per_image) refuse_graph("has sizes that grow faster than the number of images");
  return bounded({product(fixed, other.fixed), sum(product(fixed, other.per_image), product(per_image, other.fixed))});
}

Size Size::operator/(Size other) const {
  if (other.per_image) {
    if (other.per_image < -kMost || per_image % other.per_image) does_not_divide();
    const std::int64_t quotient = per_image / other.per_image;
    if (product(quotient, other.fixed) != fixed) does_not_divide();
    return {quotient};
  }
  if (other.fixed > 0 && !per_image && fixed >= 0) return {fixed / other.fixed};
  if (other.fixed <= 0 || fixed % other.fixed || per_image % other.fixed) does_not_divide();
  return {fixed / other.fixed, per_image / other.fixed};
}

Size Size::operator%(Size other) const {
  if (other.known() <= 0) does_not_divide();
  const std::int64_t rest = known() % other.fixed;
  return {rest < 0 ? rest + other.fixed : rest};
}

Size Size::exactly_over(Size divisor) const {
  const Size quotient = *this / divisor;
  if (quotient * divisor != *this) does_not_divide();
  return quotient;
}

std::int64_t Size::known() const {
  if (per_image) refuse_graph("has an operation on the number of images that no export writes");
  return fixed;
}

Size count_of(const Dims& dims) {
  Size count{1};
  for (const Size& size : dims) {
    if (size.fixed < 0 || size.per_image < 0) refuse_graph("has a shape with a negative size");
    count = count * size;
  }
  return count;
}

Dims fixed_sizes(const std::vector<std::int64_t>& sizes) {
  Dims dims;
  for (const std::int64_t size : sizes) dims.push_back({size});
  return dims;
}

std::size_t axis_of(std::int64_t axis, std::size_t rank) {
  const auto axes = static_cast<std::int64_t>(rank);
  if (axis < -axes || axis >= axes) refuse_graph("has an operation on an axis that is not there");
  return static_cast<std::size_t>(axis < 0 ? axis + axes : axis);
}

Shaped constant_of(const GraphTensor& tensor) {
  Shaped shaped{fixed_sizes(tensor.dims), std::nullopt, false};
  const std::size_t count = tensor.raw.size() / sizeof(std::int64_t);
  if (tensor.type != kInt64 || !count || count > graph_schema().known_numbers) return shaped;
  std::vector<std::int64_t> numbers(count);
  std::memcpy(numbers.data(), tensor.raw.data(), tensor.raw.size());
  shaped.numbers = fixed_sizes(numbers);
  return shaped;
}

const Shaped& Operands::operator[](std::size_t index) const {
  if (!has(index)) refuse_graph("lacks an input of " + operation());
  return *values_[index];
}

const Dims& Operands::numbers(std::size_t index) const {
  const auto& numbers = (*this)[index].numbers;
  if (!numbers) refuse_graph("computes shapes for " + operation() + " in a way that no export does");
  return *numbers;
}

std::vector<std::int64_t> Operands::known(std::size_t index) const {
  std::vector<std::int64_t> known;
  for (const Size& number : numbers(index)) known.push_back(number.known());
  return known;
}

const GraphAttribute* Operands::attribute(const std::string& name) const {
  const auto found = node_.attributes.find(name);
  return found == node_.attributes.end() ? nullptr : &found->second;
}

std::int64_t Operands::integer(const std::string& name, std::int64_t otherwise) const {
  const GraphAttribute* const found = attribute(name);
  return found ? found->integers.front() : otherwise;
}

std::vector<std::int64_t> Operands::integers(const std::string& name, std::vector<std::int64_t> otherwise) const {
  const GraphAttribute* const found = attribute(name);
  return found ? found->integers : otherwise;
}

std::size_t Operands::axis(std::int64_t otherwise, std::size_t rank) const {
  return axis_of(integer("axis", otherwise), rank);
}

}  // namespace floats_rt
