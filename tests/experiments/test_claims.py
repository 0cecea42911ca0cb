import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import REPOSITORY

from experiments.claims import Claim, hold, report
from experiments.over_seeds import describe, figures
from experiments.seeds import _seeds, repeat
from experiments.summary import closing, write_summary

DATA = SimpleNamespace(dataset_name="linear", noise_variance=0.25, bayes_accuracy=0.95)
MOST = Claim("test/accuracy", lambda limit: limit - 0.01, "bayes_accuracy", "the best possible")
LEAST = Claim("test/mse", lambda limit: 1.05 * limit, "noise_variance", "the variance of the noise", mode="min")
PLAIN = Claim("weight_error", 1e-3, mode="min")
MNIST = Claim("test/accuracy", 0.9905, 0.98, "published", dataset="MNIST")


def no_constant(name):
    pytest.fail(f"{name} is not JSON")


# ---------------------------------------------------------------------- hold


@pytest.mark.parametrize(
    ("claim", "value", "bar", "limit", "distance", "reached"),
    [
        (MOST, 0.945, 0.94, 0.95, 0.005, True),
        (MOST, 0.93, 0.94, 0.95, 0.02, False),
        (MOST, 0.96, 0.94, 0.95, -0.01, True),
        (LEAST, 0.26, 0.2625, 0.25, 0.01, True),
        (LEAST, 0.3, 0.2625, 0.25, 0.05, False),
        (LEAST, 0.24, 0.2625, 0.25, -0.01, True),
        (PLAIN, 0.0009, 1e-3, None, None, True),
        (PLAIN, 0.0011, 1e-3, None, None, False),
        (Claim("test/accuracy", 0.9), 0.95, 0.9, None, None, True),
        (Claim("test/accuracy", 0.9), 0.85, 0.9, None, None, False),
        (Claim("test/accuracy", 1.0, 1.0), 1.0, 1.0, 1.0, 0.0, True),
        (Claim("perceptron/accuracy", 0.75, 0.75, mode="min"), 0.75, 0.75, 0.75, 0.0, True),
        (Claim("perceptron/accuracy", 0.75, 0.75, mode="min"), 0.7513, 0.75, 0.75, 0.0013, False),
    ],
)
def test_a_figure_is_held_against_bar_and_limit(claim, value, bar, limit, distance, reached):
    held = hold([claim], {claim.metric: value, "test/loss": 9.0}, DATA)
    [one] = held["claims"]
    assert one["metric"] == claim.metric
    assert one["value"] == value
    assert one["bar"] == pytest.approx(bar)
    assert one["reached"] is reached
    assert one["limit"] == limit
    assert one["distance_to_limit"] == (None if distance is None else pytest.approx(distance))
    assert (held["limit"], held["distance_to_limit"]) == (limit, one["distance_to_limit"])


@pytest.mark.parametrize("bar", [0.9905, 0.988, 0.984, 0.924, 0.995])
def test_a_figure_that_is_the_bar_in_32_bits_reaches_it(bar):
    """float32(0.9905) is less than 0.9905: exactly 9,905 of 10,000 would else fall short."""
    value = float(np.float32(bar))
    for mode in ("max", "min"):
        assert hold([Claim("x", bar, mode=mode)], {"x": value}, DATA)["claims"][0]["reached"] is True
    one_image_less = float(np.float32(bar - 1e-4))
    assert hold([Claim("x", bar)], {"x": one_image_less}, DATA)["claims"][0]["reached"] is False


def test_limit_and_distance_of_a_run_are_those_of_the_first_claim_that_has_a_limit():
    held = hold([PLAIN, LEAST, MOST], {"weight_error": 0.0, "test/mse": 0.3, "test/accuracy": 0.5}, DATA)
    assert [claim["metric"] for claim in held["claims"]] == ["weight_error", "test/mse", "test/accuracy"]
    assert held["limit"] == 0.25
    assert held["distance_to_limit"] == pytest.approx(0.05)
    other = hold([PLAIN, MOST, LEAST], {"weight_error": 0.0, "test/mse": 0.3, "test/accuracy": 0.5}, DATA)
    assert other["limit"] == 0.95
    assert other["distance_to_limit"] == pytest.approx(0.45)


