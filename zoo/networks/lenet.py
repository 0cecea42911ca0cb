"""LeNet-5."""

from __future__ import annotations

from torch import Tensor, nn

from zoo.networks.blocks import make_activation
from zoo.networks.checks import check_images, check_positive


class LeNet5(nn.Module):
    """The 1-6-16 / 120-84-10 network with 5x5 kernels on 32x32 images: 61,706 parameters.

    LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 86(11),
    1998. As in today's usage the subsampling is plain average pooling, every map of the second convolution sees all
    maps of the first, and the output is linear (the paper has trainable subsampling, a connection table and
    radial basis functions).

    Args:
        in_channels: channels of the images.
        num_classes: number of logits.
        activation: ``"tanh"`` as in the paper, or another name of :class:`ConvBlock`'s.

    Raises:
        ValueError: an unknown activation, or a size below 1.
        ShapeError: from ``forward``, for images that are not 32x32.

    Shape:
        ``(batch, in_channels, 32, 32)`` float → logits ``(batch, num_classes)``.

    Example:
        >>> import torch
        >>> LeNet5()(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 10])
    """

    image_size = 32

    def __init__(self, in_channels: int = 1, num_classes: int = 10, activation: str = "tanh") -> None:
        super().__init__()
        check_positive(in_channels=in_channels, num_classes=num_classes)
        self.in_channels = in_channels
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, kernel_size=5),
            make_activation(activation),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5),
            make_activation(activation),
            nn.AvgPool2d(2),
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120),
            make_activation(activation),
            nn.Linear(120, 84),
            make_activation(activation),
            nn.Linear(84, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.in_channels, self.image_size)
        logits: Tensor = self.head(self.features(images))
        return logits
