"""``python -m experiments.benchmark``: measures every comparison, prints a table, writes ``benchmark.json``."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from experiments import process
from experiments.benchmark import compiled, fits, floor, gpu, loading, processes
from experiments.benchmark.children import ChildError
from experiments.benchmark.comparison import Comparison, Pair
from experiments.cli_errors import OneLineParser
from experiments.summary import versions
from zoo.checkpointing import write_whole
from zoo.hardware import default_precision, device_name

COMPARISONS: list[Comparison] = [
    *fits.COMPARISONS,
    *loading.COMPARISONS,
    *floor.COMPARISONS,
    *compiled.COMPARISONS,
    *gpu.COMPARISONS,
    *processes.COMPARISONS,
]
_COLUMNS = "{:<11} {:>9} {:>9} {:>10} {:>13} {:>13}  {}"


@dataclass(frozen=True)
class Result:
    """What was measured of a comparison, or why nothing was."""

    comparison: Comparison
    pairs: Sequence[Pair]
    ratio: float
    seconds: float
    skipped: str | None = None
    failed: str | None = None

    @property
    def verdict(self) -> str:
        """Whether the bound is kept, in a word or two."""
        if self.skipped is not None:
            return "skipped"
        if self.failed is not None:
            return "FAILED"
        if self.comparison.must is None:
            return "no bound"
        return "kept" if self.comparison.is_kept(self.ratio) else "NOT KEPT"

    def as_json(self) -> dict[str, object]:
        """Everything of it, in plain values."""
        comparison = self.comparison
        return {
            "name": comparison.name,
            "ours": comparison.ours,
            "baseline": comparison.baseline,
            "unit": comparison.unit,
            "better": "more" if comparison.more_is_better else "less",
            "must": comparison.must,
            "aim": comparison.aim,
            "ratio": _finite(self.ratio),
            "verdict": self.verdict,
            "skipped": self.skipped,
            "failed": self.failed,
            "seconds": round(self.seconds, 1),
            "rounds": [
                {
                    "ours": _finite(pair.ours),
                    "baseline": _finite(pair.baseline),
                    "ratio": _finite(pair.ratio),
                    "note": pair.note,
                }
                for pair in self.pairs
            ],
        }


def _finite(value: float) -> float | None:
    """JSON has no other numbers."""
    return value if math.isfinite(value) else None


def measure(comparisons: Sequence[Comparison], rounds: int) -> Iterator[Result]:
    """Measure each in turn, with a bar on a terminal."""
    bar = tqdm(total=rounds * len(comparisons), unit="round", disable=None, leave=False, dynamic_ncols=True)
    with bar:
        for comparison in comparisons:
            bar.set_description(comparison.name)
            reason = comparison.skipped()
            pairs: list[Pair] = []
            started = time.perf_counter()
            failed = None
            try:
                for pair in comparison.measure(rounds) if reason is None else ():
                    pairs.append(pair)
                    bar.update()
            except (ChildError, fits.UnequalWeightsError) as error:  # the others are measured all the same
                failed, pairs = f"{comparison.name}: {' '.join(str(error).split())}", []
            bar.update(rounds - len(pairs))
            ratio = comparison.summarize(pairs) if pairs else math.nan
            yield Result(comparison, pairs, ratio, time.perf_counter() - started, reason, failed)


def table(results: Sequence[Result]) -> str:
    """A line for each comparison, with the medians of both sides."""
    lines = [_COLUMNS.format("comparison", "ratio", "must", "aim", "ours", "baseline", "verdict")]
    for result in results:
        comparison = result.comparison
        sign = ">=" if comparison.more_is_better else "<="
        bounds = [_bound(sign, comparison.must), _bound(sign, comparison.aim)]
        if not result.pairs:
            lines.append(_COLUMNS.format(comparison.name, "-", *bounds, "-", "-", _why_not(result)))
            continue
        ours, baseline = (
            f"{_short(_median([getattr(pair, side) for pair in result.pairs]))} {comparison.unit}"
            for side in ("ours", "baseline")
        )
        lines.append(_COLUMNS.format(comparison.name, _short(result.ratio), *bounds, ours, baseline, result.verdict))
    lines.append("")
    notes = [(result.comparison.name, result.pairs[-1].note) for result in results if result.pairs]
    lines += [f"{name}: {note}" for name, note in notes if note]
    lines.append("")
    lines += [
        f"{result.comparison.name}: {result.comparison.ours}, over {result.comparison.baseline}" for result in results
    ]
    return "\n".join(lines)


def _why_not(result: Result) -> str:
    return f"skipped: {result.skipped}" if result.skipped is not None else result.verdict


def _bound(sign: str, value: float | None) -> str:
    return "-" if value is None else f"{sign} {_short(value)}"


def _short(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) >= 100 else f"{value:.3f}"


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def machine() -> dict[str, object]:
    """What the figures are figures of."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {"device": device_name(device), "precision": default_precision(), "versions": versions()}


def main(args: Sequence[str] | None = None) -> list[Result]:
    """Measure, print and write; the options are those in ``args``, or of the process's command line.

    Raises:
        SystemExit: with code 2 for a command line that cannot be used, with 1 if something could not be measured.
    """
    names = [comparison.name for comparison in COMPARISONS]
    seldom = [comparison.name for comparison in COMPARISONS if not comparison.by_default]
    parser = OneLineParser(
        prog="python -m experiments.benchmark", description=__doc__.partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help=f"{', '.join(names)}; may be repeated (default: all but {', '.join(seldom)})",
    )
    parser.add_argument("--rounds", type=int, default=5, help="pairs of measurements of each (default: 5)")
    parser.add_argument("--output", type=Path, default=Path("benchmark.json"), help="default: benchmark.json")
    given = parser.parse_args(args)
    only = [name for value in given.only or [] for name in value.split(",")]
    unknown = [name for name in only if name not in names]
    if unknown:
        parser.error(f"--only: there is no comparison {unknown[0]!r}; there are {', '.join(names)}")
    if given.rounds < 1:
        parser.error(f"--rounds: must be at least 1, got {given.rounds}")
    if not given.output.absolute().parent.is_dir():
        parser.error(f"--output: there is no directory {given.output.absolute().parent}")
    if given.output.is_dir():
        parser.error(f"--output: {given.output} is a directory")
    chosen = [
        comparison for comparison in COMPARISONS if comparison.name in only or (comparison.by_default and not only)
    ]
    about = machine()
    print(f"machine   {about['device']}; {about['precision']}", flush=True)
    results: list[Result] = []
    for result in measure(chosen, given.rounds):
        results.append(result)
        tqdm.write(f"{result.comparison.name:<11} {_short(result.ratio)} ({result.verdict}, {result.seconds:.0f} s)")
    text = json.dumps({**about, "comparisons": [result.as_json() for result in results]}, indent=2) + "\n"
    write_whole(text.encode(), given.output)
    print(f"\n{table(results)}\n\nwritten to {given.output}")
    failed = [result.failed for result in results if result.failed is not None]
    if failed:
        print(f"error: {failed[0]}", file=sys.stderr)
        raise SystemExit(1)
    return results


if __name__ == "__main__":
    process.imported()
    try:
        main()
    except KeyboardInterrupt:
        process.end(130)
    except SystemExit as stopped:
        process.end(stopped.code if isinstance(stopped.code, int) else 1)
    process.end(0)
