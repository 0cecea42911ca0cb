import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import image_files
from datamodules.errors import DataError
from datamodules.image_files import parse_image, read_image

RAMP = (np.arange(6, dtype=np.uint8).reshape(2, 3) * 50).copy()  # 0, 50, ..., 250 in two rows
LOSSLESS = ["PNG", "BMP", "GIF", "TIFF"]


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(image, kind="PNG", **options):
    return parse_image(encoded(image, kind, **options), "picture").tolist()


def picture(values, mode):
    """One row of pixels."""
    image = Image.new(mode, (len(values), 1))
    image.putdata(values)
    return image


def png_chunk(kind, contents):
    return struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", zlib.crc32(kind + contents))


def png(width, height, rows, *, bits=8, colour=0, extra=b""):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


# What is read.


@pytest.mark.parametrize("kind", LOSSLESS)
def test_grey_values_are_those_of_the_file(kind, tmp_path):
    path = tmp_path / "picture"
    path.write_bytes(encoded(Image.fromarray(RAMP), kind))
    for name in (path, str(path)):
        values = read_image(name)
        assert (values.dtype, values.shape) == (torch.uint8, (2, 3))
        assert values.tolist() == RAMP.tolist()


def test_lossless_webp_is_read_exactly():
    assert grey(Image.fromarray(RAMP).convert("RGB"), "WEBP", lossless=True) == RAMP.tolist()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_pictures_are_nearly_those_that_were_saved(kind):
    smooth = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.uint8)
    values = np.array(grey(Image.fromarray(smooth).convert("RGB"), kind, quality=95))
    assert np.abs(values - smooth.astype(int)).mean() < 2


@pytest.mark.parametrize(("colour", "luma"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29)])
def test_colours_become_their_luma(colour, luma):
    assert grey(picture([colour], "RGB")) == [[luma]]
    assert grey(picture([colour], "RGB").quantize(2)) == [[luma]]


def test_cmyk_is_read_as_colours():
    white, red, black = (0, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255)
    assert grey(picture([white, red, black], "CMYK"), "TIFF") == [[255, 76, 0]]


def test_bits_are_black_and_white():
    assert grey(picture([0, 255, 255], "1")) == [[0, 255, 255]]


def test_what_is_transparent_lies_on_white():
    assert grey(picture([(0, 0), (0, 255), (100, 51)], "LA")) == [[255, 0, 224]]
    assert grey(picture([(255, 0, 0, 0), (255, 0, 0, 255)], "RGBA")) == [[255, 76]]
    assert grey(picture([(255, 0, 0, 0), (0, 0, 0, 255)], "RGBA"), "WEBP", lossless=True) == [[255, 0]]


def test_light_strokes_on_nothing_lie_on_black():
    clear, stroke, half = (255, 255, 255, 0), (255, 255, 255, 255), (255, 255, 255, 128)
    assert grey(picture([clear, clear, stroke, half], "RGBA")) == [[0, 0, 255, 128]]
    assert grey(picture([clear, clear, (250, 250, 250, 255)], "RGBA")) == [[0, 0, 250]]
    assert grey(picture([clear, stroke, stroke, stroke], "RGBA")) == [[255] * 4]  # a blank sheet, not a black corner
    assert grey(picture([clear, clear, (90, 90, 90, 255)], "RGBA")) == [[255, 255, 90]]


def test_colour_that_stands_for_transparency_lies_on_white():
    assert grey(picture([7, 8], "L"), transparency=7) == [[255, 8]]
    assert grey(picture([(1, 2, 3), (0, 0, 0)], "RGB"), transparency=(1, 2, 3)) == [[255, 0]]
    assert grey(picture([(255, 0, 0), (0, 0, 0)], "RGB").quantize(2), "GIF", transparency=0) in (
        [[255, 0]],
        [[76, 255]],
    )


