"""Which layers of a network the condition can reach: found by running it once, not by reading its code.

A convolution and a BatchNorm are a pair if the BatchNorm's input is the convolution's output and nothing else reads
that; the two then fold into one convolution. The method has a place for every other layer, too; what it has no place
for stays as it is, and the plan says why.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from floats_edge.errors import NetworkError
from floats_edge.float32 import float32_as

Kind = Literal["paired", "bare", "norm", "untouched"]

Weighted = nn.Conv2d | nn.Linear
Norm = nn.BatchNorm2d | nn.BatchNorm1d | nn.SyncBatchNorm

Parts = tuple[Weighted | Norm, nn.Module | None]
"""The layer of ``torch.nn`` that another layer begins with, and what the latter does to its output; None: nothing."""
Register = Mapping[type[nn.Module], Callable[[Any], Parts]]
"""How layers of classes of one's own begin; the first part shares their parameters and buffers."""

_LEGEND = (
    "paired: changes with lambda, together with its BatchNorm; bare: alone; norm: a BatchNorm alone; "
    "untouched: the same at every lambda"
)
_NORMS_OF_ONE_IMAGE = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.InstanceNorm2d)


@dataclass(frozen=True)
class PlannedLayer:
    """What becomes of one layer.

    Attributes:
        name: of the module in its network.
        kind: ``paired``: conditioned together with the BatchNorm after it; ``bare``: conditioned alone; ``norm``: a
            BatchNorm that gets a second set of statistics; ``untouched``: the same at every lambda.
        parameters: how many it has, those of its BatchNorm included.
        reason: why, for people.
        norm: paired only: name of the BatchNorm.
    """

    name: str
    kind: Kind
    parameters: int
    reason: str
    norm: str | None = None


@dataclass(frozen=True)
class Plan:
    """What becomes of every layer that has parameters, in the order in which the network defines them."""

    layers: tuple[PlannedLayer, ...]

    @property
    def conditioned(self) -> tuple[PlannedLayer, ...]:
        """The layers that depend on lambda; a layer's position among them is the index of its noise."""
        return tuple(layer for layer in self.layers if layer.kind != "untouched")

    def share(self, layer: PlannedLayer) -> float:
        """Of the network's parameters, in [0, 1]."""
        return layer.parameters / max(1, sum(other.parameters for other in self.layers))

    def __str__(self) -> str:
        """A table: layer, kind, share of the parameters, reason; and what the kinds are."""
        width = max(len("layer"), *(len(layer.name) for layer in self.layers))
        rows = [f"{'layer':{width}}  {'kind':9}  {'share':>6}  reason"]
        rows += (f"{it.name:{width}}  {it.kind:9}  {self.share(it):6.1%}  {it.reason}" for it in self.layers)
        return "\n".join((*rows, _LEGEND))


def plan(network: nn.Module, example: Tensor, exclude: Collection[str] = (), register: Register | None = None) -> Plan:
    """Run ``network`` once and say what the condition can do with each of its layers; nothing is changed.

    Args:
        network: any classifier, with BatchNorm and dropout in inference mode meanwhile.
        example: images ``[N, C, H, W]`` that it takes.
        exclude: names of layers, or of modules around them, to leave as they are.
        register: how layers of classes of one's own begin; see :data:`Register`.

    Raises:
        NetworkError: the network does not run on the example, or ``exclude`` names nothing in it.
    """
    modules = dict(network.named_modules())
    unknown = sorted(name for name in exclude if name not in modules)
    if unknown:
        raise NetworkError(
            f"the network has no layer {', '.join(unknown)} to exclude.",
            fix="name modules as network.named_modules() does; print(plan) lists the layers",
        )
    layers = {name: _Found(name, module, register or {}) for name, module in modules.items() if _owns(name, module)}
    run = _observe(network, example, [name for name, found in layers.items() if found.weighted])
    shared = Counter(id(parameter) for module in modules.values() for parameter in module.parameters(recurse=False))
    for found in layers.values():
        found.reason = found.reason or _obstacle(found, run, exclude, shared)
    partners = {
        name: norm
        for name, found in layers.items()
        if found.weighted and not found.reason and (norm := _partner(found, run, layers)) is not None
    }
    taken = set(partners.values())
    return Plan(tuple(_planned(found, partners, layers) for found in layers.values() if found.name not in taken))


