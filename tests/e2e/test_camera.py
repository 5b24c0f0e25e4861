"""From a folder of photographs to a deployed bundle: every form of an image gives what evaluation computed with."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import floats_edge as fe
from floats_edge.artifacts.bundle import Bundle, open_bundle
from floats_edge.artifacts.checkpoint import open_run
from floats_edge.cli.main import cli
from floats_edge.data import load_test
from floats_edge.data.order import TEST_SEED, permutation
from floats_edge.errors import ArtifactError
from floats_edge.evaluation.batch import evaluation_batch
from floats_edge.images import ImageKind
from floats_edge.preprocessing import Preprocessing, preprocessed
from floats_edge.recipe_file import load_recipe

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = ((40, 30), (30, 40), (17, 64), (24, 24), (61, 23), (8, 9))
RULES: dict[str, dict[str, Any]] = {
    "short-side": {"size": 16, "resize_size": 20},
    "squash-bgr": {"size": [16, 12], "resize": "squash", "colours": "bgr"},
    "pad-two-taps": {"size": 16, "resize": "pad", "antialias": False},
    "grey": {"size": 16, "colours": "grey"},
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reddish and bluish pictures of many sizes, as JPEG."""
    folder, random = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 12)):
        for name, colour in (("blue", (60, 90, 160)), ("red", (160, 90, 60))):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                width, height = SIZES[number % len(SIZES)]
                pixels = np.clip(colour + random.normal(0, 60, (height, width, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number:02}.jpg", quality=90)
    return folder


@pytest.fixture(scope="module")
def exported(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """A bundle of a network that was trained on the photographs by one of the rules, made once."""
    made: dict[str, Bundle] = {}

    def export(rule: str) -> Bundle:
        if rule not in made:
            folder = tmp_path_factory.mktemp(rule)
            options = (
                f"data={{dataset: folder, crop: 0, preprocessing: {json.dumps(RULES[rule])}}}",
                *("train.epochs=2", "train.batch_size=8", "model.arguments.width=4", "evaluate.images=24"),
            )
            run = fe.train(load_recipe("quickstart", options), folder / "run", data=photographs)
            made[rule] = fe.export(run.path, folder / "bundle", data=photographs)
        return made[rule]

    return export


@pytest.mark.parametrize("rule", RULES)
def test_files_give_the_logits_that_evaluation_has(
    rule: str, photographs: Path, exported: Callable[[str], Bundle]
) -> None:
    bundle = exported(rule)
    manifest = bundle.manifest
    assert manifest.input.preprocessing == Preprocessing.model_validate(RULES[rule]).resolved(manifest.input.shape)
    files = sorted((photographs / "test").rglob("*.jpg"))
    files = [files[i] for i in permutation(len(files), TEST_SEED)]
    batch = evaluation_batch(manifest.recipe.train.batch_size)
    kind = ImageKind(manifest.output.labels, manifest.input.preprocessing)
    images = load_test(manifest.recipe.data, kind, photographs)
    result = fe.evaluate(bundle.path, fe.EvaluateRequest((0.0, 1.0), attack={"steps": 1}), photographs).results
    with fe.load(bundle.path) as network:
        for lam, evaluated in zip((0.0, 1.0), result, strict=True):
            network.set_lambda(lam)
            logits = network.predict_images(files, batch)
            assert logits.dtype == np.float32
            wanted = np.concatenate([network.predict(pixels) for pixels, _ in images.batches(batch)])
            np.testing.assert_array_equal(logits, wanted)
            assert (logits.argmax(1) == images.labels).sum() == evaluated.clean.count
            assert np.ptp(logits, axis=0).min() > 0
        opened = [Image.open(file) for file in files]
        np.testing.assert_array_equal(network.predict_images(opened, batch), logits)
        arrays = [np.asarray(image) for image in opened]
        np.testing.assert_array_equal(network.predict_images(arrays, batch), logits)


def test_bgr_is_rgb_the_other_way_round(photographs: Path, exported: Callable[[str], Bundle]) -> None:
    file = photographs / "test" / "red" / "00.jpg"
    rgb = Preprocessing.model_validate({**RULES["squash-bgr"], "colours": "rgb"})
    pixels = preprocessed(np.asarray(Image.open(file)), rgb)
    with fe.load(exported("squash-bgr").path) as network:
        wanted = network.predict(np.divide(pixels[None, ::-1], 255, dtype=np.float32))
        np.testing.assert_array_equal(network.predict_images([file]), wanted)
        assert not np.array_equal(network.predict(np.divide(pixels[None], 255, dtype=np.float32)), wanted)


def test_a_board_needs_no_torch(photographs: Path, exported: Callable[[str], Bundle]) -> None:
    bundle, file = exported("short-side").path, photographs / "test" / "red" / "01.jpg"
    program = f"""
import sys
for name in ("torch", "torchvision", "sklearn"):
    sys.modules[name] = None
import floats_edge as fe
with fe.load({str(bundle)!r}) as network:
    print(*map(float.hex, map(float, network.predict_images([{str(file)!r}])[0])))
"""
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=True)
    with fe.load(bundle) as network:
        assert [*map(float.fromhex, done.stdout.split())] == network.predict_images([file])[0].tolist()


def test_it_is_told_by_inspect_and_by_the_report(
    photographs: Path, exported: Callable[[str], Bundle], tmp_path: Path
) -> None:
    bundle = exported("short-side").path
    words = "scaled to cover 20x20 pixels, centre 16x16 kept; bilinear, antialiased; rgb, values / 255"
    for path in (bundle, bundle.with_name("run")):
        told = CliRunner().invoke(cli, ["inspect", str(path)], env={"COLUMNS": "250"})
        assert words in told.stdout, told.output
    record, page = tmp_path / "evaluation.json", tmp_path / "report.html"
    images = ["--images", "4", "--steps", "1", "--data-dir", str(photographs)]
    evaluated = CliRunner().invoke(cli, ["evaluate", str(bundle), *images, "-o", str(record)])
    assert evaluated.exit_code == 0, evaluated.output
    assert CliRunner().invoke(cli, ["report", str(record), "--html", str(page)]).exit_code == 0
    assert words in page.read_text()


def test_what_was_written_before_is_refused(exported: Callable[[str], Bundle], tmp_path: Path) -> None:
    bundle = exported("short-side")
    run = bundle.path.with_name("run")
    for path, name, part, opened, remedy in (
        (bundle.path, "manifest.json", "input", open_bundle, "export it again: floats-edge export"),
        (run, "checkpoint.json", "images", open_run, "train it again: floats-edge train"),
    ):
        values = json.loads((path / name).read_text())
        del values[part]["preprocessing"]
        (tmp_path / name).write_text(json.dumps(values))
        with pytest.raises(ArtifactError, match=rf"{part}\.preprocessing: Field required") as error:
            opened(tmp_path)
        assert remedy in error.value.fix
        (tmp_path / name).unlink()
