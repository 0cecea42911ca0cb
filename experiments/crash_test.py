"""Runs that are killed or stopped, and go on as if they had not been: ``python -m experiments.crash_test --kills 40``.

A small ``mnist_cnn`` on the bundled digits, with dropout, batch norm, shifted images, a one-cycle schedule, two
validations an epoch and a checkpoint every second step, is run to its end once. Then it is run again and again, each
time killed at a random moment (SIGKILL), or told to stop (SIGTERM, Ctrl-C), and resumed. It has to end with the same
weights, state of the optimizer and of the schedule, counters and best checkpoint, to the bit; with the same
``metrics.csv``, to the byte; and, where it is tracked, with these rows in the last offline part of the same W&B run.

Measured with ``python -m experiments.crash_test`` on two cores of an AMD EPYC, torch 2.15, lightning 2.6.6:
40 of 40 killed runs exact (22 went on from behind a batch, 13 from before a validation, 4 from an epoch's end, 1 began
again), 20 of 20 after SIGTERM, 20 of 20 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import csv
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from experiments import mnist_cnn, run_directory
from experiments.runner import launch
from zoo.checkpointing import CheckpointError, read_checkpoint

OPTIONS = (
    *("--data.dataset", "digits", "--data.batch_size", "64", "--data.eval_batch_size", "100"),
    *("--model.channels", "[8, 16]", "--model.dropout", "0.25"),
    *("--trainer.max_epochs", "4", "--trainer.limit_train_batches", "24", "--trainer.log_every_n_steps", "3"),
    *("--trainer.val_check_interval", "0.5", "--checkpoint_every", "2"),
)

_PATIENCE = 120.0  # seconds for a run that takes a few
_EXIT_CODES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}
_SAME = (
    *("state_dict", "optimizer_states", "lr_schedulers", "loops", "training_loss", "epoch", "global_step"),
    *("weight_average", "learning_curves"),  # where there is one, and where figures are drawn
)


class CrashTestError(RuntimeError):
    """A run that does not come to its end by itself, so that nothing can be held against it."""


@dataclass(frozen=True)
class Trial:
    """A run that is interrupted once.

    Args:
        number: of the trial; its directory's name.
        signal: what it is interrupted with.
        moment: when, as a share of the time from its first step to its end.
    """

    number: int
    signal: signal.Signals
    moment: float


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Args:
        trial: the trial.
        place: where the checkpoint that it went on from was written; ``"nowhere"`` if there was none yet, so that it
            began again; ``"its end"`` if it was over before the signal came.
        faults: what was not as it should be; empty if the run survived.
    """

    trial: Trial
    place: str
    faults: tuple[str, ...] = ()


def run_trials(trials: Sequence[Trial], folder: Path, options: Sequence[str], jobs: int) -> Iterator[Outcome]:
    """Run the experiment to its end in ``folder/whole``, then the trials beside it, several at once.

    Raises:
        CrashTestError: the run failed without being interrupted.
    """
    whole = folder / "whole"
    started = time.monotonic()
    begun, process = _start(whole, options)
    process.join(_PATIENCE)
    if process.exitcode != 0:
        process.kill()
        raise CrashTestError(f"the run that is not interrupted came to exit code {process.exitcode}: {_said(whole)}")
    seconds = time.monotonic() - max(started, begun)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(
            lambda trial: _try(trial, folder / f"trial-{trial.number}", whole, options, seconds), trials
        )


def _try(trial: Trial, directory: Path, whole: Path, options: Sequence[str], seconds: float) -> Outcome:
    begun, process = _start(directory, options)
    faults = []
    while True:
        process.join(max(0.0, begun + trial.moment * seconds - time.monotonic()))
        if process.exitcode is None:
            break
        if process.exitcode != 0:
            return Outcome(trial, "nowhere", (f"ended by itself with {process.exitcode}: {_said(directory)}",))
        shutil.rmtree(directory)  # it was faster than the first one
        begun, process = _start(directory, options)
        seconds *= 0.7
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(process.pid, trial.signal)
    process.join(_PATIENCE)
    if process.exitcode is None:
        faults.append(f"{trial.signal.name} did not end it: {_said(directory)}")
        process.kill()  # it must not go on beside the resumed one
        process.join()
    over = (directory / run_directory.SUMMARY).is_file()
    if not faults and process.exitcode not in _exit_codes(trial.signal, over):
        faults.append(f"{trial.signal.name} ended it with {process.exitcode}: {_said(directory)}")
    last = directory / run_directory.CHECKPOINTS / run_directory.LAST
    place = "nowhere"
    if last.is_file():
        try:
            place = "its end" if over else _place(last)
        except CheckpointError as error:
            faults.append(str(error))
        options = ("--resume", str(directory))
    else:
        shutil.rmtree(directory, ignore_errors=True)
    _, process = _start(directory, options)
    process.join(_PATIENCE)
    if process.exitcode != 0:
        process.kill()
        faults.append(f"resumed, it ended with {process.exitcode}: {_said(directory)}")
    else:
        faults += differences(directory, whole)
    return Outcome(trial, place, tuple(faults))


