"""``python -m experiments.report RUN_DIR [RUN_DIR …]``: one HTML page about a run, or about several side by side."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from experiments import process
from experiments.cli_errors import UsageError
from experiments.report.page import render
from experiments.report.runs import find_runs, read_run
from experiments.report.text import byte_size, one_line
from zoo.checkpointing import CheckpointError, write_whole

_DESCRIPTION = "One HTML page about a run, or about several side by side."
_NAME = "report.html"
_ENDINGS = (".html", ".htm")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as the experiments themselves answer."""
        self.exit(2, f"error: {one_line(message)}\n")


def main(args: Sequence[str] | None = None) -> Path:
    """Write the page and return its path; the options are those in ``args``, or of the process's command line.

    Raises:
        SystemExit: with code 2 for a command line that cannot be used; with 1 if the page could not be written, or if
            something of a run could not be read, which the page then does without.
    """
    parser = _Parser(prog="python -m experiments.report", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN_DIR", help="a run, a file in one, or 'last' for the newest of all"
    )
    parser.add_argument(
        "--output", type=Path, help=f"default: {_NAME} in the run's directory, of several runs in the current one"
    )
    parser.add_argument("--title", help="the page's heading (default: the experiment's name)")
    given = parser.parse_args(args)
    try:
        directories, notes = find_runs(given.runs)
        output = _output(given.output, directories)
    except (UsageError, OSError) as error:
        parser.error(str(error))
    runs = [read_run(directory) for directory in directories]
    problems = [problem for run in runs for problem in run.problems]
    for line in [*notes, *problems]:
        print(f"warning: {one_line(line)}", file=sys.stderr)
    page = render(runs, given.title).encode()
    try:
        write_whole(page, output)
    except CheckpointError as error:
        advice = "" if given.output else "; give --output another place"
        print(f"error: {one_line(str(error))}{advice}", file=sys.stderr)
        raise SystemExit(1) from error
    held = f"{_count(len(runs), 'run')}, {_count(sum(len(run.figures) for run in runs), 'figure')}"
    print(f"report    {one_line(str(output))}: {held}, {byte_size(len(page))}")
    if problems:
        raise SystemExit(1)
    return output


def _output(given: Path | None, directories: Sequence[Path]) -> Path:
    if given is None:
        output = (directories[0] if len(directories) == 1 else Path()) / _NAME
    else:
        output = given
        if output.suffix.lower() not in _ENDINGS:  # one of a run's own files would be lost to a slip
            raise UsageError(f"--output: must end in .html, got {given}")
    folder = output.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"--output: there is no directory {folder}")
    if output.is_dir():
        raise UsageError(f"{output} is a directory: give --output another name")
    return output


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


if __name__ == "__main__":
    process.imported()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may have letters that the terminal has not
    try:
        main()
    except KeyboardInterrupt:
        process.end(130)
    except SystemExit as stopped:
        process.end(stopped.code if isinstance(stopped.code, int) else 1)
    process.end(0)
