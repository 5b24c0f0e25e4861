import pytest
import torch
from torch import Tensor, nn

from floats_edge.errors import NetworkError
from floats_edge.method.network_check import check_network


class Net(nn.Module):
    """A small sound network; tests break it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()
        self.head = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.drop(self.norm(self.conv(images)).mean((2, 3))))


class TwoOutputs(Net):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = super().forward(images)
        return logits, logits


class AuxiliaryInTraining(Net):
    def forward(self, images: Tensor) -> object:
        logits = super().forward(images)
        return {"logits": logits, "aux": logits} if self.training else logits


class Maps(Net):
    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images)


class OneLogit(Net):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[:, :1]


class Classes(Net):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).argmax(1)


class FixedSize(Net):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.reshape(len(images), 3, 8, 8))


class Wasteful(Net):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) / 0


IMAGES = torch.rand(2, 3, 12, 12)


@pytest.mark.parametrize("images", [1, 2])
def test_a_sound_network_stays_as_it_was(images: int) -> None:
    network = Net()
    network.norm.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(0)
    check_network(network, IMAGES[:images], classes=5)
    check_network(network, IMAGES[:images])
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    assert (network.training, network.norm.training) == (True, False)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (TwoOutputs, "tuple of 2 values"),
        (AuxiliaryInTraining, "dict of 2 values"),
        (Maps, r"\[2, 4, 10, 10\], not logits \[2, 5\]"),
        (OneLogit, r"\[2, 1\]"),
        (Classes, r"\[2\]"),
        (FixedSize, r"images of shape \[2, 3, 12, 12\] in inference mode"),
        (Wasteful, "not all finite"),
        (nn.Identity, "no parameters"),
    ],
)
def test_what_is_no_classifier_is_refused(kind: type[nn.Module], what: str) -> None:
    with pytest.raises(NetworkError, match=what):
        check_network(kind(), IMAGES, classes=5)


def test_another_number_of_classes_is_refused() -> None:
    with pytest.raises(NetworkError, match=r"\[2, 5\], not logits \[2, 10\]"):
        check_network(Net(), IMAGES, classes=10)


@pytest.mark.parametrize("name", ["conv.weight", "head.bias", "norm.running_var"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_named(name: str, value: float) -> None:
    network = Net()
    network.state_dict()[name].view(-1)[0] = value
    with pytest.raises(NetworkError, match=name):
        check_network(network, IMAGES)


@pytest.mark.parametrize("images", [torch.rand(3, 12, 12), torch.rand(0, 3, 12, 12), torch.zeros(1, 3, 12, 12).byte()])
def test_an_example_is_images(images: Tensor) -> None:
    with pytest.raises(NetworkError, match="no images"):
        check_network(Net(), images)


def test_other_types_and_lazy_layers_are_refused() -> None:
    with pytest.raises(NetworkError, match=r"float64, not float32") as told:
        check_network(Net().double(), IMAGES)
    assert "float()" in told.value.fix
    with pytest.raises(NetworkError, match="lazy"):
        check_network(nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(5)), IMAGES)
