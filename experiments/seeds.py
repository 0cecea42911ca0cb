"""One experiment under several seeds, each in a process of its own: ``python -m experiments.seeds xor --seeds 0-19``.

Options behind the seeds are the experiment's. The last lines give mean and standard deviation of every test metric, of
what the experiment adds and of the seconds, and whether the mean reaches each claim.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.__main__ import list_experiments
from experiments.cli_errors import OneLineParser
from experiments.over_seeds import RunsError, command, describe, figures, read_summary
from experiments.run_directory import SUMMARY


def repeat(experiment: str, seeds: Sequence[int], options: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """Run an experiment once for each seed, in directories below ``folder``, and return the summaries.

    Raises:
        FileExistsError: a directory is taken; an earlier run's figures would be taken for this one's.
        subprocess.CalledProcessError: a run failed; what it said is on stderr.
        RunsError: a run left no summary, or was on other data than the ones before.
    """
    directories = {seed: folder / f"{experiment}-{seed}" for seed in seeds}
    for directory in directories.values():
        if directory.exists():
            raise FileExistsError(f"{directory} is taken by an earlier run: give --keep another directory")
    summaries: list[dict[str, Any]] = []
    for seed, directory in directories.items():
        subprocess.run(command(experiment, seed, directory, options), check=True, stdout=subprocess.PIPE)
        try:
            summary = read_summary(directory / SUMMARY)
        except FileNotFoundError as error:
            raise RunsError(f"the run of seed {seed} left no {error.filename}") from error
        if summaries and summary["dataset"] != summaries[0]["dataset"]:
            raise RunsError(f"seed {seed} ran on {summary['dataset']}, the ones before on {summaries[0]['dataset']}")
        told = ", ".join(f"{name} {value:.4g}" for name, value in figures(summary).items())
        print(f"seed {seed}: {told} (dataset: {summary['dataset']})", flush=True)
        summaries.append(summary)
    return summaries


def _seeds(text: str) -> list[int]:
    first, dash, last = text.partition("-")
    try:
        seeds = list(range(int(first), int(last) + 1)) if dash else [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"expected seeds such as 0-4 or 1,2,3, each once, got {text!r}")
    return seeds


def _command_line() -> None:
    parser = OneLineParser(
        prog="python -m experiments.seeds",
        description="One experiment under several seeds. Other options are the experiment's.",
        allow_abbrev=False,
    )
    parser.add_argument("experiment", choices=sorted(list_experiments()))
    parser.add_argument("--seeds", type=_seeds, default=_seeds("0-4"), help="such as 0-4 or 1,2,3 (default: 0-4)")
    parser.add_argument("--keep", type=Path, help="directory for the runs (default: they are not kept)")
    given, rest = parser.parse_known_args()
    for option in ("--seed_everything", "--run_dir", "--resume"):
        if any(arg.partition("=")[0] == option for arg in rest):
            parser.error(f"{option}: every seed has its own; give --seeds and --keep")
    if given.keep is None and not any(option.startswith("--tracking") for option in rest):
        rest += ["--tracking", "csv"]  # what a tracker wrote would be gone with the runs
    try:
        with tempfile.TemporaryDirectory() as temporary:
            runs = repeat(given.experiment, given.seeds, rest, given.keep or Path(temporary))
    except (FileExistsError, RunsError) as error:
        parser.error(str(error))
    except subprocess.CalledProcessError as error:
        if error.returncode < 0:  # a run that was not killed has said itself what is wrong
            parser.exit(1, f"error: a run was ended by signal {-error.returncode}\n")
        raise SystemExit(error.returncode) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    print("\n".join(describe(runs)))


if __name__ == "__main__":
    _command_line()