@pytest.mark.parametrize("claim", [MOST, LEAST, PLAIN])
@pytest.mark.parametrize("known", [{}, {"test/accuracy": math.nan, "test/mse": math.nan, "weight_error": math.nan}])
def test_what_is_no_number_reaches_nothing(claim, known, tmp_path):
    held = hold([claim], known, DATA)
    assert held["claims"][0]["reached"] is False
    assert math.isnan(held["claims"][0]["value"])
    [line] = report([claim], {**held, "dataset": "linear"})
    assert line.startswith(f"SHORT OF  {claim.metric} nan, claimed at ")
    assert ";" not in line  # no distance from nowhere
    write_summary(tmp_path, held)
    read = json.loads((tmp_path / "summary.json").read_text(), parse_constant=no_constant)
    assert read["claims"][0]["value"] is None
    assert read["distance_to_limit"] is None
    assert read["limit"] == held["limit"]


@pytest.mark.parametrize("name", ["digits", "FashionMNIST", "EMNIST"])
def test_on_other_data_nothing_is_claimed(name):
    data = SimpleNamespace(dataset_name=name)
    held = hold([MNIST], {"test/accuracy": 0.99}, data)
    assert held == {"limit": None, "distance_to_limit": None, "claims": []}
    assert report([MNIST], {**held, "dataset": name}) == [f"claim     none: the data are {name}, not MNIST"]


def test_a_test_that_was_cut_short_proves_nothing():
    held = hold([MOST, LEAST], {"test/accuracy": 1.0, "test/mse": 0.0}, DATA, whole_test=False)
    assert held == {"limit": None, "distance_to_limit": None, "claims": []}
    [line] = report([MOST, LEAST], {**held, "dataset": "linear"})
    assert line == "claim     none: only a part of the test split was tested"


def test_only_the_claims_about_other_data_are_left_out():
    held = hold([MNIST, LEAST], {"test/accuracy": 0.99, "test/mse": 0.3}, DATA)
    assert [claim["metric"] for claim in held["claims"]] == ["test/mse"]
    assert held["limit"] == 0.25


def test_without_claims_nothing_is_said():
    held = hold([], {"test/accuracy": 0.99}, DATA)
    assert held == {"limit": None, "distance_to_limit": None, "claims": []}
    assert report([], {**held, "dataset": "linear"}) == []


def test_data_that_give_their_limit_as_a_numpy_number_make_a_summary(tmp_path):
    data = SimpleNamespace(dataset_name="linear", bayes_accuracy=np.float32(0.5))
    write_summary(tmp_path, hold([MOST], {"test/accuracy": np.float32(0.25)}, data))
    read = json.loads((tmp_path / "summary.json").read_text(), parse_constant=no_constant)
    assert (read["limit"], read["distance_to_limit"]) == (0.5, 0.25)
    assert read["claims"][0]["reached"] is False


def test_nothing_that_json_lacks_is_written(tmp_path):
    figures = {"a": math.nan, "b": [math.inf, {"c": -math.inf}], "d": 1.5, "e": None, "f": True, "g": "NaN"}
    write_summary(tmp_path, figures)
    read = json.loads((tmp_path / "summary.json").read_text(), parse_constant=no_constant)
    assert read == {"a": None, "b": [None, {"c": None}], "d": 1.5, "e": None, "f": True, "g": "NaN"}


# ---------------------------------------------------------------------- the last lines


