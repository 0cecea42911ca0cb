import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import REPOSITORY, SHORT

from experiments import mnist_cnn
from experiments.__main__ import list_experiments
from experiments.runner import launch


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    (folder / "misspelt.yaml").write_text("model:\n  chanels: [8]\n")
    (folder / "resume.yaml").write_text("resume: last\n")
    (folder / "modle.yaml").write_text("modle:\n  optimizer: 3\n")
    (folder / "broken.yaml").write_text("model: [\n")
    return folder


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--trainer.max_epoch", "3"], ["--trainer.max_epoch;", "--trainer.max_epochs"]),
        (["--model.chanels", "[8]"], ["--model.chanels", "--model.channels"]),
        (["--traking=csv"], ["--traking", "--tracking"]),
        (["--tracking", "wanbd"], ["--tracking", "'wanbd'", "did you mean wandb"]),
        (["--model.optimizer", "torch.optim.SDG"], ["--model.optimizer", "torch.optim.SDG", "torch.optim.SGD"]),
        (["--model.optimizer", "AdmW"], ["--model.optimizer", "AdmW", "torch.optim.AdamW"]),
        (["--model.optimizer", "torch.nn.Linear"], ["--model.optimizer", "torch.nn.Linear", "torch.optim."]),
        (["--model.optimizer.lrr", "0.1"], ["--model.optimizer.lrr", "did you mean lr"]),
        (["--model.scheduler", "zoo.optim.OneCicle"], ["--model.scheduler", "zoo.optim.OneCycle"]),
        (["--model.norm", "bach"], ["'bach'", "did you mean 'batch'"]),
        (["--model.dropout", "1.5"], ["dropout", "1.5", "less than 1"]),
        (["--model.optimizer.lr", "-1"], ["--model.optimizer", "-1.0"]),
        (["--model.scheduler.warmup", "2"], ["warmup", "2"]),
        (["--data.batch_size", "0"], ["batch_size", "at least 1", "0"]),
        (["--data.batch_size", "many"], ["--data.batch_size", "int", "'many'"]),
        (["--data.val_size", "-5"], ["val_size", "-5"]),
        (["--data.dataset", "MNSIT"], ["--data.dataset", "'MNSIT'", "did you mean MNIST"]),
        (["--data.augment", "shft"], ["--data.augment", "'shft'", "did you mean shift"]),
        (
            ["--data.augment", "RandomAffine", "--data.augment.degrees", "-1"],
            ["error: degrees must be at least 0", "-1"],
        ),
        (["--data.augment", "RandomAffine", "--data.augment.degree", "1"], ["--data.augment.degree", "mean degrees"]),
        (["--data.augment", "RandomAfine"], ["--data.augment", "'RandomAfine'"]),
        (["--data.image_size", "4"], ["image_size", "from 8 to 256", "4"]),
        (["--trainer.precision", "bf17"], ["--trainer.precision", "bf16"]),
        (["--trainer.accelerator", "gpuu"], ["gpuu"]),
        (["--trainer.max_epochs", "few"], ["--trainer.max_epochs", "int", "'few'"]),
        (["--seed_everything", "x"], ["--seed_everything", "'x'"]),
        (["--seed_everything", "-1"], ["--seed_everything", "-1", "from 0 to"]),
        (["--seed_everything", "99999999999"], ["--seed_everything", "99999999999"]),
        (["--model.optimizer.lr", "abc"], ["--model.optimizer.lr", "float", "'abc'"]),
        (["--model.kernel_size", "4", "--model.padding", "null"], ["kernel_size", "odd", "4"]),
        (["--model.padding", "-1"], ["padding", "-1"]),
        (["--trainer.devices", "abc"], ["devices"]),
        (["--trainer.limit_test_batches", "0"], ["--trainer.limit_test_batches"]),
        (["--patience", "1", "--trainer.limit_val_batches", "0"], ["--patience", "--trainer.limit_val_batches"]),
        (["--config", "{configs}/resume.yaml"], ["resume", "--resume"]),
        (["--config", "{configs}/modle.yaml"], ["modle", "model"]),
        (["--patience", "0"], ["--patience", "at least 1"]),
        (["--average", "emma"], ["--average", "'emma'", "did you mean ema"]),
        (["--average", "ema", "--average_decay", "1"], ["--average_decay", "less than 1"]),
        (["--average", "ema", "--average_decay", "often"], ["--average_decay", "float", "'often'"]),
        (["--average_decay", "0.99"], ["--average_decay", "--average ema", "is none"]),
        (["--average=swa", "--average_decay=0.99"], ["--average_decay", "--average ema", "is swa"]),
        (["--config", "none.yaml"], ["--config", "none.yaml"]),
        (["--config", "{configs}/misspelt.yaml"], ["model.chanels", "model.channels"]),
        (["--config", "{configs}/broken.yaml"], ["config"]),
        (["--resume", "none.ckpt"], ["--resume", "none.ckpt"]),
        (["--resume", "last"], ["--resume", "runs/mnist_cnn"]),
        (["--resume", "http://127.0.0.1/x.ckpt"], ["--resume", "x.ckpt"]),
        (["surplus"], ["surplus"]),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_two(args, parts, configs, capsys):
    with pytest.raises(SystemExit) as stopped:
        mnist_cnn.main([arg.format(configs=configs) for arg in args])
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: ")
    for part in parts:
        assert part in err
    assert out == ""
    assert not Path("runs").exists() or not list(Path("runs").glob("*/*"))


