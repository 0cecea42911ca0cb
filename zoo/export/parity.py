"""Whether an exported model gives the numbers that the module gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.export.errors import ExportError
from zoo.export.graph import free_dimension, resize, take

BATCH_SIZES = (1, 2, 7)
_MOST_SAMPLES = 256
_TOLERANCE = 1e-5  # of the largest output, or of one: some ten times the rounding of 32 bits

Run = Callable[[tuple[Tensor, ...]], Tensor]
"""A model that maps the arguments of a :class:`zoo.export.graph.Graph` to its outputs."""


@dataclass(frozen=True)
class Parity:
    """How far an exported model is from its module.

    Args:
        max_abs_difference: the largest difference between two outputs.
        tolerance: the largest that is let through: 1e-5 times the largest output, or 1e-5 where that is less than one.
        samples: that were compared.
        batch_sizes: in which they were.
        lengths: steps, or widths, of the batches; empty where these are no dimension of the inputs that is free.
    """

    max_abs_difference: float
    tolerance: float
    samples: int
    batch_sizes: tuple[int, ...]
    lengths: tuple[int, ...]


def measure(run: Run, module: Run, inputs: tuple[Tensor, ...], network: nn.Module) -> Parity:
    """Compare an exported model with its module on all samples, up to 256.

    In batches of 1, 2, 7 and the rest (samples come again where there are fewer than 10); where the length of sequences
    is free at a second one, and where lengths are inputs with one from one step to all.

    Raises:
        ExportError: they differ by more than the tolerance, or in shape, or the module's outputs are no numbers.
    """
    free = free_dimension(network)
    compared = list(batches(inputs, network))
    found = [compare(run, module, batch) for batch in compared]
    return Parity(
        max_abs_difference=max(difference for difference, _ in found),
        tolerance=max(tolerance for _, tolerance in found),
        samples=min(len(inputs[0]), _MOST_SAMPLES),
        batch_sizes=tuple(dict.fromkeys(len(batch[0]) for batch in compared)),
        lengths=() if free is None else tuple(dict.fromkeys(batch[0].shape[free[0]] for batch in compared)),
    )


def compare(run: Run, module: Run, batch: tuple[Tensor, ...]) -> tuple[float, float]:
    """The largest difference between the outputs for a batch, and the largest that is let through.

    Raises:
        ExportError: it is more than that; see :func:`measure`.
    """
    shape = tuple(batch[0].shape)
    expected = module(batch)
    if not expected.isfinite().all():
        raise ExportError("the module's own outputs are NaN or infinite: there is nothing to hold the file against")
    try:
        got = run(batch)
    except Exception as error:  # the runtime's own types
        said = " ".join(str(error).split())[:300]
        raise ExportError(f"the exported model does not run with inputs of shape {shape}: {said}") from error
    if expected.shape != got.shape:
        raise ExportError(
            f"the exported model gives shape {tuple(got.shape)} where the module gives {tuple(expected.shape)}, for "
            f"inputs of shape {shape}"
        )
    difference = float((got - expected).abs().max())
    tolerance = _TOLERANCE * max(1.0, float(expected.abs().max()))
    if not difference <= tolerance:  # NaN is not, either
        raise ExportError(
            f"the exported model differs from the module by {difference:.2g}, more than {tolerance:.2g}, for inputs of "
            f"shape {shape}: no file was written"
        )
    return difference, tolerance


def batches(inputs: tuple[Tensor, ...], network: nn.Module) -> Iterator[tuple[Tensor, ...]]:
    """What is compared, see :func:`measure`."""
    first = 0
    for size in BATCH_SIZES:
        yield take(inputs, first, size)
        first += size
    rest = min(len(inputs[0]), _MOST_SAMPLES) - first
    if rest > 0:
        yield take(inputs, first, rest)
    free = free_dimension(network)
    if free is None:
        return
    dim, _, least = free
    batch = take(inputs, 0, max(BATCH_SIZES))
    size = batch[0].shape[dim]
    second = size // 2 if size // 2 >= least else size + least
    yield resize(batch, dim, second)
    if len(batch) > 1:
        yield batch[0], torch.linspace(least, size, len(batch[0])).round().long()
