"""Sizes, crops and grey levels are exactly those that the table of preprocessing.py states."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from floats_edge.errors import DataError
from floats_edge.images import array_images
from floats_edge.preprocessing import (
    LARGEST_SIDE,
    Preprocessing,
    ResolvedPreprocessing,
    crop_offset,
    leaves_alone,
    preprocessed,
    scaled_size,
)

SIZES = ((1, 1), (1, 9), (9, 1), (2, 97), (31, 30), (48, 64), (64, 48), (101, 67), (67, 101), (8, 300))
"""Heights and widths of images."""


def chosen(**choices: object) -> Preprocessing:
    return Preprocessing.model_validate(choices)


def noise(height: int, width: int, *channels: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, *channels), dtype=np.uint8)


class TestSizes:
    sides = st.integers(1, 3000)

    @given(sides, sides, st.integers(1, 300), st.integers(1, 300), st.integers(0, 40))
    def test_short_side_covers_as_little_as_it_can(self, h: int, w: int, down: int, across: int, more: int) -> None:
        box = (down + more, across + more)
        scaled = scaled_size((h, w), chosen(size=[down, across], resize_size=box))
        assert scaled[0] >= box[0]
        assert scaled[1] >= box[1]
        assert scaled[0] == box[0] or scaled[1] == box[1]
        factor = max(box[0] / h, box[1] / w)
        assert scaled[0] == pytest.approx(h * factor, abs=1)
        assert scaled[1] == pytest.approx(w * factor, abs=1)
        for first, have, want in zip(crop_offset(scaled, (down, across)), scaled, (down, across), strict=True):
            assert 0 <= first <= have - want
            assert abs(first - (have - want - first)) <= 1

    @given(sides, sides, st.integers(1, 300), st.integers(0, 40))
    def test_short_side_is_torchvision_s(self, h: int, w: int, size: int, more: int) -> None:
        from torchvision.transforms.v2.functional._geometry import (
            _center_crop_compute_crop_anchor,
            _compute_resized_output_size,
        )

        scaled = scaled_size((h, w), chosen(size=size, resize_size=size + more))
        assert list(scaled) == _compute_resized_output_size((h, w), [size + more])
        assert crop_offset(scaled, (size, size)) == _center_crop_compute_crop_anchor(size, size, *scaled)

    @given(sides, sides, st.integers(1, 300), st.integers(1, 300))
    def test_pad_fits_as_largely_as_it_can(self, h: int, w: int, down: int, across: int) -> None:
        scaled = scaled_size((h, w), chosen(size=[down, across], resize="pad"))
        assert 1 <= scaled[0] <= down
        assert 1 <= scaled[1] <= across
        assert scaled[0] == down or scaled[1] == across
        factor = min(down / h, across / w)
        assert scaled[0] == pytest.approx(max(1, h * factor), abs=1)
        assert scaled[1] == pytest.approx(max(1, w * factor), abs=1)

    def test_the_table_by_example(self) -> None:
        def scaled(h: int, w: int, **choices: object) -> tuple[int, int]:
            return scaled_size((h, w), chosen(**choices))

        assert scaled(480, 641, size=96) == (96, 128)  # 128.2
        assert scaled(641, 480, size=96) == (128, 96)
        assert scaled(480, 640, size=224, resize_size=256) == (256, 341)  # 341.33
        assert scaled(480, 640, size=[96, 160]) == (120, 160)
        assert scaled(480, 640, size=[96, 160], resize="squash") == (96, 160)
        assert scaled(480, 640, size=[96, 160], resize="pad") == (96, 128)
        assert scaled(1, 1000, size=96, resize="pad") == (1, 96)
        assert scaled(480, 640) == (480, 640)
        assert [crop_offset((n, 8), (8, 8))[0] for n in (8, 9, 10, 11, 12, 13)] == [0, 0, 1, 2, 2, 2]


class TestAntialiased:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize(("resize_size", "crop"), [(32, 32), (32, 27), (33, 32), (7, 1), (64, 33)])
    @pytest.mark.parametrize("mode", ["RGB", "L"])
    def test_short_side_is_torchvision_s_bit_for_bit(
        self, size: tuple[int, int], resize_size: int, crop: int, mode: str
    ) -> None:
        from torchvision.transforms import v2

        image = Image.fromarray(noise(*size, 3)).convert(mode)
        wanted = v2.Compose([v2.Resize(resize_size), v2.CenterCrop(crop)])(image)
        found = preprocessed(image, chosen(size=crop, resize_size=resize_size))
        np.testing.assert_array_equal(found.transpose(1, 2, 0), np.asarray(wanted).reshape(crop, crop, -1))

    @pytest.mark.parametrize("size", SIZES)
    def test_squash_is_pillow_s(self, size: tuple[int, int]) -> None:
        image = Image.fromarray(noise(*size, 3))
        wanted = np.asarray(image.resize((21, 30), Image.Resampling.BILINEAR))
        found = preprocessed(image, chosen(size=[30, 21], resize="squash"))
        np.testing.assert_array_equal(found.transpose(1, 2, 0), wanted)

    @pytest.mark.parametrize(("size", "wanted"), [((104, 30), (96, 65)), ((30, 104), (65, 96)), ((100, 40), (10, 30))])
    def test_it_goes_along_the_rows_first_whatever_pillow_prefers(
        self, size: tuple[int, int], wanted: tuple[int, int]
    ) -> None:
        image = Image.fromarray(noise(*size, 3))
        narrow = image.resize((wanted[1], size[0]), Image.Resampling.BILINEAR)
        found = preprocessed(image, chosen(size=wanted, resize="squash"))
        expected = np.asarray(narrow.resize((wanted[1], wanted[0]), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(found.transpose(1, 2, 0), expected)


def two_taps(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear interpolation with half-pixel centres, pixel by pixel: OpenCV's INTER_LINEAR, before it rounds."""
    result = np.zeros((height, width, image.shape[2]))
    for row, column in itertools.product(range(height), range(width)):
        y = min(max((row + 0.5) * image.shape[0] / height - 0.5, 0), image.shape[0] - 1)
        x = min(max((column + 0.5) * image.shape[1] / width - 0.5, 0), image.shape[1] - 1)
        top, left = math.floor(y), math.floor(x)
        bottom, right = min(top + 1, image.shape[0] - 1), min(left + 1, image.shape[1] - 1)
        upper = image[top, left] * (1 - (x - left)) + image[top, right] * (x - left)
        lower = image[bottom, left] * (1 - (x - left)) + image[bottom, right] * (x - left)
        result[row, column] = upper * (1 - (y - top)) + lower * (y - top)
    return result


