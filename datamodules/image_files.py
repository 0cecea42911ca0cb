"""Pictures from files of any origin, as grey values: bounded in memory and time, and refused with a sentence.

Only the ordinary formats are tried, none that would start another program. Nothing is decoded before the picture's size
is known to be reasonable, and a truncated or damaged picture is an error rather than half a picture.
"""

from __future__ import annotations

import io
import os
import warnings
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFile, ImageStat, UnidentifiedImageError
from torch import Tensor

from datamodules.atomic import read_bounded
from datamodules.errors import DataError

IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
MAX_PIXELS = 64_000_000
MAX_FILE_SIZE = 256 * 1024 * 1024

# Each scan of a progressive JPEG goes over the whole picture again, however few bytes it has; cameras write about ten.
_MAX_JPEG_SCANS = 100
_START_OF_SCAN = b"\xff\xda"

_LEAST_RANGE, _MOSTLY_TRANSPARENT = 20, 128  # grey levels; of 255, the mean opacity

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION = 258, 262, 274  # tags of TIFF, of which EXIF is a part
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: str | PathLike[str]) -> Tensor:
    """The grey values of the picture in a file.

    Args:
        path: a PNG, JPEG, BMP, GIF, WebP or TIFF file of at most 256 MiB and 64 million pixels.

    Returns:
        uint8 ``(height, width)``, 0 for black and 255 for white, as a viewer would show it:

        - colours (also of a palette, or CMYK) become their luma, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601);
        - what is transparent lies on white, or on black where most of it is and nothing can be seen on white;
        - the orientation in EXIF is applied;
        - of several frames or pages there is the first;
        - 16-bit grey is divided by 257 and rounded, and 16-bit colours keep their upper byte.

    Raises:
        DataError: the file cannot be read, is none of these, is damaged or truncated, is larger than the bounds, or
            holds values without a defined range (floating point, 32-bit integers).
    """
    local = Path(path)
    try:
        contents = read_bounded(local, MAX_FILE_SIZE)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DataError(f"{local} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return parse_image(contents, os.fspath(local))


def parse_image(contents: bytes, name: str) -> Tensor:
    """The grey values of the picture in the bytes of a file; see :func:`read_image`.

    Args:
        contents: the whole file.
        name: what to call it in an error.

    Raises:
        DataError: they cannot be had.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sloppy metadata, or a size that is checked below
            return _decode(contents, name)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        formats = ", ".join(IMAGE_FORMATS)
        raise DataError(f"{name} is no picture that can be read: it is damaged, or none of {formats}") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{name} has more than {MAX_PIXELS:,} pixels: make it smaller") from error
    except MemoryError as error:
        raise DataError(f"{name} takes more memory than there is: make it smaller") from error
    except Exception as error:  # Pillow's decoders raise a dozen different types
        raise DataError(f"{name} is damaged: {str(error) or type(error).__name__}") from error


def _decode(contents: bytes, name: str) -> Tensor:
    _check_header(contents, name)
    with Image.open(io.BytesIO(contents), formats=IMAGE_FORMATS) as image:
        _check_size(image.size, name)
        if 0 in image.size:
            raise DataError(f"{name} is damaged: it has no pixels")
        _check_values(image, name)
        image.load()
        orientation = image.getexif().get(_ORIENTATION)
        upright = image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image
        values = _sixteen_bit_grey(upright) if upright.mode in _SIXTEEN_BITS else np.array(_grey(upright))
    return torch.from_numpy(values)


def _check_header(contents: bytes, name: str) -> None:
    """What decoders do not check before they ask for memory or time."""
    if contents[:2] == b"\xff\xd8" and contents.count(_START_OF_SCAN) > _MAX_JPEG_SCANS:
        raise DataError(f"{name} is a JPEG of more than {_MAX_JPEG_SCANS} scans: save it again as an ordinary one")
    if contents[:4] == b"RIFF" and contents[8:12] == b"WEBP":
        _check_size(_webp_size(contents), name)


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise DataError(f"{name} has {width}x{height} pixels, more than {MAX_PIXELS:,}: make it smaller")


def _webp_size(contents: bytes) -> tuple[int, int]:
    """Width and height in the header of a WebP file (RFC 9649), or zeros."""

    def number(start: int, stop: int) -> int:
        return int.from_bytes(contents[start:stop], "little")

    kind, fourteen_bits = contents[12:16], 0x3FFF
    if kind == b"VP8X":
        return number(24, 27) + 1, number(27, 30) + 1
    if kind == b"VP8L":
        return (number(21, 25) & fourteen_bits) + 1, (number(21, 25) >> 14 & fourteen_bits) + 1
    if kind == b"VP8 ":
        return number(26, 28) & fourteen_bits, number(28, 30) & fourteen_bits
    return 0, 0


def _check_values(image: ImageFile.ImageFile, name: str) -> None:
    """Refuse values of which it is not known, or Pillow does not say, what black and white are."""
    if image.mode in ("I", "F"):
        raise DataError(f"{name} holds 32-bit values, for which no white is defined: save it with 8 or 16 bits")
    tags = getattr(image, "tag_v2", {})
    plain = tags.get(_BITS_PER_SAMPLE, (16,)) == (16,) and tags.get(_PHOTOMETRIC, 1) == 1
    if image.mode in _SIXTEEN_BITS and not plain:
        raise DataError(f"{name} holds 12-bit values, or 16-bit values whose zero is white: save it with 8 bits")


def _sixteen_bit_grey(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    values = np.asarray(image).astype(np.uint32)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        values[values == transparent] = 65_535
    return ((values + 128) // 257).astype(np.uint8)


def _grey(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        return _on_ground(image.convert("RGBA"))
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB").convert("L")


def _on_ground(image: Image.Image) -> Image.Image:
    """A picture with an alpha channel on white; on black if that shows what on white is lost, such as white strokes."""

    def on(ground: str) -> Image.Image:
        return Image.alpha_composite(Image.new("RGBA", image.size, ground), image).convert("L")

    on_white = on("white")
    contrast = int(np.ptp(np.array(on_white)))
    is_mostly_transparent = ImageStat.Stat(image.getchannel("A")).mean[0] < _MOSTLY_TRANSPARENT
    return on("black") if contrast < _LEAST_RANGE and is_mostly_transparent else on_white
