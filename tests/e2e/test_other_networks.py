"""Networks of others from the recipe to the proof: torchvision's, and what a function of a user's own returns."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fixtures.commands import floats_edge

from floats_edge.artifacts.bundle import open_bundle
from floats_edge.artifacts.checkpoint import open_run
from floats_edge.cli.main import cli
from floats_edge.data import load_data
from floats_edge.networks.spec import Code
from floats_edge.runtime.backends import open_predictor
from floats_edge.runtime.torch import run_predictor

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = (
    "data={dataset: digits, preprocessing: {size: 32}, crop: 0, train_images: 256}",
    "train={epochs: 1, batch_size: 32, lr: 0.02}",
    "evaluate={attack: {kind: pgd, epsilon: 0.15, steps: 2}, images: 20, lambdas: [0, 0.5, 1]}",
)
MOBILENET = ("model={source: torchvision, name: mobilenet_v3_small}", "condition.initial_alpha=0.05")
OWN = """
from torch import nn


class Gated(nn.Module):
    '''A depthwise network with a bias before a BatchNorm, a gate, and a layer norm, none of which ours have.'''

    def __init__(self, classes, channels, width=8):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.Hardswish())
        self.depthwise = nn.Conv2d(width, width, (1, 5), padding=(0, 2), groups=width)
        self.norm = nn.BatchNorm2d(width)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1), nn.Sigmoid())
        self.last = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images):
        x = self.stem(images)
        x = self.norm(self.depthwise(x)) + x
        return self.head(self.last((x * self.gate(x)).mean((2, 3))))


def gated(classes, channels, width):
    return Gated(classes, channels, width)
"""


def train(out: Path, *options: str, allow: bool = False) -> Path:
    words = [word for option in (*FEW, "sparsity.density=1", *options) for word in ("-o", option)]
    floats_edge("train", "quickstart", *words, "--out", out, "--device", "cpu", *(["--allow-code"] if allow else []))
    return out


def assert_computes_the_same(run: Path, bundle: Path) -> None:
    checkpoint = open_run(run).checkpoint
    images = load_data(checkpoint.recipe.data, checkpoint.recipe.seed).test.as_float(slice(32))
    trained = run_predictor(open_run(run), code=Code(allowed=True))
    with open_predictor(open_bundle(bundle), "ort-cpu", 0.0) as engine:
        for lam in (0.0, 0.3, 1.0):
            wanted = (trained.set_lambda(lam), trained.predict(images))[1]
            engine.set_lambda(lam)
            assert np.abs(engine.predict(images) - wanted).max() / np.ptp(wanted) < 1e-5


def test_one_of_torchvision_with_half_of_its_channels(tmp_path: Path) -> None:
    run = train(tmp_path / "run", *MOBILENET, "sparsity={pattern: channel, density: 0.5}")
    floats_edge("export", run, "-o", tmp_path / "bundle")
    manifest = open_bundle(tmp_path / "bundle").manifest
    assert manifest.network == "torchvision mobilenet_v3_small"
    assert 0.2 < manifest.density < 0.6
    assert sum(layer.drawn is not None for layer in manifest.layers) > 40
    assert_computes_the_same(run, tmp_path / "bundle")
    assert "Verified: " in floats_edge("verify", tmp_path / "bundle", "--images", "8", "--queries", "3")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network of code that stands in the working folder."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_nets_for_a_test.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(
            folder / "run",
            "model={source: python, name: 'my_nets_for_a_test:gated', arguments: {width: 12}}",
            allow=True,
        )
    return folder


def test_code_of_a_user_runs_only_where_it_is_allowed(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)
    for command in (("evaluate", "run"), ("export", "run", "-o", "bundle")):
        result = CliRunner().invoke(cli, list(command))
        assert result.exit_code == 1
        assert "--allow-code" in result.stderr
    assert not (own / "bundle").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--lambda", "runtime"),
        ("--switch", "input", "--precision", "fp16"),
        ("--lambda", "0", "--lambda", "1", "--precision", "int8"),
    ],
    ids=["bound", "input-fp16", "bank-int8"],
)
def test_its_bundle_needs_no_code(own: Path, rtx: None, words: tuple[str, ...], tmp_path: Path, monkeypatch) -> None:
    """int8 is let pass: a network that was hardly trained has its logits too close together."""
    with monkeypatch.context() as patch:
        patch.chdir(own)
        floats_edge("export", "run", "-o", tmp_path / "bundle", *words, "--trt", "--allow-code", "--allow-mismatch")
    manifest = open_bundle(tmp_path / "bundle").manifest
    assert len(manifest.engines) == len(manifest.graphs)
    few = ("--images", "8", "--steps", "2", "--device", "cpu", "-o", tmp_path / "evaluation.json")
    floats_edge("evaluate", tmp_path / "bundle", *few)
    floats_edge("verify", tmp_path / "bundle", "--images", "8", "--queries", "3", "--allow-mismatch")
    if manifest.precision == "fp32":
        assert_computes_the_same(own / "run", tmp_path / "bundle")
        shown = floats_edge("inspect", tmp_path / "bundle")
        assert "python my_nets_for_a_test:gated, width 12" in shown
