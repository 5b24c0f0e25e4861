"""Image folders as they come, through every command: what was found is said, kept with the run, and shown."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fixtures.image_files import write_classes, write_image

from floats_edge.artifacts.checkpoint import open_run
from floats_edge.cli.main import cli

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = ("data={dataset: folder, crop: 0}", "train.epochs=1", "train.batch_size=8", "model.arguments.width=4")
TRAINED = [word for option in OPTIONS for word in ("-o", option)]
FEW = ("--images", "8", "--steps", "1")


def floats_edge(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def train(images: Path, out: Path, *more: str) -> Result:
    return floats_edge("train", "quickstart", *TRAINED, "--data-dir", images, "--out", out, "--device", "cpu", *more)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Classes without a split, with what cameras and systems leave behind, and three damaged files of each class."""
    folder = write_classes(tmp_path / "images", 40)
    for name in ("ant", "bee"):
        (folder / name / "notes.txt").write_text("no image")
        (folder / name / ".DS_Store").write_bytes(b"")
        write_image(folder / name / "day 2" / "1.webp", 7)
        for number in (1, 2, 3):
            (folder / name / f"{number:02}.png").write_bytes(b"<html>")
    return folder


FOUND = (
    "Images: 56 to train on, 6 to validate, 14 to test; 2 classes; from class folders",
    "note: no images are set apart for testing: 20% of each class are, the same ones each time",
    "passed over: files that are no images: 2 (ant/notes.txt; bee/notes.txt)",
    "passed over: hidden files and those that systems leave behind: 2 (ant/.DS_Store; bee/.DS_Store)",
    "left out: 6 (",
)


def test_every_command_says_what_it_found(images: Path, tmp_path: Path) -> None:
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    refused = train(images, run)
    assert refused.exit_code == 1
    assert "cannot be read: it is no image of a format that is read" in refused.stderr
    assert "--skip-damaged" in refused.stderr
    assert not run.exists()

    trained = train(images, run, "--skip-damaged")
    assert trained.exit_code == 0, trained.output
    for line in FOUND:
        assert trained.stderr.count(line) == 1, (line, trained.stderr)

    kept = open_run(run).checkpoint.data
    assert kept is not None
    assert (kept.train, kept.validation, kept.test, kept.damaged) == (56, 6, 14, 6)
    assert json.loads(floats_edge("inspect", run, "--json").stdout)["checkpoint"]["data"]["damaged"] == 6
    assert "left out: 6" in floats_edge("inspect", run).stdout

    skip = ("--data-dir", images, "--skip-damaged")
    stages = {
        "14 to test; 2 classes": ("evaluate", run, *FEW, *skip, "-o", tmp_path / "a.json"),
        "6 to validate": ("evaluate", run, *FEW, *skip, "--split", "validation", "-o", tmp_path / "b.json"),
        "Images: 14 to test": ("export", run, *skip, "-o", bundle),
        "Images: 14 to test; 2": ("verify", bundle, *skip, "--images", "8", "--queries", "1"),
    }
    for line, words in stages.items():
        result = floats_edge(*words)
        assert result.exit_code == 0 or words[0] == "verify", (words, result.output)
        assert line in result.stderr, (words, result.stderr)
        assert "passed over: files that are no images: 2" in result.stderr, words
        assert "Images:" not in result.stdout, words


def test_a_run_on_whole_images_is_that_of_any_other_layout(images: Path, tmp_path: Path) -> None:
    """The same images as class folders and as a list give the same weights; a folder resumed is the same run."""
    for file in sorted(images.rglob("0[123].png")):
        file.unlink()
    assert train(images, tmp_path / "one").exit_code == 0
    shutil.copytree(images, tmp_path / "other" / "all")
    files = sorted(path for path in images.rglob("*") if path.suffix in (".png", ".webp"))
    rows = [f"all/{file.relative_to(images)},{file.relative_to(images).parts[0]}" for file in files]
    (tmp_path / "other" / "labels.csv").write_text("\n".join(("path,label", *rows)))
    assert train(tmp_path / "other", tmp_path / "two").exit_code == 0
    one, two = (open_run(tmp_path / name) for name in ("one", "two"))
    assert one.weights_sha256 == two.weights_sha256
    again = train(images, tmp_path / "one", "--resume")
    assert again.exit_code == 0, again.output
    assert open_run(tmp_path / "one").checkpoint == one.checkpoint


def test_compare_says_it_once(images: Path, tmp_path: Path) -> None:
    words = ("compare", "quickstart", *TRAINED, "-o", "evaluate.images=8", "--data-dir", images, "--skip-damaged")
    result = floats_edge(*words, "--seeds", "2", "--out", tmp_path / "study", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("Images: 56 to train on") == 1
