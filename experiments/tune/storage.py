"""The database that a study is kept in, and what may be said of it: never a password."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from experiments.cli_errors import UsageError

LOCK_PATIENCE = 60
"""Seconds to wait for an SQLite file that another process writes to, or for a server to answer."""

_ATTEMPTS, _PAUSE = 5, 0.3  # to make the tables, and seconds between two
_BEATS = 4  # in the time after which a silent process counts as dead

_SECRETS = ("password", "passfile", "sslpassword", "sslkey", "user", "service")

DATABASE_ERRORS = (SQLAlchemyError, optuna.exceptions.StorageInternalError)


class StorageError(RuntimeError):
    """A database that cannot be used, in a line without its password."""


class Storage(RDBStorage):
    """Optuna's, where a sign of life that does not get through is one that is missed, and the next one follows."""

    def record_heartbeat(self, trial_id: int) -> None:
        with contextlib.suppress(*DATABASE_ERRORS):
            super().record_heartbeat(trial_id)


def parse_url(text: str) -> URL:
    """The address of a database; PostgreSQL is spoken to with psycopg unless it names a driver.

    Raises:
        UsageError: it is none.
    """
    try:
        url = make_url(text)
        if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
            raise UsageError("--storage: in memory nothing would be left of the study; give sqlite:///tune.db")
        if url.drivername in ("postgresql", "postgres"):
            url = url.set(drivername="postgresql+psycopg")
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        # What it says may hold the address, and with it a password.
        known = "sqlite:///tune.db or postgresql://user@host/database"
        raise UsageError(f"--storage: that is no address of a database; it must be such as {known}") from error
    return url


def shown(url: URL) -> str:
    """An address as it may be seen by everyone: without user, password and parameters."""
    return URL.create(url.get_backend_name(), host=url.host, port=url.port, database=url.database).render_as_string(
        hide_password=True
    )


def reason(error: BaseException, url: URL) -> str:
    """The first line of what went wrong with a database, without secrets."""
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, optuna.exceptions.StorageInternalError) and cause.__cause__ is not None:
        cause = getattr(cause.__cause__, "orig", None) or cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    text = lines[0] if lines else type(cause).__name__
    query = [value for name in _SECRETS for value in _values(url.query.get(name))]
    for secret in filter(None, [url.password, *query]):
        text = text.replace(str(secret), "***")
    return text


def _values(value: Any) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def open_storage(url: URL, grace: int, given_up: Callable[[optuna.Study, FrozenTrial], None] | None = None) -> Storage:
    """The database at an address, with Optuna's tables, which are made if there are none.

    Args:
        url: its address.
        grace: seconds without a sign of life after which a running trial counts as failed.
        given_up: is called with each of these.

    Raises:
        StorageError: it cannot be reached, read or written.
        UsageError: its driver is not installed.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return _open(url, grace, given_up)
        except ImportError as error:
            advice = ': pip install -e ".[tune]"' if url.get_backend_name() == "postgresql" else ""
            raise UsageError(f"--storage: the driver for {url.drivername} is not installed{advice}") from error
        except DATABASE_ERRORS as error:
            said = reason(error, url)
            # Another process that began at the same moment is making the tables.
            if attempt + 1 == _ATTEMPTS or not any(word in said for word in ("already exists", "duplicate key")):
                raise StorageError(f"the database {shown(url)} cannot be used: {said}") from error
            time.sleep(_PAUSE)
        except RuntimeError as error:  # tables of another version of Optuna
            raise StorageError(f"the database {shown(url)} cannot be used: {' '.join(str(error).split())}") from error
    raise AssertionError("the last attempt has neither returned nor raised")


def _open(url: URL, grace: int, given_up: Callable[[optuna.Study, FrozenTrial], None] | None) -> Storage:
    patience = {"sqlite": {"timeout": LOCK_PATIENCE}, "postgresql": {"connect_timeout": LOCK_PATIENCE}}
    given = {name: value for name, value in patience.get(url.get_backend_name(), {}).items() if name not in url.query}
    address = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")  # Optuna formats it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return Storage(
            address,
            # A connection that was idle for a trial may have been closed by whatever is between.
            engine_kwargs={"connect_args": given, "pool_pre_ping": True},
            heartbeat_interval=max(1, grace // _BEATS),
            grace_period=grace,
            heartbeat_stale_trial_callback=given_up,
        )
