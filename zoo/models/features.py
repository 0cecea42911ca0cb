"""Classifiers of samples that are vectors of features, or images read as such."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.max_norm import MaxNorm, check_limit
from zoo.models.beginning import NOT_HYPERPARAMETERS, begin
from zoo.networks import MLP, Linear, Perceptron
from zoo.optim import weight_decay_groups
from zoo.tasks import BinaryClassification, MulticlassClassification


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

    not_hyperparameters = NOT_HYPERPARAMETERS

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
            network=begin(network, init, weights),
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

    not_hyperparameters = NOT_HYPERPARAMETERS

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
            network=begin(network, init, weights),
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

    not_hyperparameters = NOT_HYPERPARAMETERS

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
            network=begin(network, init, weights),
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

    not_hyperparameters = NOT_HYPERPARAMETERS

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
            network=begin(network, init, weights),
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

    not_hyperparameters = NOT_HYPERPARAMETERS

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
            network=begin(network, init, weights),
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

    not_hyperparameters = NOT_HYPERPARAMETERS

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
            network=begin(network, init, weights),
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
