"""Runs that become pretrained weights, and what the commands then make of the weights' names."""

import json
import shutil

import pytest
import torch
from conftest import SHORT

from experiments import publish as publishing
from experiments.calibrate import calibrate_checkpoint
from experiments.checkpoints import load_trained
from experiments.digit_reader import load_reader
from experiments.evaluate import evaluate
from experiments.export import export
from experiments.publish import prepare, publish, write
from zoo import load_pretrained, save_pretrained
from zoo.checkpointing import CheckpointError, read_checkpoint, write_checkpoint
from zoo.pretrained import PretrainedError, find_shipped, read_manifest
from zoo.pretrained.shipped import open_shipped

RUNS = {
    "mnist_cnn": SHORT,
    # Half-trained, it decides some images by less than bfloat16 tells apart, in which others are tested.
    "mnist_lenet_mse": [*SHORT, "--trainer.precision", "32-true"],
    "mnist_lstm": SHORT,
    "digit_strings_ctc": [
        *("--data.dataset", "digits", "--data.lines_per_epoch", "64", "--data.val_lines", "20"),
        *("--data.test_lines", "30", "--data.batch_size", "32", "--trainer.max_epochs", "1"),
    ],
}


@pytest.fixture
def run_of(run_once):
    return lambda name: run_once(name, *RUNS[name]).directory


@pytest.fixture(scope="module")
def published(run_once, tmp_path_factory):
    """A folder with the weights of all of them."""
    folder = tmp_path_factory.mktemp("published")
    publish([*(str(run_once(name, *options).directory) for name, options in RUNS.items()), "--output", str(folder)])
    return folder


@pytest.fixture
def copy_of(run_of, tmp_path):
    """A copy of the run of mnist_cnn, with other contents of its checkpoint, or its summary."""

    def copy(summary=(), **checkpoint):
        folder = shutil.copytree(run_of("mnist_cnn"), tmp_path / "copy")
        told = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps({**told, **dict(summary)}))
        best = folder / "checkpoints" / "best.ckpt"
        write_checkpoint({**read_checkpoint(best), **checkpoint}, best)
        return folder

    return copy


@pytest.mark.parametrize("name", RUNS)
def test_an_entry_is_what_was_measured_of_the_weights_that_are_shipped(name, published, run_of, summary_of):
    entry, summary = find_shipped(name, published), summary_of(run_of(name))
    metric = "test/cer" if name == "digit_strings_ctc" else "test/accuracy"
    assert entry.metrics[metric] == pytest.approx(summary[metric], abs=5e-3)  # a sample or two
    assert entry.versions == summary["versions"]
    assert (entry.seed, entry.data) == (0, summary["dataset"])
    told = f"python -m experiments.{name} --seed_everything 0 "
    assert entry.command.startswith(told)
    options = entry.command.removeprefix(told).split()
    given = {option: value.removesuffix(".0") for option, value in zip(options[::2], options[1::2], strict=True)}
    options_of_run = dict(zip(RUNS[name][::2], RUNS[name][1::2], strict=True))
    options_of_run.pop("--trainer.precision", None)  # is the machine's affair
    assert given == options_of_run
    found = open_shipped(name, published)
    task, before = found.make(found.task_class()), load_trained(summary["checkpoint"]).task
    for key, value in before.state_dict().items():
        assert torch.allclose(task.state_dict()[key], value, rtol=2**-10, atol=1e-6), key
    is_classifier = name in ("mnist_cnn", "mnist_lstm")
    assert (entry.temperature is not None) == is_classifier


