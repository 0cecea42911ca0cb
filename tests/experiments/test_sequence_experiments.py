import csv
import importlib
import itertools
import json

import numpy as np
import pytest
import torch
from conftest import HAS_MNIST, REPOSITORY

from datamodules import DigitStringsDataModule, MNISTDataModule, SineDataModule
from experiments import digit_strings_ctc, mnist_rnn, sine_forecast
from zoo import CRNNTranscriber, LSTMClassifier, LSTMForecaster, RNNClassifier, TargetError

COMMON = ["--tracking", "csv", "--trainer.precision", "32-true"]
DIGITS = [*COMMON, "--data.dataset", "digits"]
ROWS = [*DIGITS, "--data.batch_size", "64", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "60"]
LINES = [
    *(*DIGITS, "--data.lines_per_epoch", "1280", "--data.val_lines", "40", "--data.test_lines", "60"),
    *("--data.batch_size", "16", "--trainer.max_epochs", "6", "--model.channels", "[8,16]", "--model.hidden", "32"),
    *("--data.min_digits", "1", "--data.max_digits", "3"),
]
SINES = [
    *("--tracking", "csv", "--data.num_samples", "6000", "--data.window", "30", "--model.hidden", "16"),
    *("--data.batch_size", "100", "--trainer.max_epochs", "3", "--data.noise", "0.25"),
]
OPTIONS = {"mnist_rnn": ROWS, "mnist_lstm": ROWS, "digit_strings_ctc": LINES, "sine_forecast": SINES}


@pytest.fixture(scope="module")
def run_of(run_once):
    """Runs an experiment for a few steps, each command line once."""

    def run(name, *options):
        done = run_once(name, *OPTIONS[name], *options)
        done.summary = json.loads((done.directory / "summary.json").read_text())
        return done

    return run


