"""A fit that leaves nothing behind: no test, no tracker, no checkpoint; only what its validations say."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from experiments.command_line import Experiment, ExperimentCLI
from zoo.callbacks import GracefulStop, LeanLoop, NoTrainingStepError, StepSeeding, ValueGuard

ValidationReport = Callable[[int, Mapping[str, float]], None]
"""What is called behind each validation, with its number, from 1, and the validation metrics by name."""


class FitOnlyCLI(ExperimentCLI):
    """An experiment's command line for a fit alone.

    The data order, every random draw and the guard against bad values are those of :func:`experiments.runner.run`, so
    that the same options give the same validation metrics there.

    Args:
        experiment: the experiment.
        args: the command line.
        directory: where Lightning may write, if it has to.
        callbacks: called beside the run's own.

    Raises:
        UsageError: for a command line that cannot be used.
    """

    def __init__(
        self, experiment: Experiment, args: Sequence[str], directory: Path, callbacks: Sequence[Callback] = ()
    ) -> None:
        self.directory = directory
        self._more = callbacks
        super().__init__(experiment, args, None)

    def _directory(self) -> Path:
        return self.directory

    def _make_loggers(self) -> list[Logger]:
        return []

    def refuse_idle_options(self) -> None:
        """None is refused: where options are searched, some are idle beside others' values."""

    def callbacks(self, config: Any) -> list[Callback]:
        config.enable_progress_bar = False
        config.enable_checkpointing = False
        stopping = [] if self.config.patience is None else [self.early_stopping()]
        ours: list[Callback] = [LeanLoop(), StepSeeding(), GracefulStop(), ValueGuard(), *self.weight_averages()]
        return [*ours, *stopping, *self._more]


class _Reporting(Callback):
    def __init__(self, report: ValidationReport) -> None:
        self.report = report
        self.validations = 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self.validations += 1
        self.report(self.validations, validation_metrics(trainer))


def validation_metrics(trainer: Trainer) -> dict[str, float]:
    """What the last validation of a trainer measured, by name."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}


def fit_only(
    experiment: Experiment, args: Sequence[str], report: ValidationReport, callbacks: Sequence[Callback] = ()
) -> dict[str, float]:
    """Train and validate, and neither test nor keep anything.

    Args:
        experiment: what to train.
        args: the command line.
        report: called behind each validation; what it raises ends the fit.
        callbacks: more of them.

    Returns:
        The metrics of the last validation, such as ``{"val/loss": 0.031, "val/accuracy": 0.99}``.

    Raises:
        UsageError: for a command line that cannot be used.
        DataError, TargetError, NonFiniteError, BatchSizeError, NoTrainingStepError: see there.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        cli = FitOnlyCLI(experiment, args, Path(directory), [_Reporting(report), *callbacks])
        try:
            cli.trainer.fit(cli.model, cli.datamodule)
        except Exception as error:
            for callback in cli.trainer.callbacks:  # type: ignore[attr-defined]  # set by Lightning's connector
                if isinstance(callback, GracefulStop) and callback.signal is not None:
                    # Told before it failed or was pruned: whoever catches that would begin the next fit.
                    raise SIGTERMException(128 + callback.signal) from error
            raise
        if cli.trainer.global_step == 0:
            raise NoTrainingStepError("not a single training step was taken: raise --trainer.max_epochs")
        return validation_metrics(cli.trainer)
