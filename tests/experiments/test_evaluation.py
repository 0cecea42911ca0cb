"""The commands evaluate and calibrate, on checkpoints of real runs."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import SHORT

from experiments.__main__ import list_experiments
from experiments.calibrate import calibrate_checkpoint
from experiments.checkpoints import DATA_MODULES, training_data
from experiments.evaluate import evaluate
from zoo import CNNClassifier
from zoo.calibration import NotCalibratableError
from zoo.checkpointing import CheckpointError, read_checkpoint, write_checkpoint

FEW = ["--trainer.max_epochs", "1", "--data.num_samples", "400", "--data.batch_size", "40"]
RUNS = {
    "mnist_cnn": SHORT,
    "mnist_lstm": SHORT,
    "mnist_lenet_mse": SHORT,  # a task that the experiment defines for itself
    "linear_regression": FEW,
    "binary_moons": FEW,
    "sine_forecast": [*FEW, "--data.window", "10"],
    "digit_strings_ctc": [
        *("--data.dataset", "digits", "--data.lines_per_epoch", "64", "--data.val_lines", "20"),
        *("--data.test_lines", "30", "--data.batch_size", "32", "--trainer.max_epochs", "1"),
    ],
}


@pytest.fixture
def checkpoint_of(run_once, summary_of):
    """The tested checkpoint of a short run of an experiment."""
    return lambda name: summary_of(run_once(name, *RUNS[name]).directory)["checkpoint"]


@pytest.fixture
def changed(checkpoint_of, tmp_path):
    """A copy, outside any run, of mnist_cnn's checkpoint with other values; ``None`` leaves one out."""

    def change(**values):
        contents = {**read_checkpoint(checkpoint_of("mnist_cnn")), **values}
        path = tmp_path / "changed.ckpt"
        write_checkpoint({key: value for key, value in contents.items() if value is not None}, path)
        return path

    return change


def data_arguments_of(checkpoint):
    return dict(read_checkpoint(checkpoint)["datamodule_hyper_parameters"])


@pytest.mark.parametrize("name", RUNS)
def test_the_figures_are_those_of_the_runs_own_test(name, run_once, checkpoint_of, tmp_path, capsys):
    expected = {key: value for key, value in run_once(name, *RUNS[name]).metrics.items() if key.startswith("test/")}
    checkpoint = checkpoint_of(name)
    found = evaluate(["--checkpoint", checkpoint])
    examined = set(expected) - set(found)
    assert {key: found[key] for key in set(expected) - examined} == found  # to the bit
    assert {key: expected[key] for key in found} == found
    assert not list(tmp_path.iterdir())  # neither a run directory nor anything else is made
    table = capsys.readouterr().out
    assert f"{float(found['test/loss']):.4f}" in table


def test_validation_is_that_of_the_run(run_once, checkpoint_of, summary_of, capsys):
    directory = run_once("mnist_cnn", *SHORT).directory
    metrics = evaluate(["--checkpoint", checkpoint_of("mnist_cnn"), "--split", "val", "--json"])
    assert metrics["val/accuracy"] == summary_of(directory)["val/accuracy"]
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["metrics"] == metrics
    assert (told["split"], told["model"], told["data"]["dataset"]) == ("val", "CNNClassifier", "digits")
    assert told["data"]["val"] == 180
    assert err == ""


def test_other_data_are_standardised_as_the_models_own(checkpoint_of, capsys):
    checkpoint = checkpoint_of("mnist_cnn")
    plain = evaluate(["--checkpoint", checkpoint])
    # Another split has other statistics, but the model's inputs keep their meaning: the test set is the same.
    assert evaluate(["--checkpoint", checkpoint, "--data.seed", "5", "--data.eval_batch_size", "1000"]) == plain
    assert evaluate(["--checkpoint", checkpoint, "--data", "MNISTDataModule", "--data.dataset", "digits"]) == plain
    capsys.readouterr()
    evaluate(["--checkpoint", checkpoint, "--data.seed", "5", "--split", "val"])
    assert "among those the model was trained on" in capsys.readouterr().err
    other = evaluate(["--checkpoint", checkpoint_of("linear_regression"), "--data.noise", "2.0"])
    assert other["test/mse"] > 3.0  # of which the noise alone is 4


