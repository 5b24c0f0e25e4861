"""OAT on any network: after which BatchNorms FiLM stands, and that a network without any is refused."""

import pytest
import torch
from fixtures.strangers import stranger
from torch import nn

from floats_edge.baselines.film import FilmNorm
from floats_edge.baselines.oat import OatNetwork
from floats_edge.baselines.spec import Oat
from floats_edge.errors import NetworkError
from floats_edge.networks.build import build
from floats_edge.networks.spec import NetworkSpec

IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
OAT = Oat(dimensions=8)


def film_norms(network: nn.Module) -> dict[str, bool]:
    """Whether FiLM follows, by the name of the BatchNorm."""
    named = network.named_modules()
    return {name: module.film is not None for name, module in named if isinstance(module, FilmNorm)}


def test_as_published_projections_have_no_film() -> None:
    network = OatNetwork(build(NetworkSpec(name="resnet8", arguments={"width": 4}), 7, 3), IMAGES, OAT, seed=0)
    norms = film_norms(network.backbone)
    without = [name for name, film in norms.items() if not film]
    assert without == ["blocks.1.shortcut_norm", "blocks.2.shortcut_norm"]
    assert len(norms) == 9


def test_as_published_the_last_norm_of_a_wide_resnet_has_none() -> None:
    network = OatNetwork(build(NetworkSpec(name="wrn-16-8", arguments={"width": 1}), 7, 3), IMAGES, OAT, seed=0)
    assert [name for name, film in film_norms(network.backbone).items() if not film] == ["norm"]


def densenet() -> nn.Module:
    return build(NetworkSpec(source="torchvision", name="densenet121"), 7, 3)


@pytest.mark.parametrize("network", [stranger, densenet])
def test_any_network_with_batchnorms_can_be_told_lambda(network) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    oat = OatNetwork(network(), images, OAT, seed=0).eval()
    with torch.no_grad():
        clean, robust = oat(images, 0.0), oat(images, 1.0)
        mixed = oat.mixed(images, torch.tensor([0, 5]), zeros=1)
    assert not torch.allclose(clean, robust)
    torch.testing.assert_close(mixed, torch.stack((clean[0], robust[1])), rtol=1e-4, atol=1e-5)


def test_a_network_without_batchnorms_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 7))
    with pytest.raises(NetworkError, match="no BatchNorm that FiLM could follow"):
        OatNetwork(network, IMAGES, OAT, seed=0)
