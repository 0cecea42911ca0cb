"""What all experiments share: the command line, training, the test on the best checkpoint, the report."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

import experiments
from datamodules import DataError
from experiments import run_directory
from experiments.cli_errors import UsageError, explain
from experiments.console import quiet
from experiments.resume import Resumed, find_resumed, option_values, relocate
from experiments.summary import circumstances, closing, opening, write_summary
from zoo import NonFiniteLossError, TargetError, Task
from zoo.callbacks import EpochProgress, RunRecord, StepSeeding
from zoo.checkpointing import CheckpointError
from zoo.hardware import default_precision
from zoo.networks import ShapeError
from zoo.tracking import MetricsCSV, ResilientWandbLogger, start_wandb

Tracking = Literal["auto", "wandb", "csv", "tensorboard", "none"]

# Set by a class: a new class on the command line starts from its own defaults, not from those of another.
_CLASS_OPTIONS = ("model.optimizer", "model.scheduler")


class RunError(RuntimeError):
    """A run that came to nothing; says why."""


EXPECTED_ERRORS = (CheckpointError, DataError, NonFiniteLossError, RunError, ShapeError, TargetError, OSError)
"""Errors that say what is wrong in a sentence; on the command line nobody needs their traceback."""


@dataclass(frozen=True)
class Experiment:
    """What is special to one experiment.

    Args:
        name: of its module, and of its directory below ``runs/``.
        doc: the module's docstring; its first line is shown by ``--help``.
        model: the task.
        data: the data module.
        defaults: values of options other than their defaults, by option name without ``--``; for an optimizer or a
            schedule ``{"class_path": ..., "init_args": {...}}``.
        monitor: what the best checkpoint is best at, a validation metric.
        mode: whether more (``"max"``) or less (``"min"``) of it is better.
    """

    name: str
    doc: str
    model: type[Task]
    data: type[LightningDataModule]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    monitor: str = "val/accuracy"
    mode: Literal["min", "max"] = "max"


class ExperimentCLI(LightningCLI):
    """Lightning's command line with the options that all experiments share, and errors of one line.

    Args:
        experiment: the experiment.
        args: the command line.
        resumed: the run to go on with, if there is one.

    Raises:
        UsageError: for a command line that cannot be used.
    """

    def __init__(self, experiment: Experiment, args: Sequence[str], resumed: Resumed | None) -> None:
        self.experiment = experiment
        self.resumed = resumed
        self.given = list(args)
        self.record = RunRecord({"experiment": experiment.name})
        self.best: ModelCheckpoint | None = None
        self.last: ModelCheckpoint | None = None
        self.loggers: list[Logger] = []
        super().__init__(
            experiment.model,
            experiment.data,
            save_config_callback=None,  # the run directory is ours, so that a second run is never in its way
            seed_everything_default=0,
            parser_kwargs={
                "prog": f"python -m experiments.{experiment.name}",
                "description": experiment.doc.partition("\n")[0],
                "exit_on_error": False,
                "allow_abbrev": False,
            },
            args=self.given,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_dir", type=str | None, default=None, help="Directory of the run (default: runs/<experiment>/<time>)."
        )
        parser.add_argument(
            "--resume",
            type=str | None,
            default=None,
            help="Go on with a run: 'last', a checkpoint, or a run directory. Other options given win over its own.",
        )
        parser.add_argument(
            "--tracking",
            type=Tracking,
            default="auto",
            help="auto and wandb: Weights & Biases, offline where there is no account or network; "
            "csv and none: no tracker. metrics.csv is written in any case.",
        )
        parser.add_argument(
            "--patience",
            type=int | None,
            default=None,
            help=f"Stop after this many validations without a better {self.experiment.monitor} (default: never).",
        )
        defaults: dict[str, Any] = {"trainer.num_sanity_val_steps": 0, **self.experiment.defaults}
        for option in _CLASS_OPTIONS:
            if self._names_class(option):
                defaults.pop(option, None)
        parser.set_defaults(defaults)

    def _names_class(self, option: str) -> bool:
        """Whether the command line, or a configuration file on it, names the class of an option itself."""
        if any(arg == f"--{option}" or arg.startswith(f"--{option}=") for arg in self.given):
            return True
        return any(_lookup(config, option) for config in _config_files(self.given))

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        try:
            # Not the inherited one, which warns when Python's own command line has arguments as well.
            self.config = parser.parse_args(self.given)
        except argparse.ArgumentError as error:
            options = [option for action in parser._actions for option in action.option_strings]
            raise UsageError(explain(str(error), options)) from error
        accelerator = self.config.trainer.accelerator
        if self.config.trainer.precision is None:
            self.config.trainer.precision = default_precision(accelerator if isinstance(accelerator, str) else "auto")

    def before_instantiate_classes(self) -> None:
        if self.config.patience is not None and self.config.patience < 1:
            raise UsageError(f"--patience: must be at least 1, got {self.config.patience}")

    def instantiate_classes(self) -> None:
        try:
            self.config_init = self.parser.instantiate(self.config)
            self.datamodule = self.config_init.data
            self.model = self.config_init.model
            self._try_optimizer()
        except (ValueError, MisconfigurationException) as error:
            raise UsageError(" ".join(str(error).split())) from error
        self.directory = self._directory()
        (self.directory / run_directory.CONFIG).write_text(self._config_text(), encoding="utf-8")
        try:
            self.trainer = self.instantiate_trainer()
            # Only now: a tracker shall not hear of a run that cannot begin.
            self.loggers = self._make_loggers()
        except (ValueError, MisconfigurationException, UsageError) as error:
            if not self._in_place:
                shutil.rmtree(self.directory)  # nothing is in it yet but the configuration
            raise UsageError(" ".join(str(error).split())) from error
        if not self.config.trainer.fast_dev_run:
            self.trainer.loggers = [*self.loggers, *self.trainer.loggers]

    @property
    def _in_place(self) -> bool:
        """Whether an earlier run goes on in its own directory."""
        return self.resumed is not None and self.resumed.directory is not None

    def _try_optimizer(self) -> None:
        """Make the optimizer once for nothing: a rate out of range shall not come up only when the data are loaded."""
        optimizer, scheduler = self.config_init.model._optimizer, self.config_init.model._scheduler
        try:
            made = None if optimizer is None else optimizer([torch.nn.Parameter(torch.zeros(1))])
            if made is not None and scheduler is not None:
                scheduler(made)
        except ValueError as error:
            raise ValueError(f"--model.optimizer or --model.scheduler: {error}") from error

    def _directory(self) -> Path:
        if self.resumed is not None and self.resumed.directory is not None:
            return run_directory.reuse(self.resumed.directory)
        wanted = self.config.run_dir
        try:
            directory = run_directory.create(self.experiment.name, wanted)
        except OSError as error:
            raise UsageError(f"--run_dir: {wanted or run_directory.ROOT} cannot be made ({error})") from error
        if wanted and directory != Path(wanted):
            print(f"note      {wanted} is taken, this run goes to {directory}")
        return directory

    def _config_text(self) -> str:
        """The configuration without what belongs to this one run: with ``--config`` it makes another."""
        config = self.config.clone()
        for name in ("config", "run_dir", "resume"):
            config.pop(name, None)
        text: str = self.parser.dump(config, skip_validation=True, skip_unset=False)
        return text

    def _make_loggers(self) -> list[Logger]:
        record = self.resumed.record if self.resumed is not None else {}
        # The rows behind a resumed checkpoint are written again.
        keep_rows = record.get("metric_rows") if self._in_place else None
        loggers: list[Logger] = [MetricsCSV(self.directory, keep_rows)]
        tracking = self.config.tracking
        if tracking in ("auto", "wandb") and getattr(rank_zero_only, "rank", 0) == 0:
            run_id = record.get("wandb_run_id") if self._in_place else None
            logger = start_wandb(
                directory=self.directory,
                project=os.environ.get("WANDB_PROJECT", "zoo"),
                name=f"{self.experiment.name}/{self.directory.name}",
                run_id=run_id,
                group=self.experiment.name,
            )
            if logger is not None:
                loggers.append(logger)
        elif tracking == "tensorboard":
            loggers.append(_tensorboard(self.directory))
        return loggers

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config_init.trainer
        callbacks: list[Callback] = [StepSeeding(), self.record, _Opening(self)]
        if config.enable_progress_bar is not False:
            callbacks.append(EpochProgress())
        if config.enable_checkpointing is not False and not config.fast_dev_run:
            callbacks += self._checkpoints(config)
        if self.config.patience is not None:
            monitor, mode = self.experiment.monitor, self.experiment.mode
            callbacks.append(EarlyStopping(monitor, mode=mode, patience=self.config.patience))
        given = config.callbacks or []
        config.callbacks = [*(given if isinstance(given, list) else [given]), *callbacks]
        if config.enable_model_summary is None:
            config.enable_model_summary = False  # the opening lines say what it would
        config.logger = config.logger or False  # without ours, and without Lightning's own choice
        config.default_root_dir = str(self.directory)
        return super().instantiate_trainer(**kwargs)

    def _checkpoints(self, config: Any) -> list[Callback]:
        common: dict[str, Any] = {
            "dirpath": self.directory / run_directory.CHECKPOINTS,
            "enable_version_counter": False,
        }
        self.last = ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **common)
        if config.limit_val_batches == 0:
            return [self.last]
        monitor, mode = self.experiment.monitor, self.experiment.mode
        self.best = ModelCheckpoint(
            filename="best", monitor=monitor, mode=mode, save_on_train_epoch_end=False, **common
        )
        return [self.best, self.last]

    @property
    def checkpoint(self) -> Path | None:
        """The best checkpoint by validation, else the last one; ``None`` if the run kept none."""
        for callback in (self.best, self.last):
            if callback is None:
                continue
            assert callback.dirpath is not None
            # A run directory may have been moved since the path was kept.
            for path in (callback.best_model_path, Path(callback.dirpath) / f"{callback.filename}.ckpt"):
                if path and Path(path).is_file():
                    return Path(path)
        return None


def _tensorboard(directory: Path) -> Logger:
    try:
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(save_dir=str(directory), name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise UsageError("--tracking tensorboard needs TensorBoard: pip install tensorboard") from error


def _config_files(args: Sequence[str]) -> list[dict[str, Any]]:
    """The configuration files on a command line that can be read; the parser says what is wrong with the others."""
    configs = []
    for path in option_values(args, "--config", "-c"):
        with contextlib.suppress(OSError, yaml.YAMLError, UnicodeDecodeError):
            config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            if isinstance(config, dict):
                configs.append(config)
    return configs


def _lookup(config: Mapping[str, Any], option: str) -> Any:
    value: Any = config
    for part in option.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def run(experiment: Experiment, args: Sequence[str] | None = None) -> dict[str, float]:
    """Train, test on the best checkpoint, and report.

    Args:
        experiment: what to run.
        args: the command line; ``None`` is an empty one.

    Returns:
        The test metrics, such as ``{"test/accuracy": 0.994, "test/loss": 0.018}``.

    Raises:
        SystemExit: with code 2, for a command line that cannot be used, after one line on stderr.
        DataError, NonFiniteLossError, CheckpointError, RunError: see there.
    """
    started = _started(experiment)
    with quiet():
        try:
            resumed, arguments = find_resumed(experiment.name, args or [])
            cli = ExperimentCLI(experiment, arguments, resumed)
        except UsageError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from error
        exit_code = 1
        try:
            summary = _train_and_test(cli, started)
            exit_code = 0
        finally:
            for logger in cli.loggers:
                if isinstance(logger, ResilientWandbLogger):
                    logger.finish(exit_code)
        if cli.trainer.is_global_zero:
            print(closing(cli.directory, summary, cli.loggers), flush=True)
    return {name: value for name, value in summary.items() if name.startswith("test/")}


def launch(main: Callable[[list[str]], object]) -> NoReturn:
    """Run ``main`` on the process's command line; expected errors become one line and exit code 1."""
    try:
        main(sys.argv[1:])
    except EXPECTED_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    raise SystemExit(0)


