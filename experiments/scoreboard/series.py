"""Runs what is missing, and keeps the board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.benchmark.processes import missing_mnist
from experiments.scoreboard.about import About
from experiments.scoreboard.board import DATA, PAGE, board_locked, read_board
from experiments.scoreboard.page import page
from experiments.scoreboard.progress import Progress, result
from experiments.scoreboard.row import Finished, Row, row_of
from experiments.scoreboard.runs import RunError, Runs, Unfinished
from zoo.checkpointing import write_whole


@dataclass(frozen=True)
class Task:
    """An experiment, and the seeds it is wanted under."""

    about: About
    seeds: Sequence[int]


class Series:
    """All tasks, in the order of what they take as far as that is known, then as they are named.

    Args:
        tasks: what is wanted.
        runs: where the runs are.
        output: the folder of the board.
        names: every experiment there is; rows of others leave the board.
    """

    def __init__(self, tasks: Sequence[Task], runs: Runs, output: Path, names: Mapping[str, str]) -> None:
        self.runs = runs
        self.output = output
        self.names = names
        self._failed: dict[str, dict[int, str]] = {task.about.name: {} for task in tasks}
        known = self._known_seconds(tasks)
        self.tasks = sorted(tasks, key=lambda task: (known.get(task.about.name, float("inf")), not task.about.quick))
        self._again: dict[tuple[str, int], str | None] = {}
        pending: dict[str, list[int]] = {task.about.name: [] for task in self.tasks}
        for task in self.tasks:
            for seed in task.seeds:
                found = self._find(task, seed)
                if isinstance(found, Unfinished):
                    pending[task.about.name].append(seed)
                    self._again[task.about.name, seed] = found.again
        self.pending = pending
        self.progress = Progress(pending, known)

    def _known_seconds(self, tasks: Sequence[Task]) -> dict[str, float]:
        known = {name: row.seconds.mean for name, row in read_board(self.output / DATA).rows.items() if row.seconds}
        for task in tasks:
            finished = (self._find(task, seed) for seed in task.seeds)
            took = [run.summary["seconds"]["total"] for run in finished if isinstance(run, Finished)]
            if took:
                known[task.about.name] = sum(took) / len(took)
        return known

    def _find(self, task: Task, seed: int) -> Finished | Unfinished:
        datasets = task.about.datasets
        return self.runs.find(
            task.about.name,
            seed,
            stand_in_is_needless=lambda dataset: bool(datasets) and dataset not in datasets and not missing_mnist(),
        )

    def run(self) -> bool:
        """Run what is missing, and write the board behind each experiment.

        Returns:
            Whether every row is complete, and on the data that it is about.

        Raises:
            CheckpointError: the board, or what is known of a run, could not be written.
            OSError: the runs could not.
            BoardError: the board was damaged meanwhile.
        """
        done = len(self._all()) - len(self._again)
        told = f"{done} of {len(self._all())} runs are there"
        self.progress.say([f"runs      {told}; {self.progress.rest()}" if self._again else f"runs      {told}"])
        complete = True
        for task in self.tasks:
            try:
                for seed in self.pending[task.about.name]:
                    self._make(task, seed)
            except BaseException:
                self._keep_part(task)
                raise
            row = self._row(task)
            self.progress.say(result(row))
            kept = self._write(task, row)
            if kept is not None:
                fewer = f", of {len(kept.seeds)} seeds, not {len(row.seeds)}" if row.is_quotable else ""
                self.progress.say([f"! {row.experiment}: the board keeps the row that it had{fewer}"])
            complete &= row.is_quotable
        return complete

    def _all(self) -> list[tuple[str, int]]:
        return [(task.about.name, seed) for task in self.tasks for seed in task.seeds]

    def _make(self, task: Task, seed: int) -> None:
        name, again = task.about.name, self._again[task.about.name, seed]
        self.progress.begin(name, seed)
        try:
            summary = self.runs.make(name, seed)
        except RunError as error:
            self._failed[name][seed] = str(error)
            self.progress.failed(name, seed, str(error), again)
        else:
            self.progress.done(name, seed, task.about.metric, summary, again)

    def _row(self, task: Task) -> Row:
        """The row of the runs as they lie there: of code that was changed meanwhile some do not count."""
        found = {seed: self._find(task, seed) for seed in task.seeds}
        finished = {seed: run for seed, run in found.items() if isinstance(run, Finished)}
        return row_of(task.about, len(task.seeds), finished, self._failed[task.about.name])

    def _keep_part(self, task: Task) -> None:
        """Of an experiment that was interrupted, keep what there is, unless the board has more."""
        row = self._row(task)
        if row.seeds:
            self._write(task, row)

    def _write(self, task: Task, row: Row) -> Row | None:
        """Write a row, unless the one that the board has is worth more, which is returned then."""
        with board_locked(self.output):
            # Read anew each time: another scoreboard, with runs elsewhere, may have written other rows.
            board = read_board(self.output / DATA)
            held = board.rows.get(row.experiment)
            if held is not None and _is_worth_more(held, row, task.about.seeds):
                return held
            board = board.with_row(row).of(self.names)
            board.write(self.output / DATA)
            write_whole(page(board).encode(), self.output / PAGE)
        return None


def _is_worth_more(held: Row, row: Row, usual: int) -> bool:
    """Whether a row is worth more than a newer one.

    The newest that is complete is worth most. What was interrupted, failed in part, or was made under fewer seeds than
    both the row before and the usual number, takes the place of none that is complete.

    Args:
        held: the row before.
        row: the newer one.
        usual: how many seeds the experiment wants by itself.
    """
    if not held.seeds:
        return False
    if row.seeds and row.stand_in != held.stand_in:
        return row.stand_in
    if row.is_complete:
        return held.is_complete and row.wanted < min(held.wanted, usual)
    return held.is_complete or len(held.seeds) > len(row.seeds)
