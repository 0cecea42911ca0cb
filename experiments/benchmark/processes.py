"""What whole processes cost: time to an accuracy, start-up, memory, and two of them at once."""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from experiments import run_directory
from experiments.benchmark.children import ChildError, finish, module, peak_memory, script, seconds_until
from experiments.benchmark.comparison import Comparison, Pair, alternate, ratio_of_means
from experiments.benchmark.probes import FIRST_STEP, STEP_TIME
from zoo.hardware import default_precision

# Further options of mnist_cnn on its way to 99 %.
OPTIONS: tuple[str, ...] = ()

_FEW_BATCHES = ("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "100")  # no more memory than all
_TRAINING_ALONE = (
    *("--trainer.max_epochs", "1", "--trainer.limit_val_batches", "0", "--trainer.limit_test_batches", "1"),
    *("--figures", "none"),
)
_IMPORTED = "benchmark: imported"
_TARGET = 0.99
_SEEDS_BEFORE = 2  # the standard script is run in the middle of the seeds, as the machine may slow down or speed up
_DDP_BATCH_SIZE = 256
_PROBES = "experiments.benchmark.probes"
_DATA = Path("data")

# Everything on, and no difference between a machine with an account and one without.
_ENVIRONMENT = {"WANDB_MODE": "offline"}


def missing_mnist() -> str | None:
    """Why nothing that needs MNIST can be measured: the runs would take other data, or wait for a download."""
    folder = _DATA / "MNIST" / "raw"
    files = [
        folder / f"{part}-{kind}.gz"
        for part in ("train", "t10k")
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    ]
    missing = [str(file) for file in files if not file.is_file()]
    return f"there is no {missing[0]}" if missing else None


def _missing_core() -> str | None:
    return missing_mnist() or ("there is one core only" if (os.cpu_count() or 1) < 2 else None)


def mnist_cnn(*options: str) -> list[str]:
    """The command that runs the experiment, tracked."""
    return module("experiments.mnist_cnn", *options)


# ------------------------------------------------------------------ to 99 %


@dataclass(frozen=True)
class SeedPair(Pair):
    """One seed's run beside the standard script's.

    Args:
        ours: see :class:`Pair`, as for the next two.
        baseline: see there.
        note: see there.
        accuracy: of the test that the run reports.
    """

    accuracy: float = math.nan


def ratio_if_reached(pairs: Sequence[Pair]) -> float:
    """The ratio of the means; infinity, which keeps no bound, where the runs are short of 99 % in the mean."""
    accuracies = [pair.accuracy for pair in pairs if isinstance(pair, SeedPair)]
    if len(accuracies) < len(pairs) or not statistics.fmean(accuracies) >= _TARGET:
        return math.inf
    return ratio_of_means(pairs)


def time_seed(seed: int) -> tuple[float, float]:
    """The seconds of a whole run of ours in a process of its own, and the test accuracy that it reports."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / f"seed-{seed}"
        command = mnist_cnn("--seed_everything", str(seed), "--run_dir", str(directory), *OPTIONS)
        seconds = finish(command, **_ENVIRONMENT).seconds
        summary = json.loads((directory / run_directory.SUMMARY).read_text(encoding="utf-8"))
    if summary["dataset"] != "MNIST":
        raise ChildError(f"seed {seed} ran on {summary['dataset']} instead of MNIST")
    return seconds, float(summary["test/accuracy"])


def time_standard_script() -> tuple[float, str]:
    """The seconds of the standard script's whole process to 99 %, and what it reports.

    Raises:
        ChildError: it did not get there.
    """
    finished = finish(script("experiments.benchmark.standard_script", "--target", str(_TARGET)))
    result = json.loads(finished.output.splitlines()[-1])
    reached = f"{100 * result['accuracy']:.2f} % after {result['epochs']} epochs"
    if not result["accuracy"] >= _TARGET:
        raise ChildError(f"the standard script came to {reached} only")
    return finished.seconds, reached


def _measure_to_99(rounds: int) -> Iterator[Pair]:
    before = min(_SEEDS_BEFORE, rounds)
    ours = [time_seed(seed) for seed in range(before)]
    baseline, reached = time_standard_script()
    for seed in range(rounds):
        seconds, accuracy = ours[seed] if seed < before else time_seed(seed)
        note = f"seed {seed}: {100 * accuracy:.2f} %; the script: {reached}"
        yield SeedPair(seconds, baseline, note, accuracy)


# ------------------------------------------------------------------ start-up and memory


def time_start(*options: str) -> float:
    """Seconds from the start of a run's process to its first training step."""
    # W&B's own process may still be writing when the run has ended itself.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        probe = f"--trainer.callbacks+={_PROBES}.FirstStep"
        return seconds_until(mnist_cnn(probe, "--run_dir", f"{folder}/run", *options), FIRST_STEP, **_ENVIRONMENT)


def time_import() -> float:
    """Seconds from the start of a process until it has imported Lightning, its end not included."""
    return seconds_until(
        [sys.executable, "-c", f"import lightning.pytorch; print({_IMPORTED!r}, flush=True)"], _IMPORTED
    )


def _measure_start_up(rounds: int) -> Iterator[Pair]:
    time_start()  # both once for nothing, which brings what they read into memory
    time_import()
    yield from alternate(time_start, time_import, rounds)


def _memory_of_run() -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = mnist_cnn(*_FEW_BATCHES, "--run_dir", f"{folder}/run")
        return peak_memory(command, **_ENVIRONMENT)


def _memory_of_plain_loop() -> float:
    options = ["--limit_batches", "100", *(["--bf16"] if default_precision() == "bf16-mixed" else [])]
    return peak_memory(script("experiments.benchmark.plain_run", *options))


def _measure_memory(rounds: int) -> Iterator[Pair]:
    yield from alternate(_memory_of_run, _memory_of_plain_loop, rounds)


# ------------------------------------------------------------------ steps


def time_steps(*options: str, **variables: str) -> tuple[int, float]:
    """Steps of a run's first epoch, without the first of them, and their seconds in all."""
    with tempfile.TemporaryDirectory() as folder:
        probe = f"--trainer.callbacks+={_PROBES}.StepTime"
        command = mnist_cnn(probe, *_TRAINING_ALONE, "--run_dir", f"{folder}/run", *options)
        finished = finish(command, **_ENVIRONMENT, **variables)
    timed: dict[str, Any] = json.loads(finished.line_behind(STEP_TIME))
    return int(timed["steps"]), float(timed["seconds"])


def _samples_a_second(processes: int, batch_size: int) -> float:
    """Of all processes together, each with batches of so many."""
    options = ["--trainer.accelerator", "cpu", "--trainer.devices", str(processes)]
    options += ["--data.batch_size", str(batch_size), "--trainer.limit_train_batches", "100"]
    if processes > 1:
        options += ["--trainer.strategy", "ddp"]
    steps, seconds = time_steps(*options, OMP_NUM_THREADS="1")
    return steps * batch_size * processes / seconds


def _measure_ddp(batch_size: int, rounds: int) -> Iterator[Pair]:
    yield from alternate(
        lambda: _samples_a_second(2, batch_size), lambda: _samples_a_second(1, _DDP_BATCH_SIZE), rounds
    )


TO_99 = Comparison(
    name="to_99",
    ours="mnist_cnn as a whole process, W&B offline, to 99 % test accuracy (mean over the rounds, each a seed)",
    baseline="the field's standard script as a whole process, to 99 % test accuracy (run once)",
    unit="s",
    must=1 / 15,
    aim=1 / 30,
    measure=_measure_to_99,
    summarize=ratio_if_reached,
    skipped=missing_mnist,
)

START_UP = Comparison(
    name="start_up",
    ours="mnist_cnn from the process's start to the first training step, W&B offline",
    baseline='python -c "import lightning.pytorch"',
    unit="s",
    must=1.5,
    aim=1.2,
    measure=_measure_start_up,
    skipped=missing_mnist,
)

MEMORY = Comparison(
    name="memory",
    ours="largest resident set of mnist_cnn, 100 batches, validation and test, W&B offline (its process not counted)",
    baseline="that of a plain loop: the same network, the same data",
    unit="MiB",
    must=1.15,
    aim=1.05,
    measure=_measure_memory,
    skipped=missing_mnist,
)

DDP = Comparison(
    name="ddp",
    ours=f"mnist_cnn on two processes of one thread, {_DDP_BATCH_SIZE} samples a step each, training steps alone",
    baseline=f"one process of one thread, {_DDP_BATCH_SIZE} samples a step",
    unit="samples/s",
    must=1.6,
    aim=1.9,
    measure=partial(_measure_ddp, _DDP_BATCH_SIZE),
    more_is_better=True,
    skipped=_missing_core,
)

DDP_SAME_STEPS = Comparison(
    name="ddp_split",
    ours=f"the same, {_DDP_BATCH_SIZE} samples a step in all: the weights of one process",
    baseline="likewise",
    unit="samples/s",
    must=None,
    aim=None,
    measure=partial(_measure_ddp, _DDP_BATCH_SIZE // 2),
    more_is_better=True,
    skipped=_missing_core,
    by_default=False,
)

COMPARISONS = [TO_99, START_UP, MEMORY, DDP, DDP_SAME_STEPS]
