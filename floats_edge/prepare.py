"""The network of a recipe, made ready for its method: the one way from a recipe to what is trained and evaluated."""

import difflib
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from floats_edge.baselines.oat import OatNetwork
from floats_edge.errors import NetworkError
from floats_edge.method.condition import condition, conditioned_layers, ordinary_layers
from floats_edge.method.conditioning import fix_alpha
from floats_edge.method.knob import Knob
from floats_edge.method.layers import Layers
from floats_edge.method.network_check import check_network
from floats_edge.method.plan import Register, plan
from floats_edge.networks.build import build, register
from floats_edge.networks.normalize import normalize
from floats_edge.networks.spec import NO_CODE, Code, ImageSpec, NetworkSpec
from floats_edge.networks.weights import load_weights
from floats_edge.recipe import Condition, Recipe


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network as a method trains it.

    Attributes:
        network: takes images in [0, 1], channels last.
        layers: of it that fold; OAT's network has none.
        knob: lambda of a conditioned network; no other reads it. Its plan says what became of each layer.
        frozen: modules of the network that are not trained.
        pretrained: what the first weights are, for people; None: random ones, or none were asked for.
    """

    network: nn.Module
    layers: Layers
    knob: Knob
    frozen: tuple[nn.Module, ...] = ()
    pretrained: str | None = None

    def learn(self) -> None:
        """Let all that is not frozen train: modes only."""
        self.network.train()
        for module in self.frozen:
            module.eval()


def prepare(
    recipe: Recipe,
    images: ImageSpec,
    classes: int,
    device: str | torch.device = "cpu",
    code: Code = NO_CODE,
    pretrained: bool = False,
) -> Prepared:
    """Build the network of ``recipe`` with the first weights of its seed, and condition it if its method does so.

    Args:
        recipe: names the network and the method.
        images: that it takes.
        classes: that it tells apart.
        device: where it is to be.
        code: of the user's that stands for the network.
        pretrained: load the weights that the recipe names, if it names some; a module that was handed over has some.

    Raises:
        NetworkError: the network cannot be built, is none of images, or the method can do nothing with it.
    """
    with torch.random.fork_rng(devices=[]):  # layers draw from the global generator, which is the caller's
        torch.default_generator.manual_seed(recipe.seed)
        network = build(recipe.model, classes, images.shape[0], code)
        start = _loaded(network, recipe.model) if pretrained else None
        normalize(network, images.mean, images.std)
        sample, known = example(images), register(recipe.model)
        check_network(network, sample, classes)
        if recipe.method == "oat":
            network = OatNetwork(network, sample, recipe.oat, recipe.seed, known)
            knob = Knob(network.plan)
        elif recipe.method == "float":
            knob = _conditioned(network, sample, recipe.condition, known)
        else:
            knob = Knob(plan(network, sample, register=known))
    frozen = _frozen(network, recipe.train.frozen)
    network = network.to(device).to(memory_format=torch.channels_last)
    if recipe.method == "float":
        return Prepared(network, conditioned_layers(network), knob, frozen, start)
    layers = {} if recipe.method == "oat" else ordinary_layers(network, knob.plan, known)
    return Prepared(network, layers, knob, frozen, start)


def _loaded(network: nn.Module, spec: NetworkSpec) -> str | None:
    if spec.source == "given":
        return f"training starts from the weights that the {spec.name} had when it was handed over"
    return None if spec.weights is None else str(load_weights(network, spec.weights))


def _frozen(network: nn.Module, names: Collection[str]) -> tuple[nn.Module, ...]:
    """The modules of these names, their parameters without gradients; OAT's network has them inside its backbone."""
    inside = network.backbone if isinstance(network, OatNetwork) else network
    modules = dict(inside.named_modules())
    unknown = sorted(name for name in names if name not in modules or not name)
    if unknown:
        near = difflib.get_close_matches(unknown[0], modules, n=3) or [name for name, _ in inside.named_children()]
        raise NetworkError(
            f"the network has no module {', '.join(unknown)} to freeze.",
            fix=f"name modules in train.frozen, such as {', '.join(near)}",
        )
    frozen = tuple(modules[name].requires_grad_(requires_grad=False) for name in names)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise NetworkError("every module is frozen: nothing is left to train.", fix="name fewer in train.frozen")
    return frozen


def _conditioned(network: nn.Module, sample: Tensor, options: Condition, known: Register) -> Knob:
    knob = condition(network, sample, options.initial_alpha, options.exclude, known, options.noise_seed)
    if options.alpha != "trained":
        fix_alpha(network, options.alpha)
    return knob


def example(images: ImageSpec) -> Tensor:
    """Two images of noise, as a network takes them: ``[2, C, H, W]``, float32 in [0, 1]."""
    return torch.rand(2, *images.shape, generator=torch.Generator().manual_seed(0))
