"""Networks that read sequences: classifiers, a forecaster, and a transcriber."""

from __future__ import annotations

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from zoo.models.beginning import NOT_HYPERPARAMETERS, begin
from zoo.networks import CRNN, Recurrent
from zoo.networks.checks import check_positive
from zoo.tasks import MulticlassClassification, Regression, SequenceTranscription
from zoo.tasks.sequence import check_alphabet


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

    not_hyperparameters = NOT_HYPERPARAMETERS

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
            network=begin(network, init, weights),
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

    not_hyperparameters = NOT_HYPERPARAMETERS

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
            network=begin(network, init, weights),
            num_classes=num_classes,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            optimizer=optimizer,
            scheduler=scheduler,
        )


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

    not_hyperparameters = NOT_HYPERPARAMETERS

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
            network=begin(network, init, weights),
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

    not_hyperparameters = NOT_HYPERPARAMETERS

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
            network=begin(network, init, weights),
            alphabet=alphabet,
            decoder=decoder,
            beam_width=beam_width,
            optimizer=optimizer,
            scheduler=scheduler,
        )