def test_the_same_runs_give_the_same_bytes_and_other_entries_stay(published, run_of, tmp_path, capsys):
    shutil.copytree(published, tmp_path / "again")
    before = {path.name: path.read_bytes() for path in published.iterdir()}
    publish([str(run_of("mnist_cnn")), "--output", str(tmp_path / "again")])
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == before
    line, last = capsys.readouterr().out.splitlines()
    assert line.split()[:2] == ["mnist_cnn", "float16"]
    assert last.startswith(f"written   {tmp_path / 'again' / 'manifest.json'}; all weights together ")
    publish([str(run_of("mnist_cnn")), "--output", str(tmp_path / "small"), "--storage", "int8"])
    sizes = [(folder / "mnist_cnn.safetensors").stat().st_size for folder in (published, tmp_path / "small")]
    assert 0.45 < sizes[1] / sizes[0] < 0.6
    assert list(read_manifest(tmp_path / "small" / "manifest.json")) == ["mnist_cnn"]


def test_of_a_large_file_matrices_take_8_bits(run_of, monkeypatch):
    monkeypatch.setattr(publishing, "_LARGE", 100_000)
    assert prepare(run_of("mnist_cnn"), "data").storage == "int8"
    assert prepare(run_of("mnist_cnn"), "data", "float32").storage == "float32"


