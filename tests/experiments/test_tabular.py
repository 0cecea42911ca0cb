import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from datamodules import (
    GaussianBlobsDataModule,
    LinearDataModule,
    MoonsDataModule,
    PolynomialDataModule,
    XORDataModule,
)
from experiments import robust_regression, xor
from zoo import (
    BinaryMLPClassifier,
    LinearRegressor,
    LinearRegressorFromScratch,
    PerceptronClassifier,
    PolynomialRegressor,
    RegularizedMLPClassifier,
)

# Model, data, and the claims in their order.
LEAST_SQUARES = ["test/mse", "weight_error", "bias_error"]
EXPERIMENTS = {
    "linear_regression": (LinearRegressor, LinearDataModule, LEAST_SQUARES),
    "linear_regression_from_scratch": (LinearRegressorFromScratch, LinearDataModule, LEAST_SQUARES),
    "multiple_regression": (LinearRegressor, LinearDataModule, LEAST_SQUARES),
    "polynomial_regression": (PolynomialRegressor, PolynomialDataModule, ["test/mse", "prediction_error"]),
    "robust_regression": (LinearRegressor, LinearDataModule, ["test/mse"]),
    "xor": (BinaryMLPClassifier, XORDataModule, ["test/accuracy", "perceptron/accuracy"]),
    "binary_moons": (BinaryMLPClassifier, MoonsDataModule, ["test/accuracy"]),
    "multiclass_blobs": (RegularizedMLPClassifier, GaussianBlobsDataModule, ["test/accuracy"]),
}
LINEAR = ["linear_regression", "linear_regression_from_scratch", "multiple_regression"]


@dataclass
class Run:
    name: str
    directory: Path
    metrics: dict
    out: str

    @property
    def summary(self):
        text = (self.directory / "summary.json").read_text()
        return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    @property
    def rows(self):
        return list(csv.DictReader((self.directory / "metrics.csv").read_text().splitlines()))

    def model(self):
        """The tested model, from its checkpoint and nothing else."""
        return EXPERIMENTS[self.name][0].load_from_checkpoint(self.summary["checkpoint"]).eval()

    def data(self, **changed):
        """The data once more, from the options alone."""
        options = yaml.safe_load((self.directory / "config.yaml").read_text())["data"]
        data = EXPERIMENTS[self.name][1](**{**options, "seed": self.summary["seed"], **changed})
        data.setup()
        return data


@pytest.fixture(scope="module")
def run_of(run_once):
    return lambda name, *options: Run(**vars(run_once(name, *options)))


def arrays(split):
    return split.features.double().numpy(), split.targets.double().numpy()


def least_squares(features, targets):
    """Weights and bias that solve the normal equations."""
    design = np.column_stack([features, np.ones(len(features))])
    solution = np.linalg.solve(design.T @ design, design.T @ targets)
    return solution[:-1], solution[-1]


def accuracy(model, data):
    predicted = model.predict_step(data.splits.test.features).classes
    return float((predicted == data.splits.test.targets).double().mean())


# ---------------------------------------------------------------------- the default runs


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_default_run_reaches_all_it_claims(name, run_of):
    run = run_of(name)
    summary = run.summary
    assert [claim["metric"] for claim in summary["claims"]] == EXPERIMENTS[name][2]
    assert [claim["reached"] for claim in summary["claims"]] == [True] * len(EXPERIMENTS[name][2])
    assert "SHORT OF" not in run.out
    assert [line.split()[1] for line in run.out.splitlines() if line.startswith("reached ")] == EXPERIMENTS[name][2]
    # The report is complete, and says the same in all its places.
    assert (summary["experiment"], summary["seed"]) == (name, 0)
    assert summary["dataset"] == EXPERIMENTS[name][1].dataset_name
    tested = {metric: value for metric, value in summary.items() if metric.startswith("test/")}
    assert run.metrics == {**tested, **summary["examined"]}
    for claim in summary["claims"]:
        assert claim["value"] == run.metrics[claim["metric"]]
    first = summary["claims"][0]
    assert (summary["limit"], summary["distance_to_limit"]) == (first["limit"], first["distance_to_limit"])
    sign = 1.0 if first["mode"] == "max" else -1.0
    assert summary["distance_to_limit"] == pytest.approx(sign * (summary["limit"] - first["value"]), abs=1e-12)
    assert summary["steps"] > 0
    assert summary["epochs"] > 0
    assert summary["seconds"].keys() == {"total", "fit", "test", "figures"}
    data = run.data()
    assert summary["samples"] == {part: len(getattr(data.splits, part)) for part in ("train", "val", "test")}
    assert summary["parameters"] == sum(parameter.numel() for parameter in run.model().parameters())
    # metrics.csv has the figures of the test and of what was examined.
    logged = {column: value for row in run.rows for column, value in row.items() if value}
    assert {column: float(logged[column]) for column in run.metrics} == run.metrics


