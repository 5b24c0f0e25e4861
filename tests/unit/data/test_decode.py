"""Every format and kind of pixel has one rule; nothing but images is opened, and none is unpacked that is too large."""

import contextlib
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from fixtures.image_files import write_image
from PIL import Image, features

from floats_edge.data.decode import DamagedError, decode, pillow_heeded

RAMP = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
"""Colours that a lossy format keeps to within a few grey levels."""


def pixels(file: Path) -> np.ndarray:
    """The image as ``[H, W, C]``, as Pillow has it."""
    with pillow_heeded():
        return np.asarray(decode(file))


def one(file: Path) -> list[int]:
    """The colour of an image of one pixel."""
    (colour,) = pixels(file).reshape(-1, 3).tolist()
    return colour


class TestFormats:
    @pytest.mark.parametrize(
        "name", ["a.png", "a.PNG", "a.bmp", "a.DIB", "a.tif", "a.TIFF", "a.ppm", "a.pnm", "a.tga", "a.qoi", "a.pcx"]
    )
    def test_lossless(self, name: str, tmp_path: Path) -> None:
        if name == "a.qoi":
            (tmp_path / name).write_bytes(b"qoif" + struct.pack(">IIBB", 1, 1, 3, 0) + b"\xfe\x0a\x14\x1e" + b"\0" * 8)
            if "QOI" in Image.OPEN:
                assert one(tmp_path / name) == [10, 20, 30]
            return
        Image.fromarray(RAMP).save(tmp_path / name)
        np.testing.assert_array_equal(pixels(tmp_path / name), RAMP)

    @pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.jfif", "a.jpe", "a.webp", "a.WebP", "a.jp2", "a.avif"])
    def test_lossy(self, name: str, tmp_path: Path) -> None:
        feature = {".webp": "webp", ".jp2": "jpg_2000", ".avif": "avif"}.get(Path(name).suffix.lower(), "jpg")
        if feature not in features.modules | features.codecs or not features.check(feature):
            pytest.skip(f"this Pillow reads no {feature}")
        large = np.kron(RAMP, np.ones((4, 4, 1), dtype=np.uint8))
        Image.fromarray(large).save(tmp_path / name, quality=95)
        assert np.abs(pixels(tmp_path / name).astype(int) - large).mean() < 8

    def test_the_first_of_several_images(self, tmp_path: Path) -> None:
        red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
        for name in ("a.gif", "a.tif", "a.webp", "a.png"):
            red.save(
                tmp_path / name, save_all=True, append_images=[blue], **({"lossless": True} if "w" in name else {})
            )
            assert (pixels(tmp_path / name) == (255, 0, 0)).all(), name
        red.save(tmp_path / "a.mpo", save_all=True, append_images=[blue])
        assert np.abs(pixels(tmp_path / "a.mpo").astype(int) - (255, 0, 0)).max() < 4

    def test_content_decides_whatever_the_file_is_called(self, tmp_path: Path) -> None:
        Image.fromarray(RAMP).save(tmp_path / "a.png")
        (tmp_path / "a.png").rename(tmp_path / "a.jpg")
        np.testing.assert_array_equal(pixels(tmp_path / "a.jpg"), RAMP)


