"""``python -m experiments.export``: what is compared, what is written, and what is refused."""

import json
import sys
from pathlib import Path

import pytest
import torch
from conftest import SHORT

from experiments.__main__ import list_experiments
from experiments.checkpoints import load_trained
from experiments.export import export
from zoo import CNNClassifier, LinearRegressor
from zoo.checkpointing import CheckpointError, read_checkpoint, write_checkpoint

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra export is not installed")
onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
pytest.importorskip("onnxscript", reason="the extra export is not installed")

FEW = [
    *("--trainer.accelerator", "cpu", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"),
    *("--trainer.enable_progress_bar", "false"),
]


@pytest.fixture
def cnn(run_once):
    """A checkpoint of a small network, trained for a moment on the bundled digits."""
    run = run_once("mnist_cnn", *SHORT, "--model.channels", "[4, 8]", "--model.hidden", "8", *FEW)
    return run.directory / "checkpoints" / "best.ckpt"


@pytest.fixture
def forecaster(run_once):
    size = ["--data.num_samples", "60", "--data.window", "12", "--data.batch_size", "10", "--model.hidden", "4"]
    return run_once("sine_forecast", *size, *FEW).directory / "checkpoints" / "last.ckpt"


@pytest.fixture
def changed(tmp_path):
    """A copy of a checkpoint in which something is changed."""

    def change(path, do):
        checkpoint = read_checkpoint(path)
        do(checkpoint)
        write_checkpoint(checkpoint, tmp_path / "changed.ckpt")
        return tmp_path / "changed.ckpt"

    return change


def options(checkpoint, output, *more, kind="onnx"):
    return ["--checkpoint", str(checkpoint), "--format", kind, "--output", str(output), *more]


def session_of(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_export_is_no_experiment():
    assert "export" not in list_experiments()


def test_raw_pixels_are_classified_by_what_the_file_says(cnn, capsys):
    done = export(options(cnn, "model.onnx"))
    out, err = capsys.readouterr()
    assert err == ""
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert list(lines) == ["model", "checked", "parity", "signature", "written"]
    assert lines["checked"] == "256 test samples of digits, in batches of 1, 2, 7 and 246"
    assert lines["signature"] == "inputs float32 (batch, 1, 28, 28) -> logits float32 (batch, 10)"
    assert lines["written"].startswith(f"model.onnx: {Path('model.onnx').stat().st_size / 1024:.1f} KiB, opset 18; ")
    assert done.parity.samples == 256
    assert 0.0 < done.parity.max_abs_difference < 1e-5 <= done.parity.tolerance

    from datamodules.mnist import bundled_digits

    session = session_of("model.onnx")
    about = session.get_modelmeta().custom_metadata_map
    scale = json.loads(about["standardization"])
    assert scale["raw"] == "pixels from 0 to 255"
    saved = read_checkpoint(cnn)["MNISTDataModule"]
    assert (scale["mean"], scale["std"]) == (saved["mean"].item(), saved["std"].item())
    images = bundled_digits()[1].features[:50].numpy()
    [logits] = session.run(None, {"inputs": ((images - scale["mean"]) / scale["std"]).astype("float32")})
    standardized = (torch.from_numpy(images).float() - saved["mean"]) / saved["std"]
    task = CNNClassifier.load_from_checkpoint(cnn).eval()
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), task(standardized), rtol=1e-4, atol=1e-4)


def test_a_file_goes_beside_the_checkpoint_and_stays_until_it_is_to_go(forecaster, capsys):
    arguments = ["--checkpoint", str(forecaster), "--format", "torch"]
    done = export(arguments)
    assert done.path == forecaster.with_suffix(".pt2")
    assert capsys.readouterr().out.splitlines()[1] == (
        "checked   12 test samples of sines, in batches of 1, 2 and 7, steps 12 and 6"
    )
    before = done.path.read_bytes()
    with pytest.raises(SystemExit) as caught:
        export(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        f"error: --output: {done.path} is there already; --force puts the new one in its place\n"
    )
    assert done.path.read_bytes() == before
    assert export([*arguments, "--force", "--lengths"]).inputs[1].name == "lengths"
    module = torch.export.load(done.path).module()
    windows, lengths = torch.randn(3, 20, 1), torch.tensor([20, 1, 7])
    with torch.no_grad():
        expected = load_trained(str(forecaster)).task(windows, lengths)
        torch.testing.assert_close(module(windows, lengths), expected, rtol=1e-5, atol=1e-6)
    assert forecaster.is_file()


# ---------------------------------------------------------------------- what it is held against


def was_mnist(checkpoint):
    checkpoint["MNISTDataModule"]["dataset"] = "MNIST"
    checkpoint["datamodule_hyper_parameters"]["dataset"] = "MNIST"


def forget_data(checkpoint):
    del checkpoint["MNISTDataModule"], checkpoint["datamodule_hyper_parameters"]


def huge(checkpoint):
    checkpoint["datamodule_hyper_parameters"]["num_samples"] = 10**9


