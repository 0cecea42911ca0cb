"""The next value of a noisy sum of sines: test MSE 0.2743 where the noise has variance 0.25, in 79 s.

A long short-term memory of 64 units sees 100 steps of a series and forecasts the next one. Every series has the same
three frequencies and amplitudes, drawn by the seed, and phases of its own; the last value alone is the naive
forecast, and the best weighted sum of the window the linear one. Twenty epochs of one-cycle AdamW. Each seed has sines
of its own.

Measured with ``python -m experiments.seeds sine_forecast --keep DIR``, seeds 0 to 4, each with sines of its own: test
MSE 0.2743 +- 0.0043, 1.097 times the variance of the noise (at most 1.114); naive forecast 1.62 +- 0.40, best linear
one 0.2650 +- 0.0005; 79.2 s +- 6.8 in all; two cores of an AMD EPYC; torch 2.15, lightning 2.6.6, Python 3.11.
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

from datamodules import SineDataModule
from datamodules.padded import dense
from experiments.claims import Claim
from experiments.runner import Experiment, launch, run
from zoo import LSTMForecaster


def other_forecasts(task: LSTMForecaster, data: SineDataModule, trainer: Trainer) -> dict[str, Any]:
    """Of the last value that was seen, for every step of the horizon, and of the best weighted sum of the window."""
    windows, targets = dense(data.splits.test.features), dense(data.splits.test.targets)
    naive = (windows[:, -1] - targets).double().square().mean()
    return {"naive/mse": float(naive), "linear/mse": data.linear_mse}


EXPERIMENT = Experiment(
    name="sine_forecast",
    doc=__doc__,
    model=LSTMForecaster,
    data=SineDataModule,
    defaults={
        "trainer.max_epochs": 20,
        "trainer.precision": "32-true",
        "trainer.gradient_clip_val": 1.0,
        "model.optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.005, "fused": True}},
        "model.scheduler": {"class_path": "zoo.optim.OneCycle"},
        "data.batch_size": 128,
    },
    links={"data.horizon": "model.horizon"},
    monitor="val/mse",
    mode="min",
    select="last",
    claims=[
        Claim(
            "test/mse",
            lambda limit: 1.15 * limit,
            "noise_variance",
            "the variance of the noise",
            mode="min",
            applies=lambda data: data.horizon == 1 and data.noise > 0.0,
        ),
    ],
    examine=other_forecasts,
    architecture="LSTM, 64 units",
    reported={"linear/mse": "best linear forecast", "naive/mse": "last value"},
    headline=("test/mse", "limit", "seconds"),
)


def main(args: list[str] | None = None) -> dict[str, float]:
    """Run with the options in ``args`` (``None``: the defaults) and return the test metrics."""
    return run(EXPERIMENT, args)


if __name__ == "__main__":
    launch(main)
