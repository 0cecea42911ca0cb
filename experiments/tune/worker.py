"""What a process does for a study: trials, one after the other, until there are enough."""

from __future__ import annotations

import math
import os
import socket
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from optuna.trial import FrozenTrial, TrialState

from experiments.cli_errors import UsageError
from experiments.fitting import fit_only
from experiments.summary import data_facts
from experiments.tune.space import as_arguments
from experiments.tune.storage import DATABASE_ERRORS
from experiments.tune.study import (
    ARGUMENTS,
    DATASET,
    METRICS,
    PROCESS,
    REASON,
    Search,
    StudyError,
    best_trial,
    is_finished,
    queue_again,
)
from zoo import NonFiniteError, TargetError
from zoo.callbacks import BatchSizeError, NoTrainingStepError
from zoo.networks import ShapeError
from zoo.optim import UnknownLengthError
from zoo.values import NonFiniteBatchError

_POLL = 0.5  # seconds between two looks at what others do

# What is wrong with the values of one trial, and need not be with those of the next.
_TRIAL_ERRORS = (
    UsageError,
    BatchSizeError,
    NoTrainingStepError,
    ShapeError,
    TargetError,
    UnknownLengthError,
    MisconfigurationException,
    torch.OutOfMemoryError,
)


class _FailedError(Exception):
    """A trial that came to nothing by its values."""


class _SurplusError(Exception):
    """A trial that others have made one too many in the meantime."""


class _BrokenOffError(Exception):
    """Something that is not the trial's fault ended it: a signal, the data, a full disk."""

    def __init__(self, by: BaseException) -> None:
        super().__init__(str(by))
        self.by = by


class _LostError(Exception):
    """The other processes have given the trial up, because this one was not heard of."""


@dataclass
class Finished:
    """What is told of a finished trial.

    Args:
        number: in the study, from 0.
        outcome: ``"complete"``, ``"pruned"``, ``"diverged"``, ``"failed"``, or ``"lost"`` to another process.
        value: of the metric; of a pruned trial the last one.
        metrics: all validation metrics that belong to it.
        arguments: the options that were searched, as on a command line.
        seconds: that it took.
        reason: why it came to nothing.
        is_best: whether it is the best of the study so far.
        done: finished trials of the study, of all processes.
    """

    number: int
    outcome: str
    value: float
    metrics: Mapping[str, float]
    arguments: Sequence[str]
    seconds: float
    reason: str
    is_best: bool
    done: int


