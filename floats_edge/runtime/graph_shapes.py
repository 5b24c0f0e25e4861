"""The shapes of what each kind of operation makes, as ONNX defines it at opsets 18 to 22.

A rule takes an operation's :class:`Operands` and gives its results, and how many multiplications each number in them
takes. Where ONNX lets an operation do more than exporters use, the rule refuses.
"""

import math
from collections.abc import Callable, Sequence
from itertools import zip_longest

from floats_edge.runtime.graph_sizes import (
    IMAGES,
    ONE,
    Dims,
    Operands,
    Shaped,
    Size,
    axis_of,
    constant,
    count_of,
    fixed,
)
from floats_edge.runtime.onnx_bytes import GraphError

Made = tuple[list[Shaped], int]
_INT64 = 7


def _one(dims: Sequence[Size], numbers: Sequence[Size] | None = None, factor: int = 1) -> Made:
    return [Shaped(tuple(dims), None if numbers is None else tuple(numbers))], factor


def _same(it: Operands) -> Made:
    kept = it.node.operator == "Identity" or (it.node.operator == "Cast" and it.get("to") == _INT64)
    return _one(it[0].dims, it[0].numbers if kept else None)


def broadcast(left: Dims, right: Dims) -> Dims:
    """The shape of two tensors taken element by element."""
    dims = []
    for a, b in zip_longest(reversed(left), reversed(right), fillvalue=ONE):
        if ONE not in (a, b) and a != b:
            raise GraphError("combines tensors of shapes that do not fit")
        dims.append(b if a == ONE else a)
    return tuple(reversed(dims))


_ARITHMETIC: dict[str, Callable[[Size, Size], Size]] = {
    "Add": Size.plus,
    "Sub": lambda left, right: left.plus(right, -1),
    "Mul": Size.times,
    "Div": Size.over,
    "Mod": Size.modulo,
}


