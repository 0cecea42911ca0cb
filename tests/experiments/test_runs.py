import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, SHORT
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torchvision import datasets

from datamodules import DataError
from experiments import (
    crash_test,
    linear_regression_from_scratch,
    mnist_cnn,
    mnist_ensemble,
    multiclass_blobs,
    robust_regression,
    runner,
    xor,
)
from experiments.runner import run, terminable
from zoo import NonFiniteLossError, TargetError
from zoo.callbacks import NoTrainingStepError, StepSeeding
from zoo.checkpointing import CheckpointError
from zoo.checkpointing.sealing import is_sealed
from zoo.optim import UnknownLengthError

CSV = [*SHORT, "--tracking", "csv"]
VOTERS = [
    *("--model.members", "[{class: SoftmaxClassifier}, {class: SoftmaxClassifier}]", "--average_decay", "0.9"),
    *("--data.dataset", "digits", "--data.batch_size", "64", "--trainer.limit_train_batches", "8"),
]


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def test_two_runs_are_two_directories_and_two_tracked_runs(read_wandb):
    mnist_cnn.main(SHORT)
    mnist_cnn.main(SHORT)
    directories = sorted(Path("runs/mnist_cnn").iterdir())
    assert len(directories) == 2
    runs = [run for directory in directories for run in read_wandb(directory)]
    assert len({run["run_id"] for run in runs}) == 2


def test_a_directory_that_is_taken_is_left_alone(capsys):
    mnist_cnn.main([*CSV, "--run_dir", "run"])
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    mnist_cnn.main([*CSV, "--run_dir", "run", "--seed_everything", "1"])
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before
    assert Path("run-2/summary.json").is_file()
    assert "run-2" in capsys.readouterr().out


class KilledError(Exception):
    pass


def kill_at(monkeypatch, batch):
    original = StepSeeding.on_train_batch_start

    def hook(self, trainer, *args):
        if trainer.fit_loop.total_batch_idx == batch:
            raise KilledError
        original(self, trainer, *args)

    monkeypatch.setattr(StepSeeding, "on_train_batch_start", hook)


def test_a_resumed_run_ends_as_if_it_had_never_stopped(monkeypatch, read_wandb, capsys):
    longer = [*SHORT, "--trainer.max_epochs", "4", "--model.dropout", "0.3"]
    whole = mnist_cnn.main([*longer, "--run_dir", "whole"])
    with monkeypatch.context() as patch:
        kill_at(patch, 29)
        with pytest.raises(KilledError):
            mnist_cnn.main([*longer, "--run_dir", "broken"])
    resumed = mnist_cnn.main(["--resume", "last", "--run_dir", "broken"])
    assert resumed == whole
    expected, got = weights("whole/checkpoints/last.ckpt"), weights("broken/checkpoints/last.ckpt")
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert Path("whole/metrics.csv").read_text() == Path("broken/metrics.csv").read_text()
    first, second = read_wandb("broken")
    upload = capsys.readouterr().out.splitlines()[-1]
    assert Path(upload.split("wandb sync ")[1]).samefile(
        Path(second["file"]).parent
    )  # the last part has the whole run in it
    assert (second["config"]["dropout"], second["config"]["experiment"]) == (0.3, "mnist_cnn")
    assert second["summary"]["test/accuracy"] == resumed["test/accuracy"]
    assert first["run_id"] == second["run_id"]
    assert (first["exit_code"], second["exit_code"]) == (1, 0)


