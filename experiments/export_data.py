"""What an exported model is held against: a checkpoint's model, and real inputs for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Generator, Tensor

import datamodules
from datamodules import DataError, DigitStringsDataModule, InMemoryDataModule, MNISTDataModule, TensorDataModule
from zoo import Task
from zoo.checkpointing import read_checkpoint
from zoo.export import Standardization
from zoo.leaves import leaf_of
from zoo.networks import CRNN, ConvNet, LeNet5, Recurrent
from zoo.tasks.base import Inputs, inputs_of
from zoo.tasks.restoring import restore

SAMPLES = 256
_RANDOM_STEPS, _RANDOM_WIDTH = 20, 80
_MOST_NUMBERS = 2**27  # that are made at a checkpoint's word: half a gigabyte
_LARGEST_IMAGE = 64
_PIXELS = "pixels from 0 to 255"


@dataclass(frozen=True)
class CheckData:
    """Inputs for a model, as its network gets them.

    Args:
        inputs: a tensor, or padded inputs and their lengths.
        words: what they are.
        standardization: how raw features become inputs; ``None`` if they are not standardised, or nobody knows.
        note: why they are no better ones; empty for the model's own test data.
    """

    inputs: Inputs
    words: str
    standardization: Standardization | None = None
    note: str = ""


def load_task(path: str | PathLike[str]) -> tuple[Task, dict[str, Any]]:
    """The model in a checkpoint of one of the zoo's ready models, and the contents of the file.

    Raises:
        CheckpointError: no such file, a damaged one, or one that holds something else.
    """
    checkpoint = read_checkpoint(path)
    task: Task = restore(leaf_of(checkpoint, path), checkpoint, path, {})
    return task.eval(), checkpoint


def find_data(task: Task, checkpoint: Mapping[str, Any]) -> CheckData:
    """The checkpoint's own test data where they can be had; else digits, for a model of images; else random inputs.

    Nothing is downloaded, and nothing large is made because a checkpoint says so.
    """
    reason = "the checkpoint does not say what it was trained on"
    for module_class, arguments in _candidates(task, checkpoint):
        own = arguments.get("dataset") != "digits" or _dataset(checkpoint, module_class) == "digits"
        try:
            found = _test_inputs(module_class, arguments, checkpoint)
            with torch.no_grad():
                task.outputs_of((found.inputs, None))
        except (DataError, OSError, MemoryError, OverflowError, RuntimeError, TypeError, ValueError) as error:
            reason = reason if reason.startswith("its own") else f"its own test data are not here: {_one_line(error)}"
            continue
        return found if own else CheckData(found.inputs, found.words, found.standardization, reason)
    return CheckData(random_inputs(task), f"{SAMPLES} random inputs", _recorded(checkpoint), reason)


def _candidates(task: Task, checkpoint: Mapping[str, Any]) -> Iterator[tuple[type[InMemoryDataModule], dict[str, Any]]]:
    """Data modules and their arguments, the better ones first."""
    recorded = checkpoint.get(LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY)
    recorded = recorded if isinstance(recorded, dict) else {}
    module_class = _data_module(checkpoint)
    digits: dict[str, Any] = {"dataset": "digits"}
    if module_class in (MNISTDataModule, DigitStringsDataModule):
        was = _dataset(checkpoint, module_class)
        yield module_class, {**recorded, **({"dataset": was} if was else {}), "source": "local"}
        yield module_class, {**recorded, **digits}
    elif module_class is not None:
        yield module_class, recorded
    elif isinstance(task.network, CRNN):
        yield DigitStringsDataModule, digits
    elif isinstance(task.network, ConvNet | LeNet5):
        yield MNISTDataModule, {**digits, "image_size": task.network.image_size}


def _data_module(checkpoint: Mapping[str, Any]) -> type[InMemoryDataModule] | None:
    """The data module whose state is in a checkpoint, one of this project's that can be made again."""
    for name in datamodules.__all__:
        thing = getattr(datamodules, name)
        is_module = isinstance(thing, type) and issubclass(thing, InMemoryDataModule)
        if is_module and thing is not TensorDataModule and isinstance(checkpoint.get(name), dict):
            found: type[InMemoryDataModule] = thing
            return found
    return None


