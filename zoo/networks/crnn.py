"""Convolutions over an image of any width, then a recurrent network over its columns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.networks.blocks import make_activation
from zoo.networks.checks import ShapeError, check_batch, check_fraction, check_lengths, check_positive
from zoo.networks.recurrent import Recurrent


class CRNN(nn.Module):
    """Convolution blocks with pooling, a recurrent layer over the columns, logits for each step.

    Shi, Bai and Yao, "An end-to-end trainable neural network for image-based sequence recognition and its application
    to scene text recognition", IEEE TPAMI 39(11), 2017. The norms are over the channels of each pixel by itself, and
    the padding is set to zero again after each block, so that an image's result does not depend on how far it was
    padded.

    Args:
        out_features: logits a step, the blank included.
        in_channels: channels of the images.
        image_height: height of the images; their width is free.
        channels: output channels of each block; every block halves the height.
        halve_width: how many of the blocks, from the first, halve the width as well.
        hidden: width of the recurrent state, in each direction.
        cell: see :class:`Recurrent`.
        num_layers: recurrent layers.
        dropout: see :class:`Recurrent`.
        activation: see :class:`ConvBlock`.

    Raises:
        ValueError: a name or value out of range, or more halvings than the height allows.
        ShapeError: from ``forward``, for images of another shape, or widths that do not fit them.

    Shape:
        ``(batch, in_channels, image_height, width)`` float and, unless all are whole, widths ``(batch,)`` int64 on the
        CPU → ``(batch, steps, out_features)``, :meth:`num_steps` of them valid.
    """

    def __init__(
        self,
        out_features: int,
        in_channels: int = 1,
        image_height: int = 28,
        channels: Sequence[int] = (16, 32, 64),
        halve_width: int = 2,
        hidden: int = 96,
        cell: str = "lstm",
        num_layers: int = 1,
        dropout: float = 0.0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, image_height=image_height)
        check_fraction(dropout=dropout)
        if not channels or image_height >> len(channels) < 1:
            raise ValueError(
                f"channels must name at least one block and no more than {image_height.bit_length() - 1}, each of "
                f"which halves image_height={image_height}, got {tuple(channels)!r}"
            )
        if not 0 <= halve_width <= len(channels):
            raise ValueError(
                f"halve_width must be from 0 to {len(channels)}, the number of blocks, got {halve_width!r}"
            )
        self.in_channels = in_channels
        self.image_height = image_height
        self.halve_width = halve_width
        blocks, width = [], in_channels
        for index, out_channels in enumerate(channels):
            check_positive(channels=out_channels)
            blocks.append(
                nn.Sequential(
                    nn.Conv2d(width, out_channels, 3, padding=1),
                    ChannelNorm(out_channels),
                    make_activation(activation),
                    nn.MaxPool2d((2, 2 if index < halve_width else 1)),
                )
            )
            width = out_channels
        self.blocks = nn.ModuleList(blocks)
        self.recurrent = Recurrent(
            width * (image_height >> len(channels)),
            hidden,
            out_features,
            cell=cell,
            num_layers=num_layers,
            bidirectional=True,
            dropout=dropout,
            read="every",
        )
        self.to(memory_format=torch.channels_last)

    def num_steps(self, widths: Tensor) -> Tensor:
        """Valid steps of images of these widths, likewise ``(batch,)``."""
        return widths >> self.halve_width

    def forward(self, images: Tensor, widths: Tensor | None = None) -> Tensor:
        check_batch(images, f"(batch, {self.in_channels}, {self.image_height}, width)")
        if images.shape[1:3] != (self.in_channels, self.image_height):
            raise ShapeError(
                f"expected images of shape (batch, {self.in_channels}, {self.image_height}, width), "
                f"got {tuple(images.shape)}"
            )
        if images.shape[3] >> self.halve_width < 1:
            raise ShapeError(f"images {images.shape[3]} wide have no step left when halved {self.halve_width} times")
        if widths is not None:
            check_lengths(widths, len(images), images.shape[3], "image", "columns")
            if int(widths.min()) >> self.halve_width < 1:
                raise ShapeError(
                    f"image {int(widths.argmin())} is {int(widths.min())} wide: no step is left of it when halved "
                    f"{self.halve_width} times"
                )
        outputs: Tensor = self.recurrent(*self.columns(images, widths))
        return outputs

    def columns(self, images: Tensor, widths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What the recurrent layer reads, ``(batch, steps, channels * height)``, and how many steps of it are valid."""
        features = images.contiguous(memory_format=torch.channels_last)
        steps = widths
        if steps is not None:
            features = _blank(features, steps)
        for index, block in enumerate(self.blocks):
            features = block(features)
            if steps is not None:
                steps = steps >> 1 if index < self.halve_width else steps
                features = _blank(features, steps)
        return features.flatten(1, 2).transpose(1, 2), steps


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel by itself: no pixel has a say in another's."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, images: Tensor) -> Tensor:
        normed: Tensor = self.norm(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return normed


def _blank(images: Tensor, widths: Tensor) -> Tensor:
    """Zeros to the right of each image's width."""
    valid = torch.arange(images.shape[3], device=images.device) < widths.to(images.device, non_blocking=True)[:, None]
    return images.masked_fill(~valid[:, None, None, :], 0.0)
