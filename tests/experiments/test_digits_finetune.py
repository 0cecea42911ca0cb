"""Fine-tuning as an experiment: on few samples, beside training from scratch."""

import pytest
import torch

from experiments import digits_finetune
from zoo import CNNClassifier, load_pretrained
from zoo.checkpointing import read_checkpoint

FEW = ["--trainer.limit_train_batches", "20", "--trainer.max_epochs", "1", "--trainer.precision", "32-true"]
HEAD = ["network.head.4.weight", "network.head.4.bias"]


def test_what_is_gained_is_reported_and_claimed(run_once, summary_of):
    run = run_once("digits_finetune", *FEW)
    summary, figures = summary_of(run.directory), run.metrics
    assert (summary["dataset"], summary["samples"]["train"]) == ("digits", 5000)
    assert set(summary["examined"]) == {"fine_tuned/accuracy", "frozen/accuracy", "scratch/accuracy", "gain"}
    assert figures["gain"] == pytest.approx(figures["fine_tuned/accuracy"] - figures["scratch/accuracy"])
    assert figures["gain"] > 0.05  # after two passes over the samples even more than after twenty
    [claim] = summary["claims"]
    assert (claim["metric"], claim["value"], claim["reached"]) == ("gain", figures["gain"], True)
    assert any(line.startswith("reached   gain ") for line in run.out.splitlines())
    model = CNNClassifier.load_from_checkpoint(summary["checkpoint"])
    assert model.frozen is None
    assert dict(model.hparams) == dict(load_pretrained("mnist_cnn").hparams)


def test_a_run_with_a_frozen_trunk_goes_on_as_it_began(tmp_path, monkeypatch):
    options = [*FEW, "--tracking", "csv", "--model.freeze", "trunk", "--trainer.limit_train_batches", "6"]
    monkeypatch.setattr(digits_finetune, "_SEEDS", 1)
    digits_finetune.main([*options, "--run_dir", "part"])
    digits_finetune.main(["--resume", "part", "--trainer.max_epochs", "2"])
    part = CNNClassifier.load_from_checkpoint(tmp_path / "part" / "checkpoints" / "last.ckpt")
    before = load_pretrained("mnist_cnn").state_dict()
    assert part.frozen == read_checkpoint(tmp_path / "part" / "checkpoints" / "last.ckpt")["frozen"] == "trunk"
    learnt = [name for name, value in part.state_dict().items() if not torch.equal(value, before[name])]
    assert learnt == HEAD


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--model.freeze", "trunks"], "freeze must be one of 'trunk' or None, got 'trunks'; did you mean 'trunk'?"),
        (["--model.num_classes", "1"], "num_classes must be an integer of at least 2, got 1"),
        (["--model.freez", "trunk"], "unknown option --model.freez; did you mean --model.freeze?"),
        (["--data.train_size", "1.5"], "train_size must be a share between 0 and 1 or a number of samples, got 1.5"),
    ],
)
def test_a_command_line_that_cannot_be_used_is_answered_in_a_line(options, told, capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        digits_finetune.main(options)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {told}\n"
    assert not list(tmp_path.iterdir())
