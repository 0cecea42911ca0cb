"""The leaves: a network in a task, with plain hyperparameters and good defaults.

Every leaf comes back with ``Leaf.load_from_checkpoint(path)`` and no other argument. Arguments that all of them take:

- ``init``: initialisation by name, see :func:`zoo.networks.initialize`; ``None`` is torch's own.
- ``weights``: a local checkpoint or state dict whose weights the network begins with, see
  :func:`zoo.checkpointing.load_weights`; no hyperparameter, so that the model's own checkpoint does not need the file.
- ``optimizer``: makes the optimizer from parameters; ``None`` is AdamW with torch's defaults.
- ``scheduler``: makes the schedule from the optimizer; ``None`` keeps the rate constant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.checkpointing import load_weights
from zoo.max_norm import MaxNorm, check_limit
from zoo.networks import (
    CRNN,
    MLP,
    VGG,
    ConvNet,
    Ensemble,
    LeNet5,
    Linear,
    Perceptron,
    Polynomial,
    Recurrent,
    initialize,
)
from zoo.networks.checks import check_choice, check_positive
from zoo.optim import weight_decay_groups
from zoo.tasks import (
    BinaryClassification,
    EnsembleClassification,
    GradientDescentRegression,
    MulticlassClassification,
    Regression,
    SequenceTranscription,
    Task,
)
from zoo.tasks.one_hot import OneHotAccuracy
from zoo.tasks.sequence import check_alphabet

AnyModule = TypeVar("AnyModule", bound=nn.Module)


_NOT_HYPERPARAMETERS = (*Task.not_hyperparameters, "weights")


def _begin(network: AnyModule, init: str | None, weights: str | None) -> AnyModule:
    network = initialize(network, init)
    return network if weights is None else load_weights(network, weights)


class LinearRegressor(Regression):
    """:class:`zoo.networks.Linear` as a regressor: simple or multiple linear regression.

    Args:
        in_features: numbers a sample.
        out_features: values a sample.
        loss: ``"mse"``, ``"huber"`` or ``"l1"``.
        huber_delta: the residual at which the Huber loss turns into straight lines.
        init: initialisation by name.
        weights: file of weights to begin with.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """

    not_hyperparameters = _NOT_HYPERPARAMETERS

    def __init__(
        self,
        in_features: int = 1,
        out_features: int = 1,
        loss: str = "mse",
        huber_delta: float = 1.0,
        init: str | None = None,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        network = Linear(in_features, out_features)
        super().__init__(
            network=_begin(network, init, weights),
            loss=loss,
            huber_delta=huber_delta,
            optimizer=optimizer,
            scheduler=scheduler,
        )


class LinearRegressorFromScratch(GradientDescentRegression):
    """:class:`zoo.networks.Linear` as a regressor that learns by gradient descent written out by hand.

    Weights begin standard normal, biases zero, unless ``init`` says otherwise.

    Args:
        in_features: numbers a sample.
        out_features: values a sample.
        lr: the learning rate.
        loss: ``"mse"``, ``"huber"`` or ``"l1"``.
        huber_delta: the residual at which the Huber loss turns into straight lines.
        init: initialisation by name.
        weights: file of weights to begin with.
    """

    not_hyperparameters = _NOT_HYPERPARAMETERS

    def __init__(
        self,
        in_features: int = 1,
        out_features: int = 1,
        lr: float = 0.1,
        loss: str = "mse",
        huber_delta: float = 1.0,
        init: str | None = None,
        weights: str | None = None,
    ) -> None:
        network = Linear(in_features, out_features)
        nn.init.normal_(network.linear.weight)
        nn.init.zeros_(network.linear.bias)
        super().__init__(
            network=_begin(network, init, weights),
            lr=lr,
            loss=loss,
            huber_delta=huber_delta,
        )


class PolynomialRegressor(Regression):
    """:class:`zoo.networks.Polynomial` as a regressor.

    Args:
        degree: highest power.
        in_features: numbers a sample.
        out_features: values a sample.
        domain: lowest and highest input; ``None`` takes those that training shows.
        loss: ``"mse"``, ``"huber"`` or ``"l1"``.
        huber_delta: the residual at which the Huber loss turns into straight lines.
        init: initialisation by name.
        weights: file of weights to begin with.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """

    not_hyperparameters = _NOT_HYPERPARAMETERS

    def __init__(
        self,
        degree: int = 5,
        in_features: int = 1,
        out_features: int = 1,
        domain: tuple[float, float] | None = None,
        loss: str = "mse",
        huber_delta: float = 1.0,
        init: str | None = None,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        network = Polynomial(degree, in_features, out_features, domain)
        super().__init__(
            network=_begin(network, init, weights),
            loss=loss,
            huber_delta=huber_delta,
            optimizer=optimizer,
            scheduler=scheduler,
        )


class MLPRegressor(Regression):
    """:class:`zoo.networks.MLP` as a regressor.

    Args:
        in_features: numbers a sample; images are flattened.
        hidden: width of each hidden layer.
        out_features: values a sample.
        activation: ``"relu"``, ``"leaky_relu"``, ``"prelu"``, ``"sigmoid"``, ``"tanh"`` or ``"gelu"``.
        norm: ``"batch"``, ``"layer"`` or ``None``.
        dropout: probability of dropping a hidden unit, in [0, 1).
        loss: ``"mse"``, ``"huber"`` or ``"l1"``.
        huber_delta: the residual at which the Huber loss turns into straight lines.
        init: initialisation by name.
        weights: file of weights to begin with.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """

    not_hyperparameters = _NOT_HYPERPARAMETERS

    def __init__(
        self,
        in_features: int = 1,
        hidden: tuple[int, ...] = (64, 64),
        out_features: int = 1,
        activation: str = "relu",
        norm: str | None = None,
        dropout: float = 0.0,
        loss: str = "mse",
        huber_delta: float = 1.0,
        init: str | None = None,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        network = MLP(in_features, hidden, out_features, activation, norm, dropout)
        super().__init__(
            network=_begin(network, init, weights),
            loss=loss,
            huber_delta=huber_delta,
            optimizer=optimizer,
            scheduler=scheduler,
        )


class PerceptronClassifier(BinaryClassification):
    """:class:`zoo.networks.Perceptron` as a binary classifier, trained on the logistic loss (logistic regression).

    Args:
        in_features: numbers a sample.
        activation: ``"sigmoid"`` predicts a probability, ``"step"`` 0 or 1.
        pos_weight: weight of the samples of class 1 in the loss; ``None`` is 1.
        threshold: the probability above which class 1 is predicted; a step has no other than 0.5.
        init: initialisation by name.
        weights: file of weights to begin with.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """

    not_hyperparameters = _NOT_HYPERPARAMETERS

    def __init__(
        self,
        in_features: int = 2,
        activation: str = "sigmoid",
        pos_weight: float | None = None,
        threshold: float = 0.5,
        init: str | None = None,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        if activation == "step" and threshold != 0.5:
            raise ValueError(
                f"threshold must be 0.5 with activation='step', which leaves no probability, got {threshold}"
            )
        network = Perceptron(in_features, activation)
        super().__init__(
            network=_begin(network, init, weights),
            pos_weight=pos_weight,
            threshold=threshold,
            optimizer=optimizer,
            scheduler=scheduler,
        )

    def activate(self, logits: Tensor) -> Tensor:
        """Probabilities of class 1, or its decision, from logits."""
        assert isinstance(self.network, Perceptron)
        return self.network.activate(logits)

    def metric_inputs(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        probabilities, targets = super().metric_inputs(outputs, targets)
        if self.hparams["activation"] == "step":
            # At a logit of 0 the step says 1 already, and the metrics are those of what is predicted.
            probabilities = torch.where(outputs >= 0.0, probabilities.clamp(min=0.5000001), probabilities)
        return probabilities, targets


class BinaryMLPClassifier(BinaryClassification):
    """:class:`zoo.networks.MLP` as a binary classifier.

    Args:
        in_features: numbers a sample; images are flattened.
        hidden: width of each hidden layer.
        activation: ``"relu"``, ``"leaky_relu"``, ``"prelu"``, ``"sigmoid"``, ``"tanh"`` or ``"gelu"``.
        norm: ``"batch"``, ``"layer"`` or ``None``.
        dropout: probability of dropping a hidden unit, in [0, 1).
        pos_weight: weight of the samples of class 1 in the loss; ``None`` is 1.
        threshold: the probability above which class 1 is predicted.
        init: initialisation by name.
        weights: file of weights to begin with.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """

    not_hyperparameters = _NOT_HYPERPARAMETERS

    def __init__(
        self,
        in_features: int = 2,
        hidden: tuple[int, ...] = (64, 64),
        activation: str = "relu",
        norm: str | None = None,
        dropout: float = 0.0,
        pos_weight: float | None = None,
        threshold: float = 0.5,
        init: str | None = None,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        network = MLP(in_features, hidden, 1, activation, norm, dropout)
        super().__init__(
            network=_begin(network, init, weights),
            pos_weight=pos_weight,
            threshold=threshold,
            optimizer=optimizer,
            scheduler=scheduler,
        )


class SoftmaxClassifier(MulticlassClassification):
    """:class:`zoo.networks.Linear` as a classifier: multinomial logistic regression.

    Args:
        in_features: numbers a sample; images are flattened.
        num_classes: number of classes.
        label_smoothing: share of the target spread evenly over all classes.
        class_weights: weight of each class in the loss, or ``None``.
        init: initialisation by name.
        weights: file of weights to begin with.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """

    not_hyperparameters = _NOT_HYPERPARAMETERS

    def __init__(
        self,
        in_features: int = 784,
        num_classes: int = 10,
        label_smoothing: float = 0.0,
        class_weights: tuple[float, ...] | None = None,
        init: str | None = None,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        network = Linear(in_features, num_classes)
        super().__init__(
            network=_begin(network, init, weights),
            num_classes=num_classes,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            optimizer=optimizer,
            scheduler=scheduler,
        )


class MLPClassifier(MulticlassClassification):
    """:class:`zoo.networks.MLP` as a classifier.

    Args:
        in_features: numbers a sample; images are flattened.
        num_classes: number of classes.
        hidden: width of each hidden layer.
        activation: ``"relu"``, ``"leaky_relu"``, ``"prelu"``, ``"sigmoid"``, ``"tanh"`` or ``"gelu"``.
        norm: ``"batch"``, ``"layer"`` or ``None``.
        dropout: probability of dropping a hidden unit, in [0, 1).
        label_smoothing: share of the target spread evenly over all classes.
        class_weights: weight of each class in the loss, or ``None``.
        init: initialisation by name.
        weights: file of weights to begin with.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """

    not_hyperparameters = _NOT_HYPERPARAMETERS

    def __init__(
        self,
        in_features: int = 784,
        num_classes: int = 10,
        hidden: tuple[int, ...] = (256, 128),
        activation: str = "relu",
        norm: str | None = None,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        class_weights: tuple[float, ...] | None = None,
        init: str | None = None,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        network = MLP(in_features, hidden, num_classes, activation, norm, dropout)
        super().__init__(
            network=_begin(network, init, weights),
            num_classes=num_classes,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            optimizer=optimizer,
            scheduler=scheduler,
        )


class RegularizedMLPClassifier(MulticlassClassification):
    """:class:`zoo.networks.MLP` as a classifier, with everything that keeps it from learning by heart.

    Batch norm, dropout, weight decay for the weights alone (see :func:`zoo.optim.weight_decay_groups`; how strong is
    the optimizer's matter), and clipped gradients (Pascanu et al. 2013).

    Args:
        in_features: numbers a sample; images are flattened.
        num_classes: number of classes.
        hidden: width of each hidden layer.
        activation: ``"relu"``, ``"leaky_relu"``, ``"prelu"``, ``"sigmoid"``, ``"tanh"`` or ``"gelu"``.
        norm: ``"batch"``, ``"layer"`` or ``None``.
        dropout: probability of dropping a hidden unit, in [0, 1).
        input_dropout: probability of dropping an input, in [0, 1).
        gradient_clip_val: the longest gradient, as a norm over all parameters, that is let through; ``None`` does not
            clip. The trainer's own ``gradient_clip_val``, where there is one, takes its place.
        label_smoothing: share of the target spread evenly over all classes.
        class_weights: weight of each class in the loss, or ``None``.
        init: initialisation by name.
        weights: file of weights to begin with.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """

    not_hyperparameters = _NOT_HYPERPARAMETERS

    def __init__(
        self,
        in_features: int = 784,
        num_classes: int = 10,
        hidden: tuple[int, ...] = (512, 512),
        activation: str = "gelu",
        norm: str | None = "batch",
        dropout: float = 0.3,
        input_dropout: float = 0.0,
        gradient_clip_val: float | None = 1.0,
        label_smoothing: float = 0.0,
        class_weights: tuple[float, ...] | None = None,
        init: str | None = None,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        if gradient_clip_val is not None and not gradient_clip_val > 0.0:
            raise ValueError(f"gradient_clip_val must be greater than 0, or None, got {gradient_clip_val!r}")
        network = MLP(in_features, hidden, num_classes, activation, norm, dropout, input_dropout)
        super().__init__(
            network=_begin(network, init, weights),
            num_classes=num_classes,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            optimizer=optimizer,
            scheduler=scheduler,
        )
        self.gradient_clip_val = gradient_clip_val

    def optimizer_parameters(self) -> list[Any]:
        return weight_decay_groups(self)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        value = self.gradient_clip_val if gradient_clip_val is None else gradient_clip_val
        super().configure_gradient_clipping(optimizer, value, gradient_clip_algorithm)


class DropoutMLPClassifier(MulticlassClassification):
    """:class:`zoo.networks.MLP` as a classifier that dropout and max-norm keep from learning by heart.

    The defaults are a network of Srivastava et al., "Dropout: a simple way to prevent neural networks from
    overfitting", JMLR 15, 2014: three hidden layers of 1,024 ReLU units.

    Args:
        in_features: numbers a sample; images are flattened.
        num_classes: number of classes.
        hidden: width of each hidden layer.
        activation: ``"relu"``, ``"leaky_relu"``, ``"prelu"``, ``"sigmoid"``, ``"tanh"`` or ``"gelu"``.
        dropout: probability of dropping a hidden unit, in [0, 1).
        input_dropout: probability of dropping an input, in [0, 1).
        max_norm: the largest norm of the weights into a hidden unit, see :class:`zoo.max_norm.MaxNorm`, or ``None``.
        label_smoothing: share of the target spread evenly over all classes.
        class_weights: weight of each class in the loss, or ``None``.
        init: initialisation by name.
        weights: file of weights to begin with.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """

    not_hyperparameters = _NOT_HYPERPARAMETERS

    def __init__(
        self,
        in_features: int = 784,
        num_classes: int = 10,
        hidden: tuple[int, ...] = (1024, 1024, 1024),
        activation: str = "relu",
        dropout: float = 0.5,
        input_dropout: float = 0.2,
        max_norm: float | None = 3.0,
        label_smoothing: float = 0.0,
        class_weights: tuple[float, ...] | None = None,
        init: str | None = None,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        if max_norm is not None:
            check_limit(max_norm=max_norm)
        network = MLP(in_features, hidden, num_classes, activation, None, dropout, input_dropout)
        super().__init__(
            network=_begin(network, init, weights),
            num_classes=num_classes,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            optimizer=optimizer,
            scheduler=scheduler,
        )
        self.max_norm = max_norm

    def configure_optimizers(self) -> Any:
        configured = super().configure_optimizers()
        *hidden, _ = [layer.weight for layer in self.network.modules() if isinstance(layer, nn.Linear)]
        trained = [weight for weight in hidden if weight.requires_grad]  # a frozen trunk stays as it is
        if self.max_norm is not None and trained:
            optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
            MaxNorm(trained, self.max_norm).attach(optimizer)
        return configured


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

    not_hyperparameters = _NOT_HYPERPARAMETERS

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
            network=_begin(network, init, weights),
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

    not_hyperparameters = _NOT_HYPERPARAMETERS

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
            network=_begin(network, init, weights),
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

    not_hyperparameters = _NOT_HYPERPARAMETERS

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
            network=_begin(network, init, weights),
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

    not_hyperparameters = _NOT_HYPERPARAMETERS

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
            network=_begin(network, init, weights),
            num_classes=num_classes,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            optimizer=optimizer,
            scheduler=scheduler,
        )


class LeNet5Regressor(Regression):
    """:class:`zoo.networks.LeNet5` as a regressor of one-hot targets: classes by the squared error.

    Beside the figures of a regression ``{val,test}/accuracy``, the share of images whose largest output is their class.

    Args:
        num_classes: number of classes.
        activation: ``"tanh"`` as in the paper, or another name of ``ConvBlock``'s.
        loss: ``"mse"``, ``"huber"`` or ``"l1"``.
        init: initialisation by name.
        weights: file of weights to begin with.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """

    not_hyperparameters = _NOT_HYPERPARAMETERS

    def __init__(
        self,
        num_classes: int = 10,
        activation: str = "tanh",
        loss: str = "mse",
        init: str | None = None,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        network = LeNet5(num_classes=num_classes, activation=activation)
        super().__init__(
            network=_begin(network, init, weights),
            loss=loss,
            metrics={"accuracy": OneHotAccuracy(num_classes)},
            optimizer=optimizer,
            scheduler=scheduler,
        )


class OneHotMLPRegressor(Regression):
    """:class:`zoo.networks.MLP` as a regressor of one-hot targets: classes by the squared error.

    Beside the figures of a regression ``{val,test}/accuracy``, the share of samples whose largest output is their
    class.

    Args:
        in_features: numbers a sample; images are flattened.
        num_classes: number of classes.
        hidden: width of each hidden layer.
        activation: ``"relu"``, ``"leaky_relu"``, ``"prelu"``, ``"sigmoid"``, ``"tanh"`` or ``"gelu"``.
        loss: ``"mse"``, ``"huber"`` or ``"l1"``.
        init: initialisation by name.
        weights: file of weights to begin with.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """

    not_hyperparameters = _NOT_HYPERPARAMETERS

    def __init__(
        self,
        in_features: int = 784,
        num_classes: int = 10,
        hidden: tuple[int, ...] = (300,),
        activation: str = "relu",
        loss: str = "mse",
        init: str | None = None,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        network = MLP(in_features, hidden, num_classes, activation)
        super().__init__(
            network=_begin(network, init, weights),
            loss=loss,
            metrics={"accuracy": OneHotAccuracy(num_classes)},
            optimizer=optimizer,
            scheduler=scheduler,
        )


class RNNClassifier(MulticlassClassification):
    """:class:`zoo.networks.Recurrent` as a classifier of sequences, by the state after the last step.

    Args:
        in_features: numbers a step.
        num_classes: number of classes.
        hidden: width of the state of each layer, in each direction.
        cell: ``"rnn"`` (Elman's, with tanh), ``"gru"`` or ``"lstm"``.
        num_layers: recurrent layers.
        bidirectional: read the sequence backwards as well.
        dropout: probability of dropping a state between two layers, and before the head, in [0, 1).
        label_smoothing: share of the target spread evenly over all classes.
        class_weights: weight of each class in the loss, or ``None``.
        init: initialisation by name.
        weights: file of weights to begin with.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """

    not_hyperparameters = _NOT_HYPERPARAMETERS

    def __init__(
        self,
        in_features: int = 28,
        num_classes: int = 10,
        hidden: int = 128,
        cell: str = "rnn",
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        class_weights: tuple[float, ...] | None = None,
        init: str | None = None,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        network = Recurrent(
            in_features,
            hidden,
            num_classes,
            cell=cell,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
        )
        super().__init__(
            network=_begin(network, init, weights),
            num_classes=num_classes,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            optimizer=optimizer,
            scheduler=scheduler,
        )


class LSTMClassifier(MulticlassClassification):
    """A long short-term memory as a classifier of sequences, by the state after the last step.

    Args:
        in_features: numbers a step.
        num_classes: number of classes.
        hidden: width of the state of each layer, in each direction.
        num_layers: recurrent layers.
        bidirectional: read the sequence backwards as well.
        dropout: probability of dropping a state between two layers, and before the head, in [0, 1).
        label_smoothing: share of the target spread evenly over all classes.
        class_weights: weight of each class in the loss, or ``None``.
        init: initialisation by name.
        weights: file of weights to begin with.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """

    not_hyperparameters = _NOT_HYPERPARAMETERS

    def __init__(
        self,
        in_features: int = 28,
        num_classes: int = 10,
        hidden: int = 128,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        class_weights: tuple[float, ...] | None = None,
        init: str | None = None,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        network = Recurrent(
            in_features,
            hidden,
            num_classes,
            cell="lstm",
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
        )
        super().__init__(
            network=_begin(network, init, weights),
            num_classes=num_classes,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            optimizer=optimizer,
            scheduler=scheduler,
        )


class EnsembleClassifier(EnsembleClassification):
    """Classifiers of this module that vote, see :class:`zoo.networks.Ensemble`.

    Weight decay is for the weights alone, see :func:`zoo.optim.weight_decay_groups`.

    Args:
        members: of each its class and its arguments, such as ``{"class": "VGGClassifier", "kernel_size": 5}``; the
            loss, and with it ``label_smoothing`` and ``class_weights``, is the ensemble's. The default are three
            convolutional networks with kernels of 3, 5 and 7, as An et al. combine them ("An ensemble of simple
            convolutional neural network models for MNIST digit recognition", 2020).
        num_classes: number of classes, of all members.
        voting: ``"soft"`` or ``"hard"``.
        label_smoothing: share of the target spread evenly over all classes.
        class_weights: weight of each class in the loss, or ``None``.
        init: initialisation by name, of all members.
        weights: file of weights to begin with.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.

    Raises:
        ValueError: no members, one of a class that there is not, or arguments that are none of its.
    """

    not_hyperparameters = _NOT_HYPERPARAMETERS

    def __init__(
        self,
        members: tuple[dict[str, Any], ...] = (
            {"class": "VGGClassifier", "kernel_size": 3},
            {"class": "VGGClassifier", "kernel_size": 5, "channels": (32, 64, 96), "depths": (1, 1, 1)},
            {"class": "VGGClassifier", "kernel_size": 7, "channels": (32, 48, 64), "depths": (1, 1, 1)},
        ),
        num_classes: int = 10,
        voting: str = "soft",
        label_smoothing: float = 0.0,
        class_weights: tuple[float, ...] | None = None,
        init: str | None = None,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        network = Ensemble([_make_member(member, num_classes).network for member in members], voting)
        super().__init__(
            network=_begin(network, init, weights),
            num_classes=num_classes,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            optimizer=optimizer,
            scheduler=scheduler,
        )

    @classmethod
    def of(cls, tasks: Sequence[MulticlassClassification], voting: str = "soft") -> EnsembleClassifier:
        """The ensemble of trained classifiers, with copies of their weights; their temperatures are left out.

        Args:
            tasks: of classes of this module, for the same classes.
            voting: ``"soft"`` or ``"hard"``.

        Raises:
            ValueError: none, one of another class, or for other classes than the first.
        """
        for task in tasks:
            check_choice("a member's class", type(task).__name__, _MEMBERS)
            if task.num_classes != tasks[0].num_classes:
                raise ValueError(f"the members tell {tasks[0].num_classes} and {task.num_classes} classes apart")
        members = tuple(
            {"class": type(task).__name__, **{k: v for k, v in task.hparams.items() if k not in _OF_ENSEMBLES}}
            for task in tasks
        )
        ensemble = cls(members, tasks[0].num_classes if tasks else 2, voting)
        for network, task in zip(ensemble.network.members, tasks, strict=True):
            network.load_state_dict(task.network.state_dict())
        return ensemble

    def optimizer_parameters(self) -> list[Any]:
        return weight_decay_groups(self)


_MEMBERS: Mapping[str, type[MulticlassClassification]] = {
    leaf.__name__: leaf
    for leaf in (
        *(SoftmaxClassifier, MLPClassifier, RegularizedMLPClassifier, CNNClassifier, VGGClassifier, LeNet5Classifier),
        *(RNNClassifier, LSTMClassifier),
    )
}

# What a member takes from its ensemble, or may not be told in a checkpoint: a file to read.
_OF_ENSEMBLES = ("num_classes", "label_smoothing", "class_weights", "init", *_NOT_HYPERPARAMETERS)


def _make_member(member: Mapping[str, Any], num_classes: int) -> MulticlassClassification:
    if not isinstance(member, Mapping) or "class" not in member:
        raise ValueError(f"a member must be a dictionary with its 'class' and its arguments, got {member!r:.100}")
    arguments = {name: value for name, value in member.items() if name != "class"}
    check_choice("a member's class", member["class"], _MEMBERS)
    for name in arguments:
        if name in _OF_ENSEMBLES:
            raise ValueError(f"{name} is the ensemble's, and none of a member's arguments")
    try:
        return _MEMBERS[member["class"]](num_classes=num_classes, **arguments)
    except TypeError as error:
        raise ValueError(f"no {member['class']} can be made of {arguments!r:.200}: {error}") from error


class LSTMForecaster(Regression):
    """A long short-term memory that forecasts the next values of a series from a window of the last ones.

    Args:
        in_features: numbers a step.
        horizon: values to forecast, all at once.
        hidden: width of the state of each layer.
        num_layers: recurrent layers.
        dropout: probability of dropping a state between two layers, and before the head, in [0, 1).
        loss: ``"mse"``, ``"huber"`` or ``"l1"``.
        huber_delta: the residual at which the Huber loss turns into straight lines.
        init: initialisation by name.
        weights: file of weights to begin with.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """

    not_hyperparameters = _NOT_HYPERPARAMETERS

    def __init__(
        self,
        in_features: int = 1,
        horizon: int = 1,
        hidden: int = 64,
        num_layers: int = 1,
        dropout: float = 0.0,
        loss: str = "mse",
        huber_delta: float = 1.0,
        init: str | None = None,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        check_positive(horizon=horizon)  # by the name it has here
        network = Recurrent(in_features, hidden, horizon, cell="lstm", num_layers=num_layers, dropout=dropout)
        super().__init__(
            network=_begin(network, init, weights),
            loss=loss,
            huber_delta=huber_delta,
            optimizer=optimizer,
            scheduler=scheduler,
        )


class CRNNTranscriber(SequenceTranscription):
    """:class:`zoo.networks.CRNN` as a reader of lines of text.

    Args:
        alphabet: the characters that are read, each once.
        in_channels: channels of the images.
        image_height: height of the images; their width is free.
        channels: output channels of each convolution block; every block halves the height.
        halve_width: how many of the blocks, from the first, halve the width as well.
        hidden: width of the recurrent state, in each direction.
        cell: ``"lstm"``, ``"gru"`` or ``"rnn"``.
        num_layers: recurrent layers.
        dropout: probability of dropping a state between two layers, and before the head, in [0, 1).
        activation: ``"relu"``, ``"leaky_relu"``, ``"prelu"``, ``"sigmoid"``, ``"tanh"`` or ``"gelu"``.
        decoder: ``"greedy"`` or ``"beam"``, see :mod:`zoo.decoding`.
        beam_width: prefixes kept by ``"beam"``.
        init: initialisation by name.
        weights: file of weights to begin with.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """

    not_hyperparameters = _NOT_HYPERPARAMETERS

    def __init__(
        self,
        alphabet: str = "0123456789",
        in_channels: int = 1,
        image_height: int = 28,
        channels: tuple[int, ...] = (16, 32, 64),
        halve_width: int = 2,
        hidden: int = 96,
        cell: str = "lstm",
        num_layers: int = 1,
        dropout: float = 0.0,
        activation: str = "relu",
        decoder: str = "greedy",
        beam_width: int = 10,
        init: str | None = None,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        check_alphabet(alphabet)
        network = CRNN(
            out_features=1 + len(alphabet),
            in_channels=in_channels,
            image_height=image_height,
            channels=channels,
            halve_width=halve_width,
            hidden=hidden,
            cell=cell,
            num_layers=num_layers,
            dropout=dropout,
            activation=activation,
        )
        super().__init__(
            network=_begin(network, init, weights),
            alphabet=alphabet,
            decoder=decoder,
            beam_width=beam_width,
            optimizer=optimizer,
            scheduler=scheduler,
        )
