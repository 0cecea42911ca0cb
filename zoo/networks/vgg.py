"""A deeper convolutional classifier: stages of convolutions, as in VGG."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.networks.blocks import ConvBlock
from zoo.networks.checks import ShapeError, check_batch, check_fraction, check_positive
from zoo.networks.dropout import Dropout


class VGG(nn.Module):
    """Stages of convolutions of one size, max pooling between them, then the mean over the image and a linear layer.

    Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015, with batch norm,
    and with global average pooling (Lin et al. 2014) in place of the large linear layers, so that nearly all parameters
    are in convolutions and images may have any size. A stage's pooling comes right behind its last convolution, see
    :class:`ConvBlock`; the parameters are kept in ``channels_last`` order, as those of :class:`ConvNet` are.

    Args:
        in_channels: channels of the images.
        num_classes: number of logits.
        channels: output channels of the convolutions of each stage.
        depths: convolutions of each stage, as many numbers as ``channels``.
        kernel_size: height and width of every kernel, odd; images are padded, so that they keep their size.
        norm: ``"batch"``, ``"group"``, ``"layer"`` or ``None``, see :class:`ConvBlock`.
        dropout: probability of dropping a feature before the linear layer, in [0, 1).
        activation: see :class:`ConvBlock`.

    Raises:
        ValueError: a name or value out of range, or ``channels`` and ``depths`` of different lengths.
        ShapeError: from ``forward``, for images with other channels, or too small to be halved between the stages.

    Shape:
        ``(batch, in_channels, height, width)`` float → logits ``(batch, num_classes)``.

    Example:
        >>> VGG(channels=(8, 16), depths=(1, 2))(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        channels: Sequence[int] = (32, 64, 128),
        depths: Sequence[int] = (1, 2, 2),
        kernel_size: int = 3,
        norm: str | None = "batch",
        dropout: float = 0.0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, num_classes=num_classes)
        check_fraction(dropout=dropout)
        if not channels:
            raise ValueError("channels must name at least one stage, got an empty sequence")
        if len(depths) != len(channels):
            raise ValueError(f"depths must hold a number for each of the {len(channels)} stages, got {len(depths)}")
        self.in_channels = in_channels
        self.smallest_image = 2 ** (len(channels) - 1)

        width = in_channels
        blocks: list[nn.Module] = []
        for stage, (out_channels, depth) in enumerate(zip(channels, depths, strict=True)):
            check_positive(depths=depth)
            for number in range(depth):
                halves = number == depth - 1 and stage < len(channels) - 1
                blocks.append(
                    ConvBlock(
                        width, out_channels, kernel_size, norm=norm, activation=activation, pool=2 if halves else None
                    )
                )
                width = out_channels
        self.features = nn.Sequential(*blocks)
        self.dropout = Dropout(dropout)
        self.classifier = nn.Linear(width, num_classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        expected = f"(batch, {self.in_channels}, height, width)"
        check_batch(images, expected)
        got = tuple(images.shape)
        if got[1] != self.in_channels:
            raise ShapeError(
                f"expected images of shape {expected}, got {got}: the network was built with "
                f"in_channels={self.in_channels}"
            )
        if min(got[2:]) < self.smallest_image:
            raise ShapeError(
                f"expected height and width of at least {self.smallest_image}, so that they can be halved between the "
                f"stages, got {got}: use larger images, or fewer stages"
            )
        features = self.features(images.contiguous(memory_format=torch.channels_last))
        logits: Tensor = self.classifier(self.dropout(features.mean(dim=(2, 3))))
        return logits
