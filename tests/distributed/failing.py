"""An experiment that fails on its second rank alone, when the others have begun to wait for it."""

from __future__ import annotations

import os

from datamodules import DataError, LinearDataModule
from experiments.runner import Experiment, launch, run
from zoo import LinearRegressor


class _Failing(LinearRegressor):
    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if os.environ.get("LOCAL_RANK") == "1":
            raise DataError("this rank's file is damaged")


if __name__ == "__main__":
    experiment = Experiment("failing", "Fails.", _Failing, LinearDataModule, monitor="val/mse", mode="min")
    launch(lambda args: run(experiment, args))
