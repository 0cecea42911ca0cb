"""The harness itself: that it sees what differs; and a small run of it, with real processes and real signals."""

import csv
import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from experiments import crash_test
from zoo.checkpointing import read_checkpoint, write_checkpoint


def test_runs_that_are_killed_and_stopped_end_as_one_that_is_not(tmp_path):
    keep = tmp_path / "runs"  # beside what matplotlib keeps in the home directory
    command = [sys.executable, "-m", "experiments.crash_test", "--kills", "1", "--stops", "1", "--keep", str(keep)]
    command += [] if importlib.util.find_spec("wandb") else ["--tracking", "csv"]  # whose absence would be a warning
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # the children of a background process ignore it
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    finally:
        signal.signal(signal.SIGINT, heard)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("SIGKILL: 1 of 1 exact", "SIGTERM: 1 of 1 exact", "SIGINT: 1 of 1 exact"):
        assert line in done.stdout
    trials = re.findall(r"^ *(\d+) (SIG\w+) +from (\w+(?: end)?) +exact$", done.stdout, re.MULTILINE)
    assert [kind for _, kind, _ in trials] == ["SIGKILL", "SIGTERM", "SIGINT"]
    for number, kind, place in trials:
        said = (keep / f"trial-{number}.log").read_text()
        advice = re.findall("^stopped   (.*)$", said, re.MULTILINE)
        # The moments are shares of a time: on a busy machine a run may be anywhere by then.
        go_on = [f"go on with --resume {keep / f'trial-{number}'}"]
        expected = {"nowhere": [["no checkpoint was written yet"]], "its end": [[], go_on]}
        assert advice in ([[]] if kind == "SIGKILL" else expected.get(place, [go_on]))
        # A stop is no error, and nobody is shown where in the code it happened.
        assert not re.search("^(error|Traceback|warning)", said, re.MULTILINE)


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """A finished run, and a copy to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    whole = folder / "whole"
    (whole / "checkpoints").mkdir(parents=True)
    weights = {"weight": torch.tensor([1.0, 2.0])}
    rest = dict.fromkeys(crash_test._SAME, 0) | {"pytorch-lightning_version": "2", "state_dict": weights}
    for name in ("last", "best"):
        write_checkpoint(
            rest | {"optimizer_states": [{"step": 3, "exp_avg": [torch.ones(2)]}]}, whole / f"checkpoints/{name}.ckpt"
        )
    (whole / "metrics.csv").write_text("step,epoch,train/loss\n1,0,0.5\n3,0,0.25\n")
    (whole / "summary.json").write_text(json.dumps({"test/loss": 0.1, "seconds": {"total": 1.0}}))
    return whole, folder / "copy"


def _change_bit(path):
    contents = read_checkpoint(path)
    contents["state_dict"]["weight"].view(torch.uint8)[0] ^= 1
    write_checkpoint(contents, path)


def _change_step(path):
    contents = read_checkpoint(path)
    contents["optimizer_states"][0]["step"] = 4
    write_checkpoint(contents, path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda run: None, []),
        (lambda run: _change_bit(run / "checkpoints/last.ckpt"), ["last.ckpt: state_dict.weight"]),
        (lambda run: _change_bit(run / "checkpoints/best.ckpt"), ["best.ckpt: state_dict.weight"]),
        (lambda run: _change_step(run / "checkpoints/last.ckpt"), ["last.ckpt: optimizer_states[0].step"]),
        (
            lambda run: (run / "metrics.csv").write_text("step,epoch,train/loss\n3,0,0.25\n"),
            ["metrics.csv has 2 lines of 3, or other values"],
        ),
        (
            lambda run: (run / "summary.json").write_text('{"test/loss": 0.2}'),
            ["tested as {'test/loss': 0.2} instead of {'test/loss': 0.1}"],
        ),
    ],
)
def test_what_differs_between_two_runs_is_named(two_runs, change, told):
    whole, copy = two_runs
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(whole, copy)
    change(copy)
    assert crash_test.differences(copy, whole) == told


def test_a_run_without_its_checkpoint_or_its_tracker_differs(two_runs):
    whole, copy = two_runs
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(whole, copy)
    (copy / "checkpoints/best.ckpt").unlink()
    part = copy / "wandb/offline-run-1"
    part.mkdir(parents=True)
    (part / "run-1.wandb").touch()
    missing, tracked = crash_test.differences(whole, copy)
    assert missing == f"there is no checkpoint file {copy / 'checkpoints/best.ckpt'}"
    assert tracked == "one of the two has a W&B run, and the other has none"


def test_an_exit_code_of_success_is_only_that_of_a_run_at_its_end():
    assert crash_test._exit_codes(signal.SIGTERM, over=False) == {143}
    assert crash_test._exit_codes(signal.SIGTERM, over=True) == {143, 0, -15}
    assert crash_test._exit_codes(signal.SIGKILL, over=False) == {-9}


def test_of_a_tracked_run_the_last_part_has_every_row(run_once, tmp_path):
    pytest.importorskip("wandb")
    run = run_once("xor", "--trainer.max_epochs", "2", "--tracking", "wandb")
    assert crash_test._wandb_differences(run.directory) == []
    copy = tmp_path / "copy"
    shutil.copytree(run.directory, copy, symlinks=True)
    (part,) = (copy / "wandb").glob("offline-run-*/*.wandb")
    # That of the process that was killed was begun before it, and closed behind it; it cannot be read.
    killed = copy / "wandb" / f"offline-run-20000101_000000-{part.stem.removeprefix('run-')}" / part.name
    killed.parent.mkdir()
    killed.write_bytes(b"")
    assert crash_test._wandb_differences(copy) == []
    shutil.copy(part, killed)
    part.write_bytes(b"neither")
    (unreadable,) = crash_test._wandb_differences(copy)
    assert unreadable.startswith("the W&B run cannot be read: ")
    shutil.copy(killed, part)
    with (copy / "metrics.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    with (copy / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows[:-1])
    assert crash_test._wandb_differences(copy) == [
        f"the W&B run has {len(rows) - 1} rows of {len(rows) - 2}, or other values"
    ]


@pytest.mark.parametrize("options", [["--kills", "-1"], ["--jobs", "0"], ["--kills", "many"]])
def test_numbers_that_make_no_sense_are_refused(options, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["crash_test", *options])
    with pytest.raises(SystemExit) as refused:
        crash_test._command_line()
    assert refused.value.code == 2
    assert options[0] in capsys.readouterr().err
