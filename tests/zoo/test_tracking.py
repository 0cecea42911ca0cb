import base64
import csv
import hashlib
import importlib.util
import json
import math
import os
import resource
import socket
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from zoo import CNNClassifier, MulticlassClassification, tracking
from zoo.callbacks import RunRecord
from zoo.tracking import MetricsCSV, ResilientWandbLogger, TrackerWarning, read_csv, start_wandb
from zoo.wandb_models import summarize_layers
from zoo.wandb_service import without_launcher


def rows_of(directory):
    with (directory / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------------- metrics.csv


def test_every_row_is_on_disk_at_once(tmp_path):
    logger = MetricsCSV(tmp_path / "run")
    for step in range(3):
        logger.log_metrics({"train/loss": step / 2, "epoch": 0}, step)
        rows = rows_of(tmp_path / "run")
        assert len(rows) == logger.rows == step + 1
        assert rows[-1] == {"step": str(step), "epoch": "0", "train/loss": str(step / 2)}


def test_new_metrics_become_new_columns_and_lose_nothing(tmp_path):
    logger = MetricsCSV(tmp_path)
    logger.log_metrics({"train/loss": 0.5, "epoch": 0.0}, 0)
    logger.log_metrics({"val/loss": 0.25, "val/accuracy": 1.0, "epoch": 0.0}, 1)
    logger.log_metrics({"train/loss": 0.125, "epoch": 1.0}, 2)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines == [
        "step,epoch,train/loss,val/accuracy,val/loss",
        "0,0,0.5,,",
        "1,0,,1.0,0.25",
        "2,1,0.125,,",
    ]


@pytest.mark.parametrize(
    "value", [1 / 3, 0.1 + 0.2, 1e-300, 1.7976931348623157e308, -0.0, math.pi, float("inf"), 2**53 + 1, 5e-324]
)
def test_values_are_read_back_exactly(tmp_path, value):
    MetricsCSV(tmp_path).log_metrics({"value": value}, 0)
    [row] = read_csv(tmp_path / "metrics.csv")[1]
    assert type(value)(row["value"]) == value
    assert row["value"] == repr(value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_tensors_are_read_back_exactly(tmp_path, dtype):
    value = torch.tensor(1000 / 3, dtype=torch.float64).to(dtype)
    MetricsCSV(tmp_path).log_metrics({"value": value}, 0)
    [row] = rows_of(tmp_path)
    assert float(row["value"]) == value.item()
    assert torch.tensor(float(row["value"]), dtype=torch.float64).to(dtype) == value


def test_nan_is_read_back(tmp_path):
    MetricsCSV(tmp_path).log_metrics({"value": float("nan")}, 0)
    assert math.isnan(float(rows_of(tmp_path)[0]["value"]))


def write(directory, steps):
    logger = MetricsCSV(directory)
    for step in steps:
        logger.log_metrics({"loss": step / 7, "epoch": 0}, step)


@pytest.mark.parametrize(
    ("keep", "kept"), [(None, [0, 1, 2, 3]), (4, [0, 1, 2, 3]), (99, [0, 1, 2, 3]), (2, [0, 1]), (0, [])]
)
def test_a_resume_goes_on_behind_the_rows_it_keeps(tmp_path, keep, kept):
    write(tmp_path, range(4))
    logger = MetricsCSV(tmp_path, keep_rows=keep)
    assert logger.rows == len(kept)
    # A resume that fails before its first row has changed nothing.
    assert [int(row["step"]) for row in rows_of(tmp_path)] == [0, 1, 2, 3]
    logger.log_metrics({"loss": 9.0, "new": 1.0, "epoch": 1}, 50)
    rows = rows_of(tmp_path)
    assert [int(row["step"]) for row in rows] == [*kept, 50]
    assert [float(row["loss"]) for row in rows] == [*(step / 7 for step in kept), 9.0]
    assert [row["new"] for row in rows] == [""] * len(kept) + ["1.0"]


@pytest.mark.parametrize("cut", [1, 2, 3, 8])
def test_a_row_cut_short_by_a_crash_is_left_out(tmp_path, cut):
    write(tmp_path, range(4))
    whole = (tmp_path / "metrics.csv").read_bytes()
    (tmp_path / "metrics.csv").write_bytes(whole[:-cut])
    assert [row["step"] for row in read_csv(tmp_path / "metrics.csv")[1]] == ["0", "1", "2"]
    logger = MetricsCSV(tmp_path)
    assert logger.rows == 3
    logger.log_metrics({"loss": 3 / 7, "epoch": 0}, 3)
    assert (tmp_path / "metrics.csv").read_bytes() == whole


@pytest.mark.parametrize("torn", [b"", b"step,ep", b"step,epoch,loss\r\n"])
def test_a_file_without_a_row_is_begun_again(tmp_path, torn):
    (tmp_path / "metrics.csv").write_bytes(torn)
    logger = MetricsCSV(tmp_path)
    logger.log_metrics({"loss": 0.5, "epoch": 0}, 0)
    assert (logger.rows, rows_of(tmp_path)) == (1, [{"step": "0", "epoch": "0", "loss": "0.5"}])


def test_a_row_that_cannot_be_written_is_an_error_and_leaves_none_of_it(tmp_path):
    logger = MetricsCSV(tmp_path / "run")
    logger.log_metrics({"loss": 0.5}, 0)
    before = logger.path.read_bytes()
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 3, hard))
    try:
        for row in ({"loss": 0.25}, {"loss": 0.25, "new": 1.0}):  # behind the others, and in a new file
            with pytest.raises(OSError, match=r"metrics.csv cannot be written \(File too large\)"):
                logger.log_metrics(row, 1)
            assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.csv"]
            assert logger.path.read_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    logger.log_metrics({"loss": 0.25, "new": 1.0}, 1)
    assert [row["loss"] for row in rows_of(tmp_path / "run")] == ["0.5", "0.25"]


