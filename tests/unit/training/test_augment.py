"""Changes of single images: torchvision's and a user's, the same bits whoever makes them."""

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from floats_edge.data import Splits
from floats_edge.errors import DataError
from floats_edge.images import Images, array_images
from floats_edge.preprocessing import Preprocessing
from floats_edge.recipe import Data
from floats_edge.training.augment import Variation
from floats_edge.training.feed import Feed

CROPPED = Data(crop=0, resized_crop=(0.2, 0.8))


def feed(images: Images, data: Data, transform: Callable[[Tensor], Tensor] | None = None) -> Feed:
    return Feed(images, data, 16, 0, torch.device("cpu"), transform=transform)


def bytes_of(subject: Feed, epoch: int = 0) -> list[bytes]:
    return [image.numpy().tobytes() for images, _ in subject.batches(epoch) for image in images]


def noisy(image: Tensor) -> Tensor:
    """A transform that draws from all three sources of chance."""
    shift = random.randrange(50) + np.random.randint(50) + int(torch.randint(50, ()))  # noqa: NPY002
    return (image.int() + shift).clamp(0, 255).byte()


@pytest.fixture
def coloured() -> Images:
    """Real pictures of nothing: 48 images of 24x16 pixels, scaled to 12x12."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 3, 16, 24), dtype=np.uint8)
    return array_images(pixels, np.zeros(48, dtype=np.int64), Preprocessing(size=(12, 12)))


VARIATIONS = {
    "resized crop": (CROPPED, None),
    "jitter": (Data(crop=0, jitter=0.4), None),
    "randaugment": (Data(crop=0, policy="randaugment"), None),
    "trivialaugment": (Data(crop=0, policy="trivialaugment"), None),
    "a user's": (Data(crop=0), noisy),
    "all": (Data(crop=0, resized_crop=(0.2, 0.8), jitter=0.4, policy="trivialaugment", flip=True), noisy),
}


@pytest.mark.parametrize("name", VARIATIONS)
def test_processes_and_memory_make_no_difference(coloured: Images, name: str) -> None:
    data, transform = VARIATIONS[name]
    kept = bytes_of(feed(replace(coloured, loaders=0), data, transform))
    assert len(set(kept) - {image.tobytes() for image in coloured.as_float()}) > 24
    for memory, loaders in ((2**30, 2), (0, 0), (0, 1)):
        assert bytes_of(feed(replace(coloured, memory=memory, loaders=loaders), data, transform)) == kept
    assert bytes_of(feed(coloured, data, transform), epoch=1) != kept


def test_chance_of_the_caller_is_left_alone(coloured: Images) -> None:
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    before = torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    bytes_of(feed(replace(coloured, loaders=0), *VARIATIONS["all"]))
    assert torch.equal(torch.rand(3), before[0])
    assert (random.random(), np.random.rand()) == before[1:]  # noqa: NPY002


def test_a_resized_crop_is_taken_of_the_image_as_it_is_stored() -> None:
    """Each pixel says where it is: the centre alone is kept by preprocessing, crops see what is beside it."""
    ramp = np.broadcast_to(np.arange(60, dtype=np.uint8) * 4, (1, 3, 20, 60)).copy()
    images = array_images(ramp, np.zeros(1, dtype=np.int64), Preprocessing(size=(20, 20)))
    assert images.pixels.min() == 20 * 4
    seen = Variation(images, CROPPED).varied(np.zeros(20, dtype=np.intp), list(range(20)))
    assert seen.shape == (20, 3, 20, 20)
    assert seen.min() < 10 * 4
    assert seen.max() > 50 * 4


@pytest.mark.parametrize("colours", ["grey", "bgr"])
def test_a_resized_crop_gives_the_colours_that_the_network_takes(colours: str) -> None:
    red = np.zeros((1, 3, 10, 10), dtype=np.uint8)
    red[:, 0] = 200
    images = array_images(red, np.zeros(1, dtype=np.int64), Preprocessing(size=(8, 8), colours=colours))
    [cropped] = Variation(images, CROPPED).varied(np.zeros(1, dtype=np.intp), [0])
    assert cropped[:, 0, 0].tolist() == ([60] if colours == "grey" else [0, 0, 200])


def test_images_of_files_are_cropped_as_they_are_stored(tmp_path_factory: pytest.TempPathFactory) -> None:
    from floats_edge.data import load_data

    folder = tmp_path_factory.mktemp("folder")
    for name in ("ant", "bee"):
        (folder / name).mkdir()
        for i in range(6):
            Image.fromarray(np.full((10, 30, 3), 40 * i, dtype=np.uint8)).save(folder / name / f"{i}.png")
    data = Data(dataset="folder", root=folder, preprocessing=Preprocessing(size=(10, 10)), crop=0)
    images = load_data(data, seed=0).train
    [first, again] = Variation(images, CROPPED).varied(np.array([1, 1]), [5, 6])
    assert first.tobytes() == again.tobytes() == images.pixels[1].tobytes()


@pytest.mark.parametrize("loaders", [0, 1])
@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (lambda image: image.float() / 255, r"makes torch.float32 \[1, 8, 8\] of an image of torch.uint8 \[1, 8, 8\]"),
        (lambda image: image[:, :4], r"makes torch.uint8 \[1, 4, 8\]"),
        (lambda image: None, "makes NoneType"),
        (lambda image: image.no_such_thing(), "the transform failed: AttributeError"),
    ],
)
def test_a_transform_that_gives_something_else(
    few: Splits, transform: Callable[[Tensor], Tensor], said: str, loaders: int
) -> None:
    with pytest.raises(DataError, match=said):
        list(feed(replace(few.train, loaders=loaders), Data(crop=0), transform).batches(0))
