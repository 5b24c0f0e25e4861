// The shapes of what each kind of operation makes, as ONNX defines it at opsets 18 to 22. Where ONNX lets an operation
// do more than exporters use, its rule refuses.
#include <algorithm>
#include <functional>
#include <numeric>
#include <set>

#include "graph_sizes.hpp"

namespace floats_rt {
namespace {

using Numbers = std::vector<std::int64_t>;

constexpr Size kOne{1}, kImages{0, 1};
constexpr std::int64_t kInt64 = 7;  // TensorProto.INT64
constexpr std::int64_t kLargestWindow = std::int64_t{1} << 31;

Made one(Dims dims, std::optional<Dims> numbers = std::nullopt, std::int64_t factor = 1) {
  return {{Shaped{std::move(dims), std::move(numbers), true}}, factor};
}

[[noreturn]] void misfit(const Operands& it) {
  refuse_graph("has a " + it.operation() + " that does not fit its tensors");
}

[[noreturn]] void unexported(const Operands& it) {
  refuse_graph("has a " + it.operation() + " of a kind that no export writes");
}

std::ptrdiff_t at(std::size_t index) { return static_cast<std::ptrdiff_t>(index); }

Size length(const Dims& dims) { return {static_cast<std::int64_t>(dims.size())}; }

Dims part(const Dims& dims, std::size_t begin, std::size_t end) {
  return {dims.begin() + at(begin), dims.begin() + at(end)};
}

void append(Dims& dims, const Dims& more) { dims.insert(dims.end(), more.begin(), more.end()); }

std::int64_t multiplied(const Numbers& numbers, std::size_t begin = 0) {
  return count_of(part(fixed_sizes(numbers), begin, numbers.size())).known();
}

Made same(const Operands& it) {
  const bool kept = it.operation() == "Identity" || (it.operation() == "Cast" && it.integer("to", 0) == kInt64);
  return one(it.dims(0), kept ? it[0].numbers : std::nullopt);
}

Dims broadcast(const Dims& left, const Dims& right) {
  Dims dims(std::max(left.size(), right.size()), kOne);
  const auto from_end = [](const Dims& of, std::size_t i) { return i < of.size() ? of[of.size() - 1 - i] : kOne; };
  for (std::size_t i = 0; i < dims.size(); ++i) {
    const Size a = from_end(left, i), b = from_end(right, i);
    if (a != kOne && b != kOne && a != b) refuse_graph("combines tensors of shapes that do not fit");
    dims[dims.size() - 1 - i] = a == kOne ? b : a;
  }
  return dims;
}

Size computed(const std::string& operation, Size left, Size right) {
  if (operation == "Add") return left + right;
  if (operation == "Sub") return left - right;
  if (operation == "Mul") return left * right;
  return operation == "Div" ? left / right : left % right;
}

Made elementwise(const Operands& it) {
  Dims dims;
  for (std::size_t i = 0; i < it.inputs(); ++i) dims = broadcast(dims, it.dims(i));
  const std::set<std::string> arithmetic = {"Add", "Sub", "Mul", "Div", "Mod"};
  if (!arithmetic.count(it.operation()) || it.integer("fmod", 0) || !it[0].numbers || !it[1].numbers) return one(dims);
  const Dims &left = it.numbers(0), &right = it.numbers(1);
  const std::size_t count = std::max(left.size(), right.size());
  const auto fits = [&](const Dims& side) { return side.size() == 1 || side.size() == count; };
  if (dims.size() > 1 || !fits(left) || !fits(right)) return one(dims);
  Dims numbers;
  for (std::size_t i = 0; i < count; ++i) {
    numbers.push_back(computed(it.operation(), left[i % left.size()], right[i % right.size()]));
  }
  return one(dims, numbers);
}

// The size of an image after a window was moved over it.
Dims windowed(const Operands& it, const Dims& images, const Numbers& kernel) {
  const std::size_t rank = images.size();
  const Numbers strides = it.integers("strides", Numbers(rank, 1)),
                dilations = it.integers("dilations", Numbers(rank, 1)),
                pads = it.integers("pads", Numbers(2 * rank, 0));
  if (kernel.size() != rank || strides.size() != rank || dilations.size() != rank || pads.size() != 2 * rank)
    misfit(it);
  for (const Numbers* const numbers : {&kernel, &strides, &dilations, &pads}) {
    for (const std::int64_t number : *numbers) {
      if (number < (numbers == &pads ? 0 : 1) || number > kLargestWindow) unexported(it);
    }
  }
  Dims sizes;
  for (std::size_t axis = 0; axis < rank; ++axis) {
    const Size padded = images[axis] + Size{pads[axis]} + Size{pads[rank + axis]};
    const std::int64_t free = (padded - Size{dilations[axis]} * Size{kernel[axis] - 1}).known() - 1;
    if (free < 0) misfit(it);
    std::int64_t steps = free / strides[axis];
    if (free % strides[axis] && it.integer("ceil_mode", 0)) {
      // Whether a last window that begins outside the image counts changed with ONNX Runtime's versions.
      if (++steps * strides[axis] >= images[axis].known() + pads[axis]) unexported(it);
    }
    sizes.push_back({steps + 1});
  }
  return sizes;
}

Made convolution(const Operands& it) {
  const Dims& images = it.dims(0);
  Numbers weight;
  for (const Size& size : it.dims(1)) weight.push_back(size.known());
  if (images.size() < 3 || weight.size() != images.size()) misfit(it);
  const Numbers window(weight.begin() + 2, weight.end()), kernel = it.integers("kernel_shape", window);
  if (kernel != window) misfit(it);
  Dims dims = {images[0], {weight[0]}};
  append(dims, windowed(it, part(images, 2, images.size()), kernel));
  return one(dims, std::nullopt, std::max<std::int64_t>(multiplied(weight, 1), 1));
}

Made pool(const Operands& it) {
  const Dims& images = it.dims(0);
  const Numbers kernel = it.integers("kernel_shape", {});
  if (images.size() < 3) misfit(it);
  Dims dims = part(images, 0, 2);
  append(dims, windowed(it, part(images, 2, images.size()), kernel));
  return one(dims, std::nullopt, multiplied(kernel));
}

Made global_pool(const Operands& it) {
  if (it.dims(0).size() < 2) misfit(it);
  Dims dims = part(it.dims(0), 0, 2);
  dims.resize(it.dims(0).size(), kOne);
  return one(dims);
}

Made matrix_product(const Operands& it) {
  const Dims &left = it.dims(0), &right = it.dims(1);
  if (left.size() < 2 || right.size() < 2 || left.back() != right[right.size() - 2]) misfit(it);
  Dims dims = broadcast(part(left, 0, left.size() - 2), part(right, 0, right.size() - 2));
  append(dims, {left[left.size() - 2], right.back()});
  return one(dims, std::nullopt, left.back().known());
}

Made gemm(const Operands& it) {
  Dims left = it.dims(0), right = it.dims(1);
  if (left.size() != 2 || right.size() != 2) misfit(it);
  if (it.integer("transA", 0)) std::swap(left[0], left[1]);
  if (it.integer("transB", 0)) std::swap(right[0], right[1]);
  const Dims dims = {left[0], right[1]};
  if (left[1] != right[0] || (it.has(2) && broadcast(dims, it.dims(2)) != dims)) misfit(it);
  return one(dims, std::nullopt, left[1].known());
}

// The axes that an optional input names, each once.
std::vector<std::size_t> axes_of(const Operands& it, std::size_t index, std::size_t rank,
                                 std::vector<std::size_t> otherwise) {
  if (!it.has(index)) return otherwise;
  std::vector<std::size_t> axes;
  for (const std::int64_t axis : it.known(index)) axes.push_back(axis_of(axis, rank));
  if (std::set<std::size_t>(axes.begin(), axes.end()).size() < axes.size()) misfit(it);
  return axes;
}

std::vector<std::size_t> all_axes(std::size_t count) {
  std::vector<std::size_t> axes(count);
  std::iota(axes.begin(), axes.end(), std::size_t{0});
  return axes;
}

Made reduction(const Operands& it) {
  const Dims& dims = it.dims(0);
  std::set<std::size_t> axes;
  if (it.has(1)) {
    for (const std::int64_t axis : it.known(1)) axes.insert(axis_of(axis, dims.size()));
  }
  if (axes.empty() && it.integer("noop_with_empty_axes", 0)) return one(dims);
  const bool all = axes.empty(), kept = it.integer("keepdims", 1) != 0;
  Dims left;
  for (std::size_t axis = 0; axis < dims.size(); ++axis) {
    const bool reduced = all || axes.count(axis);
    if (!reduced || kept) left.push_back(reduced ? kOne : dims[axis]);
  }
  return one(left);
}

Made concat(const Operands& it) {
  Dims dims = it.dims(0), numbers;
  const std::size_t axis = it.axis(0, dims.size());
  bool known = dims.size() == 1;
  Size total{0};
  for (std::size_t i = 0; i < it.inputs(); ++i) {
    Dims next = it.dims(i);
    if (next.size() != dims.size()) misfit(it);
    total = total + next[axis];
    next[axis] = dims[axis];
    if (next != dims) misfit(it);
    known = known && it[i].numbers;
    if (known) append(numbers, it.numbers(i));
  }
  dims[axis] = total;
  return one(dims, known ? std::optional(numbers) : std::nullopt);
}

Made filled(const Operands& it) { return one(it.numbers(0)); }

Made constant(const Operands& it) {
  if (it.attributes().size() != 1) misfit(it);
  const GraphAttribute& value = it.attributes().begin()->second;
  if (value.kind == "tensor") return {{constant_of(*value.tensor)}, 1};
  const bool whole = value.kind == "integer" || value.kind == "integers";
  Dims dims;
  if (value.kind == "integers" || value.kind == "floats") dims.push_back({static_cast<std::int64_t>(value.count)});
  return one(dims, whole ? std::optional(fixed_sizes(value.integers)) : std::nullopt);
}

std::int64_t block_of(const Operands& it) {
  const std::int64_t block = it.integer("blocksize", 0);
  if (it.dims(0).size() != 4 || block < 1 || block > 1 << 20) misfit(it);
  return block;
}

Made depth_to_space(const Operands& it) {
  const Size block{block_of(it)};
  const Dims& dims = it.dims(0);
  return one({dims[0], dims[1].exactly_over(block * block), dims[2] * block, dims[3] * block});
}

Made space_to_depth(const Operands& it) {
  const Size block{block_of(it)};
  const Dims& dims = it.dims(0);
  return one({dims[0], dims[1] * block * block, dims[2].exactly_over(block), dims[3].exactly_over(block)});
}

std::vector<std::string> split_at_commas(const std::string& text) {
  std::vector<std::string> parts(1);
  for (const char letter : text) {
    if (letter == ',') {
      parts.emplace_back();
    } else {
      parts.back() += letter;
    }
  }
  return parts;
}

bool all_different_letters(const std::string& text) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  return std::all_of(text.begin(), text.end(), letter) &&
         std::set<char>(text.begin(), text.end()).size() == text.size();
}

Made einsum(const Operands& it) {
  const GraphAttribute* const attribute = it.attribute("equation");
  std::string equation = attribute ? attribute->text : "";
  equation.erase(std::remove(equation.begin(), equation.end(), ' '), equation.end());
  const std::size_t arrow = equation.find("->");
  if (arrow == std::string::npos) unexported(it);
  const std::vector<std::string> terms = split_at_commas(equation.substr(0, arrow));
  const std::string result = equation.substr(arrow + 2);
  if (terms.size() != it.inputs() || !all_different_letters(result)) unexported(it);
  std::map<char, Size> sizes;
  for (std::size_t i = 0; i < terms.size(); ++i) {
    if (terms[i].empty() || terms[i].size() != it.dims(i).size() || !all_different_letters(terms[i])) unexported(it);
    for (std::size_t k = 0; k < terms[i].size(); ++k) {
      if (sizes.emplace(terms[i][k], it.dims(i)[k]).first->second != it.dims(i)[k]) misfit(it);
    }
  }
  Dims dims, summed;
  for (const char letter : result) {
    if (!sizes.count(letter)) unexported(it);
    dims.push_back(sizes.at(letter));
  }
  for (const auto& [letter, size] : sizes) {
    if (result.find(letter) == std::string::npos) summed.push_back(size);
  }
  return one(dims, std::nullopt, std::max<std::int64_t>(count_of(summed).known(), 1));
}

Made expand(const Operands& it) { return one(broadcast(it.dims(0), it.numbers(1))); }

Made flatten(const Operands& it) {
  const Dims& dims = it.dims(0);
  const std::int64_t stated = it.integer("axis", 1);
  const bool last = stated == static_cast<std::int64_t>(dims.size());
  const std::size_t axis = last ? dims.size() : axis_of(stated, dims.size());
  return one({count_of(part(dims, 0, axis)), count_of(part(dims, axis, dims.size()))});
}

Made gather(const Operands& it) {
  const Dims& dims = it.dims(0);
  const std::size_t axis = it.axis(0, dims.size());
  std::optional<Dims> numbers;
  if (it[0].numbers && dims.size() == 1 && it[1].numbers) {
    numbers.emplace();
    for (const std::int64_t index : it.known(1)) {
      numbers->push_back(it.numbers(0)[axis_of(index, it.numbers(0).size())]);
    }
  }
  Dims gathered = part(dims, 0, axis);
  append(gathered, it.dims(1));
  append(gathered, part(dims, axis + 1, dims.size()));
  return one(gathered, numbers);
}

Made gather_nd(const Operands& it) {
  const Dims &dims = it.dims(0), &indices = it.dims(1);
  const auto rank = static_cast<std::int64_t>(dims.size()), index_rank = static_cast<std::int64_t>(indices.size());
  const std::int64_t batch = it.integer("batch_dims", 0);
  if (batch < 0 || batch >= index_rank) misfit(it);
  const std::int64_t taken = indices.back().known();
  if (taken < 1 || taken > rank - batch) misfit(it);
  Dims gathered = part(indices, 0, indices.size() - 1);
  append(gathered, part(dims, static_cast<std::size_t>(batch + taken), dims.size()));
  return one(gathered);
}

Made pad(const Operands& it) {
  Dims dims = it.dims(0);
  const auto axes = axes_of(it, 3, dims.size(), all_axes(dims.size()));
  const Dims& pads = it.numbers(1);
  if (pads.size() != 2 * axes.size()) misfit(it);
  for (std::size_t i = 0; i < axes.size(); ++i) dims[axes[i]] = dims[axes[i]] + pads[i] + pads[axes.size() + i];
  return one(dims);
}

Made range(const Operands& it) {
  for (std::size_t i = 0; i < 3; ++i) {
    if (it.numbers(i).size() != 1) misfit(it);
  }
  const Size limit = it.numbers(1)[0];
  const std::int64_t start = it.known(0)[0], step = it.known(2)[0];
  if (limit.per_image) {  // from 0 to the number of images
    if (start != 0 || step != 1) unexported(it);
    return one({limit});
  }
  if (step == 0) unexported(it);
  const std::int64_t span = (limit - Size{start}).known();  // what takes more than 62 bits is refused
  const bool backward = (span < 0) != (step < 0);
  if (span == 0 || backward) return one({Size{0}});
  return one({Size{span / step + (span % step ? 1 : 0)}});
}

Made reshape(const Operands& it) {
  const Dims& dims = it.dims(0);
  const Size count = count_of(dims);
  Dims wanted = it.numbers(1);
  std::optional<std::size_t> free;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (wanted[i] == Size{0} && i < dims.size() && !it.integer("allowzero", 0)) wanted[i] = dims[i];
    if (wanted[i] != Size{-1}) continue;
    if (free) misfit(it);
    free = i;
    wanted[i] = kOne;
  }
  if (free) wanted[*free] = count.exactly_over(count_of(wanted));
  if (count_of(wanted) != count) misfit(it);
  return one(wanted, it[0].numbers);
}

