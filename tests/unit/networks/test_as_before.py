"""Our networks as ordinary modules compute what they did when they were built from layer factories."""

import typing

import pytest
import torch
from torch import nn

from floats_edge.method.conditioning import float_layers
from floats_edge.models.build import build as build_before
from floats_edge.models.layers import FLOAT, PLAIN
from floats_edge.models.spec import Architecture, ModelSpec
from floats_edge.networks.build import build
from floats_edge.networks.normalize import normalize
from floats_edge.networks.spec import NetworkSpec

ARCHITECTURES = typing.get_args(Architecture)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)


def before(arch: str, layers: typing.Any = PLAIN) -> nn.Module:
    values = {"arch": arch, "width": 4, "stem_stride": 2, "image_shape": (3, 16, 16), "classes": 7}
    return build_before(ModelSpec.model_validate(values | {"mean": MEAN, "std": STD}), layers, seed=3)


def now(arch: str) -> nn.Module:
    torch.manual_seed(3)
    network = build(NetworkSpec(name=arch, arguments={"width": 4, "stem_stride": 2}), classes=7, channels=3)
    normalize(network, MEAN, STD)
    return network.to(memory_format=torch.channels_last)


def name_before(name: str) -> str:
    """The name that a tensor had."""
    layer, _, tensor = name.rpartition(".")
    if name.startswith("image_"):
        return name.replace("image_", "normalize.")
    for suffix, convolution in (
        ("stem_norm", "stem"),
        ("shortcut_norm", "shortcut"),
        ("norm1", "conv1"),
        ("norm2", "conv2"),
    ):
        if layer.endswith(suffix):
            return f"{layer.removesuffix(suffix)}{convolution}.norm.{tensor}"
    return f"{layer}.norm.{tensor}" if layer.endswith("norm") else name


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_first_weights_are_the_same_bits(arch: str) -> None:
    old, new = before(arch).state_dict(), now(arch).state_dict()
    assert len(old) == len(new)
    for name, tensor in new.items():
        assert torch.equal(tensor, old[name_before(name)]), name


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_logits_statistics_and_gradients_are_the_same(arch: str) -> None:
    old, new = before(arch), now(arch)
    torch.manual_seed(5)
    for tensor in old.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.uniform_(0.3, 0.9)
    tensors = old.state_dict()
    new.load_state_dict({name: tensors[name_before(name)] for name in new.state_dict()})
    images = torch.rand(4, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    for network in (old, new):
        network.train()
    wanted, got = old(images), new(images)
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)
    wanted.square().sum().backward()
    got.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in old.named_parameters()}
    for name, parameter in new.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name_before(name)], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(new.eval()(images), old.eval()(images), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_layers_stand_in_the_order_they_did(arch: str) -> None:
    """The position of a layer is the index of its noise."""
    paired = ("stem_norm", "norm1", "norm2", "shortcut_norm")
    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
    names = [name for name, module in now(arch).named_modules() if isinstance(module, kinds)]
    assert [name for name in names if not name.endswith(paired)] == list(float_layers(before(arch, FLOAT)))