@pytest.mark.parametrize("name", LINEAR)
def test_linear_regression_is_least_squares(name, run_of):
    run = run_of(name)
    data, network = run.data(), run.model().network.linear
    features, targets = arrays(data.splits.train)
    weight, bias = least_squares(features, targets[:, 0])
    weight_error = np.abs(network.weight.detach().double().numpy()[0] - weight).max()
    bias_error = abs(network.bias.item() - bias)
    assert weight_error <= 1e-3
    assert bias_error <= 1e-3
    assert run.metrics["weight_error"] == pytest.approx(weight_error, abs=1e-9)
    assert run.metrics["bias_error"] == pytest.approx(bias_error, abs=1e-9)
    # Least squares in turn is close to what the data were made with.
    assert np.abs(weight - data.weight).max() < 0.02
    test_features, test_targets = arrays(data.splits.test)
    residuals = test_features @ network.weight.detach().double().numpy().T + network.bias.item() - test_targets
    assert run.metrics["test/mse"] == pytest.approx(np.square(residuals).mean(), rel=1e-5)
    assert run.metrics["test/mse"] <= 1.05 * 0.5**2
    assert run.summary["limit"] == 0.5**2


def test_the_regression_from_scratch_has_no_optimizer(run_of):
    checkpoint = torch.load(run_of("linear_regression_from_scratch").summary["checkpoint"], weights_only=True)
    assert checkpoint["optimizer_states"] == []


def test_polynomial_regression_is_least_squares(run_of):
    run = run_of("polynomial_regression")
    data, model = run.data(), run.model()
    (features, targets), (test_features, test_targets) = arrays(data.splits.train), arrays(data.splits.test)
    powers = np.arange(data.degree + 1)
    coefficients = np.linalg.lstsq(features**powers, targets[:, 0], rcond=None)[0]  # of plain powers
    expected = test_features**powers @ coefficients
    with torch.no_grad():
        predicted = model(data.splits.test.features)[:, 0].double().numpy()
    error = np.abs(predicted - expected).max() / targets.std()
    assert error <= 1e-2
    assert run.metrics["prediction_error"] == pytest.approx(error, rel=1e-3)
    assert run.metrics["test/mse"] == pytest.approx(np.square(predicted - test_targets[:, 0]).mean(), rel=1e-5)
    assert run.metrics["test/mse"] <= 1.05 * 0.5**2
    assert run.summary["limit"] == 0.5**2