@pytest.mark.parametrize(
    ("claim", "value", "line"),
    [
        (
            MOST,
            0.945,
            "reached   test/accuracy 0.945, claimed at least 0.94; 0.005 below 0.95, the best possible",
        ),
        (MOST, 0.93, "SHORT OF  test/accuracy 0.93, claimed at least 0.94; 0.02 below 0.95, the best possible"),
        (MOST, 0.96, "reached   test/accuracy 0.96, claimed at least 0.94; 0.01 above 0.95, the best possible"),
        (LEAST, 0.26, "reached   test/mse 0.26, claimed at most 0.2625; 0.01 above 0.25, the variance of the noise"),
        (LEAST, 0.3, "SHORT OF  test/mse 0.3, claimed at most 0.2625; 0.05 above 0.25, the variance of the noise"),
        (LEAST, 0.24, "reached   test/mse 0.24, claimed at most 0.2625; 0.01 below 0.25, the variance of the noise"),
        (PLAIN, 0.0005, "reached   weight_error 0.0005, claimed at most 0.001"),
        (PLAIN, 0.5, "SHORT OF  weight_error 0.5, claimed at most 0.001"),
    ],
)
def test_a_claim_is_one_line_that_says_whether_it_is_reached(claim, value, line):
    held = hold([claim], {claim.metric: value}, DATA)
    assert report([claim], {**held, "dataset": "linear"}) == [line]


def summary_with(examined, claims, known, data=DATA):
    return {
        "dataset": data.dataset_name,
        "test/accuracy": 0.93,
        "test/loss": 0.25,
        "examined": examined,
        **hold(claims, known, data),
        "seconds": {"total": 3.21, "fit": 2.0, "test": 0.5, "figures": 0.0},
        "figures": [],
        "checkpoint": None,
    }


def test_the_last_lines_hold_result_figures_and_claims_in_this_order():
    examined = {"weight_error": 0.5, "bias_error": math.nan}
    claims = [MOST, PLAIN]
    summary = summary_with(examined, claims, {"test/accuracy": 0.93, **examined})
    lines = closing(Path("run"), summary, claims, []).splitlines()
    assert lines == [
        "result    test/accuracy 0.9300, test/loss 0.2500 (dataset: linear)",
        "examined  weight_error 0.5, bias_error nan",
        "SHORT OF  test/accuracy 0.93, claimed at least 0.94; 0.02 below 0.95, the best possible",
        "SHORT OF  weight_error 0.5, claimed at most 0.001",
        "time      3.2 s in all: fit 2.0 s, test 0.5 s",
        "model     no checkpoint was kept",
        "run       run: summary.json, metrics.csv, config.yaml",
    ]


def test_what_an_experiment_does_not_have_takes_no_line():
    lines = closing(Path("run"), summary_with({}, [], {}), [], []).splitlines()
    assert [line.split()[0] for line in lines] == ["result", "time", "model", "run"]


# ---------------------------------------------------------------------- several seeds


def summary_of_seed(accuracy, rival, seconds, reached=True, dataset="xor"):
    return {
        "experiment": "xor",
        "dataset": dataset,
        "test/accuracy": accuracy,
        "test/loss": None,
        "val/accuracy": 0.1,
        "examined": {"perceptron/accuracy": rival},
        "seconds": {"total": seconds, "fit": 0.5, "test": 0.25},
        "claims": [{"metric": "test/accuracy", "value": accuracy, "reached": reached, "bar": 0.7, "mode": "max"}],
    }


def test_the_figures_of_a_run_are_those_of_its_test_what_it_examined_and_its_seconds():
    assert figures(summary_of_seed(0.5, 0.75, 2.0)) == {
        "test/accuracy": 0.5,
        "perceptron/accuracy": 0.75,
        "seconds": 2.0,
    }
    assert figures(summary_of_seed(0.5, None, 2.0)) == {"test/accuracy": 0.5, "seconds": 2.0}


def test_the_statistics_are_mean_deviation_and_range():
    runs = [
        summary_of_seed(0.5, None, 1.0, reached=False),
        summary_of_seed(0.75, 0.5, 2.0),
        summary_of_seed(1.0, 0.75, 3.0),
    ]
    assert describe(runs) == [
        "3 runs (dataset: xor)",
        "test/accuracy: 0.75 +- 0.25 (0.5 to 1)",  # deviation of the sample: sqrt(2 * 0.25^2 / 2)
        "seconds: 2 +- 1 (1 to 3)",
        "perceptron/accuracy: 0.625 +- 0.18 (0.5 to 0.75)",
        "claim test/accuracy: mean 0.75 reaches 0.7; reached by 2 of 3 runs",
    ]


