import copy
from collections.abc import Callable

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from floats_edge.errors import NetworkError
from floats_edge.method.condition import condition, folded
from floats_edge.networks.build import build
from floats_edge.networks.normalize import normalize, pretrained_statistics
from floats_edge.networks.spec import NetworkSpec

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)


def small() -> nn.Module:
    torch.manual_seed(0)
    return build(NetworkSpec(name="resnet8", arguments={"width": 2}), classes=5, channels=3).eval()


def in_a_row() -> nn.Module:
    """A network that runs all its children, one after the other."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 5)).eval()


def exported(network: nn.Module, images: Tensor) -> Tensor:
    program = torch.onnx.export(network, (images,), dynamo=True, verbose=False)
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])


def conditioned(network: nn.Module, images: Tensor) -> Tensor:
    condition(network, images)
    return folded(network, 0.0)(images)


KEPT_BY: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "a call": lambda network, images: network(images),
    "a copy": lambda network, images: copy.deepcopy(network)(images),
    "torch.export": lambda network, images: torch.export.export(network, (images,)).module()(images),
    "torch.onnx": exported,
    "torch.compile": lambda network, images: torch.compile(network, backend="eager", fullgraph=True)(images),
    "condition and fold": conditioned,
}


@pytest.mark.parametrize(("make", "how"), [(in_a_row, how) for how in KEPT_BY] + [(small, "condition and fold")])
def test_images_are_normalised_however_the_network_is_used(make: Callable[[], nn.Module], how: str) -> None:
    images = torch.rand(2, 3, 8, 8)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        wanted = make()((images - mean) / std)
        network = make()
        normalize(network, MEAN, STD)
        torch.testing.assert_close(KEPT_BY[how](network, images), wanted, rtol=1e-4, atol=1e-5)


def test_no_layer_changes_its_name_and_the_statistics_are_saved() -> None:
    network = small()
    before = [name for name, _ in network.named_modules()]
    tensors = set(network.state_dict())
    normalize(network, MEAN, STD)
    assert [name for name, _ in network.named_modules()] == before
    assert set(network.state_dict()) - tensors == {"image_mean", "image_std"}


def test_a_network_is_normalised_once() -> None:
    network = small()
    normalize(network, MEAN, STD)
    with pytest.raises(NetworkError, match="image_mean"):
        normalize(network, MEAN, STD)


@pytest.mark.parametrize(
    ("source", "name", "wanted"),
    [
        ("torchvision", "mobilenet_v3_small", ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
        ("timm", "resnet10t", ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
        ("timm", "vit_wee_patch16_reg1_gap_256", ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))),
        ("builtin", "resnet8", None),
    ],
)
def test_statistics_of_the_published_weights(source: str, name: str, wanted: object) -> None:
    spec = NetworkSpec.model_validate({"source": source, "name": name})
    found = pretrained_statistics(spec)
    assert found == wanted
