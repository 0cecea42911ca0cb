"""A trained model as a file for other programs: ``python -m experiments.export --checkpoint PATH --format onnx``.

The format ``onnx`` runs in onnxruntime and elsewhere without torch, ``torch`` is a program of ``torch.export``. Before
the file is there, its outputs are compared with the module's on the checkpoint's own test data, in several batch sizes
and, for sequences, at a second length; where the difference is more than rounding there is no file, and the exit code
is 1. What the model takes and gives, how raw data are standardised for it, and the difference are in the file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import torch

from experiments.console import quiet

if TYPE_CHECKING:
    from zoo.export import Exported, TensorShape

_SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as the experiments themselves answer."""
        self.exit(2, f"error: {message}\n")


def command_line(args: Sequence[str] | None = None) -> None:
    """Export as the options in ``args`` say (``None``: those of the process).

    Raises:
        SystemExit: after one line on stderr; with code 2 for a command line that cannot be used, 1 if there is no
            file in the end, 130 after Ctrl-C.
    """
    parser = _make_parser()
    given = parser.parse_args(args)
    output = given.output or given.checkpoint.with_suffix(_SUFFIXES[given.format])
    try:
        _check(given, output, parser.error)
        with quiet():
            _export(given, output, parser.error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m experiments.export",
        description="A trained model as a file for other programs, held against the module before it is written.",
        allow_abbrev=False,
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="of one of the zoo's ready models")
    parser.add_argument("--format", choices=sorted(_SUFFIXES), required=True, help="ONNX, or torch.export")
    parser.add_argument("--output", type=Path, help="the file (default: beside the checkpoint, .onnx or .pt2)")
    parser.add_argument("--force", action="store_true", help="take the place of a file that is there")
    parser.add_argument("--probabilities", action="store_true", help="give probabilities instead of logits")
    parser.add_argument(
        "--lengths",
        action="store_true",
        help="for a recurrent model: a second input with the length of each sequence (those trained on sequences of "
        "different lengths have it anyway)",
    )
    return parser


def _check(given: argparse.Namespace, output: Path, refuse: Callable[[str], NoReturn]) -> None:
    """Before anything takes time."""
    from zoo.checkpointing import CheckpointError, require_local_file
    from zoo.export import MissingExtraError, check_target
    from zoo.export.onnx_file import require_onnx

    try:
        require_local_file(given.checkpoint)
    except CheckpointError as error:
        refuse(f"--checkpoint: {error}")
    try:
        if given.format == "onnx":
            require_onnx()
    except MissingExtraError as error:
        refuse(f"--format: {error}")
    try:
        if output.exists() and output.samefile(given.checkpoint):
            refuse("--output: that is the checkpoint itself")
        check_target(output, overwrite=given.force)
    except FileExistsError as error:
        refuse(f"--output: {error}; give --force to put the new one in its place, or another name")
    except (OSError, CheckpointError, ValueError) as error:
        refuse(f"--output: {error}")


def _export(given: argparse.Namespace, output: Path, refuse: Callable[[str], NoReturn]) -> None:
    from experiments.export_data import find_data, load_task
    from zoo import Regression
    from zoo.checkpointing import CheckpointError
    from zoo.export import ExportError, export_onnx, export_torch
    from zoo.networks import Recurrent, ShapeError

    try:
        task, checkpoint = load_task(given.checkpoint)
        count = sum(parameter.numel() for parameter in task.parameters())
        print(f"model     {type(task).__name__}, {count:,} parameters", flush=True)
        if given.probabilities and isinstance(task, Regression):
            refuse(f"--probabilities: {type(task).__name__} predicts values, of which there are no probabilities")
        data = find_data(task, checkpoint)
        inputs = data.inputs
        if given.lengths and isinstance(inputs, torch.Tensor):
            if not isinstance(task.network, Recurrent):
                refuse(f"--lengths: {type(task).__name__} reads no sequences")
            inputs = inputs, torch.full((len(inputs),), inputs.shape[1])
        export = export_onnx if given.format == "onnx" else export_torch
        done = export(
            task,
            output,
            inputs,
            probabilities=given.probabilities,
            standardization=data.standardization,
            data=data.words,
            overwrite=given.force,
        )
    except (CheckpointError, ExportError, ShapeError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(1) from error
    for line in report(done, data.note):
        print(line)


def report(done: Exported, note: str) -> list[str]:
    """What was compared, and what was written, a line each."""
    parity = done.parity
    lengths = f", {done.inputs[0].shape[free]} {_listed(parity.lengths)}" if (free := _free(done)) else ""
    opset = f", opset {done.opset}" if done.opset else ""
    taken = ", ".join(map(_signature, done.inputs))
    return [
        *([f"note      {note}"] if note else []),
        f"checked   {done.data}, in batches of {_listed(parity.batch_sizes)}{lengths}",
        f"parity    at most {parity.max_abs_difference:.2g} from the module, allowed {parity.tolerance:.2g}",
        f"signature {taken} -> {_signature(done.output)}",
        f"written   {done.path}: {done.size / 1024:.1f} KiB{opset}; {done.seconds:.1f} s",
    ]


def _free(done: Exported) -> int | None:
    """The dimension of the inputs that is free beside the first."""
    return next((dim for dim, size in enumerate(done.inputs[0].shape) if dim and isinstance(size, str)), None)


def _listed(sizes: Sequence[int]) -> str:
    return " and ".join(filter(None, (", ".join(map(str, sizes[:-1])), str(sizes[-1]))))


def _signature(tensor: TensorShape) -> str:
    return f"{tensor.name} {tensor.dtype} ({', '.join(map(str, tensor.shape))})"


if __name__ == "__main__":
    command_line()
