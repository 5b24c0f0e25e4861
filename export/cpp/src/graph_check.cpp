#include "graph_check.hpp"

#include <utility>

#include "graph_sizes.hpp"

namespace floats_rt {
namespace {

using Values = std::map<std::string, Shaped>;

// How many there are for one image; for N images it is N times as many at most.
std::int64_t elements_of(const Shaped& shaped) {
  const Size count = count_of(shaped.dims);
  return (Size{count.fixed} + Size{count.per_image}).fixed;
}

// The sums over a graph that are bounded.
class Account {
 public:
  explicit Account(std::int64_t stored) : constants_(graph_schema().constant_elements + 2 * stored) {}

  void add(const std::string& operation, const Shaped& result) {
    const std::int64_t elements = elements_of(result);
    if (elements > graph_schema().tensor_elements) {
      refuse_graph("has a " + operation + " that makes " + std::to_string(elements) + " numbers of an image");
    }
    take(result.varies ? all_ : constants_, elements, result.varies ? "elements" : "computed constants");
  }

  void add_work(Size work) { take(multiplications_, work.fixed, "multiplications"); }

 private:
  static void take(std::int64_t& left, std::int64_t amount, const char* what) {
    if (amount > left) refuse_graph(std::string("has more ") + what + " for one image than networks need");
    left -= amount;
  }

  std::int64_t all_ = graph_schema().all_elements, constants_;
  std::int64_t multiplications_ = graph_schema().multiplications;
};

std::vector<const Shaped*> operands_of(const GraphNode& node, const Values& values) {
  std::vector<const Shaped*> operands;
  for (const std::string& name : node.inputs) {
    const auto found = values.find(name);
    if (found == values.end() && !name.empty()) {
      refuse_graph("uses " + name + ", which nothing before it computes");
    }
    operands.push_back(name.empty() ? nullptr : &found->second);
  }
  return operands;
}

void check_node(const GraphNode& node, Values& values, Account& account) {
  const std::vector<const Shaped*> inputs = operands_of(node, values);
  Made made = made_by(graph_schema().operators.at(node.operation).makes, Operands(node, inputs));
  if (made.results.size() < node.outputs.size()) {
    refuse_graph("has an operation " + node.operation + " with " + std::to_string(node.outputs.size()) + " outputs");
  }
  Size work{0};
  bool varies = false;
  for (const Shaped* const input : inputs) {
    if (!input) continue;
    varies = varies || input->varies;
    work = work + Size{elements_of(*input)};
  }
  for (Shaped& result : made.results) {
    if (result.dims.size() > graph_schema().rank) refuse_graph("has a tensor of more axes than an export writes");
    if (result.numbers && (result.numbers->empty() || result.numbers->size() > graph_schema().known_numbers)) {
      result.numbers.reset();
    }
    result.varies = varies;
    account.add(node.operation, result);
    work = work + Size{made.factor} * Size{elements_of(result)};
  }
  account.add_work(work);
  for (std::size_t i = 0; i < node.outputs.size(); ++i) {
    if (node.outputs[i].empty()) continue;
    if (!values.emplace(node.outputs[i], std::move(made.results[i])).second) {
      refuse_graph("computes " + node.outputs[i] + " twice");
    }
  }
}

Values given(const GraphParts& parts) {
  Values values;
  for (const auto& [name, tensor] : parts.constants) values.emplace(name, constant_of(tensor));
  for (const auto& [name, dims] : parts.inputs) {
    Shaped shaped;
    for (const auto& size : dims) {
      if (!size && !shaped.dims.empty()) {
        refuse_graph("has an input with a free size that is not the number of images");
      }
      shaped.dims.push_back(size ? Size{*size} : Size{0, 1});
    }
    values.emplace(name, std::move(shaped));
  }
  return values;
}

}  // namespace

std::map<std::string, GraphTensor> checked_constants(ByteSpan model) {
  GraphParts parts = read_parts(model);
  Values values = given(parts);
  Size stored{0};
  for (const auto& [name, tensor] : parts.constants) stored = stored + count_of(fixed_sizes(tensor.dims));
  Account account(stored.fixed);
  for (const ByteSpan& node : parts.nodes) check_node(read_node(node), values, account);
  for (const std::string& output : parts.outputs) {
    if (!values.count(output)) refuse_graph("does not compute its output " + output);
  }
  return std::move(parts.constants);
}

}  // namespace floats_rt