@pytest.mark.parametrize(
    ("experiment", "args", "parts"),
    [
        ("robust_regression", ["--model.loss", "hubr"], ["loss", "'hubr'", "did you mean 'huber'"]),
        ("robust_regression", ["--model.huber_delta", "0"], ["huber_delta", "positive", "0"]),
        ("multiclass_blobs", ["--model.optimizer", "LBFGS"], ["--model.optimizer", "LBFGS", "parameter groups"]),
        ("xor", ["--model.optimizer", "SparseAdam"], ["--model.optimizer", "SparseAdam", "sparse gradients only"]),
        ("xor", ["--model.scheduler.start_factor", "-3"], ["start_factor", "from 0 to 1", "-3"]),
        (
            "robust_regression",
            ["--model.in_features", "3"],
            ["--model.in_features takes its value from --data.num_features"],
        ),
        ("robust_regression", ["--data.outlier_share", "1.0"], ["outlier_share", "less than 1", "1.0"]),
        ("linear_regression", ["--data.noise", "-1"], ["noise", "from 0", "-1.0"]),
        ("linear_regression", ["--data.num_samples", "0"], ["num_samples", "at least 1", "0"]),
        ("linear_regression", ["--data.noize", "1"], ["--data.noize", "did you mean --data.noise?"]),
        ("linear_regression", ["--model.init", "xavir"], ["init", "'xavir'", "did you mean 'xavier'"]),
        ("linear_regression_from_scratch", ["--model.lr", "0"], ["lr", "positive", "0"]),
        ("linear_regression_from_scratch", ["--model.optimizer.lr", "0.1"], ["unknown option --model.optimizer.lr"]),
        ("polynomial_regression", ["--model.degree", "0"], ["degree", "at least 1", "0"]),
        ("polynomial_regression", ["--data.low", "4"], ["low", "less than high", "4"]),
        ("polynomial_regression", ["--model.domain", "[3,-3]"], ["domain", "the lower one first"]),
        ("xor", ["--model.hidden", "[]"], ["hidden", "at least one layer"]),
        ("xor", ["--model.hidden", "[0]"], ["hidden", "at least 1", "0"]),
        ("xor", ["--model.init", "xavir"], ["init", "'xavir'", "did you mean 'xavier'"]),
        ("xor", ["--model.threshold", "1"], ["threshold", "less than 1"]),
        ("xor", ["--data.noise", "-1"], ["noise", "from 0", "-1.0"]),
        ("binary_moons", ["--model.activation", "rleu"], ["activation", "'rleu'", "did you mean 'relu'"]),
        ("binary_moons", ["--model.scheduler", "Platau"], ["--model.scheduler", "Platau", "zoo.optim.Plateau"]),
        ("binary_moons", ["--data.num_samples", "many"], ["--data.num_samples", "int", "'many'"]),
        ("multiclass_blobs", ["--model.norm", "grp"], ["norm", "'batch', 'layer' or None", "'grp'"]),
        ("multiclass_blobs", ["--model.dropout", "1.0"], ["dropout", "less than 1", "1.0"]),
        ("multiclass_blobs", ["--model.num_classes", "7"], ["model.num_classes", "data.num_classes"]),
        ("multiclass_blobs", ["--data.num_classes", "1"], ["num_classes", "at least 2", "1"]),
        ("multiclass_blobs", ["--model.gradient_clip_val", "0"], ["gradient_clip_val", "greater than 0"]),
        ("mnist_softmax", ["--model.hidden", "[5]"], ["unknown option --model.hidden"]),
        ("mnist_mlp", ["--model.label_smoothing", "1"], ["label_smoothing", "less than 1"]),
        ("mnist_lenet", ["--model.activation", "tahn"], ["activation", "'tahn'", "did you mean 'tanh'"]),
        ("mnist_best", ["--model.depths", "[1, 2]"], ["depths", "3 stages", "2"]),
        ("mnist_best", ["--model.kernel_size", "4"], ["kernel_size", "odd", "4"]),
        ("mnist_ensemble", ["--model.members", "[]"], ["at least one member"]),
        ("mnist_ensemble", ["--model.members", "[{}]"], ["'class'"]),
        ("mnist_ensemble", ["--model.members", "[3]"], ["members", "3"]),
        ("mnist_ensemble", ["--model.members", "[{class: VGG}]"], ["class", "'VGG'", "VGGClassifier"]),
        ("mnist_ensemble", ["--model.members", "[{class: VGGClassifier, kernels: 3}]"], ["VGGClassifier", "kernels"]),
        ("mnist_ensemble", ["--model.members", "[{class: VGGClassifier, weights: a}]"], ["weights", "ensemble's"]),
        ("mnist_ensemble", ["--model.voting", "sotf"], ["voting", "'sotf'", "did you mean 'soft'"]),
        ("mnist_lenet_mse", ["--model.loss", "mes"], ["loss", "'mes'", "did you mean 'mse'"]),
    ],
)
def test_every_experiment_answers_in_one_line(experiment, args, parts, capsys):
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"experiments.{experiment}").main([*args, "--tracking", "csv"])
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: ")
    for part in parts:
        assert part in err
    assert out == ""
    assert not Path("runs").exists() or not list(Path("runs").glob("*/*"))


