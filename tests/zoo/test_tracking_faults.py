"""What befalls a tracker costs one warning: never the run, a row of metrics.csv, or much time."""

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings

import pytest

from zoo import tracking
from zoo.tracking import MetricsCSV, TrackerWarning, read_csv, start_wandb
from zoo.wandb_service import _service


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    """Neither an account nor what an earlier run has left in this process."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NETRC", raising=False)
    tracking.end_service()
    monkeypatch.setattr(tracking, "PATIENCE", 3.0)
    monkeypatch.setattr(tracking, "FINISH_PATIENCE", 2.0)
    monkeypatch.setattr(tracking, "SERVER_PATIENCE", 0.2)
    yield
    tracking.end_service()


def run(directory, fault=lambda logger: None, rows=40):
    """A short run; ``fault`` befalls its tracker in the middle."""
    logger = start_wandb(directory=directory, project="zoo", name="run")
    metrics = MetricsCSV(directory)
    for step in range(rows):
        if step == rows // 2 and logger is not None:
            fault(logger)
        for each in filter(None, (metrics, logger)):
            each.log_metrics({"loss": 1 / (step + 1), "pad": 0.1 * step}, step)
    if logger is not None:
        logger.finish()
    return logger


def warned(directory, *args, **kwargs):
    """The logger of such a run and its one warning; metrics.csv is complete."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logger = run(directory, *args, **kwargs)
    assert [warning.category for warning in caught] == [TrackerWarning]
    rows = read_csv(directory / "metrics.csv")[1]
    assert [int(row["step"]) for row in rows] == list(range(kwargs.get("rows", 40)))
    return logger, str(caught[0].message)


def send(number):
    def to_service(logger):
        _, process = _service()
        os.kill(process.pid, number)

    return to_service


def remove(logger):
    shutil.rmtree(logger.run_directory)


FAULTS = {
    "killed": (send(signal.SIGKILL), "its process has ended"),
    "stopped": (send(signal.SIGSTOP), "it did not answer within"),
    "removed": (remove, "No such file or directory"),
}


@pytest.mark.parametrize(("fault", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_fault_in_mid_run_costs_one_warning(tmp_path, capfd, fault, reason):
    processes = []

    def befall(logger):
        processes.append(_service()[1])
        fault(logger)

    logger, message = warned(tmp_path, befall)
    assert message.startswith("Weights & Biases broke off (")
    assert reason in message
    assert logger.broken
    assert processes[0].poll() is not None
    assert capfd.readouterr() == ("", "")


def test_a_file_that_becomes_too_large_is_noticed(tmp_path, capfd):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # which W&B's process inherits
    try:
        logger, message = warned(tmp_path, rows=600)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"run-{logger.version}.wandb is incomplete" in message
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB below ``tmp_path``."""
    disk = tmp_path / "run" / "wandb"
    disk.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(disk)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("may not mount a file system")
    yield disk
    tracking.end_service()
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("when", ["before", "in mid-run"])
def test_a_full_disk_costs_one_warning(small_disk, capfd, when):
    def fill(logger=None):
        with contextlib.suppress(OSError), (small_disk / "fill").open("wb", 0) as file:
            while True:
                file.write(bytes(4096))

    if when == "before":
        fill()
    logger, message = warned(small_disk.parent, fill)
    if when == "before":
        assert logger is None
        assert "cannot start ([Errno 28] No space left on device" in message
    else:
        assert "is incomplete: the disk may be full" in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("variable", "value"), [("HOME", None), ("HOME", "/proc/nowhere"), ("WANDB_CACHE_DIR", "/proc/nowhere")]
)
def test_without_a_place_for_its_log_nothing_is_printed(tmp_path, monkeypatch, capfd, variable, value):
    monkeypatch.delenv("HOME")
    if value is not None:
        monkeypatch.setenv(variable, value)
    logger = run(tmp_path)
    assert not logger.broken
    assert os.environ.get("WANDB_CACHE_DIR") == (value if variable == "WANDB_CACHE_DIR" else None)
    assert capfd.readouterr() == ("", "")


VARIABLES = {
    "WANDB_RUN_ID": "a/b?c",
    "WANDB_SERVICE": "nonsense",
    "WANDB_INIT_TIMEOUT": "soon",
    "WANDB_MODE": "maybe",
}


@pytest.mark.parametrize(("name", "value"), VARIABLES.items(), ids=VARIABLES)
def test_a_variable_that_makes_no_sense_costs_one_warning(tmp_path, monkeypatch, capfd, name, value):
    monkeypatch.setenv(name, value)
    warned(tmp_path)
    assert capfd.readouterr() == ("", "")


def answer(status):
    return f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()


def trickle(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(12):
        connection.sendall(b"a")
        time.sleep(0.1)


SERVERS = {
    "trickling": trickle,
    "refusing the key": lambda connection: connection.sendall(answer("401 Unauthorized")),
    "in trouble": lambda connection: connection.sendall(answer("500 Internal Server Error")),
    "closing": lambda connection: None,
}


@pytest.mark.parametrize("behave", SERVERS.values(), ids=SERVERS)
def test_a_server_costs_one_warning_and_the_run_is_offline(tmp_path, monkeypatch, capfd, behave):
    def serve():
        while True:
            try:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(65536)
                    behave(connection)
            except ConnectionError:  # the other has hung up
                continue
            except OSError:  # the end of the test
                return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        logger, message = warned(tmp_path)
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        serving.join()
    assert (logger.mode, logger.broken) == ("offline", False)
    assert "cannot go online (" in message
    assert message.endswith("the run is tracked offline")
    assert capfd.readouterr() == ("", "")


# Forked, as one import for both is slow enough.
SCRIPT = """
import os, signal, sys
from pathlib import Path
import wandb
from zoo import tracking
from zoo.wandb_service import _service
tracking.PATIENCE = 1.0
for state in ("finished", "open"):
    child = os.fork()
    if child == 0:
        logger = tracking.start_wandb(directory=Path(sys.argv[1]), project="zoo", name=state)
        logger.log_metrics({"loss": 0.5}, 0)
        if state == "finished":
            logger.finish()
        _, process = _service()
        os.kill(process.pid, signal.SIGSTOP)
        print(state, process.pid, file=sys.stderr, flush=True)
        sys.exit()
    _, status = os.waitpid(child, 0)
    print(state, status, file=sys.stderr, flush=True)
"""


def test_a_stopped_process_does_not_keep_the_interpreter_from_ending(tmp_path):
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SCRIPT, str(tmp_path)]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stderr
    lines = [line for line in printed.splitlines() if not line.startswith("  ")]
    assert len(lines) == 5, printed
    warning = lines.pop(3)  # of the run that was still open
    assert "TrackerWarning: Weights & Biases broke off (it did not answer within" in warning
    states = [line.split() for line in lines]
    assert [state for state, _ in states] == ["finished", "finished", "open", "open"]
    assert (states[1][1], states[3][1]) == ("0", "0")
    for _, process in (states[0], states[2]):
        with pytest.raises(ProcessLookupError):
            os.kill(int(process), 0)