def _exit_codes(number: signal.Signals, over: bool) -> set[int]:
    """What a process may end with that has got a signal: with success, or by the system's hand, only if it was over."""
    return {_EXIT_CODES[number], *((0, -number) if over else ())}


# ------------------------------------------------------------------ one run


def _start(directory: Path, options: Sequence[str]) -> tuple[float, BaseProcess]:
    """A process of its own, and when its training began."""
    process = _CONTEXT.Process(target=_run, args=(directory, tuple(options)))
    config = directory / run_directory.CONFIG
    before = config.stat().st_mtime_ns if config.is_file() else None
    process.start()
    deadline = time.monotonic() + _PATIENCE
    while process.exitcode is None and time.monotonic() < deadline:
        if config.is_file() and config.stat().st_mtime_ns != before:
            break
        time.sleep(0.005)
    return time.monotonic(), process


# Processes that need not import everything again, and have nothing else of this one.
_CONTEXT = multiprocessing.get_context("forkserver")


def _run(directory: Path, options: Sequence[str]) -> None:
    """What a process does: the experiment, as on the command line."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(directory.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    sys.argv = ["mnist_cnn", *options, *(() if "--resume" in options else ("--run_dir", str(directory)))]
    launch(mnist_cnn.main)


def _said(directory: Path) -> str:
    lines = directory.with_suffix(".log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _place(last: Path) -> str:
    callbacks = read_checkpoint(last)["callbacks"]
    place: str = next(state["place"] for name, state in callbacks.items() if name.startswith("LastCheckpoint"))
    return place


# ------------------------------------------------------------------ two runs


def differences(directory: Path, whole: Path) -> list[str]:
    """What a run ended with otherwise than another."""
    found = []
    for name in (run_directory.LAST, "best.ckpt"):
        try:
            ours, theirs = (read_checkpoint(run / run_directory.CHECKPOINTS / name) for run in (directory, whole))
        except CheckpointError as error:
            found.append(str(error))
            continue
        pairs = ((key, ours.get(key), theirs.get(key)) for key in _SAME)
        found += [f"{name}: {place}" for key, one, other in pairs if (place := _first_difference(one, other, key))]
    rows, expected = ((run / "metrics.csv").read_bytes().splitlines() for run in (directory, whole))
    if rows != expected:
        found.append(f"metrics.csv has {len(rows)} lines of {len(expected)}, or other values")
    summaries = [json.loads((run / run_directory.SUMMARY).read_text(encoding="utf-8")) for run in (directory, whole)]
    tested = [{name: value for name, value in one.items() if name.startswith("test/")} for one in summaries]
    if tested[0] != tested[1]:
        found.append(f"tested as {tested[0]} instead of {tested[1]}")
    tracked = [any((run / "wandb").glob("offline-run-*/*.wandb")) for run in (directory, whole)]
    if tracked[0] != tracked[1]:
        found.append("one of the two has a W&B run, and the other has none")
    return found + _wandb_differences(directory)


def _first_difference(ours: Any, theirs: Any, place: str) -> str | None:
    """Where two values that a checkpoint may hold differ in a bit."""
    if isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor):
        same = ours.dtype == theirs.dtype and ours.shape == theirs.shape
        return None if same and torch.equal(_bits(ours), _bits(theirs)) else place
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if ours.keys() != theirs.keys():
            return place
        return next(
            (found for key in ours if (found := _first_difference(ours[key], theirs[key], f"{place}.{key}"))), None
        )
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return next((found for at, (a, b) in pairs if (found := _first_difference(a, b, f"{place}[{at}]"))), None)
    return None if ours == theirs else place


def _bits(values: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor, by which two zeros of different signs differ and two NaN may be the same."""
    return values.contiguous().reshape(-1).view(torch.uint8)


