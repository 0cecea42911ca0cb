"""The command line that all experiments share: run directories, tracking, resume, and errors of one line."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jsonargparse import ActionYesNo, Namespace, set_parsing_settings
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only

from experiments import run_directory
from experiments.claims import Claim
from experiments.cli_errors import UsageError, explain, explain_value
from experiments.config_files import read_config_file
from experiments.figures import figures_for
from experiments.options import option_value, option_values
from experiments.resume import Resumed, differences, relocate
from experiments.summary import circumstances, data_facts, opening
from zoo import Task
from zoo.callbacks import (
    WEIGHT_AVERAGE_KEY,
    EpochProgress,
    GracefulStop,
    LastCheckpoint,
    LeanLoop,
    PlainHyperparameters,
    RunRecord,
    StepSeeding,
    TrainingDoctor,
    ValueGuard,
    WeightAverage,
)
from zoo.checkpointing import CheckpointError, SealedCheckpointIO, write_whole
from zoo.hardware import default_precision
from zoo.tracking import MetricsCSV, ResilientWandbLogger, start_wandb

Doctor = Literal["none", "watch", "overfit"]
Average = Literal["none", "ema", "swa"]
Compile = Literal["default", "reduce-overhead", "max-autotune"]
Figures = Literal["all", "none"]
Tracking = Literal["auto", "wandb", "csv", "tensorboard", "none"]

DEFAULT_FIGURES: Figures = "all"

# Set by a class: a new class on the command line starts from its own defaults, not from those of another.
_CLASS_OPTIONS = ("model.optimizer", "model.scheduler")


_LARGEST_SEED = 2**32 - 1  # NumPy's


@dataclass(frozen=True)
class Experiment:
    """What is special to one experiment.

    Args:
        name: of its module, and of its directory below ``runs/``.
        doc: the module's docstring; its first line is shown by ``--help``.
        model: the task's class, or a function that makes it, whose arguments then are the model's options.
        data: the data module.
        defaults: values of options other than their defaults, by option name without ``--``; for an optimizer or a
            schedule ``{"class_path": ..., "init_args": {...}}``.
        links: options of the model that take the value of an option of the data, so that one is enough; by the latter.
        monitor: what the best checkpoint is best at, a validation metric.
        mode: whether more (``"max"``) or less (``"min"``) of it is better.
        select: which checkpoint is tested: ``"best"``, by ``monitor``, or ``"last"``, for a problem that is solved to
            the end, where a luckier validation of an earlier step would be no better model.
        claims: what the run is held against.
        examine: more figures for the report, from the tested model, its data, and the trainer; by name.
        architecture: the network in a few words, for the scoreboard.
        reported: figures that are told beside those of the claims: what they are, in words, by name.
        headline: the figures that the first line of ``doc`` gives, in their order: names of figures, ``"limit"`` for
            that of the first claim, ``"seconds"``. Empty: what the first claim is about, and the seconds.
        seeds: under how many it is measured.
    """

    name: str
    doc: str
    model: type[Task] | Callable[..., Task]
    data: type[LightningDataModule]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    monitor: str = "val/accuracy"
    mode: Literal["min", "max"] = "max"
    select: Literal["best", "last"] = "best"
    claims: Sequence[Claim] = ()
    examine: Callable[[Any, Any, Trainer], dict[str, float]] | None = None
    architecture: str = ""
    reported: Mapping[str, str] = field(default_factory=dict)
    headline: Sequence[str] = ()
    seeds: int = 5


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
        self.given = _classes_first(args)
        for path in map(Path, option_values(args, "--config", "-c")):
            if path.is_file():  # of another the parser says what it is
                read_config_file(path)
        set_parsing_settings(config_read_mode_fsspec_enabled=False)  # Lightning lets an option's value be fetched
        self.record = RunRecord({"experiment": experiment.name})
        self.best: ModelCheckpoint | None = None
        self.last: LastCheckpoint | None = None
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
            "--figures",
            type=Figures,
            default=DEFAULT_FIGURES,
            help="all: draw the figures that fit the task, behind training and test, into figures/ of the run's "
            "directory and the tracker; none: draw none.",
        )
        parser.add_argument(
            "--log_model",
            action=ActionYesNo,
            nargs="?",
            default=False,
            help="Log the checkpoint that is tested, the best one, to Weights & Biases as an artifact in the end.",
        )
        parser.add_argument(
            "--patience",
            type=int | None,
            default=None,
            help=f"Stop after this many validations without a better {self.experiment.monitor} (default: never).",
        )
        parser.add_argument(
            "--average",
            type=Average,
            default="none",
            help="Validate, test and keep an average of the weights: ema is their exponential moving average, swa the "
            "mean over the steps of the run's last quarter.",
        )
        parser.add_argument(
            "--average_decay", type=float, default=0.999, help="Of ema: how much the average before each step counts."
        )
        parser.add_argument(
            "--checkpoint_every",
            type=int | None,
            default=None,
            help="Write last.ckpt every so many steps, beside once a minute and at the end of each epoch.",
        )
        parser.add_argument(
            "--compile",
            type=Compile | None,
            default=None,
            help="Compile the network with torch.compile in this mode, which takes half a minute (default: not).",
        )
        parser.add_argument(
            "--doctor",
            type=Doctor,
            default="none",
            help="watch: look at gradients and dead units now and then, and say at the end what looks wrong; "
            "overfit: also whether the model can learn one batch by heart.",
        )
        defaults: dict[str, Any] = {"trainer.num_sanity_val_steps": 0, **self.experiment.defaults}
        for option in _CLASS_OPTIONS:
            if self._names_class(option):
                defaults.pop(option, None)
        parser.set_defaults(defaults)
        for source, target in self.experiment.links.items():
            parser.link_arguments(source, target)

    def _names_class(self, option: str) -> bool:
        """Whether the command line, or a configuration file on it, names the class of an option itself."""
        if any(arg == f"--{option}" or arg.startswith(f"--{option}=") for arg in self.given):
            return True
        values = [_lookup(config, option) for config in _config_files(self.given)]
        return any(isinstance(value, str) or (isinstance(value, dict) and "class_path" in value) for value in values)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        try:
            # Not the inherited one, which warns when Python's own command line has arguments as well.
            self.config = parser.parse_args(self.given)
        except argparse.ArgumentError as error:
            options = [option for action in parser._actions for option in action.option_strings]
            raise UsageError(explain(str(error), options)) from error
        for section in ("trainer", "model", "data"):
            if not isinstance(self.config.get(section), Namespace):
                raise UsageError(f"--{section}: has options of its own, and is none itself")
        seed = self.config.seed_everything
        if not isinstance(seed, bool) and not 0 <= seed <= _LARGEST_SEED:
            raise UsageError(f"--seed_everything: must be from 0 to {_LARGEST_SEED}, got {seed}")
        if self.config.resume is not None and self.resumed is None:
            raise UsageError("resume is an option of the command line, not of a configuration file: give --resume")
        accelerator = self.config.trainer.accelerator
        if self.config.trainer.precision is None:
            self.config.trainer.precision = default_precision(accelerator if isinstance(accelerator, str) else "auto")

    def before_instantiate_classes(self) -> None:
        if self.config.patience is not None and self.config.patience < 1:
            raise UsageError(f"--patience: must be at least 1, got {self.config.patience}")
        if self.config.patience is not None and self.config.trainer.limit_val_batches == 0:
            raise UsageError("--patience: counts validations, and --trainer.limit_val_batches 0 leaves none")
        if self.config.checkpoint_every is not None and self.config.checkpoint_every < 1:
            raise UsageError(f"--checkpoint_every: must be at least 1, got {self.config.checkpoint_every}")
        self.refuse_idle_options()
        self.weight_averages()
        if self.config.trainer.limit_test_batches == 0:
            raise UsageError("--trainer.limit_test_batches: must not be 0, a run ends with its test")

    def refuse_idle_options(self) -> None:
        """Refuse what the command line asks for and the run would not look at.

        In a configuration file, such as that of a run, all options stand.

        Raises:
            UsageError: there is such an option.
        """
        if self.config.average != "ema" and option_value(self.given, "--average_decay") is not None:
            raise UsageError(f"--average_decay: is for --average ema, and --average is {self.config.average}")

    def instantiate_classes(self) -> None:
        try:
            config = self.config.clone()
            if self.resumed is not None and "weights" in config.model:
                config.model.weights = None  # the checkpoint has its own, and the file may be gone
            self.config_init = self.parser.instantiate(config)
            self.datamodule = self.config_init.data
            self.model = self.config_init.model
            self._try_optimizer()
            if self.config.compile is not None:
                self.model.network.compile(mode=self.config.compile)  # in place: what is saved has the same names
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise UsageError(explain_value(str(error))) from error
        self.directory = self._directory()
        try:
            self.trainer = self.instantiate_trainer()
            # Only now: a tracker shall not hear of a run that cannot begin.
            self.loggers = self._make_loggers()
        except (ValueError, TypeError, MisconfigurationException, UsageError) as error:
            self.remove_empty_directory()
            raise UsageError(" ".join(str(error).split())) from error
        if not self.config.trainer.fast_dev_run:
            self.trainer.loggers = [*self.loggers, *self.trainer.loggers]

    def remove_empty_directory(self) -> None:
        """Leave no directory behind for a run that came to nothing."""
        if getattr(rank_zero_only, "rank", 0) != 0:
            return  # it is the first process's
        with contextlib.suppress(OSError):  # it is not empty
            self.directory.rmdir()

    def write_config(self) -> list[str]:
        """Write ``config.yaml`` once the run has really begun; return what a resumed run does otherwise than before."""
        text = self._config_text()
        before = None if self.resumed is None else self.resumed.config
        changes = [] if before is None else differences(_read_config(before), yaml.safe_load(text))
        write_whole(text.encode(), self.directory / run_directory.CONFIG)
        return changes

    @property
    def _in_place(self) -> bool:
        """Whether an earlier run goes on in its own directory."""
        return self.resumed is not None and self.resumed.directory is not None

    def _try_optimizer(self) -> None:
        """Make the optimizer once for nothing: a rate out of range shall not come up only when the data are loaded."""
        optimizer, scheduler = self.config_init.model._optimizer, self.config_init.model._scheduler
        try:
            made = None if optimizer is None else optimizer(self.config_init.model.optimizer_parameters())
            if isinstance(made, torch.optim.SparseAdam):
                raise ValueError("SparseAdam takes sparse gradients only, and here are none")
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
        if wanted and directory != Path(wanted) and getattr(rank_zero_only, "rank", 0) == 0:
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
        metrics = MetricsCSV(self.directory, keep_rows)
        loggers: list[Logger] = [metrics]
        tracking = self.config.tracking
        if tracking in ("auto", "wandb") and getattr(rank_zero_only, "rank", 0) == 0:
            run_id = record.get("wandb_run_id") if self._in_place else None
            self.record.wandb_run_id = run_id  # kept for the next part, if this one is not tracked
            logger = start_wandb(
                directory=self.directory,
                project=os.environ.get("WANDB_PROJECT", "zoo"),
                name=f"{self.experiment.name}/{self.directory.name}",
                run_id=run_id,
                group=self.experiment.name,
                history=metrics.earlier_rows(),
            )
            if logger is not None:
                loggers.append(logger)
        elif tracking == "tensorboard":
            loggers.append(_tensorboard(self.directory))
        is_tracked = any(isinstance(logger, ResilientWandbLogger) for logger in loggers)
        if self.config.log_model and not is_tracked and getattr(rank_zero_only, "rank", 0) == 0:
            print("note      --log_model: the run is not tracked in Weights & Biases, so no checkpoint is logged")
        return loggers

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config_init.trainer
        given = config.callbacks or []
        given = given if isinstance(given, list) else [given]
        callbacks = self.callbacks(config)
        if any(isinstance(callback, ValueGuard) for callback in given):
            callbacks = [callback for callback in callbacks if not isinstance(callback, ValueGuard)]
        config.callbacks = [*given, *callbacks]
        if config.enable_model_summary is None:
            config.enable_model_summary = False  # the opening lines say what it would
        config.plugins = _with_sealed_checkpoints(config.plugins)
        config.logger = config.logger or False  # without ours, and without Lightning's own choice
        config.default_root_dir = str(self.directory)
        return super().instantiate_trainer(**kwargs)

    def callbacks(self, config: Any) -> list[Callback]:
        """What every run has beside the callbacks that its command line names."""
        callbacks: list[Callback] = [
            *(LeanLoop(), PlainHyperparameters(), StepSeeding()),
            *(self.record, GracefulStop(), _Opening(self), ValueGuard()),
            *self.weight_averages(),
        ]
        if config.enable_progress_bar is not False:
            callbacks.append(EpochProgress())
        if config.enable_checkpointing is not False and not config.fast_dev_run:
            callbacks += self._checkpoints(config)
        if self.config.doctor != "none":
            overfits, draws = self.config.doctor == "overfit", self.config.figures == "all"
            callbacks.append(TrainingDoctor(self.experiment.name, overfit_batch=overfits, draws=draws))
        if self.config.patience is not None:
            callbacks.append(self.early_stopping())
        if self.config.figures == "all" and not config.fast_dev_run:
            callbacks += figures_for(self.experiment.name, self.model, self.datamodule)
        return callbacks

    def weight_averages(self) -> list[Callback]:
        """What ``--average`` asks for.

        Raises:
            UsageError: it cannot be.
        """
        kind = self.config.average
        try:
            return [] if kind == "none" else [WeightAverage(kind, self.config.average_decay)]
        except ValueError as error:
            raise UsageError(f"--average_decay: {error}") from error

    def early_stopping(self) -> EarlyStopping:
        """What ``--patience`` asks for."""
        monitor, mode = self.experiment.monitor, self.experiment.mode
        return EarlyStopping(monitor, mode=mode, patience=self.config.patience)

    def _checkpoints(self, config: Any) -> list[Callback]:
        folder = self.directory / run_directory.CHECKPOINTS
        self.last = LastCheckpoint(folder, every_n_steps=self.config.checkpoint_every)
        if config.limit_val_batches == 0 or self.experiment.select == "last":
            return [self.last]
        monitor, mode = self.experiment.monitor, self.experiment.mode
        self.best = ModelCheckpoint(
            folder,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        return [self.best, self.last]

    @property
    def checkpoint(self) -> Path | None:
        """The best checkpoint by validation, else the last one; ``None`` if the run kept none."""
        candidates = [] if self.last is None else [self.last.path]
        if self.best is not None:
            assert self.best.dirpath is not None
            # A run directory may have been moved since the path was kept.
            candidates[:0] = [Path(self.best.best_model_path), Path(self.best.dirpath) / f"{self.best.filename}.ckpt"]
        return next((path for path in candidates if path.is_file()), None)


def _with_sealed_checkpoints(given: Any) -> list[Any]:
    plugins = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
    ours = [] if any(isinstance(plugin, CheckpointIO) for plugin in plugins) else [SealedCheckpointIO()]
    return [*plugins, *ours]


def _tensorboard(directory: Path) -> Logger:
    try:
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(save_dir=str(directory), name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise UsageError("--tracking tensorboard needs TensorBoard: pip install tensorboard") from error


def _config_files(args: Sequence[str]) -> list[dict[str, Any]]:
    """The configuration files on a command line; the parser says what is wrong with those that cannot be read."""
    return [_read_config(Path(path)) for path in option_values(args, "--config", "-c")]


def _read_config(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, yaml.YAMLError, UnicodeDecodeError):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(config, dict):
            return config
    return {}


def _classes_first(args: Sequence[str]) -> list[str]:
    """The command line with an option that names a class before those of the class's arguments.

    The parser would take the arguments for those of the class before it.
    """
    ordered = list(args)
    for option in _CLASS_OPTIONS:
        dotted = [index for index, arg in enumerate(ordered) if arg.startswith(f"--{option}.")]
        named = [index for index, arg in enumerate(ordered) if arg == f"--{option}" or arg.startswith(f"--{option}=")]
        if dotted and named and named[-1] > dotted[0]:
            first, last = named[-1], named[-1] + (1 if "=" in ordered[named[-1]] else 2)
            moved = ordered[first:last]
            del ordered[first:last]
            ordered[dotted[0] : dotted[0]] = moved
    return ordered


def _lookup(config: Mapping[str, Any], option: str) -> Any:
    value: Any = config
    for part in option.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


class _Opening(Callback):
    """Before training, says what is trained on what; and keeps the logging interval within an epoch."""

    def __init__(self, cli: ExperimentCLI) -> None:
        self.cli = cli

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.cli.record.facts.update(
            **data_facts(self.cli.datamodule),
            seed=self.cli.config.seed_everything,
            average=self.cli.config.average,
            trainer={name: value for name, value in self.cli.config.trainer.as_dict().items() if value is not None},
            **circumstances(trainer, pl_module),
        )
        if not trainer.is_global_zero:
            return
        print(opening(self.cli.datamodule, pl_module, trainer), flush=True)
        if self.cli.resumed is not None:
            print(f"resume    {self.cli.resumed.checkpoint}", flush=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Whatever was to be restored has been, so this run may now take the place of what it goes on from.
        if trainer.is_global_zero and (changes := self.cli.write_config()):
            print(f"resume    with {', '.join(changes)}", flush=True)
        if trainer.num_training_batches < trainer.log_every_n_steps:  # type: ignore[attr-defined]
            trainer.log_every_n_steps = int(trainer.num_training_batches)  # type: ignore[attr-defined]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if WEIGHT_AVERAGE_KEY in checkpoint and trainer.state.fn == TrainerFn.FITTING:
            callbacks = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning's connector
            if not any(isinstance(callback, WeightAverage) for callback in callbacks):
                raise CheckpointError(
                    "the run to resume averages its weights, and with --average none the average would be trained on: "
                    "leave the option as it was, or begin a new run"
                )
        if self.cli.resumed is not None:
            folder = (self.cli.directory / run_directory.CHECKPOINTS).absolute()
            relocate(checkpoint, folder if self.cli.resumed.directory is not None else None)