@dataclass
class Worker:
    """Runs trials of a study in this process until the study has as many as it is to have.

    Args:
        study: the study, which other processes may work on, too.
        search: what is searched.
        trials: finished trials that the study is to have in the end, of all processes.
        grace: seconds without a sign of life after which a trial of another process is given up.
        tell: is called with each trial that this process has finished.
        wait: is called, once in a row, with the number of trials of others that are waited for.
        begin: is called when a fit begins, with its module, data and trainer.
    """

    study: optuna.Study
    search: Search
    trials: int
    grace: int
    tell: Callable[[Finished], None]
    wait: Callable[[int], None]
    begin: Callable[[LightningModule, Any, Trainer], None]
    _unheard: dict[int, float] = field(default_factory=dict)
    _began: float = 0.0
    _number: int = -1

    def work(self) -> None:
        """Run trials, one after the other, until there are enough.

        Raises:
            SystemExit, KeyboardInterrupt: it was told to stop; the trial under way is queued for another process.
            StudyError: the data are not those of the study's other trials.
            DataError, NonFiniteBatchError, OSError: no trial can be run at all.
        """
        while self._is_one_missing():
            before = self._best_value()
            try:
                self._run_one()
            except _BrokenOffError as broken_off:
                queue_again(self.study, self._trial())
                raise broken_off.by from None
            except (_LostError, ValueError):  # the latter is Optuna's, when it is told of a trial that is not running
                self.tell(self._finished(self._trial(), before, is_lost=True))
            else:
                if is_finished(self._trial()):
                    self.tell(self._finished(self._trial(), before))

    def _run_one(self) -> None:
        try:
            self.study.optimize(self._objective, n_trials=1, catch=(_FailedError, _SurplusError), gc_after_trial=True)
        except (AssertionError, UnboundLocalError) as error:
            # Optuna's, of a trial whose end could not be read or written: what they hide is why.
            hidden: BaseException | None = error
            while hidden is not None and not isinstance(hidden, DATABASE_ERRORS):
                hidden = hidden.__context__
            if hidden is None:
                raise
            raise hidden from hidden.__cause__

    # ------------------------------------------------------------------ which trials there are

    def _is_one_missing(self) -> bool:
        """Whether to begin a trial, as soon as that is known: a trial of another process may yet come to nothing."""
        told = False
        while True:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                optuna.storages.fail_stale_trials(self.study)
            trials = self.study.get_trials(deepcopy=False)
            running = [trial for trial in trials if trial.state == TrialState.RUNNING]
            done = sum(map(is_finished, trials))
            if done >= self.trials:
                return False
            if done + len(running) < self.trials or any(trial.state == TrialState.WAITING for trial in trials):
                return True
            if not told:
                self.wait(len(running))
                told = True
            self._give_up_unbegun(running)
            time.sleep(_POLL)

    def _give_up_unbegun(self, running: Sequence[FrozenTrial]) -> None:
        """Fail trials whose process died before its first sign of life, of which Optuna would never hear again."""
        now = time.monotonic()
        self._unheard = {
            trial.number: self._unheard.get(trial.number, now) for trial in running if ARGUMENTS not in trial.user_attrs
        }
        for number, since in self._unheard.items():
            if now - since > self.grace:
                self.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    def _withdraw_surplus(self, trial: optuna.Trial) -> None:
        """Leave the place to others that have taken it between the look at the study and the beginning of this one."""
        trials = self.study.get_trials(deepcopy=False)
        taken = [one for one in trials[: trial.number] if is_finished(one) or not one.state.is_finished()]
        if len(taken) >= self.trials:
            raise _SurplusError

    def _trial(self) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[self._number]

    # ------------------------------------------------------------------ one trial

    def _objective(self, trial: optuna.Trial) -> float:
        self._number, self._began = trial.number, time.perf_counter()
        try:
            self._withdraw_surplus(trial)
            return self._value(trial)
        except (optuna.TrialPruned, _FailedError, _SurplusError):
            raise
        except optuna.exceptions.UpdateFinishedTrialError as error:
            raise _LostError from error
        except BaseException as error:
            raise _BrokenOffError(error) from error

    def _value(self, trial: optuna.Trial) -> float:
        try:
            return self._fit(trial)
        except NonFiniteBatchError:
            raise  # it is the data's fault, and will be the next trial's
        except NonFiniteError as error:
            trial.set_user_attr(REASON, str(error))
            # Not as a failure, which the sampler would not learn from.
            raise optuna.TrialPruned(str(error)) from error
        except _TRIAL_ERRORS as error:
            trial.set_user_attr(REASON, " ".join(str(error).split()))
            raise _FailedError from error

    def _fit(self, trial: optuna.Trial) -> float:
        arguments = as_arguments({option: entry.suggest(trial, option) for option, entry in self.search.space.items()})
        trial.set_user_attr(ARGUMENTS, arguments)
        trial.set_user_attr(PROCESS, f"{socket.gethostname()}:{os.getpid()}")
        best = math.nan
        keep_best = self.search.experiment.select == "best"

        def report(validation: int, metrics: Mapping[str, float]) -> None:
            nonlocal best
            value = metrics[self.search.metric]
            if not math.isfinite(value):
                raise NonFiniteError(f"{self.search.metric} became {value} in validation {validation}")
            if not keep_best or self.search.is_better(value, best):
                best = value
                trial.set_user_attr(METRICS, dict(metrics))
            trial.report(value, validation)
            if trial.should_prune():
                raise optuna.TrialPruned(f"behind validation {validation}")

        fit_only(self.search.experiment, [*self.search.fixed, *arguments], report, [_Beginning(self)])
        if math.isnan(best):
            raise NoTrainingStepError("there was no validation: let a trial train for longer, or validate more often")
        return best

    def check_data(self, dataset: str) -> None:
        """See to it that all trials of the study are about the same data.

        Raises:
            StudyError: they are not.
        """
        before = self.study.user_attrs.get(DATASET)
        if before is None:
            self.study.set_user_attr(DATASET, dataset)
        elif before != dataset:
            raise StudyError(
                f"the data here are {dataset}, those of the study's other trials {before}: values would not compare"
            )

    # ------------------------------------------------------------------ what is told of it

    def _best_value(self) -> float:
        best = best_trial(self.study)
        return math.nan if best is None or best.value is None else best.value

    def _finished(self, trial: FrozenTrial, best_before: float, *, is_lost: bool = False) -> Finished:
        attributes = trial.user_attrs
        outcome = trial.state.name.lower()
        if REASON in attributes:
            outcome = "failed" if trial.state == TrialState.FAIL else "diverged"
        value = math.nan if trial.value is None else trial.value
        return Finished(
            number=trial.number,
            outcome="lost" if is_lost else outcome,
            value=value,
            metrics=attributes.get(METRICS, {}),
            arguments=attributes.get(ARGUMENTS, []),
            seconds=time.perf_counter() - self._began,
            reason=attributes.get(REASON, ""),
            is_best=outcome == "complete" and self.search.is_better(value, best_before),
            done=sum(map(is_finished, self.study.get_trials(deepcopy=False))),
        )


class _Beginning(Callback):
    """Says what is trained on what, and sees to it that it is the data of the others."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning, absent from its class
        self.worker.check_data(str(data_facts(data)["dataset"]))
        self.worker.begin(pl_module, data, trainer)
