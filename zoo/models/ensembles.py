"""Classifiers that vote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from zoo.models.beginning import NOT_HYPERPARAMETERS, begin
from zoo.models.features import MLPClassifier, RegularizedMLPClassifier, SoftmaxClassifier
from zoo.models.images import CNNClassifier, LeNet5Classifier, StridedCNNClassifier, VGGClassifier
from zoo.models.sequences import LSTMClassifier, RNNClassifier
from zoo.networks import Ensemble
from zoo.networks.checks import check_choice
from zoo.optim import weight_decay_groups
from zoo.tasks import EnsembleClassification, MulticlassClassification


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

    not_hyperparameters = NOT_HYPERPARAMETERS

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
            network=begin(network, init, weights),
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
        # Not DropoutMLPClassifier: its max-norm is its own optimizer's, and an ensemble has one for all.
        *(SoftmaxClassifier, MLPClassifier, RegularizedMLPClassifier, RNNClassifier, LSTMClassifier),
        *(CNNClassifier, StridedCNNClassifier, VGGClassifier, LeNet5Classifier),
    )
}

# What a member takes from its ensemble, or may not be told in a checkpoint: a file to read.
_OF_ENSEMBLES = ("num_classes", "label_smoothing", "class_weights", "init", *NOT_HYPERPARAMETERS)


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
