"""The benchmark's command line, and that what it times on both sides is the same."""

import contextlib
import gc
import json
import math
import os
import sys
from pathlib import Path

import pytest
import torch

from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import compiled, fits, gpu
from experiments.benchmark.children import ChildError
from experiments.benchmark.comparison import Comparison, Pair, ratio_of_means
from experiments.benchmark.plain import PlainData, PlainFit

BOUNDS = {
    "fit_cnn": ("<=", 1.08),
    "fit_mlp": ("<=", 1.30),
    "fit_linear": ("<=", 1.8),
    "loader": (">=", 20),
    "to_99": ("<=", 1 / 15),
    "start_up": ("<=", 1.5),
    "test": ("<=", 1.3),
    "memory": ("<=", 1.15),
    "floor": ("<=", 2.5),
    "growth": ("<=", 1.1),
    "ddp": (">=", 1.6),
}
QUIET = ("--tracking", "none", "--trainer.accelerator", "cpu")
DIGITS = (*QUIET, "--data.dataset", "digits", "--data.source", "local")
CASES = {
    # Each ends an epoch with an incomplete batch of validation, and has fewer samples than make whole batches.
    "cnn": (fits.CNN, (*DIGITS, "--data.batch_size", "200", "--trainer.max_epochs", "1")),
    "mlp": (fits.MLP, (*DIGITS, "--trainer.max_epochs", "2")),
    "linear": (fits.LINEAR, (*QUIET, "--data.num_samples", "1003", "--trainer.max_epochs", "3")),
}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Tensors this small gain nothing from threads; and this process has more to do than the benchmark."""
    monkeypatch.setattr(gc, "freeze", lambda: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ------------------------------------------------------------------ the command line


def fake(name, pairs=(), must=2.0, **arguments):
    """A comparison that has the pairs as soon as it is asked."""

    def measure(rounds):
        for pair in pairs[:rounds]:
            if isinstance(pair, Exception):
                raise pair
            yield pair

    return Comparison(name, f"our {name}", f"their {name}", "s", must, arguments.pop("aim", 1.0), measure, **arguments)


@pytest.fixture
def measured(monkeypatch, capsys):
    """Measures fake comparisons; gives the results, the lines of stdout by first word, and what was written."""

    def run(*comparisons, options=("--rounds", "3")):
        monkeypatch.setattr(benchmark, "COMPARISONS", list(comparisons))
        results = benchmark.main(["--output", "out.json", *options])
        captured = capsys.readouterr()
        assert captured.err == ""
        table = captured.out.partition("comparison ")[2].splitlines()
        lines = {line.split()[0]: line for line in table if line and ":" not in line.split()[0]}
        return results, lines, json.loads(Path("out.json").read_text(), parse_constant=pytest.fail)

    return run


def refused(capsys, *options):
    """The one line on stderr for a command line that cannot be used."""
    with pytest.raises(SystemExit) as caught:
        benchmark.main(list(options))
    out, err = capsys.readouterr()
    assert (caught.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    return err


@pytest.mark.parametrize("only", [["fit_cnm"], ["growth,fit_cnm"], ["growth", "--only", "fit_cnm"]])
def test_an_unknown_name_is_told_with_those_there_are(capsys, only):
    said = refused(capsys, "--only", *only)
    assert "--only: there is no comparison 'fit_cnm'; there are fit_cnn, " in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rounds", "0"], "--rounds: must be at least 1, got 0"),
        (["--rounds", "-1"], "--rounds: must be at least 1, got -1"),
        (["--rounds", "many"], "--rounds: invalid int value: 'many'"),
        (["--output", "missing/out.json"], "--output: there is no directory "),
        (["--output", "."], "--output: . is a directory"),
        (["--round", "3"], "--round"),
    ],
)
def test_an_option_that_cannot_be_used_is_told_before_anything_is_measured(capsys, monkeypatch, options, said):
    monkeypatch.setattr(benchmark, "measure", lambda *args: pytest.fail("measured"))
    assert said in refused(capsys, *options)


def test_a_table_is_printed_and_json_is_written(measured):
    kept = fake("kept", [Pair(1.0, 2.0), Pair(3.0, 2.0, "a note"), Pair(2.0, 2.0)])
    exceeded = fake("exceeded", [Pair(1.0, 2.0), Pair(9.0, 2.0), Pair(8.0, 2.0)], summarize=ratio_of_means)
    more = fake("more", [Pair(3.0, 2.0)], more_is_better=True)
    free = fake("free", [Pair(2500.0, 1.0)], must=None, aim=None)
    without = fake("without", skipped=lambda: "there is no such thing")
    results, lines, written = measured(kept, exceeded, more, free, without)

    assert [result.ratio for result in results[:4]] == [1.0, 3.0, 1.5, 2500.0]
    assert [result.verdict for result in results] == ["kept", "NOT KEPT", "NOT KEPT", "no bound", "skipped"]
    assert " ".join(lines["kept"].split()) == "kept 1.000 <= 2.000 <= 1.000 2.000 s 2.000 s kept"
    assert " ".join(lines["exceeded"].split()) == "exceeded 3.000 <= 2.000 <= 1.000 8.000 s 2.000 s NOT KEPT"
    assert " ".join(lines["more"].split()) == "more 1.500 >= 2.000 >= 1.000 3.000 s 2.000 s NOT KEPT"
    assert " ".join(lines["free"].split()) == "free 2,500 - - 2,500 s 1.000 s no bound"
    assert lines["without"].endswith("  skipped: there is no such thing")

    assert set(written) == {"device", "precision", "versions", "comparisons"}
    first, *_, last = written["comparisons"]
    assert [round_["ratio"] for round_ in first["rounds"]] == [0.5, 1.5, 1.0]
    assert first["rounds"][1] == {"ours": 3.0, "baseline": 2.0, "ratio": 1.5, "note": "a note"}
    assert (first["ratio"], first["must"], first["better"], first["verdict"]) == (1.0, 2.0, "less", "kept")
    assert (last["ratio"], last["skipped"], last["rounds"]) == (None, "there is no such thing", [])
    assert written["comparisons"][2]["better"] == "more"


def test_what_is_no_number_keeps_no_bound_and_is_null(measured):
    nothing = fake("nothing", [Pair(math.nan, 2.0)])
    endless = fake("endless", [Pair(math.inf, 2.0)], summarize=lambda pairs: math.inf)
    results, lines, written = measured(nothing, endless)
    assert [result.verdict for result in results] == ["NOT KEPT", "NOT KEPT"]
    assert [comparison["ratio"] for comparison in written["comparisons"]] == [None, None]
    assert written["comparisons"][1]["rounds"] == [{"ours": None, "baseline": 2.0, "ratio": None, "note": ""}]
    assert lines["endless"].split()[1] == "-"


def test_those_chosen_are_measured_in_their_order(measured):
    comparisons = [fake(name, [Pair(1.0, 1.0)] * 9) for name in ("a", "b", "c")]
    results, _, written = measured(*comparisons, options=["--only", "c", "--only", "a", "--rounds", "7"])
    assert [result.comparison.name for result in results] == ["a", "c"]
    assert [len(comparison["rounds"]) for comparison in written["comparisons"]] == [7, 7]


def test_what_is_not_by_default_is_measured_where_it_is_named(measured):
    comparisons = [fake("a", [Pair(1.0, 1.0)] * 9), fake("b", [Pair(1.0, 1.0)] * 9, by_default=False)]
    assert [result.comparison.name for result in measured(*comparisons)[0]] == ["a"]
    assert [result.comparison.name for result in measured(*comparisons, options=["--only", "b"])[0]] == ["b"]


@pytest.mark.parametrize("error", [ChildError("it ended: line 1\nline 2"), fits.UnequalWeightsError("weight differs")])
def test_what_cannot_be_measured_is_told_in_one_line(monkeypatch, capsys, error):
    comparisons = [fake("fine", [Pair(1.0, 1.0)]), fake("failing", [Pair(1.0, 1.0), error])]
    monkeypatch.setattr(benchmark, "COMPARISONS", comparisons)
    with pytest.raises(SystemExit) as caught:
        benchmark.main(["--rounds", "2"])
    assert caught.value.code == 1
    out, err = capsys.readouterr()
    assert err == f"error: failing: {' '.join(str(error).split())}\n"
    assert "FAILED" in out
    written = {
        comparison["name"]: comparison for comparison in json.loads(Path("benchmark.json").read_text())["comparisons"]
    }
    assert (written["fine"]["verdict"], written["failing"]["verdict"]) == ("kept", "FAILED")
    assert written["failing"]["ratio"] is None


def test_the_bounds_are_those_promised():
    names = [comparison.name for comparison in benchmark.COMPARISONS]
    assert len(set(names)) == len(names)
    bounds = {
        comparison.name: (">=" if comparison.more_is_better else "<=", comparison.must)
        for comparison in benchmark.COMPARISONS
        if comparison.must is not None
    }
    assert bounds == BOUNDS
    assert not any("," in name or " " in name for name in names)  # --only takes several with commas


# ------------------------------------------------------------------ fits


@pytest.fixture
def seen(monkeypatch):
    """What was prepared, and what the plain loop's validations gave."""
    found = {"clis": [], "validations": []}
    prepared, run = fits.prepared, PlainFit.run

    @contextlib.contextmanager
    def keep_cli(*args):
        with prepared(*args) as cli:
            found["clis"].append(cli)
            yield cli

    def keep_validations(*args):
        found["validations"].append(run(*args))
        return found["validations"][-1]

    monkeypatch.setattr(fits, "prepared", keep_cli)
    monkeypatch.setattr(PlainFit, "run", keep_validations)
    return found


