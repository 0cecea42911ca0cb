"""A line through points, the update written out by hand: the least-squares weight to within 2e-7, in 3.1 s.

The same line as in ``linear_regression``, by ``parameter -= lr * gradient`` in the training step, with no optimizer:
from a standard normal weight and a zero bias, 30 steps with the gradient of the whole training split. Each seed has
data of its own.

Measured with ``python -m experiments.scoreboard --only linear_regression_from_scratch``, seeds 0 to 4: test MSE
0.2497 +- 0.0035 (highest 0.2555), 0.999 times the variance of the noise, weight error 5.9e-8 +- 4.4e-8 (highest
1.1e-7), bias error 3.5e-8 +- 2.9e-8 (highest 7.2e-8); 3.1 s +- 0.0 in all; Intel Xeon Processor, 2 threads; torch
2.15.0, lightning 2.6.6, Python 3.11.7.
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
    architecture="linear, one feature, no optimizer",
    headline=("weight_error", "seconds"),
)


def main(args: list[str] | None = None) -> dict[str, float]:
    """Run with the options in ``args`` (``None``: the defaults) and return the test metrics."""
    return run(EXPERIMENT, args)


if __name__ == "__main__":
    launch(main)
