"""Checks of names, ranges and shapes, shared by the networks: one wording for one mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from torch import Tensor


class ShapeError(ValueError):
    """An input whose shape the network cannot take."""


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise a ``ValueError`` that lists the valid names (nearest first) unless ``value`` is one of them."""
    valid = list(choices)
    if value in valid:
        return
    nearest = difflib.get_close_matches(str(value), valid, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"{name} must be one of {', '.join(map(repr, valid))}, got {value!r}{hint}")


def check_positive(**values: int) -> None:
    """Raise a ``ValueError`` unless every named value is an integer of at least 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


def check_fraction(**values: float) -> None:
    """Raise a ``ValueError`` unless every named value lies in [0, 1)."""
    for name, value in values.items():
        if not 0.0 <= value < 1.0:
            raise ValueError(f"{name} must be at least 0 and less than 1, got {value!r}")


def check_batch(images: Tensor, expected: str) -> None:
    """Raise :class:`ShapeError` unless ``images`` has four dimensions and floating-point values."""
    got = tuple(images.shape)
    if images.ndim == 3:
        raise ShapeError(
            f"expected images of shape {expected}, got {got}: a single image needs a batch dimension, "
            "add it with image.unsqueeze(0)"
        )
    if images.ndim != 4:
        raise ShapeError(f"expected images of shape {expected}, got {got}")
    if not images.is_floating_point():
        raise ShapeError(f"expected floating-point images, got {images.dtype}: convert and scale them first")


def check_images(images: Tensor, in_channels: int, image_size: int) -> None:
    """Raise :class:`ShapeError` unless ``images`` is ``(batch, in_channels, image_size, image_size)``."""
    expected = f"(batch, {in_channels}, {image_size}, {image_size})"
    got = tuple(images.shape)
    check_batch(images, expected)
    if images.shape[1] != in_channels:
        raise ShapeError(
            f"expected images of shape {expected}, got {got}: the network was built with in_channels={in_channels}"
        )
    if images.shape[2] != image_size or images.shape[3] != image_size:
        raise ShapeError(
            f"expected images of shape {expected}, got {got}: resize the images to {image_size}x{image_size}, "
            "or build the network for their size"
        )
