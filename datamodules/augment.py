"""Random augmentation of whole batches of images."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from datamodules.errors import DataError


class RandomShift:
    """Moves every image by up to ``pixels`` along each axis; what moves in is ``fill``.

    Args:
        pixels: the largest shift, at least 1.
        fill: value of the pixels that move in.

    Shape:
        ``(batch, channels, height, width)``, any type → the same.

    Raises:
        DataError: ``pixels`` below 1.
    """

    moves_pixels = True

    def __init__(self, pixels: int = 1, fill: float = 0.0) -> None:
        if pixels < 1:
            raise DataError(f"the largest shift must be at least 1 pixel, got {pixels!r}")
        self.pixels = pixels
        self.fill = fill

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        batch, _, height, width = images.shape
        padded = functional.pad(images, (self.pixels,) * 4, value=self.fill)
        shifts = torch.randint(2 * self.pixels + 1, (2, batch, 1), generator=generator, device=images.device)
        rows = shifts[0] + torch.arange(height, device=images.device)
        columns = shifts[1] + torch.arange(width, device=images.device)
        sample = torch.arange(batch, device=images.device)
        # Three index tensors that broadcast to (batch, height, width); the channels between them come out last.
        moved = padded[sample[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        return moved.permute(0, 3, 1, 2)


class RandomAffine:
    """Rotates, scales, shears and moves every image, bilinearly, zeros outside.

    Args:
        degrees: largest rotation either way.
        translate: largest shift along each axis, as a share of the size.
        scale: largest change of size, as a share.
        shear: largest shear, in degrees.

    Raises:
        DataError: a range below zero, a scale or shift of 1 or more, or a shear of 90 degrees or more.

    Shape:
        ``(batch, channels, height, width)``, any type → the same shape, float32.
    """

    moves_pixels = True

    def __init__(self, degrees: float = 10.0, translate: float = 0.08, scale: float = 0.1, shear: float = 5.0) -> None:
        limits = {
            "degrees": (degrees, 360.0),
            "translate": (translate, 1.0),
            "scale": (scale, 1.0),
            "shear": (shear, 90.0),
        }
        for name, (value, limit) in limits.items():
            if not 0.0 <= value < limit:
                raise DataError(f"{name} must be at least 0 and less than {limit:g}, got {value!r}")
        self.degrees = degrees
        self.translate = translate
        self.scale = scale
        self.shear = shear

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        batch, _, height, width = images.shape
        draws = torch.rand(5, batch, generator=generator, device=images.device) * 2 - 1
        angle = draws[0] * math.radians(self.degrees)
        size = 1 + draws[1] * self.scale
        shear = torch.tan(draws[2] * math.radians(self.shear))
        cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
        # affine_grid maps output to input in coordinates of [-1, 1], so a share of the size counts double.
        move = draws[3:] * 2 * self.translate
        # In those coordinates an image that is not square is stretched, and with it a rotation.
        stretch = height / width
        rows = (
            torch.stack([cos, (cos * shear - sin) * stretch, move[0]]),
            torch.stack([sin / stretch, sin * shear + cos, move[1]]),
        )
        matrices = torch.stack(rows).permute(2, 0, 1)
        grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
        return functional.grid_sample(images.float(), grid, align_corners=False)
