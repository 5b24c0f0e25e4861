"""A network and images that a user has in Python, from training to a bundle; and what is said if they are missing."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import floats_edge as fe
from floats_edge.artifacts.checkpoint import TrainingRun, open_run
from floats_edge.data import Splits, load_data, load_test
from floats_edge.errors import ArtifactError, DataError, NetworkError
from floats_edge.images import ImageKind
from floats_edge.recipe import Data, Recipe
from floats_edge.recipe_file import override_recipe

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = [str(digit) for digit in range(10)]


class Listed:
    """A map-style data set without targets."""

    def __init__(self, items: list[tuple[object, int]]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> tuple[object, int]:
        return self.items[position]


def listed(images: object, count: int) -> Listed:
    pixels, labels = images.pixels[:count, 0], images.labels[:count]
    return Listed([(Image.fromarray(image), int(label)) for image, label in zip(pixels, labels, strict=True)])


class Branched(nn.Module):
    """A stranger's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.side = nn.Conv2d(8, 8, (1, 7), padding=(0, 3))
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        stem = torch.relu(self.norm(self.stem(images)))
        both = torch.cat((stem, torch.relu(self.side(stem))), 1)
        return self.head(self.drop(both.mean((2, 3))))


@pytest.fixture(scope="module")
def given(digits: Splits) -> fe.Datasets:
    return fe.Datasets(listed(digits.train, 160), listed(digits.test, 520), NAMES, transform=torch.clone)


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    return Branched()


@pytest.fixture(scope="module")
def run(
    digits_recipe: Recipe, given: fe.Datasets, module: nn.Module, tmp_path_factory: pytest.TempPathFactory
) -> TrainingRun:
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    recipe = override_recipe(digits_recipe, ("train.epochs=1", "evaluate.images=20", "evaluate.attack.steps=2"))
    made = fe.train(recipe, tmp_path_factory.mktemp("given") / "run", module=module, data=given)
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())
    return made


def test_the_run_says_what_it_is_of(run: TrainingRun) -> None:
    recipe = open_run(run.path).checkpoint.recipe
    assert (recipe.model.source, recipe.model.name, recipe.data.dataset) == ("given", "Branched", "given")
    assert "had when it was handed over" in run.checkpoint.history[0].remarks[0]


def test_from_a_module_to_a_bundle_that_needs_neither(
    run: TrainingRun, given: fe.Datasets, module: nn.Module, tmp_path: Path
) -> None:
    request = fe.EvaluateRequest(lambdas=(0.0, 1.0), module=module)
    trained = fe.evaluate(run.path, request, data=given)
    bundle = fe.export(run.path, tmp_path / "bundle", fe.ExportRequest(module=module), data=given)
    deployed = fe.evaluate(bundle.path, fe.EvaluateRequest(lambdas=(0.0, 1.0)), data=given)
    assert [result.clean for result in deployed.results] == [result.clean for result in trained.results]
    with fe.load(bundle.path) as network:
        pictures = [given.test[position][0] for position in range(4)]
        arrays = np.stack([np.asarray(picture) for picture in pictures])[:, None].astype(np.float32) / 255
        np.testing.assert_array_equal(network.predict_images(pictures), network.predict(arrays))


def test_what_was_handed_over_is_asked_for_again(run: TrainingRun, given: fe.Datasets, module: nn.Module) -> None:
    with pytest.raises(NetworkError, match="Branched that was handed over in Python") as error:
        fe.evaluate(run.path, data=given)
    assert "module=" in error.value.fix
    with pytest.raises(DataError, match="the images were handed over in Python") as missing:
        fe.evaluate(run.path, fe.EvaluateRequest(module=module))
    assert "fe" in missing.value.fix or "floats_edge.Datasets" in missing.value.fix
    with pytest.raises(ArtifactError):
        fe.evaluate(run.path, fe.EvaluateRequest(module=nn.Sequential(nn.Flatten(), nn.Linear(64, 10))), data=given)