class TestTwoTaps:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("wanted", [(16, 16), (40, 23), (1, 1)])
    def test_it_is_bilinear_to_within_one_grey_level(self, size: tuple[int, int], wanted: tuple[int, int]) -> None:
        image = noise(*size, 3)
        found = preprocessed(image, chosen(size=wanted, resize="squash", antialias=False)).transpose(1, 2, 0)
        assert np.abs(found - two_taps(image.astype(float), *wanted)).max() <= 1

    @pytest.mark.parametrize("size", SIZES)
    def test_what_is_cropped_is_a_part_of_the_whole(self, size: tuple[int, int]) -> None:
        image = noise(*size, 3)
        rule = chosen(size=[5, 4], resize_size=12, antialias=False)
        scaled = scaled_size(size, rule)
        top, left = crop_offset(scaled, (5, 4))
        whole = preprocessed(image, chosen(size=scaled, resize="squash", antialias=False))
        np.testing.assert_array_equal(preprocessed(image, rule), whole[:, top : top + 5, left : left + 4])

    def test_a_large_step_takes_two_pixels_and_no_mean(self) -> None:
        stripes = np.tile(np.array([0, 0, 0, 255], dtype=np.uint8), (8, 4))
        assert preprocessed(stripes, chosen(size=[8, 4], resize="squash", antialias=False)).max() == 0
        assert preprocessed(stripes, chosen(size=[8, 4], resize="squash")).min() > 30

    def test_halves_are_rounded_up(self) -> None:
        image = np.array([[10, 13]], dtype=np.uint8)
        assert preprocessed(image, chosen(size=1, resize="squash", antialias=False)).tolist() == [[[12]]]


class TestPad:
    @pytest.mark.parametrize("antialias", [True, False])
    @pytest.mark.parametrize(("size", "rows", "columns"), [((50, 20), (0, 25), (7, 17)), ((20, 50), (7, 17), (0, 25))])
    def test_portrait_and_landscape(
        self, size: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int], antialias: bool
    ) -> None:
        image = np.maximum(noise(*size, 3), 1)
        found = preprocessed(image, chosen(size=25, resize="pad", antialias=antialias))
        part = found[:, slice(*rows), slice(*columns)]
        height, width = part.shape[1:]
        inside = chosen(size=[height, width], resize="squash", antialias=antialias)
        np.testing.assert_array_equal(part, preprocessed(image, inside))
        assert part.min() > 0
        assert (found > 0).sum() == part.size

    def test_what_is_left_over_is_below_and_to_the_right(self) -> None:
        found = preprocessed(np.full((2, 4), 255, dtype=np.uint8), chosen(size=[5, 4], resize="pad"))
        assert found[0, :, 0].tolist() == [0, 255, 255, 0, 0]


