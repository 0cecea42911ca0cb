"""The part of a command line that says which checkpoint is looked at, and on which data."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from jsonargparse import Namespace
from lightning.fabric.plugins.precision.precision import _PRECISION_INPUT_STR
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from datamodules import DataError, InMemoryDataModule
from experiments import run_directory
from experiments.checkpoints import DATA_MODULES, Trained, data_arguments, load_trained
from experiments.cli_errors import UsageError, closest, explain
from experiments.config_files import read_config_file
from experiments.options import option_value, without
from experiments.summary import circumstances
from zoo.callbacks import ValueGuard
from zoo.checkpointing import CheckpointError
from zoo.hardware import default_precision
from zoo.wording import with_article

Split = Literal["val", "test"]

# Options of data that do not say which samples they are.
_WHEREABOUTS = {"data_dir", "source", "batch_size", "eval_batch_size", "drop_last", "augment"}


@dataclass(frozen=True)
class Evaluation:
    """A model, data to try it on, and a trainer to do it with, which writes nothing.

    Args:
        trained: the model and where it comes from.
        data: set up, and standardised as the model's training data were.
        trainer: on one device, in the precision of the model's own run where that is known.
        given: the command's own options that were given, by name.
    """

    trained: Trained
    data: InMemoryDataModule
    trainer: Trainer
    given: Mapping[str, Any]

    def metrics(self, split: Split) -> dict[str, float]:
        """All metrics of the model on a split, such as ``{"test/loss": 0.02}``."""
        run = self.trainer.validate if split == "val" else self.trainer.test
        [metrics] = run(self.trained.task, datamodule=self.data, verbose=False)
        return {name: float(value) for name, value in metrics.items()}

    @property
    def may_have_seen_validation(self) -> bool:
        """Whether the validation split may hold samples that the model was trained on: another seed drew it, say."""
        before = self.trained.data
        if before is None or before.dataset != self.data.dataset_name:
            return False
        return before.checksums.get("val") != self.data.checksums["val"]

    def facts(self) -> dict[str, Any]:
        """What was looked at, and what its figures depend on; plain values."""
        return {
            "checkpoint": str(self.trained.source),
            "model": type(self.trained.task).__name__,
            "temperature": getattr(self.trained.task, "temperature", None),
            "data": {"class": type(self.data).__name__, "dataset": self.data.dataset_name, **self._sizes()},
            **circumstances(self.trainer, self.trained.task),
        }

    def _sizes(self) -> dict[str, int]:
        return {split: size for split, size in self.data.num_samples_by_split.items() if split != "train"}

    def opening(self) -> str:
        """What is looked at, in two lines."""
        about = circumstances(self.trainer, self.trained.task)
        return (
            f"model     {type(self.trained.task).__name__}, {about['parameters']:,} parameters, of "
            f"{self.trained.source}; {about['precision']} on {about['device']}\n"
            f"data      {self.data.description}"
        )


def command_line(
    command: str, description: str, more: Mapping[str, Mapping[str, Any]], args: Sequence[str]
) -> Evaluation:
    """What a command line asks for.

    Args:
        command: its module's name.
        description: for ``--help``.
        more: further options of the command, by name, with the arguments of ``add_argument``.
        args: the command line.

    Raises:
        UsageError: it cannot be used.
        CheckpointError, DataError: the checkpoint or the data cannot.
    """
    named = option_value(args, "--data")
    trained = None
    # Looked for before there is a parser: which options the data have, the checkpoint says.
    path = option_value(args, "--checkpoint")
    if path and not {"-h", "--help"} & set(args):
        trained = load_trained(path, option_value(args, "--model"))
    data_class = _data_class(trained, named)
    parser = _parser(command, description, more, data_class)
    given = _parse(parser, without(args, "--data"))
    if trained is None:
        raise UsageError("--checkpoint: which one? Give the path of a file, or the name of pretrained weights")
    data = _data(trained, data_class, given.get("data"))
    trainer = _trainer(trained, given)
    return Evaluation(trained, data, trainer, {name: given[name] for name in (*more, "json") if name in given})


def _parser(
    command: str, description: str, more: Mapping[str, Mapping[str, Any]], data_class: type[InMemoryDataModule]
) -> LightningArgumentParser:
    parser = LightningArgumentParser(
        prog=f"python -m experiments.{command}", description=description, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument(
        "--checkpoint",
        type=str,
        help="The checkpoint: a local file, read safely; or a directory that zoo.save_pretrained wrote; or the name of "
        "pretrained weights.",
    )
    parser.add_argument(
        "--model",
        type=str,
        help="The model's class, if the checkpoint's is not of the zoo: module.Class, which is run.",
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON document instead of lines.")
    for name, settings in more.items():
        parser.add_argument(f"--{name}", **settings)
    parser.add_argument("--trainer.accelerator", type=str, default="auto", help="cpu, cuda, mps or auto.")
    parser.add_argument("--trainer.precision", type=str, help="Such as 32-true (default: that of the model's run).")
    parser.add_lightning_class_args(data_class, "data")
    for action in parser._actions:
        if "--data" in action.option_strings:
            action.help, action.metavar = f"One of {', '.join(DATA_MODULES)} (default: the checkpoint's).", "CLASS"
    return parser


def _parse(parser: LightningArgumentParser, args: Sequence[str]) -> Namespace:
    try:
        return parser.parse_args(list(args), defaults=False)
    except argparse.ArgumentError as error:
        options = [option for action in parser._actions for option in action.option_strings]
        raise UsageError(explain(str(error), [*options, "--data"])) from error


def _data_class(trained: Trained | None, named: str | None) -> type[InMemoryDataModule]:
    if named is not None:
        if named in DATA_MODULES:
            return DATA_MODULES[named]
        close = closest(named, DATA_MODULES)
        hint = f"did you mean {close}?" if close else f"there are {', '.join(DATA_MODULES)}"
        raise UsageError(f"--data: there is no data module {named!r:.100}; {hint}")
    if trained is None:
        return DATA_MODULES["MNISTDataModule"]
    if trained.data is not None and trained.data.class_name in DATA_MODULES and trained.data.arguments:
        return DATA_MODULES[trained.data.class_name]
    said = "nothing" if trained.data is None else f"only that it was {with_article(trained.data.class_name)}"
    raise UsageError(f"--data: which? Of its data {trained.source} says {said}; there are {', '.join(DATA_MODULES)}")


def _data(trained: Trained, data_class: type[InMemoryDataModule], options: Namespace | None) -> InMemoryDataModule:
    given = {} if options is None else options.as_dict()
    recorded = trained.data if trained.data is not None and trained.data.class_name == data_class.__name__ else None
    arguments = given if recorded is None else data_arguments(recorded, given)
    try:
        data = data_class(**arguments)
    except (DataError, TypeError, ValueError) as error:
        message = " ".join(str(error).split())
        if recorded is not None and not given:
            raise CheckpointError(f"{trained.source} asks for data that cannot be made: {message}") from error
        raise UsageError(message) from error
    data.prepare_data()
    data.setup()
    _standardize_as_trained(data, trained)
    if recorded is not None and given.keys() <= _WHEREABOUTS:
        _require_same(data, trained)
    return data


def _standardize_as_trained(data: InMemoryDataModule, trained: Trained) -> None:
    """Give the data the statistics of the model's training split: with others its inputs would mean something else."""
    if trained.data is None or data.mean is None or data.std is None:
        return
    mean, std = trained.data.mean, trained.data.std
    if mean is not None and std is not None and mean.shape == data.mean.shape and std.shape == data.std.shape:
        if not (std > 0).all():
            raise CheckpointError(
                f"{trained.source} is no good: its data have a standard deviation that is not positive"
            )
        data.mean, data.std = mean, std


