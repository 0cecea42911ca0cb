"""Real inputs for a trained model, which an exported one is held against it with."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor

from datamodules import DataError, DigitStringsDataModule, InMemoryDataModule, MNISTDataModule
from experiments.checkpoints import DATA_MODULES, Trained, TrainingData, data_arguments
from zoo import Task
from zoo.checkpointing import CheckpointError
from zoo.export import Standardization
from zoo.networks import CRNN, ConvNet, LeNet5, Recurrent
from zoo.tasks.base import Inputs, inputs_of

SAMPLES = 256
_RANDOM_STEPS, _RANDOM_WIDTH = 20, 80
_OF_DIGITS = (MNISTDataModule, DigitStringsDataModule)
# Of lines only those that are looked at; of any data nothing that only training needs.
_FEWER = {"test_lines": SAMPLES, "val_lines": 1, "lines_per_epoch": 1}
_SIZES = {"batch_size": 1, "eval_batch_size": SAMPLES}
_UNUSABLE = (
    *(CheckpointError, DataError, OSError, MemoryError),
    *(AttributeError, OverflowError, RuntimeError, TypeError, ValueError),  # of arguments, or samples, that do not fit
)


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


def find_data(trained: Trained) -> CheckData:
    """A model's own test data where they can be had; else digits, for a model of images; else random inputs.

    Nothing is downloaded, and nothing large is made because a checkpoint says so.
    """
    recorded = trained.data
    note = "the checkpoint does not say what its data were"
    if recorded is not None:
        note = f"its own test data, of {recorded.dataset}, cannot be made again"
        if recorded.class_name in DATA_MODULES and recorded.arguments:
            try:
                return _fitting(trained.task, _own(recorded))
            except _UNUSABLE as error:
                note = f"its own test data, of {recorded.dataset}, are not here: {_one_line(error)}"
    for make in (_digits_as_trained, _digits):
        try:
            return replace(_fitting(trained.task, make(trained)), note=note)
        except _UNUSABLE:
            continue
    inputs = random_inputs(trained.task)
    shape = (inputs if isinstance(inputs, Tensor) else inputs[0]).shape[1:]
    return CheckData(inputs, f"{SAMPLES} random inputs", _standardization(recorded, shape), note)


def _fitting(task: Task, data: CheckData) -> CheckData:
    """The data, if the model takes them; whatever it says to others is raised."""
    with torch.no_grad():
        task.outputs_of((data.inputs, None))
    return data


def _own(recorded: TrainingData) -> CheckData:
    data_class = DATA_MODULES[recorded.class_name]
    fewer = dict(_FEWER) if data_class is DigitStringsDataModule else {}
    lines = recorded.arguments.get("test_lines")
    if fewer and type(lines) is int:
        fewer["test_lines"] = min(lines, SAMPLES)
    return _test_inputs(data_class, data_arguments(recorded, {**fewer, **_SIZES}), recorded)


def _digits_as_trained(trained: Trained) -> CheckData:
    """The bundled digits in the place of MNIST or its relatives, in the same form and scale."""
    recorded = trained.data
    data_class = None if recorded is None else DATA_MODULES.get(recorded.class_name)
    if recorded is None or data_class not in _OF_DIGITS:
        raise DataError("it was not trained on images of digits")
    fewer = _FEWER if data_class is DigitStringsDataModule else {}
    arguments = data_arguments(recorded, {**fewer, **_SIZES, "dataset": "digits"})
    return _test_inputs(data_class, arguments, recorded)


def _digits(trained: Trained) -> CheckData:
    """The bundled digits for any model of images."""
    network = trained.task.network
    if isinstance(network, CRNN):
        shape = (network.in_channels, network.image_height, _RANDOM_WIDTH)
        data = _test_inputs(DigitStringsDataModule, {"dataset": "digits", **_FEWER, **_SIZES}, None)
    elif isinstance(network, ConvNet | LeNet5):
        shape = (network.in_channels, network.image_size, network.image_size)
        arguments = {"dataset": "digits", "image_size": network.image_size, **_SIZES}
        data = _test_inputs(MNISTDataModule, arguments, None)
    else:
        raise DataError("it reads no images")
    return replace(data, standardization=_standardization(trained.data, shape))


def _test_inputs(
    data_class: Callable[..., InMemoryDataModule], arguments: dict[str, Any], recorded: TrainingData | None
) -> CheckData:
    """The first test samples, standardised as the model's training data were where that is known."""
    data = data_class(**arguments)
    data.setup("test")
    first = data.splits.test.features[:1]
    known = _standardization(recorded, first.shape[1:])
    if known is not None and data.mean is not None:
        data.mean, data.std = known.mean, known.std
    inputs = inputs_of(next(iter(data.test_dataloader())))
    values: Tensor = inputs if isinstance(inputs, Tensor) else next(iter(inputs))
    return CheckData(inputs, f"{len(values)} test samples of {data.dataset_name}", known)


def _standardization(recorded: TrainingData | None, sample: Sequence[int]) -> Standardization | None:
    """What a checkpoint says of its features' scale, if it is one of samples of this shape."""
    if recorded is None or recorded.mean is None or recorded.std is None or not (recorded.std > 0.0).all():
        return None
    for part in (recorded.mean, recorded.std):
        shape = (1,) * (len(sample) - part.ndim) + tuple(part.shape)
        fits = len(shape) == len(sample) and all(size in (1, of) for size, of in zip(shape, sample, strict=True))
        if not fits and part.numel() > 1:
            return None
    is_image = DATA_MODULES.get(recorded.class_name) in _OF_DIGITS
    return Standardization(recorded.mean, recorded.std, "pixels from 0 to 255" if is_image else "features")


def random_inputs(task: Task) -> Inputs:
    """Standard normal inputs of the shape that a model takes, the same each time.

    Raises:
        DataError: that is not known.
    """
    draw, network = Generator().manual_seed(0), task.network
    if isinstance(network, CRNN):
        images = torch.randn(SAMPLES, network.in_channels, network.image_height, _RANDOM_WIDTH, generator=draw)
        widths = torch.randint(_RANDOM_WIDTH // 2, _RANDOM_WIDTH + 1, (SAMPLES,), generator=draw)
        return images, widths
    if isinstance(network, ConvNet | LeNet5):
        return torch.randn(SAMPLES, network.in_channels, *[network.image_size] * 2, generator=draw)
    if isinstance(network, Recurrent):
        return torch.randn(SAMPLES, _RANDOM_STEPS, network.cells.input_size, generator=draw)
    width = task.hparams.get("in_features")
    if type(width) is not int:
        raise DataError(
            f"what {type(task).__name__} takes is not known, so that there are no inputs to hold it against: export it "
            "from Python, with zoo.export"
        )
    return torch.randn(SAMPLES, width, generator=draw)


def _one_line(error: BaseException) -> str:
    # Without its advice, which is for those who wanted these data and no others.
    said = " ".join(re.split("; |: give ", str(error))[0].split()) or type(error).__name__
    return f"{said[:200]}{'…' if len(said) > 200 else ''}"
