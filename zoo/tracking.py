"""Loggers that never cost a run: a CSV file that survives a resume, and Weights & Biases that may fail."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from zoo.background import BackgroundCalls, Patience, within
from zoo.metrics_csv import MetricsCSV, read_csv
from zoo.wandb_models import log_artifact, upload_seconds
from zoo.wandb_server import find_server, first_line
from zoo.wandb_service import (
    bound_exit,
    cache_in,
    check_complete,
    check_writable,
    data_in,
    end_service,
    service_ended,
    silence_log,
    without_launcher,
)

__all__ = ["MetricsCSV", "ResilientWandbLogger", "TrackerWarning", "read_csv", "start_wandb"]

PATIENCE = 8.0
"""Seconds that a run waits for W&B in all: for a server, when something hangs, and for the end."""

SERVER_PATIENCE = 3.0
"""Seconds of these that a server gets to answer at all, before the run goes offline."""

FINISH_PATIENCE = 3.5
"""Seconds of these that an online start leaves for the end of the run, and all that an offline run has."""

OFFLINE_PATIENCE = 30.0
"""Seconds that an offline start may take beside these: it waits for no network, but machines may be busy."""

_MODES = ("", "online", "offline", "dryrun", "run", "shared", "disabled")
_STEP = "trainer/global_step"
_PORTION = 200


class TrackerWarning(UserWarning):
    """A tracker could not start, or broke off; the run goes on without it."""


class ResilientWandbLogger(WandbLogger):
    """Lightning's ``WandbLogger`` for a run that is already started, which costs a warning if it breaks off.

    W&B is talked to in a thread, so what is logged through :attr:`experiment` may come before earlier calls here.

    Args:
        run: what ``wandb.init`` returned.
        mode: ``"online"`` or ``"offline"``.
        history: rows of the run's earlier parts, with their ``step``, which are logged again: a file of W&B's that
            ends with a crash lacks its last seconds, and may have rows from behind the checkpoint. Of rows that the
            server has already, by their number, none is sent again, nor any that is yet to come.
        patience: seconds to wait for W&B, in all.
    """

    def __init__(
        self,
        run: Any,
        mode: Literal["online", "offline"],
        history: Sequence[Mapping[str, float | str]] = (),
        patience: Patience | None = None,
    ) -> None:
        super().__init__(experiment=run, save_dir=run.settings.root_dir, project=run.project)
        self.mode = mode
        self.broken = False
        self._patience = patience or Patience(PATIENCE)
        self._finished = False
        self._model_error: Exception | None = None
        self._calls = BackgroundCalls()
        self._rows_ahead = max(0, run.starting_step - len(history))
        atexit.register(self.finish, None)
        self._call(lambda: _define_axes(run))
        for first in range(run.starting_step, len(history), _PORTION):
            self._call(functools.partial(_log_again, run, history[first : first + _PORTION]))

    @property
    def run_directory(self) -> Path:
        """The run's own folder, which ``wandb sync`` takes."""
        return Path(self.experiment.settings.sync_dir)

    @property
    def url(self) -> str | None:
        """Where an online run is shown."""
        url: str | None = self.experiment.url
        return url

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        if any(not isinstance(value, int | float | str | Tensor) for value in metrics.values()):
            self._log_media(metrics, step)
            return
        if self._rows_ahead:
            self._rows_ahead -= 1
            return
        row: dict[str, Any] = {
            name: value.detach().clone() if isinstance(value, Tensor) else value for name, value in metrics.items()
        }
        self._call(lambda: super(ResilientWandbLogger, self).log_metrics(row, step))

    def _log_media(self, media: Mapping[str, Any], step: int | None) -> None:
        """Pictures and tables become part of the next row, or of the run's end: rows are counted in a resumed run."""
        row = dict(media) if step is None else {**media, _STEP: step}
        run = self.experiment

        def log() -> None:
            try:
                with data_in(Path(run.settings.wandb_dir)):
                    run.log(row, commit=False)
            except Exception as error:  # worth no more than themselves
                _warn(f"Weights & Biases did not take {', '.join(media)} ({first_line(error)})")

        self._call(log)

    def log_hyperparams(self, params: Any) -> None:
        self._call(lambda: super(ResilientWandbLogger, self).log_hyperparams(params))

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        self._call(lambda: super(ResilientWandbLogger, self).after_save_checkpoint(checkpoint_callback))

    def log_model(
        self, checkpoint: Path, name: str, metadata: Mapping[str, Any], aliases: Sequence[str] = ("best",)
    ) -> None:
        """Log a checkpoint as an artifact ``<name>-<run id>`` of type ``model``, which :meth:`finish` waits for.

        Offline the file has to stay where it is until ``wandb sync``. What goes wrong with it alone costs a warning,
        and the run is tracked to its end.
        """

        def log() -> None:
            try:
                log_artifact(self.experiment, checkpoint, name, metadata, aliases)
            except Exception as error:
                self._model_error = error

        if self.mode == "online" and checkpoint.is_file():
            self._patience.left += upload_seconds(checkpoint)
        self._call(log)

    def finalize(self, status: str) -> None:
        self._call(lambda: super(ResilientWandbLogger, self).finalize(status))

    def finish(self, exit_code: int | None = 0) -> None:
        """Close the run; ``exit_code`` other than 0 marks it as failed, ``None`` leaves it to how the process ends.

        Without this call the run is closed when the process ends.
        """
        if self.broken or self._finished:
            return
        run = self.experiment
        self._call(lambda: run.finish(exit_code=exit_code))
        self._call(lambda: check_complete(Path(run.settings.sync_file)))
        self._close()
        if self.broken:
            return
        try:
            with self._patience.spent():
                self._calls.wait(self._patience.left)
        except TimeoutError as error:
            self._break_off(error)
        except BaseException:  # whoever interrupts this waits no longer
            end_service(run)
            raise
        else:
            if self._calls.error is not None:
                self._break_off(self._calls.error)
            elif self._model_error is not None:
                _warn(f"Weights & Biases did not take the checkpoint ({first_line(self._model_error)})")

    def _call(self, call: Callable[[], object]) -> None:
        if self.broken or self._finished:
            return
        error = self._calls.error
        if error is None:
            try:
                self._calls.put(call, self._patience.left)
            except TimeoutError as full:
                self._patience.left = 0.0
                error = full
        if error is not None:
            self._break_off(error)

    def _break_off(self, error: BaseException) -> None:
        reason = "its process has ended" if service_ended() else first_line(error)
        self.broken = True
        self._close()
        end_service(self.experiment)
        _warn(f"Weights & Biases broke off ({reason}); the run does not need it, metrics.csv is complete")

    def _close(self) -> None:
        self._finished = True
        self._calls.close()
        atexit.unregister(self.finish)


