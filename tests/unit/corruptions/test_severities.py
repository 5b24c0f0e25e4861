"""Corruptions against what can be computed another way."""

import colorsys
import math

import numpy as np
import pytest

from floats_edge.corruptions import SEVERITIES
from floats_edge.corruptions.blur import moved, zoomed
from floats_edge.corruptions.digital import elastic_transform
from floats_edge.corruptions.severities import CORRUPTIONS, corrupted

CHANCE = np.random.default_rng(0)
NOISE = CHANCE.integers(0, 256, (3, 48, 64), dtype=np.uint8)


def grey(value: int, side: int = 64) -> np.ndarray:
    return np.full((3, side, side), value, np.uint8)


def point(side: int) -> np.ndarray:
    image = np.zeros((1, side, side), np.uint8)
    image[0, side // 2, side // 2] = 255
    return image


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 8, 9), (3, 48, 64), (3, 66, 65)])
def test_every_image_becomes_another_of_the_same_kind(name: str, severity: int, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    found = corrupted(image, name, severity, seed=0, index=0)
    assert found.shape == shape
    assert found.dtype == np.uint8
    assert (found != image).any()


@pytest.mark.parametrize("name", ["gaussian noise", "glass blur", "snow", "fog", "elastic transform"])
def test_chance_is_of_seed_corruption_severity_and_image(name: str) -> None:
    found = corrupted(NOISE, name, 5, seed=0, index=7)
    assert (found == corrupted(NOISE, name, 5, seed=0, index=7)).all()
    assert (found != corrupted(NOISE, name, 5, seed=1, index=7)).any()
    assert (found != corrupted(NOISE, name, 5, seed=0, index=8)).any()


def both(small: tuple[float, ...], large: tuple[float, ...]) -> list[tuple[int, int, float]]:
    """Pixels a side, severity and what the authors take there."""
    return [(side, *pair) for side, row in ((64, small), (128, large)) for pair in zip(SEVERITIES, row, strict=True)]


GAUSSIAN = both((0.04, 0.06, 0.08, 0.09, 0.1), (0.08, 0.12, 0.18, 0.26, 0.38))
SHOT = both((500, 250, 100, 75, 50), (60, 25, 12, 5, 3))
IMPULSE = both((0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27))
FOG = both((0.2, 0.5, 0.75, 1, 1.5), (1.5, 2, 2.5, 2.5, 3))
BRIGHTNESS = both((0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5))
CONTRAST = both((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05))
JPEG = both((80, 65, 58, 50, 40), (25, 18, 15, 10, 7))


@pytest.mark.parametrize(("side", "severity", "deviation"), GAUSSIAN)
def test_gaussian_noise_has_its_deviation(side: int, severity: int, deviation: float) -> None:
    found = corrupted(grey(128, side), "gaussian noise", severity, 0, 0) / 255
    wanted = np.clip(CHANCE.normal(128 / 255, deviation, 200_000), 0, 1)
    assert found.mean() == pytest.approx(wanted.mean(), abs=0.005)
    assert found.std() == pytest.approx(wanted.std(), rel=0.03)


@pytest.mark.parametrize(("side", "severity", "photons"), SHOT)
def test_shot_noise_is_that_of_counted_photons(side: int, severity: int, photons: int) -> None:
    for value in (64, 128):
        found = corrupted(grey(value, side), "shot noise", severity, 0, 0) / 255
        counted = CHANCE.binomial(10**6, value / 255 * photons / 10**6, 200_000) / photons
        counted = np.rint(255 * np.clip(counted, 0, 1)) / 255
        assert found.mean() == pytest.approx(counted.mean(), abs=0.01)
        assert found.var() == pytest.approx(counted.var(), rel=0.06)


@pytest.mark.parametrize(("side", "severity", "amount"), IMPULSE)
def test_impulses_are_as_many_as_they_should_be(side: int, severity: int, amount: float) -> None:
    found = np.stack([corrupted(grey(128, side), "impulse noise", severity, 0, index) for index in range(20)])
    assert set(np.unique(found)) == {0, 128, 255}
    for value in (0, 255):
        assert (found == value).mean() == pytest.approx(amount / 2, rel=0.06)


def test_what_is_out_of_focus_is_a_disc() -> None:
    small = corrupted(point(32), "defocus blur", 4, 0, 0)[0]
    middle = np.zeros((32, 32), int)
    for down, right in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)):
        middle[16 + down, 16 + right] = 51  # radius 1: five pixels
    assert (small == middle).all()
    large = corrupted(point(80), "defocus blur", 1, 0, 0)[0]
    inside = [(y, x) for y in range(-3, 4) for x in range(-3, 4) if y * y + x * x <= 9]
    assert (large > 0).sum() == len(inside) == 29
    assert all(large[40 + y, 40 + x] == round(255 / 29) for y, x in inside)


