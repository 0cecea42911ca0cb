"""The next value of a noisy sum of sines: test MSE 0.2745 where the noise has variance 0.25, in 57 s.

A long short-term memory of 64 units sees 100 steps of a series and forecasts the next one. Every series has the same
three frequencies and amplitudes, drawn by the seed, and phases of its own; the last value alone is the naive
forecast, and the best weighted sum of the window the linear one. Twenty epochs of one-cycle AdamW. Each seed has sines
of its own.

Measured with ``python -m experiments.scoreboard --only sine_forecast``, seeds 0 to 4: test MSE 0.2745 +- 0.0044
(highest 0.2795), 1.098 times the variance of the noise, best linear forecast 0.26501 +- 0.00052, last value
1.62 +- 0.40; 56.9 s +- 0.8 in all; Intel Xeon Processor, 2 threads; torch 2.15.0, lightning 2.6.6, Python 3.11.7.
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
