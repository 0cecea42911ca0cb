"""Building blocks: a convolution with its pooling, norm and activation, and the names these go by."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from zoo.networks.checks import check_batch, check_choice, check_positive

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
}

_MAX_GROUPS = 8

# Layer norm of an image normalises over channels, height and width, which is group norm with a single group.
CONV_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(math.gcd(_MAX_GROUPS, channels), channels),
    "layer": lambda channels: nn.GroupNorm(1, channels),
}


def make_activation(name: str) -> nn.Module:
    """The activation of that name (a key of ``ACTIVATIONS``); an unknown one is a ``ValueError``."""
    check_choice("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


class ConvBlock(nn.Module):
    """Convolution, max pooling if there is to be any, norm, activation.

    Pooling comes first because the rest then is over a quarter of the values. What rises, as all activations here do
    but ``"gelu"`` and a ``"prelu"`` that has learnt a negative slope, gives the same before and behind a maximum;
    the norm's statistics are those of the pooled values.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: height and width of the kernel.
        stride: step of the kernel.
        padding: zeros added on each side; ``None`` keeps the size (``kernel_size // 2``, for odd kernels).
        norm: ``"batch"`` (Ioffe and Szegedy 2015), ``"group"`` (Wu and He 2018; up to 8 groups), ``"layer"``
            (Ba et al. 2016; over channels, height and width), or ``None``.
        activation: ``"relu"``, ``"leaky_relu"``, ``"prelu"``, ``"sigmoid"``, ``"tanh"`` or ``"gelu"``.
        pool: height and width of the squares, side by side, of each of which the largest value is kept; ``None``
            keeps all.

    Raises:
        ValueError: an unknown norm or activation, a size below 1, or an even kernel without padding.
        ShapeError: from ``forward``, for a single image without a batch dimension.

    Shape:
        ``(batch, in_channels, height, width)`` float → ``(batch, out_channels, height', width')``.

    Example:
        >>> import torch
        >>> ConvBlock(1, 8, norm="batch")(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 8, 28, 28])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
        norm: str | None = None,
        activation: str = "relu",
        pool: int | None = None,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size, stride=stride)
        if pool is not None:
            check_positive(pool=pool)
        check_choice("norm", norm, CONV_NORMS, or_none=True)
        if padding is None and kernel_size % 2 == 0:
            raise ValueError(f"padding=None keeps the size, which takes an odd kernel_size, got {kernel_size}")
        if padding is not None and padding < 0:
            raise ValueError(f"padding must be at least 0, or None, got {padding!r}")
        # A bias before a norm is taken away again by it.
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2 if padding is None else padding,
            bias=norm is None,
        )
        self.pool = nn.Identity() if pool is None else nn.MaxPool2d(pool)
        self.norm = nn.Identity() if norm is None else CONV_NORMS[norm](out_channels)
        self.activation = make_activation(activation)

    def forward(self, images: Tensor) -> Tensor:
        check_batch(images, f"(batch, {self.conv.in_channels}, height, width)")
        activated: Tensor = self.activation(self.norm(self.pool(self.conv(images))))
        return activated
