"""Pictures of a digit from anywhere, brought into the form that MNIST's have.

LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE 86(11), 1998, and the description
of the MNIST database: the glyph is scaled, with anti-aliasing, to fit a box of 20x20 pixels without a change of its
aspect ratio, and lies in a field of 28x28 so that its centre of mass is at the field's centre; light on black.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from datamodules.errors import DataError

Polarity = Literal["dark on light", "light on dark"]

SIZE, _BOX, _CENTRE = 28, 20, 14  # the centre of mass of MNIST's digits is at pixel 14.0, within half a pixel
_MOST_PIXELS = 4_000_000
_NOISE, _LEAST_CUTOFF = 6.0, 8.0  # standard deviations of the background's noise, and grey levels
_LEAST_CONTRAST = 20.0  # grey levels
_EDGE = 0.1  # of full ink: from here on a pixel is a part of the glyph
_SPECK = 0.02  # of all ink: what is apart from the rest and has less is dirt
_GLYPH_INK, _GLYPH_HEIGHT = 0.15, 0.5  # of all ink and of the whole height: from here on a part is a glyph of its own


class DigitImage(NamedTuple):
    """A digit in MNIST's form, and what it was made from."""

    pixels: Tensor
    """uint8 ``(28, 28)``, 0 for the background and 255 for full ink."""
    polarity: Polarity
    """What the picture was."""
    glyphs: int
    """How many glyphs seem to stand side by side; more than one are scaled as if they were one."""


def as_mnist(picture: Tensor) -> DigitImage:
    """A picture of a digit in MNIST's form.

    The level of the background is the median along the picture's border; the ink is on whichever side of it deviates
    more, so dark on light and light on dark are told apart. What does not rise above the background's noise, and specks
    beside the glyph, are left out; contrast is stretched to the whole range. A picture that has MNIST's form already
    comes back nearly unchanged. The background must be even: of a photograph with shadows the shadow may be taken for
    ink.

    Args:
        picture: uint8 ``(height, width)`` of any size, 0 for black, such as :func:`datamodules.image_files.read_image`
            gives it.

    Raises:
        DataError: nothing stands out from the background.
    """
    levels = _reduced(picture).float()
    background, noise = _background(levels)
    deviation = levels - background
    is_light = float(deviation.clamp(min=0).square().sum()) > float(deviation.clamp(max=0).square().sum())
    ink = (deviation if is_light else -deviation).clamp_(min=0)
    ink[ink <= max(_NOISE * noise, _LEAST_CUTOFF)] = 0
    inked = ink[ink > 0]
    # Not the largest value, which may be a single wrong pixel's.
    full = float(inked.kthvalue(math.ceil(0.95 * len(inked))).values) if len(inked) else 0.0
    if full < _LEAST_CONTRAST:
        raise DataError("nothing stands out from the background")
    ink = (ink / full).clamp_(max=1)
    glyph, glyphs = _cut_out(ink)
    return DigitImage(_centred(_boxed(glyph)), "light on dark" if is_light else "dark on light", glyphs)


def _reduced(picture: Tensor) -> Tensor:
    """The picture, averaged over squares of pixels where it is so large that this shows nowhere."""
    factor = math.ceil(math.sqrt(picture.numel() / _MOST_PIXELS))
    if factor <= 1:
        return picture
    smaller = Image.fromarray(picture.numpy()).reduce(factor)
    return torch.frombuffer(bytearray(smaller.tobytes()), dtype=torch.uint8).reshape(smaller.height, smaller.width)


def _background(levels: Tensor) -> tuple[float, float]:
    """Median along the border, and a robust standard deviation about it (1.4826 times the median deviation)."""
    border = torch.cat([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    median = border.median()
    return float(median), 1.4826 * float((border - median).abs().median())


def _cut_out(ink: Tensor) -> tuple[Tensor, int]:
    """The part of a picture with ink, ``(height, width)`` in [0, 1], and the number of glyphs side by side in it."""
    solid = torch.where(ink > _EDGE, ink, 0.0)
    columns = _parts(solid.sum(dim=0), _SPECK)
    rows = _parts(solid[:, columns[0][0] : columns[-1][1]].sum(dim=1), _SPECK)
    top, bottom = rows[0][0], rows[-1][1]
    solid = solid[top:bottom]
    large = [
        (first, last)
        for first, last in _parts(solid.sum(dim=0), _GLYPH_INK)
        if _extent(solid[:, first:last].sum(dim=1)) >= _GLYPH_HEIGHT * (bottom - top)
    ]
    return ink[top:bottom, columns[0][0] : columns[-1][1]], max(1, len(large))


def _parts(profile: Tensor, least_share: float) -> list[tuple[int, int]]:
    """Where a profile is not zero without a break, as (first, last + 1), if it has that share of the whole there.

    Of crumbs alone there is the largest.
    """
    filled = functional.pad((profile > 0).int(), (1, 1)).diff()
    parts = list(zip((filled == 1).nonzero()[:, 0].tolist(), (filled == -1).nonzero()[:, 0].tolist(), strict=True))
    sums = functional.pad(profile.double().cumsum(dim=0), (1, 0))
    weights = [float(sums[last] - sums[first]) for first, last in parts]
    kept = [part for part, weight in zip(parts, weights, strict=True) if weight >= least_share * float(sums[-1])]
    return kept or [parts[weights.index(max(weights))]]


def _extent(profile: Tensor) -> int:
    filled = profile.nonzero()
    return int(filled[-1] - filled[0]) + 1 if len(filled) else 0


def _boxed(glyph: Tensor) -> Tensor:
    """The glyph, scaled to 20 pixels on its longer side, with full ink somewhere, however thin it was."""
    longest = max(glyph.shape)
    size = [max(1, round(_BOX * side / longest)) for side in glyph.shape]
    if tuple(size) != tuple(glyph.shape):
        glyph = functional.interpolate(glyph[None, None], size=size, mode="bilinear", antialias=True)[0, 0]
    return glyph / glyph.max()


def _centred(glyph: Tensor) -> Tensor:
    """The glyph in the field, moved by whole pixels so that its centre of mass is at the centre."""
    corner = []
    for axis, size in enumerate(glyph.shape):
        mass = glyph.sum(dim=1 - axis)
        centre = float((mass * torch.arange(size)).sum() / mass.sum())
        # A glyph with its weight at one end would otherwise stick out of the field.
        corner.append(min(max(0, math.floor(_CENTRE - centre + 0.5)), SIZE - size))
    top, left = corner
    field = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
    field[top : top + glyph.shape[0], left : left + glyph.shape[1]] = (glyph * 255).round().to(torch.uint8)
    return field
