"""Searches: in one process, in two, after interruptions, and with everything that can be wrong with them."""

import argparse
import contextlib
import gc
import math
import os
import re
import shlex
import signal
import sqlite3
import sys

import pytest

optuna = pytest.importorskip("optuna")
pytest.importorskip("sqlalchemy")

from lightning.pytorch import Callback  # noqa: E402
from lightning.pytorch.utilities.exceptions import SIGTERMException  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

from datamodules import InMemoryDataModule, XORDataModule  # noqa: E402
from experiments import xor  # noqa: E402
from experiments.__main__ import list_experiments  # noqa: E402
from experiments.cli_errors import UsageError  # noqa: E402
from experiments.fitting import fit_only  # noqa: E402
from experiments.tune import storage as storages  # noqa: E402
from experiments.tune.__main__ import main  # noqa: E402
from experiments.tune.command_line import make_search, split  # noqa: E402
from experiments.tune.space import Choices, Range, default_space, parse_entry, probes, read_space  # noqa: E402
from experiments.tune.storage import open_storage, parse_url, reason, shown  # noqa: E402
from experiments.tune.study import Search, is_finished, open_study, queue_again  # noqa: E402
from experiments.tune.worker import Worker, _SurplusError  # noqa: E402
from zoo.metrics_csv import read_csv  # noqa: E402

STORAGE = "sqlite:///tune.db"
LR = "model.optimizer.lr"
# A few steps each, with three validations.
SHORT = [
    *("--trainer.max_epochs", "3", "--trainer.limit_train_batches", "4"),
    *("--data.num_samples", "400", "--data.batch_size", "20"),
]
SEARCH = ["xor", "--search", f"{LR}=log:1e-7:1e-1"]


