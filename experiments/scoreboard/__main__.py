"""``python -m experiments.scoreboard [--seeds 5] [--only NAME ...]``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from experiments import run_directory
from experiments.__main__ import list_experiments
from experiments.cli_errors import OneLineParser, UsageError, answered, closest
from experiments.runner import exit_code_of, launch, terminable
from experiments.scoreboard.about import about
from experiments.scoreboard.board import DATA, PAGE, BoardError, read_board
from experiments.scoreboard.check import check
from experiments.scoreboard.quoted import QuotationError, write_quotations
from experiments.scoreboard.runs import Runs
from experiments.scoreboard.series import Series, Task

_MOST_SEEDS = 1000


def main(args: Sequence[str]) -> None:
    """Run what is missing and write the board, or what else the options say.

    Raises:
        SystemExit: with code 2 for a command line, or a board, that cannot be used; 1 if a run failed, or a figure is
            not as it should be; 130 after Ctrl-C and 143 after SIGTERM.
    """
    with answered(), terminable():
        given = _parse(args)
        try:
            if given.check:
                raise SystemExit(0 if check(read_board(given.output / DATA), given.only) else 1)
            if given.write_figures:
                _write_figures(given.output / DATA)
            else:
                _measure(given)
        except BoardError as error:
            raise UsageError(str(error)) from error
        except (SystemExit, KeyboardInterrupt) as stopped:
            if isinstance(stopped, SystemExit) and stopped.code in (0, 1):
                raise
            print("stopped   the same command goes on", file=sys.stderr)
            raise SystemExit(exit_code_of(stopped)) from None


def _measure(given: argparse.Namespace) -> None:
    experiments = list_experiments()
    _try_to_write(given.output)
    read_board(given.output / DATA)  # rather now than after the first run
    runs = Runs(given.runs)
    with runs.locked():
        known = [about(name, experiments[name]) for name in given.only or experiments]
        tasks = [Task(one, range(given.seeds or one.seeds)) for one in known]
        complete = Series(tasks, runs, given.output, experiments).run()
    print(f"written   {given.output / PAGE}, {given.output / DATA}")
    if not complete:
        _fail("not every row is complete and on its own data; the same command tries again what failed")


def _write_figures(path: Path) -> None:
    try:
        changed = write_quotations(read_board(path))
    except QuotationError as error:
        _fail(str(error))
    print("\n".join(f"written   {path}" for path in changed) or "nothing to write: all figures are those of the board")


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)


def _try_to_write(folder: Path) -> None:
    try:
        for name in (PAGE, DATA):
            if (folder / name).exists() and not (folder / name).is_file():
                raise UsageError(f"--output: {folder / name} is no file")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"--output: {folder} cannot be written to: {error.strerror or error}") from error


def _number_of_seeds(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= _MOST_SEEDS:
        raise argparse.ArgumentTypeError(f"expected a number of seeds from 1 to {_MOST_SEEDS}, got {text!r}")
    return number


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = OneLineParser(
        prog="python -m experiments.scoreboard",
        description="Runs every experiment under several seeds and writes SCOREBOARD.md and scoreboard.json. Runs that "
        "are there already are not made again, so the same command goes on after an interruption.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--seeds", type=_number_of_seeds, metavar="N", help="seeds 0 to N-1 (default: 5, or what an experiment says)"
    )
    parser.add_argument("--only", nargs="+", action="extend", metavar="NAME", help="these rows alone; others are kept")
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="of the board (default: here)")
    parser.add_argument(
        "--runs",
        type=Path,
        default=run_directory.ROOT / "scoreboard",
        metavar="DIR",
        help="of the runs (default: runs/scoreboard)",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--write-figures",
        action="store_true",
        help="run nothing: write the board's figures into SCOREBOARD.md, the README and the experiments' docstrings",
    )
    mode.add_argument(
        "--check",
        action="store_true",
        help="run one seed of what is quick, and fail if a figure leaves the interval that the board gives",
    )
    given: argparse.Namespace = parser.parse_args(args)
    known = list_experiments()
    for name in given.only or ():
        if name not in known:
            near = closest(name, known)
            parser.error(
                f"--only: there is no experiment {name!r}; "
                + (f"did you mean {near}?" if near else "see python -m experiments")
            )
    given.only = list(dict.fromkeys(given.only or ()))
    return given


if __name__ == "__main__":
    launch(main)