Made resize(const Operands& it) {
  Dims dims = it.dims(0);
  std::vector<std::size_t> axes;
  for (const std::int64_t axis : it.integers("axes", {})) axes.push_back(axis_of(axis, dims.size()));
  if (!it.attribute("axes")) axes = all_axes(dims.size());
  const Dims& sizes = it.numbers(3);
  if (it.has(2) && count_of(it.dims(2)) != Size{0}) unexported(it);  // by scales
  if (sizes.size() != axes.size()) misfit(it);
  for (std::size_t i = 0; i < axes.size(); ++i) dims[axes[i]] = sizes[i];
  return one(dims, std::nullopt, 16);  // cubic: four by four pixels for each
}

Made shape(const Operands& it) {
  const Dims& dims = it.dims(0);
  const auto rank = static_cast<std::int64_t>(dims.size());
  const auto clamped = [&](std::int64_t index) {
    return static_cast<std::size_t>(std::clamp<std::int64_t>(index < 0 ? index + rank : index, 0, rank));
  };
  const std::size_t start = clamped(it.integer("start", 0)), end = clamped(it.integer("end", rank));
  const Dims taken = part(dims, start, std::max(start, end));
  return one({length(taken)}, taken);
}

// The indices that a slice takes, clamped as ONNX does.
struct Taken {
  std::int64_t start, step, count;
};