def test_checkpoints_from_before_and_of_classes_named(changed, checkpoint_of):
    plain = evaluate(["--checkpoint", checkpoint_of("mnist_cnn"), "--trainer.precision", "32-true"])
    old = str(changed(task_class=None))
    assert evaluate(["--checkpoint", old, "--trainer.precision", "32-true"]) == plain
    foreign = str(changed(task_class="os.system"))
    with pytest.raises(CheckpointError, match=r"os\.system, which is none .* --model module\.Class"):
        evaluate(["--checkpoint", foreign])
    for name in ("CNNClassifier", "zoo.models.CNNClassifier"):
        assert evaluate(["--checkpoint", foreign, "--model", name, "--trainer.precision", "32-true"]) == plain


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        ([], ["--checkpoint"]),
        (["--checkpoint", "{checkpoint}", "surplus"], ["surplus"]),
        (["--checkpoint", "{checkpoint}", "--splt", "val"], ["--splt", "did you mean --split"]),
        (["--checkpoint", "{checkpoint}", "--split", "train"], ["--split", "'train'", "val, test"]),
        (["--checkpoint", "{checkpoint}", "--data.dataste", "digits"], ["--data.dataste", "--data.dataset"]),
        (["--checkpoint", "{checkpoint}", "--data.dataset", "MNSIT"], ["'MNSIT'", "did you mean MNIST"]),
        (["--checkpoint", "{checkpoint}", "--data", "MNISTDatModule"], ["--data", "did you mean MNISTDataModule"]),
        (["--checkpoint", "{checkpoint}", "--data", "os.path"], ["--data", "os.path", "LinearDataModule"]),
        (["--checkpoint", "{checkpoint}", "--data.eval_batch_size", "0"], ["eval_batch_size", "at least 1"]),
        (["--checkpoint", "{checkpoint}", "--model", "CNNClasifier"], ["--model", "did you mean CNNClassifier"]),
        (["--checkpoint", "{checkpoint}", "--model", "no_such.Thing"], ["--model", "no_such.Thing"]),
        (["--checkpoint", "{checkpoint}", "--model", "os.path.join"], ["--model", "is no task"]),
        (["--checkpoint", "{checkpoint}", "--trainer.precision", "bf17"], ["--trainer", "bf17"]),
        (["--checkpoint", "{checkpoint}", "--trainer.accelerator", "gpuu"], ["--trainer", "gpuu"]),
    ],
)
@pytest.mark.parametrize("command", [evaluate, calibrate_checkpoint])
def test_a_wrong_command_line_is_one_line_and_exit_code_two(command, args, parts, checkpoint_of, capsys):
    if command is calibrate_checkpoint and "--split" in args:
        args, parts = ["--checkpoint", "{checkpoint}", "--split", "val"], ["unknown option --split"]
    with pytest.raises(SystemExit) as stopped:
        command([arg.format(checkpoint=checkpoint_of("mnist_cnn")) for arg in args])
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1), err
    assert err.startswith("error: ")
    if command is evaluate or "--splt" not in args:
        assert all(part in err for part in parts), err


def test_what_a_checkpoint_says_of_its_data_is_not_believed(changed, checkpoint_of):
    honest = data_arguments_of(checkpoint_of("mnist_cnn"))
    state = read_checkpoint(checkpoint_of("mnist_cnn"))["MNISTDataModule"]

    def refused(words, error=CheckpointError, **values):
        with pytest.raises(error, match=words):
            evaluate(["--checkpoint", str(changed(**values))])

    refused("asks for data of", datamodule_hyper_parameters={**honest, "image_size": 10**9})
    refused("cannot be made: eval_batch_size", datamodule_hyper_parameters={**honest, "eval_batch_size": "x"})
    refused("cannot be made: .*'zzz'", datamodule_hyper_parameters={**honest, "zzz": 1})
    refused("cannot be made: dataset must be", MNISTDataModule={**state, "dataset": "../../etc"})
    refused("not positive", MNISTDataModule={**state, "std": torch.zeros(1, 1, 1)})
    # What only training needs is never looked at, let alone imported.
    evaluate(["--checkpoint", str(changed(datamodule_hyper_parameters={**honest, "augment": "os.system"}))])
    other = {**state, "checksums": {**state["checksums"], "test": 1}}
    with pytest.raises(Exception, match="the test split here is not that of the checkpoint"):
        evaluate(["--checkpoint", str(changed(MNISTDataModule=other))])
    for values in ({"MNISTDataModule": None}, {"MNISTDataModule": 3}, {"datamodule_hyper_parameters": [1]}):
        with pytest.raises(SystemExit):
            evaluate(["--checkpoint", str(changed(**values))])


def test_made_data_of_any_size_are_not_made_at_a_checkpoints_word(checkpoint_of, tmp_path):
    contents = read_checkpoint(checkpoint_of("linear_regression"))
    contents["datamodule_hyper_parameters"] = {**contents["datamodule_hyper_parameters"], "num_samples": 10**12}
    write_checkpoint(contents, tmp_path / "bomb.ckpt")
    with pytest.raises(CheckpointError, match=r"asks for data of 1,000,000,000,000 numbers"):
        evaluate(["--checkpoint", str(tmp_path / "bomb.ckpt")])
    evaluate(["--checkpoint", str(tmp_path / "bomb.ckpt"), "--data.num_samples", "200"])


def test_nothing_is_downloaded_unless_asked_for(changed, checkpoint_of, tmp_path):
    honest = data_arguments_of(checkpoint_of("mnist_cnn"))
    state = read_checkpoint(checkpoint_of("mnist_cnn"))["MNISTDataModule"]
    theirs = {**honest, "dataset": "KMNIST", "data_dir": str(tmp_path / "theirs"), "source": "download"}
    path = changed(datamodule_hyper_parameters=theirs, MNISTDataModule={**state, "dataset": "KMNIST"})
    with pytest.raises(Exception, match="is missing"):
        evaluate(["--checkpoint", str(path)])
    assert not (tmp_path / "theirs").exists()