@pytest.mark.parametrize(
    ("experiment", "options", "batch"),
    [
        # Linked options, the last checkpoint tested, and a rival beside it.
        (robust_regression, ["--data.num_features", "3", "--data.num_samples", "2000", "--data.batch_size", "200"], 17),
        # Linked options, the best checkpoint tested, dropout and norms.
        (multiclass_blobs, ["--data.num_classes", "3", "--data.num_samples", "2000", "--data.batch_size", "200"], 17),
        (xor, ["--data.num_samples", "500"], 17),
        # No optimizer that could be restored; and steps that nobody but the task counts.
        (linear_regression_from_scratch, ["--data.num_samples", "2000", "--data.batch_size", "200"], 17),
        (linear_regression_from_scratch, ["--data.num_samples", "2000", "--data.batch_size", "1400"], 3),
        # The average of the weights, and several networks that are examined by themselves.
        (mnist_ensemble, VOTERS, 29),
    ],
)
def test_every_experiment_resumes_to_the_bit_and_runs_again_from_its_config(experiment, options, batch, monkeypatch):
    args = [*options, "--trainer.max_epochs", "5", "--tracking", "csv"]
    whole = experiment.main([*args, "--run_dir", "whole"])
    with monkeypatch.context() as patch:
        kill_at(patch, batch)
        with pytest.raises(KilledError):
            experiment.main([*args, "--run_dir", "broken"])
    assert torch.load("broken/checkpoints/last.ckpt", weights_only=True)["epoch"] < 4
    resumed = experiment.main(["--resume", "last", "--run_dir", "broken"])
    again = experiment.main(["--config", "whole/config.yaml", "--run_dir", "again"])
    for name, metrics in (("broken", resumed), ("again", again)):
        assert metrics == whole
        expected, got = weights("whole/checkpoints/last.ckpt"), weights(f"{name}/checkpoints/last.ckpt")
        assert expected.keys() == got.keys()
        assert all(torch.equal(expected[key], got[key]) for key in expected)
        for file in ("metrics.csv", "config.yaml"):
            assert Path(f"whole/{file}").read_text() == Path(f"{name}/{file}").read_text()
        first, second = (json.loads(Path(f"{run}/summary.json").read_text()) for run in ("whole", name))
        for key in ("claims", "examined", "limit", "distance_to_limit", "epochs", "steps"):
            assert first[key] == second[key]


def test_a_linked_option_given_anew_on_resume_is_refused_in_a_sentence():
    args = ["--data.num_samples", "2000", "--data.batch_size", "200", "--trainer.max_epochs", "1", "--tracking", "csv"]
    robust_regression.main([*args, "--run_dir", "a"])
    with pytest.raises(CheckpointError, match=r"does not fit the model.*in_features was 10"):
        robust_regression.main(["--resume", "a", "--trainer.max_epochs", "2", "--data.num_features", "3"])


def test_resume_takes_the_newest_run_and_the_command_line_wins(capsys):
    mnist_cnn.main([*CSV, "--seed_everything", "1"])
    time.sleep(0.01)
    mnist_cnn.main([*CSV, "--seed_everything", "2"])
    newest = sorted(Path("runs/mnist_cnn").iterdir())[-1]
    capsys.readouterr()
    mnist_cnn.main(["--resume", "last", "--trainer.max_epochs", "3", "--model.optimizer.lr", "0.001"])
    out = capsys.readouterr().out
    assert str(newest) in out
    assert "lr 0.001 instead of 0.01" in out
    state = torch.load(newest / "checkpoints/last.ckpt", weights_only=True)
    assert state["epoch"] == 2
    assert state["optimizer_settings"][0]["lr"] == 0.001


def test_a_checkpoint_begins_a_new_run_elsewhere():
    mnist_cnn.main([*CSV, "--run_dir", "a"])
    before = weights("a/checkpoints/last.ckpt")
    mnist_cnn.main(["--resume", "a/checkpoints/last.ckpt", "--run_dir", "b", "--trainer.max_epochs", "3"])
    after = weights("a/checkpoints/last.ckpt")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert Path("b/summary.json").is_file()


