"""Any of the ready models, out of a checkpoint that says itself which one it is."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from os import PathLike
from typing import Any

from zoo import models
from zoo.checkpointing import CheckpointError, MapLocation, read_checkpoint
from zoo.tasks import Task
from zoo.tasks.base import TASK_CLASS_KEY
from zoo.tasks.restoring import restore, where_it_was
from zoo.tasks.transfer import TransferLearning
from zoo.wording import with_article

LEAVES: Mapping[str, type[Task]] = {
    name: thing
    for name, thing in vars(models).items()
    if isinstance(thing, type) and issubclass(thing, Task) and thing.__module__ == models.__name__
}
"""The ready models by name. A checkpoint may name one of these; what else it names is not looked up."""


class UnknownTaskError(CheckpointError):
    """A checkpoint of something that is not one of the ready models."""


def load_leaf(path: str | PathLike[str], map_location: MapLocation | None = None) -> Task:
    """The model in a checkpoint of one of the zoo's ready models, whichever it is.

    Args:
        path: a local file, read as :meth:`Task.load_from_checkpoint` does.
        map_location: as there.

    Raises:
        UnknownTaskError: it is a checkpoint of something else.
        CheckpointError: see there.
    """
    checkpoint = read_checkpoint(path, map_location or where_it_was)
    model: Task = restore(leaf_of(checkpoint, path), checkpoint, path, {})
    return model


def leaf_of(checkpoint: Mapping[str, Any], source: object) -> type[Task]:
    """Which of the ready models a checkpoint is of: the one it names, or the one whose hyperparameters it has.

    The latter is for checkpoints from before they named one.

    Args:
        checkpoint: what :func:`zoo.checkpointing.read_checkpoint` returned.
        source: what the checkpoint is called in messages.

    Raises:
        UnknownTaskError: it is of none.
    """
    named = task_name(checkpoint)
    if named is not None:
        module, _, name = named.rpartition(".")
        if module == models.__name__ and name in LEAVES:
            return LEAVES[name]
        raise UnknownTaskError(
            f"{source} holds {with_article(ascii(named)[1:-1]):.200}, which is none of the zoo's ready models"
        )
    saved = checkpoint.get(Task.CHECKPOINT_HYPER_PARAMS_KEY, {})
    names = set(saved) if isinstance(saved, dict) else set()
    found = [leaf for leaf in LEAVES.values() if names == hyperparameter_names(leaf)]
    if len(found) != 1:
        raise UnknownTaskError(f"{source} does not say which model it holds, and its hyperparameters are those of none")
    return found[0]


def task_name(checkpoint: Mapping[str, Any]) -> str | None:
    """The class that a checkpoint says it is of, as ``"module.Class"``, for messages and look-ups alone."""
    named = checkpoint.get(TASK_CLASS_KEY)
    return named if isinstance(named, str) else None


def hyperparameter_names(task_class: type[TransferLearning]) -> set[str]:
    """What a class keeps of its arguments in a checkpoint."""
    return set(inspect.signature(task_class).parameters) - set(task_class.not_hyperparameters)