def test_robust_regression_shows_what_the_squared_error_makes_of_it(run_of):
    run = run_of("robust_regression")
    data = run.data()
    clean = run.data(outlier_share=0.0)
    assert torch.equal(data.splits.test.targets, clean.splits.test.targets)
    assert 0.09 < float((data.splits.train.targets != clean.splits.train.targets).double().mean()) < 0.11
    test_features, test_targets = arrays(clean.splits.test)
    network = run.model().network.linear
    residuals = test_features @ network.weight.detach().double().numpy().T + network.bias.item() - test_targets
    assert run.metrics["test/mse"] == pytest.approx(np.square(residuals).mean(), rel=1e-5)
    assert run.metrics["test/mse"] <= 1.1 * 0.5**2
    # The squared error's minimum is known in closed form: a bias that gives in to every outlier.
    features, targets = arrays(data.splits.train)
    weight, bias = least_squares(features, targets[:, 0])
    rival = test_features @ weight + bias - test_targets[:, 0]
    assert run.metrics["squared_error/mse"] == pytest.approx(np.square(rival).mean(), rel=0.02)
    assert run.metrics["squared_error/mae"] == pytest.approx(np.abs(rival).mean(), rel=0.02)
    assert run.metrics["squared_error/mse"] > 10 * run.metrics["test/mse"]
    assert f"squared_error/mse {run.metrics['squared_error/mse']:.4g}" in run.out


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_a_perceptron_cannot_learn_xor_and_a_hidden_layer_can(seed, run_of):
    run = run_of("xor", *([] if seed == "0" else ["--seed_everything", seed]))
    assert run.metrics["test/accuracy"] == accuracy(run.model(), run.data()) == 1.0
    assert 0.25 <= run.metrics["perceptron/accuracy"] <= 0.75
    assert [claim["reached"] for claim in run.summary["claims"]] == [True, True]
    assert [claim["limit"] for claim in run.summary["claims"]] == [1.0, 0.75]


def test_the_moons_are_told_apart(run_of):
    run = run_of("binary_moons")
    right = accuracy(run.model(), run.data())
    assert right >= 0.995
    assert run.metrics["test/accuracy"] == pytest.approx(right, abs=1e-6)
    assert 0.999 < run.summary["limit"] < 1.0
    assert run.summary["claims"][0]["bar"] == 0.995


def test_the_blobs_are_told_apart_almost_as_well_as_by_the_true_densities(run_of):
    run = run_of("multiclass_blobs")
    data = run.data()
    right = accuracy(run.model(), data)
    assert run.metrics["test/accuracy"] == pytest.approx(right, abs=1e-6)
    # Equal classes of equal variance: the density is greatest where the mean is nearest.
    features, targets = arrays(data.splits.test)
    nearest = np.square(features[:, None] - data.means).sum(axis=2).argmin(axis=1)
    best = float((nearest == targets).mean())
    assert run.summary["limit"] == pytest.approx(best, abs=0.01)  # 10,000 draws against a million
    assert right >= run.summary["limit"] - 0.01
    assert right >= best - 0.01
    assert run.summary["claims"][0]["bar"] == pytest.approx(run.summary["limit"] - 0.01)


# ---------------------------------------------------------------------- other runs


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_run_that_falls_short_says_so(name, run_of):
    """One epoch, of two steps where an epoch has more."""
    run = run_of(name, "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2")
    summary = run.summary
    missed = [claim["metric"] for claim in summary["claims"] if not claim["reached"]]
    assert EXPERIMENTS[name][2][0] in missed
    lines = [line for line in run.out.splitlines() if line.startswith("SHORT OF  ")]
    assert [line.split()[2] for line in lines] == missed
    assert f", claimed at {'most' if summary['claims'][0]['mode'] == 'min' else 'least'} " in lines[0]
    assert summary["limit"] == run_of(name).summary["limit"]
    assert summary["distance_to_limit"] > 0.05  # on the wrong side, whichever that is
    worse = run.metrics[EXPERIMENTS[name][2][0]] - run_of(name).metrics[EXPERIMENTS[name][2][0]]
    assert worse > 0 if summary["claims"][0]["mode"] == "min" else worse < 0


@pytest.mark.parametrize("name", ["multiple_regression", "robust_regression", "multiclass_blobs"])
def test_the_number_of_features_reaches_the_model(name, run_of):
    short = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
    classes = ["--data.num_classes", "7"] if name == "multiclass_blobs" else []
    run = run_of(name, *short, "--data.num_features", "3", *classes)
    model = run.model()
    assert model.hparams["in_features"] == 3
    weights = [parameter for parameter in model.network.parameters() if parameter.ndim == 2]
    assert weights[0].shape[1] == 3
    assert weights[-1].shape[0] == (7 if classes else 1)
    assert run.data().splits.test.features.shape[1] == 3
    # One option is enough, so the other is not written down.
    config = yaml.safe_load((run.directory / "config.yaml").read_text())
    assert config["data"]["num_features"] == 3
    assert "in_features" not in config["model"]