def test_resume_on_other_data_is_refused():
    mnist_cnn.main([*CSV, "--run_dir", "a"])
    with pytest.raises(DataError, match="training split differs"):
        mnist_cnn.main(["--resume", "a", "--trainer.max_epochs", "3", "--data.seed", "7"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--model.channels", "[8,8]"], CheckpointError, r"does not fit the model.*channels was \(16, 32\)"),
        (["--model.optimizer", "torch.optim.SGD"], CheckpointError, "the optimizer AdamW, not SGD"),
        (["--model.scheduler", "null"], CheckpointError, "the scheduler OneCycle, not None"),
        (["--seed_everything", "3"], DataError, "training split differs"),
    ],
)
def test_a_resume_that_fails_leaves_the_run_as_it_was(options, error, message):
    mnist_cnn.main([*CSV, "--run_dir", "a"])
    before = {path: path.read_bytes() for path in Path("a").rglob("*") if path.is_file()}
    with pytest.raises(error, match=message):
        mnist_cnn.main(["--resume", "a", "--trainer.max_epochs", "3", *options])
    assert {path: path.read_bytes() for path in Path("a").rglob("*") if path.is_file()} == before
    mnist_cnn.main(["--resume", "a", "--trainer.max_epochs", "3"])


def test_a_schedule_given_another_shape_on_resume_takes_it(capsys):
    mnist_cnn.main([*CSV, "--run_dir", "a"])
    for name in ("b", "c"):
        shutil.copytree("a", name)
    mnist_cnn.main(["--resume", "b", "--trainer.max_epochs", "3"])
    capsys.readouterr()
    mnist_cnn.main(["--resume", "c", "--trainer.max_epochs", "3", "--model.scheduler.warmup", "0.9"])
    assert "model.scheduler.init_args.warmup 0.9 instead of 0.2" in capsys.readouterr().out
    usual, other = weights("b/checkpoints/last.ckpt"), weights("c/checkpoints/last.ckpt")
    assert not all(torch.equal(usual[name], other[name]) for name in usual)


def test_sigterm_stops_a_process_with_its_exit_code_and_says_how_to_go_on(tmp_path):
    options = [*CSV, "--trainer.max_epochs", "500", "--run_dir", str(tmp_path / "a")]
    command = [sys.executable, "-u", "-m", "experiments.mnist_cnn", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as process:
        while "epoch 2" not in process.stdout.readline():
            assert process.poll() is None
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err == f"stopped   go on with --resume {tmp_path / 'a'}\n"


def test_an_unknown_mode_of_wandb_is_named_and_the_run_is_offline(monkeypatch, capsys, read_wandb):
    monkeypatch.setenv("WANDB_MODE", "garbage")
    mnist_cnn.main([*SHORT, "--run_dir", "a"])
    err = capsys.readouterr().err
    assert err.count("warning:") == 1
    assert "WANDB_MODE=garbage" in err
    assert len(read_wandb("a")) == 1


def test_a_run_without_an_end_is_an_error_that_says_so():
    with pytest.raises(UnknownLengthError, match="max_epochs"):
        mnist_cnn.main([*CSV, "--trainer.max_epochs", "-1"])


def test_a_damaged_checkpoint_is_named(capsys):
    mnist_cnn.main([*CSV, "--run_dir", "a"])
    path = Path("a/checkpoints/last.ckpt")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SystemExit) as stopped:
        mnist_cnn.main(["--resume", "./a/checkpoints/last.ckpt"])
    assert stopped.value.code == 2
    assert "a/checkpoints/last.ckpt is not a checkpoint" in capsys.readouterr().err


def test_a_loss_that_explodes_stops_the_run_and_keeps_the_last_good_checkpoint(read_wandb):
    mnist_cnn.main([*SHORT, "--run_dir", "a", "--trainer.max_epochs", "1"])
    good = Path("a/checkpoints/best.ckpt").read_bytes()
    args = ["--resume", "a", "--trainer.max_epochs", "3", "--model.optimizer.lr", "1e30", "--model.norm", "batch"]
    with pytest.raises(NonFiniteLossError, match=r"at step 1\d.*the last good checkpoint is .*best\.ckpt"):
        mnist_cnn.main(args)
    assert Path("a/checkpoints/best.ckpt").read_bytes() == good
    assert [run["exit_code"] for run in read_wandb("a")] == [0, 1]


def test_nothing_to_train_is_an_error():
    with pytest.raises(NoTrainingStepError, match="not a single training step"):
        mnist_cnn.main([*CSV, "--trainer.max_epochs", "0"])