def _wandb_differences(directory: Path) -> list[str]:
    """Where the last offline part of a tracked run is not ``metrics.csv``."""
    # In the order of their names, which tell when they began: W&B closes the file of a killed run at its leisure.
    parts = sorted((directory / "wandb").glob("offline-run-*/*.wandb"))
    if not parts:
        return []
    if len({path.stem for path in parts}) > 1:
        return [f"the W&B run has several ids: {', '.join(path.stem for path in parts)}"]
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(parts[-1])]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if told.returncode != 0:
        return [f"the W&B run cannot be read: {told.stderr.strip()}"]
    tracked = _history(told.stdout)
    with (directory / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]
    written = [
        {("trainer/global_step" if name == "step" else name): cell for name, cell in row.items()} for row in rows
    ]
    if tracked == written:
        return []
    return [f"the W&B run has {len(tracked)} rows of {len(written)}, or other values"]


def _history(records: str) -> list[dict[str, float]]:
    """The rows among W&B's records, one to a line, without what W&B adds to them, and without pictures and tables."""
    found = [json.loads(line) for line in records.splitlines()]
    rows = [record["history"]["item"] for record in found if record["type"] == "history"]
    return [
        {
            name: float(value)
            for name, value in row.items()
            if not name.startswith("_") and f"{name.partition('.')[0]}._type" not in row
        }
        for row in rows
    ]


# ------------------------------------------------------------------ the command


def _trials(kills: int, stops: int, seed: int) -> list[Trial]:
    signals = [signal.SIGKILL] * kills + [signal.SIGTERM] * stops + [signal.SIGINT] * stops
    draws = random.Random(seed)  # noqa: S311  # moments, not secrets
    return [Trial(number, kind, draws.random()) for number, kind in enumerate(signals, 1)]


def _report(outcomes: Sequence[Outcome], folder: Path) -> list[str]:
    lines = []
    for kind in dict.fromkeys(outcome.trial.signal for outcome in outcomes):
        ours = [outcome for outcome in outcomes if outcome.trial.signal == kind]
        exact = sum(not outcome.faults for outcome in ours)
        places = collections.Counter(outcome.place for outcome in ours)
        told = ", ".join(f"{count} from {place}" for place, count in sorted(places.items()))
        lines.append(f"{kind.name}: {exact} of {len(ours)} exact ({told})")
    for outcome in outcomes:
        for fault in outcome.faults:
            where = folder / f"trial-{outcome.trial.number}"
            lines.append(f"FAULT {outcome.trial.signal.name} at {outcome.trial.moment:.3f}, {where}: {fault}")
    return lines


def _command_line() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.crash_test",
        description="Runs that are killed or stopped and resumed. More options are those of mnist_cnn.",
        allow_abbrev=False,
    )
    parser.add_argument("--kills", type=int, default=40, help="runs that are killed (default: 40)")
    parser.add_argument("--stops", type=int, default=20, help="runs that SIGTERM, and that Ctrl-C stops (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at once (default: one a core)")
    parser.add_argument("--keep", type=Path, help="an empty directory for the runs (default: they are not kept)")
    given, options = parser.parse_known_args()
    if min(given.kills, given.stops) < 0 or given.jobs < 1:
        parser.error("--kills and --stops must be at least 0, --jobs at least 1")
    if given.keep is not None and given.keep.exists() and any(given.keep.iterdir()):
        parser.error(f"--keep: {given.keep} is not empty")
    os.environ["OMP_NUM_THREADS"] = "1"  # several runs at once would only be in each other's way
    # That of a process around this one would keep the id of a killed run from the resumed one.
    os.environ.pop("WANDB_SERVICE", None)
    _CONTEXT.set_forkserver_preload(["experiments.mnist_cnn", "experiments.runner"])
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        outcomes = []
        trials = _trials(given.kills, given.stops, given.seed)
        try:
            for outcome in run_trials(trials, folder.absolute(), [*OPTIONS, *options], given.jobs):
                outcomes.append(outcome)
                verdict = "; ".join(outcome.faults) or "exact"
                print(
                    f"{outcome.trial.number:3} {outcome.trial.signal.name:7} from {outcome.place:10} {verdict}",
                    flush=True,
                )
        except CrashTestError as error:
            parser.exit(1, f"error: {error}\n")
        print("\n".join(_report(outcomes, folder)))
    raise SystemExit(any(outcome.faults for outcome in outcomes))


if __name__ == "__main__":
    _command_line()
