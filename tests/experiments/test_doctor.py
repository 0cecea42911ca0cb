"""``--doctor``: what it prints, draws and leaves in the summary."""

import json
from pathlib import Path

import pytest

from experiments import mnist_cnn, xor

TINY = [
    *("--tracking", "none", "--data.num_samples", "400", "--trainer.max_epochs", "2", "--run_dir", "run"),
    *("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"),
]


def said(out):
    return [line for line in out.splitlines() if line.startswith("doctor")]


def test_without_it_there_is_no_word_of_it(capsys):
    xor.main(TINY)
    assert said(capsys.readouterr().out) == []
    assert "doctor" not in json.loads(Path("run/summary.json").read_text())
    assert not Path("run/figures").exists() or not Path("run/figures/gradient_norms.png").exists()


def test_a_healthy_run_hears_that_it_is_one(capsys):
    xor.main([*TINY, "--doctor", "overfit", "--figures", "all"])
    out = capsys.readouterr().out
    first, second = said(out)
    assert first.startswith("doctor    nothing looks wrong in ")
    assert second.startswith("doctor    a batch of 50 is overfitted in ")
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["doctor"] == []
    assert "figures/gradient_norms.png" in summary["figures"]
    assert Path("run/figures/gradient_norms.png").is_file()


def test_a_broken_run_hears_what_is_wrong(capsys):
    options = ["--doctor", "watch", "--figures", "none", "--model.optimizer", "torch.optim.SGD"]
    xor.main([*TINY, *options, "--model.optimizer.lr", "0"])
    [line] = said(capsys.readouterr().out)
    assert line.startswith("doctor    the learning rate was 0 at all ")
    [finding] = json.loads(Path("run/summary.json").read_text())["doctor"]
    assert finding["name"] == "zero_learning_rate"
    assert line == f"doctor    {finding['evidence']}: {finding['remedy']}"
    assert not Path("run/figures/gradient_norms.png").exists()


@pytest.mark.parametrize("given", [["--doctor"], ["--doctor", "wach"], ["--doctor="], ["--doctor", "2"]])
def test_another_value_is_refused_in_a_line(given, capsys):
    with pytest.raises(SystemExit) as refused:
        xor.main([*TINY, *given])
    assert refused.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "doctor" in err
    assert not Path("run").exists()


def test_a_resumed_run_is_watched_on(capsys):
    xor.main([*TINY, "--doctor", "watch"])
    [before] = said(capsys.readouterr().out)
    xor.main(["--resume", "run", "--trainer.max_epochs", "4", "--tracking", "none"])
    [after] = said(capsys.readouterr().out)
    assert int(after.split()[-2]) > int(before.split()[-2])


def test_a_cnn_that_reads_digits_is_healthy(capsys):
    options = ["--data.dataset", "digits", "--trainer.limit_train_batches", "30", "--doctor", "overfit"]
    mnist_cnn.main([*options, "--trainer.accelerator", "cpu", "--tracking", "none", "--model.channels", "[4, 8]"])
    lines = said(capsys.readouterr().out)
    assert [line.split()[1] for line in lines] == ["nothing", "a"]