def test_glass_takes_pixels_from_above_and_from_the_left() -> None:
    places = np.arange(12 * 14, dtype=np.uint8).reshape(1, 12, 14)
    found = corrupted(places, "glass blur", 1, 0, 0)[0]
    assert (found[:2] == places[0, :2]).all()
    assert (found[:, :2] == places[0, :, :2]).all()
    for down in range(2, 12):
        for right in range(2, 14):
            near = {int(places[0, down - y, right - x]) for y in (0, 1) for x in (0, 1)}
            assert int(found[down, right]) in near


@pytest.mark.parametrize(("angle", "step"), [(0, (0, -1)), (90, (-1, 0)), (-90, (1, 0))])
def test_motion_leaves_half_a_gaussian_behind(angle: float, step: tuple[int, int]) -> None:
    found = moved(point(32) / 255, 3, 1.5, angle)[0]
    trace = [found[16 + k * step[0], 16 + k * step[1]] for k in range(4)]
    assert [value / trace[0] for value in trace] == pytest.approx([math.exp(-k * k / 4.5) for k in range(4)])
    assert found.sum() == pytest.approx(1)


def test_zooming_keeps_the_middle() -> None:
    """40 of 60 columns become 60: between the first and the last of them all are alike far apart."""
    ramp = np.tile(np.arange(60.0), (1, 60, 1))
    assert zoomed(ramp, 1.5)[0, 0] == pytest.approx(np.linspace(10, 49, 60))
    assert zoomed(ramp.transpose(0, 2, 1), 1.5)[0, :, 0] == pytest.approx(np.linspace(10, 49, 60))
    blurred = corrupted(point(32), "zoom blur", 1, 0, 0)
    assert 0 < blurred.max() < 255


@pytest.mark.parametrize(("side", "severity", "thickness"), FOG)
def test_fog_reaches_from_nothing_to_the_brightest(side: int, severity: int, thickness: float) -> None:
    value = 200 / 255
    found = corrupted(grey(200, side), "fog", severity, 0, 0)
    assert found.min() == round(255 * value * value / (value + thickness))
    assert found.max() == 200
    assert (found[0] == found[1]).all()


def test_it_snows_alike_on_an_image_that_is_turned() -> None:
    found = corrupted(grey(0), "snow", 1, 0, 0)
    assert found.min() == round(255 * 0.05 * 0.5)
    assert found.max() > 60
    assert np.abs(found.astype(int) - found[:, ::-1, ::-1]).max() <= 1
    green = np.stack((grey(0)[0], grey(255)[0], grey(0)[0]))
    whiter = corrupted(green, "snow", 5, 0, 0)
    assert np.median(whiter[0]) >= round(255 * 0.2 * (1.5 * 0.587 + 0.5)) > whiter[0].min() - 3


@pytest.mark.parametrize(("side", "severity", "amount"), BRIGHTNESS)
def test_brightness_is_the_value_of_hsv(side: int, severity: int, amount: float) -> None:
    image = np.random.default_rng(2).integers(0, 256, (3, side, 8), dtype=np.uint8)
    image[:, 0, 0] = 0
    found = corrupted(image, "brightness", severity, 0, 0)
    for old, new in zip(image.reshape(3, -1).T, found.reshape(3, -1).T, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(old / 255))
        wanted = colorsys.hsv_to_rgb(hue, saturation, min(value + amount, 1))
        assert new == pytest.approx([255 * part for part in wanted], abs=0.501)


