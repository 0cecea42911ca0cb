"""What a study is: what it searches, which of its trials count, and which is the best."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from experiments.cli_errors import UsageError
from experiments.command_line import Experiment
from experiments.tune.space import Space
from experiments.tune.storage import Storage

REASON, METRICS, ARGUMENTS, RETRIES, PROCESS = "reason", "metrics", "arguments", "retries", "process"
"""What is kept of a trial beside Optuna's own."""

DATASET = "zoo:dataset"
"""The data of a study's trials, kept with it."""

_DEFINITION = "zoo:search"
_STARTUP_TRIALS = 5  # that are complete before one is pruned
_FIRST_PRUNED = 2  # validation: behind the first one a schedule may just have warmed up
_MOST_RETRIES = 3  # of a trial that was broken off: it may be what kills its processes


class StudyError(RuntimeError):
    """A study that cannot go on, or has no result, in a line."""


@dataclass(frozen=True)
class Search:
    """What a study searches.

    Args:
        experiment: whose options.
        space: which of them, and where.
        fixed: the command line that all trials have in common.
        metric: what is best in the best trial, a validation metric.
        mode: whether more or less of it is better.
    """

    experiment: Experiment
    space: Space
    fixed: Sequence[str] = ()
    metric: str = "val/loss"
    mode: Literal["min", "max"] = "min"

    def definition(self) -> dict[str, Any]:
        """What has to be the same in all processes that work on a study."""
        return {
            "experiment": self.experiment.name,
            "options": list(self.fixed),
            "search": {option: str(entry) for option, entry in self.space.items()},
            "metric": self.metric,
        }

    def is_better(self, value: float, than: float) -> bool:
        """Whether a value of the metric is better than another; nothing is worse than NaN."""
        return math.isnan(than) or (value < than if self.mode == "min" else value > than)


def open_study(storage: Storage, name: str, search: Search) -> optuna.Study:
    """The study of this name, begun if there is none.

    Raises:
        UsageError: it was begun with another search.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of Optuna 4
        sampler = optuna.samplers.TPESampler(constant_liar=True)  # so that processes do not all try the same
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction="minimize" if search.mode == "min" else "maximize",
        sampler=sampler,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS, n_warmup_steps=_FIRST_PRUNED),
        load_if_exists=True,
    )
    wanted = search.definition()
    trials = study.get_trials(deepcopy=False)  # before the definition, which is older than any of them
    if _DEFINITION not in study.user_attrs:
        if trials:
            raise UsageError(f"--study: {name} in this database is not a study of this command's: give another name")
        study.set_user_attr(_DEFINITION, wanted)
    before = study.user_attrs[_DEFINITION]
    if before != wanted:
        changed = [key for key in wanted if wanted[key] != before.get(key)]
        told = "; ".join(f"{key} {before.get(key)} then, {wanted[key]} now" for key in changed)
        raise UsageError(
            f"--study: {name} was begun with another search ({told}): give another name, or the same search"
        )
    return study


def is_finished(trial: FrozenTrial) -> bool:
    """Whether a trial came to a result: complete, pruned, or failed by its own values; not broken off."""
    if trial.state == TrialState.FAIL:
        return REASON in trial.user_attrs
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED)


def queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Put a trial that was broken off back into the queue, with its values, unless that happens to it again and again.

    Args:
        study: its study.
        trial: what was broken off.
    """
    retries = trial.user_attrs.get(RETRIES, 0)
    if trial.params and retries < _MOST_RETRIES:
        study.enqueue_trial(trial.params, user_attrs={RETRIES: retries + 1})


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The complete trial with the best value, if one is complete."""
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return None
    return study.best_trial