def test_every_data_module_can_be_named_and_says_nothing_that_is_code():
    import datamodules

    made = {name for name in datamodules.__all__ if name.endswith("DataModule")}
    bases = {"InMemoryDataModule", "SyntheticDataModule", "TensorDataModule"}  # two are abstract, one takes tensors
    assert set(DATA_MODULES) == made - bases
    assert training_data({}) is None
    assert training_data({"MNISTDataModule": {"dataset": 3}}) is None


def test_the_commands_are_no_experiments():
    assert not {"predict", "evaluate", "calibrate", "evaluation", "checkpoints"} & set(list_experiments())


# ---------------------------------------------------------------------- calibrate


@pytest.fixture
def smoothed(checkpoint_of, tmp_path):
    """A copy of the checkpoint of a run with label smoothing, where new files may stand beside it."""
    shutil.copy(checkpoint_of("mnist_cnn"), tmp_path / "smooth.ckpt")
    os.utime(tmp_path / "smooth.ckpt", (10**9, 10**9))
    return tmp_path / "smooth.ckpt"


def test_a_calibrated_checkpoint_is_written_beside_and_does_what_is_said(smoothed, capsys):
    before = evaluate(["--checkpoint", str(smoothed)])
    contents = smoothed.read_bytes()
    capsys.readouterr()
    found = calibrate_checkpoint(["--checkpoint", str(smoothed), "--json"])
    told = json.loads(capsys.readouterr().out)
    target = smoothed.with_name("smooth-calibrated.ckpt")
    assert told["output"] == str(target)
    assert told["temperature"] == found.temperature != 1.0
    assert told["samples"] == 180
    assert told["after"]["nll"] < told["before"]["nll"]
    after = evaluate(["--checkpoint", str(target)])
    assert after["test/ece"] == pytest.approx(told["test"]["after"]["ece"], abs=1e-6)
    assert before["test/ece"] == pytest.approx(told["test"]["before"]["ece"], abs=1e-6)
    assert told["test"]["after"]["nll"] < told["test"]["before"]["nll"]
    assert {**after, "test/ece": 0} == {**before, "test/ece": 0}
    assert CNNClassifier.load_from_checkpoint(target).temperature == found.temperature
    assert smoothed.read_bytes() == contents
    assert target.stat().st_mtime == 10**9  # no newer run than the one that it is of
    assert read_checkpoint(target).keys() == read_checkpoint(smoothed).keys() | {"temperature"}


def test_nothing_is_overwritten_unless_asked_for(smoothed, tmp_path, capsys):
    target = tmp_path / "there.ckpt"
    target.write_text("precious")
    for output in (str(target), str(smoothed), str(tmp_path)):
        with pytest.raises(SystemExit) as stopped:
            calibrate_checkpoint(["--checkpoint", str(smoothed), "--output", output])
        assert stopped.value.code == 2
    assert target.read_text() == "precious"
    calibrate_checkpoint(["--checkpoint", str(smoothed), "--output", str(target), "--overwrite"])
    out = capsys.readouterr().out
    assert f"written   {target}" in out
    assert "test      ece 0." in out
    # Calibrated again it has the same temperature: it is fitted to the logits as they are.
    first = CNNClassifier.load_from_checkpoint(target).temperature
    again = calibrate_checkpoint(["--checkpoint", str(target), "--output", str(tmp_path / "again.ckpt")])
    assert again.temperature == first


def test_what_cannot_be_calibrated_is_said(smoothed, checkpoint_of, changed):
    with pytest.raises(NotCalibratableError, match="LinearRegressor gives no probabilities"):
        calibrate_checkpoint(["--checkpoint", checkpoint_of("linear_regression"), "--output", "x.ckpt"])
    with pytest.raises(NotCalibratableError, match="may hold samples that it was trained on"):
        calibrate_checkpoint(["--checkpoint", str(smoothed), "--data.seed", "5"])
    with pytest.raises(CheckpointError, match="URL"):
        calibrate_checkpoint(["--checkpoint", str(smoothed), "--output", "http://127.0.0.1/x.ckpt"])
    with pytest.raises(CheckpointError, match="temperature must be a positive number"):
        CNNClassifier.load_from_checkpoint(changed(temperature=-1.0))
    assert not Path("x.ckpt").exists()


def test_a_binary_checkpoint(checkpoint_of, tmp_path):
    checkpoint = checkpoint_of("binary_moons")
    before = evaluate(["--checkpoint", checkpoint])
    found = calibrate_checkpoint(["--checkpoint", checkpoint, "--output", "moons.ckpt"])
    assert found.after.nll <= found.before.nll
    assert evaluate(["--checkpoint", "moons.ckpt", "--trainer.precision", "32-true"]).keys() == before.keys()
