"""What an exported file says of itself."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from zoo.export.graph import INPUTS, LENGTHS, Graph, TensorShape, free_dimension, output_name
from zoo.export.parity import Parity
from zoo.tasks import BinaryClassification, MulticlassClassification, SequenceTranscription
from zoo.tasks.temperature import TemperatureScaling
from zoo.version import __version__

_PACKAGES = ("torch", "lightning", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Standardization:
    """How raw features become what a network gets: ``(raw - mean) / std``.

    Args:
        mean: broadcastable to a sample, such as ``(channels, 1, 1)`` of images.
        std: likewise.
        unit: what the raw features are, such as ``"pixels from 0 to 255"``.
    """

    mean: Tensor
    std: Tensor
    unit: str = ""

    def described(self) -> dict[str, Any]:
        """As plain values."""
        # One number for all is one in every language, a tensor of one is not.
        mean, std = (part.item() if part.numel() == 1 else part.tolist() for part in (self.mean, self.std))
        plain = {"formula": "(raw - mean) / std", "mean": mean, "std": std}
        return {**plain, "raw": self.unit} if self.unit else plain


def signature(
    graph: Graph, inputs: tuple[Tensor, ...], output_shape: list[int | None]
) -> tuple[tuple[TensorShape, ...], TensorShape]:
    """The inputs and the output of a model."""
    task = graph.task
    free = free_dimension(task.network)
    shape: list[int | str] = ["batch", *inputs[0].shape[1:]]
    length = "steps"
    if free is not None:
        dim, length, _ = free
        shape[dim] = length
    taken = [TensorShape(INPUTS, "float32", tuple(shape), "what the network gets: standardised, if it was trained so")]
    if len(inputs) > 1:
        what = "the valid steps of each sample, from 1 to those of the batch"
        if free is not None and length == "width":
            what = f"the valid columns of each image, from {free[2] // 2} to the width of the batch"
        taken.append(TensorShape(LENGTHS, "int64", ("batch",), f"{what}; what stands behind them is not looked at"))
    names: list[int | str] = [length if size is None else size for size in output_shape]
    if free is not None and free[1] == "width" and len(names) > 1:
        names[1] = "steps"
    names[0] = "batch"
    given = TensorShape(output_name(task, graph.probabilities), "float32", tuple(names), _meaning(graph))
    return tuple(taken), given


def _meaning(graph: Graph) -> str:
    task = graph.task
    if isinstance(task, SequenceTranscription):
        what = "for each step of the blank, then of each character of the alphabet"
    elif isinstance(task, BinaryClassification):
        what = "of class 1"
    elif isinstance(task, MulticlassClassification):
        what = "of each class"
    else:
        return "what the network predicts"
    if graph.probabilities:
        return what
    function = "sigmoid" if isinstance(task, BinaryClassification) else "softmax"
    scaled = "logits / temperature" if getattr(task, "temperature", 1.0) != 1.0 else "logits"
    return f"{what}; probabilities are {function}({scaled})"


def describe(
    graph: Graph,
    inputs: tuple[TensorShape, ...],
    output: TensorShape,
    parity: Parity,
    *,
    standardization: Standardization | None,
    data: str,
) -> dict[str, Any]:
    """All of it, as plain values by name."""
    task = graph.task
    about: dict[str, Any] = {
        "class": f"{type(task).__module__}.{type(task).__qualname__}",
        "inputs": [asdict(part) for part in inputs],
        "outputs": [asdict(output)],
        "standardization": None if standardization is None else standardization.described(),
        "parity": {**asdict(parity), "data": data},
        "versions": versions(),
    }
    if isinstance(task, SequenceTranscription):
        about["alphabet"] = task.alphabet
        free = free_dimension(task.network)
        if free is not None and free[1] == "width":
            about["valid_steps"] = f"lengths // {free[2] // 2}"
    if isinstance(task, TemperatureScaling) and task.temperature != 1.0:
        about["temperature"] = task.temperature  # in the probabilities already, where these are the output
    if isinstance(task, BinaryClassification):
        about["threshold"] = task.threshold
    return about


def versions() -> dict[str, str]:
    """Of this package, Python, and what files are made with."""
    found = {"lightning-model-zoo": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
