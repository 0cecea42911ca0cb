"""A plain convolutional classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.networks.blocks import ConvBlock, make_activation
from zoo.networks.checks import check_fraction, check_images, check_positive
from zoo.networks.dropout import Dropout


class ConvNet(nn.Module):
    """Convolution blocks, each with 2x2 max pooling right behind the convolution, then a linear head.

    With ``stride=2, pool=None`` the convolutions themselves do without every second place, as in Simard et al.,
    "Best practices for convolutional neural networks applied to visual document analysis", ICDAR 2003.

    The parameters are kept in ``channels_last`` order, in which a CPU takes about half the time for a convolution
    and a GPU's tensor cores need no transposition.

    Args:
        in_channels: channels of the images.
        num_classes: number of logits.
        channels: output channels of each block; with the default stride and pooling each halves height and width.
        hidden: width of a hidden linear layer before the logits, or ``None``.
        kernel_size: height and width of every kernel.
        padding: zeros added on each side; ``None`` keeps the size (``kernel_size // 2``).
        image_size: height and width of the images.
        norm: ``"batch"``, ``"group"``, ``"layer"`` or ``None``, see :class:`ConvBlock`.
        dropout: probability of dropping a feature before the last linear layer, in [0, 1).
        activation: see :class:`ConvBlock`.
        stride: step of every kernel.
        pool: height and width of the squares of each of which the largest value is kept; ``None`` keeps all.

    Raises:
        ValueError: a name or value out of range, or more blocks than ``image_size`` allows.
        ShapeError: from ``forward``, for images of another shape.

    Shape:
        ``(batch, in_channels, image_size, image_size)`` float → logits ``(batch, num_classes)``.

    Example:
        >>> ConvNet(channels=(8, 16))(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        channels: Sequence[int] = (16, 32, 64),
        hidden: int | None = None,
        kernel_size: int = 3,
        padding: int | None = None,
        image_size: int = 28,
        norm: str | None = "batch",
        dropout: float = 0.0,
        activation: str = "relu",
        stride: int = 1,
        pool: int | None = 2,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, num_classes=num_classes, image_size=image_size)
        check_fraction(dropout=dropout)
        if not channels:
            raise ValueError("channels must name at least one block, got an empty sequence")
        self.in_channels = in_channels
        self.image_size = image_size

        size, width = image_size, in_channels
        blocks: list[nn.Module] = []
        for out_channels in channels:
            block = ConvBlock(
                *(width, out_channels, kernel_size),
                stride=stride,
                padding=padding,
                norm=norm,
                activation=activation,
                pool=pool,
            )
            pad = block.conv.padding[0]
            size, width = ((size + 2 * int(pad) - kernel_size) // stride + 1) // (pool or 1), out_channels
            if size < 1:
                raise ValueError(
                    f"image_size={image_size} is too small for {len(channels)} blocks with kernel_size={kernel_size}: "
                    "use fewer channels entries, or larger images"
                )
            blocks.append(block)
        self.features = nn.Sequential(*blocks)

        head: list[nn.Module] = [nn.Flatten()]
        features = width * size * size
        if hidden is not None:
            check_positive(hidden=hidden)
            head += [nn.Linear(features, hidden), make_activation(activation)]
            features = hidden
        # A place of its own even where there is none, so that weights keep their names whatever the dropout.
        head.append(Dropout(dropout) if dropout > 0.0 else nn.Identity())
        self.head = nn.Sequential(*head, nn.Linear(features, num_classes))
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.in_channels, self.image_size)
        images = images.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.head(self.features(images))
        return logits