class TestPixels:
    """The table at the top of decode.py, row by row."""

    @pytest.mark.parametrize(("mode", "value", "wanted"), [("L", 77, 77), ("1", 0, 0), ("1", 1, 255)])
    def test_grey(self, mode: str, value: int, wanted: int, tmp_path: Path) -> None:
        Image.new(mode, (1, 1), value).save(tmp_path / "a.png")
        assert one(tmp_path / "a.png") == [wanted] * 3

    def test_palette(self, tmp_path: Path) -> None:
        image = Image.new("P", (1, 1), 1)
        image.putpalette([1, 2, 3, 40, 50, 60])
        image.save(tmp_path / "a.png")
        assert one(tmp_path / "a.png") == [40, 50, 60]
        image.save(tmp_path / "b.png", transparency=1)
        assert one(tmp_path / "b.png") == [255, 255, 255]

    @pytest.mark.parametrize(
        ("mode", "colour", "wanted"),
        [
            ("RGBA", (200, 100, 50, 255), [200, 100, 50]),
            ("RGBA", (200, 100, 50, 0), [255, 255, 255]),
            ("RGBA", (0, 100, 200, 51), [204, 224, 244]),
            ("LA", (100, 255), [100, 100, 100]),
            ("LA", (100, 0), [255, 255, 255]),
        ],
    )
    def test_alpha_is_laid_over_white(
        self, mode: str, colour: tuple[int, ...], wanted: list[int], tmp_path: Path
    ) -> None:
        Image.new(mode, (1, 1), colour).save(tmp_path / "a.png")
        assert one(tmp_path / "a.png") == wanted

    @pytest.mark.parametrize(("mode", "colour"), [("L", 9), ("RGB", (9, 9, 9))])
    def test_a_transparent_colour_is_white(self, mode: str, colour: int | tuple[int, ...], tmp_path: Path) -> None:
        Image.new(mode, (1, 1), colour).save(tmp_path / "a.png", transparency=colour)
        assert one(tmp_path / "a.png") == [255, 255, 255]

    def test_cmyk(self, tmp_path: Path) -> None:
        Image.new("CMYK", (1, 1), (0, 255, 255, 0)).save(tmp_path / "a.tif")
        assert one(tmp_path / "a.tif") == [255, 0, 0]
        Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
        assert np.abs(pixels(tmp_path / "a.jpg").astype(int) - (255, 0, 0)).max() < 6

    @pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
    def test_sixteen_bits_of_grey(self, name: str, tmp_path: Path) -> None:
        Image.fromarray(np.array([[0, 255, 256, 40_000, 65_535]], dtype=np.uint16)).save(tmp_path / name)
        assert pixels(tmp_path / name)[0, :, 0].tolist() == [0, 0, 1, 156, 255]

    def test_sixteen_bits_of_colour(self, tmp_path: Path) -> None:
        def chunk(kind: bytes, content: bytes) -> bytes:
            return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

        header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
        content = zlib.compress(b"\0" + struct.pack(">HHH", 255, 40_000, 65_535))
        blocks = chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + blocks)
        assert one(tmp_path / "a.png") == [0, 156, 255]

    def test_32_bit_integers(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[0, 40_000]], dtype=np.int32)).save(tmp_path / "a.tif")
        assert pixels(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 156]
        for value in (-1, 70_000):
            Image.fromarray(np.array([[0, value]], dtype=np.int32)).save(tmp_path / "a.tif")
            with pytest.raises(DamagedError, match="integers outside 0 to 65535"):
                pixels(tmp_path / "a.tif")

    def test_floating_point(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32)).save(tmp_path / "a.tif")
        assert pixels(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 128, 255]
        for value in (-0.1, 1.5, np.nan, np.inf):
            Image.fromarray(np.array([[0, value]], dtype=np.float32)).save(tmp_path / "a.tif")
            with pytest.raises(DamagedError, match="floating-point numbers outside 0"):
                pixels(tmp_path / "a.tif")

    @pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_orientation(self, orientation: int, name: str, tmp_path: Path) -> None:
        """Held as a viewer holds them, all eight are the picture whose upper left quarter alone is white."""
        upright = np.zeros((16, 32, 3), dtype=np.uint8)
        upright[:8, :16] = 255
        turned = {
            1: upright,
            2: upright[:, ::-1],
            3: upright[::-1, ::-1],
            4: upright[::-1],
            5: upright.transpose(1, 0, 2),
            6: np.rot90(upright, 1),
            7: np.rot90(upright.transpose(1, 0, 2), 2),
            8: np.rot90(upright, -1),
        }[orientation]
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / name, exif=exif, quality=100, lossless=True)
        found = pixels(tmp_path / name)
        assert found.shape == upright.shape
        assert np.abs(found.astype(int) - upright).max() < 20

    def test_an_orientation_that_cannot_be_read(self, tmp_path: Path) -> None:
        for number, exif in enumerate((b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*")):
            Image.new("RGB", (8, 6)).save(tmp_path / f"{number}.jpg", exif=exif)
            assert pixels(tmp_path / f"{number}.jpg").shape == (6, 8, 3)


class TestHostile:
    def refused(self, file: Path, message: str) -> None:
        with pytest.raises(DamagedError, match=message):
            pixels(file)

    def test_what_is_no_image(self, tmp_path: Path) -> None:
        for content, message in (
            (b"", "it is empty"),
            (b"<!DOCTYPE html><html>404</html>", "no image of a format that is read"),
            (b"\0" * 1000, "no image of a format that is read"),
        ):
            (tmp_path / "a.jpg").write_bytes(content)
            self.refused(tmp_path / "a.jpg", message)
            (tmp_path / "a.tga").write_bytes(content)
            self.refused(tmp_path / "a.tga", message)

    @pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tif", "a.gif", "a.ppm", "a.tga"])
    def test_truncated_or_altered(self, name: str, tmp_path: Path) -> None:
        file = write_image(tmp_path / name, size=(32, 32))
        whole = file.read_bytes()
        for length in range(0, len(whole) // 2, 7):
            file.write_bytes(whole[:length])
            with pytest.raises(DamagedError):
                pixels(file)
        random = np.random.default_rng(0)
        for _ in range(200):
            altered = bytearray(whole)
            for position in random.integers(0, min(len(whole), 200), 4):
                altered[position] = random.integers(256)
            file.write_bytes(altered)
            with contextlib.suppress(DamagedError):
                assert pixels(file).shape[2] == 3

    def test_postscript_starts_no_program(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("Popen", "run", "check_call", "check_output"):
            monkeypatch.setattr(subprocess, name, lambda *_, **__: pytest.fail("a program was started"))
        text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
        for name in ("a.jpg", "a.eps"):
            (tmp_path / name).write_bytes(text)
            self.refused(tmp_path / name, "no image of a format that is read")

    @pytest.mark.parametrize("pixels", [90_000_000, 1_000_000_000])
    def test_a_bomb_is_refused_before_it_is_unpacked(self, pixels: int, tmp_path: Path) -> None:
        """On both sides of where Pillow begins to raise an error of its own."""
        (tmp_path / "a.ppm").write_bytes(b"P6 10000 %d 255\n" % (pixels // 10_000))
        self.refused(tmp_path / "a.ppm", "pixels")
        program = f"""
import resource
from pathlib import Path
from floats_edge.data.decode import DamagedError, decode, pillow_heeded
import PIL.Image

PIL.Image.init()
resource.setrlimit(resource.RLIMIT_DATA, (200 << 20, 200 << 20))
try:
    with pillow_heeded():
        decode(Path({str(tmp_path / "a.ppm")!r}))
except DamagedError as error:
    print(error)
"""
        done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=True)
        assert "pixels" in done.stdout
        assert done.stderr == ""

    def test_what_is_not_a_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.jpg")
        (tmp_path / "zero.jpg").symlink_to("/dev/zero")
        (tmp_path / "folder.jpg").mkdir()
        for name in ("pipe.jpg", "zero.jpg", "folder.jpg"):
            self.refused(tmp_path / name, "not a file")
        (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
        self.refused(tmp_path / "gone.jpg", "No such file")
        (tmp_path / "loop.jpg").symlink_to("loop.jpg")
        self.refused(tmp_path / "loop.jpg", "symbolic links")