def of_other_shape(checkpoint):
    checkpoint["MNISTDataModule"].update(mean=torch.zeros(7, 3), std=torch.ones(7, 3))


def flat(checkpoint):
    checkpoint["MNISTDataModule"]["std"] = torch.zeros(1, 1, 1)


def wrong(checkpoint):
    checkpoint["datamodule_hyper_parameters"]["window"] = "../.."


@pytest.mark.parametrize(
    ("fixture", "change", "words", "note"),
    [
        ("cnn", was_mnist, "256 test samples of digits", "its own test data, of MNIST, are not here: data/MNIST/raw/"),
        ("cnn", forget_data, "256 test samples of digits", "the checkpoint does not say what its data were"),
        ("forecaster", huge, "256 random inputs", "its own test data, of sines, are not here: the checkpoint asks for"),
        ("forecaster", wrong, "256 random inputs", "its own test data, of sines, are not here: window must be"),
    ],
)
def test_other_inputs_take_the_place_of_those_that_are_not_here(request, changed, capsys, fixture, change, words, note):
    checkpoint = changed(request.getfixturevalue(fixture), change)
    done = export(options(checkpoint, "model.pt2", kind="torch"))
    assert done.data == words
    assert f"\nnote      {note}" in capsys.readouterr().out


@pytest.mark.parametrize("change", [of_other_shape, flat])
def test_a_scale_that_cannot_be_is_not_written_down(changed, cnn, change):
    export(options(changed(cnn, change), "model.onnx"))
    about = session_of("model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(about["standardization"]) is None


def test_a_model_without_data_is_held_against_random_inputs(tmp_path, changed, cnn):
    task = LinearRegressor(in_features=4)

    def replace(checkpoint):
        forget_data(checkpoint)
        checkpoint.update(
            state_dict=task.state_dict(), hyper_parameters=dict(task.hparams), task_class="zoo.models.LinearRegressor"
        )

    done = export(options(changed(cnn, replace), "model.pt2", kind="torch"))
    assert (done.data, done.inputs[0].shape) == ("256 random inputs", ("batch", 4))


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("fixture", "given", "message"),
    [
        ("cnn", ["--format", "tflite"], "argument --format: invalid choice: 'tflite' (choose from "),
        ("cnn", ["--formt", "onnx"], "unknown option --formt; did you mean --format?"),
        ("cnn", ["--output", "."], "--output: . is a directory: give the name of a file in it"),
        ("cnn", ["--output", "https://example.org/model"], "--output: https://example.org/model is a URL"),
        ("cnn", ["--output", "{checkpoint}", "--force"], "--output: that is the checkpoint itself"),
        ("cnn", ["--output", "x" * 300], f"--output: {'x' * 200!r} cannot be written: File name too long"),
        ("cnn", ["--output", "a\0b"], "--output: 'a\\x00b' cannot be written: embedded null byte"),
        ("cnn", ["--checkpoint", ""], "--checkpoint: '' is no file"),
        ("cnn", ["--lengths"], "--lengths: CNNClassifier reads no sequences"),
        ("cnn", ["--model", "CNNClasifier"], "--model: the zoo has no 'CNNClasifier'; did you mean CNNClassifier?"),
        ("forecaster", ["--probabilities"], "--probabilities: LSTMForecaster predicts values, and has none"),
    ],
)
def test_a_command_line_that_cannot_be_used_is_answered_in_one_line(request, capsys, fixture, given, message):
    checkpoint = request.getfixturevalue(fixture)
    given = [argument.format(checkpoint=checkpoint) for argument in given]
    before = checkpoint.read_bytes()
    with pytest.raises(SystemExit) as caught:
        export([*options(checkpoint, "model.onnx"), *given])
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert "parity" not in out
    assert checkpoint.read_bytes() == before
    assert not list(Path().iterdir())


def test_packages_that_are_missing_are_named_before_anything_is_read(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SystemExit) as caught:
        export(options("nowhere.ckpt", "model.onnx"))
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "error: --format: the format onnx needs packages that are not installed (onnxruntime): "
        'pip install -e ".[export]"\n'
    )


def test_a_checkpoint_that_is_none_is_named(tmp_path, cnn, changed):
    def foreign(checkpoint):
        checkpoint["task_class"] = "somebody.elses.Model"

    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(cnn.read_bytes()[:-100])
    for path, message in (
        (tmp_path / "nowhere.ckpt", "there is no checkpoint file"),
        (tmp_path, "holds no config.json: there is the checkpoint .*ckpt"),
        (damaged, "is damaged"),
        (changed(cnn, foreign), "holds a somebody.elses.Model, which is none of the zoo's ready models"),
    ):
        with pytest.raises(CheckpointError, match=message):
            export(options(path, tmp_path / "model.onnx"))
    assert not (tmp_path / "model.onnx").exists()


def test_a_disk_that_is_full_leaves_no_file(cnn, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it would be cut short, too, and stay
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"model\.pt2 could not be written: File too large"):
            export(options(cnn, "model.pt2", kind="torch"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
