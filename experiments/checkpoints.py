"""Trained models from their checkpoints, whichever they are, and what a checkpoint says of the data behind it."""

from __future__ import annotations

import ast
import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from datamodules import (
    DigitStringsDataModule,
    GaussianBlobsDataModule,
    InMemoryDataModule,
    LinearDataModule,
    MNISTDataModule,
    MoonsDataModule,
    PolynomialDataModule,
    SineDataModule,
    TensorDataModule,
    XORDataModule,
)
from experiments.__main__ import list_experiments
from experiments.cli_errors import UsageError, closest
from zoo import Task
from zoo.checkpointing import CheckpointError, read_checkpoint
from zoo.leaves import LEAVES, UnknownTaskError, leaf_of, task_name
from zoo.pretrained import ModelRecord
from zoo.pretrained.loading import open_pretrained
from zoo.pretrained.shipped import FOLDER
from zoo.pretrained.source import Pretrained
from zoo.tasks.restoring import restore
from zoo.wording import with_article

#: What a data module can be named by; those whose data are tensors cannot be made from a command line.
DATA_MODULES: Mapping[str, type[InMemoryDataModule]] = {
    data_class.__name__: data_class
    for data_class in (
        DigitStringsDataModule,
        GaussianBlobsDataModule,
        LinearDataModule,
        MNISTDataModule,
        MoonsDataModule,
        PolynomialDataModule,
        SineDataModule,
        XORDataModule,
    )
}

_IMAGE_DATA = (MNISTDataModule.__name__, DigitStringsDataModule.__name__)
_MOST_NUMBERS = 200_000_000
_TRAINING_ONLY = ("augment", "batch_size")


@dataclass(frozen=True)
class TrainingData:
    """The data that a model was trained on, as its checkpoint says.

    Args:
        class_name: of the data module.
        arguments: of the data module, plain values; empty where the checkpoint holds none.
        dataset: what the data really were.
        mean: of the training split, raw, with which features are standardised; ``None`` if they are not.
        std: likewise.
        checksums: of each split, by name.
    """

    class_name: str
    arguments: Mapping[str, Any]
    dataset: str
    mean: Tensor | None
    std: Tensor | None
    checksums: Mapping[str, int]


@dataclass(frozen=True)
class Trained:
    """A model and where it comes from.

    Args:
        source: the path of its checkpoint or directory, or the name of shipped weights.
        contents: of the checkpoint, or in its form.
        task: the model, in evaluation mode and on the CPU.
        data: what it was trained on; ``None`` if the checkpoint does not say.
        pretrained: what the directory, or the manifest of shipped weights, says of it; ``None`` for a checkpoint.
    """

    source: Path
    contents: dict[str, Any]
    task: Task
    data: TrainingData | None
    pretrained: Pretrained | None = None


def load_trained(path: str, model: str | None = None, weights: Path = FOLDER) -> Trained:
    """The model in a checkpoint or a directory, or of the name of shipped weights.

    Args:
        path: of the checkpoint, or of a directory that ``zoo.save_pretrained`` wrote; or a name.
        model: the class, as ``--model`` names it: one of the zoo's, or ``module.Class`` of anyone's code, which is
            imported; ``None`` looks up the class that the checkpoint names, and imports nothing but this project's own.
        weights: the folder of the shipped weights.

    Raises:
        CheckpointError: see there.
        UsageError: there is no such class.
    """
    found = open_pretrained(path, weights)
    if isinstance(found, Pretrained):
        made = found.make(_pretrained_class(found) if model is None else _named(model))
        return Trained(Path(path), found.checkpoint(), made.eval(), _recorded_data(found.record), found)
    checkpoint = read_checkpoint(path)
    task_class = _task_class(checkpoint, path) if model is None else _named(model)
    task: Task = restore(task_class, checkpoint, path, {})
    return Trained(Path(path), checkpoint, task.eval(), training_data(checkpoint))


def _pretrained_class(found: Pretrained) -> type[Task]:
    try:
        return found.task_class()
    except UnknownTaskError as error:
        named = f"{found.record.module}.{found.record.class_name}"
        own = _of_an_experiment(named)
        if own is None:
            raise UnknownTaskError(
                f"{found.name} is {with_article(named)}, which is none of the zoo's: if "
                "you trust its code, name its class with --model module.Class"
            ) from error
        return own


def _task_class(checkpoint: Mapping[str, Any], path: str) -> type[Task]:
    try:
        return leaf_of(checkpoint, path)
    except UnknownTaskError as error:
        own = _of_an_experiment(task_name(checkpoint) or "")
        if own is None:
            raise UnknownTaskError(
                f"{error}: if you trust its code, name its class with --model module.Class"
            ) from error
        return own