@pytest.fixture(autouse=True, scope="module")
def young_heap():
    """A process of tests has a million objects, which a search would look through behind each trial."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def optuna_as_it_was():
    verbosity = optuna.logging.get_verbosity()
    yield
    optuna.logging.set_verbosity(verbosity)


def load(name="xor", url=STORAGE):
    return optuna.load_study(study_name=name, storage=url)


def states(study):
    return [trial.state.name for trial in study.trials]


def failed(args, capsys):
    """The exit code of a search that comes to nothing, and the one line that it says."""
    with pytest.raises(SystemExit) as stopped:
        main(args)
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert error.startswith("error: ")
    return stopped.value.code, error


def begun(*args, grace=60):
    """The study that a command works on, before it does."""
    search = make_search(*split(list(args)))
    return open_study(open_storage(parse_url(STORAGE), grace, queue_again), "xor", search)


# ---------------------------------------------------------------------- the space


@pytest.mark.parametrize(
    ("text", "entry", "examples"),
    [
        ("log:1e-4:1e-1", Range(1e-4, 0.1, log=True), ["0.0001", "0.1"]),
        ("uniform:0:0.5", Range(0.0, 0.5), ["0.0", "0.5"]),
        ("int:1:5", Range(1, 5, integer=True), ["1", "5"]),
        ("logint:16:1024", Range(16, 1024, log=True, integer=True), ["16", "1024"]),
        ("64,128,256", Choices((64, 128, 256)), ["64", "128", "256"]),
        ("1e-4,0.5,1", Choices((1e-4, 0.5, 1)), ["0.0001", "0.5", "1"]),
        ("relu, gelu", Choices(("relu", "gelu")), ["relu", "gelu"]),
        ("true,false,null", Choices((True, False, None)), ["true", "false", "null"]),
        ("[16,32],[24, 32, 64]", Choices(("[16, 32]", "[24, 32, 64]")), ["[16, 32]", "[24, 32, 64]"]),
    ],
)
def test_a_space_is_a_range_or_a_list_of_choices(text, entry, examples):
    assert parse_entry("x", text) == entry
    assert entry.examples() == examples
    assert parse_entry("x", str(entry)) == entry


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("log:0:1", "must begin above 0"),
        ("uniform:1:1", "is empty"),
        ("uniform:2:1", "is empty"),
        ("log:1e-4", "needs two numbers, as in log:LOW:HIGH"),
        ("int:0.5:2", "needs two whole numbers"),
        ("uniform:0:inf", "not finite"),
        ("uniform:nan:1", "not finite"),
        ("64", "needs 2 to 100 choices, got 1"),
        ("", "needs 2 to 100 choices, got 0"),
        ("1,2,1", "a choice is there twice"),
        ("[1,", "is none of log:LOW:HIGH"),
        ({"low": 1}, "is none of log:LOW:HIGH"),
        (0.1, "is none of log:LOW:HIGH"),
        ("2026-01-01,2026-01-02", "no value of an option"),
        (",".join(map(str, range(101))), "got 101"),
    ],
)
def test_what_is_no_space_is_named(value, said):
    with pytest.raises(UsageError, match=re.escape(said)) as raised:
        parse_entry("model.dropout", value)
    assert "model.dropout" in str(raised.value)


def test_a_file_says_the_same(tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text(f"{LR}: log:1e-4:1e-1\n--data.batch_size: [64, 128]\n")
    assert read_space(file) == {LR: Range(1e-4, 0.1, log=True), "data.batch_size": Choices((64, 128))}


def test_probes_have_every_end_and_every_choice():
    space = {"a": Range(0.0, 1.0), "b": Choices((1, 2, 3))}
    assert probes(space) == [["--a=0.0", "--b=1"], ["--a=1.0", "--b=2"], ["--a=1.0", "--b=3"]]


def test_a_decade_around_the_experiments_own_rate():
    space = default_space(xor.EXPERIMENT)
    assert space[LR] == Range(0.003, 0.3, log=True)
    assert space["data.batch_size"] == Choices((25, 50, 100))
    assert LR in default_space(xor.EXPERIMENT, ["--data.batch_size", "20"])
    assert "data.batch_size" not in default_space(xor.EXPERIMENT, ["--data.batch_size", "20"])
    assert set(default_space(xor.EXPERIMENT, ["--model.optimizer=torch.optim.SGD"])) == {"data.batch_size"}


def test_every_experiment_has_a_space_that_its_parser_takes():
    for name in list_experiments():
        search = make_search(*split([name]))
        assert {LR, "model.lr"} & set(search.space), name
    assert "tune" not in list_experiments()


# ---------------------------------------------------------------------- a search


def test_a_search_is_about_validation_and_its_command_repeats_the_best_trial(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(InMemoryDataModule, "test_dataloader", lambda self: pytest.fail("a trial was tested"))
    main([*SEARCH, "--trials", "4", "--", *SHORT])
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    out = capsys.readouterr().out
    study = load()
    assert all(map(is_finished, study.trials))
    assert len(study.trials) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"tune.db"}  # nothing of a trial but its rows
    assert len(re.findall(r"^trial \d", out, re.MULTILINE)) == 4
    assert f"best      val/loss {study.best_value:.6g} in trial {study.best_trial.number} (" in out
    assert list(study.best_trial.intermediate_values) == [1, 2, 3]

    [command] = re.findall(r"^run it    (.*)$", out, re.MULTILINE)
    python, m, module, *arguments = shlex.split(command)
    assert (python, m, module) == ("python", "-m", "experiments.xor")
    xor.main([*arguments, "--tracking", "csv", "--run_dir", "run"])
    losses = [float(row["val/loss"]) for row in read_csv(tmp_path / "run" / "metrics.csv")[1] if row["val/loss"]]
    assert losses == list(study.best_trial.intermediate_values.values())
    assert losses[-1] == study.best_value  # of an experiment that keeps the last checkpoint
    assert study.best_trial.user_attrs["metrics"]["val/loss"] == study.best_value


def test_the_same_command_goes_on_to_the_number_of_trials(capsys):
    main([*SEARCH, "--trials", "2", "--", *SHORT])
    main([*SEARCH, "--trials", "2", "--", *SHORT])
    assert "xor in sqlite:///tune.db: 2 of 2 trials are finished" in capsys.readouterr().out
    assert len(load().trials) == 2
    main([*SEARCH, "--trials", "3", "--", *SHORT])
    assert len(load().trials) == 3
    assert len(re.findall(r"^trial \d", capsys.readouterr().out, re.MULTILINE)) == 1


def test_a_trial_that_is_worse_than_the_median_is_pruned_and_one_that_diverges_is_said_to(capsys):
    command = ["linear_regression", "--search", f"{LR}=log:1e-7:1e30", "--trials", "7", "--study", "xor", "--", *SHORT]
    study = begun(*command)
    for rate in (0.05, 0.05, 0.05, 0.05, 0.05, 1e-7, 1e30):
        study.enqueue_trial({LR: rate})
    main(command)
    out = capsys.readouterr().out
    assert states(study) == ["COMPLETE"] * 5 + ["PRUNED"] * 2
    assert list(study.trials[5].intermediate_values) == [1, 2]  # not behind the first validation
    assert re.search(r"^trial 5   pruned at val/loss 5\.078; lr 1e-07; ", out, re.MULTILINE)
    assert re.search(r"^trial 6   diverged: .*(became|no longer finite)", out, re.MULTILINE)
    assert study.best_trial.number < 5


def test_a_search_whose_trials_all_diverge_has_no_result(capsys):
    code, error = failed(
        ["linear_regression", "--search", f"{LR}=log:1e20:1e30", "--trials", "2", "--", *SHORT], capsys
    )
    assert code == 1
    assert error.startswith("error: none of the 2 trials came to a result; the last one said: ")
    assert "lower the learning rate" in error


def test_values_that_do_not_fit_together_fail_one_trial_and_not_the_search(capsys):
    command = ["multiclass_blobs", "--search", "data.batch_size=6,7", "--trials", "2", "--study", "xor", "--"]
    command += ["--trainer.max_epochs", "1", "--data.num_samples", "100", "--model.norm", "batch"]
    study = begun(*command)
    for size in (7, 6):  # of 70 samples for training: the last batch of 7 is whole, the last of 6 has 4
        study.enqueue_trial({"data.batch_size": size})
    main(command)
    assert states(study) == ["COMPLETE", "COMPLETE"]
    capsys.readouterr()


@pytest.mark.parametrize("metric", [None, "val/accuracy"])
def test_the_metric_is_the_loss_or_what_the_experiment_chooses_by(metric, capsys):
    main([*SEARCH, "--trials", "2", *(["--metric", metric] if metric else []), "--", *SHORT])
    study = load()
    values = [trial.value for trial in study.trials]
    assert study.best_value == (max(values) if metric else min(values))
    kept = study.best_trial.user_attrs["metrics"]
    assert study.best_value == kept[metric or "val/loss"]
    assert f"best      {metric or 'val/loss'} " in capsys.readouterr().out


def test_without_a_tracker_or_a_word_of_lightnings(capfd):
    main([*SEARCH, "--trials", "1", "--", *SHORT])
    out, err = capfd.readouterr()
    assert err == ""
    assert [line.split()[0] for line in out.splitlines()] == [
        *("study", "search", "data", "model", "trial", "result", "best", "run")
    ]


# ---------------------------------------------------------------------- interruptions


def once(monkeypatch, action):
    """Does something in the middle of the first trial."""
    loader, done = XORDataModule.val_dataloader, []

    def interrupted(self):
        if not done:
            done.append(True)
            action()
        return loader(self)

    monkeypatch.setattr(XORDataModule, "val_dataloader", interrupted)


@pytest.fixture
def python_handlers():
    """Those of a process in the foreground: one in the background ignores SIGINT."""
    before = {
        number: signal.signal(number, handler)
        for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL))
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_search_that_is_stopped_queues_its_trial_for_the_next(monkeypatch, capsys, python_handlers, number, code):
    once(monkeypatch, lambda: os.kill(os.getpid(), number))
    command = [*SEARCH, "--trials", "2", "--", *SHORT]
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == code
    assert capsys.readouterr().err == "stopped   the same command goes on with the study\n"
    assert states(load()) == ["FAIL", "WAITING"]
    main(command)
    study = load()
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[1].params == study.trials[0].params
    assert study.trials[1].user_attrs["retries"] == 1


def test_a_stop_is_heard_though_the_trial_is_pruned_then(python_handlers):
    class Told(Callback):
        def on_validation_start(self, trainer, *args):
            os.kill(os.getpid(), signal.SIGTERM)

    def prune(number, metrics):
        raise optuna.TrialPruned

    with pytest.raises(SIGTERMException) as stopped:
        fit_only(xor.EXPERIMENT, [*SHORT, "--trainer.num_sanity_val_steps", "0"], prune, [Told()])
    assert stopped.value.code == 143


def test_a_trial_that_is_broken_off_again_and_again_is_left_alone():
    begun(*SEARCH)
    study = load()
    study.enqueue_trial({LR: 0.01})
    for waiting in ([1], [2], [3], []):
        study.tell(study.ask({LR: optuna.distributions.FloatDistribution(1e-7, 0.1, log=True)}), state=TrialState.FAIL)
        queue_again(study, study.trials[-1])
        queue = [trial for trial in study.trials if trial.state == TrialState.WAITING]
        assert [trial.user_attrs["retries"] for trial in queue] == waiting
        assert {trial.params[LR] for trial in study.trials if trial.params} == {0.01}


def test_a_trial_whose_process_died_before_its_first_sign_of_life_is_given_up(capsys):
    command = [*SEARCH, "--trials", "1", "--grace", "1", "--", *SHORT]
    begun(*command)
    study = load()
    study.ask()
    main(command)
    assert states(study) == ["FAIL", "COMPLETE"]
    assert "waiting   for 1 trial of other processes" in capsys.readouterr().out


def test_a_trial_that_others_have_given_up_is_theirs(monkeypatch, capsys):
    once(monkeypatch, lambda: load().tell(0, state=TrialState.FAIL))
    main([*SEARCH, "--trials", "1", "--", *SHORT])
    assert states(load()) == ["FAIL", "COMPLETE"]
    assert re.search(r"^trial 0   lost to other processes", capsys.readouterr().out, re.MULTILINE)


def test_a_trial_too_many_is_withdrawn():
    begun(*SEARCH, "--", *SHORT)
    study = load()
    for _ in range(2):
        study.add_trial(optuna.create_trial(value=1.0))
    worker = Worker(study, Search(xor.EXPERIMENT, {}), 2, 60, print, print, print)
    with pytest.raises(_SurplusError):
        worker._objective(study.ask())
    worker.trials = 4
    worker._withdraw_surplus(study.ask())  # the third that counts or may: the first one asked for is running


# ---------------------------------------------------------------------- what can be wrong


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["no_such_experiment"], "invalid choice: 'no_such_experiment'"),
        ([], "arguments are required: experiment"),
        (["xor", "--trials", "0"], "--trials: expected a whole number of at least 1, got '0'"),
        (["xor", "--trials", "-1"], "--trials: expected"),
        (["xor", "--trials", "many"], "--trials: expected"),
        (["xor", "--grace", "0"], "--grace: expected"),
        (["xor", "--trails", "3"], "unknown option --trails; did you mean --trials?"),
        (["xor", "--search", "model.optimizer.lrr=log:1e-3:1"], "unknown option --model.optimizer.lrr"),
        (["xor", "--search", "model.hiden=[1],[2]"], "did you mean --model.hidden?"),
        (["xor", "--search", "model.dropout=uniform:0.5:1.5"], "dropout must be at least 0 and less than 1, got 1.5"),
        (["xor", "--search", "data.batch_size=64,many"], "--data.batch_size: expected"),
        (["xor", "--search", "model.optimizer.lr"], "expected OPTION=SPACE"),
        (["xor", "--search", "=1,2"], "expected OPTION=SPACE"),
        (["xor", "--search", "run_dir=a,b"], "'run_dir' cannot be searched: that can be options such as model."),
        (["xor", "--search", "seed_everything=int:0:9"], "'seed_everything' cannot be searched"),
        (["xor", "--search", "optimizer.lr=log:1e-3:1"], "'optimizer.lr' cannot be searched"),
        (["xor", "--search", "trainer.limit_val_batches=0,1.0"], "trials are chosen by validation"),
        (["xor", "--space", "missing.yaml"], "missing.yaml cannot be read as YAML: No such file"),
        (["xor", "--space", "."], "cannot be read as YAML: Is a directory"),
        (["xor", "--metric", "test/accuracy"], "--metric: 'test/accuracy' is not one of val/loss, val/accuracy"),
        (["mnist_cnn", "--search", "model.label_smoothing=uniform:0:0.2"], "give --metric val/accuracy"),
        (["xor", "--search", f"{LR}=log:1e-3:1", "--", f"--{LR}", "0.1"], f"--{LR} is searched, and given as well"),
        (["xor", "--", "--run_dir", "here"], "--run_dir: a trial is neither tracked nor kept"),
        (["xor", "--tracking", "wandb"], "--tracking: a trial is neither tracked nor kept"),
        (["xor", "--", "--trainer.devices", "2", "--trainer.strategy", "ddp"], "--trainer.devices: a trial takes one"),
        (["xor", "--", "--trainer.limit_val_batches", "0"], "trials are chosen by validation"),
        (["xor", "--", "--trainer.fast_dev_run", "true"], "--trainer.fast_dev_run: "),
        (["xor", "--", "--trainer.max_epoch", "2"], "did you mean --trainer.max_epochs?"),
        (["xor", "--storage", "tune.db"], "that is no address of a database"),
        (["xor", "--storage", "sqlite://"], "in memory nothing would be left"),
        (["xor", "--storage", "sqlite:///:memory:"], "in memory nothing would be left"),
        (["xor", "--storage", "oracle://me:hush@host/db"], "the driver for oracle is not installed"),
        (["xor", "--storage", "postgresql://me:hush@host:port/db"], "that is no address of a database"),
        (["xor", "--storage", "nonsense://me:hush@host/db"], "that is no address of a database"),
    ],
)
def test_what_cannot_be_used_is_answered_before_the_first_trial(args, said, capsys, tmp_path):
    code, error = failed(args, capsys)
    assert code == 2
    assert said in error
    assert "hush" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert failed(["xor"], capsys) == (
        2,
        'error: a search needs Optuna and SQLAlchemy: pip install -e ".[tune]"',
    )


@contextlib.contextmanager
def locked(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield


def test_databases_that_cannot_be_used(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(storages, "LOCK_PATIENCE", 0)
    (tmp_path / "damaged.db").write_bytes(os.urandom(5000))
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "other.db").write_bytes(b"")
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE studies (other TEXT)")
    said = {
        "damaged.db": "file is not a database",
        "folder.db": "unable to open database file",
        "missing/tune.db": "unable to open database file",
        "other.db": "table studies has no column named study_name",
    }
    for name, why in said.items():
        code, error = failed([*SEARCH, "--storage", f"sqlite:///{name}"], capsys)
        assert (code, why in error, f"sqlite:///{name}" in error) == (1, True, True), error
    with locked(tmp_path / "tune.db"):
        code, error = failed(SEARCH, capsys)
    assert (code, error) == (1, "error: the database sqlite:///tune.db cannot be used: database is locked")


def test_a_database_that_breaks_off_in_a_trial_is_named(tmp_path, monkeypatch, capsys):
    once(monkeypatch, (tmp_path / "tune.db").unlink)
    code, error = failed([*SEARCH, "--trials", "1", "--", *SHORT], capsys)
    assert code == 1
    assert error.startswith("error: the database sqlite:///tune.db broke off: attempt to write a readonly database;")
    assert error.endswith("; the same command goes on with the study")


@pytest.mark.parametrize("hiding", [AssertionError, UnboundLocalError])
def test_what_optuna_hides_is_said(hiding):
    begun(*SEARCH)
    worker = Worker(load(), Search(xor.EXPERIMENT, {}), 1, 60, print, print, print)

    def optimize(*args, **kwargs):
        try:
            raise optuna.exceptions.StorageInternalError("something") from OSError("why")
        except optuna.exceptions.StorageInternalError:
            try:
                raise KeyError("on the way")
            except KeyError:
                raise hiding  # noqa: B904

    worker.study.optimize = optimize
    with pytest.raises(optuna.exceptions.StorageInternalError) as raised:
        worker._run_one()
    assert reason(raised.value, parse_url(STORAGE)) == "why"


def test_a_server_that_is_not_there_is_named_without_its_password(capsys):
    pytest.importorskip("psycopg")
    address = "postgresql://me:hush@127.0.0.1:1/db?sslpassword=hush2"
    code, error = failed([*SEARCH, "--storage", address], capsys)
    assert code == 1
    assert error.startswith("error: the database postgresql://127.0.0.1:1/db cannot be used: connection ")
    assert "hush" not in error


def test_secrets_are_taken_out_of_what_a_driver_says():
    url = parse_url("postgresql://me:p%40ss@host/db?password=other")
    assert shown(url) == "postgresql://host/db"
    assert reason(RuntimeError("failed: password=p@ss, other\nmore"), url) == "failed: password=***, ***"


def test_a_study_of_another_search_is_not_gone_on_with(capsys):
    main([*SEARCH, "--trials", "1", "--", *SHORT])
    capsys.readouterr()
    code, error = failed(["xor", "--search", f"{LR}=log:1e-6:1e-1", "--trials", "2", "--", *SHORT], capsys)
    assert code == 2
    assert "--study: xor was begun with another search (search {'model.optimizer.lr': 'log:1e-07:0.1'} then" in error
    optuna.create_study(study_name="foreign", storage=STORAGE).add_trial(optuna.create_trial(value=0.0))
    code, error = failed([*SEARCH, "--study", "foreign", "--", *SHORT], capsys)
    assert (code, "not a study of this command's" in error) == (2, True)


def test_trials_on_other_data_are_not_compared(capsys):
    command = [*SEARCH, "--trials", "1", "--", *SHORT]
    study = begun(*command)
    study.set_user_attr("zoo:dataset", "MNIST")
    code, error = failed(command, capsys)
    assert code == 1
    assert "the data here are xor, those of the study's other trials MNIST" in error
    assert states(study) == ["FAIL", "WAITING"]


def test_options_of_the_trials_may_stand_before_the_dashes():
    given, fixed = split(["xor", "--trainer.max_epochs", "3", "--trials", "7", "--", "--seed_everything=1"])
    assert isinstance(given, argparse.Namespace)
    assert given.trials == 7
    assert fixed == ["--trainer.max_epochs", "3", "--seed_everything=1"]
    assert math.isclose(make_search(given, fixed).space[LR].high, 0.3)
