"""A trained network, packed: the refusal's own remedy makes what can be packed, and it still classifies."""

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from click.testing import CliRunner
from fixtures.commands import floats_edge

from floats_edge.artifacts.bundle import Bundle
from floats_edge.cli.main import cli
from floats_edge.data import Splits
from floats_edge.runtime.backends import load


def test_triton_by_way_of_the_remedy(bundles: "Callable[..., Bundle]", digits: Splits, tmp_path: Path) -> None:
    bound = bundles("bound").path
    refused = CliRunner().invoke(cli, ["pack", "triton", str(bound), "-o", str(tmp_path / "models")])
    assert refused.exit_code == 1
    command = refused.stderr.partition("Remedy: floats-edge ")[2].partition(",")[0]
    words = [str(tmp_path / "digits") if word == "BANK" else word for word in shlex.split(command)]
    floats_edge(*words)
    floats_edge("pack", "triton", tmp_path / "digits", "-o", tmp_path / "models")
    images = digits.test.first(100).as_float()
    for lam in (0.0, 0.5, 1.0):
        model = tmp_path / "models" / f"digits-lambda-{lam}" / "1" / "model.onnx"
        (logits,) = onnxruntime.InferenceSession(model).run(["logits"], {"images": images})
        with load(bound, lam) as network:
            wanted = network.predict(images)
        assert (logits.argmax(1) == wanted.argmax(1)).mean() >= 0.99
        assert np.abs(logits - wanted).max() <= 1e-4 * np.ptp(wanted)


def test_deepstream(bundles: "Callable[..., Bundle]", digits: Splits, tmp_path: Path) -> None:
    fixed = bundles("fixed").path
    floats_edge("pack", "deepstream", fixed, "-o", tmp_path / "nvinfer", "--frame", "1280x720")
    images = digits.test.first(100).as_float()
    session = onnxruntime.InferenceSession(tmp_path / "nvinfer" / "model.onnx")
    (probabilities,) = session.run(["probabilities"], {"images": images})
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    with load(fixed) as network:
        assert (probabilities.argmax(1) == network.predict(images).argmax(1)).all()
    config = (tmp_path / "nvinfer" / "config_infer_primary.txt").read_text()
    assert "model-color-format=2" in config, "digits are grey"


def test_ros2(bundles: "Callable[..., Bundle]", digits: Splits, tmp_path: Path) -> None:
    floats_edge("pack", "ros2", bundles("bound").path, "-o", tmp_path / "package", "--name", "digits")
    images = digits.test.first(10).as_float()
    with load(bundles("bound").path, 0.5) as network, load(tmp_path / "package" / "bundle", 0.5) as inside:
        assert (inside.predict(images) == network.predict(images)).all()
