"""Loggers that never cost a run: a CSV file that survives a resume, and Weights & Biases that may fail."""

from __future__ import annotations

import csv
import http.client
import importlib.util
import netrc
import os
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

SERVER_PATIENCE = 4.0
"""Seconds a W&B server gets to answer before the run goes offline."""

_INIT_TIMEOUT = 8.0
_MODES = ("", "online", "offline", "dryrun", "run", "shared", "disabled")


class TrackerWarning(UserWarning):
    """A tracker could not start, or broke off; the run goes on without it."""


class MetricsCSV(Logger):
    """Writes one row for each call to ``metrics.csv``, at once, so that a crash loses none.

    The first columns are ``step`` and ``epoch``; new metrics become new columns. Made in a directory that already
    has the file, it goes on behind the rows that are there (a resume), or behind the first ``keep_rows`` of them; the
    file is changed only when there is a row to write.

    Args:
        directory: where ``metrics.csv`` goes.
        keep_rows: rows of an earlier part of the run to keep, ``None`` for all.
    """

    def __init__(self, directory: str | os.PathLike[str], keep_rows: int | None = None) -> None:
        super().__init__()
        self.directory = Path(directory)
        self.path = self.directory / "metrics.csv"
        self.columns = ["step", "epoch"]
        self.rows = 0
        self._kept: list[dict[str, str]] | None = None  # rows to go on behind, until the first new one comes
        if getattr(rank_zero_only, "rank", 0) == 0 and self.path.is_file():
            self._go_on(keep_rows)

    def _go_on(self, keep_rows: int | None) -> None:
        columns, rows = read_csv(self.path)
        self.columns = columns or self.columns
        self.rows = len(rows) if keep_rows is None else min(keep_rows, len(rows))
        self._kept = rows[: self.rows]

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.directory)

    @property
    def log_dir(self) -> str:
        """The directory of ``metrics.csv``; Lightning takes it for the trainer's ``log_dir``."""
        return str(self.directory)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: they are in the checkpoint and in ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float | Tensor], step: int | None = None) -> None:
        row: dict[str, Any] = {"step": self.rows if step is None else step}
        row |= {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        if isinstance(row.get("epoch"), float) and row["epoch"].is_integer():
            row["epoch"] = int(row["epoch"])
        new = [name for name in row if name not in self.columns]
        if new or self._kept is not None or not self.path.is_file():
            self.columns += sorted(new)
            rows = self._kept
            if rows is None:
                rows = read_csv(self.path)[1] if self.path.is_file() else []
            self._rewrite(rows)
            self._kept = None
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)
        self.rows += 1

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f".{self.path.name}.new")
        with beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)
        beside.replace(self.path)


def read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns and the complete rows of a CSV file; a row cut short by a crash is left out."""
    with path.open(newline="", encoding="utf-8") as file:
        text = file.read()
    whole = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(whole.splitlines())
    return list(reader.fieldnames or []), list(reader)


class ResilientWandbLogger(WandbLogger):
    """Lightning's ``WandbLogger`` for a run that is already started, which costs a warning if it breaks off.

    Args:
        run: what ``wandb.init`` returned.
        mode: ``"online"`` or ``"offline"``.
    """

    def __init__(self, run: Any, mode: Literal["online", "offline"]) -> None:
        super().__init__(experiment=run, save_dir=run.settings.root_dir, project=run.project)
        self.mode = mode
        self.broken = False
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)

    @property
    def run_directory(self) -> Path:
        """The run's own folder, which ``wandb sync`` takes."""
        return Path(self.experiment.settings.sync_dir)

    @property
    def url(self) -> str | None:
        """Where an online run is shown."""
        url: str | None = self.experiment.url
        return url

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._try(lambda: super(ResilientWandbLogger, self).log_metrics(metrics, step))

    def log_hyperparams(self, params: Any) -> None:
        self._try(lambda: super(ResilientWandbLogger, self).log_hyperparams(params))

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        self._try(lambda: super(ResilientWandbLogger, self).after_save_checkpoint(checkpoint_callback))

    def finalize(self, status: str) -> None:
        self._try(lambda: super(ResilientWandbLogger, self).finalize(status))

    def finish(self, exit_code: int = 0) -> None:
        """Close the run; ``exit_code`` other than 0 marks it as failed."""
        self._try(lambda: self.experiment.finish(exit_code=exit_code))

    def _try(self, action: Callable[[], None]) -> None:
        if self.broken:
            return
        try:
            action()
        except Exception as error:  # whatever the tracker's client raises, the run is worth more
            self.broken = True
            _warn(f"Weights & Biases broke off ({_first_line(error)}); the run goes on, metrics.csv is complete")