@pytest.mark.parametrize("name", CASES)
def test_both_loops_do_the_same(seen, name):
    case, options = CASES[name]
    pairs = list(fits.compare_fits(case, 2, *options))
    assert len(pairs) == len(seen["clis"]) == 2
    for pair, cli, validations in zip(pairs, seen["clis"], seen["validations"], strict=True):
        trainer = cli.trainer
        assert trainer.global_step == trainer.max_epochs * trainer.num_training_batches > 0
        assert pair.note == f"{trainer.global_step} steps, weights equal"
        assert min(pair.ours, pair.baseline) > 0.0
        assert len(validations) == trainer.max_epochs
        loss, accuracy = validations[-1]
        logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
        assert loss == pytest.approx(logged["val/loss"], abs=1e-5)
        if name != "linear":
            assert accuracy == pytest.approx(logged["val/accuracy"], abs=1e-5)
    # The same again: nothing of a round is left for the next.
    assert seen["validations"][0] == seen["validations"][1]


def leave_a_step_out(patch):
    train = PlainFit.train
    patch.setattr(PlainFit, "train", lambda self, data, order, steps: train(self, data, order, steps - 1))


def learn_faster(patch):
    train = PlainFit.train

    def tampered(self, *args):
        step = self.optimizer.step

        def faster():
            self.optimizer.param_groups[0]["lr"] *= 1.001
            step()

        self.optimizer.step = faster
        train(self, *args)

    patch.setattr(PlainFit, "train", tampered)


