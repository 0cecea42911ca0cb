"""From a task to a file that was held against it."""

from __future__ import annotations

import stat
import time
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from zoo.checkpointing import CheckpointError, write_whole
from zoo.checkpointing.files import local_target
from zoo.export import graph as graphs
from zoo.export.errors import ExportError
from zoo.export.graph import Graph, TensorShape
from zoo.export.metadata import Standardization, describe, signature
from zoo.export.onnx_file import OnnxProgram, require_onnx
from zoo.export.parity import Parity, Run, compare, measure
from zoo.export.quiet import quiet
from zoo.export.torch_file import TorchProgram
from zoo.networks import ShapeError
from zoo.tasks import Task
from zoo.tasks.base import Inputs

Program = OnnxProgram | TorchProgram


@dataclass(frozen=True)
class Exported:
    """A file that was written, and what it was held against.

    Args:
        path: of the file.
        parity: how far it is from the module.
        data: what samples were compared, in words.
        inputs: of the model.
        output: of the model.
        size: of the file, in bytes.
        seconds: that it took in all.
        opset: the version of ONNX's operators; ``None`` for another format.
    """

    path: Path
    parity: Parity
    data: str
    inputs: tuple[TensorShape, ...]
    output: TensorShape
    size: int
    seconds: float
    opset: int | None


def export_onnx(
    task: Task,
    path: str | PathLike[str],
    example_inputs: Inputs,
    *,
    probabilities: bool = False,
    standardization: Standardization | None = None,
    data: str = "example_inputs",
    overwrite: bool = False,
) -> Exported:
    """Write a task's model as ONNX, for any batch size, and for any number of steps where it is recurrent.

    Before there is a file, the model runs in onnxruntime, and its outputs are compared with those of the task in
    evaluation mode, in 32 bits, on the CPU, for ``example_inputs``: see :func:`zoo.export.parity.measure`. What the
    file takes and gives, the standardisation, versions and parity are among its properties. It holds no samples, and
    no paths of the machine.

    Sequences of different lengths are inputs with their lengths if ``example_inputs`` are; without, all the steps of a
    batch count. Nothing checks lengths in the file: they must be from one to the steps of the batch.

    Args:
        task: left as it is.
        path: of the file; its folder is made if need be.
        example_inputs: real inputs as the network gets them (standardised, if it was trained so), at least one; up to
            256 are used. A pair of padded inputs and their lengths, such as a :class:`datamodules.PaddedBatch`, for
            sequences of different lengths.
        probabilities: give these instead of logits.
        standardization: how raw features become inputs; only written down.
        data: what the inputs are, in words; only written down.
        overwrite: take the place of a file that is there.

    Raises:
        ExportError: the inputs are none of the task's, the model cannot be exported, or its outputs differ; nothing is
            written, nor is a file that was there touched.
        ShapeError: the inputs are not of the network's shape.
        FileExistsError: there is a file, and ``overwrite`` is not given.
        IsADirectoryError: it is a directory.
        MissingExtraError: the packages for ONNX are not installed.
        CheckpointError: the path is a URL, or the file could not be written.
    """
    require_onnx()
    return _export(OnnxProgram, task, path, example_inputs, probabilities, standardization, data, overwrite)


def export_torch(
    task: Task,
    path: str | PathLike[str],
    example_inputs: Inputs,
    *,
    probabilities: bool = False,
    standardization: Standardization | None = None,
    data: str = "example_inputs",
    overwrite: bool = False,
) -> Exported:
    """Write a task's model with ``torch.export``; ``torch.export.load(path).module()`` runs it without this package.

    Args:
        task: see :func:`export_onnx`, as for the other arguments and the errors.
        path: of the file, by convention ``*.pt2``.
        example_inputs: see there.
        probabilities: see there.
        standardization: see there.
        data: see there.
        overwrite: see there.

    Raises:
        ExportError: see there.
        ShapeError: see there.
        FileExistsError: see there.
        IsADirectoryError: see there.
        CheckpointError: see there.
    """
    return _export(TorchProgram, task, path, example_inputs, probabilities, standardization, data, overwrite)


def check_target(path: str | PathLike[str], overwrite: bool) -> Path:
    """The path to write to.

    Raises:
        FileExistsError: there is a file, and ``overwrite`` is not given; or a device or the like, which no file shall
            take the place of.
        IsADirectoryError: it is a directory.
        CheckpointError: it is a URL, or no name that a file can have.
    """
    target = local_target(path)
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return target
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{str(target)[:200]!r} cannot be written: {reason}") from error
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a directory: give the name of a file in it")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)) or (target.exists() and not target.is_file()):
        raise FileExistsError(f"{target} is neither a file nor free")
    if not overwrite:
        raise FileExistsError(f"{target} is there already")
    return target


def _export(
    kind: type[Program],
    task: Task,
    path: str | PathLike[str],
    example_inputs: Inputs,
    probabilities: bool,
    standardization: Standardization | None,
    data: str,
    overwrite: bool,
) -> Exported:
    started = time.perf_counter()
    target = check_target(path, overwrite)
    inputs = graphs.plain_inputs(example_inputs)
    with quiet():
        reference = _reference(task, inputs, probabilities)
        graph, program = _program(kind, task, inputs, probabilities)
        parity = measure(kind.load(program.encode({})), reference, inputs, task.network)
        taken, given = signature(graph, inputs, program.output_shape())
        about = describe(graph, taken, given, parity, standardization=standardization, data=data)
        contents = program.encode(about)
        compare(kind.load(contents), reference, graphs.take(inputs, 0, 1))  # what is written is what was measured
    write_whole(contents, target)
    seconds = time.perf_counter() - started
    return Exported(target, parity, data, taken, given, len(contents), seconds, kind.opset)


def _reference(task: Task, inputs: tuple[Tensor, ...], probabilities: bool) -> Run:
    """The task itself."""
    module = Graph(task, probabilities)

    def run(batch: tuple[Tensor, ...]) -> Tensor:
        with torch.no_grad():
            outputs: Tensor = module(*batch)
        return outputs

    try:
        run(graphs.take(inputs, 0, 1))
    except (ExportError, ShapeError):
        raise
    except Exception as error:  # whatever a network says to inputs that are not its own
        raise ExportError(f"{type(task).__name__} does not take these inputs: {_in_words(error)}") from error
    return run


def _program(kind: type[Program], task: Task, inputs: tuple[Tensor, ...], probabilities: bool) -> tuple[Graph, Program]:
    try:
        graph = Graph(task, probabilities, kind.recurrent)
        traced = graphs.traced_inputs(inputs, task.network)
        return graph, kind(graph, traced, graphs.output_name(task, probabilities))
    except Exception as error:  # a tracer raises whatever a network does that it cannot follow
        raise ExportError(f"{type(task).__name__} cannot be exported: {_in_words(error)}") from error


def _in_words(error: Exception) -> str:
    said = " ".join(str(error).split())
    return f"{said[:300]}{'…' if len(said) > 300 else ''} ({type(error).__name__})"