def start_wandb(
    *,
    directory: Path,
    project: str,
    name: str,
    run_id: str | None = None,
    group: str | None = None,
) -> ResilientWandbLogger | None:
    """A W&B run, online if there are credentials and a server that answers, else offline; never a prompt.

    ``WANDB_MODE`` is respected, as are W&B's other variables.

    Args:
        directory: where W&B keeps its files.
        project: the W&B project.
        name: the run's name.
        run_id: the id of a run to go on with.
        group: runs that belong together.

    Returns:
        The logger, or ``None`` (with one :class:`TrackerWarning`) if W&B is not installed or cannot start, or
        (without) if ``WANDB_MODE`` is ``disabled``.
    """
    wanted = os.environ.get("WANDB_MODE", "").lower()
    if wanted == "disabled":
        return None
    if wanted not in _MODES:
        _warn(f"WANDB_MODE={wanted} is not one of {', '.join(filter(None, _MODES))}; the run is tracked offline")
        os.environ["WANDB_MODE"] = wanted = "offline"  # W&B would refuse to start at all
    if importlib.util.find_spec("wandb") is None:
        _warn("Weights & Biases is not installed; metrics go to metrics.csv alone (pip install wandb)")
        return None
    os.environ.setdefault("WANDB_SILENT", "true")  # its service prints on its own otherwise
    try:
        server = None if wanted in ("offline", "dryrun") else _find_server(asked=wanted == "online")
    except Exception as error:
        _warn(f"Weights & Biases cannot go online ({_first_line(error)})")
        server = None
    for attempt in ([server] if server else []) + [None]:
        try:
            return _start(attempt, directory=directory, project=project, name=name, run_id=run_id, group=group)
        except Exception as error:
            _warn(f"Weights & Biases could not start {_mode(attempt)} ({_first_line(error)})")
    return None


def _mode(server: str | None) -> Literal["online", "offline"]:
    return "online" if server else "offline"


def _start(server: str | None, *, directory: Path, run_id: str | None, **naming: Any) -> ResilientWandbLogger:
    """A run at ``server``, or an offline one."""
    import wandb

    # W&B's own process has a working directory of its own.
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    mode = _mode(server)
    settings = wandb.Settings(silent=True, console="off", init_timeout=_INIT_TIMEOUT)
    if server:
        settings.base_url = server
    run = wandb.init(
        dir=str(directory),
        id=run_id,
        resume="allow" if run_id and mode == "online" else None,
        mode=mode,
        # Two runs in one process are two runs, and one of the user's own stays open.
        reinit="create_new",
        settings=settings,
        **naming,
    )
    return ResilientWandbLogger(run, mode)


def _find_server(*, asked: bool) -> str | None:
    """The address of the server, if there are credentials for it and it answers at all."""
    import wandb

    # W&B reads its variables once a process; a later change counts here all the same.
    server: str = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url
    if not _has_credentials(server):
        if asked:
            _warn("Weights & Biases was asked to go online but has no credentials (wandb login)")
        return None
    try:
        with urllib.request.urlopen(server, timeout=SERVER_PATIENCE):
            return server
    except urllib.error.HTTPError:
        return server  # an answer, whatever it says
    except (OSError, http.client.HTTPException) as error:
        _warn(f"the Weights & Biases server {server} does not answer ({_first_line(error)})")
        return None


def _has_credentials(server: str) -> bool:
    """Whether W&B would find a key without asking for one: in the environment, or in the netrc file."""
    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    files = [Path(os.environ["NETRC"])] if "NETRC" in os.environ else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for file in files:
        try:
            entries = netrc.netrc(file)
        except (OSError, netrc.NetrcParseError):
            continue
        hosts = (urllib.parse.urlsplit(server).netloc, "api.wandb.ai")
        if any(host in entries.hosts for host in hosts):
            return True
    return False


def _warn(message: str) -> None:
    warnings.warn(message, TrackerWarning, stacklevel=3)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines and lines[0] != "<no message>" else type(error).__name__
