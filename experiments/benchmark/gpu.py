"""What a GPU makes of the same run: seconds to 99 % with the data on the device."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from experiments import mnist_cnn
from experiments.benchmark.comparison import Comparison, Pair
from experiments.benchmark.fits import prepared
from experiments.benchmark.processes import SeedPair, missing_mnist, ratio_if_reached

_SEEDS = 10
_PUBLISHED = 0.76
"""Seconds to 99 % on one gaming GPU, data on the device: the record of a public repository."""


def fit_and_test(seed: int, *options: str) -> tuple[float, float]:
    """The wall seconds of one ``fit`` of mnist_cnn as it is, and the test accuracy that it came to."""
    with prepared((mnist_cnn.EXPERIMENT, ()), "--seed_everything", str(seed), *options) as cli:
        if torch.cuda.is_available():
            torch.zeros(1, device="cuda")  # a context of CUDA is start-up, not training
            torch.cuda.synchronize()
        started = time.perf_counter()
        cli.trainer.fit(cli.model, cli.datamodule)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        [metrics] = cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    return seconds, float(metrics["test/accuracy"])


def _measure(rounds: int) -> Iterator[Pair]:
    for seed in range(_SEEDS):
        seconds, accuracy = fit_and_test(seed)
        yield SeedPair(seconds, _PUBLISHED, f"seed {seed}: {100 * accuracy:.2f} %", accuracy)


def _missing_gpu() -> str | None:
    return missing_mnist() if torch.cuda.is_available() else "there is no CUDA device"


GPU_FIT = Comparison(
    name="gpu_fit",
    ours=f"seconds of mnist_cnn's fit on a GPU, mean of {_SEEDS} seeds, each with its accuracy",
    baseline="0.76 s, published for one gaming GPU",
    unit="s",
    must=None,
    aim=1.0,
    measure=_measure,
    summarize=ratio_if_reached,
    skipped=_missing_gpu,
)

COMPARISONS = [GPU_FIT]
