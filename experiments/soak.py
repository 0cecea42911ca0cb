"""A run of many epochs that is watched from outside: memory, open files, threads, and what it writes.

``python -m experiments.soak --epochs 500`` trains a small ``mnist_cnn`` on the bundled digits with everything on
(dropout, batch norm, shifted images, validation and test, checkpoints, metrics.csv, W&B offline) and looks at the
process, and at the tracker's own one, in every epoch. Reads ``/proc``, so it is for Linux.

Measured with ``python -m experiments.soak`` on two cores of an AMD EPYC, torch 2.15, lightning 2.6.6, wandb 0.31:
500 epochs in 3 minutes; after the 50th the memory of the run grew by 0.2 % (875.8 to 877.3 MiB), that of W&B's process
from 36.0 to 39.2 MiB; 8 open files and 5 threads throughout; 136 bytes an epoch on the screen, 220 in metrics.csv,
1.9 KiB in W&B's files.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments import run_directory

OPTIONS = (
    *("--data.dataset", "digits", "--data.batch_size", "64", "--data.eval_batch_size", "100"),
    *("--model.channels", "[8, 16]", "--model.dropout", "0.25"),
    *("--trainer.limit_train_batches", "8", "--trainer.log_every_n_steps", "4", "--checkpoint_every", "5"),
)

_WARM = 50  # epochs after which nothing shall grow any more
_MOST_GROWTH = 0.05
_MOST_WRITTEN = 16 * 1024  # bytes an epoch, in each kind of file
_PAGE = os.sysconf("SC_PAGE_SIZE")


class SoakError(RuntimeError):
    """The run failed, or grew."""


@dataclass(frozen=True)
class Sample:
    """What a run took when an epoch had ended.

    Args:
        epoch: of the run, from 0.
        memory: resident bytes of the process.
        tracker_memory: of the processes that it has started.
        files: open files.
        threads: of the process.
    """

    epoch: int
    memory: int
    tracker_memory: int
    files: int
    threads: int


_SIZES: dict[str, Callable[[Sample], float]] = {
    "memory of the run": lambda sample: sample.memory,
    "memory of the tracker": lambda sample: sample.tracker_memory,
    "memory of both": lambda sample: sample.memory + sample.tracker_memory,
}


def soak(directory: Path, epochs: int, options: Sequence[str]) -> list[Sample]:
    """Run to the end, and return a sample of each epoch that was seen.

    Raises:
        SoakError: the run failed.
    """
    command = [sys.executable, "-m", "experiments.mnist_cnn", "--run_dir", str(directory)]
    command += [*OPTIONS, "--trainer.max_epochs", str(epochs), *options]
    samples: list[Sample] = []
    with (directory.parent / "screen.log").open("wb") as screen:
        process = subprocess.Popen(command, stdout=screen, stderr=subprocess.STDOUT)
        while process.poll() is None:
            epoch = _last_epoch(directory / "metrics.csv")
            if epoch is not None and (not samples or epoch > samples[-1].epoch):
                try:
                    samples.append(_look(process.pid, epoch))
                except OSError:
                    continue  # it has just ended
            time.sleep(0.02)
    if process.returncode:
        raise SoakError(f"the run failed with exit code {process.returncode}: see {screen.name}")
    return samples


def _look(pid: int, epoch: int) -> Sample:
    children = [
        child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return Sample(
        epoch,
        memory=_resident(pid),
        tracker_memory=sum(_resident(child) for child in children),
        files=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        threads=len(list(Path(f"/proc/{pid}/task").iterdir())),
    )


def _resident(pid: int | str) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * _PAGE


def _last_epoch(metrics: Path) -> int | None:
    """The epoch of the last whole row."""
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, metrics.stat().st_size - 1000))
            rows = file.read().split(b"\n")[1:-1]
        return int(rows[-1].split(b",")[1]) if rows else None
    except (OSError, ValueError):
        return None


def report(samples: Sequence[Sample], directory: Path) -> list[str]:
    """The figures, a line each; the first word of a line that tells of growth is ``GREW``."""
    if len(samples) <= 1 or samples[-1].epoch <= _WARM:
        raise SoakError(f"too few epochs were seen to tell: more than {_WARM} are needed")
    last = samples[-1].epoch
    warm = next(sample for sample in samples if sample.epoch >= _WARM)
    later = [sample for sample in samples if sample.epoch >= _WARM]
    lines = [f"{len(samples)} samples of {last + 1} epochs"]
    for name, size_of in _SIZES.items():
        begun, most = size_of(warm), max(map(size_of, later))
        growth = most / begun - 1.0 if begun else 0.0
        # The tracker's own process is not ours to mend; together they count.
        verdict = "GREW" if growth > _MOST_GROWTH and name != "memory of the tracker" else "grew"
        begun, most, end = (size / 2**20 for size in (begun, most, size_of(samples[-1])))
        lines.append(
            f"{verdict:9} {name} by {100 * growth:.1f} % at most: {begun:.1f} MiB after epoch {warm.epoch + 1}, "
            f"{most:.1f} MiB at most, {end:.1f} MiB at the end"
        )
    for name in ("files", "threads"):
        counts = [getattr(sample, name) for sample in later]
        first, second = counts[: len(counts) // 2], counts[len(counts) // 2 :]
        # The least: one more is open while a checkpoint or a row is being written.
        verdict = "GREW" if min(second) > min(first) else "constant"
        lines.append(f"{verdict:9} {name}: {min(first)} to {max(first)}, then {min(second)} to {max(second)}")
    written = {
        "screen": [directory.parent / "screen.log"],
        "metrics.csv": [directory / "metrics.csv"],
        "checkpoints": list((directory / run_directory.CHECKPOINTS).iterdir()),
        "W&B": [path for path in (directory / "wandb").rglob("*") if path.is_file() and not path.is_symlink()],
    }
    for name, paths in written.items():
        size = sum(path.stat().st_size for path in paths)
        verdict = "GREW" if size > _MOST_WRITTEN * (last + 1) else "written"
        lines.append(
            f"{verdict:9} {name}: {size / 1024:.1f} KiB in {len(paths)} files, {size / (last + 1):.0f} bytes an epoch"
        )
    return lines


def _command_line() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.soak",
        description="Many epochs of a small run with everything on. More options are those of mnist_cnn.",
        allow_abbrev=False,
    )
    parser.add_argument("--epochs", type=int, default=500, help=f"more than {_WARM} (default: 500)")
    parser.add_argument("--keep", type=Path, help="an empty directory for the run (default: it is not kept)")
    given, options = parser.parse_known_args()
    if given.epochs <= _WARM:
        parser.error(f"--epochs must be more than {_WARM}, after which nothing shall grow")
    if given.keep is not None and given.keep.exists() and any(given.keep.iterdir()):
        parser.error(f"--keep: {given.keep} is not empty")
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = (given.keep or Path(temporary)).absolute()
            folder.mkdir(parents=True, exist_ok=True)
            lines = report(soak(folder / "run", given.epochs, options), folder / "run")
    except SoakError as error:
        parser.exit(1, f"error: {error}\n")
    print("\n".join(lines))
    raise SystemExit(any(line.startswith("GREW") for line in lines))


if __name__ == "__main__":
    _command_line()
