"""A model in a directory of its own, in the layout of the Hugging Face Hub.

``config.json`` says what the model is, ``model.safetensors`` holds its weights, ``README.md`` is its card. Only the
first two are read, and both as if a stranger had written them.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from zoo.checkpointing import write_whole
from zoo.checkpointing.files import local_target
from zoo.checkpointing.safetensors_files import dump_safetensors, parse_safetensors
from zoo.checkpointing.strict_json import JSONError, parse_json
from zoo.leaves import hyperparameter_names
from zoo.pretrained.card import model_card
from zoo.pretrained.forms import PretrainedError, is_arguments, read_bytes, with_tuples
from zoo.pretrained.record import ModelRecord, plain_arguments
from zoo.pretrained.source import Pretrained
from zoo.tasks import Task
from zoo.values import first_not_finite
from zoo.version import __version__
from zoo.wording import with_article

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FILES = (CONFIG, WEIGHTS, CARD)

_MAX_CONFIG_SIZE = 1024 * 1024
_MAX_WEIGHTS_SIZE = 16 * 1024 * 1024 * 1024
# What of a data module's arguments does not say which samples these are, nor in which form.
_WHEREABOUTS = frozenset({"data_dir", "source", "batch_size", "eval_batch_size", "drop_last", "augment"})


def save_pretrained(
    task: Task,
    directory: str | PathLike[str],
    *,
    datamodule: object | None = None,
    metrics: Mapping[str, float] | None = None,
    description: str = "",
    license: str | None = None,  # noqa: A002  # what the Hub calls it
    tags: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write a model into a directory, as ``config.json``, ``model.safetensors`` and ``README.md``.

    :func:`zoo.pretrained.load_pretrained` brings it back, of a class that is not the zoo's with ``cls=``. What is
    written is first made again from itself. The same model gives the same weights file, byte by byte.

    Args:
        task: a ready model of the zoo, or one of your own that is made from plain arguments.
        directory: made if need be; other files in it stay.
        datamodule: what it was trained on, such as those of :mod:`datamodules`: name, arguments and the statistics that
            inputs are standardised with are written down.
        metrics: such as ``trainer.test`` returns, for the card: ``{"test/accuracy": 0.99}``.
        description: for the card, Markdown.
        license: for the card, as the Hub calls it, such as ``"mit"``.
        tags: for the card.
        overwrite: whether files of another model may be replaced.

    Returns:
        The directory.

    Raises:
        TypeError: the task is none, or the data module.
        PretrainedError: the task cannot be made again from plain arguments, holds weights that are not finite, or the
            directory has a model already.
        CheckpointError: it could not be written.
    """
    pretrained = describe(task, datamodule, metrics)
    card = model_card(pretrained.record, task, description, license, tags, name=Path(directory).name)
    return write_directory(pretrained, directory, card, overwrite=overwrite)


def describe(task: Task, datamodule: object | None = None, metrics: Mapping[str, float] | None = None) -> Pretrained:
    """A model as it is written down; see :func:`save_pretrained`."""
    if not isinstance(task, Task):
        raise TypeError(
            f"only a zoo.Task can be saved, got {with_article(type(task).__name__)}: put the network into a task first"
        )
    kind = type(task)
    missing = hyperparameter_names(kind) - set(task.hparams)
    needed = {name for name in kind.not_hyperparameters if name in _required_arguments(kind)}
    if missing or needed:
        raise PretrainedError(
            f"{with_article(kind.__name__)} cannot be made again from plain arguments, as its "
            f"{min(missing | needed)} is none: save the weights alone with "
            "zoo.checkpointing.save_weights(task.network, path), or make a subclass whose __init__ takes "
            "plain arguments and makes the network itself"
        )
    weights = {name: value.detach().cpu() for name, value in task.state_dict().items()}
    broken = first_not_finite(weights.items())
    if broken is not None and not _may_be_infinite(broken):
        raise PretrainedError(f"{with_article(kind.__name__)} with NaN or infinity in {broken} is not saved")
    temperature = getattr(task, "temperature", 1.0)
    record = ModelRecord(
        class_name=kind.__name__,
        module=kind.__module__,
        arguments=plain_arguments({name: task.hparams[name] for name in sorted(hyperparameter_names(kind))}),
        temperature=None if temperature == 1.0 else temperature,
        metrics=_numbers(metrics),
        versions=_versions(),
        sha256=_digest(dump_safetensors(weights, WEIGHTS)),
        **({} if datamodule is None else facts_of(datamodule)),
    )
    pretrained = Pretrained(f"the {kind.__name__}", weights, record)
    pretrained.make(kind)
    return pretrained


