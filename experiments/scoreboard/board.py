"""The board: ``scoreboard.json``, from which everything else is made."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from datamodules.atomic import read_bounded
from experiments.over_seeds import require_unicode
from experiments.scoreboard.circumstances import OUTPUTS
from experiments.scoreboard.row import DamagedError, Row, row_as_json, row_from_json
from zoo.checkpointing import write_whole

PAGE, DATA = OUTPUTS
_FORMAT = 1
_LARGEST = 16 * 2**20  # bytes
_LOCK = f"{DATA}.lock"
_PATIENCE = 60.0  # seconds: a board is written in a fraction of one


class BoardError(RuntimeError):
    """A board that cannot be used, in a sentence that says what to do."""


@dataclass(frozen=True)
class Board:
    """The rows, by experiment."""

    rows: Mapping[str, Row] = field(default_factory=dict)

    def with_row(self, row: Row) -> Board:
        """The board with this row in the place of the one before."""
        return Board({**self.rows, row.experiment: row})

    def of(self, names: Mapping[str, object]) -> Board:
        """The board without experiments of other names, in the order of these."""
        return Board({name: self.rows[name] for name in names if name in self.rows})

    def as_text(self) -> str:
        """What is in ``scoreboard.json``."""
        rows = {name: row_as_json(self.rows[name]) for name in sorted(self.rows)}
        return json.dumps({"format": _FORMAT, "rows": rows}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, path: Path) -> None:
        """Write it in one piece.

        Raises:
            CheckpointError: it cannot be written; what was there before still is.
        """
        write_whole(self.as_text().encode(), path)


@contextlib.contextmanager
def board_locked(folder: Path) -> Iterator[None]:
    """Keep others from changing a folder's board between our reading and our writing it.

    Raises:
        BoardError: another process has kept it for longer than any writing takes.
    """
    lock = FileLock(folder / _LOCK, timeout=_PATIENCE)
    try:
        lock.acquire()
    except Timeout as error:
        raise BoardError(
            f"another process has held {folder / _LOCK} for {_PATIENCE:.0f} s: end it, or let it go on"
        ) from error
    except (OSError, NotImplementedError):
        pass  # a file system without locks, for one: there the last to write may undo what another wrote meanwhile
    try:
        yield
    finally:
        lock.release()


def read_board(path: Path) -> Board:
    """Read ``scoreboard.json``; one that is not there has no rows.

    Raises:
        BoardError: it cannot be read, or is damaged.
    """
    try:
        held = json.loads(read_bounded(path, _LARGEST), parse_constant=_refuse)
        require_unicode(held)
        if not isinstance(held, dict) or held.get("format") != _FORMAT or not isinstance(held.get("rows"), dict):
            raise DamagedError(f"it is no board of format {_FORMAT}")
        return Board({name: row_from_json(name, row) for name, row in held["rows"].items()})
    except FileNotFoundError:
        return Board()
    except OSError as error:
        raise BoardError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        advice = f"restore it (git checkout {path.name}), or move it away to begin anew"
        raise BoardError(f"{path} is damaged ({' '.join(str(error).split())[:300]}): {advice}") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")