def _require_same(data: InMemoryDataModule, trained: Trained) -> None:
    assert trained.data is not None
    for split in ("val", "test"):
        saved = trained.data.checksums.get(split)
        if saved is not None and saved != data.checksums[split]:
            raise DataError(
                f"the {split} split here is not that of the checkpoint, which was trained on {trained.data.dataset}: "
                "say which data you mean with --data.*, such as --data.data_dir"
            )


def _trainer(trained: Trained, given: Namespace) -> Trainer:
    accelerator = given.get("trainer.accelerator", "auto")
    precision: Any = given.get("trainer.precision") or _precision_of_run(trained) or default_precision(accelerator)
    try:
        return Trainer(
            accelerator=accelerator,
            devices=1,
            precision=precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[ValueGuard()],
        )
    except (MisconfigurationException, ValueError) as error:
        raise UsageError(f"--trainer: {' '.join(str(error).split())}") from error


def _precision_of_run(trained: Trained) -> Any:
    """The precision in the configuration of the run directory that the checkpoint is in, if it is in one.

    Pretrained weights were measured in 32 bits, so that their figures are the same on every machine.
    """
    if trained.pretrained is not None:
        return "32-true"
    directory = run_directory.run_of(trained.source)
    if directory is None:
        return None
    with contextlib.suppress(UsageError):
        settings = read_config_file(directory / run_directory.CONFIG).get("trainer")
        precision = settings.get("precision") if isinstance(settings, dict) else None
        return precision if precision in get_args(_PRECISION_INPUT_STR) else None
    return None
