"""What ``--compile`` brings, and after how many epochs."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from experiments.benchmark.comparison import Comparison, Pair
from experiments.benchmark.fits import CNN, prepared


class EpochTimes(Callback):
    """Seconds of the training batches of each epoch, validation not included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._started = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.is_last_batch:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds.append(time.perf_counter() - self._started)


def epoch_times(*options: str) -> list[float]:
    """Seconds of two training epochs of the CNN, the first of which compiles if it is to be compiled."""
    times = EpochTimes()
    with prepared(CNN, "--trainer.limit_val_batches", "0", *options) as cli:
        cli.trainer.callbacks.append(times)  # type: ignore[attr-defined]  # set by Lightning's connector
        cli.trainer.fit(cli.model, cli.datamodule)
    return times.seconds


def _measure(rounds: int) -> Iterator[Pair]:
    mode = "reduce-overhead" if torch.cuda.is_available() else "default"
    import torch._inductor.config as inductor

    # Once, however many rounds: it takes long, and what it says does not hang on a few percent.
    eager = epoch_times()
    with inductor.patch(force_disable_caches=True):  # what was compiled before would not have to be again
        compiled = epoch_times("--compile", mode)
    saved = eager[1] - compiled[1]
    epochs = math.ceil((compiled[0] - compiled[1]) / saved) if saved > 0.0 else None
    break_even = f"pays from epoch {epochs} on" if epochs is not None else "never pays"
    yield Pair(compiled[1], eager[1], f"mode {mode}: compiling takes {compiled[0] - compiled[1]:.1f} s, {break_even}")


def _missing_compiler() -> str | None:
    found = torch.cuda.is_available() or any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))
    return None if found else "there is no C++ compiler"


COMPILED = Comparison(
    name="compile",
    ours="a training epoch of mnist_cnn with --compile, when it is compiled (measured once)",
    baseline="the same without",
    unit="s",
    must=None,
    aim=None,
    measure=_measure,
    skipped=_missing_compiler,
    by_default=False,
)

COMPARISONS = [COMPILED]
