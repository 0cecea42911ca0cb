"""The model that becomes a file, beside the one that it is held against."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from zoo.export.errors import ExportError
from zoo.export.recurrent import TraceableCRNN, TraceableRecurrent, traceable
from zoo.networks import CRNN, Recurrent
from zoo.tasks import BinaryClassification, MulticlassClassification, Regression, SequenceTranscription, Task
from zoo.tasks.base import Inputs

_TRACED_SAMPLES = 2  # one would be taken for a size that is always one
_SHORTEST_TRACED = 16  # steps or columns

INPUTS, LENGTHS = "inputs", "lengths"


@dataclass(frozen=True)
class TensorShape:
    """A tensor that goes into a model or comes out of it.

    Args:
        name: such as ``"inputs"``.
        dtype: such as ``"float32"``.
        shape: a number, or the name of a size that is free, for each dimension.
        meaning: what is in it.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    meaning: str


class Graph(nn.Module):
    """A task's outputs, in evaluation mode and 32 bits, on the CPU, from plain tensors.

    Args:
        task: left as it is.
        probabilities: give these instead of what the network gives.
        recurrent: what takes the place of recurrent networks; ``None`` leaves them as they are.
    """

    def __init__(self, task: Task, probabilities: bool, recurrent: type[TraceableRecurrent] | None = None) -> None:
        super().__init__()
        parts = {
            name: copy.deepcopy(module).cpu().float()
            for name, module in task.named_children()
            if not isinstance(module, Metric | MetricCollection)
        }
        if recurrent is not None:
            parts["network"] = traceable(parts["network"], recurrent)
        # The task's own methods on copies of its parts, without its trainer and metrics.
        self.task = copy.copy(task)
        self.task._modules = dict(parts)
        self.probabilities = probabilities
        self.eval()

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        outputs = self.task(inputs) if lengths is None else self.task(inputs, lengths)
        return probabilities_of(self.task, outputs) if self.probabilities else outputs


def probabilities_of(task: Task, outputs: Tensor) -> Tensor:
    """Probabilities from a task's outputs, as it predicts them.

    Raises:
        ExportError: it predicts values.
    """
    if isinstance(task, BinaryClassification):
        return task.activate(task.calibrated(outputs))
    if isinstance(task, MulticlassClassification | SequenceTranscription):
        return task.calibrated(outputs).softmax(dim=-1)
    raise ExportError(f"{type(task).__name__} predicts values, of which there are no probabilities")


def output_name(task: Task, probabilities: bool) -> str:
    """What a model's outputs are called."""
    if probabilities:
        return "probabilities"
    if isinstance(task, Regression):
        return "values"
    is_classifier = isinstance(task, BinaryClassification | MulticlassClassification | SequenceTranscription)
    return "logits" if is_classifier else "outputs"


def free_dimension(network: nn.Module) -> tuple[int, str, int] | None:
    """The dimension of the inputs that is free beside the first, its name, and its least size."""
    if isinstance(network, CRNN | TraceableCRNN):
        convolutions = network if isinstance(network, CRNN) else network.convolutions
        return 3, "width", 2 << convolutions.halve_width  # a graph needs two steps: one would be a size that is fixed
    return (1, "steps", 1) if isinstance(network, Recurrent | TraceableRecurrent) else None


def plain_inputs(inputs: Inputs) -> tuple[Tensor, ...]:
    """Inputs as the arguments of a :class:`Graph`, in 32 bits on the CPU.

    Raises:
        ExportError: there is no sample among them, or they are no inputs.
    """
    parts = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    if not 1 <= len(parts) <= 2 or not all(isinstance(part, Tensor) for part in parts):
        raise ExportError("example_inputs must be a tensor, or padded sequences and their lengths")
    if any(part.ndim == 0 for part in parts) or any(len(part) != len(parts[0]) for part in parts) or not len(parts[0]):
        raise ExportError(
            f"example_inputs must hold at least one sample, and one length for each, got shapes "
            f"{', '.join(str(tuple(part.shape)) for part in parts)}"
        )
    values = parts[0].detach().cpu()
    if not values.is_floating_point():
        raise ExportError(
            f"example_inputs must be floating-point numbers, as the network gets them, got {values.dtype}"
        )
    return values.float(), *(lengths.detach().cpu() for lengths in parts[1:])


def take(inputs: tuple[Tensor, ...], first: int, count: int) -> tuple[Tensor, ...]:
    """Samples from number ``first``; behind the last one begin again from the first."""
    chosen = torch.arange(first, first + count) % len(inputs[0])
    return tuple(part[chosen] for part in inputs)


def resize(inputs: tuple[Tensor, ...], dim: int, size: int) -> tuple[Tensor, ...]:
    """Inputs cut, or padded with zeros, to a size; lengths at most that."""
    values, *lengths = inputs
    cut = values.narrow(dim, 0, min(size, values.shape[dim]))
    shape = list(values.shape)
    shape[dim] = size - cut.shape[dim]
    return torch.cat([cut, values.new_zeros(shape)], dim=dim), *(length.clamp(max=size) for length in lengths)


def traced_inputs(inputs: tuple[Tensor, ...], network: nn.Module) -> tuple[Tensor, ...]:
    """Inputs to trace a graph with: of no size that could be taken for a fixed one."""
    free = free_dimension(network)
    samples = take(inputs, 0, _TRACED_SAMPLES)
    if free is None:
        return samples
    dim, _, least = free
    return resize(samples, dim, max(_SHORTEST_TRACED, 2 * least, samples[0].shape[dim]))


def dynamic_shapes(inputs: tuple[Tensor, ...], network: nn.Module) -> tuple[dict[int, object], ...]:
    """Which dimensions are free, as ``torch.export`` takes it."""
    batch: object = torch.export.Dim("batch", min=1)
    free = free_dimension(network)
    # Not by a name, for which torch would have to prove for all sizes what it asks of convolved images.
    of_values: dict[int, object] = {0: batch} if free is None else {0: batch, free[0]: torch.export.Dim.DYNAMIC}
    return (of_values, *({0: batch} for _ in inputs[1:]))
