"""What a plan says of networks as people write them; the network is as it was afterwards."""

from typing import get_args

import pytest
import torch
from fixtures.strangers import stranger
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from floats_edge.errors import NetworkError
from floats_edge.method.plan import Kind, Plan, plan

EXAMPLE = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def kinds(made: Plan) -> dict[str, str]:
    return {layer.name: layer.kind for layer in made.layers}


def reason(made: Plan, name: str) -> str:
    [layer] = (layer for layer in made.layers if layer.name == name)
    assert layer.kind == "untouched"
    return layer.reason


def of(*layers: nn.Module, head: int = 4) -> nn.Sequential:
    """Layers that take three channels, and a classifier of ``head`` features."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(head, 5))


def test_every_layer_of_a_stranger_has_its_kind() -> None:
    assert kinds(plan(stranger(), EXAMPLE)) == {
        "stem": "paired",
        "wide": "paired",
        "deep": "paired",
        "gate.squeeze": "bare",
        "gate.excite": "bare",
        "lone_norm": "norm",
        "down": "bare",
        "layer_norm": "untouched",
        "head.0": "paired",
        "classifier": "bare",
    }


def test_the_shares_add_up_and_a_pair_counts_both() -> None:
    made, network = plan(stranger(), EXAMPLE), stranger()
    assert sum(made.share(layer) for layer in made.layers) == pytest.approx(1)
    assert sum(layer.parameters for layer in made.layers) == sum(p.numel() for p in network.parameters())
    assert made.layers[0].parameters == 3 * 8 * 9 + 8 + 16


def test_the_table_has_a_row_a_layer_with_its_reason() -> None:
    header, *rows, legend = str(plan(stranger(), EXAMPLE)).splitlines()
    assert header.split() == ["layer", "kind", "share", "reason"]
    assert len(rows) == 10
    assert "untouched" in rows[7]
    assert "LayerNorm normalises each image by itself: shared by all lambdas" in rows[7]
    assert all(f"{kind}: " in legend for kind in get_args(Kind))


def test_the_network_is_left_as_it_was() -> None:
    network = stranger().train()
    network.head[3].eval()  # a mode of its own
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    plan(network, EXAMPLE)
    assert torch.equal(torch.rand(1), wanted), "random numbers were drawn"
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.training
    assert not network.head[3].training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


class ReadTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv(images)
        return self.head((self.norm(x) + x).mean((2, 3)))


class ChangedInPlace(ReadTwice):
    def forward(self, images: Tensor) -> Tensor:
        x = self.conv(images)
        x.mul_(2)
        return self.head(self.norm(x).mean((2, 3)))


@pytest.mark.parametrize("network", [ReadTwice(), ChangedInPlace()])
def test_a_convolution_that_something_else_reads_is_no_part_of_a_pair(network: nn.Module) -> None:
    assert kinds(plan(network, EXAMPLE)) == {"conv": "bare", "norm": "norm", "head": "bare"}


class OwnForward(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


class OwnName(nn.Conv2d):
    """A subclass that computes what its base does."""


def test_a_subclass_counts_by_what_it_computes() -> None:
    made = plan(of(OwnForward(3, 4, 1), OwnName(4, 4, 1)), EXAMPLE)
    assert reason(made, "0") == "OwnForward has a forward of its own; register= can teach it"
    assert kinds(made)["1"] == "bare"


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.other = nn.Conv2d(3, 3, 3, padding=1)
        self.other.weight = self.conv.weight
        self.again = nn.Conv2d(3, 3, 1)
        self.idle = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(3, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.again(self.again(self.other(self.conv(images)))).mean((2, 3)))


def test_what_runs_twice_or_never_or_shares_its_weight_is_named_with_a_remedy() -> None:
    made = plan(Twice(), EXAMPLE)
    assert reason(made, "again") == "runs 2 times in one inference; give each call a layer of its own"
    assert reason(made, "idle") == "does not run in inference"
    assert reason(made, "conv") == "shares its weight with another layer; give it one of its own"
    assert reason(made, "other") == reason(made, "conv")


def test_a_computed_weight_is_named_with_a_remedy() -> None:
    computed = parametrizations.weight_norm(nn.Conv2d(3, 4, 1)), nn.utils.spectral_norm(nn.Conv2d(4, 4, 1))
    made = plan(of(*computed), EXAMPLE)
    assert "remove_parametrizations" in reason(made, "0")
    assert "weight is computed" in reason(made, "1")
    assert "0.parametrizations.weight" not in kinds(made)


def test_a_batchnorm_without_running_statistics_is_named_with_a_remedy() -> None:
    made = plan(of(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)), EXAMPLE)
    assert "track_running_stats=True" in reason(made, "1")
    assert kinds(made)["0"] == "bare"


def test_excluded_layers_and_modules_are_left_alone() -> None:
    made = plan(stranger(), EXAMPLE, exclude=["classifier", "gate"])
    assert [reason(made, name) for name in ("classifier", "gate.squeeze", "gate.excite")] == ["excluded"] * 3
    with pytest.raises(NetworkError, match="no layer clasifier to exclude"):
        plan(stranger(), EXAMPLE, exclude=["clasifier"])


def test_an_excluded_batchnorm_leaves_its_convolution_bare() -> None:
    assert kinds(plan(stranger(), EXAMPLE, exclude=["stem_norm"]))["stem"] == "bare"


def test_an_example_that_does_not_fit_is_an_error_with_its_shape() -> None:
    with pytest.raises(NetworkError, match=r"does not run on images of shape \[2, 1, 16, 16\]"):
        plan(stranger(), EXAMPLE[:, :1])
