"""What a board cannot beat on paper: the roofline (Williams et al., CACM 2009) of a bundle. Nothing is measured."""

from collections.abc import Iterator, Sequence
from importlib import resources

import yaml
from pydantic import Field

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.manifest import Precision
from floats_edge.artifacts.records import Estimate
from floats_edge.profiling.workload import BYTES, Workload, layer_workloads
from floats_edge.recipe import Section


class Board(Section):
    """Peak rates of a board; see ``boards.yaml``."""

    name: str
    tera_ops: dict[Precision, float | None]
    memory_gb_s: float = Field(gt=0)
    cache_mib: float = Field(ge=0)
    modules: tuple[str, ...] = Field(description="part numbers, as the device tree of such a module has them")
    source: str


def boards() -> dict[str, Board]:
    """Every board there are figures of, by the name that options take."""
    text = resources.files("floats_edge.profiling").joinpath("boards.yaml").read_text(encoding="utf-8")
    return {name: Board.model_validate(board) for name, board in yaml.safe_load(text).items()}


def estimate_bundle(bundle: Bundle, names: Sequence[str], batches: Sequence[int]) -> tuple[Estimate, ...]:
    """Lower bounds on the latency of a bundle's network, per board, precision, dense and 2:4, and batch.

    Raises:
        ArtifactError: the graph is not what was exported.
    """
    if not names:
        return ()
    workloads, known = layer_workloads(bundle), boards()
    return tuple(
        estimate for name in names for batch in batches for estimate in estimate_board(workloads, known[name], batch)
    )


def estimate_board(workloads: Sequence[Workload], board: Board, batch: int) -> Iterator[Estimate]:
    """Lower bounds on one board; a precision whose peak is not published is left out."""
    for precision, peak in board.tera_ops.items():
        for sparse in (False, True) if precision != "fp32" else (False,):
            if peak is None:
                continue
            rate = peak * 1e12 * (2 if sparse else 1)
            arithmetic = 2 * batch * sum(work.macs for work in workloads) / rate
            memory = _compulsory_bytes(workloads, batch, BYTES[precision], board) / (board.memory_gb_s * 1e9)
            yield Estimate(
                board=board.name,
                precision=precision,
                sparse=sparse,
                batch=batch,
                latency_ms=1000 * max(arithmetic, memory),
                bound="arithmetic" if arithmetic >= memory else "memory",
                source=board.source,
            )


def _compulsory_bytes(workloads: Sequence[Workload], batch: int, size: int, board: Board) -> float:
    """What must cross the memory bus: images and logits, and the weights unless the cache can keep them.

    Activations are left out, although a network that overflows the cache moves them too: this is a lower bound.
    """
    weights = size * sum(work.weights for work in workloads)
    ends = 4 * batch * (workloads[0].inputs + workloads[-1].outputs)  # images and logits are float32
    return ends + (weights if weights > board.cache_mib * 2**20 else 0)
