"""Networks of torchvision, timm and users; what is wrong is said before, or instead of, running anything."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from floats_edge.errors import NetworkError
from floats_edge.method.network_check import check_network
from floats_edge.networks.build import build, register
from floats_edge.networks.spec import Code, NetworkSpec

CODE = """
from pathlib import Path
from torch import nn

Path("imported").touch()

class Tiny(nn.Module):
    def __init__(self, classes, channels, width=4):
        super().__init__()
        self.conv, self.head = nn.Conv2d(channels, width, 3), nn.Linear(width, classes)

    def forward(self, images):
        return self.head(self.conv(images).mean((2, 3)))

def build(classes, channels, width=4):
    return Tiny(classes, channels, width)

def nothing(classes, channels):
    return None

def raises(classes, channels):
    raise KeyError("weights of mine")

WIDTH = 4
"""


def spec(source: str, name: str, **arguments: object) -> NetworkSpec:
    return NetworkSpec.model_validate({"source": source, "name": name, "arguments": arguments})


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module in the working directory."""
    name = f"network_of_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    return name


@pytest.mark.parametrize(
    ("source", "name", "channels"),
    [("torchvision", "squeezenet1_1", 1), ("torchvision", "mobilenet_v3_small", 3), ("timm", "resnet10t", 4)],
)
def test_a_network_takes_the_images_and_the_classes_of_the_data(source: str, name: str, channels: int) -> None:
    check_network(build(spec(source, name), 7, channels), torch.rand(1, channels, 64, 64), classes=7)


def test_auxiliary_heads_are_off() -> None:
    network = build(spec("torchvision", "googlenet"), classes=5, channels=3)
    check_network(network, torch.rand(1, 3, 64, 64), classes=5)
    assert not any("aux" in name for name, _ in network.named_modules())


def test_arguments_reach_the_network() -> None:
    network = build(spec("torchvision", "mobilenet_v2", width_mult=0.25, dropout=0.5), classes=5, channels=3)
    assert sum(parameter.numel() for parameter in network.parameters()) < 300_000
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.5]


@pytest.mark.parametrize(
    ("source", "name", "near"),
    [
        ("builtin", "resnet9", "resnet8"),
        ("torchvision", "mobilnet_v2", "mobilenet_v2"),
        ("torchvision", "fcn_resnet50", "resnet50"),
        ("timm", "efficientnet_lite", "efficientnet_lite"),
        ("timm", "hf-hub:timm/resnet18", "resnet18"),
    ],
)
def test_an_unknown_name_is_told_the_nearest(source: str, name: str, near: str) -> None:
    with pytest.raises(NetworkError, match=name) as told:
        build(spec(source, name), classes=5, channels=3)
    assert near in told.value.fix


@pytest.mark.parametrize(
    ("source", "name", "arguments"),
    [
        ("torchvision", "resnet18", {"weights": "DEFAULT"}),
        ("torchvision", "resnet18", {"num_classes": 3}),
        ("torchvision", "googlenet", {"aux_logits": True}),
        ("timm", "resnet10t", {"pretrained": True}),
        ("timm", "resnet10t", {"checkpoint_path": "weights.pth"}),
        ("timm", "resnet10t", {"no_such": 1}),
        ("torchvision", "resnet18", {"no_such": 1}),
    ],
)
def test_arguments_that_a_network_does_not_take(source: str, name: str, arguments: dict[str, object]) -> None:
    with pytest.raises(NetworkError, match="|".join(arguments)) as told:
        build(spec(source, name, **arguments), classes=5, channels=3)
    assert "model.arguments" in told.value.fix


def test_a_name_of_python_code_imports_nothing_by_itself(code: str) -> None:
    with pytest.raises(NetworkError, match=f"{code}:build") as told:
        build(spec("python", f"{code}:build"), classes=5, channels=3)
    assert "allow_code=True" in told.value.fix
    assert not Path("imported").exists()
    assert code not in sys.modules


@pytest.mark.parametrize("name", ["build", "Tiny"])
def test_allowed_python_code_is_found_in_the_working_directory(code: str, name: str) -> None:
    network = build(spec("python", f"{code}:{name}", width=6), classes=5, channels=2, code=Code(allowed=True))
    check_network(network, torch.rand(1, 2, 8, 8), classes=5)
    assert network.get_parameter("conv.weight").shape == (6, 2, 3, 3)
    assert Path("imported").exists()


@pytest.mark.parametrize(
    ("name", "arguments", "what"),
    [
        ("built", {}, "there is no network"),
        ("WIDTH", {}, "cannot be called"),
        ("nothing", {}, "NoneType, not a network"),
        ("raises", {}, "KeyError: 'weights of mine'"),
        ("build", {"depth": 3}, "unexpected keyword argument 'depth'"),
    ],
)
def test_what_is_wrong_with_python_code_is_said(code: str, name: str, arguments: dict[str, object], what: str) -> None:
    with pytest.raises(NetworkError, match=what):
        build(spec("python", f"{code}:{name}", **arguments), classes=5, channels=3, code=Code(allowed=True))


def test_a_module_that_is_nowhere_is_said_to_be(code: str) -> None:
    del code
    with pytest.raises(NetworkError, match="ModuleNotFoundError") as told:
        build(spec("python", "no_such_package.networks:build"), classes=5, channels=3, code=Code(allowed=True))
    assert "no_such_package" in told.value.fix


def test_torchvision_is_asked_for_by_its_own_networks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    build(spec("builtin", "resnet8"), classes=5, channels=3)
    with pytest.raises(NetworkError, match="needs torchvision") as raised:
        build(spec("torchvision", "mobilenet_v2"), classes=5, channels=3)
    assert "pip install '.[train]'" in raised.value.fix


def test_timm_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(NetworkError) as told:
        build(spec("timm", "resnet10t"), classes=5, channels=3)
    assert "pip install '.[timm]'" in told.value.fix


def test_layers_of_a_source_are_known_where_they_may_be() -> None:
    assert {kind.__name__ for kind in register(spec("builtin", "resnet8"))} == {"Projection"}
    assert "BatchNormAct2d" in {kind.__name__ for kind in register(spec("timm", "resnet10t"))}