def facts_of(datamodule: object) -> dict[str, Any]:
    """What a record says of data, as far as a data module does: fields of :class:`ModelRecord`."""
    if not isinstance(datamodule, LightningDataModule):
        raise TypeError(f"datamodule must be a LightningDataModule, got {with_article(type(datamodule).__name__)}")
    state = datamodule.state_dict()
    given = {name: with_tuples(value) for name, value in datamodule.hparams.items() if name not in _WHEREABOUTS}
    facts: dict[str, Any] = {
        "data_class": type(datamodule).__name__,
        "data": state.get("dataset", type(datamodule).__name__),
        "data_arguments": {name: value for name, value in given.items() if is_arguments({name: value})},
        "checksums": state.get("checksums", {}),
    }
    mean, std = state.get("mean"), state.get("std")
    if isinstance(mean, Tensor) and isinstance(std, Tensor):
        facts.update(mean=tuple(mean.double().flatten().tolist()), std=tuple(std.double().flatten().tolist()))
    return facts


def write_directory(
    pretrained: Pretrained, directory: str | PathLike[str], card: str, *, overwrite: bool = False
) -> Path:
    """Write a model into a directory, with the checksum of its weights as written; see :func:`save_pretrained`."""
    folder = local_target(directory)
    if folder.exists() and not folder.is_dir():
        raise PretrainedError(f"{folder} is a file, and a model is saved as a directory")
    there = [name for name in FILES if (folder / name).exists()]
    if there and not overwrite:
        raise PretrainedError(f"{folder} holds a {there[0]} already: give another directory, or overwrite=True")
    weights = dump_safetensors(pretrained.checkpoint()["state_dict"], str(folder / WEIGHTS))
    known = {each.name: getattr(pretrained.record, each.name) for each in fields(ModelRecord)}
    record = ModelRecord(**{**known, "sha256": _digest(weights)})
    config = (json.dumps(record.as_json(), indent=2, allow_nan=False) + "\n").encode()
    if len(config) > _MAX_CONFIG_SIZE:
        raise PretrainedError(f"{folder / CONFIG} was not written: it would be larger than {_MAX_CONFIG_SIZE:,} bytes")
    # The configuration last: until it is there, and has the weights' checksum, nothing is loaded.
    write_whole(weights, folder / WEIGHTS)
    write_whole(card.encode(), folder / CARD)
    write_whole(config, folder / CONFIG)
    return folder


def open_directory(directory: str | PathLike[str]) -> Pretrained:
    """The model in a directory that :func:`save_pretrained` wrote.

    Links are followed: a client of the Hub keeps files elsewhere and links to them.

    Raises:
        PretrainedError: there is none, or a file is not the one that was saved.
        CheckpointError: the weights are no safetensors file.
    """
    folder = Path(directory)
    if not (folder / CONFIG).exists():
        inside = sorted(folder.glob("*.ckpt")) or sorted(folder.glob("checkpoints/*.ckpt"))
        advice = f": there is the checkpoint {inside[0]}" if inside else ": it was not written by save_pretrained"
        raise PretrainedError(f"{folder} holds no {CONFIG}{advice}")
    config = folder / CONFIG
    try:
        record = ModelRecord.from_json(parse_json(read_bytes(config, _MAX_CONFIG_SIZE)))
    except JSONError as error:
        raise PretrainedError(f"{config} cannot be used: {error}") from error
    except PretrainedError as error:
        told = str(error)
        raise PretrainedError(told if str(config) in told else f"{config} cannot be used: {told}") from error
    data = read_bytes(folder / WEIGHTS, _MAX_WEIGHTS_SIZE)
    if (found := _digest(data)) != record.sha256:
        raise PretrainedError(
            f"{folder / WEIGHTS} is not the file that was saved: its SHA-256 is {found}, that in {CONFIG} is "
            f"{record.sha256}"
        )
    return Pretrained(str(folder), parse_safetensors(data, str(folder / WEIGHTS)), record)


def _numbers(metrics: Mapping[str, float] | None) -> dict[str, float]:
    try:
        return {name: float(value) for name, value in dict(metrics or {}).items()}
    except (TypeError, ValueError) as error:
        raise PretrainedError(f"metrics must be finite numbers by name, got {metrics!a:.100}") from error


def _required_arguments(kind: type[Task]) -> set[str]:
    parameters = inspect.signature(kind).parameters.values()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {each.name for each in parameters if each.default is each.empty and each.kind not in kinds}


def _may_be_infinite(name: str) -> bool:
    """The domain of a polynomial that has seen nothing yet is empty, from infinity to minus infinity."""
    return name in ("network.low", "network.high")


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "lightning": lightning.__version__,
        "lightning-model-zoo": __version__,
    }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
