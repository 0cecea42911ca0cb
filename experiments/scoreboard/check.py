"""Whether the code still does what the board says: one seed of what is quick, for CI."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.__main__ import list_experiments
from experiments.benchmark.processes import missing_mnist
from experiments.scoreboard import words
from experiments.scoreboard.about import About, about
from experiments.scoreboard.board import Board, BoardError
from experiments.scoreboard.interval import FEWEST, interval, place_of
from experiments.scoreboard.row import Row
from experiments.scoreboard.runs import OPTIONS, RunError, Runs

_SEED = 0
_ALSO = "mnist_cnn"  # a single epoch
_OPTIONS = (*OPTIONS, "--figures", "none")


def check(board: Board, only: Sequence[str] = (), runs: Runs | None = None) -> bool:
    """Run one seed of the quick experiments, and say for every claimed figure whether it is in its interval.

    Args:
        board: what was measured.
        only: the experiments; empty: those on made tables, and ``mnist_cnn``.
        runs: where and how they are run; the default is a folder that is removed.

    Returns:
        Whether every figure is where it has to be.

    Raises:
        BoardError: there is nothing to check.
    """
    names = list_experiments()
    known = [about(name, names[name]) for name in only or names]
    chosen = [one for one in known if only or one.quick or one.name == _ALSO]
    if not board.rows:
        raise BoardError("there is no scoreboard.json to check against: give --output")
    fine = True
    with tempfile.TemporaryDirectory() as folder:
        for one in chosen:
            for is_fine, line in _lines(one, board.rows.get(one.name), runs or Runs(Path(folder), options=_OPTIONS)):
                print(f"{line}", flush=True)
                fine &= is_fine
    return fine


def _lines(one: About, row: Row | None, runs: Runs) -> Iterator[tuple[bool, str]]:
    if row is None:
        yield False, f"MISSING   {one.name}: the board has no row of it"
        return
    if not row.is_quotable or len(row.seeds) < FEWEST:
        reason = "; ".join(row.remarks) or f"{len(row.seeds)} seeds, {FEWEST} are needed for an interval"
        yield False, f"MISSING   {one.name}: the board has no interval of it ({reason})"
        return
    if row.dataset == "MNIST" and (missing := missing_mnist()):
        yield True, f"skipped   {one.name}: {missing}"
        return
    try:
        summary = runs.make(one.name, _SEED)
    except RunError as error:
        yield False, f"FAILED    {one.name}: {error}"
        return
    if summary["dataset"] != row.dataset:
        yield False, f"FAILED    {one.name}: it ran on {summary['dataset']}, not on {row.dataset}"
        return
    yield from _held(one, row, summary)


def _held(one: About, row: Row, summary: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    if [held["metric"] for held in summary["claims"]] != [claim.metric for claim in row.claims]:
        yield False, f"CHANGED   {one.name}: its claims are no longer those of the board"
        return
    for claim, held in zip(row.claims, summary["claims"], strict=True):
        bounds = interval(claim)
        if bounds is None:
            continue
        place = place_of(held, bounds)
        is_fine = place is not None and bounds.low <= place <= bounds.high
        what = words.words(claim.metric) + (" from its limit" if bounds.of == "distance" else "")
        low, high = words.value(claim.metric, bounds.low), words.value(claim.metric, bounds.high)
        shown = "no number" if place is None else words.value(claim.metric, place)
        yield is_fine, f"{'in' if is_fine else 'OUTSIDE':9} {one.name}: {what} {shown}, recorded {low} to {high}"
