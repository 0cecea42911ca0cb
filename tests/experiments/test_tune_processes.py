"""Searches of two processes on one database, of which one is killed in a trial: on SQLite, and on PostgreSQL."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY

optuna = pytest.importorskip("optuna")
pytest.importorskip("sqlalchemy")

from optuna.trial import TrialState  # noqa: E402

from experiments.tune.study import is_finished  # noqa: E402

SECRET = "hush-hush"
SEARCH = ["--search", "model.optimizer.lr=log:1e-3:1e-1", "--trials", "4", "--grace", "4"]
# Of a second or more, so that a trial can be killed in its midst.
SLOW = ["--", "--trainer.max_epochs", "4", "--data.num_samples", "6000", "--data.batch_size", "20"]


def binaries():
    """The folder of PostgreSQL's server, if it is installed."""
    found = shutil.which("initdb")
    folders = [
        *([Path(found).parent] if found else []),
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
    ]
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


@contextlib.contextmanager
def postgresql():
    """The address of a server of its own on loopback, whose data are gone afterwards."""
    pytest.importorskip("psycopg")
    folder = binaries()
    if folder is None:
        pytest.skip("PostgreSQL's server is not installed: neither initdb on the PATH nor /usr/lib/postgresql/*/bin")
    user = {}
    if os.geteuid() == 0:  # for which the server does not run
        pwd = pytest.importorskip("pwd")
        try:
            entry = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    # Not in pytest's own folder, which other users must not enter.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        if user:
            os.chown(place, user["user"], user["group"])
        password = Path(place) / "password"
        password.write_text(SECRET)
        password.chmod(0o644)
        data = Path(place) / "data"
        settings = {"cwd": place, "env": {"PATH": os.defpath, "LC_ALL": "C"}, **user}
        command = [
            str(folder / "initdb"),
            "-D",
            str(data),
            "-U",
            "zoo",
            "-A",
            "scram-sha-256",
            "--pwfile",
            str(password),
        ]
        subprocess.run([*command, "-E", "UTF8", "--no-sync"], check=True, capture_output=True, **settings)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [str(folder / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", "", "-F"]
        with (Path(place) / "log").open("wb") as log, subprocess.Popen(command, stderr=log, **settings) as server:
            try:
                address = f"postgresql://zoo:{SECRET}@127.0.0.1:{port}/postgres"
                wait_for(lambda: answers(address), 30, server)
                yield address
            finally:
                server.send_signal(signal.SIGINT)  # SIGTERM would wait for every connection
                server.wait(30)


def answers(address):
    import psycopg

    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(address):
        return True
    return False


def wait_for(condition, seconds, *processes):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        assert [process.poll() for process in processes] == [None] * len(processes)
        time.sleep(0.05)


@contextlib.contextmanager
def sqlite():
    yield "sqlite:///tune.db"


@pytest.mark.parametrize("database", [sqlite, postgresql])
def test_two_processes_share_a_study_and_one_takes_over_when_the_other_is_killed(database, tmp_path):
    def start():
        command = [sys.executable, "-m", "experiments.tune", "xor", "--storage", address, *SEARCH, *SLOW]
        settings = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": tmp_path}
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(REPOSITORY)]))
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, env=environment, **settings)

    def running():
        """The trials under way, by process."""
        names = optuna.get_all_study_names(storage)
        trials = optuna.load_study(study_name="xor", storage=storage).trials if "xor" in names else []
        under_way = [trial for trial in trials if trial.state == TrialState.RUNNING]
        return {
            int(trial.user_attrs["process"].rpartition(":")[2]): trial
            for trial in under_way
            if "process" in trial.user_attrs
        }

    with database() as address:
        storage = optuna.storages.RDBStorage(address.replace("postgresql:", "postgresql+psycopg:"))
        with start() as first, start() as second:
            wait_for(lambda: len(running()) == 2, 120, first, second)
            killed = running()[first.pid]
            first.kill()
            out, _ = second.communicate(timeout=300)
            before, _ = first.communicate()
        everything = optuna.load_study(study_name="xor", storage=storage).trials
        storage.engine.dispose()

    assert second.returncode == 0, out
    assert first.returncode == -9
    assert SECRET not in out + before
    done = [trial for trial in everything if is_finished(trial)]
    assert len(done) == 4
    assert everything[killed.number].state == TrialState.FAIL
    [again] = [trial for trial in everything if trial.user_attrs.get("retries") == 1]
    assert (again.params, is_finished(again)) == (killed.params, True)
    told = re.findall(r"^trial (\d+) ", out, re.MULTILINE)
    assert {int(number) for number in told} <= {trial.number for trial in done}
    assert len(told) + len(re.findall(r"^trial \d+ ", before, re.MULTILINE)) == 4
    best = min(done, key=lambda trial: trial.value if trial.state == TrialState.COMPLETE else float("inf"))
    assert f"best      val/loss {best.value:.6g} in trial {best.number} " in out
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL) for trial in everything)
