"""What timm's own layers begin with, in networks that have them."""

import pytest
import timm.layers
import torch
from torch import nn

from floats_edge.method.condition import condition
from floats_edge.method.plan import plan
from floats_edge.networks.build import build
from floats_edge.networks.from_timm import timm_layers
from floats_edge.networks.spec import NetworkSpec

KINDS = {"BatchNorm2d": nn.BatchNorm2d, "SyncBatchNorm": nn.SyncBatchNorm, "Linear": nn.Linear}


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (timm.layers.BatchNormAct2d(4), (3, 4, 5, 5)),
        (timm.layers.BatchNormAct2d(4, apply_act=False), (3, 4, 5, 5)),
        (timm.layers.BatchNormAct2d(4, act_layer=nn.SiLU, drop_layer=nn.Dropout), (3, 4, 5, 5)),
        (timm.layers.Linear(4, 6), (3, 4)),
    ],
)
def test_both_parts_compute_what_the_layer_does_and_share_its_tensors(layer: nn.Module, shape: tuple[int, ...]) -> None:
    first, after = timm_layers()[type(layer)](layer)
    assert type(first) is KINDS[type(first).__name__]
    assert {id(p) for p in first.parameters()} == {id(p) for p in layer.parameters()}
    for mode in (True, False):
        layer.train(mode), first.train(mode)
        x = torch.randn(shape)
        torch.manual_seed(1)
        wanted = layer(x.clone())
        torch.manual_seed(1)
        got = first(x.clone())
        torch.testing.assert_close(got if after is None else after.train(mode)(got), wanted)
    if isinstance(layer, nn.BatchNorm2d):
        assert first.running_mean is layer.running_mean
        assert layer.num_batches_tracked == 2, "both count in the same place"


def test_all_of_a_network_of_timm_is_conditioned() -> None:
    """Which has BatchNorms with activations after convolutions, and linear layers of timm's own."""
    network = build(NetworkSpec(source="timm", name="mobilenetv3_small_050"), classes=5, channels=3)
    images = torch.rand(1, 3, 32, 32)
    assert {layer.kind for layer in plan(network, images).layers} >= {"bare", "untouched"}
    knob = condition(network, images, alpha=0.02, register=timm_layers())
    assert {layer.kind for layer in knob.plan.layers} == {"paired", "bare"}