def _dataset(checkpoint: Mapping[str, Any], module_class: type[InMemoryDataModule]) -> str | None:
    """What the data really were, which may have stood in for others."""
    state = checkpoint.get(module_class.__name__)
    name = state.get("dataset") if isinstance(state, dict) else None
    return name.removesuffix(" lines") if isinstance(name, str) else None


def _test_inputs(
    module_class: type[InMemoryDataModule], arguments: Mapping[str, Any], checkpoint: Mapping[str, Any]
) -> CheckData:
    _refuse_large(arguments)
    # Of lines only those that are looked at, and nothing that only training needs.
    fewer: dict[str, Any] = {"augment": None} if module_class is MNISTDataModule else {}
    if module_class is DigitStringsDataModule:
        asked = arguments.get("test_lines", SAMPLES)
        lines = min(asked, SAMPLES) if type(asked) is int else SAMPLES
        fewer = {"test_lines": lines, "val_lines": 1, "lines_per_epoch": 1}
    sizes = {"batch_size": 1, "eval_batch_size": SAMPLES}
    data = module_class(**{**arguments, **fewer, **sizes})
    data.setup("test")
    recorded = _recorded(checkpoint)
    if recorded is not None:
        data.mean, data.std = recorded.mean, recorded.std
    inputs = inputs_of(next(iter(data.test_dataloader())))
    if not isinstance(inputs, Tensor):
        inputs = tuple(inputs)  # type: ignore[assignment]
    values = inputs if isinstance(inputs, Tensor) else inputs[0]
    own = None if data.mean is None or data.std is None else Standardization(data.mean, data.std)
    if own is not None and isinstance(data, MNISTDataModule | DigitStringsDataModule):
        own = Standardization(own.mean, own.std, _PIXELS)
    return CheckData(inputs, f"{len(values)} test samples of {data.dataset_name}", own)


def _refuse_large(arguments: Mapping[str, Any]) -> None:
    sizes = {name: value for name, value in arguments.items() if type(value) is int}
    names = ("num_samples", "num_features", "num_classes", "window", "horizon")
    if math.prod(max(1, sizes.get(name, 1)) for name in names) > _MOST_NUMBERS:
        raise DataError("they are larger than what is made at a checkpoint's word")
    if sizes.get("image_size", 1) > _LARGEST_IMAGE:
        raise DataError(f"images of {sizes['image_size']} pixels are larger than what is made at a checkpoint's word")


def _recorded(checkpoint: Mapping[str, Any]) -> Standardization | None:
    """What the training split was standardised with."""
    for name in datamodules.__all__:
        state = checkpoint.get(name)
        mean, std = (state.get("mean"), state.get("std")) if isinstance(state, dict) else (None, None)
        if isinstance(mean, Tensor) and isinstance(std, Tensor):
            is_image = name in (MNISTDataModule.__name__, DigitStringsDataModule.__name__)
            return Standardization(mean, std, _PIXELS if is_image else "features")
    return None


def random_inputs(task: Task) -> Inputs:
    """Standard normal inputs of the shape that a model takes, the same each time."""
    draw, network = Generator().manual_seed(0), task.network
    if isinstance(network, CRNN):
        images = torch.randn(SAMPLES, network.in_channels, network.image_height, _RANDOM_WIDTH, generator=draw)
        widths = torch.randint(_RANDOM_WIDTH // 2, _RANDOM_WIDTH + 1, (SAMPLES,), generator=draw)
        return images, widths
    if isinstance(network, ConvNet | LeNet5):
        return torch.randn(SAMPLES, network.in_channels, *[network.image_size] * 2, generator=draw)
    if isinstance(network, Recurrent):
        return torch.randn(SAMPLES, _RANDOM_STEPS, network.cells.input_size, generator=draw)
    return torch.randn(SAMPLES, task.hparams["in_features"], generator=draw)


def _one_line(error: BaseException) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return f"{said[:200]}{'…' if len(said) > 200 else ''}"