@pytest.mark.parametrize(
    ("summary", "told"),
    [
        ({"experiment": "../x"}, "is of no experiment of this version"),
        ({"checkpoint": None}, "kept no checkpoint"),
        ({"seed": None}, "does not say under which seed"),
        ({"versions": {"torch": None}}, "or with which versions, it ran"),
        ({"test/accuracy": "0.99"}, "has test figures that are no numbers"),
        ({"checkpoint": "/etc/passwd"}, "checkpoints/passwd, which the run was tested with, is not there"),
        ({"test/accuracy": 0.999}, "have a test/accuracy of .* and the run had 0.9990"),
    ],
)
def test_a_run_that_says_what_cannot_be_is_refused(summary, told, copy_of, tmp_path):
    with pytest.raises(PretrainedError, match=told):
        publish([str(copy_of(summary)), "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_weights_on_other_data_than_were_asked_for_are_refused(copy_of, run_of):
    arguments = read_checkpoint(run_of("mnist_cnn") / "checkpoints" / "best.ckpt")["datamodule_hyper_parameters"]
    folder = copy_of(datamodule_hyper_parameters={**arguments, "dataset": "MNIST"})
    with pytest.raises(PretrainedError, match="ran on digits, which took the place of MNIST"):
        prepare(folder, "data")


def test_what_is_no_run_is_refused(tmp_path, capsys):
    with pytest.raises(PretrainedError, match=r"summary\.json cannot be read: No such file"):
        publish([str(tmp_path)])
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(PretrainedError, match=r"summary\.json cannot be used: it is not JSON"):
        publish([str(tmp_path)])
    for args, told in (
        ([], "the following arguments are required: RUN_DIR"),
        ([".", "--storag", "x"], "unknown option"),
    ):
        with pytest.raises(SystemExit) as stopped:
            publish(args)
        assert stopped.value.code == 2
        assert told in capsys.readouterr().err


def test_two_runs_of_one_experiment_and_too_large_weights_are_refused(run_of, copy_of, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        publish([str(run_of("mnist_cnn")), str(copy_of()), "--output", str(tmp_path / "out")])
    assert "is a second run of mnist_cnn" in capsys.readouterr().err
    monkeypatch.setattr(publishing, "LARGEST_TOTAL", 100_000)
    with pytest.raises(
        PretrainedError, match="100,000 are as many as may be shipped; most of them are those of mnist_c"
    ):
        publish([str(run_of("mnist_cnn")), "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_none_of_the_zoos_is_refused(run_of, monkeypatch):
    monkeypatch.setattr(publishing, "LEAVES", {})
    with pytest.raises(PretrainedError, match="a CNNClassifier is none of the zoo's models, and cannot be shipped"):
        prepare(run_of("mnist_cnn"), "data")


def test_a_file_that_the_manifest_lists_must_be_there(published, run_of, tmp_path):
    folder = shutil.copytree(published, tmp_path / "folder")
    (folder / "mnist_lstm.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"mnist_lstm\.safetensors, which the manifest lists, cannot be read"):
        write({"mnist_cnn": prepare(run_of("mnist_cnn"), "data")}, folder)


# ---------------------------------------------------------------------- the commands, by name and by directory


@pytest.mark.parametrize("name", RUNS)
def test_names_give_the_figures_of_the_manifest(name, published, monkeypatch, capsys):
    monkeypatch.setattr("experiments.checkpoints.load_trained.__defaults__", (None, published))
    found = evaluate(["--checkpoint", name])
    # But for the order in which threads add up what falls into a bin of the calibration error.
    assert found == pytest.approx(dict(find_shipped(name, published).metrics), rel=1e-6, abs=0.0)
    assert f"of {name}; 32-true on " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["mnist_cnn", "mnist_lstm"])
def test_pictures_are_read_by_name_and_by_directory(name, published, tmp_path, run_of, summary_of):
    by_name = load_reader(name, weights=published)
    from_run = load_reader(summary_of(run_of(name))["checkpoint"])
    assert (by_name.image_size, by_name.as_rows) == (from_run.image_size, from_run.as_rows)
    assert (by_name.mean, by_name.std, by_name.dataset) == (from_run.mean, from_run.std, "digits")
    pictures = torch.randint(0, 256, (5, 28, 28), dtype=torch.uint8)
    temperature = by_name.task.temperature
    assert temperature == find_shipped(name, published).temperature
    by_name.task.temperature = 1.0
    assert torch.allclose(by_name.probabilities(pictures), from_run.probabilities(pictures), atol=5e-3)
    trained = load_trained(name, weights=published)
    trained.task.temperature = temperature
    folder = save_pretrained(trained.task, tmp_path / "model", metrics={"test/accuracy": 0.5})
    with pytest.raises(CheckpointError, match="does not say how the pictures"):
        load_reader(str(folder))


def test_a_directory_is_calibrated_into_another(published, tmp_path, capsys):
    from datamodules import MNISTDataModule

    data = MNISTDataModule(dataset="digits", seed=0)
    data.setup()
    task = load_trained("mnist_cnn", weights=published).task
    task.temperature = 1.0
    folder = save_pretrained(task, tmp_path / "v1.0", datamodule=data, metrics={"test/accuracy": 0.9, "test/ece": 0.2})
    found = calibrate_checkpoint(["--checkpoint", str(folder)])
    again = load_pretrained(tmp_path / "v1.0-calibrated")
    assert again.temperature == found.temperature == pytest.approx(find_shipped("mnist_cnn", published).temperature)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in task.state_dict().items())
    config = json.loads((tmp_path / "v1.0-calibrated" / "config.json").read_text())
    assert config["metrics"] == {"test/accuracy": 0.9}  # how sure it is has changed
    assert evaluate(["--checkpoint", str(tmp_path / "v1.0-calibrated")])["test/ece"] < 0.2
    with pytest.raises(SystemExit):
        calibrate_checkpoint(["--checkpoint", str(folder)])
    assert "v1.0-calibrated is there already: --force" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        calibrate_checkpoint(["--checkpoint", str(folder), "--output", str(tmp_path / "file"), "--force"])
    assert "is a file, give a directory" in capsys.readouterr().err


def test_a_name_is_exported_into_this_folder(tmp_path, capsys):
    done = export(["--checkpoint", "mnist_softmax", "--format", "torch"])
    assert done.path.name == "mnist_softmax.pt2"
    assert (tmp_path / "mnist_softmax.pt2").is_file()
    assert "SoftmaxClassifier, 7,850 parameters" in capsys.readouterr().out


def test_a_checkpoint_from_before_a_model_moved_into_the_zoo_is_still_known(run_of, tmp_path):
    best = run_of("mnist_lenet_mse") / "checkpoints" / "best.ckpt"
    for named in ("experiments.mnist_lenet_mse.LeNet5Regressor", "__main__.LeNet5Regressor"):
        write_checkpoint({**read_checkpoint(best), "task_class": named}, tmp_path / "old.ckpt")
        assert type(load_trained(str(tmp_path / "old.ckpt")).task).__name__ == "LeNet5Regressor"