def test_names_with_commas_and_quotes_come_back(tmp_path):
    write_name = 'a "b", c'
    logger = MetricsCSV(tmp_path)
    logger.log_metrics({write_name: 1.0}, 0)
    logger.log_metrics({"other": 2.0}, 1)
    assert [row[write_name] for row in read_csv(tmp_path / "metrics.csv")[1]] == ["1.0", ""]


def test_a_row_of_the_epoch_alone_has_its_header(tmp_path):
    MetricsCSV(tmp_path / "run").log_metrics({"epoch": 2}, 5)
    assert rows_of(tmp_path / "run") == [{"step": "5", "epoch": "2"}]


def test_a_trainer_writes_what_it_logs(make_trainer, make_data, tmp_path):
    trainer = make_trainer(max_epochs=2, logger=MetricsCSV(tmp_path / "run"), num_sanity_val_steps=2)
    trainer.fit(MulticlassClassification(nn.Linear(4, 3), 3), make_data())
    rows = rows_of(tmp_path / "run")
    assert trainer.log_dir == str(tmp_path / "run")
    assert [int(row["step"]) for row in rows if row["train/loss"]] == list(range(6))
    assert [int(row["epoch"]) for row in rows if row["val/loss"]] == [0, 1]
    last = [row for row in rows if row["val/loss"]][-1]
    assert float(last["val/loss"]) == trainer.callback_metrics["val/loss"].item()


