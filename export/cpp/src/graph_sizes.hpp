// Numbers that may depend on how many images there are, and what is known of a tensor in terms of them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "graph_parts.hpp"

namespace floats_rt {

// fixed + per_image * N, for N images. What would overflow, grow faster than N, or not divide, is refused: Error.
struct Size {
  std::int64_t fixed = 0, per_image = 0;

  bool operator==(const Size& other) const { return fixed == other.fixed && per_image == other.per_image; }
  bool operator!=(const Size& other) const { return !(*this == other); }
  Size operator+(Size other) const;
  Size operator-(Size other) const;
  Size operator*(Size other) const;
  Size operator/(Size other) const;       // the whole number of times that `other` goes into this
  Size operator%(Size other) const;       // the rest, never negative, that is left of it
  Size exactly_over(Size divisor) const;  // the same; refused if anything is left
  std::int64_t known() const;             // the number; refused if it depends on how many images there are
};

using Dims = std::vector<Size>;

Size count_of(const Dims& dims);
Dims fixed_sizes(const std::vector<std::int64_t>& sizes);
std::size_t axis_of(std::int64_t axis, std::size_t rank);  // counted from the front

struct Shaped {
  Dims dims;
  std::optional<Dims> numbers;  // its elements, where they are few whole numbers that shapes may be computed from
  bool varies = true;           // with an input of the graph; what does not is computed when the graph is loaded
};

Shaped constant_of(const GraphTensor& tensor);

// The inputs and attributes of one operation, as its rule asks for them; what is not there is refused.
class Operands {
 public:
  Operands(const GraphNode& node, std::vector<const Shaped*> values) : node_(node), values_(std::move(values)) {}

  const std::string& operation() const { return node_.operation; }
  std::size_t outputs() const { return node_.outputs.size(); }
  std::size_t inputs() const { return values_.size(); }
  bool has(std::size_t index) const { return index < values_.size() && values_[index]; }
  const Shaped& operator[](std::size_t index) const;
  const Dims& dims(std::size_t index) const { return (*this)[index].dims; }
  const Dims& numbers(std::size_t index) const;  // the elements of an input that says a shape, axes or the like
  std::vector<std::int64_t> known(std::size_t index) const;  // the same, if they depend on no number of images
  const GraphAttribute* attribute(const std::string& name) const;
  std::int64_t integer(const std::string& name, std::int64_t otherwise) const;
  std::vector<std::int64_t> integers(const std::string& name, std::vector<std::int64_t> otherwise) const;
  std::size_t axis(std::int64_t otherwise, std::size_t rank) const;  // the attribute
  const std::map<std::string, GraphAttribute>& attributes() const { return node_.attributes; }

 private:
  const GraphNode& node_;
  std::vector<const Shaped*> values_;
};

// The results of an operation, and how many multiplications each number in them takes.
struct Made {
  std::vector<Shaped> results;
  std::int64_t factor = 1;
};

// What the rule of the operation makes; `rule` is an OperatorRule's `makes`.
Made made_by(const std::string& rule, const Operands& operands);

}  // namespace floats_rt
