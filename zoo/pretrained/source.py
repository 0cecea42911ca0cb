"""A model before it is made: its weights, what is known of them, and which class it is of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from zoo.leaves import LEAVES, UnknownTaskError, hyperparameter_names
from zoo.pretrained.forms import PretrainedError
from zoo.pretrained.record import OWN_MODULE, ModelRecord
from zoo.tasks import Task
from zoo.tasks.base import TASK_CLASS_KEY
from zoo.tasks.restoring import restore
from zoo.tasks.temperature import TEMPERATURE_KEY
from zoo.tasks.transfer import TransferLearning
from zoo.wording import with_article

AnyTask = TypeVar("AnyTask", bound=TransferLearning)


@dataclass(frozen=True)
class Pretrained:
    """A model before it is made.

    Args:
        name: what it is called in messages.
        weights: by name, those of the whole task or of its network alone.
        record: what is known of it.
    """

    name: str
    weights: Mapping[str, Tensor]
    record: ModelRecord

    def checkpoint(self) -> dict[str, Any]:
        """The same in the form of a checkpoint."""
        weights = dict(self.weights)
        if not any(key.startswith("network.") for key in weights):
            weights = {f"network.{key}": value for key, value in weights.items()}
        contents: dict[str, Any] = {
            TASK_CLASS_KEY: f"{self.record.module}.{self.record.class_name}",
            Task.CHECKPOINT_HYPER_PARAMS_KEY: dict(self.record.arguments),
            "state_dict": weights,
        }
        if self.record.temperature is not None:
            contents[TEMPERATURE_KEY] = self.record.temperature
        return contents

    def task_class(self) -> type[Task]:
        """The class, if it is one of the zoo's: a name that is looked up, never imported.

        Raises:
            UnknownTaskError: it is none.
        """
        record = self.record
        if record.module != OWN_MODULE:
            named = f"{record.module}.{record.class_name}"
            raise UnknownTaskError(
                f"{self.name} is {with_article(named)}, which is none of the zoo's ready models: if "
                f"you have its code, load it with load_pretrained(..., cls={record.class_name})"
            )
        if record.class_name not in LEAVES:
            raise UnknownTaskError(
                f"{self.name} is {with_article(record.class_name)}, which this version of the zoo does not have"
            )
        return LEAVES[record.class_name]

    def make(self, task_class: type[AnyTask]) -> AnyTask:
        """The model, with its weights, on the CPU.

        Raises:
            CheckpointError: it is of another class, or its arguments and weights are not those of one model.
        """
        self.require_class(task_class)
        taken = hyperparameter_names(task_class)
        unknown = [name for name in self.record.arguments if name not in taken]
        if unknown:
            raise PretrainedError(
                f"{self.name} is no {task_class.__name__} of this version: it has {with_article(unknown[0])}"
            )
        return restore(task_class, self.checkpoint(), self.name, {})

    def require_class(self, task_class: type[TransferLearning]) -> None:
        """Raise a :class:`PretrainedError` unless a class is the model's, or one derived from that."""
        wanted = self.record.class_name
        if wanted not in (each.__name__ for each in task_class.__mro__):
            raise PretrainedError(
                f"{self.name} is {with_article(wanted)}, not {with_article(task_class.__name__)}: load it as {wanted}"
            )


def nearest(name: str, known: Iterable[str]) -> str:
    """A question for the end of a message: did you mean the name that is most like it?"""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""
