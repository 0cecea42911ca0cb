"""The leaves: a network in a task, with plain hyperparameters and good defaults.

Every leaf comes back with ``Leaf.load_from_checkpoint(path)`` and no other argument.
"""

from __future__ import annotations

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from zoo.networks import ConvNet, LeNet5
from zoo.tasks import MulticlassClassification


class CNNClassifier(MulticlassClassification):
    """:class:`zoo.networks.ConvNet` as a classifier.

    Args:
        in_channels: channels of the images.
        num_classes: number of classes.
        channels: output channels of each convolution block.
        hidden: width of the hidden linear layer, or ``None``.
        kernel_size: height and width of every kernel.
        padding: zeros added on each side of a convolution's input; ``None`` keeps the size.
        image_size: height and width of the images.
        norm: ``"batch"``, ``"group"``, ``"layer"`` or ``None``.
        dropout: probability of dropping a feature before the last layer, in [0, 1).
        activation: ``"relu"``, ``"leaky_relu"``, ``"prelu"``, ``"sigmoid"``, ``"tanh"`` or ``"gelu"``.
        label_smoothing: share of the target spread evenly over all classes.
        optimizer: makes the optimizer from parameters; ``None`` is AdamW with torch's defaults.
        scheduler: makes the schedule from the optimizer; ``None`` keeps the rate constant.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        channels: tuple[int, ...] = (16, 32),
        hidden: int | None = 128,
        kernel_size: int = 5,
        padding: int | None = 0,
        image_size: int = 28,
        norm: str | None = "batch",
        dropout: float = 0.0,
        activation: str = "relu",
        label_smoothing: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(
            network=ConvNet(
                in_channels=in_channels,
                num_classes=num_classes,
                channels=channels,
                hidden=hidden,
                kernel_size=kernel_size,
                padding=padding,
                image_size=image_size,
                norm=norm,
                dropout=dropout,
                activation=activation,
            ),
            num_classes=num_classes,
            label_smoothing=label_smoothing,
            optimizer=optimizer,
            scheduler=scheduler,
        )


class LeNet5Classifier(MulticlassClassification):
    """:class:`zoo.networks.LeNet5` as a classifier of 32x32 images.

    Args:
        in_channels: channels of the images.
        num_classes: number of classes.
        activation: ``"tanh"`` as in the paper, or another name of ``ConvBlock``'s.
        label_smoothing: share of the target spread evenly over all classes.
        optimizer: makes the optimizer from parameters; ``None`` is AdamW with torch's defaults.
        scheduler: makes the schedule from the optimizer; ``None`` keeps the rate constant.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        activation: str = "tanh",
        label_smoothing: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(
            network=LeNet5(in_channels=in_channels, num_classes=num_classes, activation=activation),
            num_classes=num_classes,
            label_smoothing=label_smoothing,
            optimizer=optimizer,
            scheduler=scheduler,
        )