def _broadcast(it: Operands) -> Made:
    dims: Dims = ()
    for index in range(len(it.values)):
        dims = broadcast(dims, it[index].dims)
    compute = _ARITHMETIC.get(it.node.operator)
    if compute is None or it.get("fmod", 0) or it[0].numbers is None or it[1].numbers is None:
        return _one(dims)
    left, right = it.numbers(0), it.numbers(1)
    count = max(len(left), len(right))
    if len(dims) > 1 or {len(left), len(right)} - {1, count}:
        return _one(dims)
    pairs = zip(left * (count // len(left)), right * (count // len(right)), strict=True)
    return _one(dims, [compute(a, b) for a, b in pairs])


def _window(it: Operands, dims: Dims, kernel: Sequence[int]) -> list[Size]:
    """The size of an image after a window was moved over it."""
    rank = len(dims)
    strides, dilations = it.get("strides", [1] * rank), it.get("dilations", [1] * rank)
    pads = it.get("pads", [0] * 2 * rank)
    if not len(kernel) == len(strides) == len(dilations) == len(pads) / 2 == rank:
        raise GraphError(f"has a {it.node.operator} whose window does not fit its images")
    if min(*kernel, *strides, *dilations) < 1 or min(pads) < 0 or max(*kernel, *strides, *dilations, *pads) > 2**31:
        raise GraphError(f"has a {it.node.operator} with a window that no export writes")
    sizes = []
    for axis in range(rank):
        padded = dims[axis].known + pads[axis] + pads[rank + axis]
        free = padded - dilations[axis] * (kernel[axis] - 1) - 1
        steps, rest = divmod(free, strides[axis])
        if free < 0:
            raise GraphError(f"has a {it.node.operator} whose window is larger than its images")
        if rest and it.get("ceil_mode", 0):
            steps += 1
            if steps * strides[axis] >= dims[axis].known + pads[axis]:  # whether this one counts changed with versions
                raise GraphError(f"has a {it.node.operator} whose last window lies outside its images")
        sizes.append(Size(steps + 1))
    return sizes


def _convolution(it: Operands) -> Made:
    images, weight = it[0].dims, [size.known for size in it[1].dims]
    kernel = it.get("kernel_shape", weight[2:])
    if len(images) < 3 or len(weight) != len(images) or kernel != weight[2:]:
        raise GraphError("has a Conv whose weights do not fit its images")
    return _one([images[0], Size(weight[0]), *_window(it, images[2:], kernel)], factor=max(math.prod(weight[1:]), 1))


def _pool(it: Operands) -> Made:
    images, kernel = it[0].dims, it.get("kernel_shape", [])
    if len(images) < 3:
        raise GraphError(f"has a {it.node.operator} of no images")
    return _one([*images[:2], *_window(it, images[2:], kernel)], factor=math.prod(kernel))


def _global_pool(it: Operands) -> Made:
    if len(it[0].dims) < 2:
        raise GraphError(f"has a {it.node.operator} of no images")
    return _one([*it[0].dims[:2], *[ONE] * (len(it[0].dims) - 2)])


def _product(it: Operands) -> Made:
    left, right = it[0].dims, it[1].dims
    if len(left) < 2 or len(right) < 2 or left[-1] != right[-2]:
        raise GraphError("has a MatMul of shapes that do not fit")
    return _one([*broadcast(left[:-2], right[:-2]), left[-2], right[-1]], factor=left[-1].known)


def _gemm(it: Operands) -> Made:
    left, right = it[0].dims, it[1].dims
    if len(left) != 2 or len(right) != 2:
        raise GraphError("has a Gemm of tensors that are no matrices")
    rows, inner = reversed(left) if it.get("transA", 0) else left
    right_inner, columns = reversed(right) if it.get("transB", 0) else right
    if inner != right_inner or (it.has(2) and broadcast((rows, columns), it[2].dims) != (rows, columns)):
        raise GraphError("has a Gemm of shapes that do not fit")
    return _one([rows, columns], factor=inner.known)


def _reduction(it: Operands) -> Made:
    dims = it[0].dims
    axes = it.known(1) if it.has(1) else []
    if not axes and it.get("noop_with_empty_axes", 0):
        return _one(dims)
    reduced = {axis_of(axis, len(dims)) for axis in axes} or set(range(len(dims)))
    if it.get("keepdims", 1):
        return _one([ONE if axis in reduced else size for axis, size in enumerate(dims)])
    return _one([size for axis, size in enumerate(dims) if axis not in reduced])


def _concat(it: Operands) -> Made:
    parts = [it[index] for index in range(len(it.values))]
    first = parts[0].dims
    axis = it.axis(0, len(first))
    total = Size(0)
    for part in parts:
        if len(part.dims) != len(first) or any(
            a != b for index, (a, b) in enumerate(zip(part.dims, first, strict=True)) if index != axis
        ):
            raise GraphError("has a Concat of shapes that do not fit")
        total = total.plus(part.dims[axis])
    known = [part.numbers for part in parts if part.numbers is not None]
    numbers = [number for part in known for number in part] if len(known) == len(parts) and len(first) == 1 else None
    return _one([*first[:axis], total, *first[axis + 1 :]], numbers)


def _filled(it: Operands) -> Made:
    return _one(it.numbers(0))


def _constant(it: Operands) -> Made:
    if len(it.node.attributes) != 1:
        raise GraphError("has a Constant of several values")
    (kind, value), *_ = it.node.attributes.items()
    if kind == "value":
        return [constant(value)], 1
    if kind in ("value_int", "value_float"):
        return _one((), [Size(value)] if kind == "value_int" else None)
    return _one([Size(len(value))], fixed(value) if kind == "value_ints" else None)


def _depth_to_space(it: Operands) -> Made:
    images, block = _blocks(it)
    area = Size(block * block)
    return _one([images[0], _exactly(images[1], area), *(size.times(Size(block)) for size in images[2:])])


def _space_to_depth(it: Operands) -> Made:
    images, block = _blocks(it)
    return _one([images[0], images[1].times(Size(block * block)), *(_exactly(s, Size(block)) for s in images[2:])])


def _blocks(it: Operands) -> tuple[Dims, int]:
    block = it.get("blocksize", 0)
    if len(it[0].dims) != 4 or not 1 <= block <= 2**20:
        raise GraphError(f"has a {it.node.operator} of no images")
    return it[0].dims, block


def _exactly(size: Size, divisor: Size) -> Size:
    quotient = size.over(divisor)
    if quotient.times(divisor) != size:
        raise GraphError("divides sizes that do not divide")
    return quotient


def _einsum(it: Operands) -> Made:
    terms, _, result = it.get("equation", "").replace(" ", "").partition("->")
    sizes: dict[str, Size] = {}
    for index, letters in enumerate(terms.split(",")):
        if len(letters) != len(it[index].dims) or len(set(letters)) < len(letters) or not letters.isalpha():
            raise GraphError("has an Einsum that no export writes")
        for letter, size in zip(letters, it[index].dims, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise GraphError("has an Einsum of shapes that do not fit")
    if len(terms.split(",")) != len(it.values) or not set(result) <= sizes.keys() or len(set(result)) < len(result):
        raise GraphError("has an Einsum that no export writes")
    summed = count_of(tuple(size for letter, size in sizes.items() if letter not in result))
    return _one([sizes[letter] for letter in result], factor=max(summed.known, 1))


def _expand(it: Operands) -> Made:
    return _one(broadcast(it[0].dims, it.numbers(1)))


def _flatten(it: Operands) -> Made:
    dims, axis = it[0].dims, it.get("axis", 1)
    axis = axis if axis == len(dims) else axis_of(axis, len(dims))
    return _one([count_of(dims[:axis]), count_of(dims[axis:])])


def _gather(it: Operands) -> Made:
    dims, indices = it[0].dims, it[1]
    axis = it.axis(0, len(dims))
    numbers = None
    if it[0].numbers is not None and len(dims) == 1 and indices.numbers is not None:
        numbers = [it[0].numbers[axis_of(index, len(it[0].numbers))] for index in it.known(1)]
    return _one([*dims[:axis], *indices.dims, *dims[axis + 1 :]], numbers)


def _gather_nd(it: Operands) -> Made:
    dims, indices, batch = it[0].dims, it[1].dims, it.get("batch_dims", 0)
    if not indices or not 0 <= batch < len(indices) or not 1 <= indices[-1].known <= len(dims) - batch:
        raise GraphError("has a GatherND that does not fit its tensor")
    return _one([*indices[:-1], *dims[batch + indices[-1].known :]])


def _axes(it: Operands, index: int, rank: int, default: Sequence[int]) -> list[int]:
    """Axes that an optional input names, each once."""
    axes = [axis_of(axis, rank) for axis in it.known(index)] if it.has(index) else list(default)
    if len(set(axes)) < len(axes):
        raise GraphError(f"has a {it.node.operator} that names an axis twice")
    return axes


def _pad(it: Operands) -> Made:
    dims = list(it[0].dims)
    axes, pads = _axes(it, 3, len(dims), range(len(dims))), it.numbers(1)
    if len(pads) != 2 * len(axes):
        raise GraphError("has a Pad that does not fit its tensor")
    for index, axis in enumerate(axes):
        dims[axis] = dims[axis].plus(pads[index]).plus(pads[len(axes) + index])
    return _one(dims)


def _range(it: Operands) -> Made:
    if not all(len(it.numbers(index)) == 1 for index in range(3)):
        raise GraphError("has a Range that does not fit its tensors")
    (start,), (limit,), (step,) = it.known(0), it.numbers(1), it.known(2)
    if limit.per_image:  # from 0 to the number of images
        if (start, step) != (0, 1):
            raise GraphError("has a Range over the images that no export writes")
        return _one([limit])
    if not step:
        raise GraphError("has a Range without an end")
    span = limit.plus(Size(start), -1).known
    return _one([Size(max(-(-span // step), 0))])


def _reshape(it: Operands) -> Made:
    dims, wanted = it[0].dims, list(it.numbers(1))
    if not it.get("allowzero", 0):
        wanted = [dims[at] if size == Size(0) and at < len(dims) else size for at, size in enumerate(wanted)]
    free = [at for at, size in enumerate(wanted) if size == Size(-1)]
    if len(free) > 1:
        raise GraphError("has a Reshape with two free sizes")
    for at in free:
        wanted[at] = ONE
        wanted[at] = _exactly(it[0].count, count_of(tuple(wanted)))
    if count_of(tuple(wanted)) != it[0].count:
        raise GraphError("has a Reshape to another number of elements")
    return _one(wanted, it[0].numbers)


def _resize(it: Operands) -> Made:
    dims = list(it[0].dims)
    axes = [axis_of(axis, len(dims)) for axis in it.get("axes", range(len(dims)))]
    sizes = it.numbers(3)
    if it.has(2) and it[2].count != Size(0):
        raise GraphError("has a Resize by scales, which no export writes")
    if len(sizes) != len(axes):
        raise GraphError("has a Resize that does not fit its tensor")
    for axis, size in zip(axes, sizes, strict=True):
        dims[axis] = size
    return _one(dims, factor=16)  # cubic: four by four pixels for each


def _shape(it: Operands) -> Made:
    rank = len(it[0].dims)
    part = it[0].dims[slice(*slice(it.get("start", 0), it.get("end", rank)).indices(rank))]
    return _one([Size(len(part))], part)


def _slice(it: Operands) -> Made:
    dims = list(it[0].dims)
    starts, ends = it.known(1), it.known(2)
    axes = _axes(it, 3, len(dims), range(len(starts)))
    steps = it.known(4) if it.has(4) else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or len(starts) > len(dims) or 0 in steps:
        raise GraphError("has a Slice that does not fit its tensor")
    numbers = it[0].numbers if len(dims) == 1 and len(starts) == 1 else None
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if start == 0 and end >= 2**31 - 1 and step == 1:
            continue  # all of it, even if that is the number of images
        taken = _taken(dims[axis].known, start, end, step)
        dims[axis] = Size(len(taken))
        numbers = None if numbers is None else tuple(numbers[index] for index in taken)
    return _one(dims, numbers)


def _taken(size: int, start: int, end: int, step: int) -> range:
    """The indices of a slice, clamped as ONNX does."""
    start, end = (index + size if index < 0 else index for index in (start, end))
    if step > 0:
        return range(min(max(start, 0), size), min(max(end, 0), size), step)
    return range(min(max(start, 0), size - 1), min(max(end, -1), size - 1), step)


def _split(it: Operands) -> Made:
    dims = it[0].dims
    axis = it.axis(0, len(dims))
    size, parts = dims[axis].known, it.get("num_outputs", len(it.node.outputs))
    if parts != len(it.node.outputs):
        raise GraphError("has a Split of another number of outputs")
    each = -(-size // parts)
    sizes = it.known(1) if it.has(1) else [min(each, max(size - each * index, 0)) for index in range(parts)]
    if sum(sizes) != size or len(sizes) != parts:
        raise GraphError("has a Split that does not fit its tensor")
    return [Shaped((*dims[:axis], Size(part), *dims[axis + 1 :])) for part in sizes], 1


def _squeeze(it: Operands) -> Made:
    dims = it[0].dims
    ones = [axis for axis, size in enumerate(dims) if size == ONE]
    if not it.has(1) and IMAGES in dims:
        raise GraphError("has a Squeeze that may drop the number of images")
    axes = _axes(it, 1, len(dims), ones)
    if not set(axes) <= set(ones):
        raise GraphError("has a Squeeze of an axis that is not of size one")
    return _one([size for axis, size in enumerate(dims) if axis not in axes], it[0].numbers)


def _tile(it: Operands) -> Made:
    dims, repeats = it[0].dims, it.numbers(1)
    if len(dims) != len(repeats):
        raise GraphError("has a Tile that does not fit its tensor")
    return _one([size.times(times) for size, times in zip(dims, repeats, strict=True)])


def _transpose(it: Operands) -> Made:
    dims = it[0].dims
    order = it.get("perm", list(reversed(range(len(dims)))))
    if sorted(order) != list(range(len(dims))):
        raise GraphError("has a Transpose that does not fit its tensor")
    return _one([dims[axis] for axis in order])


def _unsqueeze(it: Operands) -> Made:
    dims = list(it[0].dims)
    rank = len(dims) + len(it.numbers(1))
    for axis in sorted(_axes(it, 1, rank, ())):
        dims.insert(axis, ONE)
    return _one(dims, it[0].numbers)


RULES: dict[str, Callable[[Operands], Made]] = {
    "same": _same,
    "broadcast": _broadcast,
    "convolution": _convolution,
    "pool": _pool,
    "global_pool": _global_pool,
    "product": _product,
    "gemm": _gemm,
    "reduction": _reduction,
    "concat": _concat,
    "filled": _filled,
    "constant": _constant,
    "depth_to_space": _depth_to_space,
    "space_to_depth": _space_to_depth,
    "einsum": _einsum,
    "expand": _expand,
    "flatten": _flatten,
    "gather": _gather,
    "gather_nd": _gather_nd,
    "pad": _pad,
    "range": _range,
    "reshape": _reshape,
    "resize": _resize,
    "shape": _shape,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "tile": _tile,
    "transpose": _transpose,
    "unsqueeze": _unsqueeze,
}
"""By the word after ``makes`` in ``export/schema/graph.json``."""