@pytest.mark.parametrize(("side", "severity", "kept"), CONTRAST)
def test_contrast_shrinks_about_the_mean_of_each_channel(side: int, severity: int, kept: float) -> None:
    image = np.random.default_rng(2).integers(0, 256, (3, side, 8), dtype=np.uint8)
    for old, new in zip(image.astype(float), corrupted(image, "contrast", severity, 0, 0), strict=True):
        assert np.abs(new - (kept * old + (1 - kept) * old.mean())).max() <= 0.501


def test_elastic_images_are_bent_and_displaced() -> None:
    down, right = np.mgrid[:64, :64]
    ramp = (2.0 * right + down)[None]
    bent = elastic_transform(ramp, np.random.default_rng(0), 0, 0, 0.05)[0, 12:-12, 12:-12]
    plane = np.stack((right, down, np.ones_like(down)))[:, 12:-12, 12:-12].reshape(3, -1).T
    slopes, *_ = np.linalg.lstsq(plane, bent.ravel(), rcond=None)
    assert np.abs(plane @ slopes - bent.ravel()).max() < 1e-9
    assert 0.02 < np.abs(slopes[:2] - (2, 1)).max() < 1
    columns = np.tile(np.arange(64.0), (1, 64, 1))
    shifts = [
        (elastic_transform(columns, np.random.default_rng(seed), 0.1, 0.04, 0) - columns)[0, 12:-12, 12:-12]
        for seed in range(10)
    ]
    wanted = 6.4 * math.sqrt(1 / 3) / (2 * math.sqrt(math.pi) * 2.56)  # of uniform noise under a Gaussian
    assert np.std(shifts) == pytest.approx(wanted, rel=0.1)


def test_pixels_become_the_mean_of_a_block() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 128, 96), dtype=np.uint8)
    found = corrupted(image, "pixelate", 5, 0, 0).astype(int)
    means = image.reshape(3, 32, 4, 24, 4).mean((2, 4))
    assert np.abs(found - means.repeat(4, 1).repeat(4, 2)).max() <= 1


@pytest.mark.parametrize(("side", "severity", "quality"), JPEG)
def test_jpeg_keeps_whole_steps_of_its_quality(side: int, severity: int, quality: int) -> None:
    """In every block of 8 x 8 pixels the cosines are multiples of the table in annex K of the JPEG standard, scaled."""
    image = np.random.default_rng(3).integers(68, 188, (1, side, side), dtype=np.uint8)
    found = corrupted(image, "JPEG compression", severity, 0, 0)[0] - 128.0
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = np.minimum((np.array((16, 11, 10, 16, 24, 40, 51, 61)) * scale + 50) // 100, 255)
    cosines = np.cos(np.pi / 8 * np.outer(np.arange(8), np.arange(8) + 0.5)) / 2
    cosines[0] /= math.sqrt(2)
    blocks = found.reshape(side // 8, 8, side // 8, 8).transpose(0, 2, 1, 3)
    kept = (cosines @ blocks @ cosines.T)[:, :, 0]
    assert np.quantile(np.abs(kept - steps * np.rint(kept / steps)), 0.97) < 1  # but where black or white cuts it off
    assert np.rint(kept / steps)[:, :, 1:3].any()


def test_jpeg_stores_colours_with_half_the_rows_and_columns() -> None:
    """A chequered image keeps its light, not its colours."""
    white = np.indices((32, 32)).sum(0) % 2
    light = np.stack([100 + 60 * white] * 3).astype(np.uint8)
    colour = np.stack((100 + 60 * white, np.full_like(white, 130), 160 - 60 * white)).astype(np.uint8)
    assert corrupted(light, "JPEG compression", 1, 0, 0).std() > 25
    red, _, blue = corrupted(colour, "JPEG compression", 1, 0, 0).astype(int)
    assert (red - blue).std() < 6 < 50 < (colour[0].astype(int) - colour[2]).std()
