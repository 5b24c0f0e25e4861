"""From a recipe's choice of images to its splits.

Every order is a pure function of a seed and of the sorted names of the files. The test images are shuffled with a fixed
seed: the first n of them are the same random n in every evaluation, whatever the recipe says.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from floats_edge.data.order import TEST_SEED, permutation
from floats_edge.data.reading import Half, Reading, Source
from floats_edge.data.sources import Place, find_source
from floats_edge.data_report import MOST_NAMED, DataReport, passed_over
from floats_edge.errors import DataError
from floats_edge.images import ImageKind, Images
from floats_edge.recipe import Data

if TYPE_CHECKING:
    from floats_edge.data.reading import Transform

_MOST_CLASSES_NAMED = 10


@dataclass(frozen=True, eq=False)
class Splits:
    """The three splits of a data set, and its class names.

    Attributes:
        train: images to train on.
        validation: images held out of these.
        test: images to test on.
        labels: names of the classes.
        report: what was found; None: the images do not lie in a folder.
        transform: of the user's, which augments a training image, uint8 ``[C, H, W]``.
    """

    train: Images
    validation: Images
    test: Images
    labels: tuple[str, ...]
    report: DataReport | None = None
    transform: "Transform | None" = None


def load_data(
    data: Data, seed: int, place: Place = None, kind: ImageKind | None = None, reading: Reading | None = None
) -> Splits:
    """Find the images of a data set and split them.

    Args:
        data: the recipe's choice of images.
        seed: decides which training images are held out and which are left out; the test images do not depend on it.
        place: the image folder or list, or where a data set is downloaded to, in place of ``data.root``; or images in
            place of those that ``data`` names.
        kind: what the network takes that the images are for, whose preprocessing stands in for the recipe's; None: it
            is yet to be trained on them.
        reading: what is done about damaged images, and who is told what was found; None: they are refused, nobody.

    Raises:
        DataError: the images are missing, too few to split, or not of that kind; what is wrong with single ones of a
            folder is found when they are read.
    """
    reading = reading or Reading()
    source = find_source(data, data.preprocessing if kind is None else kind.preprocessing, place, reading)
    half = source.train()
    if kind is not None:
        kind.check(source.names, half.all())
    order = permutation(len(half), seed)
    held_out = round(len(order) * data.validation)
    validation, left = half.take(order[:held_out]), half.take(order[held_out:])
    _check_sizes(len(half), validation, left, data)
    _check_classes(source.names, validation, left)
    train = left.first(data.train_images)
    test_half = source.test(half.all().shape)
    test = _shuffled(test_half)
    report = _report(source, (half, test_half), train, validation, test)
    if report is not None:
        reading.tell(report)
    train, validation, test = map(reading.split, (train, validation, test))
    return Splits(train, validation, test, source.names, report, source.transform)


def load_test(data: Data, kind: ImageKind, place: Place = None, reading: Reading | None = None) -> Images:
    """Find the test images of a data set, for a network that takes images of ``kind``; no others need be there.

    They are those of :func:`load_data`, in the same order.

    Args:
        data: the recipe's choice of images.
        kind: what the network takes, which says how its images are preprocessed.
        place: as for :func:`load_data`.
        reading: as for :func:`load_data`.

    Raises:
        DataError: the images are missing or not of that kind.
    """
    reading = reading or Reading()
    source = find_source(data, kind.preprocessing, place, reading)
    half = source.test(None)
    kind.check(source.names, half.all())
    test = _shuffled(half)
    report = _report(source, (half,), None, None, test)
    if report is not None:
        reading.tell(report)
    return reading.split(test)


def _shuffled(test: Half) -> Images:
    return test.take(permutation(len(test), TEST_SEED))


def _check_sizes(images: int, validation: Images, left: Images, data: Data) -> None:
    """Check that each split of so many training images gets some, and that as many are left as the recipe wants."""
    if len(validation) == 0 or len(left) == 0:
        raise DataError(
            f"a validation share of {data.validation:g} splits {images} training images into {len(left)} and "
            f"{len(validation)}.",
            fix="choose data.validation so that both parts hold images, or add images",
        )
    if data.train_images is not None and data.train_images > len(left):
        raise DataError(
            f"the recipe trains on {data.train_images} images, but {len(left)} are there once {len(validation)} are "
            "held out.",
            fix=f"lower it: -o data.train_images={len(left)}, or -o data.train_images=null for all",
        )


def _check_classes(names: tuple[str, ...], validation: Images, left: Images) -> None:
    """Check that every class has an image to train on and could have had one to hold out."""
    kept, held_out = _counts(names, left), _counts(names, validation)
    short = [
        f"{name} ({kept[label] + held_out[label]})"
        for label, name in enumerate(names)
        if kept[label] == 0 or kept[label] + held_out[label] < 2
    ]
    if short:
        named = ", ".join(short[:_MOST_CLASSES_NAMED]) + (", …" if len(short) > _MOST_CLASSES_NAMED else "")
        raise DataError(
            f"too few images to split into some to train on and some to hold out, in {len(short)} of {len(names)} "
            f"classes (images in brackets): {named}.",
            fix="add images of these classes, or remove them; a lower data.validation holds fewer out",
        )


def _counts(names: tuple[str, ...], images: Images) -> list[int]:
    return np.bincount(images.labels, minlength=len(names)).tolist()


def _report(
    source: Source, halves: tuple[Half, ...], train: Images | None, validation: Images | None, test: Images
) -> DataReport | None:
    if source.layout is None:
        return None
    skipped = (*source.passed_over, *(pair for half in halves for pair in half.passed_over))
    untested = [name for name, count in zip(source.names, _counts(source.names, test), strict=True) if count == 0]
    remarks = (f"no test image is of class {', '.join(untested)}",) if untested else ()
    damaged = [name for half in halves for name in half.damaged]
    return DataReport(
        layout=source.layout,
        classes=len(source.names),
        train=None if train is None else len(train),
        validation=None if validation is None else len(validation),
        test=len(test),
        passed_over=passed_over(dict.fromkeys(skipped)),
        damaged=len(damaged),
        damaged_files=tuple(damaged[:MOST_NAMED]),
        remarks=(*source.remarks, *remarks),
    )
