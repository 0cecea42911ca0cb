import importlib

import pytest
import torch
from conftest import HAS_MNIST, REPOSITORY

from datamodules import MNISTDataModule
from experiments import mnist_lenet_mse, mnist_softmax
from zoo import (
    DropoutMLPClassifier,
    LeNet5Classifier,
    LeNet5Regressor,
    MLPClassifier,
    OneHotMLPRegressor,
    RegularizedMLPClassifier,
    SoftmaxClassifier,
    StridedCNNClassifier,
)
from zoo.tasks.one_hot import OneHotAccuracy

MODELS = {
    "mnist_softmax": SoftmaxClassifier,
    "mnist_mlp": MLPClassifier,
    "mnist_mlp_mse": OneHotMLPRegressor,
    "mnist_dropout_mlp": DropoutMLPClassifier,
    "mnist_regularized_mlp": RegularizedMLPClassifier,
    "mnist_lenet": LeNet5Classifier,
    "mnist_lenet_mse": LeNet5Regressor,
    "mnist_lenet_distorted": LeNet5Classifier,
    "mnist_convnet_elastic": StridedCNNClassifier,
}
SIZES = {"mnist_lenet": 32, "mnist_lenet_mse": 32, "mnist_lenet_distorted": 32, "mnist_convnet_elastic": 29}
SHORT = [
    *("--data.dataset", "digits", "--data.batch_size", "64", "--tracking", "csv"),
    *("--trainer.max_epochs", "2", "--trainer.limit_train_batches", "15", "--trainer.precision", "32-true"),
]


@pytest.fixture(scope="module")
def run_of(run_once):
    """Runs an experiment on the bundled digits for 30 steps, once."""
    return lambda name: run_once(name, *SHORT)


def recomputed_accuracy(model, image_size):
    """The share of the digits' test images whose largest output is their class."""
    data = MNISTDataModule(dataset="digits", image_size=image_size, seed=0)
    data.setup()
    with torch.no_grad():
        right = [model.eval()(images).argmax(dim=1) == labels for images, labels in data.test_dataloader()]
    return float(torch.cat(right).double().mean())


@pytest.mark.parametrize("name", MODELS)
def test_on_the_bundled_digits_it_learns_and_claims_nothing(name, run_of, summary_of):
    run = run_of(name)
    summary = summary_of(run.directory)
    assert summary["steps"] == 30
    assert run.metrics["test/accuracy"] > 0.5  # of ten classes
    assert (summary["dataset"], summary["experiment"]) == ("digits", name)
    assert (summary["limit"], summary["distance_to_limit"], summary["claims"]) == (None, None, [])
    lines = run.out.splitlines()
    assert "claim     none: the data are digits, not MNIST" in lines
    assert not [line for line in lines if line.startswith(("reached", "SHORT OF"))]
    assert "dataset: digits" in run.out
    # What was tested comes back from its checkpoint without arguments and gives the same figure.
    model = MODELS[name].load_from_checkpoint(summary["checkpoint"])
    right = recomputed_accuracy(model, SIZES.get(name, 28))
    assert run.metrics["test/accuracy"] == pytest.approx(right, abs=1e-6)


@pytest.mark.parametrize("name", ["mnist_lenet_mse", "mnist_mlp_mse"])
def test_the_regression_of_one_hot_targets_reports_both_its_errors(run_of, name):
    """Beside the accuracy of the largest output the mean squared error over all ten of them."""
    run = run_of(name)
    model = MODELS[name].load_from_checkpoint(run.directory / "checkpoints" / "best.ckpt").eval()
    data = MNISTDataModule(dataset="digits", image_size=SIZES.get(name, 28), one_hot=True, seed=0)
    data.setup()
    assert data.splits.test.targets.shape[1] == 10
    assert torch.equal(data.splits.test.targets.sum(dim=1), torch.ones(len(data.splits.test)))
    with torch.no_grad():
        errors = [(model(images) - targets).square() for images, targets in data.test_dataloader()]
    assert run.metrics["test/mse"] == pytest.approx(float(torch.cat(errors).mean()), rel=1e-5)
    assert run.metrics["test/loss"] == pytest.approx(run.metrics["test/mse"], rel=1e-5)
    assert run.metrics["test/mse"] < 0.09  # what the shares of the classes alone give: 0.1 * 0.9