class TestColours:
    @pytest.mark.parametrize("resize", ["short-side", "squash", "pad"])
    @pytest.mark.parametrize("antialias", [True, False])
    def test_bgr_is_rgb_the_other_way_round(self, resize: str, antialias: bool) -> None:
        rules = {"size": 16, "resize": resize, "antialias": antialias}
        rgb, bgr = (preprocessed(noise(40, 30, 3), chosen(**rules, colours=colours)) for colours in ("rgb", "bgr"))
        np.testing.assert_array_equal(bgr, rgb[::-1])
        assert not np.array_equal(rgb, bgr)

    def test_grey_by_the_formula(self) -> None:
        image = noise(40, 30, 3)
        red, green, blue = image.astype(int).transpose(2, 0, 1)
        wanted = (19595 * red + 38470 * green + 7471 * blue + 32768) // 65536
        np.testing.assert_array_equal(preprocessed(image, chosen(colours="grey")), wanted[None])

    def test_grey_comes_before_scaling(self) -> None:
        image, rule = noise(40, 30, 3), {"size": 16}
        grey = np.asarray(Image.fromarray(image).convert("L"))
        found = preprocessed(image, chosen(**rule, colours="grey"))
        np.testing.assert_array_equal(found, preprocessed(grey, chosen(**rule)))

    @pytest.mark.parametrize("image", [noise(9, 9), noise(9, 9, 1)], ids=["HW", "HW1"])
    def test_grey_images(self, image: np.ndarray) -> None:
        for found in (preprocessed(image, chosen()), preprocessed(image, chosen(colours="grey"))):
            np.testing.assert_array_equal(found, image.reshape(1, 9, 9))
        for colours in ("rgb", "bgr"):
            found = preprocessed(image, chosen(colours=colours))
            np.testing.assert_array_equal(found, np.repeat(image.reshape(1, 9, 9), 3, 0))


class TestAsTheyAre:
    @pytest.mark.parametrize("resize", ["short-side", "squash", "pad"])
    @pytest.mark.parametrize("antialias", [True, False])
    @pytest.mark.parametrize("size", [None, [20, 30]])
    def test_images_of_the_size_that_is_wanted(self, size: object, resize: str, antialias: bool) -> None:
        image = noise(20, 30, 3)
        rule = chosen(size=size, resize=resize, antialias=antialias)
        for found in (preprocessed(image, rule), preprocessed(Image.fromarray(image), rule)):
            np.testing.assert_array_equal(found, image.transpose(2, 0, 1))
            assert found.flags.c_contiguous

    @given(
        st.sampled_from([(1, 8, 8), (3, 8, 8), (3, 8, 9), (1, 6, 8)]),
        st.sampled_from([None, 8, [8, 9], [6, 8]]),
        st.sampled_from(["short-side", "squash", "pad"]),
        st.sampled_from([None, 10]),
        st.booleans(),
        st.sampled_from([None, "rgb", "bgr", "grey"]),
    )
    def test_arrays_are_passed_over_only_where_nothing_changes(
        self,
        shape: tuple[int, int, int],
        size: object,
        resize: str,
        resize_size: int | None,
        antialias: bool,
        colours: str | None,
    ) -> None:
        if resize_size is not None and (resize != "short-side" or size is None):
            resize_size = None
        rule = chosen(size=size, resize=resize, resize_size=resize_size, antialias=antialias, colours=colours)
        image = noise(*shape[1:], shape[0])
        found = preprocessed(image, rule)
        same = found.shape == shape and bool((found == image.transpose(2, 0, 1)).all())
        assert leaves_alone(shape, rule) == same
        images = array_images(image.transpose(2, 0, 1)[None], np.zeros(1, dtype=np.int64), rule)
        np.testing.assert_array_equal(images.pixels[0], found)
        assert rule.resolved(images.shape).shape == images.shape