@pytest.mark.parametrize(("name", "leaf"), [("mnist_rnn", RNNClassifier), ("mnist_lstm", LSTMClassifier)])
def test_a_classifier_of_rows_learns_and_claims_nothing_of_the_bundled_digits(name, leaf, run_of):
    run = run_of(name)
    assert run.metrics["test/accuracy"] > 0.25  # of ten classes, after sixty steps
    assert (run.summary["dataset"], run.summary["claims"], run.summary["limit"]) == ("digits", [], None)
    assert "samples of 28 rows of 28 pixels, 10 classes" in run.out
    assert "claim     none: the data are digits, not MNIST" in run.out
    model = leaf.load_from_checkpoint(run.summary["checkpoint"]).eval()
    assert run.summary["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    data = MNISTDataModule(dataset="digits", seed=0)
    data.setup()
    with torch.no_grad():
        right = [model(images[:, 0]).argmax(dim=1) == labels for images, labels in data.test_dataloader()]
    assert run.metrics["test/accuracy"] == pytest.approx(float(torch.cat(right).double().mean()), abs=1e-6)


def test_rows_of_another_size_are_linked_to_the_network():
    metrics = mnist_rnn.main([*ROWS, "--data.image_size", "16", "--trainer.limit_train_batches", "3"])
    assert 0.0 <= metrics["test/accuracy"] < 1.0


def edits(one, other):
    """The least number of insertions, deletions and substitutions (Wagner and Fischer 1974)."""
    row = list(range(len(other) + 1))
    for i, mine in enumerate(one, 1):
        corner, row[0] = row[0], i
        for j, theirs in enumerate(other, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (mine != theirs))
    return row[-1]


def test_lines_are_read_by_both_decoders_and_the_figures_are_those_of_the_tested_model(run_of):
    run = run_of("digit_strings_ctc")
    assert (run.summary["dataset"], run.summary["claims"]) == ("digits lines", [])
    assert run.summary["samples"] == {"train": 1280, "val": 40, "test": 60}
    assert "claim     none: the data are digits lines, not MNIST lines" in run.out
    assert "digits lines: 1,280 train, 40 val, 60 test; samples of 1 to 3 digits" in run.out
    assert run.metrics.keys() == {
        *("test/loss", "test/cer", "test/sequence_accuracy", "beam/cer", "beam/sequence_accuracy"),
    }
    assert run.summary["examined"] == {key: run.metrics[key] for key in ("beam/cer", "beam/sequence_accuracy")}

    model = CRNNTranscriber.load_from_checkpoint(run.summary["checkpoint"]).eval()
    assert model.decoder == "greedy"
    data = DigitStringsDataModule(dataset="digits", test_lines=60, min_digits=1, max_digits=3, seed=0)
    data.setup()
    [((images, widths), (labels, lengths))] = data.test_dataloader()
    texts = ["".join(str(int(label) - 1) for label in row[:n]) for row, n in zip(labels, lengths, strict=True)]
    with torch.no_grad():
        logits = model.network(images, widths)
    best = [row[: int(width) // 2 // 2].argmax(dim=1).tolist() for row, width in zip(logits, widths, strict=True)]
    read = ["".join(str(label - 1) for label, _ in itertools.groupby(path) if label) for path in best]
    wrong = sum(map(edits, read, texts))
    assert run.metrics["test/cer"] == pytest.approx(wrong / sum(map(len, texts)), abs=1e-6)
    assert run.metrics["test/sequence_accuracy"] == pytest.approx(
        np.mean([a == b for a, b in zip(read, texts, strict=True)])
    )
    assert run.metrics["test/cer"] < 0.3  # a blank page is 1.0
    model.decoder = "beam"
    beams = model.predict_step(((images, widths),)).texts
    assert run.metrics["beam/cer"] == pytest.approx(sum(map(edits, beams, texts)) / sum(map(len, texts)), abs=1e-6)


def test_an_alphabet_other_than_the_datas_is_refused():
    with pytest.raises(TargetError, match="written in the alphabet '0123456789', the model reads 'abc'"):
        digit_strings_ctc.main([*LINES, "--model.alphabet", "abc"])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--data.min_digits", "4", "min_digits and max_digits must be a range"),
        ("--data.max_gap", "-4", "min_gap and max_gap must be whole numbers, a range"),
        ("--model.decoder", "bean", "did you mean 'beam'"),
        ("--model.beam_width", "0", "beam_width must be an integer of at least 1"),
        ("--model.cell", "ltsm", "did you mean 'lstm'"),
        ("--model.alphabet", "aa", "must name each character once"),
        ("--data.lines_per_epoch", "0", "lines_per_epoch must be an integer of at least 1"),
    ],
)
def test_options_that_cannot_be_are_one_line(option, value, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        digit_strings_ctc.main([*LINES, option, value])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_forecast_is_held_against_the_noise_and_reported_beside_the_naive_one(run_of):
    run = run_of("sine_forecast")
    [claim] = run.summary["claims"]
    assert (claim["metric"], claim["limit"], claim["bar"]) == ("test/mse", 0.0625, pytest.approx(1.15 * 0.0625))
    assert run.summary["limit"] == 0.0625
    data = SineDataModule(num_samples=6000, window=30, noise=0.25, seed=0)
    data.setup()
    test = data.splits.test
    naive = float(np.mean(np.square(test.features[:, -1, 0].double().numpy() - test.targets[:, 0].double().numpy())))
    assert run.metrics["naive/mse"] == pytest.approx(naive, rel=1e-9)
    assert run.metrics["linear/mse"] == data.linear_mse
    assert 0.0625 < run.metrics["test/mse"] < 0.5 * naive
    model = LSTMForecaster.load_from_checkpoint(run.summary["checkpoint"]).eval()
    with torch.no_grad():
        errors = (model.predict_step(test.features) - test.targets).double().square()
    assert run.metrics["test/mse"] == pytest.approx(float(errors.mean()), rel=1e-4)


def test_several_steps_are_forecast_at_once(run_of):
    run = run_of("sine_forecast", "--data.horizon", "4")
    assert run.summary["claims"] == []  # what is claimed is a one-step forecast
    model = LSTMForecaster.load_from_checkpoint(run.summary["checkpoint"]).eval()
    assert model.hparams["horizon"] == 4
    assert model(torch.zeros(2, 30, 1)).shape == (2, 4)
    data = SineDataModule(num_samples=6000, window=30, noise=0.25, horizon=4, seed=0)
    data.setup()
    windows, targets = data.splits.test.features, data.splits.test.targets
    assert targets.shape[1] == 4
    assert run.metrics["naive/mse"] == pytest.approx(float((windows[:, -1] - targets).double().square().mean()))


def rows_of(directory):
    return list(csv.DictReader((directory / "metrics.csv").read_text().splitlines()))


@pytest.mark.parametrize("name", ["digit_strings_ctc", "sine_forecast", "mnist_lstm"])
def test_a_resumed_run_ends_as_one_that_was_never_stopped(name, run_of, tmp_path):
    epochs = ["--trainer.max_epochs", "2"]
    whole = run_of(name, *epochs)
    main = importlib.import_module(f"experiments.{name}").main

    def stop(*_):
        raise KeyError("stop")

    with pytest.MonkeyPatch.context() as patch:
        from experiments.run_directory import CHECKPOINTS
        from zoo.callbacks import StepSeeding

        seed = StepSeeding.on_train_batch_start
        patch.setattr(
            StepSeeding,
            "on_train_batch_start",
            lambda self, trainer, module, batch, index: (
                stop() if trainer.current_epoch == 1 and index == 2 else seed(self, trainer, module, batch, index)
            ),
        )
        with pytest.raises(KeyError, match="stop"):
            main([*OPTIONS[name], *epochs, "--run_dir", "stopped"])
    metrics = main(["--resume", "stopped"])
    assert metrics == whole.metrics
    one, other = (
        torch.load(directory / CHECKPOINTS / "last.ckpt", weights_only=True)["state_dict"]
        for directory in (whole.directory, tmp_path / "stopped")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert rows_of(tmp_path / "stopped") == rows_of(whole.directory)


@pytest.mark.skipif(not HAS_MNIST, reason="the MNIST archives are not in data/MNIST/raw")
def test_on_real_mnist_both_claims_are_evaluated_on_the_lines_they_are_about(summary_of, capsys):
    data = ["--data.data_dir", str(REPOSITORY / "data"), "--data.source", "local"]
    small = ["--data.lines_per_epoch", "64", "--data.val_lines", "20", "--trainer.max_epochs", "1"]
    digit_strings_ctc.main([*COMMON, *data, *small, "--run_dir", "run"])
    summary = summary_of("run")
    assert summary["dataset"] == "MNIST lines"
    assert [(claim["metric"], claim["bar"], claim["reached"]) for claim in summary["claims"]] == [
        ("test/cer", 0.01, False),
        ("test/sequence_accuracy", 0.95, False),
    ]
    digit_strings_ctc.main([*COMMON, *data, *small, "--run_dir", "short", "--data.max_digits", "3"])
    assert summary_of("short")["claims"] == []
    assert "claim     none: the data's options are not those it is about, or only a part" in capsys.readouterr().out


def test_the_default_forecast_sees_a_window_of_a_hundred_steps():
    data = SineDataModule()
    assert (data.window, data.horizon, data.noise_variance) == (100, 1, 0.25)
    assert sine_forecast.EXPERIMENT.claims[0].bar(data.noise_variance) == pytest.approx(0.2875)


def test_the_other_decoder_reads_the_outputs_of_the_same_precision(run_of, capsys):
    """A second trainer, for the same device, must not fall back to 32 bits."""
    run = run_of("digit_strings_ctc", "--trainer.precision", "bf16-mixed", "--model.decoder", "beam")
    assert run.metrics["beam/cer"] == run.metrics["test/cer"]
    assert run.metrics["beam/sequence_accuracy"] == run.metrics["test/sequence_accuracy"]
    assert capsys.readouterr().err == ""
