"""Channels from the recipe to the profile, on real images: every later stage sees an ordinary narrower network."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from fixtures.commands import floats_edge

from floats_edge.artifacts.bundle import open_bundle
from floats_edge.artifacts.checkpoint import open_run
from floats_edge.artifacts.records import Profile, load_record
from floats_edge.data import load_data
from floats_edge.deploy.tensorrt_engine import available_tensorrt
from floats_edge.evaluation.parity import GATES
from floats_edge.runtime.backends import open_predictor
from floats_edge.runtime.torch import run_predictor
from floats_edge.runtime.twin import BundleTwin


@pytest.fixture(scope="module")
def few_images(cifar_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 images of every class to train on, 60 to test."""
    folder = tmp_path_factory.mktemp("few")
    for split, count in (("train", 160), ("test", 60)):
        for source in (cifar_folder / split).iterdir():
            target = folder / split / source.name
            target.mkdir(parents=True)
            for file in sorted(source.iterdir())[:count]:
                (target / file.name).symlink_to(file)
    return folder


@pytest.fixture(scope="module")
def trained(few_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the channels of a ResNet-8 of width 16."""
    out = tmp_path_factory.mktemp("channel") / "run"
    small = (
        "data.dataset=folder",
        f"data.root={few_images}",
        "model={name: resnet8, arguments: {width: 16, stem_stride: 2}}",
        "attack={kind: n-fgsm, epsilon: 1/255}",
        "train={epochs: 4, batch_size: 64, lr: 0.1}",
    )
    options = [word for option in small for word in ("-o", option)]
    floats_edge("train", "cifar10-floats-channel", *options, "--out", out, "--device", "cpu")
    return out


@pytest.fixture(scope="module")
def bundle(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("channel-bundle") / "bundle"
    engine = ["--trt", "--batch", "1:4:8"] if available_tensorrt() else []
    floats_edge("export", trained, "-o", out, *engine)
    return out


def test_the_exported_network_is_the_masked_one_to_1e_5(trained: Path, bundle: Path) -> None:
    checkpoint = open_run(trained).checkpoint
    images = load_data(checkpoint.recipe.data, checkpoint.recipe.seed).test.as_float(slice(64))
    masked, twin = run_predictor(open_run(trained)), BundleTwin(open_bundle(bundle))
    with open_predictor(open_bundle(bundle), "ort-cpu", 0.0) as engine:
        logits = []
        for lam in (0.0, 0.2, 0.5, 0.9, 1.0):
            for predictor in (masked, twin, engine):
                predictor.set_lambda(lam)
            logits.append(masked.predict(images))
            np.testing.assert_allclose(engine.predict(images), logits[-1], atol=1e-5)
            np.testing.assert_allclose(twin.predict(images), logits[-1], atol=1e-5)
    assert np.abs(logits[0] - logits[-1]).max() > 0.01, "lambda matters"


def test_no_convolution_of_the_graph_is_as_wide_as_in_training(bundle: Path) -> None:
    inputs = {value.name: value.type.tensor_type.shape for value in onnx.load(bundle / "model.onnx").graph.input}
    shapes = {name: tuple(dim.dim_value for dim in shape.dim) for name, shape in inputs.items()}
    assert shapes["stem.weight"] == (8, 3, 3, 3)
    assert shapes["blocks.1.shortcut.weight"] == (16, 8, 1, 1)
    assert shapes["blocks.2.conv2.weight"] == (32, 32, 3, 3)
    assert shapes["head.weight"] == (10, 32)


@pytest.mark.parametrize(
    ("words", "precision"),
    [
        (["--lambda", "runtime"], "int8"),
        (["--switch", "input"], "fp16"),
        (["--switch", "refit"], "fp32"),
    ],
)
def test_every_mode_serves_it(bundle: Path, tmp_path: Path, words: list[str], precision: str) -> None:
    """Measured by its logits: the classes of a network that was hardly trained lie too close for the other gate."""
    floats_edge("export", bundle, "-o", tmp_path / "out", *words, "--precision", precision, "--allow-mismatch")
    manifest = open_bundle(tmp_path / "out").manifest
    assert [layer.drawn for layer in manifest.layers] == [layer.drawn for layer in open_bundle(bundle).manifest.layers]
    assert all(parity.max_error <= GATES[precision][1] for parity in manifest.parity)


def test_evaluate_verify_and_profile(trained: Path, bundle: Path, tmp_path: Path) -> None:
    if available_tensorrt():
        assert len(open_bundle(bundle).manifest.engines) == 1
    few = ("--images", 40, "--steps", 3, "--lambda", 0, "--lambda", 1, "--device", "cpu")
    floats_edge("evaluate", bundle, *few, "-o", tmp_path / "bundle.json")
    floats_edge("verify", bundle, "--images", 20, "--queries", 5)
    floats_edge("profile", bundle, "--duration", 0.2, "--warmup", 0.1, "-o", tmp_path / "profile.json")
    profile = load_record(tmp_path / "profile.json")
    assert isinstance(profile, Profile)
    assert profile.subject.density == pytest.approx(0.25, abs=0.01)
    assert profile.subject.model == "resnet8, width 16, stem_stride 2"
    weights = {layer.name: layer.weights for trace in profile.traces for layer in trace.layers}
    assert weights["blocks.2.conv2"] == 32 * 32 * 9


def test_inspect_shows_what_was_removed(trained: Path, bundle: Path) -> None:
    shown = " ".join(floats_edge("inspect", bundle).split())
    assert "channel, density 0.5, multiples of 8" in shown
    assert "blocks.2.conv2 32, 32, 3, 3 9,216 25.00% 64, 64, 3, 3" in shown
    assert "channel, density 0.5, multiples of 8" in " ".join(floats_edge("inspect", trained).split())