def take_another_order(patch):
    order = fits._order
    patch.setattr(fits, "_order", lambda loader, epoch: order(loader, epoch + 1))


def do_not_prepare(patch):
    data = fits._plain_data

    def tampered(*args):
        made = data(*args)
        return PlainData(made.features, made.targets, lambda features: made.prepare(features) + 1e-3)

    patch.setattr(fits, "_plain_data", tampered)


@pytest.mark.filterwarnings("ignore:Seems like `optimizer.step\\(\\)` has been overridden:UserWarning")
@pytest.mark.parametrize("tamper", [leave_a_step_out, learn_faster, take_another_order, do_not_prepare])
@pytest.mark.parametrize("rounds", [1, 2])
def test_loops_that_do_not_do_the_same_are_found_out(monkeypatch, tamper, rounds):
    case, options = CASES["linear"]
    pairs = fits.compare_fits(case, rounds, *options)
    for _ in range(rounds - 1):
        next(pairs)  # the loop that is first in the next round is the other
    tamper(monkeypatch)
    with pytest.raises(fits.UnequalWeightsError, match=r"network|weight|bias"):
        next(pairs)


def test_a_weight_that_differs_is_named():
    ours, plain = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    plain.load_state_dict(ours.state_dict())
    fits._check_equal(ours, plain)
    with torch.no_grad():
        plain.bias.add_(1e-6)
    with pytest.raises(fits.UnequalWeightsError, match="bias differs"):
        fits._check_equal(ours, plain)


