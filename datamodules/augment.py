"""Random augmentation of whole batches of images."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Generator, Tensor
from torch.nn import functional

from datamodules.errors import DataError

_LIMIT = 1e38  # twice of it is still a number of 32 bits
_LARGEST_SIGMA = 5e307  # three times of it is still one of 64


class RandomShift:
    """Moves every image by up to ``pixels`` along each axis; what moves in is ``fill``.

    Args:
        pixels: the largest shift, at least 1.
        fill: value of the pixels that move in.

    Shape:
        ``(batch, channels, height, width)``, any type → the same.

    Raises:
        DataError: ``pixels`` below 1, or, when called, what is no batch of images.
    """

    moves_pixels = True

    def __init__(self, pixels: int = 1, fill: float = 0.0) -> None:
        if pixels < 1:
            raise DataError(f"the largest shift must be at least 1 pixel, got {pixels!r}")
        self.pixels = pixels
        self.fill = fill

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        _check_images(images)
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
        DataError: a range below zero, a scale or shift of 1 or more, or a shear of 90 degrees or more; or, when called,
            what is no batch of images.

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
        _check_images(images)
        return functional.grid_sample(images.float(), self.grid(images, generator), align_corners=False)

    def grid(self, images: Tensor, generator: Generator) -> Tensor:
        """Where each pixel comes from, ``(batch, height, width, 2)``: x and y as ``grid_sample`` takes them."""
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
        return functional.affine_grid(matrices, list(images.shape), align_corners=False)


class RandomElastic:
    """Distorts every image like a sheet of rubber, bilinearly.

    Simard, Steinkraus and Platt, "Best practices for convolutional neural networks applied to visual document
    analysis", ICDAR 2003: every pixel comes from a place beside its own. How far beside, along each axis, is noise
    that is uniform in [-1, 1], smoothed by a Gaussian and multiplied by ``alpha``; its standard deviation is
    ``alpha / (6.14 * sigma)`` pixels (for a ``sigma`` of a pixel or more), 1.4 with the paper's values.

    The noise is drawn at every ``sigma / 2`` pixels, which is dense enough for a Gaussian, rather than at every one:
    variance and covariances are those of the paper's, for a fraction of the draws. It goes on beyond the frame, so that
    pixels at the border move as those in the middle. No displacement is longer than ``alpha`` along an axis.

    Args:
        alpha: what the smoothed noise is multiplied by, in pixels, at least 0; 34 in the paper.
        sigma: standard deviation of the Gaussian, in pixels, greater than 0: what is nearer than that moves together.
            4 in the paper.
        affine: an affine distortion on top, whose resampling this one takes over; ``None`` is none.
        fill: value of the pixels that come from beyond the frame.

    Raises:
        DataError: a number out of range, or, when called, what is no batch of images.

    Shape:
        ``(batch, channels, height, width)``, any type → the same shape, float32.
    """

    moves_pixels = True

    def __init__(
        self, alpha: float = 34.0, sigma: float = 4.0, affine: RandomAffine | None = None, fill: float = 0.0
    ) -> None:
        if not 0.0 <= alpha < _LIMIT:
            raise DataError(f"alpha must be at least 0 and less than {_LIMIT:g}, got {alpha!r}")
        if not 0.0 < sigma < _LARGEST_SIGMA:
            raise DataError(f"sigma must be greater than 0 and less than {_LARGEST_SIGMA:g}, got {sigma!r}")
        if not -_LIMIT < fill < _LIMIT:
            raise DataError(f"fill must be between {-_LIMIT:g} and {_LIMIT:g}, got {fill!r}")
        self.alpha = alpha
        self.sigma = sigma
        self.affine = affine or RandomAffine(degrees=0.0, translate=0.0, scale=0.0, shear=0.0)
        self.fill = fill

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        _check_images(images)
        height, width = images.shape[2:]
        pixels = self.displacements(images, generator)
        # In the coordinates of a grid, [-1, 1], a frame is 2 wide.
        grid = self.affine.grid(images, generator) + pixels * pixels.new_tensor([2 / width, 2 / height])
        # Beyond the frame there are zeros.
        return functional.grid_sample(images.float() - self.fill, grid, align_corners=False) + self.fill

    def displacements(self, images: Tensor, generator: Generator) -> Tensor:
        """How far beside its own place each pixel comes from, ``(batch, height, width, 2)``: x and y, in pixels."""
        batch, _, height, width = images.shape
        rows, columns = (_smoothing(size, self.sigma).to(images.device) for size in (height, width))
        shape = (2, batch, rows.shape[1], columns.shape[1])
        noise = torch.rand(shape, generator=generator, device=images.device) * (2 * self.alpha) - self.alpha
        return (rows @ noise @ columns.T).permute(1, 2, 3, 0)


@lru_cache(maxsize=16)
def _smoothing(size: int, sigma: float) -> Tensor:
    """What makes a Gaussian's smooth values at ``size`` pixels from noise that is drawn more coarsely.

    Returns:
        ``(size, draws)``; the squares of each row sum to those of a Gaussian over pixels whose sum is 1, which decide
        what variance is left of noise.
    """
    step = max(1.0, sigma / 2)
    beyond = math.ceil(3.0 * sigma / step)
    places = step * torch.arange(-beyond, beyond + 1 + math.ceil((size - 1) / step), dtype=torch.float64)
    distances = torch.arange(size, dtype=torch.float64)[:, None] - places
    weights = torch.exp(-0.5 * (distances / sigma).square())
    return (weights * (_sum_of_squares(sigma) / weights.square().sum(dim=1, keepdim=True)).sqrt()).float()


def _sum_of_squares(sigma: float) -> float:
    """Of a Gaussian's values at all pixels, whose sum is 1."""
    if sigma > 1.0:
        return 1.0 / (2.0 * math.sqrt(math.pi) * sigma)  # the integral, which the sum does not differ from any more
    values = torch.softmax(-0.5 * (torch.arange(-5, 6, dtype=torch.float64) / sigma).square(), dim=0)
    return float(values.square().sum())


def _check_images(images: Tensor) -> None:
    if images.ndim != 4:
        raise DataError(
            f"images must be of shape (batch, channels, height, width) to be augmented, got {tuple(images.shape)}"
        )