def _started(experiment: Experiment) -> float:
    """When the user began to wait: at the process's start if that was for this, else now."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    launched = spec is not None and spec.name == f"experiments.{experiment.name}"
    return experiments.STARTED if launched else time.perf_counter()


def _train_and_test(cli: ExperimentCLI, started: float) -> dict[str, Any]:
    trainer, model, data = cli.trainer, cli.model, cli.datamodule
    fit_started = time.perf_counter()
    resume = None if cli.resumed is None else str(cli.resumed.checkpoint)
    try:
        trainer.fit(model, data, ckpt_path=resume, weights_only=True)
    except NonFiniteLossError as error:
        kept = cli.checkpoint
        advice = f"the last good checkpoint is {kept}" if kept else "no checkpoint was written before"
        raise NonFiniteLossError(error.value, error.step, advice, error.kind) from error
    test_started = time.perf_counter()
    if trainer.global_step == 0:
        raise RunError("not a single training step was taken: raise --trainer.max_epochs or the training data's limits")
    checkpoint = cli.checkpoint
    [metrics] = trainer.test(
        model,
        datamodule=data,
        ckpt_path=None if checkpoint is None else str(checkpoint),
        weights_only=True,
        verbose=False,
    )
    done = time.perf_counter()
    summary = {
        "experiment": cli.experiment.name,
        "dataset": getattr(data, "dataset_name", type(data).__name__),
        "seed": cli.config.seed_everything,
        **{name: float(value) for name, value in metrics.items()},
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seconds": {
            "total": round(done - started, 3),
            "fit": round(test_started - fit_started, 3),
            "test": round(done - test_started, 3),
        },
        "checkpoint": None if checkpoint is None else str(checkpoint),
        **circumstances(trainer, model),
    }
    if cli.best is not None and cli.best.best_model_score is not None:
        summary[cli.experiment.monitor] = float(cli.best.best_model_score)
    if trainer.is_global_zero:
        write_summary(cli.directory, summary)
    return summary


class _Opening(Callback):
    """Before training, says what is trained on what; and keeps the logging interval within an epoch."""

    def __init__(self, cli: ExperimentCLI) -> None:
        self.cli = cli
        self._told = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.cli.record.facts.update(
            seed=self.cli.config.seed_everything,
            trainer={name: value for name, value in self.cli.config.trainer.as_dict().items() if value is not None},
            **circumstances(trainer, pl_module),
        )
        if not trainer.is_global_zero:
            return
        print(opening(self.cli.datamodule, pl_module, trainer), flush=True)
        if self.cli.resumed is not None:
            print(f"resume    {self.cli.resumed.checkpoint}", flush=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.num_training_batches < trainer.log_every_n_steps:  # type: ignore[attr-defined]
            trainer.log_every_n_steps = int(trainer.num_training_batches)  # type: ignore[attr-defined]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.cli.resumed is not None and self.cli.resumed.directory is not None:
            relocate(checkpoint, (self.cli.directory / run_directory.CHECKPOINTS).absolute())

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._told:
            return
        changes = getattr(pl_module, "changed_settings", {})
        self._told = True
        if changes and trainer.is_global_zero:
            told = ", ".join(f"{name} {now} instead of {before}" for name, (before, now) in changes.items())
            print(f"resume    with {told}", flush=True)