def test_labels_beyond_the_model_are_an_error():
    with pytest.raises(TargetError, match=r"10 classes.*num_classes=5"):
        mnist_cnn.main([*CSV, "--model.num_classes", "5"])


def test_patience_stops_early(summary_of):
    mnist_cnn.main(
        [*CSV, "--trainer.max_epochs", "9", "--patience", "1", "--model.optimizer.lr", "1e-12", "--run_dir", "a"]
    )
    assert summary_of("a")["epochs"] < 9


@pytest.mark.parametrize(
    "options",
    [
        ["--trainer.fast_dev_run", "true"],
        ["--trainer.limit_val_batches", "0"],
        ["--trainer.enable_checkpointing", "false", "--trainer.enable_progress_bar", "false"],
        ["--trainer.accumulate_grad_batches", "3", "--trainer.gradient_clip_val", "1.0"],
        ["--trainer.max_steps", "5"],
        ["--model.scheduler", "torch.optim.lr_scheduler.StepLR", "--model.scheduler.step_size", "1"],
        ["--model.scheduler", "lightning.pytorch.cli.ReduceLROnPlateau", "--model.scheduler.monitor", "val/loss"],
        ["--model.optimizer", "RMSprop", "--model.scheduler", "zoo.optim.WarmupCosine"],
        ["--tracking", "none"],
    ],
)
def test_other_ways_to_run_end_in_a_report(options, capsys):
    metrics = mnist_cnn.main([*CSV, *options])
    assert 0 <= metrics["test/accuracy"] <= 1
    assert "result    test/accuracy" in capsys.readouterr().out


def test_tensorboard():
    pytest.importorskip("tensorboard")
    mnist_cnn.main([*SHORT, "--tracking", "tensorboard", "--run_dir", "a"])
    assert list(Path("a/tensorboard").glob("events.out.tfevents.*"))
    assert Path("a/metrics.csv").is_file()
    assert not Path("a/wandb").exists()


@pytest.mark.parametrize(("name", "file", "alias"), [("mnist_cnn", "best.ckpt", "best"), ("xor", "last.ckpt", "last")])
def test_the_tested_checkpoint_alone_is_logged_where_that_is_asked_for(name, file, alias, read_artifacts, summary_of):
    options = SHORT if name == "mnist_cnn" else ["--trainer.max_epochs", "2", "--data.num_samples", "1000"]
    run({"mnist_cnn": mnist_cnn, "xor": xor}[name].EXPERIMENT, [*options, "--log_model", "--run_dir", "a"])
    [artifact] = read_artifacts("a")
    summary = summary_of("a")
    assert (artifact["type"], alias in artifact["aliases"]) == ("model", True)
    [logged] = artifact["manifest"]["contents"]
    assert Path(logged["local_path"]) == Path("a/checkpoints", file).absolute()
    assert int(logged["size"]) == Path("a/checkpoints", file).stat().st_size
    metadata = json.loads(artifact["metadata"])
    assert metadata["class"].startswith("zoo.models.")
    for key in ("dataset", "experiment", "parameters", "test/accuracy", "test/loss"):
        assert metadata[key] == summary[key]


@pytest.mark.parametrize("tracking", ["csv", "none"])
def test_without_a_tracker_a_model_that_is_to_be_logged_is_one_line(tracking, capsys):
    xor.main(["--trainer.max_epochs", "1", "--data.num_samples", "1000", "--tracking", tracking, "--log_model"])
    out, err = capsys.readouterr()
    assert out.count("note ") == 1
    assert "note      --log_model: the run is not tracked in Weights & Biases, so no checkpoint is logged\n" in out
    assert err == ""


def test_a_model_that_no_checkpoint_was_kept_of_is_one_line(capsys, read_artifacts):
    options = ["--trainer.max_epochs", "1", "--data.num_samples", "1000", "--trainer.enable_checkpointing", "false"]
    xor.main([*options, "--log_model", "--run_dir", "a"])
    assert "note      --log_model: no checkpoint was kept, so none is logged\n" in capsys.readouterr().out
    assert read_artifacts("a") == []


