from collections import Counter

import numpy as np
import pytest

from floats_edge.artifacts.examples import MOST_EXAMPLES, Examples, Pictures, read_pictures
from floats_edge.data import Splits
from floats_edge.evaluation.examples import Gallery
from floats_edge.evaluation.robustness import Judged

LABELS = tuple("0123456789")


def judged(images: np.ndarray, truth: np.ndarray) -> Judged:
    """Of four images one is right, one wrong when clean already, and two are fooled when they are darker by a fifth."""
    place = np.arange(len(truth))
    clean_answers = np.where(place % 4 == 1, (truth + 1) % 10, truth)
    attacked_answers = np.where(place % 4 >= 2, (truth + 2) % 10, clean_answers)
    confidence = np.ones(len(truth))
    return Judged(images, images * np.float32(0.8), truth, clean_answers, attacked_answers, confidence, confidence, ())


def kept(gallery: Gallery, folder) -> tuple[Examples, Pictures]:
    packed = gallery.packed("e.png")
    assert packed is not None
    examples, data = packed
    (folder / "e.png").write_bytes(data)
    pictures = read_pictures(examples, folder)
    assert pictures is not None
    return examples, pictures


@pytest.fixture(scope="module")
def part(digits: Splits) -> Judged:
    return judged(digits.test.as_float(slice(400)), digits.test.labels[:400])


def shown(part: Judged, batch: int, tmp_path, lambdas=(0.5, 0.0, 1.0)) -> tuple[Examples, Pictures]:
    gallery = Gallery(lambdas, LABELS)
    for lam in lambdas:
        for start in range(0, 400, batch):
            share = slice(start, start + batch)
            arrays = (part.clean, part.attacked, part.truth, part.clean_answers, part.attacked_answers)
            gallery.add(lam, Judged(*(array[share] for array in arrays), *2 * (part.clean_confidence[share],), ()))
    return kept(gallery, tmp_path)


def test_examples_are_wrong_images_with_their_pictures_and_answers(part: Judged, tmp_path) -> None:
    examples, pictures = shown(part, 400, tmp_path)
    assert len(examples.shown) == MOST_EXAMPLES
    assert Counter((e.lam, e.fooled) for e in examples.shown) == {(lam, f): 6 for lam in (0, 1) for f in (True, False)}
    for example, (clean, attacked) in zip(examples.shown, pictures, strict=True):
        place = example.image
        np.testing.assert_array_equal(clean, np.rint(part.clean[place] * 255))
        np.testing.assert_array_equal(attacked, np.rint(part.attacked[place] * 255))
        answers = (part.truth[place], part.clean_answers[place], part.attacked_answers[place])
        assert (example.truth, example.clean, example.attacked) == tuple(LABELS[answer] for answer in answers)


def test_they_are_spread_over_the_classes(part: Judged, tmp_path) -> None:
    examples, _ = shown(part, 400, tmp_path)
    for lam in (0, 1):
        for fooled in (True, False):
            truths = [e.truth for e in examples.shown if (e.lam, e.fooled) == (lam, fooled)]
            assert len(set(truths)) == 6


def test_one_lambda_has_all_the_room(part: Judged, tmp_path) -> None:
    examples, _ = shown(part, 400, tmp_path, lambdas=(0.5,))
    assert Counter(e.fooled for e in examples.shown) == {True: 12, False: 12}
    assert {e.lam for e in examples.shown} == {0.5}


@pytest.mark.parametrize("batch", [1, 37])
def test_the_batch_does_not_matter(part: Judged, batch: int, tmp_path) -> None:
    (one, first), (other, second) = shown(part, 400, tmp_path), shown(part, batch, tmp_path)
    assert one == other
    np.testing.assert_array_equal(first, second)


def test_nothing_wrong_keeps_nothing(part: Judged) -> None:
    gallery = Gallery((0.0,), LABELS)
    gallery.add(0.0, Judged(part.clean, part.clean, *3 * (part.truth,), *2 * (part.clean_confidence,), ()))
    assert gallery.packed("e.png") is None


def test_without_lambdas_nothing_is_kept(part: Judged) -> None:
    gallery = Gallery((), LABELS)
    gallery.add(0.0, part)
    assert gallery.packed("e.png") is None


@pytest.mark.parametrize(
    ("shape", "thumbnail"),
    [((3, 224, 224), (3, 128, 128)), ((1, 100, 300), (1, 43, 128)), ((1, 8, 8), (1, 8, 8)), ((3, 1, 400), (3, 1, 128))],
)
def test_large_images_are_kept_smaller(shape: tuple[int, ...], thumbnail: tuple[int, ...], tmp_path) -> None:
    images = np.linspace(0, 1, 2 * np.prod(shape), dtype=np.float32).reshape(2, *shape)
    gallery = Gallery((0.0,), LABELS)
    gallery.add(0.0, judged(images, np.array([3, 4])))
    examples, pictures = kept(gallery, tmp_path)
    assert pictures.shape == (1, 2, *thumbnail)
    assert examples.entry.bytes < 2**18
    assert np.abs(pictures[0, 0].mean() / 255 - images[1].mean()) < 0.01


def test_images_that_cannot_be_shown_are_not_kept() -> None:
    gallery = Gallery((0.0,), LABELS)
    gallery.add(0.0, judged(np.zeros((8, 4, 8, 8), np.float32), np.arange(8)))
    assert gallery.packed("e.png") is None
