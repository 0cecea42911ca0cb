"""The metrics of a trained model on any data: ``python -m experiments.evaluate --checkpoint PATH``.

The data are those that it was trained on, as its checkpoint says, unless ``--data`` names others or ``--data.*``
changes them (``--data.dataset FashionMNIST``). They are standardised as the model's training data were. Nothing is
written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from experiments.cli_errors import answered
from experiments.console import quiet
from experiments.evaluation import Split, command_line
from experiments.runner import launch
from experiments.summary import as_json

_OPTIONS: dict[str, dict[str, Any]] = {
    "split": {"type": Split, "default": "test", "help": "The split: val or test (default: test)."},
}


def evaluate(args: Sequence[str]) -> dict[str, float]:
    """Print the metrics that a command line asks for, and return them.

    Raises:
        SystemExit: after one line on stderr, with code 2 for a command line that cannot be used.
        CheckpointError, DataError, TargetError, ShapeError, NonFiniteError: see there.
    """
    with quiet(), answered():
        asked = command_line("evaluate", "The metrics of a trained model on any data.", _OPTIONS, args)
        split = asked.given.get("split", "test")
        if split == "val" and asked.may_have_seen_validation:
            print(
                "warning: some of these validation samples may be among those the model was trained on", file=sys.stderr
            )
        metrics = asked.metrics(split)
        if asked.given.get("json"):
            print(json.dumps(as_json({**asked.facts(), "split": split, "metrics": metrics}), indent=2))
        else:
            print(asked.opening())
            print("\n".join(table(metrics)))
    return metrics


def table(metrics: dict[str, float]) -> list[str]:
    """A line for each metric."""
    width = max(map(len, metrics))
    return [f"{name:{width}}  {value:.4f}" for name, value in metrics.items()]


if __name__ == "__main__":
    launch(evaluate)
