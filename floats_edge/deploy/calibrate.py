"""How an export becomes int8: activation ranges from attacked training images, and which layers are kept out, and why.

Ranges are expensive and depend on nothing but what goes into them, so they are kept in the user's cache under a hash of
all of it. A cached file is a stranger's: it counts only if it is valid and states the key that is looked for.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, ValidationError

from floats_edge import __version__
from floats_edge.artifacts.cache import cache_file, read_cache, write_cache
from floats_edge.artifacts.manifest import Calibration, CalibrationMethod, KeptPrecision
from floats_edge.artifacts.sensitivity import Sensitivity
from floats_edge.data import Splits
from floats_edge.deploy.lambda_graph import Network
from floats_edge.deploy.quantize import Array, calibrate
from floats_edge.deploy.say import Say
from floats_edge.deploy.sensitivity import measure_sensitivity
from floats_edge.errors import ArtifactError
from floats_edge.evaluation.batch import LARGEST_BATCH, evaluation_batch
from floats_edge.images import Images
from floats_edge.recipe import Attack, Recipe, Section

if TYPE_CHECKING:
    from floats_edge.evaluation.robustness import Twin

IMAGES = 512
"""Training images to calibrate on, and validation images at most to measure sensitivity on."""
LAMBDAS = (0.0, 0.5, 1.0)
"""Where a bundle for any lambda is calibrated."""

log = logging.getLogger("floats_edge.deploy")


@dataclass(frozen=True)
class Int8Request:
    """How to quantise.

    Attributes:
        method: how the ranges of the activations are found.
        keep: layers that are not quantised, besides those that the rule keeps.
        keep_worst: so many of the others, those that cost most, are not quantised either.
        keep_precision: what all these layers compute in.
        sensitivity: measure what each layer costs, also if no choice depends on it.
    """

    method: CalibrationMethod = "minmax"
    keep: tuple[str, ...] = ()
    keep_worst: int = 0
    keep_precision: KeptPrecision = "fp32"
    sensitivity: bool = False


@dataclass(frozen=True, eq=False)
class Quantisation:
    """What int8 graphs are made with: ranges by tensor name, how they were found, and the report if one was made."""

    ranges: dict[str, float]
    record: Calibration
    sensitivity: Sensitivity | None


class _Cached(Section):
    """What is kept in the cache."""

    key: str
    ranges: dict[str, Annotated[float, Field(ge=0)]]


def quantisation(
    network: Network,
    twin: Callable[[], "Twin"],
    splits: Splits,
    lambdas: tuple[float, ...] | None,
    recipe: Recipe,
    request: Int8Request,
    say: Say,
) -> Quantisation:
    """Find the ranges of the activations, and the layers to keep, without looking at a test image.

    Args:
        network: to be quantised.
        twin: makes the network that the images are attacked on; called only if the ranges are not known yet.
        splits: training images are calibrated on, validation images show what each layer costs.
        lambdas: that the bundle is to serve; None: any.
        recipe: whose training attack and seed are used.
        request: how to quantise.
        say: told what is being done.

    Raises:
        ArtifactError: a layer to be kept is none that would be quantised, none would be left to quantise, or
            none is kept that could compute in another precision.
        DataError: too few images, or of another shape than the network takes.
    """
    _check_kept(request.keep, request.keep_worst, network.quantisable)
    images = splits.train.first(IMAGES)
    record = Calibration(
        method=request.method,
        images=len(images),
        lambdas=lambdas or LAMBDAS,
        attack=recipe.attack,
        kept_precision=request.keep_precision,
    )
    batch = evaluation_batch(recipe.train.batch_size)
    ranges = activation_ranges(network, twin, images, record, recipe.seed, say, batch)
    report = None
    reasons = {**network.int8.kept, **dict.fromkeys(request.keep, "asked for with --keep")}
    if request.sensitivity or request.keep_worst:
        held_out = splits.validation.first(IMAGES).as_float()
        say(f"quantising each layer alone, on {len(held_out)} validation images")
        report = measure_sensitivity(
            network, ranges, lambda lam: network.scales(lam if lambdas else None), held_out, record.lambdas, batch
        )
        others = [cost.layer for cost in report.layers if cost.layer not in request.keep]
        reasons |= dict.fromkeys(others[: request.keep_worst], "it costs most, for --keep-worst")
    return Quantisation(ranges, _with_kept(record, reasons, network), report)


def activation_ranges(
    network: Network,
    twin: Callable[[], "Twin"],
    images: Images,
    record: Calibration,
    seed: int,
    say: Say,
    batch: int = LARGEST_BATCH,
) -> dict[str, float]:
    """Ranges of what int8 quantises over ``images``, clean and attacked at each lambda: remembered or measured.

    Measuring takes ``batch`` images at a time.

    Raises:
        DataError: too few images, or of another shape than the network takes.
    """
    key = _key(network, images, record, seed, batch)
    file = cache_file("calibration", key)
    ranges = _remembered(file, key, network.int8.tensors)
    if ranges is not None:
        say("taking the ranges of the activations from the cache")
        return ranges
    lambdas = ", ".join(map(str, record.lambdas))
    say(f"calibrating on {len(images)} training images, clean and attacked, at lambda {lambdas}")
    ranges = _measured(network, twin(), images, record, seed, batch)
    write_cache(file, _Cached(key=key, ranges=ranges).model_dump_json().encode())
    return ranges


def _check_kept(keep: Sequence[str], keep_worst: int, quantisable: Sequence[str]) -> None:
    unknown = sorted(set(keep) - set(quantisable))
    if unknown:
        raise ArtifactError(
            f"int8 cannot keep {', '.join(unknown)}: the layers that it quantises are {', '.join(quantisable)}.",
            fix="name some of these with --keep, or let --keep-worst N choose",
        )
    if len(set(keep)) + keep_worst >= len(quantisable):
        raise ArtifactError(
            f"nothing is left to quantise if {len(set(keep)) + keep_worst} of {len(quantisable)} layers are kept.",
            fix="keep fewer layers, or export with --precision fp16",
        )


def _with_kept(record: Calibration, reasons: Mapping[str, str], network: Network) -> Calibration:
    """The record with the layers that are kept, in the network's order, and why."""
    if record.kept_precision != "fp32" and not reasons:
        raise ArtifactError(
            f"no layer is kept out of int8 that could compute in {record.kept_precision}.",
            fix="add --keep LAYER or --keep-worst N, or leave --keep-precision out",
        )
    ordered = {layer: reasons[layer] for layer in network.layers if layer in reasons}
    return record.model_copy(update={"kept": tuple(ordered), "reasons": ordered})


