"""A line through points, by gradient descent written out by hand, from random weights.

TO BE MEASURED
"""

from __future__ import annotations

from datamodules import LinearDataModule
from experiments.least_squares import LEAST_SQUARES_CLAIMS, linear_errors
from experiments.runner import Experiment, launch, run
from zoo import LinearRegressorFromScratch

EXPERIMENT = Experiment(
    name="linear_regression_from_scratch",
    doc=__doc__,
    model=LinearRegressorFromScratch,
    data=LinearDataModule,
    defaults={
        "trainer.max_epochs": 30,
        "trainer.precision": "32-true",
        "model.lr": 0.25,
        "data.num_samples": 80_000,
        "data.batch_size": 56_000,  # the whole training split: its gradient has no noise, so the rate need not fall
    },
    monitor="val/mse",
    mode="min",
    select="last",
    claims=LEAST_SQUARES_CLAIMS,
    examine=lambda task, data, trainer: linear_errors(task, data),
)


def main(args: list[str] | None = None) -> dict[str, float]:
    """Run with the options in ``args`` (``None``: the defaults) and return the test metrics."""
    return run(EXPERIMENT, args)


if __name__ == "__main__":
    launch(main)
