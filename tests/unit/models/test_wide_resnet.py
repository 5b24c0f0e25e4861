"""Wide ResNets of every method: their published sizes, and the reference network written out in plain PyTorch."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from floats_edge.method.conditioning import conditioned_weights, float_layers
from floats_edge.method.film import Film
from floats_edge.models.build import build, build_method
from floats_edge.models.layers import FLOAT, FOLDED, PLAIN, FoldedNorm, Layers
from floats_edge.models.spec import Architecture, ModelSpec, Oat

WIDE: tuple[Architecture, ...] = ("wrn-16-8", "wrn-40-2")


def spec(arch: Architecture, width: int = 16, image: int = 32) -> ModelSpec:
    return ModelSpec(
        arch=arch,
        width=width,
        stem_stride=1,
        image_shape=(3, image, image),
        classes=10,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )


class Block(nn.Module):
    """Written out from the paper: BatchNorm, ReLU, convolution, twice; a projection starts after the first ReLU."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(cin), nn.BatchNorm2d(cout)
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.equal = cin == cout
        if not self.equal:
            self.project = nn.Conv2d(cin, cout, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = relu(self.bn1(x))
        residual = self.conv2(relu(self.bn2(self.conv1(out))))
        return residual + (x if self.equal else self.project(out))


class Reference(nn.Module):
    def __init__(self, depth: int, k: int, base: int = 16) -> None:
        super().__init__()
        widths = [base, base * k, 2 * base * k, 4 * base * k]
        self.conv = nn.Conv2d(3, base, 3, 1, 1, bias=False)
        self.blocks = nn.ModuleList(
            Block(widths[stage] if i == 0 else widths[stage + 1], widths[stage + 1], 2 if stage and i == 0 else 1)
            for stage in range(3)
            for i in range((depth - 4) // 6)
        )
        self.bn, self.fc = nn.BatchNorm2d(widths[3]), nn.Linear(widths[3], 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        for block in self.blocks:
            x = block(x)
        return self.fc(relu(self.bn(x)).mean((2, 3)))


def reference(arch: Architecture, base: int = 16) -> Reference:
    _, depth, k = arch.split("-")
    return Reference(int(depth), int(k), base)


def reference_name(name: str) -> str:
    """The reference's name of a tensor of ours."""
    first = "bn1" if name.startswith("blocks") else "bn"
    for old, new in (
        ("conv1.norm", "bn2"),
        ("norm.norm", first),
        ("shortcut", "project"),
        ("stem", "conv"),
        ("head", "fc"),
    ):
        name = name.replace(old, new)
    return name


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("arch", "millions"), [("wrn-16-8", 11.0), ("wrn-40-2", 2.2)])
def test_size_is_the_published_one(arch: Architecture, millions: float) -> None:
    """Table 4 of the paper; per conditioned layer FLOAT adds one alpha, per BatchNorm a second one."""
    with torch.device("meta"):
        plain, ours, known = build(spec(arch), PLAIN), build(spec(arch), FLOAT), reference(arch)
    assert round(parameters(plain) / 1e6, 1) == millions
    assert parameters(plain) == parameters(known)
    channels = sum(module.num_features for module in known.modules() if isinstance(module, nn.BatchNorm2d))
    assert parameters(ours) == parameters(plain) + len(conditioned_weights(ours)) + 2 * channels
    assert parameters(ours) / parameters(plain) < 1.005


@pytest.mark.parametrize("arch", WIDE)
def test_number_in_the_name_counts_the_convolutions(arch: Architecture) -> None:
    with torch.device("meta"):
        layers = conditioned_weights(build(spec(arch), FLOAT))
    assert len(layers) - 1 == int(arch.split("-")[1])
    assert sum("shortcut" in name for name in layers) == 3


@pytest.mark.parametrize(("arch", "ratio"), [("wrn-16-8", 1.41), ("wrn-40-2", 1.44)])
def test_oat_has_film_on_every_batchnorm_of_the_blocks(arch: Architecture, ratio: float) -> None:
    """As its repository: with the bare lambda, FiLM of C channels has (2C + 2C) + (4 C^2 + 2C) parameters."""
    with torch.device("meta"):
        plain, known = build(spec(arch), PLAIN), reference(arch)
    network = build_method(spec(arch), "oat", Oat(encoding="none", batchnorm="single"), seed=0)
    inside = [module.num_features for module in known.blocks.modules() if isinstance(module, nn.BatchNorm2d)]
    assert sum(isinstance(module, Film) for module in network.modules()) == len(inside)
    assert parameters(network) == parameters(plain) + sum(4 * c * c + 6 * c for c in inside)
    assert round(parameters(network) / parameters(plain), 2) == ratio


@pytest.mark.parametrize("arch", WIDE)
def test_it_computes_what_the_reference_does(arch: Architecture) -> None:
    torch.manual_seed(0)
    network, known = build(spec(arch, width=2, image=16), PLAIN), reference(arch, base=2)
    theirs = known.state_dict()
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not name.startswith("normalize"):
            tensor.uniform_(0.3, 0.9) if "running" in name else tensor.normal_(std=0.3)
            theirs.pop(reference_name(name)).copy_(tensor)
    assert all(name.endswith("num_batches_tracked") for name in theirs)
    images = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        wanted, got = known.eval()(images), network.eval()(images, 0.0)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


@pytest.mark.parametrize("layers", [FLOAT, FOLDED], ids=["trained", "folded"])
def test_mixed_precision_reaches_the_whole_stream(layers: Layers) -> None:
    """A normalisation gives back what it was given: float32 weights do not turn all that follows into float32."""
    torch.manual_seed(0)
    network = build(spec("wrn-16-8", width=1, image=8), layers)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    seen = {}
    for name, module in network.named_modules():
        if name.rpartition(".")[2] in ("stem", "norm", "conv1", "conv2", "shortcut", "head"):
            module.register_forward_hook(lambda _, args, out, name=name: seen.update({name: out.dtype}))
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.rand(2, 3, 8, 8), 1.0)
    assert len(seen) > 20
    assert set(seen.values()) == {torch.bfloat16}


def test_a_folded_norm_is_rounded_once() -> None:
    torch.manual_seed(0)
    norm, x = FoldedNorm(3), torch.randn(2, 3, 4, 4).bfloat16()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    exact = x.float() * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(norm(x, 0.0), exact.bfloat16())


def test_order_of_the_layers() -> None:
    """The position of a layer is the index of its noise, in every language: it must never change."""
    names = list(float_layers(build(spec("wrn-16-8", width=1), FLOAT)))
    assert names[:9] == [
        "stem",
        "blocks.0.norm",
        "blocks.0.conv1",
        "blocks.0.conv2",
        "blocks.0.shortcut",
        "blocks.1.norm",
        "blocks.1.conv1",
        "blocks.1.conv2",
        "blocks.2.norm",
    ]
    assert names[-2:] == ["norm", "head"]
    assert len(names) == 17 + 7