def test_data_sets_give_the_images_of_a_folder(digits: Splits) -> None:
    given = fe.Datasets(listed(digits.train, 60), listed(digits.test, 30), NAMES)
    splits = load_data(Data(dataset="given"), 0, given)
    assert len(splits.train) + len(splits.validation) == 60
    stored = {image.tobytes() for image in digits.train.pixels[:60]}
    assert {image.tobytes() for part in (splits.train, splits.validation) for image in part.pixels} == stored
    kind = ImageKind(tuple(NAMES), Data().preprocessing.resolved((1, 8, 8)))
    np.testing.assert_array_equal(load_test(Data(dataset="given"), kind, given).pixels, splits.test.pixels)


class Columns:
    """As a data set of Hugging Face: rows are dicts, and a column can be had without the others."""

    column_names = ("image", "label")

    def __init__(self, rows: Listed) -> None:
        self.rows = rows
        self.decoded = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | str) -> object:
        if isinstance(key, str):
            return [row[self.column_names.index(key)] for row in self.rows.items]
        self.decoded += 1
        return dict(zip(self.column_names, self.rows[key], strict=True))


def test_data_sets_of_columns(digits: Splits) -> None:
    """Labels are had without any image."""
    train, test = Columns(listed(digits.train, 60)), Columns(listed(digits.test, 30))
    data = Data(dataset="given")
    of_columns, of_pairs = (
        load_data(data, 0, fe.Datasets(*sets, NAMES)) for sets in ((train, test), (train.rows, test.rows))
    )
    assert train.decoded + test.decoded < 5, "one image tells the shape of a split"
    for one, other in ((of_columns.train, of_pairs.train), (of_columns.test, of_pairs.test)):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_a_stream_is_no_data_set() -> None:
    class Stream:
        def __iter__(self) -> object:
            return iter([{"image": PICTURE, "label": 0}])

    with pytest.raises(DataError, match="Stream does not know how many images it has") as error:
        all_pixels(fe.Datasets(Stream(), Stream(), ["ant", "bee"]))
    assert "streaming=True" in error.value.fix


def all_pixels(given: fe.Datasets) -> np.ndarray:
    splits = load_data(Data(dataset="given", validation=0.3), 0, given)
    return np.concatenate((splits.train.pixels, splits.validation.pixels))


PICTURE = np.zeros((8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([(PICTURE, 0), (PICTURE.astype(float), 1)], "image 1 of the data set is a ndarray that cannot be used"),
        (
            [(PICTURE, 0), ("cat.png", 1)],
            "image 1 of the data set is a str, and neither an image of Pillow nor an array",
        ),
        ([(torch.zeros(3, 8, 8), 0)], "image 0 of the data set is a Tensor, and neither.*without ToTensor"),
        ([(PICTURE, 0), (PICTURE[:4], 1)], "image 1 of the data set is 8x4 pixels, others are 8x8"),
        ([(PICTURE, 0), (PICTURE, 7)], "labels of the data set are not the numbers of 2 classes"),
        ([(PICTURE, 0), (PICTURE, 0.5)], "labels of the data set are not the numbers"),
        ([(PICTURE, 0), PICTURE], "image 1 of the data set cannot be had"),
        (
            [{"image": PICTURE, "label": 0}, {"img": PICTURE, "label": 1}],
            "image 1 of the data set has no column 'image', but 'img', 'label'.*rename_column.NAME, 'image'",
        ),
        (
            [{"image": PICTURE, "label": 0}, {"image": PICTURE, "label": -1}],
            "labels of the data set are not the numbers",
        ),
        (
            [{"image": PICTURE, "fine_label": 0}],
            "no column 'label', but 'image', 'fine_label'.*rename_column.NAME, 'label'",
        ),
        ([], "the 0 labels"),
    ],
)
def test_data_sets_that_cannot_be_used(items: list, said: str) -> None:
    given = fe.Datasets(Listed(items * 5), Listed(items * 5), ["ant", "bee"])
    with pytest.raises(DataError) as told:
        all_pixels(given)
    assert re.search(said, f"{told.value.what} {told.value.fix}")
