"""New models that begin with the weights of others."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from os import PathLike
from typing import Any, TypeVar

import torch
from torch import Tensor

from zoo.checkpointing import read_checkpoint
from zoo.leaves import task_name
from zoo.networks.checks import check_choice
from zoo.networks.heads import heads_of, is_in_head, trunk_of
from zoo.pretrained.forms import PretrainedError
from zoo.pretrained.loading import open_pretrained
from zoo.pretrained.source import Pretrained, nearest
from zoo.tasks.restoring import restore, shapes
from zoo.tasks.transfer import TRUNK, TransferLearning
from zoo.wording import with_article

AnyTask = TypeVar("AnyTask", bound=TransferLearning)

HEAD_ARGUMENTS = ("num_classes", "out_features", "horizon", "alphabet")
"""Arguments that say what a model's outputs are."""

_ABOUT_CLASSES = ("class_weights",)
_NOT_TAKEN = ("network", "metrics", "weights")


def from_pretrained(
    task_class: type[AnyTask], source: str | PathLike[str], freeze: str | None, arguments: Mapping[str, Any]
) -> AnyTask:
    """See :meth:`zoo.Task.from_pretrained`."""
    check_choice("freeze", freeze, (TRUNK,), or_none=True)
    _check_arguments(task_class, arguments)
    with torch.random.fork_rng(devices=[]):  # what is drawn for weights that are replaced shall not change the head's
        before = _load(task_class, source)
    new_head = any(name in arguments for name in HEAD_ARGUMENTS)
    if new_head or freeze is not None:
        trunk_of(before.network)
    saved = {name: before.hparams[name] for name in before.hparams if name in _parameters(task_class)}
    if new_head:  # what was said of the classes before says nothing of others
        saved = {name: value for name, value in saved.items() if name not in _ABOUT_CLASSES}
    model = task_class(**{**saved, **arguments})
    _take_over(model, before, source, arguments, keep_head=not new_head)
    if not new_head and hasattr(before, "temperature"):
        model.temperature = before.temperature
    if freeze is not None:
        model.freeze_trunk()
    return model


def _load(task_class: type[AnyTask], source: str | PathLike[str]) -> AnyTask:
    found = open_pretrained(source)
    if isinstance(found, Pretrained):
        made: AnyTask = found.make(task_class)
        return made
    contents = read_checkpoint(found)
    named = (task_name(contents) or task_class.__name__).rpartition(".")[2]
    if named not in (each.__name__ for each in task_class.__mro__):
        raise PretrainedError(
            f"{found} is {with_article(named):.100}, not {with_article(task_class.__name__)}: load it as {named:.100}"
        )
    return restore(task_class, contents, found, {})


def _take_over(
    model: TransferLearning, before: TransferLearning, source: object, given: Mapping[str, Any], *, keep_head: bool
) -> None:
    """Give a model the weights of the one before, its head's only if they are to be kept."""
    replaced = [] if keep_head else heads_of(before.network)
    weights: dict[str, Tensor] = {
        name: value for name, value in before.network.state_dict().items() if not is_in_head(name, replaced)
    }
    own, kept = shapes(model.network.state_dict()), shapes(weights)
    for name in [*kept, *own]:
        if own.get(name) != kept.get(name) and not is_in_head(name, replaced):
            changed = ", ".join(f"{key}={value!r:.100}" for key, value in given.items() if key not in HEAD_ARGUMENTS)
            raise ValueError(
                f"the weights of {source} do not fit {with_article(type(model).__name__)} with "
                f"{changed or 'these arguments'}: {name} is {kept.get(name, 'missing')} in them and "
                f"{own.get(name, 'missing')} in the model"
            )
    model.network.load_state_dict(weights, strict=False)


def _parameters(task_class: type[TransferLearning]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(task_class).parameters


def _check_arguments(task_class: type[TransferLearning], arguments: Mapping[str, Any]) -> None:
    known = [name for name in _parameters(task_class) if name not in _NOT_TAKEN]
    for name in arguments:
        if name in known:
            continue
        raise TypeError(f"{task_class.__name__}.from_pretrained takes no argument {name!r}{nearest(name, known)}")
