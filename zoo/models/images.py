"""Classifiers of images."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from zoo.models.beginning import NOT_HYPERPARAMETERS, begin
from zoo.networks import VGG, ConvNet, LeNet5
from zoo.optim import weight_decay_groups
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
        class_weights: weight of each class in the loss, or ``None``.
        init: initialisation by name.
        weights: file of weights to begin with.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """

    not_hyperparameters = NOT_HYPERPARAMETERS

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
        class_weights: tuple[float, ...] | None = None,
        init: str | None = None,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        network = ConvNet(
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
        )
        super().__init__(
            network=begin(network, init, weights),
            num_classes=num_classes,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            optimizer=optimizer,
            scheduler=scheduler,
        )


class VGGClassifier(MulticlassClassification):
    """:class:`zoo.networks.VGG` as a classifier of images of any size.

    Weight decay is for the weights alone, see :func:`zoo.optim.weight_decay_groups`.

    Args:
        in_channels: channels of the images.
        num_classes: number of classes.
        channels: output channels of the convolutions of each stage.
        depths: convolutions of each stage.
        kernel_size: height and width of every kernel, odd.
        norm: ``"batch"``, ``"group"``, ``"layer"`` or ``None``.
        dropout: probability of dropping a feature before the last layer, in [0, 1).
        activation: ``"relu"``, ``"leaky_relu"``, ``"prelu"``, ``"sigmoid"``, ``"tanh"`` or ``"gelu"``.
        label_smoothing: share of the target spread evenly over all classes.
        class_weights: weight of each class in the loss, or ``None``.
        init: initialisation by name.
        weights: file of weights to begin with.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """

    not_hyperparameters = NOT_HYPERPARAMETERS

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        channels: tuple[int, ...] = (32, 64, 128),
        depths: tuple[int, ...] = (1, 2, 2),
        kernel_size: int = 3,
        norm: str | None = "batch",
        dropout: float = 0.0,
        activation: str = "relu",
        label_smoothing: float = 0.0,
        class_weights: tuple[float, ...] | None = None,
        init: str | None = None,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        network = VGG(in_channels, num_classes, channels, depths, kernel_size, norm, dropout, activation)
        super().__init__(
            network=begin(network, init, weights),
            num_classes=num_classes,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            optimizer=optimizer,
            scheduler=scheduler,
        )

    def optimizer_parameters(self) -> list[Any]:
        return weight_decay_groups(self)


class StridedCNNClassifier(MulticlassClassification):
    """:class:`zoo.networks.ConvNet` with strides in the place of pooling, as a classifier.

    The defaults are the network of Simard, Steinkraus and Platt, "Best practices for convolutional neural networks
    applied to visual document analysis", ICDAR 2003: 5 and 50 maps by 5x5 kernels with a stride of 2, a hidden layer of
    100, images of 29x29; 132,540 parameters.

    Args:
        in_channels: channels of the images.
        num_classes: number of classes.
        channels: output channels of each convolution block.
        hidden: width of the hidden linear layer, or ``None``.
        kernel_size: height and width of every kernel.
        stride: step of every kernel.
        padding: zeros added on each side of a convolution's input; ``None`` keeps the size but for the stride.
        image_size: height and width of the images.
        norm: ``"batch"``, ``"group"``, ``"layer"`` or ``None``.
        dropout: probability of dropping a feature before the last layer, in [0, 1).
        activation: ``"relu"``, ``"leaky_relu"``, ``"prelu"``, ``"sigmoid"``, ``"tanh"`` or ``"gelu"``.
        label_smoothing: share of the target spread evenly over all classes.
        class_weights: weight of each class in the loss, or ``None``.
        init: initialisation by name.
        weights: file of weights to begin with.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """

    not_hyperparameters = NOT_HYPERPARAMETERS

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        channels: tuple[int, ...] = (5, 50),
        hidden: int | None = 100,
        kernel_size: int = 5,
        stride: int = 2,
        padding: int | None = 0,
        image_size: int = 29,
        norm: str | None = None,
        dropout: float = 0.0,
        activation: str = "relu",
        label_smoothing: float = 0.0,
        class_weights: tuple[float, ...] | None = None,
        init: str | None = None,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        network = ConvNet(
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
            stride=stride,
            pool=None,
        )
        super().__init__(
            network=begin(network, init, weights),
            num_classes=num_classes,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
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
        class_weights: weight of each class in the loss, or ``None``.
        init: initialisation by name.
        weights: file of weights to begin with.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """

    not_hyperparameters = NOT_HYPERPARAMETERS

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        activation: str = "tanh",
        label_smoothing: float = 0.0,
        class_weights: tuple[float, ...] | None = None,
        init: str | None = None,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        network = LeNet5(in_channels=in_channels, num_classes=num_classes, activation=activation)
        super().__init__(
            network=begin(network, init, weights),
            num_classes=num_classes,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            optimizer=optimizer,
            scheduler=scheduler,
        )
