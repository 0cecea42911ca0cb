"""The figures of a run: where they go, what they cost, and what happens when they cannot be drawn."""

import contextlib
import dataclasses
import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SHORT
from PIL import Image

from datamodules import MNISTDataModule
from experiments import binary_moons, mnist_cnn, mnist_lenet_mse
from experiments.runner import run
from zoo import CNNClassifier
from zoo.figures.confusion import confusion_matrix

ALL = ("--figures", "all")
OF_CLASSES = {"learning_curves", "confusion_matrix", "most_confused", "reliability", "roc_pr"}
MOONS = [
    *("--data.num_samples", "600", "--data.batch_size", "50", "--trainer.max_epochs", "1", "--tracking", "csv"),
    *("--trainer.enable_progress_bar", "false"),
]


def names(directory):
    return {file.stem for file in (Path(directory) / "figures").glob("*")}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A run on the bundled digits, tracked offline: its directory, summary, and what it printed."""
    folder, out, err = tmp_path_factory.mktemp("tracked"), io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "offline")
        without = [] if importlib.util.find_spec("wandb") else ["--tracking", "csv"]  # its absence would be a warning
        mnist_cnn.main([*SHORT, *ALL, *without, "--run_dir", "run", "--trainer.max_epochs", "1"])
    summary = json.loads((folder / "run" / "summary.json").read_text())
    return folder / "run", summary, SimpleNamespace(stdout=out.getvalue(), stderr=err.getvalue())


def test_a_run_leaves_every_figure_and_names_it(tracked):
    directory, summary, done = tracked
    assert names(directory) >= OF_CLASSES | {"worst_images", "samples"}
    assert {Path(file).stem for file in summary["figures"]} == names(directory)
    [line] = [line for line in done.stdout.splitlines() if line.startswith("figures")]
    for file in summary["figures"]:
        assert file in line
        with Image.open(directory / file) as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20
    seconds = summary["seconds"]
    assert 0 < seconds["figures"] < seconds["fit"] + seconds["test"] <= seconds["total"]
    assert done.stderr == ""


def test_the_tracker_has_the_same_pictures_and_a_table_of_what_was_misclassified(tracked, read_wandb):
    directory, summary, _ = tracked
    [run] = read_wandb(directory)
    [media] = directory.glob("wandb/offline-run-*/files/media")
    for name in names(directory):
        shown = run["summary"][f"figures/{name}"]
        assert shown["_type"] == "images/separated"
        [file] = shown["filenames"]
        assert (media.parent / file).read_bytes() == (directory / "figures" / f"{name}.png").read_bytes()
    [file] = media.glob("table/misclassified*.json")
    table = json.loads(file.read_text())
    assert table["columns"] == ["image", "truth", "prediction", "confidence"]
    wrong = round((1 - summary["test/accuracy"]) * 360)
    assert len(table["data"]) == min(wrong, 32)
    assert all(truth != prediction for _, truth, prediction, _ in table["data"])
    confidences = [row[3] for row in table["data"]]
    assert confidences == sorted(confidences, reverse=True)


def test_pictures_are_no_rows_of_their_own_in_the_tracker(tracked):
    pytest.importorskip("wandb")
    directory, _, _ = tracked
    [file] = directory.glob("wandb/offline-run-*/*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [line for line in map(json.loads, lines) if line.get("type") == "history"]
    assert len(rows) == len((directory / "metrics.csv").read_text().splitlines()) - 1


def test_the_figures_are_of_the_checkpoint_that_is_tested(monkeypatch, summary_of):
    counts = []

    def keep(found, *rest):
        counts.append(found)
        return confusion_matrix(found, *rest)

    monkeypatch.setattr("zoo.callbacks.classification.confusion_matrix", keep)
    first = dataclasses.replace(mnist_cnn.EXPERIMENT, mode="min")  # takes the worse of two epochs for the best
    run(first, [*SHORT, *ALL, "--tracking", "tensorboard", "--run_dir", "run", "--trainer.precision", "32-true"])
    summary = summary_of("run")
    model = CNNClassifier.load_from_checkpoint(summary["checkpoint"]).eval()
    data = MNISTDataModule(dataset="digits", seed=summary["seed"])
    data.setup()
    by_hand = np.zeros((10, 10), int)
    with torch.no_grad():
        for images, labels in data.test_dataloader():
            np.add.at(by_hand, (labels.numpy(), model(images).argmax(1).numpy()), 1)
    assert counts[0].tolist() == by_hand.tolist()
    last = CNNClassifier.load_from_checkpoint("run/checkpoints/last.ckpt")
    assert not torch.equal(next(last.parameters()), next(model.parameters()))
    # TensorBoard has the same.
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator("run/tensorboard", size_guidance={"images": 0}).Reload()
    assert {tag.removeprefix("figures/") for tag in events.Tags()["images"]} == names("run")
    [shown] = events.Images("figures/confusion_matrix")
    assert shown.step == summary["steps"]


def test_a_binary_task_has_its_figures_and_a_regression_of_classes_its_own():
    binary_moons.main([*MOONS, *ALL, "--run_dir", "moons"])
    assert names("moons") >= OF_CLASSES
    mnist_lenet_mse.main([*SHORT, *ALL, "--tracking", "csv", "--run_dir", "mse", "--trainer.max_epochs", "1"])
    assert names("mse") >= {"learning_curves", "confusion_matrix", "most_confused", "worst_images"}
    assert "reliability" not in names("mse")  # its outputs are no probabilities


def test_a_run_without_figures_draws_and_says_nothing(monkeypatch, summary_of, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # whoever imports it now fails
    binary_moons.main([*MOONS, "--run_dir", "run", "--figures", "none"])
    assert not Path("run/figures").exists()
    assert summary_of("run")["figures"] == []
    assert summary_of("run")["seconds"]["figures"] == 0
    assert "figures" not in "".join(capsys.readouterr())


def test_a_run_without_matplotlib_has_its_result_and_a_line_for_each_figure(monkeypatch, summary_of, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    binary_moons.main([*MOONS, *ALL, "--run_dir", "run"])
    said = capsys.readouterr().err.splitlines()
    assert len(said) >= 4
    assert all("import of matplotlib" in line and line.startswith("warning: ") for line in said)
    assert summary_of("run")["figures"] == []


def test_a_trial_run_draws_nothing():
    binary_moons.main([*MOONS, *ALL, "--run_dir", "run", "--trainer.fast_dev_run", "true"])
    assert not Path("run/figures").exists()


def test_a_resumed_run_draws_all_of_its_history(monkeypatch):
    drawn = {}

    def keep(curves, title):
        drawn[title] = {name: (list(curve.steps), list(curve.values)) for name, curve in curves.items()}
        raise ValueError("kept")

    monkeypatch.setattr("zoo.callbacks.learning_curves.learning_curves", keep)
    shared = [*MOONS, *ALL, "--trainer.log_every_n_steps", "2", "--model.scheduler", "Constant"]
    histories = []
    for options in (
        ["--run_dir", "whole", "--trainer.max_epochs", "3"],
        ["--run_dir", "part", "--trainer.max_epochs", "1"],
        ["--resume", "part", "--trainer.max_epochs", "3"],
    ):
        binary_moons.main([*shared, *options] if "--resume" not in options else options)
        histories.append(drawn["binary_moons: learning curves"])
    whole, part, resumed = histories
    assert resumed == whole != part
    assert Path("part/metrics.csv").read_text() == Path("whole/metrics.csv").read_text()


def test_figures_that_cannot_be_kept_cost_a_line_each_and_the_result_stands(monkeypatch, capsys, summary_of):
    monkeypatch.setattr("zoo.figures.publish.write_whole", _full_disk)
    metrics = binary_moons.main([*MOONS, *ALL, "--run_dir", "run"])
    said = [line for line in capsys.readouterr().err.splitlines() if "failed" in line]
    assert len(said) >= 4
    assert all(line.startswith("warning: ") and "No space left on device" in line for line in said)
    assert summary_of("run")["test/accuracy"] == metrics["test/accuracy"]
    assert summary_of("run")["figures"] == []


def _full_disk(*args):
    raise OSError(28, "No space left on device")


def test_another_value_is_refused_in_a_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        binary_moons.main([*MOONS, "--figures", "some"])
    assert stopped.value.code == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "--figures" in line
