"""Several processes that train one network, started by torchrun: gloo on CPUs, NCCL on NVIDIA GPUs.

Every worker holds the whole network and makes the random choices of the whole batch; it augments, attacks and computes
every ``size``-th of its images. BatchNorm shares its statistics (sync_batchnorm.py), and after the backward pass one
all-reduce averages all gradients; so the workers take the steps that one process would take on the whole batch, up to
rounding.

DistributedDataParallel would hide that all-reduce behind the backward pass. It expects one forward pass of one module
for each backward pass, though, where a step here calls the network twice, or under another name than ``forward``; and
FLOATS regrows weights by the averaged dense gradient, between backward pass and update. Said once and in the open, that
is a few lines.
"""

import hashlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import NoReturn

import torch
from torch import Tensor, distributed, nn

from floats_edge.errors import INTERRUPTED, BackendError, RecipeError
from floats_edge.recipe import Recipe

TORCHRUN = "torchrun --nproc-per-node 2 -m floats_edge train RECIPE"
TIMEOUT = timedelta(minutes=30)
"""How long a worker waits for another that neither answers nor ends; torchrun sees within a second that one ended."""
GRACE = timedelta(seconds=5)
"""How long a worker that is to end may take for it."""
_STOPPED = "torchrun stops this worker: another one has ended, or all are to end."
_RESUME = "see what the others say; then start again with --resume, which goes on from the last epoch saved"
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Workers:
    """The processes that train together, seen by one of them; alone unless told otherwise.

    Attributes:
        rank: which of them this is.
        size: how many there are.
        local_rank: which of those on this machine this is.
        device: where tensors must be for the workers to exchange them.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: str = "cpu"

    @property
    def share(self) -> slice:
        """Which images of a batch are this worker's."""
        return slice(self.rank, None, self.size)

    def positions(self, total: int, first: int = 0) -> range:
        """Where this worker's images stand among those of the batch from ``first`` on, of which there are ``total``."""
        return range((self.rank - first) % self.size, total, self.size)

    def check_recipe(self, recipe: Recipe) -> None:
        """Check that so many workers can train by this recipe: their shares of a batch must be as alike as it needs.

        Raises:
            RecipeError: they cannot.
        """
        parts, part = (2, "half of ") if recipe.method == "float" else (1, "")
        if recipe.data.mixes:  # the two in an image are a quarter of the batch apart
            parts, part = 4, "each quarter of "
        if self.size > 1 and recipe.train.batch_size % (parts * self.size):
            raise RecipeError(
                f"{self.size} workers cannot share {part}a batch of {recipe.train.batch_size} images equally.",
                fix="choose another train.batch_size, or another --nproc-per-node of torchrun",
            )
        if recipe.method == "oat" and recipe.train.batch_size < self.size * len(recipe.oat.lambdas):
            raise RecipeError(
                f"a batch of {recipe.train.batch_size} images has less than one of lambda = 0 for each of "
                f"{self.size} workers.",
                fix=f"raise train.batch_size to {self.size * len(recipe.oat.lambdas)} or more",
            )
        if recipe.method == "oat" and recipe.train.compile and self.size > 1:
            raise RecipeError(
                "OAT is attacked unfolded, and its BatchNorm over several workers is not for torch.compile.",
                fix="add -o train.compile=false, or train alone, without torchrun",
            )

    @contextmanager
    def first_leads(self) -> Iterator[None]:
        """On each machine, the first worker does what is inside before the others do.

        The others then find what it downloaded, and a mistake that all would meet is told once.
        """
        if self.local_rank > 0:
            self.wait()
        yield
        if self.local_rank == 0:
            self.wait()

    def wait(self) -> None:
        """Wait until every worker has come here."""
        self.sum(torch.zeros(1, device=self.device))

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of the workers' tensors, the same bits on each of them.

        Raises:
            BackendError: another worker has ended, or does not answer.
        """
        if self.size == 1:
            return tensor
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        try:
            distributed.all_reduce(tensor)
        except RuntimeError as error:
            raise BackendError(
                f"worker {self.rank} of {self.size} lost another one: {str(error).splitlines()[0]}",
                fix=_RESUME,
            ) from None
        return tensor

    def from_first(self, make: Callable[[], Tensor], zeros: Tensor) -> Tensor:
        """What ``make`` gives on the first worker, on all of them; ``zeros`` are of its shape and type.

        Raises:
            BackendError: another worker has ended, or does not answer.
        """
        tensor = make() if self.rank == 0 else zeros
        return self.sum(tensor.to(self.device)).to(tensor.device)

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of the workers' tensors, detached."""
        return self.sum(tensor.detach()) / self.size

    @torch.no_grad()
    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the workers."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        assert len(gradients) == len(parameters), "every trained parameter takes part in every step"
        means = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, mean in zip(gradients, means.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(mean.view(gradient.shape))

    def check_alike(self, tensors: Iterable[Tensor]) -> None:
        """Check that the workers hold the same bits.

        Raises:
            BackendError: they do not.
        """
        if self.size == 1:
            return
        digest = hashlib.sha256(b"".join(tensor.detach().cpu().numpy().tobytes() for tensor in tensors)).digest()
        mine = torch.tensor(list(digest), dtype=torch.int64, device=self.device)
        if not torch.equal(self.sum(mine), mine * self.size) or not torch.equal(
            self.sum(mine.square()), mine.square() * self.size
        ):
            raise BackendError(
                "the workers' networks are not the same: they do not see the same run folder, or their devices do not "
                "compute the same.",
                fix="let all see the same --out; train on devices of one kind, or with -o train.deterministic=true",
            )


ALONE = Workers()


def refuse_workers(command: str) -> None:
    """Let ``command`` pass unless torchrun started several of it: all would write into the same folder.

    Raises:
        BackendError: several were started.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise BackendError(
            f"{command} runs in one process, but WORLD_SIZE={os.environ['WORLD_SIZE']} is set as for several.",
            fix=f"start it without torchrun, which is for {TORCHRUN}; or unset WORLD_SIZE",
        )


@contextmanager
def join(device: str) -> Iterator[Workers]:
    """Join the workers that torchrun started, for as long as the context lasts; without torchrun, train alone.

    Args:
        device: a torch device; with ``cuda``, each worker of a machine takes a GPU of its own.

    Raises:
        BackendError: the environment is not torchrun's, or the workers cannot reach each other from this device.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield ALONE
        return
    rank, size, local_rank = _from_torchrun()
    backend = _backend(device)
    if backend == "nccl":
        _take_gpu(device, local_rank)
    try:
        distributed.init_process_group(backend, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise BackendError(
            f"worker {rank} of {size} could not join the others: {str(error).splitlines()[0]}",
            fix=f"start all of them with torchrun, on one machine: {TORCHRUN}",
        ) from None
    with _ended_by_sigterm():
        try:
            yield Workers(rank, size, local_rank, device)
        finally:
            distributed.destroy_process_group()


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end this process, within seconds where it waits in NCCL, gloo or CUDA for a worker that is gone.

    Python runs no handler of a signal while such a call lasts; what it writes at once into a pipe, a thread reads.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.register_at_fork(after_in_child=partial(signal.set_wakeup_fd, -1))  # what ends a loader is not meant for us
    handler, descriptor = signal.signal(signal.SIGTERM, _stopped), signal.set_wakeup_fd(writer)
    ended = threading.Event()
    threading.Thread(target=_end_if_stuck, args=(reader, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(descriptor)
        signal.signal(signal.SIGTERM, handler)
        os.close(writer)


def _end_if_stuck(reader: int, ended: threading.Event) -> None:
    """Wait for SIGTERM in ``reader``, and then for the end of the run, but not for long."""
    while number := os.read(reader, 1):
        if number[0] == signal.SIGTERM and not ended.wait(GRACE.total_seconds()):
            os.write(sys.stderr.fileno(), f"\nError: {_STOPPED}\nRemedy: {_RESUME}\n".encode())
            os._exit(INTERRUPTED)
    os.close(reader)


def _stopped(*_: object) -> NoReturn:
    raise BackendError(_STOPPED, fix=_RESUME)


def _from_torchrun() -> tuple[int, int, int]:
    """``(rank, size, local rank)`` from the environment."""
    missing = [name for name in _VARIABLES if name not in os.environ]
    try:
        if missing:
            raise ValueError(f"without {', '.join(missing)}")
        rank, size, local_rank = (int(os.environ[name]) for name in _VARIABLES[:3])
    except ValueError as error:
        raise BackendError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} is set as for several workers, but not by torchrun: {error}.",
            fix=f"start with {TORCHRUN}, or train alone: unset WORLD_SIZE",
        ) from None
    return rank, size, local_rank


def _backend(device: str) -> str:
    """By what the workers on ``device`` exchange tensors."""
    backend = "nccl" if device.startswith("cuda") else "gloo"
    if not (distributed.is_available() and distributed.is_backend_available(backend)):
        raise BackendError(
            f"this PyTorch was built without {backend}, by which workers exchange gradients.",
            fix="train alone, without torchrun, or install another build of PyTorch",
        )
    return backend


def _take_gpu(device: str, local_rank: int) -> None:
    """Make the GPU of this worker the current one, which ``cuda`` names."""
    if device != "cuda":
        raise BackendError(f"several workers cannot share {device}.", fix="--device cuda gives each a GPU of its own")
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise BackendError(
            f"there is no GPU for worker {local_rank} of this machine, which has {count}.",
            fix=f"start at most {count} workers here: torchrun --nproc-per-node {count}",
        )
    torch.cuda.set_device(local_rank)
