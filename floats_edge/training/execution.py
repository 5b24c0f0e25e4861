"""How steps are computed on the device: in which precision, compiled or not, deterministically or not."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from floats_edge.artifacts.files import Tensors
from floats_edge.errors import BackendError
from floats_edge.float32 import float32_as
from floats_edge.recipe import Train
from floats_edge.training.graphs import stream_of_its_own

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Automatic mixed precision: weights, BatchNorm's statistics and losses stay float32, convolutions do not.

    The attack, most of a training step, is computed in the same precision as the update; the checks after an epoch are
    not, for IEEE float32 is what is evaluated and exported. float16 needs its losses scaled lest small gradients
    vanish; a step whose gradients overflow is left out. None of this has run on a GPU.

    Args:
        train: how a recipe trains.
        device: of the network.
    """

    def __init__(self, train: Train, device: torch.device) -> None:
        self.amp = train.amp
        self.device = device
        self.keeps_casts = not train.cuda_graphs  # a weight that was cast outside a graph is not cast again inside
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp == "fp16")

    def autocast(self) -> torch.autocast:
        """The context in which attacks and losses are computed."""
        return torch.autocast(self.device.type, DTYPES.get(self.amp), self.amp != "off", self.keeps_casts)

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a loss, which :meth:`unscale` is still to unscale."""
        self.scaler.scale(loss).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Give the gradients their true size, those that overflowed the size 0."""
        if not self.scaler.is_enabled():
            return
        self.scaler.unscale_(optimizer)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad.nan_to_num_(0.0, 0.0, 0.0)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the weights, unless a gradient overflowed."""
        self.scaler.step(optimizer)
        self.scaler.update()

    def remark(self) -> str | None:
        """What to say of mixed precision where it is no gain."""
        if self.amp == "off" or self.device.type != "cpu":
            return None
        return f"train.amp={self.amp} is meant for GPUs; on most CPUs it is many times slower than amp=off"

    def state(self) -> dict[str, Tensor]:
        """The state of the scaler, to save; nothing without one."""
        return {f"scaler/{name}": torch.tensor(value) for name, value in self.scaler.state_dict().items()}

    def restore(self, state: Tensors) -> None:
        """Take up what :meth:`state` gave.

        Raises:
            KeyError: there is none.
        """
        self.scaler.load_state_dict({name: state[f"scaler/{name}"].item() for name in self.scaler.state_dict()})


def read_later(tensor: Tensor) -> Callable[[], list[float]]:
    """Start to bring a tensor ``[n]`` to the host; what comes back gives its numbers, and waits for no later work."""
    numbers = tensor.detach().to("cpu", non_blocking=True)
    if not tensor.is_cuda:
        return numbers.tolist
    arrived = torch.cuda.current_stream(tensor.device).record_event()

    def read() -> list[float]:
        arrived.synchronize()
        return numbers.tolist()

    return read


def prepare_cublas(*trains: Train) -> None:
    """If one of these trainings is to be deterministic, let cuBLAS be, which asks once: at the first matrix product.

    Raises:
        BackendError: CUDA has started in this process already.
    """
    if _CUBLAS in os.environ or not any(train.deterministic for train in trains):
        return
    if torch.cuda.is_initialized():
        raise BackendError(
            "train.deterministic comes too late: this process has used CUDA, and cuBLAS may have chosen otherwise.",
            fix=f"start it with {_CUBLAS}=:4096:8 in its environment",
        )
    os.environ[_CUBLAS] = ":4096:8"


@contextmanager
def torch_settings(train: Train, device: torch.device) -> Iterator[None]:
    """What a recipe asks of torch as a whole, for as long as it trains on ``device``.

    Raises:
        BackendError: the device has no CUDA graphs, torch.compile lacks something here, or CUDA was used before it
            could be deterministic.
    """
    if train.cuda_graphs and device.type != "cuda":
        raise BackendError(
            f"train.cuda_graphs needs an NVIDIA GPU, and this training is on device {device}.",
            fix="add -o train.cuda_graphs=false, or --device cuda",
        )
    prepare_cublas(train)
    with ExitStack() as stack:
        stack.enter_context(float32_as("ieee"))  # but for what a step computes
        if train.deterministic:
            stack.enter_context(_deterministic_algorithms())
        if train.cuda_graphs:
            stack.enter_context(stream_of_its_own(device))
        if train.compile:
            stack.enter_context(_compiler_errors())
        yield


@contextmanager
def layers_draw(seed: int, device: torch.device) -> Iterator[None]:
    """Let what layers draw from torch's own generators, such as dropout, be a function of ``seed``.

    Afterwards these generators are as they were.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def _deterministic_algorithms() -> Iterator[None]:
    """Algorithms that give the same bits in every run on one machine; an error where torch has none.

    Runs on a CPU give the same bits anyway.
    """
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(mode=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def _compiler_errors() -> Iterator[None]:
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        raise BackendError(
            f"torch.compile failed: {' '.join(str(error).split())[:300]}",
            fix="install what it misses (a C++ compiler for CPUs, Triton for GPUs), or add -o train.compile=false",
        ) from error
