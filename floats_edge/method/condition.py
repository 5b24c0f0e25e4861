"""FLOAT as something that is done to a network: ``condition`` any ordinary classifier, ``folded`` back at any lambda.

Source: Kundu et al., arXiv 2204.00426; the equations are those of ``layers.py`` and ``fold.py``.
"""
# pyright: reportPrivateImportUsage=false

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields

import torch
from torch import Tensor, nn

from floats_edge.errors import NetworkError
from floats_edge.method.conditioning import INITIAL_ALPHA
from floats_edge.method.fold import AffineLayer, Rule, affine, weights_at
from floats_edge.method.knob import Knob
from floats_edge.method.layers import Conditioned, ConditionedLayer, ConditionedNorm, Layers, OrdinaryLayer, Scale
from floats_edge.method.plan import Norm, Parts, Plan, Register, Weighted, inference, plan, split
from floats_edge.method.stack import stacked_ends

TOLERANCE = 1e-5
"""Largest error of folded logits, over the range of the logits."""
_EXCLUDE = "leave out the layers that are used in an unusual way: exclude=[...], by their names in print(plan)"


def condition(
    network: nn.Module,
    example: Tensor,
    alpha: float = INITIAL_ALPHA,
    exclude: Collection[str] = (),
    register: Register | None = None,
    noise_seed: int = 0,
) -> Knob:
    """Make ``network`` a FLOAT network, in place: its convolutions and linear layers obey the knob that is returned.

    Every one of these gets scaled noise, ``W = theta + lam * alpha * sigma * eta``, and every BatchNorm a second set of
    statistics. The network computes at lambda 0 exactly what it did before.

    Args:
        network: any classifier of images, made of ordinary layers of ``torch.nn`` and whatever else its forward does.
        example: images ``[N, C, H, W]`` that it takes, float32.
        alpha: how strong the noise is at first; small (0.02) for a network that is trained already.
        exclude: names of layers, or of modules around them, to leave as they are.
        register: how layers of classes of one's own begin, by class; see :data:`~floats_edge.method.plan.Register`.
        noise_seed: of the frozen noise eta.

    Returns:
        The knob: ``with knob.at(0.5): network(images)``; ``print(knob.plan)`` lists the layers.

    Raises:
        NetworkError: the network cannot be conditioned; it is as it was.
    """
    known = register or {}
    made = plan(network, example, exclude, known)
    if not made.conditioned:
        raise NetworkError(
            f"no layer of the network can be conditioned:\n{made}", fix="use nn.Conv2d, nn.Linear and nn.BatchNorm2d"
        )
    knob = Knob(made)
    swaps = _swaps(network, knob, alpha, known)
    old = {name: network.get_submodule(name) for name in swaps}
    try:
        with torch.no_grad(), _no_zero_weights(network):
            before = _logits(network, example)
            _put(network, swaps)
            draw_noise(network, noise_seed)
            _check(network, example, before, knob)
    except BaseException:
        _put(network, old)
        raise
    return knob


def conditioned_layers(network: nn.Module) -> dict[str, Conditioned]:
    """The layers of a network that depend on lambda, by name, in the order in which it defines them."""
    return {name: module for name, module in network.named_modules() if isinstance(module, Conditioned)}


def draw_noise(network: nn.Module, seed: int) -> None:
    """Give every conditioned weight its frozen noise: a layer's position is the index of its draw."""
    for index, layer in enumerate(conditioned_layers(network).values()):
        if isinstance(layer, ConditionedLayer):
            layer.weight.draw_noise(seed, index)


def ordinary_layers(network: nn.Module, made: Plan, register: Register | None = None) -> dict[str, OrdinaryLayer]:
    """The layers of a network that is trained as it is, by name, as its plan pairs them."""
    layers: dict[str, OrdinaryLayer] = {}
    for planned in made.conditioned:
        names = (planned.name,) if planned.norm is None else (planned.name, planned.norm)
        parts = [_parts(network, name, register or {}) for name in names]
        [layer] = (part for part, _ in parts if isinstance(part, Weighted)) if planned.kind != "norm" else (None,)
        norm = next((part for part, _ in parts if isinstance(part, Norm)), None)
        modules = tuple((network.get_submodule(name), after) for name, (_, after) in zip(names, parts, strict=True))
        layers[planned.name if parts[0][1] is None else f"{planned.name}.0"] = OrdinaryLayer(layer, norm, modules)
    return layers


def fold(layers: Layers, rule: Rule) -> dict[str, AffineLayer]:
    """The layers of a network at any lambda, by a rule, its BatchNorms in inference mode."""
    stack = affine(stacked_ends(layers), rule)
    columns = [
        [part.detach() for part in getattr(stack, field.name).split(stack.theta.widths)]
        for field in fields(AffineLayer)
        if field.name != "drawn"
    ]
    return {name: AffineLayer(*parts) for name, parts in zip(layers, zip(*columns, strict=True), strict=True)}


def folded(network: nn.Module, lam: float, rule: Rule = "interpolate") -> nn.Module:
    """The ordinary network that a conditioned one is at ``lam``: plain convolutions with bias, ready for export.

    Layers that the condition did not reach are shared with ``network``, not copied.
    """
    layers = conditioned_layers(network)
    plain = unfilled(network, layers)
    load_folded(plain, layers, rule, lam)
    return plain