def split(module: nn.Module, register: Register) -> Parts | None:
    """The layer of ``torch.nn`` that ``module`` begins with, and what follows in it; None if it is no such layer."""
    if type(module) in register:
        return register[type(module)](module)
    if not isinstance(module, Weighted | Norm) or parametrize.is_parametrized(module):
        return None
    return (module, None) if _is_ordinary(type(module)) else None


def _is_ordinary(kind: type[nn.Module]) -> bool:
    """Whether a class, which may be derived from one of ``torch.nn``, computes what that does."""
    [base, *_] = (base for base in kind.__mro__ if base.__module__.startswith("torch.nn.modules."))
    methods = ("forward", "_conv_forward", "__call__")
    return all(getattr(kind, method, None) is getattr(base, method, None) for method in methods)


def _owns(name: str, module: nn.Module) -> bool:
    """Whether a module is a layer of its own: it has parameters, computes them, or is a BatchNorm without any."""
    if ".parametrizations." in f".{name}.":
        return False
    has = any(True for _ in module.parameters(recurse=False))
    return has or parametrize.is_parametrized(module) or isinstance(module, Norm)


class _Found:
    """One module with parameters of its own, and why it cannot be conditioned; no reason: it can."""

    def __init__(self, name: str, module: nn.Module, register: Register) -> None:
        self.name = name
        self.module = module
        self.layer, self.rest = split(module, register) or (None, None)
        self.reason = "" if self.layer is not None else _strange(module)

    @property
    def weighted(self) -> bool:
        """Whether it is a convolution or a linear layer."""
        return isinstance(self.layer, Weighted)

    @property
    def parameters(self) -> int:
        inner = parametrize.is_parametrized(self.module)
        return sum(parameter.numel() for parameter in self.module.parameters(recurse=inner))


def _strange(module: nn.Module) -> str:
    """Why a module that is no layer of the kinds that can be conditioned stays as it is."""
    kind = type(module).__name__
    if parametrize.is_parametrized(module):
        return "its weight is computed; torch.nn.utils.parametrize.remove_parametrizations makes it an ordinary one"
    if isinstance(module, _NORMS_OF_ONE_IMAGE):
        return f"{kind} normalises each image by itself: shared by all lambdas"
    if isinstance(module, Weighted | Norm):
        return f"{kind} has a forward of its own; register= can teach it"
    if isinstance(module, nn.MultiheadAttention):
        return f"{kind} multiplies its weights itself: shared by all lambdas"
    return f"{kind} has parameters of its own: shared by all lambdas"


def _obstacle(found: _Found, run: "_Run", exclude: Collection[str], shared: Counter[int]) -> str:
    """Why a layer of a known kind cannot be conditioned; empty if it can."""
    name, layer, calls = found.name, found.layer, run.calls[found.name]
    if any(name == other or name.startswith(f"{other}.") for other in exclude):
        return "excluded"
    if "weight" not in found.module._parameters and isinstance(layer, Weighted):
        return "its weight is computed; torch.nn.utils.remove_weight_norm or its like makes it an ordinary one"
    if calls == 0:
        return "does not run in inference"
    if calls > 1:
        return f"runs {calls} times in one inference; give each call a layer of its own"
    if any(shared[id(parameter)] > 1 for parameter in found.module.parameters(recurse=False)):
        return "shares its weight with another layer; give it one of its own"
    if found.module._forward_hooks or found.module._forward_pre_hooks:
        return "has hooks, which would be lost; remove them first"
    if isinstance(layer, Norm) and layer.running_mean is None:
        return "keeps no running statistics, so it cannot be folded; make it with track_running_stats=True"
    return ""


