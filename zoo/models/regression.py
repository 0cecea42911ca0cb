"""Networks that give values: linear, polynomial, of several layers, and classes by regression on one-hot targets."""

from __future__ import annotations

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from zoo.models.beginning import NOT_HYPERPARAMETERS, begin
from zoo.networks import MLP, LeNet5, Linear, Polynomial
from zoo.tasks import GradientDescentRegression, Regression
from zoo.tasks.one_hot import OneHotAccuracy


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

    not_hyperparameters = NOT_HYPERPARAMETERS

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
            network=begin(network, init, weights),
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

    not_hyperparameters = NOT_HYPERPARAMETERS

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
            network=begin(network, init, weights),
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

    not_hyperparameters = NOT_HYPERPARAMETERS

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
            network=begin(network, init, weights),
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

    not_hyperparameters = NOT_HYPERPARAMETERS

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
            network=begin(network, init, weights),
            loss=loss,
            huber_delta=huber_delta,
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

    not_hyperparameters = NOT_HYPERPARAMETERS

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
            network=begin(network, init, weights),
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

    not_hyperparameters = NOT_HYPERPARAMETERS

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
            network=begin(network, init, weights),
            loss=loss,
            metrics={"accuracy": OneHotAccuracy(num_classes)},
            optimizer=optimizer,
            scheduler=scheduler,
        )
