"""How far the training of the CNN is from what the machine could do at best."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from experiments.benchmark.comparison import Comparison, Pair, alternate
from experiments.benchmark.processes import missing_mnist, time_steps
from zoo import CNNClassifier
from zoo.hardware import default_precision

_BATCH_SIZE = 256
_STEPS = 55_000 // _BATCH_SIZE  # an epoch without its last, incomplete batch
_OPTIONS = ("--data.batch_size", str(_BATCH_SIZE), "--data.augment", "null", "--trainer.limit_train_batches", "100")
_SIZES = (512, 1024, 2048, 4096)
_REPEATS = 3


def flops_of_step(network: nn.Module, batch_size: int, image_size: int = 28) -> int:
    """Multiplications and additions in the matrix products and convolutions of a training step, there and back."""
    images = torch.zeros(batch_size, 1, image_size, image_size)
    labels = torch.zeros(batch_size, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(functional.cross_entropy(network(images), labels))
    return int(counter.get_total_flops())


def best_rate(dtype: torch.dtype, device: torch.device, sizes: Sequence[int] = _SIZES) -> float:
    """The most multiplications and additions a second that any of several products of square matrices reaches."""
    best = 0.0
    for size in sizes:
        a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
        a @ b  # chooses the kernel
        for _ in range(_REPEATS):
            started = _now(device)
            a @ b
            best = max(best, 2.0 * size**3 / (_now(device) - started))
    return best


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _measure_floor(rounds: int, options: Sequence[str], network: nn.Module) -> Iterator[Pair]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if default_precision(device.type) == "bf16-mixed" else torch.float32
    flops = _STEPS * flops_of_step(network, _BATCH_SIZE)
    rates = []

    def ours() -> float:
        steps, seconds = time_steps("--trainer.accelerator", device.type, *_OPTIONS, *options)
        return seconds / steps * _STEPS

    def floor() -> float:
        rates.append(best_rate(dtype, device))
        return flops / rates[-1]

    for pair in alternate(ours, floor, rounds):
        note = f"{flops / 1e9:.0f} GFLOP at {rates[-1] / 1e9:.0f} GFLOP/s ({str(dtype).removeprefix('torch.')})"
        yield Pair(pair.ours, pair.baseline, note)


FLOOR = Comparison(
    name="floor",
    ours=f"a training epoch of a CNN 24-32-256, 3x3 kernels, without norm, {_STEPS} steps of {_BATCH_SIZE} images",
    baseline="its floating-point operations at the best rate of a matrix product here",
    unit="s",
    must=2.5,
    aim=1.7,
    measure=lambda rounds: _measure_floor(
        rounds,
        ("--model.channels", "[24,32]", "--model.hidden", "256", "--model.kernel_size", "3", "--model.norm", "null"),
        CNNClassifier(channels=(24, 32), hidden=256, kernel_size=3, norm=None).network,
    ),
    skipped=missing_mnist,
)

FLOOR_OF_MNIST_CNN = Comparison(
    name="floor_mnist",
    ours="a training epoch of mnist_cnn's network, likewise: fewer operations a byte, and batch norm",
    baseline="likewise",
    unit="s",
    must=None,
    aim=None,
    measure=lambda rounds: _measure_floor(rounds, (), CNNClassifier().network),
    skipped=missing_mnist,
    by_default=False,
)

COMPARISONS = [FLOOR, FLOOR_OF_MNIST_CNN]