@pytest.mark.parametrize("name", [*LINEAR, "polynomial_regression"])
def test_least_squares_is_that_of_the_features_as_the_model_sees_them(name, run_of):
    run = run_of(name, "--data.standardize", "true")
    errors = ["prediction_error"] if name == "polynomial_regression" else ["weight_error", "bias_error"]
    bar = 1e-2 if name == "polynomial_regression" else 1e-3
    assert all(run.metrics[error] <= bar for error in errors)


@pytest.mark.parametrize(
    "options", [["--trainer.max_steps", "5"], ["--patience", "1"], ["--trainer.accumulate_grad_batches", "2"]]
)
def test_the_rival_trains_for_as_long_as_the_run(options, monkeypatch, summary_of):
    rivals = []

    def rival(**arguments):
        rivals.append(PerceptronClassifier(**arguments))
        return rivals[-1]

    monkeypatch.setattr(xor, "PerceptronClassifier", rival)
    # Too slow to get better, so that patience ends it.
    small = ["--data.num_samples", "1000", "--trainer.max_epochs", "6", "--model.optimizer.lr", "1e-9"]
    xor.main(["--tracking", "csv", "--run_dir", "run", *small, *options])
    steps = summary_of("run")["steps"]
    assert 0 < steps < 6 * (700 // 50)
    assert rivals[0].trainer.global_step == steps
    assert rivals[0].trainer.accumulate_grad_batches == (2 if "accumulate" in options[0] else 1)


def test_the_rival_leaves_nothing_behind(run_of):
    run = run_of("robust_regression")
    files = {str(path.relative_to(run.directory)) for path in run.directory.rglob("*")}
    checkpoints = {"checkpoints", "checkpoints/last.ckpt", "checkpoints/previous.ckpt"}
    assert files == {"config.yaml", "metrics.csv", "summary.json", *checkpoints}
    assert [line.split()[0] for line in run.out.splitlines()].count("data") == 1


def test_what_is_examined_is_tracked(read_wandb, summary_of):
    metrics = robust_regression.main(["--run_dir", "run", "--data.num_samples", "9000", "--trainer.max_epochs", "1"])
    [tracked] = read_wandb("run")
    for name in ("squared_error/mse", "squared_error/mae", "test/mse"):
        assert tracked["summary"][name] == pytest.approx(metrics[name], rel=1e-6)
    assert summary_of("run")["examined"]["squared_error/mse"] == metrics["squared_error/mse"]


@pytest.mark.parametrize("option", [["--trainer.limit_test_batches", "2"], ["--trainer.fast_dev_run", "true"]])
def test_a_part_of_the_test_split_proves_nothing(option, capsys):
    xor.main(["--tracking", "csv", "--run_dir", "part", "--data.eval_batch_size", "100", *option])
    summary = json.loads(Path("part/summary.json").read_text())
    assert (summary["limit"], summary["claims"]) == (None, [])
    assert "claim     none: only a part of the test split was tested" in capsys.readouterr().out


def test_a_run_goes_on_without_the_weights_that_it_began_with():
    xor.main(["--tracking", "csv", "--run_dir", "first", "--trainer.max_epochs", "1"])
    begun = ["--tracking", "csv", "--run_dir", "second", "--trainer.max_epochs", "1"]
    xor.main([*begun, "--model.weights", "first/checkpoints/last.ckpt"])
    Path("first/checkpoints/last.ckpt").unlink()
    xor.main(["--resume", "second", "--trainer.max_epochs", "2"])
    assert json.loads(Path("second/summary.json").read_text())["epochs"] == 2