def test_without_wandb_one_line_and_csv(monkeypatch, capsys):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else find(name, *rest))
    mnist_cnn.main([*SHORT, "--run_dir", "a"])
    err = capsys.readouterr().err
    assert err.count("warning:") == 1
    assert "not installed" in err
    assert Path("a/metrics.csv").is_file()


def test_a_server_that_stays_silent_costs_seconds_and_the_run_goes_offline(monkeypatch, capsys, read_wandb):
    monkeypatch.setattr("zoo.tracking.SERVER_PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        mnist_cnn.main([*SHORT, "--run_dir", "a"])
    assert "does not answer" in capsys.readouterr().err
    [run] = read_wandb("a")
    assert run["state"] == "finished"


def test_no_secret_is_written(monkeypatch):
    pytest.importorskip("wandb")
    key = "5ec7e7" * 6 + "0123"
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("WANDB_MODE", "offline")
    mnist_cnn.main([*SHORT, "--run_dir", "a"])
    files = [path for path in Path("a").rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert [path for path in files if key.encode() in path.read_bytes()] == []


def test_without_data_and_network_the_bundled_digits_are_used_and_said_so(monkeypatch, capsys, summary_of, read_wandb):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{port}/"])
    options = ["--data.batch_size", "64", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "5"]
    mnist_cnn.main([*options, "--run_dir", "a", "--data.data_dir", "nothing-here"])
    out, err = capsys.readouterr()
    assert err.count("warning:") == 1
    assert "BUNDLED DIGITS" in err
    assert "dataset: digits" in out
    assert summary_of("a")["dataset"] == "digits"
    [run] = read_wandb("a")
    assert run["config"]["dataset"] == "digits"


@pytest.mark.parametrize("source", ["local", "download"])
def test_what_must_be_mnist_never_falls_back(source, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{port}/"])
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        mnist_cnn.main(["--data.data_dir", "nothing-here", "--data.source", source, "--tracking", "csv"])


def test_as_a_process_it_prints_what_a_user_wants_and_nothing_else(tmp_path):
    command = [sys.executable, "-m", "experiments.mnist_cnn", *CSV, "--run_dir", str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stderr == ""
    words = [re.split(r"\s+", line)[0] for line in done.stdout.splitlines()]
    assert words == ["data", "model", "epoch", "epoch", "result", "claim", "time", "model", "run", "figures"]


def test_as_a_process_an_expected_error_is_one_line(tmp_path):
    options = ["--data.data_dir", str(tmp_path), "--data.source", "local", "--run_dir", str(tmp_path / "a")]
    command = [sys.executable, "-m", "experiments.mnist_cnn", *options, "--tracking", "csv"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_checkpoints_are_sealed_and_a_damaged_one_gives_way_to_the_newest_intact_one(capsys, tmp_path):
    """The run goes on from the best one, and ends as if nothing had happened."""
    options = [*SHORT, "--tracking", "csv", "--trainer.precision", "32-true"]
    whole = mnist_cnn.main([*options, "--run_dir", "whole"])
    one = [*options, "--trainer.max_epochs", "1", "--run_dir", "stopped"]
    mnist_cnn.main(one)
    checkpoints = tmp_path / "stopped" / "checkpoints"
    for name in ("last.ckpt", "best.ckpt"):
        assert is_sealed((checkpoints / name).read_bytes())
    data = bytearray((checkpoints / "last.ckpt").read_bytes())
    data[len(data) // 3] ^= 16
    (checkpoints / "last.ckpt").write_bytes(bytes(data))
    (checkpoints / ".last.ckpt.4711.new").write_bytes(b"half of a")
    capsys.readouterr()
    longer = ["--trainer.max_epochs", "2"]
    with pytest.raises(SystemExit):  # asked for by name it is no other
        mnist_cnn.main(["--resume", str(checkpoints / "last.ckpt"), *longer])
    assert "last.ckpt is damaged: its checksum is not that of its bytes" in capsys.readouterr().err
    resumed = mnist_cnn.main(["--resume", "stopped", *longer])
    out = capsys.readouterr().out
    assert "last.ckpt is damaged" in out
    assert "going on from best.ckpt" in out
    assert resumed.keys() == whole.keys()
    assert sorted(path.name for path in checkpoints.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]
    assert is_sealed((checkpoints / "last.ckpt").read_bytes())

    for path in checkpoints.iterdir():
        path.write_bytes(b"")
    with pytest.raises(SystemExit):
        mnist_cnn.main(["--resume", "stopped"])
    assert "last.ckpt is not a checkpoint that can be read safely" in capsys.readouterr().err


def test_sigterm_behind_the_fit_ends_the_run_in_order(capsys):
    def terminate(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        raise AssertionError("it went on")

    experiment = dataclasses.replace(xor.EXPERIMENT, examine=terminate)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        run(experiment, ["--trainer.max_epochs", "1", "--run_dir", "run", "--tracking", "csv"])
    assert stopped.value.code == 143
    assert capsys.readouterr().err == "stopped   go on with --resume run\n"
    assert signal.getsignal(signal.SIGTERM) == before
    assert not Path("run/summary.json").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_in_a_finalizer_is_not_lost(number, code, capsys, monkeypatch):
    class Nobody:
        def __del__(self):
            os.kill(os.getpid(), number)  # what its handler raises here, Python only tells of
            lost.append(self)

    def examine(*args):
        Nobody()
        passed.append("on")
        time.sleep(60)
        raise AssertionError("it went on")

    monkeypatch.setattr(runner, "_MOMENT", 0.5)  # in which it gets behind the finalizer, however busy the machine
    lost, passed = [], []
    hook = sys.unraisablehook
    experiment = dataclasses.replace(xor.EXPERIMENT, examine=examine)
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
    try:
        with pytest.raises(SystemExit) as stopped:
            run(experiment, ["--trainer.max_epochs", "1", "--run_dir", "run", "--tracking", "csv"])
    finally:
        signal.signal(signal.SIGINT, heard)
    assert (stopped.value.code, lost) == (code, [])
    assert passed in (["on"], [])  # behind the finalizer, wherever the process was by then
    assert capsys.readouterr().err == "stopped   go on with --resume run\n"
    assert sys.unraisablehook is hook


class ToldInItsFinalizer:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


def test_a_stop_in_a_finalizer_at_the_end_is_heard_by_whoever_goes_on():
    def go_on():
        with terminable():
            ToldInItsFinalizer()
        time.sleep(60)

    with terminable(), pytest.raises(SIGTERMException):
        go_on()


def test_a_stop_that_is_sent_again_too_soon_is_sent_once_more(monkeypatch):
    class Late(threading.Timer):
        def start(self):
            super().start()
            starts.append(self)
            if len(starts) == 1:
                self.join()  # as if this thread had not been run before the other had done its work
                time.sleep(0.01)

    def go_on():
        with terminable():
            ToldInItsFinalizer()
            time.sleep(60)

    starts = []
    monkeypatch.setattr(runner.threading, "Timer", Late)
    with pytest.raises(SIGTERMException):
        go_on()
    assert len(starts) == 2


def test_what_else_fails_in_a_finalizer_is_told_as_ever(monkeypatch):
    class Nobody:
        def __del__(self):
            raise ValueError("told")

    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda failed: told.append(str(failed.exc_value)))
    with terminable():
        Nobody()
    assert told == ["told"]


def test_the_checkpoint_before_the_last_one_takes_its_place(capsys):
    mnist_cnn.main([*CSV, "--run_dir", "whole"])
    mnist_cnn.main([*CSV, "--run_dir", "damaged"])
    last = Path("damaged/checkpoints/last.ckpt")
    last.write_bytes(last.read_bytes()[:-1])
    capsys.readouterr()
    mnist_cnn.main(["--resume", "damaged"])
    assert "last.ckpt is damaged" in capsys.readouterr().out
    assert crash_test.differences(Path("damaged"), Path("whole")) == []