@pytest.mark.parametrize(
    ("experiment", "args", "parts"),
    [
        (
            "xor",
            ["--model.scheduler", "Plateau", "--trainer.limit_val_batches", "0"],
            ["Plateau", "val/loss", "limit_val_batches=0"],
        ),
        ("linear_regression_from_scratch", ["--trainer.gradient_clip_val", "1"], ["clip", "manual"]),
        ("xor", ["--model.in_features", "3"], ["(batch, 3)", "(50, 2)", "in_features=3"]),
        ("linear_regression", ["--data.num_features", "3"], ["(batch, 1)", "in_features=1"]),
        ("linear_regression", ["--data.num_samples", "100"], ["70 samples", "fewer than one batch", "batch_size"]),
        ("linear_regression", ["--model.optimizer.lr", "1e30"], ["loss", "step"]),
        ("linear_regression", ["--model.out_features", "2"], ["targets must have the shape", "(4000, 2)"]),
        ("mnist_softmax", ["--data.dataset", "digits", "--data.image_size", "32"], ["784", "1024"]),
    ],
)
def test_what_only_shows_in_the_run_is_one_line_and_exit_code_one(experiment, args, parts, monkeypatch, capsys):
    main = importlib.import_module(f"experiments.{experiment}").main
    monkeypatch.setattr(sys, "argv", [experiment, *args, "--tracking", "csv", "--run_dir", "run"])
    with pytest.raises(SystemExit) as stopped:
        launch(main)
    assert stopped.value.code == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: ")
    for part in parts:
        assert part in err
    assert not Path("run/summary.json").exists()


def config_after(*args):
    mnist_cnn.main([*SHORT, "--tracking", "csv", "--run_dir", "run", *args])
    return yaml.safe_load(Path("run/config.yaml").read_text())