@dataclass(frozen=True, eq=False)
class _CleanAndAttacked:
    """Batches of images, clean and then attacked at a lambda; made anew whenever they are iterated over."""

    twin: "Twin"
    images: Images
    lam: float
    attack: Attack
    seed: int
    batch: int

    def __iter__(self) -> Iterator[Array]:
        from floats_edge.evaluation.robustness import attacked_images

        yield from (pixels for pixels, _ in self.images.batches(self.batch))
        yield from attacked_images(self.twin, self.images, self.lam, self.attack, self.seed, self.batch)


def _measured(
    network: Network, twin: "Twin", images: Images, record: Calibration, seed: int, batch: int
) -> dict[str, float]:
    by_lambda = {lam: _CleanAndAttacked(twin, images, lam, record.attack, seed, batch) for lam in record.lambdas}
    return calibrate(network.constant, network.int8.tensors, by_lambda, record.method)


def _key(network: Network, images: Images, record: Calibration, seed: int, batch: int) -> str:
    """A hash of all that the ranges depend on: graphs with their weights, images, and what is done with them."""
    facts = {
        "floats_edge": __version__,
        "calibration": record.model_dump(mode="json", exclude={"kept", "kept_precision", "reasons"}),
        "tensors": network.int8.tensors,
        "seed": seed,
        "batch": batch,
        "shape": images.pixels.shape,
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for lam in record.lambdas:
        digest.update(network.constant(lam).graph.SerializeToString(deterministic=True))
    digest.update(images.pixels.tobytes())
    digest.update(images.labels.tobytes())
    return digest.hexdigest()


def _remembered(file: Path | None, key: str, names: Sequence[str]) -> dict[str, float] | None:
    """The ranges of a cached file that is valid, states ``key`` and has a range for each of ``names``."""
    data = read_cache(file)
    if data is None:
        return None
    try:
        cached = _Cached.model_validate_json(data)
    except ValidationError:
        cached = None
    if cached is None or cached.key != key or cached.ranges.keys() != set(names):
        log.warning("calibrating again: %s holds another calibration", file)
        return None
    return cached.ranges