Taken taken(std::int64_t size, std::int64_t start, std::int64_t end, std::int64_t step) {
  if (start < 0) start += size;
  if (end < 0) end += size;
  if (step > 0) {
    start = std::min(std::max<std::int64_t>(start, 0), size);
    end = std::min(std::max<std::int64_t>(end, 0), size);
    return {start, step, end > start ? (end - start - 1) / step + 1 : 0};
  }
  start = std::min(std::max<std::int64_t>(start, 0), size - 1);
  end = std::min(std::max<std::int64_t>(end, -1), size - 1);
  return {start, step, start > end ? (start - end - 1) / -std::max(step, -kLargestWindow) + 1 : 0};
}

Made slice(const Operands& it) {
  Dims dims = it.dims(0);
  const Numbers starts = it.known(1), ends = it.known(2);
  if (starts.size() > dims.size()) misfit(it);
  const auto axes = axes_of(it, 3, dims.size(), all_axes(starts.size()));
  const Numbers steps = it.has(4) ? it.known(4) : Numbers(starts.size(), 1);
  if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size()) misfit(it);
  std::optional<Dims> numbers = dims.size() == 1 && starts.size() == 1 ? it[0].numbers : std::nullopt;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    if (steps[i] == 0) misfit(it);
    if (starts[i] == 0 && ends[i] >= kLargestWindow - 1 && steps[i] == 1) continue;  // all, even of the images
    const Taken of = taken(dims[axes[i]].known(), starts[i], ends[i], steps[i]);
    dims[axes[i]] = {of.count};
    if (!numbers) continue;
    Dims some;
    for (std::int64_t k = 0; k < of.count; ++k)
      some.push_back(numbers->at(static_cast<std::size_t>(of.start + k * of.step)));
    numbers = some;
  }
  return one(dims, numbers);
}

