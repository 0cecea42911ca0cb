"""What a bad value does to a run on the command line: one line, exit code 1, the last good checkpoint as it was."""

import sys
from pathlib import Path

import pytest

from datamodules import BatchLoader
from experiments import linear_regression, mnist_mlp
from experiments.runner import launch
from zoo.checkpointing import read_checkpoint
from zoo.values import is_finite

# Fourteen batches an epoch, without the samples for validation and test.
LINEAR = ["--tracking", "none", "--data.num_samples", "400", "--data.batch_size", "20", "--trainer.max_epochs", "3"]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs an experiment as from a shell: the exit code, and what it wrote to stderr."""

    def launched(experiment, *options):
        monkeypatch.setattr(sys, "argv", ["experiment", "--run_dir", "run", *options])
        with pytest.raises(SystemExit) as stopped:
            launch(experiment.main)
        return stopped.value.code, capsys.readouterr().err

    return launched


@pytest.fixture
def spoil(monkeypatch):
    """Puts NaN into one training batch of a run."""

    def from_now_on(epoch, batch, field):
        make_batch = BatchLoader.make_batch
        made = {}

        def spoiled(loader, chosen, number, seed):
            parts = make_batch(loader, chosen, number, seed)
            made[number] = made.get(number, -1) + loader.shuffle
            if loader.shuffle and (number, made[number]) == (epoch, batch):
                parts[field][5] = float("nan")
            return parts

        monkeypatch.setattr(BatchLoader, "make_batch", spoiled)

    return from_now_on


@pytest.mark.parametrize(("field", "name"), [(0, "features"), (1, "targets")])
def test_a_batch_with_nan_stops_the_run_and_keeps_the_last_checkpoint(run, spoil, field, name):
    spoil(1, 6, field)
    code, told = run(linear_regression, *LINEAR)
    assert code == 1
    lines = [line for line in told.splitlines() if line.startswith("error")]
    assert len(lines) == 1
    assert f"the {name} hold nan in sample 5 of the batch" in lines[0]
    assert "(in training at step 20, batch 6 of epoch 1)" in lines[0]
    assert lines[0].endswith("the last good checkpoint is run/checkpoints/last.ckpt")
    saved = read_checkpoint("run/checkpoints/last.ckpt")
    assert saved["global_step"] == 14
    assert all(is_finite(value) for value in saved["state_dict"].values())


def test_a_rate_that_explodes_after_a_good_checkpoint_keeps_it(run):
    options = ["--model.scheduler", "null", "--trainer.log_every_n_steps", "5"]
    linear_regression.main([*LINEAR, *options, "--run_dir", "run", "--trainer.max_epochs", "1"])
    good = Path("run/checkpoints/last.ckpt").read_bytes()
    code, told = run(linear_regression, "--resume", "run", "--model.optimizer.lr", "1e20", "--trainer.max_epochs", "3")
    assert code == 1
    assert "loss became" in told
    assert "the last good checkpoint is" in told
    assert Path("run/checkpoints/last.ckpt").read_bytes() == good


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trainer.limit_train_batches", "0"], "not a single training step was taken: the training loader gave no"),
        (["--trainer.max_epochs", "0"], "not a single training step was taken: raise --trainer.max_epochs"),
        (["--data.val_size", "0"], "val_size must be a share between 0 and 1"),
    ],
)
def test_a_run_of_nothing_is_one_line(run, options, message):
    code, told = run(linear_regression, *LINEAR, *options)
    assert code in (1, 2)
    assert [message in line for line in told.splitlines() if line.startswith("error")] == [True]
    assert not Path("run").exists()


def test_a_last_batch_of_one_under_batch_norm_is_one_line(run):
    # 1,257 digits, ten times each: 12,570 samples.
    options = ["--data.dataset", "digits", "--data.drop_last", "false", "--data.batch_size", "12569"]
    norm = ["--model.norm", "batch", "--model.hidden", "[8]", "--trainer.max_epochs", "1", "--tracking", "none"]
    code, told = run(mnist_mlp, *options, *norm)
    assert code == 1
    assert "the last batch of every epoch holds a single sample" in told
    assert "drop_last=True, or take another batch_size" in told
