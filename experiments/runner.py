"""What all experiments share: training, the test on the chosen checkpoint, the report."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

import experiments
from datamodules import DataError
from experiments import process, run_directory
from experiments.claims import hold
from experiments.cli_errors import CompileError, UsageError
from experiments.command_line import Experiment, ExperimentCLI
from experiments.console import quiet
from experiments.resume import find_resumed
from experiments.summary import as_json, circumstances, closing, data_facts, relative, write_summary
from experiments.terminal import one_line
from zoo import NonFiniteError, TargetError, Task
from zoo.calibration import NotCalibratableError
from zoo.callbacks import (
    BatchSizeError,
    FigureCallback,
    NoTrainingStepError,
    StepSeeding,
    TrainingDoctor,
    ValueGuard,
)
from zoo.checkpointing import CheckpointError
from zoo.export import ExportError
from zoo.networks import ShapeError
from zoo.optim import UnknownLengthError
from zoo.tracking import ResilientWandbLogger

__all__ = [
    "EXPECTED_ERRORS",
    "Experiment",
    "evaluate_beside",
    "exit_code_of",
    "launch",
    "run",
    "terminable",
    "train_beside",
]

_INTERRUPTED, _TERMINATED = 130, 143  # what a shell makes of SIGINT and SIGTERM
_MOMENT = 0.01  # seconds in which a finalizer is left


EXPECTED_ERRORS = (
    BatchSizeError,
    CheckpointError,
    CompileError,
    DataError,
    ExportError,
    NoTrainingStepError,
    NonFiniteError,
    NotCalibratableError,
    ShapeError,
    TargetError,
    UnknownLengthError,
    MisconfigurationException,
    OSError,
)
"""Errors that say what is wrong in a sentence; on the command line nobody needs their traceback."""


def run(experiment: Experiment, args: Sequence[str] | None = None) -> dict[str, float]:
    """Train, test on the best checkpoint, and report.

    Args:
        experiment: what to run.
        args: the command line; ``None`` is an empty one.

    Returns:
        The test metrics, such as ``{"test/accuracy": 0.994, "test/loss": 0.018}``, and what the experiment examines.

    Raises:
        SystemExit: after one line on stderr; with code 2 for a command line that cannot be used, 130 after Ctrl-C, 143
            after SIGTERM.
        DataError, TargetError, NonFiniteError, BatchSizeError, NoTrainingStepError, CheckpointError, CompileError: see
            there.
    """
    started = _started(experiment)
    with quiet(), terminable():
        try:
            resumed, arguments = find_resumed(experiment.name, args or [])
            cli = ExperimentCLI(experiment, arguments, resumed)
        except UsageError as error:
            print(f"error: {one_line(error)}", file=sys.stderr)
            raise SystemExit(2) from error
        exit_code = 1
        try:
            with _compile_errors(cli):
                summary = _train_and_test(cli, started)
            exit_code = 0
        except (SystemExit, KeyboardInterrupt) as stopped:
            exit_code = exit_code_of(stopped)
            last = cli.directory / run_directory.CHECKPOINTS / run_directory.LAST
            advice = f"go on with --resume {cli.directory}" if last.is_file() else "no checkpoint was written yet"
            if getattr(rank_zero_only, "rank", 0) == 0:
                print(f"stopped   {advice}", file=sys.stderr)
            raise SystemExit(exit_code) from None
        finally:
            cli.remove_empty_directory()
            for logger in cli.loggers:
                if isinstance(logger, ResilientWandbLogger):
                    logger.finish(exit_code)
        if cli.trainer.is_global_zero:
            print(closing(cli.directory, summary, cli.experiment.claims, cli.loggers), flush=True)
    return {**{name: value for name, value in summary.items() if name.startswith("test/")}, **summary["examined"]}


def launch(main: Callable[[list[str]], object]) -> NoReturn:
    """Run ``main`` on the process's command line; expected errors become one line and exit code 1."""
    process.imported()
    try:
        main(sys.argv[1:])
        code = 0
    except EXPECTED_ERRORS as error:
        rank = getattr(rank_zero_only, "rank", 0)
        # Another rank's may be its alone: the first rank then only sees the connection break off.
        print(f"error{f' of rank {rank}' if rank else ''}: {one_line(error)}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except SystemExit as stopped:
        if not isinstance(stopped.code, int):
            raise
        code = stopped.code
    process.end(code)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end what is under way with its exit code, and in order, also before and behind the fit.

    Python calls the handler of a signal, which raises, wherever it happens to be; what is raised in a finalizer, or in
    the callback of a weak reference, goes no further. The signal is sent again then, as Ctrl-C is.
    """

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        raise SIGTERMException(_TERMINATED)

    def send_again(lost: sys.UnraisableHookArgs) -> None:
        number = {KeyboardInterrupt: signal.SIGINT, SIGTERMException: signal.SIGTERM}.get(lost.exc_type)
        if number is None:
            hook(lost)
            return
        moment = _MOMENT
        while True:
            try:
                timer = threading.Timer(moment, signal.pthread_kill, (threading.main_thread().ident, number))
                timer.daemon = True
                timer.start()
                timers.append(timer)
                return
            except (KeyboardInterrupt, SIGTERMException):
                moment *= 2  # this thread was not run for so long, and what is raised in a hook goes no further, either

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    timers: list[threading.Timer] = []
    hook, sys.unraisablehook = sys.unraisablehook, send_again
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
        for timer in timers:
            timer.join()  # what was lost just now is to be heard here
    finally:
        for timer in timers:
            timer.cancel()
        if sys.unraisablehook is send_again:
            sys.unraisablehook = hook
        if before is not None:  # one that was not set by Python cannot be set again by it
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _compile_errors(cli: ExperimentCLI) -> Iterator[None]:
    """Say in a sentence what ``--compile`` came to."""
    try:
        yield
    except Exception as error:
        raised_in = type(error).__module__
        if cli.config.compile is None or not raised_in.startswith(("torch._dynamo.", "torch._inductor.")):
            raise
        said = str(error).partition("\nSet TORCHDYNAMO_VERBOSE")[0]
        raise CompileError(f"--compile: {' '.join(said.split())}") from error


def exit_code_of(stopped: SystemExit | KeyboardInterrupt) -> int:
    """SIGTERM knows its code, but for Lightning's own in a test; Ctrl-C looks like a failure to Lightning."""
    if isinstance(stopped, SIGTERMException):
        return stopped.code if isinstance(stopped.code, int) else _TERMINATED
    return _INTERRUPTED


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
    except (NonFiniteError, TargetError, BatchSizeError) as error:
        kept = cli.checkpoint
        advice = f"the last good checkpoint is {kept}" if kept else "no checkpoint was written before"
        if kept or trainer.global_step:
            error.args = (f"{error}; {advice}",)
        raise
    test_started = time.perf_counter()
    if trainer.global_step == 0:
        raise NoTrainingStepError(
            "not a single training step was taken: raise --trainer.max_epochs or the training data's limits"
        )
    epochs, steps = trainer.current_epoch, trainer.global_step
    checkpoint = trainer.strategy.broadcast(cli.checkpoint)
    [metrics] = trainer.test(
        model,
        datamodule=data,
        ckpt_path=None if checkpoint is None else str(checkpoint),
        weights_only=True,
        verbose=False,
    )
    examined = _examine(cli)
    figures = [callback for callback in trainer.callbacks if isinstance(callback, FigureCallback)]  # type: ignore[attr-defined]
    done = time.perf_counter()
    summary = {
        "experiment": cli.experiment.name,
        **data_facts(data),
        "seed": cli.config.seed_everything,
        **{name: float(value) for name, value in metrics.items()},
        "examined": examined,
        **hold(cli.experiment.claims, {**metrics, **examined}, data, whole_test=_is_whole(trainer.limit_test_batches)),
        "epochs": epochs,
        "steps": steps,
        "seconds": {
            "total": round(done - started, 3),
            "fit": round(test_started - fit_started, 3),
            "test": round(done - test_started, 3),
            "figures": round(sum(callback.seconds for callback in figures), 3),
        },
        "figures": [relative(file, cli.directory) for callback in figures for file in callback.files],
        "checkpoint": None if checkpoint is None else str(checkpoint),
        **circumstances(trainer, model),
    }
    for doctor in figures:
        if isinstance(doctor, TrainingDoctor):
            summary["doctor"] = [asdict(finding) for finding in doctor.findings]
    if cli.best is not None and cli.best.best_model_score is not None:
        summary[cli.experiment.monitor] = float(cli.best.best_model_score)
    if trainer.is_global_zero:
        write_summary(cli.directory, summary)
    if cli.config.log_model:
        _log_model(cli, checkpoint, summary)
    return summary


def _log_model(cli: ExperimentCLI, checkpoint: Path | None, summary: Mapping[str, Any]) -> None:
    """Log the tested checkpoint to Weights & Biases, with what is to be known of it where it is used."""
    for logger in cli.loggers:
        if not isinstance(logger, ResilientWandbLogger) or logger.broken:
            continue
        if checkpoint is None:
            print("note      --log_model: no checkpoint was kept, so none is logged", flush=True)
            continue
        metadata = {
            "class": f"{type(cli.model).__module__}.{type(cli.model).__qualname__}",
            **{name: summary[name] for name in ("experiment", "dataset", "seed", "epochs", "steps", "parameters")},
            **{name: value for name, value in summary.items() if name.startswith(("val/", "test/"))},
        }
        alias = "last" if checkpoint.name == run_directory.LAST else "best"
        logger.log_model(checkpoint, cli.experiment.name, as_json(metadata), [alias])


def _is_whole(limit: int | float) -> bool:
    """Whether a limit of batches is none: 1.0 is all of them, 1 is one."""
    return isinstance(limit, float) and limit == 1.0


def _examine(cli: ExperimentCLI) -> dict[str, float]:
    if cli.experiment.examine is None:
        return {}
    # Whatever is drawn there shall not depend on how the run came here.
    torch.manual_seed(cli.config.seed_everything if not isinstance(cli.config.seed_everything, bool) else 0)
    figures = cli.experiment.examine(cli.model, cli.datamodule, cli.trainer)
    for logger in cli.trainer.loggers:
        logger.log_metrics(figures, cli.trainer.global_step)
        logger.save()
    return figures


def train_beside(task: Task, data: LightningDataModule, trainer: Trainer) -> dict[str, float]:
    """Train another task on the same data for as long as the run did, and return its test metrics.

    Nothing of it is tracked or kept: it is for comparisons within one report.
    """
    beside = _trainer_beside(trainer)
    beside.fit(task, datamodule=data)
    return _tested(beside, task, data)


def evaluate_beside(task: Task, data: LightningDataModule, trainer: Trainer) -> dict[str, float]:
    """Test a task as the run did, and return its test metrics; likewise."""
    return _tested(_trainer_beside(trainer), task, data)


def _trainer_beside(trainer: Trainer) -> Trainer:
    device = trainer.strategy.root_device
    several = trainer.world_size > 1  # with this process in a group, each sample would otherwise be one rank's alone
    devices: int | list[int] = trainer.num_devices if device.index is None else trainer.device_ids
    return Trainer(
        accelerator=device.type,  # by name: of an object Lightning takes mixed precision to be that of a GPU
        devices=devices,
        num_nodes=trainer.num_nodes,
        strategy="ddp" if several else "auto",
        precision=trainer.precision,
        max_epochs=-1,
        max_steps=trainer.global_step,  # of the run as it was: its own limits do not say how soon patience ended it
        accumulate_grad_batches=trainer.accumulate_grad_batches,
        limit_train_batches=trainer.limit_train_batches,
        limit_test_batches=trainer.limit_test_batches,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[StepSeeding(), ValueGuard()],
    )


def _tested(beside: Trainer, task: Task, data: LightningDataModule) -> dict[str, float]:
    [metrics] = beside.test(task, datamodule=data, verbose=False)
    return {name.removeprefix("test/"): float(value) for name, value in metrics.items()}