def _define_axes(run: Any) -> None:
    run.define_metric(_STEP)
    run.define_metric("*", step_metric=_STEP, step_sync=True)


def _log_again(run: Any, rows: Sequence[Mapping[str, float | str]]) -> None:
    for row in rows:
        run.log({_STEP if name == "step" else name: value for name, value in row.items()})


def start_wandb(
    *,
    directory: Path,
    project: str,
    name: str,
    run_id: str | None = None,
    group: str | None = None,
    history: Sequence[Mapping[str, float | str]] = (),
) -> ResilientWandbLogger | None:
    """A W&B run, online if there are credentials and a server that answers, else offline; never a prompt.

    ``WANDB_MODE`` is respected, as are W&B's other variables. What hangs takes :data:`PATIENCE` at most,
    from here to the end of the run.

    Args:
        directory: where W&B keeps its files.
        project: the W&B project.
        name: the run's name.
        run_id: the id of a run to go on with.
        group: runs that belong together.
        history: rows of the run's earlier parts, see :class:`ResilientWandbLogger`.

    Returns:
        The logger, or ``None`` (with one :class:`TrackerWarning`) if W&B is not installed or cannot start, or
        (without) if ``WANDB_MODE`` is ``disabled``.
    """
    wanted = os.environ.get("WANDB_MODE", "").lower()
    if wanted == "disabled":
        return None
    if importlib.util.find_spec("wandb") is None:
        _warn("Weights & Biases is not installed; metrics go to metrics.csv alone (pip install wandb)")
        return None
    problems = []
    if wanted not in _MODES:
        problems.append(f"WANDB_MODE={wanted} is not one of {', '.join(filter(None, _MODES))}")
        os.environ["WANDB_MODE"] = wanted = "offline"  # W&B would refuse to start at all
    os.environ.setdefault("WANDB_SILENT", "true")  # its service prints on its own otherwise
    # What it reports of itself goes to the same server, for up to 30 s at the end of the process.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        importlib.import_module("wandb")
    except Exception as error:  # it is incomplete, or does not fit its own dependencies
        _warn(f"Weights & Biases cannot be imported ({first_line(error)}); metrics go to metrics.csv alone")
        return None
    patience = Patience(PATIENCE)
    start = functools.partial(
        _start,
        directory=directory,
        run_id=run_id,
        history=history,
        patience=patience,
        naming={"project": project, "name": name, "group": group},
    )
    logger = None
    with cache_in(directory):
        try:
            if wanted not in ("offline", "dryrun"):
                with patience.spent():
                    logger = _go_online(start, patience, asked=wanted == "online")
        except Exception as error:
            problems.append(f"Weights & Biases cannot go online ({first_line(error)})")
            end_service()
        if logger is None:
            patience.left = min(patience.left, FINISH_PATIENCE)
            try:
                logger = within(OFFLINE_PATIENCE, functools.partial(start, None))
            except Exception as error:
                problems.append(f"Weights & Biases cannot start ({first_line(error)})")
                end_service()
    if problems:
        result = "metrics go to metrics.csv alone" if logger is None else "the run is tracked offline"
        _warn(f"{'; '.join(problems)}; {result}")
    return logger


def _go_online(
    start: Callable[[str | None], ResilientWandbLogger], patience: Patience, *, asked: bool
) -> ResilientWandbLogger | None:
    """An online run, if there are credentials.

    Raises:
        Exception: whatever is in the way.
    """
    started = time.monotonic()
    server = within(SERVER_PATIENCE + 0.5, lambda: find_server(asked=asked, seconds=SERVER_PATIENCE))
    if server is None:
        return None
    left = patience.left - FINISH_PATIENCE - (time.monotonic() - started)
    try:
        return within(left, functools.partial(start, server))
    except TimeoutError:
        raise
    except Exception as error:
        advice = "is the key right? (wandb login)"
        raise ConnectionError(f"the server {server} does not take the run, {advice}: {first_line(error)}") from error


def _start(
    server: str | None,
    directory: Path,
    run_id: str | None,
    history: Sequence[Mapping[str, float | str]],
    patience: Patience,
    naming: Mapping[str, Any],
) -> ResilientWandbLogger:
    """A run at ``server``, or an offline one."""
    import wandb

    # W&B's own process has a working directory of its own.
    directory = directory.absolute()
    check_writable(directory)
    mode: Literal["online", "offline"] = "online" if server else "offline"
    settings = wandb.Settings(silent=True, console="off", init_timeout=PATIENCE)
    if server:
        settings.base_url = server
    with without_launcher():
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
    silence_log()
    bound_exit()
    return ResilientWandbLogger(run, mode, history, patience)


def _warn(message: str) -> None:
    warnings.warn(message, TrackerWarning, stacklevel=3)
