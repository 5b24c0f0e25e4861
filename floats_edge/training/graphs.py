"""Passes of a network on a GPU as CUDA graphs: recorded once, then launched as one piece of work each.

A small network in training waits for the host, which launches its kernels one by one. A graph launches all of them at
once. It repeats what ran when it was recorded, on the same memory: weights, masks, statistics and noise may change in
place; the number of images, lambda and whatever else Python decides may not.

As ``torch.cuda.make_graphed_callables`` does it, which until PyTorch 2.14 let no other thread use CUDA meanwhile, and
which records all passes before the first is used. Here one is recorded when the loss of another is there already: so
training must run in the stream that is recorded (:func:`stream_of_its_own`). Source: PyTorch, "CUDA semantics", section
"CUDA Graphs". Never run on a GPU so far: tested with a stand-in that records what torch is asked for on a CPU.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from floats_edge.attacks import Network
from floats_edge.errors import BackendError

Made = TypeVar("Made")
_WARM_UP = 3


class Graphs:
    """Work of a training step, by name, recorded when it is first asked for.

    Args:
        record: whether to record it at all; if not, it just runs.
    """

    def __init__(self, record: bool) -> None:
        self._record = record
        self._work: dict[str, torch.cuda.CUDAGraph] = {}
        self._passes: dict[str, _Pass] = {}

    def run(self, name: str, work: Callable[[], object]) -> None:
        """Do ``work``, which makes nothing but changes in place.

        Raises:
            BackendError: it cannot be recorded.
        """
        if not self._record:
            work()
            return
        if name not in self._work:
            with _refusing():
                _warm_up(work)
                self._work[name], _ = _recorded(work)
        self._work[name].replay()

    def network(self, name: str, network: nn.Module, learns: bool) -> Network:
        """``network`` for one pass of a step: for always as many images, and a backward comes before the next call.

        Args:
            name: of the pass.
            network: maps images ``[N, C, H, W]`` to logits.
            learns: whether logits are differentiable in its parameters; if not, in the images.

        Returns:
            The same network, which raises BackendError if it is to be recorded and cannot be.
        """
        if not self._record:
            return network

        def logits(images: Tensor) -> Tensor:
            if name not in self._passes:
                self._passes[name] = _Pass(network, images, learns)
            return self._passes[name](images)

        return logits


class _Pass:
    """A recorded pass; neither the statistics of ``network`` nor random numbers know that it was recorded."""

    def __init__(self, network: nn.Module, images: Tensor, learns: bool) -> None:
        self.images = images.detach().clone().requires_grad_(not learns)
        self.parameters = [each for each in network.parameters() if learns and each.requires_grad]
        buffers = [*network.buffers()]
        before = [buffer.clone() for buffer in buffers]
        with _refusing(), torch.random.fork_rng([images.device] if images.is_cuda else []):
            _warm_up(lambda: self._back(network(self.images)))
            self.there, logits = _recorded(lambda: network(self.images))
            self.gradient = torch.empty_like(logits)
            self.back, self.gradients = _recorded(lambda: self._back(logits, self.gradient), self.there.pool())
        self.logits = logits.detach()
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)

    def _back(self, logits: Tensor, gradient: Tensor | None = None) -> tuple[Tensor | None, ...]:
        gradient = torch.empty_like(logits) if gradient is None else gradient
        with torch.autocast(logits.device.type, enabled=False):  # gradients are of the types that the pass there chose
            found = torch.autograd.grad(logits, self.parameters or self.images, gradient, allow_unused=True)
        # Parameters that are added to each other share a gradient: torch would take it for both, and add to it twice.
        ids = [*map(id, found)]
        return tuple(each.clone() if each is not None and id(each) in ids[:i] else each for i, each in enumerate(found))

    def __call__(self, images: Tensor) -> Tensor:
        return _Replay.apply(self, images, *(self.parameters or [images]))


class _Replay(torch.autograd.Function):
    """A recorded pass over images as one operation of torch, with what it is differentiable in."""

    @staticmethod
    def forward(ctx: Any, recorded: _Pass, images: Tensor, *inputs: Tensor) -> Tensor:
        del inputs  # the graph knows where they are
        ctx.recorded = recorded
        recorded.images.copy_(images)
        recorded.there.replay()
        return recorded.logits.detach()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the names
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        recorded = ctx.recorded
        recorded.gradient.copy_(*gradients)
        recorded.back.replay()
        return None, None, *(each if each is None else each.detach() for each in recorded.gradients)


@contextmanager
def stream_of_its_own(device: torch.device) -> Iterator[None]:
    """Let a training that is recorded run in a stream of its own.

    The default stream cannot be recorded. Nor could another one be beside it: a parameter's end of a backward pass
    (``AccumulateGrad``) stays in the stream in which a step first met it, and a recording that has to wait for a stream
    outside it breaks.
    """
    before, own = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    own.wait_stream(before)
    try:
        with torch.cuda.stream(own):
            yield
    finally:
        before.wait_stream(own)


def _warm_up(work: Callable[[], object]) -> None:
    """Do ``work`` a few times: what CUDA makes at first calls is no part of a graph."""
    for _ in range(_WARM_UP):
        work()


def _recorded(work: Callable[[], Made], pool: Any = None) -> tuple[torch.cuda.CUDAGraph, Made]:
    """A graph of ``work``, and what it will have made; threads that read images may go on meanwhile."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
        made = work()
    return graph, made


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        first = error.__context__ if isinstance(error.__context__, RuntimeError) else error
        raise BackendError(  # the end of a recording that broke tells only that it did
            f"CUDA cannot record the training of this network: {' '.join(str(first).split())[:300]}",
            fix="add -o train.cuda_graphs=false",
        ) from error