def _of_an_experiment(name: str) -> type[Task] | None:
    """The model that one of the experiments defines for itself; run with ``python -m`` that is ``__main__``.

    One that is among the zoo's models by now was its experiment's when the checkpoint was written.
    """
    module, _, class_name = name.rpartition(".")
    if class_name in LEAVES and (module == "__main__" or module.startswith("experiments.")):
        return LEAVES[class_name]
    for experiment in list_experiments():
        if module not in ("__main__", f"experiments.{experiment}"):
            continue
        source = Path(__file__).with_name(f"{experiment}.py").read_text(encoding="utf-8")
        if any(isinstance(node, ast.ClassDef) and node.name == class_name for node in ast.parse(source).body):
            found: Any = getattr(importlib.import_module(f"experiments.{experiment}"), class_name)
            return found if issubclass(found, Task) else None
    return None


def _named(name: str) -> type[Task]:
    if name in LEAVES:
        return LEAVES[name]
    module, _, class_name = name.rpartition(".")
    if not module:
        close = closest(name, LEAVES)
        raise UsageError(
            f"--model: the zoo has no {name!r}; "
            + (f"did you mean {close}?" if close else f"it has {', '.join(LEAVES)}, and others are named module.Class")
        )
    try:
        found = getattr(importlib.import_module(module), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--model: there is no {name} ({error})") from error
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise UsageError(f"--model: {name} is no task")
    return found


def training_data(checkpoint: Mapping[str, Any]) -> TrainingData | None:
    """What a checkpoint says of its data; ``None`` if nothing, or not what this project writes.

    Nothing in it is believed further than its form: it may have been made by anyone.
    """
    for name in (*DATA_MODULES, TensorDataModule.__name__):
        state = checkpoint.get(name)
        if not isinstance(state, dict) or not isinstance(state.get("dataset"), str):
            continue
        arguments = checkpoint.get(LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY)
        checksums = state.get("checksums")
        return TrainingData(
            name,
            arguments if isinstance(arguments, dict) and all(type(key) is str for key in arguments) else {},
            state["dataset"],
            _statistic(state.get("mean")),
            _statistic(state.get("std")),
            checksums if isinstance(checksums, dict) else {},
        )
    return None


def _recorded_data(record: ModelRecord) -> TrainingData | None:
    """What a record says of a model's data, likewise."""
    if record.data is None or record.data_class is None:
        return None
    arguments, shape = dict(record.data_arguments), [-1]
    if record.data_class in _IMAGE_DATA:
        arguments["source"], shape = "local", [-1, 1, 1]  # one a channel
    mean, std = (None if each is None else torch.tensor(each).reshape(shape) for each in (record.mean, record.std))
    return TrainingData(record.data_class, arguments, record.data, mean, std, record.checksums)


def _statistic(value: Any) -> Tensor | None:
    usable = isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 0 and value.isfinite().all()
    return value.to("cpu", torch.float32) if usable else None


def data_arguments(data: TrainingData, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that make a model's training data again, for who only wants to look at them.

    What only training needs is left out, and nothing is downloaded that nobody asks for: where files go is not for a
    checkpoint to say.

    Args:
        data: what the checkpoint says.
        given: arguments that win over the checkpoint's.

    Raises:
        CheckpointError: it asks for more data than a checkpoint may.
    """
    recorded = {name: value for name, value in data.arguments.items() if name not in _TRAINING_ONLY}
    if "drop_last" in recorded:
        recorded["drop_last"] = False  # fewer samples than a training batch are no reason not to look at them
    if "dataset" in recorded:
        # What had to stand in for another is what it was trained on.
        recorded["dataset"] = data.dataset.removesuffix(" lines")
    if "source" in recorded:
        recorded["source"] = "local"
    asked = _numbers_asked_for({name: value for name, value in recorded.items() if name not in given})
    if asked > _MOST_NUMBERS:
        raise CheckpointError(
            f"the checkpoint asks for data of {asked:,} numbers, more than are made at a checkpoint's word: give the "
            "sizes of its data yourself, with --data.*"
        )
    return {**recorded, **given}


def _numbers_asked_for(arguments: Mapping[str, Any]) -> int:
    """How many numbers data of such sizes hold, about: made samples, images, or lines of digits."""
    sizes = {name: max(1, value) for name, value in arguments.items() if type(value) is int}
    made = math.prod(size for name, size in sizes.items() if name.startswith("num_") or name in ("window", "horizon"))
    images = 70_000 * sizes.get("image_size", 1) ** 2
    lines = (sizes.get("val_lines", 1) + sizes.get("test_lines", 1)) * sizes.get("max_digits", 1) * 28**2
    return max(made, images, lines)
