"""A trained model as a file for other programs: ``python -m experiments.export --checkpoint PATH --format onnx``.

The format ``onnx`` runs in onnxruntime and elsewhere without torch, ``torch`` is a program of ``torch.export``. Before
the file is there, its outputs are compared with the module's on the checkpoint's own test data, in several batch sizes
and, for sequences, at a second length; where the difference is more than rounding there is no file, and the exit code
is 1. What the model takes and gives, how raw data are standardised for it, and the difference are in the file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from experiments.checkpoints import Trained, load_trained
from experiments.cli_errors import OneLineParser, UsageError, answered
from experiments.console import quiet
from experiments.export_data import find_data
from experiments.runner import launch
from experiments.summary import count_parameters
from experiments.terminal import printable
from zoo import Regression
from zoo.export import Exported, MissingExtraError, TensorShape, check_target, export_onnx, export_torch, require_onnx
from zoo.networks import Recurrent
from zoo.tasks.base import Inputs

_SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


def export(args: Sequence[str]) -> Exported:
    """Export as a command line says, and print what was compared and written.

    Raises:
        SystemExit: after one line on stderr, with code 2 for a command line that cannot be used.
        CheckpointError, ExportError: see there; nothing was written.
    """
    given = _parser().parse_args(args)
    with quiet(), answered():
        if not Path(given.checkpoint).name:
            raise UsageError(f"--checkpoint: {given.checkpoint!r} is no file")
        output = given.output or _beside(given.checkpoint, _SUFFIXES[given.format])
        _check_format(given.format)
        _check_output(output, given.checkpoint, overwrite=given.force)
        trained = load_trained(given.checkpoint, given.model)
        if given.probabilities and isinstance(trained.task, Regression):
            raise UsageError(f"--probabilities: {type(trained.task).__name__} predicts values, and has none")
        print(f"model     {type(trained.task).__name__}, {count_parameters(trained.task):,} parameters", flush=True)
        data = find_data(trained)
        if data.note:
            print(f"note      {printable(data.note)}", flush=True)
        write = export_onnx if given.format == "onnx" else export_torch
        done = write(
            trained.task,
            output,
            _with_lengths(trained, data.inputs) if given.lengths else data.inputs,
            probabilities=given.probabilities,
            standardization=data.standardization,
            data=data.words,
            overwrite=given.force,
        )
    print("\n".join(report(done)))
    return done


def _beside(checkpoint: str, suffix: str) -> str:
    """The file that a checkpoint becomes by default; a directory, and a name, may have dots in them."""
    path = Path(checkpoint)
    return str(path.with_suffix(suffix) if path.is_file() else path.with_name(f"{path.name}{suffix}"))


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m experiments.export",
        description="A trained model as a file for other programs, held against the module before it is written.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--checkpoint", required=True, help="a local file, read safely; or the name of pretrained weights"
    )
    parser.add_argument("--format", choices=sorted(_SUFFIXES), required=True, help="ONNX, or torch.export")
    parser.add_argument("--output", help="the file (default: beside the checkpoint, .onnx or .pt2)")
    parser.add_argument("--force", action="store_true", help="take the place of a file that is there")
    parser.add_argument("--probabilities", action="store_true", help="give probabilities instead of logits")
    parser.add_argument(
        "--lengths",
        action="store_true",
        help="for a recurrent model: a second input with the length of each sequence (a model that was trained on "
        "sequences of different lengths has it anyway)",
    )
    parser.add_argument("--model", help="the model's class, if it is not of the zoo: module.Class, which is run")
    return parser


def _check_format(name: str) -> None:
    try:
        if name == "onnx":
            require_onnx()
    except MissingExtraError as error:
        raise UsageError(f"--format: {error}") from error


def _check_output(output: str, checkpoint: str, *, overwrite: bool) -> None:
    """Before anything takes time."""
    try:
        target = check_target(output, overwrite=True)  # what cannot be replaced at all is told first
        if target.exists() and Path(checkpoint).exists() and target.samefile(checkpoint):
            raise UsageError("--output: that is the checkpoint itself")
        folder = next(parent for parent in target.absolute().parents if parent.exists())
        if not os.access(folder, os.W_OK):
            raise UsageError(f"--output: {folder} cannot be written to")
    except (OSError, ValueError) as error:
        raise UsageError(f"--output: {error}") from error
    try:
        check_target(output, overwrite)
    except FileExistsError as error:
        raise UsageError(f"--output: {error}; --force puts the new one in its place") from error


def _with_lengths(trained: Trained, inputs: Inputs) -> Inputs:
    if not isinstance(inputs, torch.Tensor):
        return inputs
    if not isinstance(trained.task.network, Recurrent):
        raise UsageError(f"--lengths: {type(trained.task).__name__} reads no sequences")
    return inputs, torch.full((len(inputs),), inputs.shape[1])


def report(done: Exported) -> list[str]:
    """What was compared, and what was written, a line each."""
    parity = done.parity
    lengths = f", {done.inputs[0].shape[free]} {_listed(parity.lengths)}" if (free := _free(done)) else ""
    opset = f", opset {done.opset}" if done.opset else ""
    difference = parity.max_abs_difference
    apart = f"at most {difference:.2g} from" if difference else "to the bit the same as"
    taken = ", ".join(map(_signature, done.inputs))
    return [
        f"checked   {done.data}, in batches of {_listed(parity.batch_sizes)}{lengths}",
        f"parity    {apart} the module; allowed are {parity.tolerance:.2g}",
        f"signature {taken} -> {_signature(done.output)}",
        f"written   {printable(done.path)}: {done.size / 1024:.1f} KiB{opset}; {done.seconds:.1f} s",
    ]


def _free(done: Exported) -> int | None:
    """The dimension of the inputs that is free beside the first."""
    return next((dim for dim, size in enumerate(done.inputs[0].shape) if dim and isinstance(size, str)), None)


def _listed(sizes: Sequence[int]) -> str:
    return " and ".join(filter(None, (", ".join(map(str, sizes[:-1])), str(sizes[-1]))))


def _signature(tensor: TensorShape) -> str:
    return f"{tensor.name} {tensor.dtype} ({', '.join(map(str, tensor.shape))})"


if __name__ == "__main__":
    launch(export)
