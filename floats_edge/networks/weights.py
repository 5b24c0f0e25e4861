"""Pretrained tensors into a network: by name, or by order where no name fits, and a report of what became of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from floats_edge.errors import NetworkError
from floats_edge.networks.tensor_file import read_tensors

LEAST_SHARE = 0.9
"""Of the tensors of file and network: what must fit, or the weights are those of another network."""
_LISTED = 12
_Tensors = Mapping[str, Tensor]
_Pairs = Mapping[str, str]
"""Name in the network to name in the file."""


@dataclass(frozen=True)
class Report:
    """What became of the tensors of a file.

    Attributes:
        path: the file.
        entry: of a training checkpoint, where they stood; empty: the file holds nothing else.
        by_order: whether they were taken by their order, as no name fitted.
        taken: names in the network of the tensors that were loaded.
        renamed: of these, those that have another name in the file, and that name.
        adapted: of these, those that were computed from the file's, and how.
        skipped: names in the file of what the network has no tensor for, and the reason.
        fresh: names in the network of what keeps its random values, and why.
        share: of the tensors of file and network, those that fit; a head of another class count is not counted.
    """

    path: Path
    entry: str
    by_order: bool
    taken: tuple[str, ...]
    renamed: Mapping[str, str]
    adapted: Mapping[str, str]
    skipped: Mapping[str, str]
    fresh: Mapping[str, str]
    share: float

    def __str__(self) -> str:
        """A few lines for people: how many, and each tensor that was not simply taken."""
        source = f"{self.path.name}, entry {self.entry}" if self.entry else self.path.name
        how = "by their order, as no name fitted" if self.by_order else "by name"
        lines = [f"{source}: {len(self.taken)} tensors taken {how}, {len(self.renamed)} of them renamed"]
        for title, tensors in (("adapted", self.adapted), ("skipped", self.skipped), ("left random", self.fresh)):
            lines += [f"  {title}: {name}: {reason}" for name, reason in list(tensors.items())[:_LISTED]]
            lines += [f"  {title}: {len(tensors) - _LISTED} more"] if len(tensors) > _LISTED else []
        return "\n".join(lines)


def load_weights(network: nn.Module, path: Path) -> Report:
    """Load pretrained tensors into ``network``; it is as it was if they do not fit.

    Names may have a prefix that a wrapper left (``module.``, ``model.``). A head of another class count keeps its
    random values. For images of one channel, the first convolution's weights are summed over the colours. Where hardly
    a name fits, tensors are taken by their order, if there are as many of the same kinds and shapes.

    Args:
        network: as it was built, before images are normalised in it and before it is conditioned.
        path: safetensors, or a state dict that ``torch.save`` wrote, by itself or in a training checkpoint.

    Raises:
        NetworkError: the file is none of these, its tensors are those of another network, or some are not finite.
    """
    given, entry = read_tensors(path)
    wanted: _Tensors = network.state_dict()
    pairs, ordered = _by_name(wanted, given), {}
    if len(pairs) < len(wanted) / 10:
        ordered = _by_order(wanted, given)
    pairs = ordered or pairs
    adapted = _summed_over_colours(wanted, given, pairs)
    values = {ours: given[theirs] for ours, theirs in pairs.items() if _fits(wanted[ours], given[theirs])} | adapted
    used = {*pairs.values()}
    report = Report(
        path,
        entry,
        by_order=bool(ordered),
        taken=tuple(values),
        renamed={ours: pairs[ours] for ours in values if pairs[ours] != ours},
        adapted=dict.fromkeys(adapted, "summed over the colours of the file's, as images have one channel here"),
        skipped={name: "the network has no such tensor" for name in given if _counts(name) and name not in used},
        fresh={ours: _misfit(wanted, given, ours, pairs) for ours in wanted if ours not in values and _counts(ours)},
        share=_share(wanted, given, pairs, values),
    )
    _check(report, {pairs[ours]: value for ours, value in values.items()})
    with torch.no_grad():
        for ours, value in values.items():
            wanted[ours].copy_(value)
    return report


def _by_name(wanted: _Tensors, given: _Tensors) -> _Pairs:
    """Pair equal names, without the prefix that makes the most of them equal."""
    prefixes = {theirs.removesuffix(ours) for ours in wanted for theirs in given if theirs.endswith(f".{ours}")}
    without = [{theirs.removeprefix(prefix): theirs for theirs in given} for prefix in ("", *sorted(prefixes))]
    names = max(without, key=lambda names: len(wanted.keys() & names.keys()))
    return {ours: names[ours] for ours in wanted if ours in names}


def _by_order(wanted: _Tensors, given: _Tensors) -> _Pairs:
    """Pair tensors by their order; none at all unless they agree, one by one, in kind and but for a head in shape."""
    ours, theirs = (tuple(filter(_counts, tensors)) for tensors in (wanted, given))
    if len(ours) != len(theirs):
        return {}
    pairs = dict(zip(ours, theirs, strict=True))
    head = _head(wanted, given, pairs)
    agree = all(
        a.rpartition(".")[2] == b.rpartition(".")[2] and (a in head or _fits(wanted[a], given[b]))
        for a, b in pairs.items()
    )
    return pairs if agree else {}


def _counts(name: str) -> bool:
    """Whether a tensor matters: BatchNorm's count of batches, which older files lack, does not."""
    return not name.endswith("num_batches_tracked")


