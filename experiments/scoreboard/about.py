"""What an experiment says of itself, as far as the scoreboard wants to know."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from experiments.command_line import Experiment
from experiments.over_seeds import SECONDS

LIMIT = "limit"


@dataclass(frozen=True)
class About:
    """An experiment.

    Args:
        name: of its module.
        what: the first line of its docstring, up to the figures.
        architecture: the network in words.
        metric: which of the figures is on the board.
        mode: whether more or less of it is better.
        datasets: the data that its claims are about; empty where there is only one.
        headline: which figures the first line gives, in their order.
        reported: further figures that are told, in words, by name.
        seeds: how many are usual.
        quick: whether it is of a few seconds, on made data without pictures or sequences.
    """

    name: str
    what: str
    architecture: str
    metric: str
    mode: Literal["min", "max"] = "max"
    datasets: frozenset[str] = frozenset()
    headline: Sequence[str] = ()
    reported: Mapping[str, str] = field(default_factory=dict)
    seeds: int = 5
    quick: bool = False


def about(name: str, first_line: str) -> About:
    """Ask an experiment's module.

    Args:
        name: of the module.
        first_line: of its docstring, which is all there is of a module that cannot be imported here: its runs will say
            why.
    """
    try:
        experiment = getattr(importlib.import_module(f"experiments.{name}"), "EXPERIMENT", None)
    except ImportError:
        experiment = None
    what = first_line.partition(": ")[0].rstrip(".")
    if not isinstance(experiment, Experiment):
        return About(name, what, what, "test/accuracy", headline=("test/accuracy", SECONDS))
    first = next(iter(experiment.claims), None)
    metric = experiment.monitor.replace("val/", "test/") if first is None else first.metric
    return About(
        name=name,
        what=what,
        architecture=experiment.architecture or what,
        metric=metric,
        mode=experiment.mode if first is None else first.mode,
        datasets=frozenset(claim.dataset for claim in experiment.claims if claim.dataset is not None),
        headline=tuple(experiment.headline) or (metric, SECONDS),
        reported=dict(experiment.reported),
        seeds=experiment.seeds,
        quick=experiment.data.__module__ == "datamodules.synthetic",
    )