def unfilled(network: nn.Module, layers: Layers, dtype: torch.dtype | None = None) -> nn.Module:
    """A copy of ``network``, ``layers`` replaced by what they fold into, whose weights are yet to be loaded.

    It is in inference mode. All other layers are shared: when ``network`` is trained, the copy follows. With a
    ``dtype``, convolutions and linear layers hold their weights in it, as autocast to that type would make them.
    """
    plain = {id(old): new for layer in layers.values() for old, new in layer.plain().items()}
    replaced = [module for module in network.modules() if id(module) in plain]
    own = {id(tensor) for module in replaced for tensor in _tensors(module)}
    shared: dict[int, object] = {id(tensor): tensor for tensor in _tensors(network) if id(tensor) not in own}
    made = copy.deepcopy(network, shared | plain).eval()
    for layer in map(made.get_submodule, layers):
        if not isinstance(layer, Scale):
            layer.to(dtype)
    return made


@torch.no_grad()
def load_folded(plain: nn.Module, layers: Layers, rule: Rule, lam: float) -> None:
    """Copy what ``layers`` are at ``lam``, by a rule, into a network of plain layers that :func:`unfilled` made."""
    weight, bias = weights_at({"all": affine(stacked_ends(layers), rule)}, lam).values()
    torch._foreach_copy_([plain.get_parameter(f"{name}.weight") for name in layers], weight.tensors)
    torch._foreach_copy_([plain.get_parameter(f"{name}.bias") for name in layers], bias.split(weight.widths))


def load_weights(plain: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy plain weights, named as in :mod:`floats_edge.method.fold`, into a network of plain layers."""
    parameters = dict(plain.named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            parameters[name].copy_(weight)


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _swaps(network: nn.Module, knob: Knob, alpha: float, register: Register) -> dict[str, nn.Module]:
    """What takes the place of which module, by name."""
    swaps: dict[str, nn.Module] = {}
    for planned in knob.plan.conditioned:
        layer, after = _parts(network, planned.name, register)
        norm = None
        if planned.norm is not None:
            norm, rest = _parts(network, planned.norm, register)
            swaps[planned.norm] = rest or nn.Identity()
        if isinstance(layer, Weighted):
            assert norm is None or isinstance(norm, Norm), "a plan pairs a layer with a BatchNorm"
            conditioned: nn.Module = ConditionedLayer(layer, norm, alpha, knob)
        else:
            conditioned = ConditionedNorm(layer, knob)
        swaps[planned.name] = conditioned if after is None else nn.Sequential(conditioned, after)
    return swaps


def _parts(network: nn.Module, name: str, register: Register) -> Parts:
    parts = split(network.get_submodule(name), register)
    assert parts is not None, "a plan conditions layers of known kinds only"
    return parts


def _put(network: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    """Set submodules by name, wherever the same module stands."""
    for name, module in modules.items():
        old = network.get_submodule(name)
        for parent in list(network.modules()):
            for key, child in list(parent._modules.items()):
                if child is old:
                    parent._modules[key] = module


@contextmanager
def _no_zero_weights(network: nn.Module) -> Iterator[None]:
    """Weights that are all zero, as heads may begin, hold others meanwhile: behind zeros no error could be seen."""
    generator = torch.Generator().manual_seed(0)
    zeros = [weight for weight in network.parameters() if weight.ndim > 1 and not weight.any()]
    for weight in zeros:
        weight.copy_(torch.randn(weight.shape, generator=generator))
    try:
        yield
    finally:
        for weight in zeros:
            weight.zero_()


def _logits(network: nn.Module, example: Tensor) -> Tensor:
    with inference(network):
        return network(example)


def _check(network: nn.Module, example: Tensor, before: Tensor, knob: Knob) -> None:
    """Compare a conditioned network with what it was, and with what it folds into.

    Raises:
        NetworkError: it computes something else, or a layer of it does not run.
    """
    ran: set[str] = set()
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: ran.add(name))
        for name, layer in conditioned_layers(network).items()
    ]
    try:
        after = _logits(network, example)
    except Exception as error:
        raise NetworkError(
            f"the conditioned network does not run: {type(error).__name__}: {error}", fix=_EXCLUDE
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    idle = [name for name in conditioned_layers(network) if name not in ran]
    if idle:
        raise NetworkError(f"{', '.join(idle)} is called past its place in the network.", fix=_EXCLUDE)
    if not torch.equal(after, before):
        raise NetworkError(
            f"conditioned, the network computes something else at lambda 0: {_error(after, before):.1e} of the logits' "
            "range.",
            fix=_EXCLUDE,
        )
    for lam in (0.0, 1.0):
        with knob.at(lam):
            wanted = _logits(network, example)
        error = _error(_logits(folded(network, lam), example), wanted)
        if not error <= TOLERANCE:
            raise NetworkError(
                f"at lambda {lam:g} the folded network is off by {error:.1e} of the logits' range; {TOLERANCE:.0e} is "
                "allowed.",
                fix=_EXCLUDE,
            )


def _error(got: Tensor, wanted: Tensor) -> float:
    """Largest error over the range of what is wanted."""
    return float((got - wanted).abs().max() / (wanted.max() - wanted.min()))
