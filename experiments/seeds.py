"""One experiment under several seeds, each in a process of its own: ``python -m experiments.seeds xor --seeds 0-19``.

Options behind the seeds are the experiment's. The last lines give mean and standard deviation of every test metric, of
what the experiment adds and of the seconds, and whether the mean reaches each claim.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.__main__ import list_experiments
from experiments.cli_errors import OneLineParser


class RunsError(RuntimeError):
    """Runs that make no series."""


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
        command = [sys.executable, "-m", f"experiments.{experiment}", *options]
        command += ["--seed_everything", str(seed), "--run_dir", str(directory)]
        subprocess.run(command, check=True, stdout=subprocess.PIPE)
        try:
            summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise RunsError(f"the run of seed {seed} left no {error.filename}") from error
        if summaries and summary["dataset"] != summaries[0]["dataset"]:
            raise RunsError(f"seed {seed} ran on {summary['dataset']}, the ones before on {summaries[0]['dataset']}")
        told = ", ".join(f"{name} {value:.4g}" for name, value in figures(summary).items())
        print(f"seed {seed}: {told} (dataset: {summary['dataset']})", flush=True)
        summaries.append(summary)
    return summaries


def figures(summary: dict[str, Any]) -> dict[str, float]:
    """What differs from seed to seed: test metrics, what the experiment adds, and the seconds in all.

    What was no number is left out.
    """
    tested = {name: value for name, value in summary.items() if name.startswith("test/")}
    known = {name: value for name, value in {**tested, **summary["examined"]}.items() if value is not None}
    return {**known, "seconds": summary["seconds"]["total"]}


def statistics_of(summaries: Sequence[dict[str, Any]]) -> list[str]:
    """A line that names the data, a line for each figure, and one for each claim: what is claimed is the mean."""
    rows = [figures(summary) for summary in summaries]
    lines = [f"{len(summaries)} runs (dataset: {summaries[0]['dataset']})"]
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name] for row in rows if name in row]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        lines.append(f"{name}: {statistics.mean(values):.5g} +- {spread:.2g} ({min(values):.5g} to {max(values):.5g})")
    for number, claim in enumerate(summaries[0]["claims"]):
        held = [summary["claims"][number] for summary in summaries]
        values = [math.nan if one["value"] is None else one["value"] for one in held]
        mean, bar = statistics.mean(values), statistics.mean(one["bar"] for one in held)
        margin = mean - bar if claim["mode"] == "max" else bar - mean
        verdict = "reaches" if margin >= 0.0 or math.isclose(mean, bar, rel_tol=1e-7) else "IS SHORT OF"
        reached = sum(one["reached"] for one in held)
        lines.append(
            f"claim {claim['metric']}: mean {mean:.5g} {verdict} {bar:.5g}; reached by {reached} of {len(held)} runs"
        )
    return lines


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
    print("\n".join(statistics_of(runs)))


if __name__ == "__main__":
    _command_line()