def test_sixteen_bits_are_scaled_to_eight():
    values = np.array([[0, 128, 129, 257, 32_768, 65_407, 65_535]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        assert grey(Image.fromarray(values), kind) == [[0, 0, 1, 1, 128, 255, 255]]


def test_sixteen_bit_value_that_stands_for_transparency_is_white():
    rows = b"\0" + struct.pack(">HH", 300, 301)
    contents = png(2, 1, rows, bits=16, extra=png_chunk(b"tRNS", struct.pack(">H", 300)))
    assert parse_image(contents, "picture").tolist() == [[255, 1]]


# How each orientation is stored, for the picture that a viewer is to show.
STORED = {
    1: lambda shown: shown,
    2: np.fliplr,
    3: lambda shown: np.rot90(shown, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda shown: np.rot90(shown, 1),
    7: lambda shown: np.rot90(shown.T, 2),
    8: lambda shown: np.rot90(shown, -1),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_orientation_is_applied(orientation, kind):
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](RAMP)))
    options = {"lossless": True} if kind == "WEBP" else {}
    assert grey(stored.convert("RGB"), kind, exif=exif, **options) == RAMP.tolist()


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_orientation_that_is_none_is_ignored(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    assert grey(Image.fromarray(RAMP), exif=exif) == RAMP.tolist()


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG"])
def test_first_frame_is_read(kind):
    other = Image.fromarray(255 - RAMP)
    assert grey(Image.fromarray(RAMP), kind, save_all=True, append_images=[other]) == RAMP.tolist()


# What is refused.


@pytest.mark.parametrize("kind", [*LOSSLESS, "JPEG", "WEBP"])
def test_truncated_picture_is_refused_by_name(kind):
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    contents = encoded(Image.fromarray(noise), kind)
    for share in (0.0, 0.05, 0.5, 0.9):
        with pytest.raises(DataError, match="some/picture"):
            parse_image(contents[: int(share * len(contents))], "some/picture")


@pytest.mark.parametrize("kind", ["PPM", "TGA", "ICO", "SGI", "PCX", "EPS", "PDF"])
def test_other_formats_are_not_tried(kind):
    with pytest.raises(DataError, match="no picture that can be read: it is damaged, or none of PNG, JPEG, BMP"):
        parse_image(encoded(Image.fromarray(RAMP), kind), "picture")


@pytest.mark.parametrize("contents", [b"", b"\0" * 100, b"<svg></svg>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"SIMPLE  ="])
def test_what_is_no_picture_is_refused(contents):
    with pytest.raises(DataError, match="picture is no picture that can be read"):
        parse_image(contents, "picture")


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_without_a_white_are_refused(mode):
    with pytest.raises(DataError, match="32-bit values, for which no white is defined"):
        parse_image(encoded(picture([1, 2], mode), "TIFF"), "picture")


@pytest.mark.parametrize(("tag", "value"), [(258, 12), (262, 0)])
def test_unusual_sixteen_bits_are_refused(tag, value):
    contents = bytearray(encoded(Image.fromarray(RAMP.astype(np.uint16)), "TIFF"))
    entry = contents.index(struct.pack("<HHI", tag, 3, 1))
    contents[entry + 8 : entry + 10] = struct.pack("<H", value)
    with pytest.raises(DataError, match="12-bit values, or 16-bit values whose zero is white"):
        parse_image(bytes(contents), "picture")


def gif(width, height):
    contents = bytearray(encoded(Image.fromarray(RAMP), "GIF"))
    contents[6:10] = struct.pack("<HH", width, height)
    return bytes(contents)


def bmp(width, height):
    contents = bytearray(encoded(Image.fromarray(RAMP), "BMP"))
    contents[18:26] = struct.pack("<ii", width, height)
    return bytes(contents)


def tiff(width, height):
    contents = encoded(Image.fromarray(RAMP), "TIFF")
    for tag, old, new in ((256, 3, width), (257, 2, height)):
        contents = contents.replace(struct.pack("<HHII", tag, 4, 1, old), struct.pack("<HHII", tag, 4, 1, new))
        contents = contents.replace(struct.pack("<HHIHH", tag, 3, 1, old, 0), struct.pack("<HHII", tag, 4, 1, new))
    return contents


def jpeg(width, height):
    contents = bytearray(encoded(Image.fromarray(RAMP), "JPEG"))
    size = contents.index(b"\xff\xc0") + 5
    contents[size : size + 4] = struct.pack(">HH", height, width)
    return bytes(contents)


def webp_animation(width, height):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    contents = bytearray(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    contents[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(contents)


def webp_lossless(width, height):
    contents = bytearray(encoded(Image.new("RGB", (4, 4)), "WEBP", lossless=True))
    contents[21:25] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    return bytes(contents)


def webp_lossy(width, height):
    contents = bytearray(encoded(Image.new("RGB", (4, 4)), "WEBP"))
    contents[26:30] = struct.pack("<HH", width, height)
    return bytes(contents)


def png_of(width, height):
    return png(width, height, bytes(100))


@pytest.mark.parametrize("make", [png_of, gif, bmp, tiff, jpeg, webp_animation, webp_lossless, webp_lossy])
@pytest.mark.parametrize(("width", "height"), [(8_001, 8_000), (16_383, 16_383)])
def test_pictures_of_too_many_pixels_are_refused_before_they_are_decoded(make, width, height, monkeypatch):
    def decode(_):
        raise AssertionError

    contents = make(width, height)
    monkeypatch.setattr(Image.Image, "load", decode)
    with pytest.raises(DataError, match=r"picture has .*more than 64,000,000"):
        parse_image(contents, "picture")


def test_progressive_jpeg_of_endless_scans_is_refused():
    image = Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64))
    contents = encoded(image, "JPEG", progressive=True)
    assert parse_image(contents, "picture").shape == (64, 64)
    last_scan = contents[contents.rindex(b"\xff\xda") : -2]
    with pytest.raises(DataError, match="more than 100 scans"):
        parse_image(contents[:-2] + last_scan * 101 + contents[-2:], "picture")


def test_file_that_is_too_large_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "MAX_FILE_SIZE", 1000)
    (tmp_path / "large.png").write_bytes(bytes(1001))
    with pytest.raises(DataError, match=r"large\.png cannot be read: it is larger than 1,000 bytes"):
        read_image(tmp_path / "large.png")


def test_what_is_no_file_is_refused_by_name(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, told in [("none.png", "No such file"), ("", "not a regular"), ("pipe", "not a regular")]:
        with pytest.raises(DataError, match=rf"cannot be read: (?i:.*{told})"):
            read_image(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read"):
        read_image("nul\0nul")


def test_text_in_a_picture_is_bounded():
    bomb = png_chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(100_000_000)))
    with pytest.raises(DataError, match=r"picture is damaged: .*too large"):
        parse_image(png(1, 1, b"\0\7", extra=bomb), "picture")