def test_the_statistics_of_one_run_have_no_deviation():
    assert describe([summary_of_seed(0.5, 0.75, 1.0, dataset="digits")])[:2] == [
        "1 runs (dataset: digits)",
        "test/accuracy: 0.5 +- 0 (0.5 to 0.5)",
    ]


def test_a_figure_that_no_run_has_ends_in_a_line_nevertheless():
    runs = [summary_of_seed(None, None, 1.0, reached=False)] * 2
    assert describe(runs)[-2:] == [
        "seconds: 1 +- 0 (1 to 1)",
        "claim test/accuracy: mean nan IS SHORT OF 0.7; reached by 0 of 2 runs",
    ]


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-4", [0, 1, 2, 3, 4]), ("7", [7]), ("1,2,3", [1, 2, 3]), ("3-3", [3]), ("5, 1", [5, 1])]
)
def test_seeds_are_a_range_or_a_list(text, seeds):
    assert _seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "4-1", "-1", "1-", "1,", "0-4,7", "1.5", "0,0"])
def test_what_are_no_seeds_is_named(text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"such as 0-4 or 1,2,3, each once, got {text!r}"):
        _seeds(text)


@pytest.mark.parametrize(("mode", "verdict"), [("max", "IS SHORT OF"), ("min", "reaches")])
def test_the_verdict_is_on_the_mean_whatever_single_runs_reach(mode, verdict):
    runs = [summary_of_seed(value, None, 1.0, reached=True) for value in (0.5, 0.8)]
    for run in runs:
        run["claims"][0]["mode"] = mode
    assert describe(runs)[-1] == f"claim test/accuracy: mean 0.65 {verdict} 0.7; reached by 2 of 2 runs"


@pytest.mark.parametrize("option", ["--seed_everything", "--run_dir=x", "--resume"])
def test_what_each_seed_has_of_its_own_is_refused(option):
    done = seeds_process("xor", option, "7")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {option.partition('=')[0]}: every seed has its own")


def test_a_run_without_a_summary_is_named(tmp_path):
    done = seeds_process("xor", "--seeds", "0", "--keep", str(tmp_path), "--print_config")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "the run of seed 0 left no" in done.stderr


def test_an_earlier_run_is_not_taken_for_this_one(tmp_path):
    (tmp_path / "xor-1").mkdir()
    with pytest.raises(FileExistsError, match=r"xor-1 is taken by an earlier run"):
        repeat("xor", [0, 1], [], tmp_path)
    assert not (tmp_path / "xor-0").exists()  # nothing ran


def seeds_process(*args):
    command = [sys.executable, "-m", "experiments.seeds", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)


SHORT_RUN = ["--tracking", "csv", "--data.num_samples", "1000", "--data.batch_size", "700", "--trainer.max_epochs", "3"]


def test_two_seeds_as_a_process(tmp_path, summary_of):
    name = "linear_regression_from_scratch"
    done = seeds_process(name, "--seeds", "3,5", "--keep", str(tmp_path), *SHORT_RUN)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = (summary_of(tmp_path / f"{name}-{seed}") for seed in (3, 5))
    assert (first["seed"], second["seed"]) == (3, 5)
    assert first["test/mse"] != second["test/mse"]
    assert first["steps"] == 3
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"seed 3: test/loss {first['test/loss']:.4g}, ")
    assert lines[1].startswith(f"seed 5: test/loss {second['test/loss']:.4g}, ")
    assert lines[1].endswith("(dataset: linear)")
    assert lines[2:] == describe([first, second])
    assert "claim weight_error: mean 0.10072 IS SHORT OF 0.001; reached by 0 of 2 runs" in done.stdout


def test_a_run_that_fails_is_answered_by_its_one_line_and_its_exit_code(tmp_path):
    done = seeds_process("xor", "--seeds", "0-1", "--keep", str(tmp_path), "--trainer.max_epoch", "2")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown option --trainer.max_epoch; did you mean --trainer.max_epochs?\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["xor", "--seeds", "4-1"], "error: argument --seeds: expected seeds such as 0-4"),
        (["xr"], "error: argument experiment: invalid choice: 'xr'"),
    ],
)
def test_what_cannot_be_repeated_is_one_line(args, message):
    done = seeds_process(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
