"""Classes that are not the network's are refused, for figures of them mean nothing; what is not read may be missing."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from floats_edge.cli.main import cli

pytestmark = pytest.mark.usefixtures("one_thread")

COLOURS = {"ant": (200, 40, 40), "bee": (40, 200, 40), "cat": (40, 40, 200)}
OPTIONS = ("data={dataset: folder, crop: 0}", "train.epochs=3", "train.batch_size=8", "model.arguments.width=4")
TRAINED = [word for option in OPTIONS for word in ("-o", option)]
FEW = {"evaluate": ("--images", "20", "--steps", "2"), "verify": ("--images", "20", "--queries", "2")}


def floats_edge(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def write_images(folder: Path, names: dict[str, str], size: int = 8) -> Path:
    """Images of noisy colours: ``names`` has the names of the classes by what they show."""
    random = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 10)):
        for shown, name in names.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(COLOURS[shown] + random.normal(0, 30, (size, size, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), {name: name for name in COLOURS})


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on ant, bee and cat."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    result = floats_edge("train", "quickstart", *TRAINED, "--data-dir", images, "--out", folder, "--device", "cpu")
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def bundle(run: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "bundle"
    result = floats_edge("export", run, "--data-dir", images, "-o", folder)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def stages(run: Path, bundle: Path, tmp_path: Path) -> dict[str, Callable[[Path], Result]]:
    """Every command that takes the images of a network, given a folder of them."""
    out, copy = tmp_path / "out", Path(shutil.copytree(bundle, tmp_path / "bundle"))
    pgd = FEW["evaluate"]
    return {
        "evaluate a run": lambda data: floats_edge("evaluate", run, *pgd, "--data-dir", data, "-o", out),
        "evaluate a bundle": lambda data: floats_edge("evaluate", bundle, *pgd, "--data-dir", data, "-o", out),
        "verify": lambda data: floats_edge("verify", copy, *FEW["verify"], "--data-dir", data),
        "export": lambda data: floats_edge("export", bundle, "--lambda", "0", "--data-dir", data, "-o", tmp_path / "0"),
        "validate": lambda data: floats_edge(
            "evaluate", run, *pgd, "--split", "validation", "--data-dir", data, "-o", out
        ),
        "fresh noise": lambda data: floats_edge(
            "evaluate", run, *pgd, "--attack", "pgd", "--noise", "resample", "--data-dir", data, "-o", out
        ),
        "resume": lambda data: floats_edge(
            "train", "quickstart", *TRAINED, "--resume", "--data-dir", data, "--out", run, "--device", "cpu"
        ),
    }


READ_TEST_IMAGES = ("evaluate a run", "evaluate a bundle", "verify", "export")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"bee": "bee", "cat": "cat"}, "the images lack ant"),
        ({"ant": "ant", "bee": "bee", "cat": "dog"}, "it does not know dog and the images lack cat"),
    ],
    ids=["fewer classes", "another class"],
)
def test_other_images_are_refused_by_every_stage(
    names: dict[str, str], message: str, stages: dict[str, Callable[[Path], Result]], tmp_path: Path
) -> None:
    other = write_images(tmp_path / "other", names)
    for stage, floats_edge_on in stages.items():
        result = floats_edge_on(other)
        assert result.exit_code == 1, (stage, result.output)
        assert message in result.stderr, stage
        assert "--data-dir" in result.stderr, stage
        assert "Verified" not in result.output
        assert not (tmp_path / "out").exists(), stage
        assert not (tmp_path / "0").exists(), stage


def test_images_of_another_size_become_what_the_network_takes(
    stages: dict[str, Callable[[Path], Result]], tmp_path: Path
) -> None:
    """Training alone, of which the recipe says that they are taken as stored, refuses them."""
    other = write_images(tmp_path / "other", {name: name for name in COLOURS}, 12)
    refused = stages.pop("resume")(other)
    assert refused.exit_code == 1
    assert "8x8 pixels of 3 channels wanted, 12x12 pixels of 3 channels found" in refused.stderr
    for stage, floats_edge_on in stages.items():
        result = floats_edge_on(other)
        assert result.exit_code == 0, (stage, result.output)


def test_test_images_are_all_that_most_stages_need(
    images: Path, stages: dict[str, Callable[[Path], Result]], tmp_path: Path
) -> None:
    shutil.copytree(images / "test", tmp_path / "alone" / "test")
    for stage in READ_TEST_IMAGES:
        result = stages[stage](tmp_path / "alone")
        assert result.exit_code == 0, (stage, result.output)
    for stage in stages.keys() - set(READ_TEST_IMAGES):
        result = stages[stage](tmp_path / "alone")
        assert result.exit_code == 1, stage
        assert f"there is no folder {tmp_path / 'alone' / 'train'}" in result.stderr, stage