def test_the_accuracy_of_one_hot_targets_by_hand():
    metric = OneHotAccuracy(3)
    targets = torch.eye(3)[[0, 1, 2, 2]]
    metric.update(torch.tensor([[0.9, 0.1, 0.0], [5.0, 4.0, 0.0], [-3.0, -2.0, -1.0], [0.0, 0.0, 0.1]]), targets)
    assert float(metric.compute()) == 0.75
    metric.update(torch.tensor([[0.0, 1.0, 0.0]]), torch.eye(3)[[0]])
    assert float(metric.compute()) == pytest.approx(0.6)


def test_the_networks_are_those_of_the_published_table():
    """Their parameters, counted by hand: what a published figure is beside."""
    sizes = {name: sum(map(torch.numel, MODELS[name](**arguments_of(name)).parameters())) for name in MODELS}
    assert sizes["mnist_softmax"] == 785 * 10
    assert sizes["mnist_mlp"] == 785 * 800 + 801 * 10
    assert sizes["mnist_mlp_mse"] == 785 * 300 + 301 * 10
    assert sizes["mnist_dropout_mlp"] == 785 * 1024 + 2 * 1025 * 1024 + 1025 * 10
    assert sizes["mnist_lenet"] == sizes["mnist_lenet_distorted"] == 61_706


def arguments_of(name):
    """The model's arguments that an experiment sets, without those of its training."""
    defaults = importlib.import_module(f"experiments.{name}").EXPERIMENT.defaults
    arguments = {option.removeprefix("model."): value for option, value in defaults.items() if "model." in option}
    return {name: value for name, value in arguments.items() if name not in ("optimizer", "scheduler")}


def test_only_the_experiments_with_distortions_distort():
    augment = {
        name: importlib.import_module(f"experiments.{name}").EXPERIMENT.defaults.get("data.augment") for name in MODELS
    }
    distorted = {name for name, value in augment.items() if value is not None}
    assert distorted == {"mnist_lenet_distorted", "mnist_convnet_elastic"}
    assert augment["mnist_convnet_elastic"].startswith("elastic")


def test_labels_where_one_hot_targets_belong_are_an_error():
    with pytest.raises(ValueError, match="targets must be floating-point numbers, got int64"):
        mnist_lenet_mse.main([*SHORT, "--data.one_hot", "false"])


@pytest.mark.skipif(not HAS_MNIST, reason="the MNIST archives are not in data/MNIST/raw")
def test_on_real_mnist_the_claim_is_evaluated(summary_of, capsys):
    data = ["--data.data_dir", str(REPOSITORY / "data"), "--data.source", "local"]
    options = ["--tracking", "csv", "--run_dir", "run", "--trainer.max_epochs", "1", "--trainer.precision", "32-true"]
    metrics = mnist_softmax.main([*data, *options])
    assert metrics["test/accuracy"] >= 0.9
    summary = summary_of("run")
    assert summary["dataset"] == "MNIST"
    assert summary["samples"] == {"train": 55_000, "val": 5_000, "test": 10_000}
    [claim] = summary["claims"]
    assert claim["limit"] == summary["limit"] == 0.88
    assert summary["distance_to_limit"] == pytest.approx(0.88 - metrics["test/accuracy"])
    assert summary["distance_to_limit"] < 0.0  # a published figure that was passed
    assert claim["reached"] is (metrics["test/accuracy"] >= claim["bar"] - 1e-7)
    [line] = [line for line in capsys.readouterr().out.splitlines() if " claimed at least " in line]
    assert line.startswith("reached   " if claim["reached"] else "SHORT OF  ")
    assert " above 0.88, published for one linear layer" in line