def test_evaluations_are_compared_on_the_same_images(monkeypatch):
    monkeypatch.setattr(fits, "CNN", (fits.CNN[0], (*fits.CNN[1], *DIGITS)))
    pairs = list(fits.compare_evaluations(2))
    assert len(pairs) == 2
    evaluate = PlainFit.evaluate

    def tampered(self, data):
        loss, accuracy = evaluate(self, data)
        return loss, accuracy + 1 / len(data.targets)

    monkeypatch.setattr(PlainFit, "evaluate", tampered)
    with pytest.raises(fits.UnequalWeightsError, match=r"trainer.test finds accuracy [\d.]+, a plain pass [\d.]+"):
        list(fits.compare_evaluations(1))


@pytest.mark.parametrize("mode", [None, "disabled"])
@pytest.mark.parametrize("fails", [False, True])
def test_what_was_before_is_there_again(monkeypatch, mode, fails):
    if mode is not None:
        monkeypatch.setenv("WANDB_MODE", mode)
    streams = sys.stdout, sys.stderr
    case, options = CASES["linear"]
    with contextlib.suppress(ZeroDivisionError), fits.prepared(case, *options) as cli:
        assert os.environ["WANDB_MODE"] == "offline"
        assert sys.stdout is not streams[0]
        assert sys.stderr.isatty()
        folder = cli.directory
        assert folder.is_dir()
        if fails:
            raise ZeroDivisionError
    assert os.environ.get("WANDB_MODE") == mode
    assert (sys.stdout, sys.stderr) == streams
    assert not folder.exists()


# ------------------------------------------------------------------ GPU and --compile


def test_a_fit_has_its_accuracy():
    seconds, accuracy = gpu.fit_and_test(0, *DIGITS, "--data.batch_size", "64", "--trainer.max_epochs", "1")
    assert seconds > 0.0
    assert 0.8 < accuracy < 1.0


def test_epochs_are_timed(monkeypatch):
    monkeypatch.setattr(compiled, "CNN", (fits.CNN[0], (*fits.CNN[1], *DIGITS, "--trainer.limit_train_batches", "2")))
    times = compiled.epoch_times()
    assert len(times) == 2
    assert min(times) > 0.0


@pytest.mark.parametrize(
    ("epochs", "note"),
    [([11.0, 0.5], "compiling takes 10.5 s, pays from epoch 21 on"), ([3.0, 1.0], "compiling takes 2.0 s, never pays")],
)
def test_compiling_pays_when_it_has_saved_what_it_took(monkeypatch, epochs, note):
    monkeypatch.setattr(compiled, "epoch_times", lambda *options: epochs if options else [1.0, 1.0])
    [pair] = compiled.COMPILED.measure(5)
    assert (pair.ours, pair.baseline) == (epochs[1], 1.0)
    assert pair.note.endswith(note)
