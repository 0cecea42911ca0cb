"""Ten features, one weight each: least squares by stochastic gradient descent, equal to the closed form.

TO BE MEASURED
"""

from __future__ import annotations

from datamodules import LinearDataModule
from experiments.least_squares import LEAST_SQUARES_CLAIMS, linear_errors
from experiments.runner import Experiment, launch, run
from zoo import LinearRegressor

EXPERIMENT = Experiment(
    name="multiple_regression",
    doc=__doc__,
    model=LinearRegressor,
    data=LinearDataModule,
    defaults={
        "trainer.max_epochs": 30,
        "trainer.precision": "32-true",
        "model.optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
        "model.scheduler": {"class_path": "zoo.optim.OneCycle"},
        "data.num_samples": 80_000,
        "data.num_features": 10,
        "data.batch_size": 4000,
    },
    links={"data.num_features": "model.in_features"},
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
