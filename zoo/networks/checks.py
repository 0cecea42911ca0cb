"""Checks of names, ranges and shapes, shared by the networks: one wording for one mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from numbers import Real

import torch
from torch import Tensor


class ShapeError(ValueError):
    """An input whose shape the network cannot take."""


def check_choice(name: str, value: object, choices: Iterable[str], *, or_none: bool = False) -> None:
    """Raise a ``ValueError`` that lists the valid names (nearest first) unless ``value`` is one of them."""
    valid = list(choices)
    # A string first: an array would be compared with each name element by element.
    if (isinstance(value, str) and value in valid) or (or_none and value is None):
        return
    nearest = difflib.get_close_matches(str(value), valid, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(
        f"{name} must be one of {', '.join(map(repr, valid))}{' or None' if or_none else ''}, got {value!r}{hint}"
    )


def check_positive(**values: int) -> None:
    """Raise a ``ValueError`` unless every named value is an integer of at least 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


def check_fraction(**values: float) -> None:
    """Raise a ``ValueError`` unless every named value lies in [0, 1)."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not 0.0 <= value < 1.0:
            raise ValueError(f"{name} must be at least 0 and less than 1, got {value!r}")


def check_features(inputs: Tensor, in_features: int) -> Tensor:
    """``inputs`` as ``(batch, in_features)``, flattened.

    Raises:
        TypeError: they are no tensor.
        ShapeError: they hold another number of values a sample, or no floating-point values.
    """
    if not isinstance(inputs, Tensor):
        raise TypeError(f"expected a tensor of shape (batch, {in_features}), got {type(inputs).__name__}")
    got = tuple(inputs.shape)
    if inputs.ndim < 2:
        advice = (
            "; a batch of single numbers is made with inputs.unsqueeze(1)"
            if in_features == 1
            else "; a single sample needs a batch dimension, add it with inputs.unsqueeze(0)"
        )
        raise ShapeError(f"expected inputs of shape (batch, {in_features}), got {got}{advice if inputs.ndim else ''}")
    flat = inputs.flatten(1)
    if flat.shape[1] != in_features:
        raise ShapeError(
            f"expected inputs of shape (batch, {in_features}), got {got}, which is {flat.shape[1]} numbers a sample: "
            f"the network was built with in_features={in_features}"
        )
    if not inputs.is_floating_point():
        raise ShapeError(f"expected floating-point inputs, got {inputs.dtype}: convert and scale them first")
    return flat


def check_batch(images: Tensor, expected: str) -> None:
    """Raise :class:`ShapeError` unless ``images`` has four dimensions and floating-point values."""
    got = tuple(images.shape)
    if images.ndim == 3:
        raise ShapeError(
            f"expected images of shape {expected}, got {got}: a single image needs a batch dimension, "
            "add it with image.unsqueeze(0); images without channels need one, images.unsqueeze(1)"
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


def check_lengths(lengths: Tensor, batch: int, padded: int, kind: str = "sequence", unit: str = "steps") -> None:
    """Raise :class:`ShapeError` unless there is a length from 1 to ``padded`` for each sample, on the CPU."""
    if not isinstance(lengths, Tensor):
        raise ShapeError(f"lengths must be a tensor, got {type(lengths).__name__}")
    if lengths.device.type != "cpu":
        raise ShapeError(
            f"lengths must stay on the CPU, got them on {lengths.device}: a datamodules.PaddedBatch keeps them there "
            "when a batch is moved, lengths.cpu() brings them back"
        )
    if lengths.shape != (batch,) or lengths.dtype != torch.int64:
        raise ShapeError(
            f"lengths must be of shape ({batch},) and type int64, got {tuple(lengths.shape)} and "
            f"{str(lengths.dtype).removeprefix('torch.')}"
        )
    if batch == 0:
        raise ShapeError(f"there is nothing to read in a batch of no {kind}s")
    shortest, longest = (int(bound) for bound in lengths.aminmax())
    if shortest < 1:
        raise ShapeError(
            f"{kind} {int(lengths.argmin())} has length {shortest}: each has at least one of the {unit} of its batch"
        )
    if longest > padded:
        raise ShapeError(
            f"{kind} {int(lengths.argmax())} has length {longest}, but the batch is padded to {padded} {unit}"
        )