def _fits(wanted: Tensor, given: Tensor) -> bool:
    return wanted.shape == given.shape and wanted.is_floating_point() == given.is_floating_point()


def _head(wanted: _Tensors, given: _Tensors, pairs: _Pairs) -> set[str]:
    """The tensors of a head of another class count: all that do not fit, which differ in the number of outputs alone.

    A layer within the network has others after it, which would then differ in the number of their inputs.
    """
    odd = {
        ours: (wanted[ours], given[theirs]) for ours, theirs in pairs.items() if not _fits(wanted[ours], given[theirs])
    }
    outputs = {(a.shape[:1], b.shape[:1]) for a, b in odd.values()}
    return set(odd) if len(outputs) == 1 and all(a.shape[1:] == b.shape[1:] for a, b in odd.values()) else set()


def _summed_over_colours(wanted: _Tensors, given: _Tensors, pairs: _Pairs) -> dict[str, Tensor]:
    """The weight of a first convolution that takes one channel here and three in the file."""
    first = next((name for name, tensor in wanted.items() if tensor.ndim == 4), "")
    if first not in pairs:
        return {}
    ours, theirs = wanted[first], given[pairs[first]]
    (out, channels, *size), shape = ours.shape, list(theirs.shape)
    return {first: theirs.sum(1, keepdim=True)} if channels == 1 and shape == [out, 3, *size] else {}


def _share(wanted: _Tensors, given: _Tensors, pairs: _Pairs, values: _Tensors) -> float:
    """The tensors that fit over those there are, in file or network, whichever has more."""
    head = _head(wanted, given, {ours: theirs for ours, theirs in pairs.items() if ours not in values})
    most = max(sum(map(_counts, tensors)) for tensors in (wanted, given)) - len(head)
    return sum(map(_counts, values)) / max(1, most)


def _misfit(wanted: _Tensors, given: _Tensors, ours: str, pairs: _Pairs) -> str:
    return _shapes(wanted[ours], given[pairs[ours]]) if ours in pairs else "the file has no such tensor"


def _shapes(wanted: Tensor, given: Tensor) -> str:
    kinds = "" if wanted.is_floating_point() == given.is_floating_point() else f" of {given.dtype}"
    return f"{list(given.shape)}{kinds} in the file, {list(wanted.shape)} in the network"


def _check(report: Report, used: _Tensors) -> None:
    if report.share < LEAST_SHARE:
        odd = next(iter(({**report.skipped, **report.fresh}).items()))
        raise NetworkError(
            f"{report.path} holds the weights of another network: {report.share:.0%} of the tensors fit, and "
            f"{LEAST_SHARE:.0%} must. {odd[0]}: {odd[1]}.",
            fix="set model.name and model.arguments to the network that the weights are of, or model.weights to others",
        )
    for name, tensor in used.items():
        if not bool(tensor.isfinite().all()):
            raise NetworkError(
                f"{report.path}: {name} holds numbers that are not finite.", fix="set model.weights to another file"
            )