Made split(const Operands& it) {
  const Dims& dims = it.dims(0);
  const std::size_t axis = it.axis(0, dims.size());
  const std::int64_t size = dims[axis].known(), outputs = static_cast<std::int64_t>(it.outputs());
  if (it.integer("num_outputs", outputs) != outputs) misfit(it);
  Numbers sizes = it.has(1) ? it.known(1) : Numbers{};
  const std::int64_t each = size / outputs + (size % outputs ? 1 : 0);
  for (std::int64_t left = size; !it.has(1) && static_cast<std::int64_t>(sizes.size()) < outputs;
       left -= sizes.back()) {
    sizes.push_back(std::min(each, left));
  }
  Made made;
  Size total{0};
  for (const std::int64_t each_size : sizes) {
    total = total + Size{each_size};
    Dims share = dims;
    share[axis] = {each_size};
    made.results.push_back({share, std::nullopt, true});
  }
  if (total != Size{size} || made.results.size() != it.outputs()) misfit(it);
  return made;
}

Made squeeze(const Operands& it) {
  const Dims& dims = it.dims(0);
  if (!it.has(1) && std::find(dims.begin(), dims.end(), kImages) != dims.end()) unexported(it);
  std::vector<std::size_t> ones;
  for (std::size_t axis = 0; axis < dims.size(); ++axis) {
    if (dims[axis] == kOne) ones.push_back(axis);
  }
  const auto axes = axes_of(it, 1, dims.size(), ones);
  Dims left;
  for (std::size_t axis = 0; axis < dims.size(); ++axis) {
    const bool squeezed = std::count(axes.begin(), axes.end(), axis) > 0;
    if (squeezed && dims[axis] != kOne) misfit(it);
    if (!squeezed) left.push_back(dims[axis]);
  }
  return one(left, it[0].numbers);
}

