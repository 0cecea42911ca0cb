import os
from pathlib import Path

import pytest

from experiments import soak


def samples(epochs, memory=lambda epoch: 1000.0, files=lambda epoch: 8):
    return [
        soak.Sample(epoch, int(memory(epoch) * 2**20), 36 * 2**20, files(epoch), threads=7) for epoch in range(epochs)
    ]


@pytest.fixture
def run(tmp_path):
    directory = tmp_path / "run"
    (directory / "checkpoints").mkdir(parents=True)
    (directory / "checkpoints" / "last.ckpt").write_bytes(bytes(2048))
    (directory / "metrics.csv").write_text("step,epoch\n" * 10)
    (tmp_path / "screen.log").write_text("epoch\n")
    return directory


@pytest.mark.parametrize(
    ("told", "arguments"),
    [
        ([], {}),
        # What grows before anybody looks is what a run needs; and one file more is open while a checkpoint is written.
        ([], {"memory": lambda epoch: 500.0 + 10 * min(epoch, 50), "files": lambda epoch: 8 + epoch % 2}),
        ([], {"memory": lambda epoch: 1000.0 + 0.5 * epoch}),
        (
            ["memory of the run by 5.9 % at most", "memory of both by 5.7 % at most"],
            {"memory": lambda epoch: 1000.0 + (epoch - 50) * (epoch > 50) * 1.2},
        ),
        (
            ["memory of the run by 50.0 % at most", "memory of both by 48.3 % at most"],
            {"memory": lambda epoch: 1500.0 if epoch == 70 else 1000.0},
        ),
        (["files: 8 to 8, then 9 to 9"], {"files": lambda epoch: 8 + (epoch >= 75)}),
    ],
)
def test_growth_is_told(run, told, arguments):
    lines = soak.report(samples(100, **arguments), run)
    grown = [line.removeprefix("GREW").strip() for line in lines if line.startswith("GREW")]
    assert len(grown) == len(told)
    for line, start in zip(grown, told, strict=True):
        assert line.startswith(start)
    assert "written   checkpoints: 2.0 KiB in 1 files, 20 bytes an epoch" in lines


def test_too_few_epochs_tell_nothing(run):
    with pytest.raises(soak.SoakError, match="more than 50"):
        soak.report(samples(40), run)


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the command is for Linux, as it reads /proc")
def test_a_process_is_seen_as_it_is():
    before = soak._look(os.getpid(), 3)
    with open(os.devnull), open(os.devnull):  # noqa: PTH123  # held open
        after = soak._look(os.getpid(), 3)
    assert after.files - before.files == 2
    assert 50 * 2**20 < after.memory < 2**36


def test_the_last_epoch_is_that_of_the_last_whole_row(tmp_path):
    metrics = tmp_path / "metrics.csv"
    assert soak._last_epoch(metrics) is None
    metrics.write_text("step,epoch,x\n" + "9,4,0.5\n" * 200 + "10,5,")
    assert soak._last_epoch(metrics) == 4
