"""Real faults under real runs: a full disk, limits, permissions, kills inside a write, damaged files."""

import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

import faults
import pytest

from experiments.cli_errors import UsageError
from experiments.crash_test import differences
from experiments.resume import find_resumed
from zoo.checkpointing import CheckpointError, read_checkpoint

OPTIONS = [
    *("--data.num_samples", "2000", "--data.batch_size", "200", "--model.hidden", "[8]", "--tracking", "csv"),
    *("--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "2"),  # seven steps an epoch
    *("--figures", "none"),  # one that cannot be written is a warning: tests/zoo/test_figure_callbacks.py
]
EACH_STEP = [*OPTIONS, "--checkpoint_every", "1"]
KEPT = "; the file that was there before is untouched"


@pytest.fixture(scope="module")
def folder():
    """One that every user may enter, other than pytest's own."""
    with tempfile.TemporaryDirectory() as temporary:
        Path(temporary).chmod(0o755)
        yield Path(temporary)


@pytest.fixture(scope="module")
def whole(folder):
    """A run that nothing happened to."""
    faults.start_server()
    assert faults.run(folder / "whole", OPTIONS)[0] == 0
    return folder / "whole"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def names(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def ends_as(whole, directory):
    """Resume a run, and hold it against one that was never stopped."""
    code, _, told = faults.run(directory, [])
    assert (code, told) == (0, "")
    assert differences(directory, whole) == []
    previous = "checkpoints/previous.ckpt"  # there is one once this part of the run has written two
    assert {*names(directory)} - {previous} == {*names(whole)} - {previous}


def stops_with(message, *told):
    code, out, err = told
    assert (code, err) == (1, f"error: {message}\n")
    assert "Traceback" not in out


def test_a_disk_that_fills_up_stops_the_run_with_its_last_good_state(whole, small_disk):
    run = small_disk / "run"
    told = faults.run(run, EACH_STEP, ("fill", str(small_disk)), 9)
    last = run / "checkpoints" / "last.ckpt"
    # For a last one there is room where the one before the one before it was, for a better best one there is none.
    stops_with(f"{last.with_name('best.ckpt')} could not be written: No space left on device{KEPT}", *told)
    assert names(run) == [
        *("checkpoints/best.ckpt", "checkpoints/last.ckpt", "checkpoints/previous.ckpt"),
        *("config.yaml", "metrics.csv"),
    ]
    assert read_checkpoint(last)["global_step"] == 14
    (small_disk / "ballast").unlink()
    ends_as(whole, run)


@pytest.mark.parametrize(("file", "step"), [("config.yaml", None), ("summary.json", "tested")])
def test_a_full_disk_is_named_with_the_file_that_does_not_fit_and_leaves_no_half_of_it(small_disk, file, step):
    run = small_disk / "run"
    told = faults.run(run, OPTIONS, ("fill", str(small_disk)), step)
    stops_with(f"{run / file} could not be written: No space left on device", *told)
    assert not [name for name in names(small_disk) if file in name]


def test_a_row_that_does_not_fit_is_left_out_whole_and_written_by_the_resumed_run(whole, folder):
    run = folder / "row"
    told = faults.run(run, OPTIONS, ("limit_files_to", str(run / "metrics.csv"), 10), 8)
    stops_with(f"{run / 'metrics.csv'} cannot be written (File too large)", *told)
    assert (run / "metrics.csv").read_bytes().endswith(b"\n")
    ends_as(whole, run)


def test_a_limit_below_the_size_of_a_checkpoint_is_said_and_leaves_none(folder):
    run = folder / "limit"
    told = faults.run(run, EACH_STEP, ("limit_files", 8192))
    stops_with(f"{run / 'checkpoints' / 'last.ckpt'} could not be written: File too large", *told)
    assert [name for name in names(run) if "ckpt" in name] == []


def test_a_folder_that_may_no_longer_be_written_to_keeps_its_last_good_state(whole, folder):
    run = folder / "forbidden"
    told = faults.run(run, EACH_STEP, ("forbid", str(run / "checkpoints"), 0o555), 9)
    stops_with(f"{run / 'checkpoints' / 'last.ckpt'} could not be written: Permission denied{KEPT}", *told)
    (run / "checkpoints").chmod(0o755)
    ends_as(whole, run)


@pytest.fixture(scope="module")
def killed(whole, folder):
    """A run that was killed inside the write of a checkpoint, with a ``$TMPDIR`` that is not there."""
    code, _, _ = faults.run(folder / "killed", EACH_STEP, ("die_writing", "/nonexistent"), 9)
    assert code == -9
    return folder / "killed"


def test_a_kill_inside_a_write_leaves_the_checkpoint_before_and_the_next_start_sweeps(whole, killed, tmp_path):
    run = shutil.copytree(killed, tmp_path / "run")
    [orphan] = (run / "checkpoints").glob(".*")
    assert orphan.name.startswith(".last.ckpt.")
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 8
    ends_as(whole, run)


def test_a_run_whose_last_checkpoint_is_lost_goes_on_from_the_best_to_the_same_end(whole, killed, tmp_path):
    run = shutil.copytree(killed, tmp_path / "run")
    (run / "checkpoints" / "last.ckpt").unlink()
    ends_as(whole, run)


# ------------------------------------------------------------------ damaged files


@pytest.fixture
def damaged(whole, tmp_path):
    """The end of a run, and what writes other bytes over its last checkpoint."""
    shutil.copytree(whole, tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    return last, last.read_bytes()


CUTS = {"empty": lambda data: 0, "100 bytes": lambda data: 100, "half": lambda data: len(data) // 2}
CUTS["all but one"] = lambda data: len(data) - 1


@pytest.mark.parametrize("length", CUTS.values(), ids=CUTS)
def test_a_last_checkpoint_that_is_cut_short_gives_way_to_the_newest_intact_one(damaged, length, capsys):
    last, data = damaged
    last.write_bytes(data[: length(data)])
    resumed, _ = find_resumed("multiclass_blobs", ["--resume", str(last.parents[1])])
    assert resumed.checkpoint == last.with_name("previous.ckpt")
    said = capsys.readouterr().out
    assert said.startswith(f"note      {last} is ")
    assert said.endswith("; going on from previous.ckpt\n")


def test_a_byte_that_was_changed_anywhere_is_noticed(damaged):
    last, data = damaged
    draws = random.Random(0)
    for place in draws.sample(range(len(data)), 200):
        changed = bytearray(data)
        changed[place] ^= 1 << draws.randrange(8)
        last.write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"last\.ckpt is (damaged|not a checkpoint)"):
            read_checkpoint(last)


def test_of_the_intact_ones_the_newest_is_taken(damaged, capsys):
    last, _ = damaged
    for age, name in enumerate(("newer.ckpt", "older.ckpt", "best.ckpt")):
        other = last.with_name(name)
        if not other.is_file():
            shutil.copy(last.with_name("best.ckpt"), other)
        os.utime(other, (1e9 - age, 1e9 - age))
    last.with_name("newest.ckpt").write_bytes(b"neither")
    for damaged_one in (last, last.with_name("previous.ckpt")):
        damaged_one.write_bytes(b"")
    resumed, _ = find_resumed("multiclass_blobs", ["--resume", str(last.parents[1])])
    assert resumed.checkpoint.name == "newer.ckpt"
    assert "going on from newer.ckpt" in capsys.readouterr().out


def test_where_all_are_damaged_that_is_a_line(damaged):
    last, _ = damaged
    for path in last.parent.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match=r"^--resume: .*last\.ckpt is damaged: its checksum is not that of its bytes"):
        find_resumed("multiclass_blobs", ["--resume", str(last.parents[1])])
