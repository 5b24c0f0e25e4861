"""What a user gets for images that are missing, damaged or other ones: one paragraph with a remedy."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from fixtures.commands import assert_told, invoke, tree
from PIL import Image

from floats_edge.artifacts.checkpoint import open_run

pytestmark = pytest.mark.usefixtures("one_thread")


class TestData:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Two classes of real image files."""
        rng = np.random.default_rng(0)
        for split in ("train", "test"):
            for name in ("ant", "bee"):
                (tmp_path / "images" / split / name).mkdir(parents=True)
                for i in range(40):
                    pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(tmp_path / "images" / split / name / f"{i}.png")
        return tmp_path / "images"

    @staticmethod
    def train(folder: Path, out: Path) -> Result:
        options = (
            "data.dataset=folder",
            "train.epochs=1",
            "train.batch_size=16",
            "model.arguments.width=4",
            "data.preprocessing.size=8",
        )
        words = [word for option in options for word in ("-o", option)]
        return invoke("train", "quickstart", *words, "--data-dir", folder, "--out", out, "--device", "cpu")

    def test_folder_is_fine(self, folder: Path, out: Path) -> None:
        assert self.train(folder, out).exit_code == 0
        open_run(out)

    def test_missing(self, tmp_path: Path, out: Path) -> None:
        assert_told(self.train(tmp_path / "nowhere", out), "nowhere", "train/<class>")
        assert not out.exists()

    def test_empty_class(self, folder: Path, out: Path) -> None:
        for file in (folder / "train" / "bee").iterdir():
            file.unlink()
        assert_told(self.train(folder, out), "bee", "holds no image")
        assert not out.exists()

    def test_corrupt_image(self, folder: Path, out: Path) -> None:
        file = folder / "train" / "bee" / "7.png"
        file.write_bytes(file.read_bytes()[:60])
        assert_told(self.train(folder, out), "7.png", "cannot be read")
        assert not out.exists()

    def test_resumed_on_other_images(self, folder: Path, out: Path) -> None:
        assert self.train(folder, out).exit_code == 0
        before = tree(out)
        for file in (folder / "train" / "ant").iterdir():
            Image.new("RGB", (8, 8)).save(file)
        recipe = shutil.copy(out / "recipe.yaml", out.parent)
        result = invoke("train", recipe, "--data-dir", folder, "--out", out, "--resume")
        assert_told(result, "other images", "--data-dir")
        assert tree(out) == before
