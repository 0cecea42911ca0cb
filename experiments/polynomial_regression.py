"""A polynomial of degree 5 through points on [-3, 3], equal to polynomial least squares.

TO BE MEASURED
"""

from __future__ import annotations

from datamodules import PolynomialDataModule
from experiments.least_squares import POLYNOMIAL_CLAIMS, polynomial_error
from experiments.runner import Experiment, launch, run
from zoo import PolynomialRegressor

EXPERIMENT = Experiment(
    name="polynomial_regression",
    doc=__doc__,
    model=PolynomialRegressor,
    data=PolynomialDataModule,
    defaults={
        "trainer.max_epochs": 30,
        "trainer.precision": "32-true",
        "model.optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
        "model.scheduler": {"class_path": "zoo.optim.OneCycle"},
        "data.num_samples": 80_000,
        "data.batch_size": 4000,
    },
    monitor="val/mse",
    mode="min",
    select="last",
    claims=POLYNOMIAL_CLAIMS,
    examine=lambda task, data, trainer: polynomial_error(task, data),
)


def main(args: list[str] | None = None) -> dict[str, float]:
    """Run with the options in ``args`` (``None``: the defaults) and return the test metrics."""
    return run(EXPERIMENT, args)


if __name__ == "__main__":
    launch(main)