# ---------------------------------------------------------------------- Weights & Biases


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    """Neither credentials nor a network, whatever machine this is."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "WANDB_PROJECT", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


SILENT, REFUSING, NONSENSE = b"", None, b"I am no HTTP server\r\n\r\n"


@pytest.fixture
def server():
    """Starts servers on the loopback interface that say ``answer`` to everyone; gives their address."""
    sockets, threads = [], []

    def serve(listening, answer):
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:  # closed at the end of the test
                return
            sockets.append(connection)
            if answer:
                connection.recv(65536)
                connection.sendall(answer)
                connection.close()

    def start(answer):
        listening = socket.create_server(("127.0.0.1", 0))
        sockets.append(listening)
        port = listening.getsockname()[1]
        if answer is REFUSING:
            listening.close()
        else:
            thread = threading.Thread(target=serve, args=(listening, answer), daemon=True)
            thread.start()
            threads.append((thread, listening))
        return f"http://127.0.0.1:{port}"

    yield start
    for thread, listening in threads:
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    for each in sockets:
        each.close()


def inspect(logger):
    """What W&B itself reads in a run's file."""
    [file] = logger.run_directory.glob("*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", "--summary", str(file)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_two_offline_runs_in_one_process_are_two_and_are_read_back(make_trainer, make_data, tmp_path):
    first = start_wandb(directory=tmp_path / "w", project="zoo", name="first", group="both")
    second = start_wandb(directory=tmp_path / "w", project="zoo", name="second", run_id="abc123")
    assert (first.mode, first.url, second.version) == ("offline", None, "abc123")
    assert first.version != second.version
    assert first.run_directory != second.run_directory
    assert tmp_path in first.run_directory.parents

    task = MulticlassClassification(nn.Linear(4, 3), 3, label_smoothing=0.1)
    trainer = make_trainer(max_epochs=2, logger=first, callbacks=[RunRecord({"experiment": "mine"})])
    trainer.fit(task, make_data())
    second.log_metrics({"val/loss": 1 / 3}, 0)
    second.log_metrics({"val/loss": 0.1 + 0.2, "epoch": 1}, 7)
    first.finish()
    second.finish(exit_code=1)

    mine, other = inspect(first), inspect(second)
    assert [(run["name"], run["project"], run["run_id"]) for run in (mine, other)] == [
        ("first", "zoo", first.version),
        ("second", "zoo", "abc123"),
    ]
    assert (mine["state"], mine["exit_code"], other["exit_code"]) == ("finished", 0, 1)
    assert mine["summary"]["val/loss"] == trainer.callback_metrics["val/loss"].item()
    assert mine["summary"]["val/accuracy"] == trainer.callback_metrics["val/accuracy"].item()
    assert (mine["summary"]["trainer/global_step"], mine["summary"]["epoch"]) == (5, 1)
    config = mine["config"]
    assert (config["num_classes"], config["label_smoothing"], config["experiment"]) == (3, 0.1, "mine")
    assert config["model_summary"].splitlines()[1:] == [
        "network  Linear                            15",
        "total    MulticlassClassification          15",
    ]
    assert config["optimizer"]["class"] == "torch.optim.adamw.AdamW"
    assert (config["optimizer"]["lr"], config["optimizer"]["betas"]) == (1e-3, [0.9, 0.999])
    assert (other["summary"]["val/loss"], other["summary"]["trainer/global_step"]) == (0.1 + 0.2, 7)
    assert other["config"] == {}


def history(logger):
    """The rows in a run's file, without what W&B adds."""
    [file] = logger.run_directory.glob("*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    records = [json.loads(line) for line in printed.splitlines()]
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    return [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]


def tracked(directory, keep, steps, run_id, finish=True):
    """A part of a run: ``steps`` behind the first ``keep`` rows."""
    csv_logger = MetricsCSV(directory, keep)
    logger = start_wandb(
        directory=directory, project="zoo", name="run", run_id=run_id, history=csv_logger.earlier_rows()
    )
    for step in steps:
        row = {"train/loss": 1 / (step + 3), "epoch": step // 4} if step % 4 else {"val/loss": 0.1 * step, "epoch": 0.0}
        for each in (csv_logger, logger):
            each.log_metrics(row, step)
    if finish:
        logger.finish()
    return logger


def test_a_run_starts_without_the_launcher_and_leaves_wandb_as_it_was(tmp_path):
    code = (
        "import pathlib, sys\n"
        "from wandb.sdk.wandb_run import Run\n"
        "from zoo.tracking import start_wandb\n"
        "look = Run._detect_and_apply_job_inputs\n"
        f"logger = start_wandb(directory=pathlib.Path({str(tmp_path)!r}), project='zoo', name='run')\n"
        "logger.log_metrics({'loss': 0.5}, 0)\n"
        "logger.finish()\n"
        "assert not logger.broken\n"
        "assert 'wandb.sdk.launch' not in sys.modules\n"
        "assert Run._detect_and_apply_job_inputs is look\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "WANDB_MODE": "offline"})


def test_where_the_launcher_was_told_of_inputs_a_run_looks_for_them(monkeypatch):
    from wandb.sdk.wandb_run import Run

    look = Run._detect_and_apply_job_inputs
    monkeypatch.setitem(sys.modules, "wandb.sdk.launch", SimpleNamespace())
    with without_launcher():
        assert Run._detect_and_apply_job_inputs is look


def test_the_last_part_of_a_run_has_all_of_its_history(tmp_path):
    MetricsCSV(tmp_path).log_metrics({"val/loss": 1e-300, "epoch": 0}, 0)  # not tracked
    tracked(tmp_path, 1, range(1, 8), "abc")
    tracked(tmp_path, 5, range(5, 11), "abc")
    last = tracked(tmp_path, 9, range(9, 12), "abc")
    expected = [
        {("trainer/global_step" if name == "step" else name): float(text) for name, text in row.items() if text}
        for row in rows_of(tmp_path)
    ]
    assert [row["trainer/global_step"] for row in expected] == list(range(12))
    assert history(last) == expected
    summary = inspect(last)
    assert (last.version, summary["run_id"], summary["state"]) == ("abc", "abc", "finished")
    assert (summary["summary"]["val/loss"], summary["summary"]["trainer/global_step"]) == (0.1 * 8, 11)


@pytest.mark.parametrize("mode", ["disabled", "DISABLED"])
def test_a_disabled_tracker_is_none_without_a_word(tmp_path, monkeypatch, mode):
    monkeypatch.setenv("WANDB_MODE", mode)
    assert start_wandb(directory=tmp_path / "w", project="zoo", name="run") is None
    assert not (tmp_path / "w").exists()


def test_a_tracker_that_is_not_installed_is_none_with_one_warning(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else find(name, *rest))
    with pytest.warns(TrackerWarning, match="not installed; metrics go to metrics.csv alone") as caught:
        assert start_wandb(directory=tmp_path / "w", project="zoo", name="run") is None
    assert len(caught) == 1


@pytest.mark.parametrize("answer", [SILENT, REFUSING, NONSENSE], ids=["silent", "refusing", "nonsense"])
@pytest.mark.parametrize("credentials", ["key", "netrc"])
def test_a_server_that_does_not_answer_is_not_waited_for(tmp_path, monkeypatch, server, answer, credentials):
    url = server(answer)
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setattr(tracking, "SERVER_PATIENCE", 0.2)
    if credentials == "key":
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    else:
        netrc = tmp_path / "home" / ".netrc"
        netrc.write_text(f"machine {url.removeprefix('http://')}\n  login user\n  password {'0' * 40}\n")
        netrc.chmod(0o600)
    with pytest.warns(TrackerWarning, match=f"server {url} does not answer") as caught:
        logger = start_wandb(directory=tmp_path / "w", project="zoo", name="run")
    assert (len(caught), logger.mode) == (1, "offline")
    assert list(logger.run_directory.glob("*.wandb"))
    logger.finish()


@pytest.fixture
def started(monkeypatch):
    """The modes in which a run was to be started, each of which fails with ``failures``."""
    modes, failures = [], {}

    def start(server=None, **settings):
        mode = "online" if server else "offline"
        modes.append(mode)
        if mode in failures:
            raise failures[mode]
        return mode

    monkeypatch.setattr(tracking, "_start", start)
    return SimpleNamespace(modes=modes, failures=failures)


def test_without_credentials_a_run_is_offline_without_a_word(tmp_path, monkeypatch, started):
    monkeypatch.delenv("WANDB_MODE")
    assert start_wandb(directory=tmp_path, project="zoo", name="run") == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.warns(TrackerWarning, match="cannot go online .it was asked to, but has no credentials"):
        assert start_wandb(directory=tmp_path, project="zoo", name="run") == "offline"


@pytest.mark.parametrize("status", ["200 OK", "401 Unauthorized", "500 Internal Server Error"])
def test_a_server_that_answers_anything_is_tried(tmp_path, monkeypatch, server, started, status):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", server(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()))
    assert start_wandb(directory=tmp_path, project="zoo", name="run") == "online"
    assert started.modes == ["online"]
    started.failures["online"] = RuntimeError("wrong key\nand more")
    with pytest.warns(TrackerWarning, match=r"does not take the run, .*: wrong key\); the run is tracked offline$"):
        assert start_wandb(directory=tmp_path, project="zoo", name="run") == "offline"
    assert started.modes == ["online", "online", "offline"]


def test_a_tracker_that_cannot_start_at_all_is_none(tmp_path, started):
    started.failures["offline"] = OSError("disk full")
    with pytest.warns(TrackerWarning, match=r"cannot start \(disk full\); metrics go to metrics.csv alone") as caught:
        assert start_wandb(directory=tmp_path, project="zoo", name="run") is None
    assert len(caught) == 1


@pytest.mark.parametrize("url", ["no url at all", "http://127.0.0.1:notaport"])
def test_an_address_that_is_none_costs_a_warning(tmp_path, monkeypatch, started, url):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", url)
    with pytest.warns(TrackerWarning, match="cannot go online|does not answer") as caught:
        assert start_wandb(directory=tmp_path, project="zoo", name="run") == "offline"
    assert len(caught) == 1


class BrokenRun:
    """A run whose connection is gone."""

    id, project, name, url = "xyz", "zoo", "run", None
    settings = SimpleNamespace(root_dir=".", sync_dir=".", sync_file="run.wandb")
    starting_step = 0

    def __init__(self):
        self.calls = 0
        self.config = SimpleNamespace(update=self._fail)
        self.log = self.finish = self._fail

    def define_metric(self, *args, **kwargs):
        pass

    def _fail(self, *args, **kwargs):
        self.calls += 1
        raise ConnectionError("the service has gone away\nTraceback ...")


class ContinuedRun(BrokenRun):
    """A run of which the server has ``starting_step`` rows."""

    def __init__(self, starting_step):
        self.starting_step = starting_step
        self.logged = []
        self.log = lambda row: self.logged.append(row["trainer/global_step"])
        self.finish = lambda exit_code: None


@pytest.mark.parametrize(("on_server", "sent"), [(0, range(8)), (3, range(3, 8)), (5, range(5, 8)), (7, [7]), (9, [])])
def test_a_server_gets_only_the_rows_that_it_lacks(monkeypatch, on_server, sent):
    monkeypatch.setattr(tracking, "check_complete", lambda file: None)
    run = ContinuedRun(on_server)
    logger = ResilientWandbLogger(run, "online", [{"step": step, "loss": 0.5} for step in range(5)])
    for step in range(5, 8):
        logger.log_metrics({"loss": 0.5}, step)
    logger.finish()
    assert run.logged == list(sent)


ACTIONS = {
    "metrics": lambda logger: logger.log_metrics({"loss": 1.0}, 0),
    "hyperparameters": lambda logger: logger.log_hyperparams({"lr": 0.1}),
    "finish": lambda logger: logger.finish(),
}


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_a_run_that_breaks_off_costs_one_warning(action):
    run = BrokenRun()
    logger = ResilientWandbLogger(run, "online")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action(logger)
        logger.finish()
    assert [warning.category for warning in caught] == [TrackerWarning]
    assert "broke off (the service has gone away)" in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for again in ACTIONS.values():
            again(logger)
    assert (run.calls, logger.broken) == (1, True)


def test_training_survives_a_tracker_that_breaks_off(make_trainer, make_data, tmp_path):
    loggers = [ResilientWandbLogger(BrokenRun(), "offline"), MetricsCSV(tmp_path / "run")]
    trainer = make_trainer(max_epochs=2, logger=loggers)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(MulticlassClassification(nn.Linear(4, 3), 3), make_data())
        loggers[0].finish()
    assert len([warning for warning in caught if warning.category is TrackerWarning]) == 1
    assert trainer.global_step == 6
    assert [int(row["step"]) for row in rows_of(tmp_path / "run") if row["train/loss"]] == list(range(6))


# ---------------------------------------------------------------------- the model


def artifacts(logger):
    """The artifacts in a run's file."""
    [file] = logger.run_directory.glob("*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    records = [json.loads(line) for line in printed.splitlines()]
    return [record["artifact"] for record in records if record["type"] == "artifact"]


def test_a_checkpoint_becomes_an_artifact_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "best.ckpt").write_bytes(bytes(1234))
    logger = start_wandb(directory=tmp_path / "w", project="zoo", name="run", run_id="abc")
    logger.log_model(Path("best.ckpt"), "mnist_cnn", {"val/accuracy": 0.5, "dataset": "MNIST"})
    logger.finish()
    assert not logger.broken
    [artifact] = artifacts(logger)
    assert (artifact["name"], artifact["type"]) == ("mnist_cnn-abc", "model")
    assert set(artifact["aliases"]) == {"best", "latest"}
    assert json.loads(artifact["metadata"]) == {"val/accuracy": 0.5, "dataset": "MNIST"}
    [file] = artifact["manifest"]["contents"]
    assert (file["path"], file["size"]) == ("best.ckpt", "1234")
    assert Path(file["local_path"]) == tmp_path / "best.ckpt"
    assert file["digest"] == base64.b64encode(hashlib.md5(bytes(1234)).digest()).decode()


@pytest.mark.parametrize(("file", "name"), [("missing.ckpt", "mnist_cnn"), (".", "mnist_cnn"), ("best.ckpt", "a b/c")])
def test_a_checkpoint_that_is_not_taken_costs_one_warning_and_the_run_is_complete(tmp_path, file, name):
    (tmp_path / "best.ckpt").write_bytes(bytes(10))
    logger = start_wandb(directory=tmp_path / "w", project="zoo", name="run")
    logger.log_model(tmp_path / file, name, {})
    logger.log_metrics({"loss": 0.5}, 3)
    with pytest.warns(TrackerWarning, match="did not take the checkpoint") as caught:
        logger.finish()
    assert (len(caught), logger.broken) == (1, False)
    assert artifacts(logger) == []
    assert inspect(logger)["summary"]["loss"] == 0.5


def test_a_large_checkpoint_gets_time_to_be_uploaded(monkeypatch, tmp_path):
    monkeypatch.setattr(tracking, "check_complete", lambda file: None)
    file = tmp_path / "best.ckpt"
    with file.open("wb") as opened:
        opened.truncate(50_000_000)
    for mode, more in (("online", 120.0), ("offline", 0.0)):
        logger = ResilientWandbLogger(ContinuedRun(0), mode)
        before = logger._patience.left
        logger.log_model(file, "run", {})
        assert logger._patience.left - before == pytest.approx(more)
        with pytest.warns(TrackerWarning, match="did not take the checkpoint"):  # this run has no artifacts
            logger.finish()


def test_the_layers_of_a_model_with_their_parameters():
    text = summarize_layers(MulticlassClassification(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), 3))
    assert text.splitlines() == [
        "layer      class                     parameters",
        "network    Sequential                        43",
        "network.0  Linear                            25",
        "network.1  ReLU                               0",
        "network.2  Linear                            18",
        "total      MulticlassClassification          43",
    ]


def test_parameters_that_are_shared_or_have_no_shape_yet_are_counted_once_and_not_at_all():
    shared = nn.Linear(4, 4)
    lines = summarize_layers(nn.Sequential(shared, shared, nn.LazyLinear(3))).splitlines()
    assert [line.split()[-1] for line in lines] == ["parameters", "20", "0", "20"]


def test_a_checkpoint_keeps_the_trackers_places(make_trainer, make_images, tmp_path):
    loggers = [ResilientWandbLogger(BrokenRun(), "offline"), MetricsCSV(tmp_path / "run")]
    loggers[0].broken = True
    trainer = make_trainer(max_epochs=1, logger=loggers, callbacks=[RunRecord()])
    trainer.fit(CNNClassifier(channels=(4,), hidden=None, image_size=8, padding=None), make_images(8))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    record = torch.load(tmp_path / "model.ckpt", weights_only=True)["run_record"]
    assert record == {"wandb_run_id": "xyz", "metric_rows": 4}  # two steps, the validation and the epoch
