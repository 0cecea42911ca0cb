"""What several runs differ in, and which of them is best at what."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from experiments.report.runs import Run

_LESS_IS_BETTER = {"loss", "mse", "mae", "rmse", "ece", "cer", "wer", "nll", "error", "huber", "l1"}
_MORE_IS_BETTER = {"accuracy", "f1", "auroc", "average_precision", "r2", "precision", "recall"}
_SEED = "seed_everything"


def labels(directories: Sequence[Path]) -> list[str]:
    """The end of each directory's path that no other one has."""
    parts = [directory.absolute().parts for directory in directories]
    for depth in range(1, max(map(len, parts)) + 1):
        ends = ["/".join(path[-depth:]) for path in parts]
        if len(set(ends)) == len(ends):
            break
    return ends


def mode_of(metric: str, runs: Sequence[Run]) -> Literal["min", "max"] | None:
    """Whether more or less of a metric is better, by its name and by what is claimed; ``None`` if that is not clear.

    An accuracy that may be at most so high, such as that of a model which is known to fail, is none to be best at.
    """
    claims = [claim for run in runs if run.result is not None for claim in run.result.claims]
    modes = {claim.mode for claim in claims if claim.metric == metric}
    named = _mode_by_name(metric)
    if named is not None:
        modes.add(named)
    return modes.pop() if len(modes) == 1 else None


def _mode_by_name(metric: str) -> Literal["min", "max"] | None:
    name = metric.rpartition("/")[2].removesuffix("_epoch")
    if name in _LESS_IS_BETTER or name.endswith(("_loss", "_error")):
        return "min"
    return "max" if name in _MORE_IS_BETTER or name.endswith("_accuracy") else None


def best(values: Sequence[float | None], mode: Literal["min", "max"] | None) -> set[int]:
    """The places of the best values; none where there is no other to be better than."""
    finite = {place: value for place, value in enumerate(values) if value is not None and math.isfinite(value)}
    if mode is None or len(set(finite.values())) < 2:
        return set()
    top = (max if mode == "max" else min)(finite.values())
    return {place for place, value in finite.items() if value == top}


def same_data(runs: Sequence[Run]) -> bool:
    """Whether figures of the runs can be compared: those on different data cannot."""
    return len({run.result.dataset for run in runs if run.result is not None}) <= 1


def differing(by_run: Sequence[Mapping[str, str]]) -> list[str]:
    """The names that do not have the same value in all runs, in the order of the first run that has them."""
    names = dict.fromkeys(name for values in by_run for name in values)
    return [name for name in names if len({values.get(name) for values in by_run}) > 1]


def deviating(values: Sequence[str | None]) -> set[int]:
    """The places of values that most runs do not have; none where no value is that of most."""
    [(usual, count)] = Counter(values).most_common(1)
    return set() if 2 * count <= len(values) else {place for place, value in enumerate(values) if value != usual}


def are_repetitions(runs: Sequence[Run]) -> bool:
    """Whether the runs are one experiment with one configuration under different seeds."""
    return (
        len(runs) > 1
        and all(run.result is not None and run.config for run in runs)
        and len({run.experiment for run in runs}) == 1
        and same_data(runs)
        and differing([run.config for run in runs]) == [_SEED]
    )


def mean_and_deviation(values: Sequence[float | None]) -> tuple[float, float] | None:
    """The mean and the standard deviation of a sample, if there are numbers in all places."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if len(finite) < max(2, len(values)):
        return None
    return statistics.mean(finite), statistics.stdev(finite)