def test_the_rate_alone_keeps_the_default_optimizer():
    optimizer = config_after("--model.optimizer.lr", "0.003")["model"]["optimizer"]
    assert optimizer["class_path"] == "torch.optim.AdamW"
    assert optimizer["init_args"]["lr"] == 0.003
    assert optimizer["init_args"]["weight_decay"] == 1e-4


def test_another_optimizer_starts_from_its_own_defaults():
    """AdamW's decay would otherwise follow into SGD, which has none."""
    optimizer = config_after("--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.05")["model"][
        "optimizer"
    ]
    assert optimizer["class_path"] == "torch.optim.SGD"
    assert (optimizer["init_args"]["lr"], optimizer["init_args"]["weight_decay"]) == (0.05, 0)


def test_the_order_of_an_optimizer_and_its_arguments_does_not_matter():
    config = config_after("--model.optimizer.lr", "0.05", "--model.optimizer.momentum=0.9", "--model.optimizer", "SGD")
    optimizer = config["model"]["optimizer"]
    assert optimizer["class_path"] == "torch.optim.SGD"
    assert (optimizer["init_args"]["lr"], optimizer["init_args"]["momentum"]) == (0.05, 0.9)


def test_a_config_file_may_set_the_rate_alone():
    Path("rate.yaml").write_text("model:\n  optimizer:\n    init_args:\n      lr: 0.5\n")
    optimizer = config_after("--config", "rate.yaml")["model"]["optimizer"]
    assert (optimizer["class_path"], optimizer["init_args"]["lr"]) == ("torch.optim.AdamW", 0.5)


def test_a_schedule_can_be_taken_away_and_stays_away_when_run_again():
    assert config_after("--model.scheduler", "null")["model"]["scheduler"] is None
    mnist_cnn.main(["--config", "run/config.yaml", "--run_dir", "again"])
    assert yaml.safe_load(Path("again/config.yaml").read_text())["model"]["scheduler"] is None


def test_trainer_and_data_options_arrive(summary_of):
    config = config_after(
        "--trainer.precision", "32-true", "--trainer.gradient_clip_val", "0.5", "--data.val_size", "100"
    )
    assert config["trainer"]["gradient_clip_val"] == 0.5
    assert config["data"]["val_size"] == 100
    assert summary_of("run")["precision"] == "32-true"
    checkpoint = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["datamodule_hyper_parameters"]["val_size"] == 100


def test_help_names_the_options(capsys):
    with pytest.raises(SystemExit) as stopped:
        mnist_cnn.main(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    for option in (
        "--model.optimizer",
        "--data.batch_size",
        "--trainer.max_epochs",
        "--tracking",
        "--resume",
        "--run_dir",
    ):
        assert option in out


def test_listing_imports_nothing_heavy():
    code = (
        "import runpy, sys; runpy.run_module('experiments', run_name='__main__');"
        "assert not {'torch', 'lightning', 'wandb'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert any(line.startswith("mnist_cnn  ") for line in done.stdout.splitlines())


def test_every_experiment_has_a_line():
    experiments = list_experiments()
    assert experiments.keys() == {
        *("linear_regression", "linear_regression_from_scratch", "multiple_regression", "polynomial_regression"),
        *("robust_regression", "xor", "binary_moons", "multiclass_blobs"),
        *("mnist_softmax", "mnist_mlp", "mnist_regularized_mlp", "mnist_lenet", "mnist_lenet_mse", "mnist_cnn"),
        *("mnist_mlp_mse", "mnist_dropout_mlp", "mnist_lenet_distorted", "mnist_convnet_elastic"),
        *("mnist_rnn", "mnist_lstm", "sine_forecast", "digit_strings_ctc", "digits_finetune"),
        *("mnist_best", "mnist_ensemble"),
    }
    assert all(len(line) > 10 for line in experiments.values())


@pytest.mark.parametrize("name", list_experiments())
def test_an_experiment_is_named_after_its_file(name):
    module = importlib.import_module(f"experiments.{name}")
    experiment = module.EXPERIMENT
    assert experiment.name == name
    assert experiment.doc == module.__doc__
    for source, target in experiment.links.items():
        assert source.startswith("data.")
        assert target.startswith("model.")
