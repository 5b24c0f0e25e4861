import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from floats_edge.artifacts.checkpoint import TrainingRun, open_run
from floats_edge.data import Splits
from floats_edge.errors import ArtifactError
from floats_edge.runtime.base import Images
from floats_edge.runtime.torch import run_predictor, trained_network


@pytest.fixture(scope="module")
def images(digits: Splits) -> Images:
    return digits.test.as_float(slice(64))


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_run_is_the_unfolded_network(digits_run: TrainingRun, images: Images, lam: float) -> None:
    """The network as it was trained, in inference mode, with its noise and both BatchNorms unfolded."""
    trained = trained_network(digits_run)
    with torch.no_grad(), trained.knob.at(lam):
        wanted = trained.network(torch.from_numpy(images)).numpy()
    predictor = run_predictor(digits_run)
    predictor.set_lambda(lam)
    logits = predictor.predict(images)
    assert logits.dtype == np.float32
    assert np.abs(logits - wanted).max() / np.ptp(wanted) < 1e-5


def test_network_is_differentiable_in_its_images(digits_run: TrainingRun, images: Images) -> None:
    predictor = run_predictor(digits_run)
    pixels = torch.from_numpy(images).requires_grad_()
    predictor.network(pixels).sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in predictor.network.parameters())


def test_weights_of_another_model(digits_run: TrainingRun, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(digits_run.path, tmp_path / "run"))
    content = json.loads((folder / "checkpoint.json").read_text())
    content["recipe"]["model"]["name"] = "resnet14"
    (folder / "checkpoint.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="weights of another network than resnet14") as caught:
        run_predictor(open_run(folder))
    assert "\n" not in caught.value.what