class TestResolved:
    def test_what_is_open_is_decided_by_the_images(self) -> None:
        assert Preprocessing().resolved((1, 8, 9)) == ResolvedPreprocessing(size=(8, 9), colours="grey")
        assert Preprocessing().resolved((3, 8, 9)) == ResolvedPreprocessing(size=(8, 9), colours="rgb")
        rule = chosen(size=8, resize="pad", antialias=False, colours="bgr")
        assert rule.resolved((3, 8, 8)).model_dump() == rule.model_dump()
        assert chosen(size=8, colours="grey").resolved((1, 8, 8)).shape == (1, 8, 8)

    def test_it_survives_json(self) -> None:
        rule = chosen(size=[8, 9], resize_size=[10, 12], colours="grey").resolved((1, 8, 9))
        assert ResolvedPreprocessing.model_validate_json(rule.model_dump_json(), strict=True) == rule

    @pytest.mark.parametrize("open_value", ["size", "colours"])
    def test_nothing_stays_open(self, open_value: str) -> None:
        values = Preprocessing().resolved((3, 8, 8)).model_dump()
        for changed in ({**values, open_value: None}, {k: v for k, v in values.items() if k != open_value}):
            with pytest.raises(ValidationError, match=open_value):
                ResolvedPreprocessing.model_validate(changed)

    def test_in_words(self) -> None:
        title = chosen(size=[6, 8]).resolved((3, 6, 8)).title
        assert title == "scaled to cover 8x6 pixels, centre kept; bilinear, antialiased; rgb, values / 255"
        rest = {
            "scaled to cover 9x9 pixels, centre 8x6 kept": {"resize_size": 9},
            "scaled to 8x6 pixels, whatever the proportions": {"resize": "squash"},
            "scaled to fit into 8x6 pixels, centred on black": {"resize": "pad"},
            "bilinear, not antialiased; bgr": {"antialias": False, "colours": "bgr"},
        }
        for words, choices in rest.items():
            assert words in chosen(size=[6, 8], **choices).resolved((3, 6, 8)).title


class TestRefused:
    @pytest.mark.parametrize(
        ("choices", "message"),
        [
            ({"size": 0}, "0 is outside of 1 to 4096 pixels"),
            ({"size": LARGEST_SIDE + 1}, "4097 is outside"),
            ({"size": [8, 10**9]}, "is outside"),
            ({"size": "8x8"}, "neither a number of pixels nor"),
            ({"size": [8, 8, 8]}, "neither a number of pixels nor"),
            ({"size": True}, "neither a number of pixels nor"),
            ({"size": 8.0}, "neither a number of pixels nor"),
            ({"size": 8, "resize_size": 7}, r"resize_size \(7, 7\) needs a size that is no larger"),
            ({"size": [8, 4], "resize_size": [7, 9]}, "needs a size that is no larger"),
            ({"resize_size": 8}, "needs a size that is no larger, not None"),
            ({"size": 8, "resize_size": 9, "resize": "pad"}, "resize: pad reads no resize_size"),
            ({"size": 8, "resize_size": 9, "resize": "squash"}, "resize: squash reads no resize_size"),
            ({"resize": "stretch"}, "short-side"),
            ({"colours": "yuv"}, "grey"),
            ({"scale": 2}, "Extra inputs"),
        ],
    )
    def test_choices(self, choices: dict[str, object], message: str) -> None:
        with pytest.raises(ValidationError, match=message):
            chosen(**choices)

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            (noise(8, 8, 3).astype(np.float32), r"an array of float32 \[8, 8, 3\]"),
            (noise(8, 8, 4), r"an array of uint8 \[8, 8, 4\]"),
            (noise(3, 8, 8), r"an array of uint8 \[3, 8, 8\]"),
            (noise(8, 8, 3)[None], r"an array of uint8 \[1, 8, 8, 3\]"),
            (noise(8, 8)[0], r"an array of uint8 \[8\]"),
            (noise(0, 8, 3), "an image without pixels"),
            (Image.new("P", (8, 8)), "an image of mode P"),
            (Image.new("RGBA", (8, 8)), "an image of mode RGBA"),
        ],
    )
    def test_what_is_no_image(self, image: np.ndarray | Image.Image, message: str) -> None:
        with pytest.raises(DataError, match=message) as error:
            preprocessed(image, chosen(size=8))
        assert "uint8 [height, width, 3], red first" in error.value.fix

    @pytest.mark.parametrize("antialias", [True, False])
    @pytest.mark.parametrize(("size", "resize"), [((1, 60_000), "short-side"), ((60_000, 1), "squash")])
    def test_thin_images_that_would_need_much_memory(self, size: tuple[int, int], resize: str, antialias: bool) -> None:
        image = np.zeros(size, dtype=np.uint8)
        with pytest.raises(DataError, match=r"pixels and is too thin: .* takes more than 89,478,485 pixels") as error:
            preprocessed(image, chosen(size=LARGEST_SIDE, resize=resize, antialias=antialias))
        assert "resize=pad" in error.value.fix
        preprocessed(image, chosen(size=16, resize=resize, antialias=antialias))
        preprocessed(image, chosen(size=1024, resize="pad", antialias=antialias))

    def test_images_as_stored_that_no_network_takes(self) -> None:
        with pytest.raises(DataError, match="an image has 4097x2 pixels") as error:
            preprocessed(np.zeros((2, 4097), dtype=np.uint8), chosen())
        assert "data.preprocessing.size=PIXELS" in error.value.fix