def _partner(found: _Found, run: "_Run", layers: Mapping[str, _Found]) -> str | None:
    """Name of the BatchNorm that alone reads the output of a convolution or linear layer; None if there is none."""
    output = run.outputs.get(found.name)
    readers = run.readers.get(id(output), set())
    if output is None or len(readers) != 1 or found.rest is not None:
        return None
    [reader] = readers
    norm = layers.get(reader)
    if norm is None or norm.reason or not isinstance(norm.layer, Norm) or run.inputs.get(reader) is not output:
        return None
    if output.ndim != (4 if isinstance(found.layer, nn.Conv2d) else 2):
        return None
    return reader


def _planned(found: _Found, partners: Mapping[str, str], layers: Mapping[str, _Found]) -> PlannedLayer:
    if found.reason:
        return PlannedLayer(found.name, "untouched", found.parameters, found.reason)
    if isinstance(found.layer, Norm):
        return PlannedLayer(found.name, "norm", found.parameters, "follows no convolution alone")
    norm = partners.get(found.name)
    if norm is None:
        return PlannedLayer(found.name, "bare", found.parameters, "no BatchNorm reads it alone")
    return PlannedLayer(found.name, "paired", found.parameters + layers[norm].parameters, f"with {norm}", norm)


class _Run(TorchFunctionMode):
    """One inference, observed: how often each module ran, on what, and who read what it gave.

    Tensors are told apart by identity; all that matter are kept, so that no identity is used twice.

    Args:
        weighted: names of the convolutions and linear layers, whose readers matter.
    """

    def __init__(self, weighted: Collection[str]) -> None:
        super().__init__()
        self._weighted = weighted
        self.calls: Counter[str] = Counter()
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self.readers: dict[int, set[str]] = {}
        self._inside = [""]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(True for _ in _tensors(result)):  # a shape or a type is no reading of values
            self.read((*args, *(kwargs or {}).values()))
        return result

    def read(self, values: object) -> None:
        """Note that the module that is running reads ``values``."""
        for tensor in _tensors(values):
            if id(tensor) in self.readers:
                self.readers[id(tensor)].add(self._inside[-1])

    def enter(self, name: str, args: tuple[Any, ...]) -> None:
        self._inside.append(name)
        self.calls[name] += 1
        if len(args) == 1 and isinstance(args[0], Tensor):
            self.inputs[name] = args[0]

    def leave(self, name: str, output: object) -> None:
        self._inside.pop()
        if name in self._weighted and isinstance(output, Tensor):
            self.outputs[name] = output
            self.readers[id(output)] = set()


def _tensors(values: object) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(tuple(values.values()))


def _observe(network: nn.Module, example: Tensor, weighted: Collection[str]) -> _Run:
    run = _Run(weighted)
    handles = []
    for name, module in network.named_modules():
        handles.append(module.register_forward_pre_hook(lambda _, args, name=name: run.enter(name, args)))
        handles.append(module.register_forward_hook(lambda _, __, output, name=name: run.leave(name, output)))
    try:
        with inference(network), run:
            output = network(example)
    except Exception as error:
        raise NetworkError(
            f"the network does not run on images of shape {list(example.shape)}: {type(error).__name__}: {error}",
            fix="give an example of the images that the network takes, float32 [N, C, H, W]",
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    run.read(output)
    return run


@contextmanager
def inference(network: nn.Module) -> Iterator[None]:
    """Inference in IEEE float32 without gradients; statistics, random numbers and modules' modes stay as they were."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    devices = {parameter.device for parameter in network.parameters() if parameter.is_cuda}
    try:
        with torch.no_grad(), float32_as("ieee"), torch.random.fork_rng(devices):
            yield
    finally:
        for module, training in modes.items():
            module.training = training