Made tile(const Operands& it) {
  Dims dims = it.dims(0);
  const Dims& repeats = it.numbers(1);
  if (dims.size() != repeats.size()) misfit(it);
  for (std::size_t i = 0; i < dims.size(); ++i) dims[i] = dims[i] * repeats[i];
  return one(dims);
}

Made transpose(const Operands& it) {
  const Dims& dims = it.dims(0);
  Numbers reversed(dims.size());
  std::iota(reversed.rbegin(), reversed.rend(), std::int64_t{0});
  const Numbers order = it.integers("perm", reversed);
  Numbers sorted = order;
  std::sort(sorted.rbegin(), sorted.rend());
  if (sorted != reversed) misfit(it);
  Dims moved;
  for (const std::int64_t axis : order) moved.push_back(dims[static_cast<std::size_t>(axis)]);
  return one(moved);
}

Made unsqueeze(const Operands& it) {
  Dims dims = it.dims(0);
  auto axes = axes_of(it, 1, dims.size() + it.numbers(1).size(), {});
  std::sort(axes.begin(), axes.end());
  for (const std::size_t axis : axes) dims.insert(dims.begin() + at(axis), kOne);
  return one(dims, it[0].numbers);
}

}  // namespace

Made made_by(const std::string& rule, const Operands& operands) {
  static const std::map<std::string, Made (*)(const Operands&)> rules = {
      {"same", same},
      {"broadcast", elementwise},
      {"convolution", convolution},
      {"pool", pool},
      {"global_pool", global_pool},
      {"product", matrix_product},
      {"gemm", gemm},
      {"reduction", reduction},
      {"concat", concat},
      {"filled", filled},
      {"constant", constant},
      {"depth_to_space", depth_to_space},
      {"space_to_depth", space_to_depth},
      {"einsum", einsum},
      {"expand", expand},
      {"flatten", flatten},
      {"gather", gather},
      {"gather_nd", gather_nd},
      {"pad", pad},
      {"range", range},
      {"reshape", reshape},
      {"resize", resize},
      {"shape", shape},
      {"slice", slice},
      {"split", split},
      {"squeeze", squeeze},
      {"tile", tile},
      {"transpose", transpose},
      {"unsqueeze", unsqueeze},
  };
  return rules.at(rule)(operands);
}

}  // namespace floats_rt
