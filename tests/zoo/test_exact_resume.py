"""A run that goes on from any checkpoint, or after any stop, ends as one that never stopped."""

import os
import shutil
import signal
import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from datamodules import GaussianBlobsDataModule
from zoo import RegularizedMLPClassifier
from zoo.callbacks import (
    WEIGHT_AVERAGE_KEY,
    EpochProgress,
    GracefulStop,
    LastCheckpoint,
    RunRecord,
    StepSeeding,
    WeightAverage,
    graceful_stop,
)
from zoo.checkpointing import SealedCheckpointIO, read_checkpoint
from zoo.optim import OneCycle, Plateau
from zoo.tracking import MetricsCSV

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]

SCHEDULES = {"one_cycle": OneCycle, "plateau": partial(Plateau, monitor="val/loss", patience=0, factor=0.5)}

# Seven batches of training and two of validation an epoch; options of the trainer, and the schedule.
RUNS = {
    "epochs": ({"max_epochs": 3}, "one_cycle"),
    "validation inside the epoch": ({"max_epochs": 2, "val_check_interval": 0.5}, "one_cycle"),
    "validation at the last batch, too": (
        {"max_epochs": 2, "limit_train_batches": 6, "val_check_interval": 3},
        "plateau",
    ),
    "validation across epochs": (
        {"max_epochs": 3, "check_val_every_n_epoch": None, "val_check_interval": 5},
        "one_cycle",
    ),
    "validation every second epoch": ({"max_epochs": 4, "check_val_every_n_epoch": 2}, "plateau"),
    "accumulated gradients": (
        {"max_epochs": 2, "accumulate_grad_batches": 2, "val_check_interval": 0.5},
        "one_cycle",
    ),
    "a number of steps": ({"max_epochs": -1, "max_steps": 10, "val_check_interval": 0.5}, "one_cycle"),
    "a number of steps, that of the epochs": ({"max_epochs": -1, "max_steps": 14}, "plateau"),
    "no validation": ({"max_epochs": 2, "limit_val_batches": 0}, "one_cycle"),
    "an average of the weights": ({"max_epochs": 2, "val_check_interval": 0.5}, "plateau"),
    "a mean of the last weights": ({"max_epochs": 3}, "one_cycle"),
}
AVERAGES = {
    "an average of the weights": partial(WeightAverage, "ema", decay=0.7),
    "a mean of the last weights": partial(WeightAverage, "swa", start=0.4),
}


class KeepAll(Callback):
    """Keeps a copy of every checkpoint that there ever was under one name."""

    def __init__(self, path, folder):
        self.path, self.folder, self.seen = path, folder, set()
        folder.mkdir()

    def look(self, *args, **kwargs):
        if self.path.is_file() and (inode := self.path.stat().st_mtime_ns) not in self.seen:
            self.seen.add(inode)
            shutil.copy(self.path, self.folder / f"{len(self.seen):03}.ckpt")
            rows = self.path.with_name("metrics.csv")  # nothing is logged between its writing and these hooks
            if rows.is_file():
                shutil.copy(rows, self.folder / f"{len(self.seen):03}.csv")

    on_train_batch_start = on_train_batch_end = on_validation_batch_start = on_train_epoch_start = teardown = look


class StopAt(Callback):
    """Sends the process a signal when a number of batches, epochs and validations have begun."""

    def __init__(self, moment, number=signal.SIGTERM):
        self.moment, self.number, self.passed = moment, number, 0

    def count(self, *args, **kwargs):
        self.passed += 1
        if self.passed == self.moment:
            os.kill(os.getpid(), self.number)

    on_train_batch_start = on_validation_batch_start = on_train_epoch_end = count


def fit(directory, run, *callbacks, resume=False, every_n_steps=1):
    options, schedule = RUNS[run]
    averages = [AVERAGES[run]()] if run in AVERAGES else []
    last = LastCheckpoint(directory, every_n_steps=every_n_steps)
    best = ModelCheckpoint(
        directory, "best", save_on_train_epoch_end=False, monitor="val/loss", enable_version_counter=False
    )
    rows = read_checkpoint(last.path)["run_record"]["metric_rows"] if resume else None
    trainer = Trainer(
        accelerator="cpu",
        callbacks=[StepSeeding(0), RunRecord(), GracefulStop(), *averages, best, last, *callbacks],
        logger=MetricsCSV(directory, rows),
        plugins=[SealedCheckpointIO()],
        log_every_n_steps=2,
        num_sanity_val_steps=0,
        enable_progress_bar=any(isinstance(callback, EpochProgress) for callback in callbacks),
        enable_model_summary=False,
        **options,
    )
    torch.manual_seed(0)
    model = RegularizedMLPClassifier(
        in_features=4,
        num_classes=3,
        hidden=(8,),
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        scheduler=SCHEDULES[schedule],
    )
    data = GaussianBlobsDataModule(num_samples=160, num_features=4, num_classes=3, batch_size=16, eval_batch_size=10)
    trainer.fit(model, data, ckpt_path=last.path if resume else None, weights_only=True)


def flat(value, place=""):
    """The leaves of what is in a checkpoint, by their place, tensors as their bytes."""
    if isinstance(value, torch.Tensor):
        return {place: value.numpy().tobytes()}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else None
    if items is None:
        return {place: value}
    return {where: leaf for key, item in items for where, leaf in flat(item, f"{place}.{key}").items()}


def ending(directory):
    """What a run ended with: what its last and best checkpoint hold, to the bit, and its metrics."""
    last = read_checkpoint(directory / "last.ckpt")
    best = read_checkpoint(directory / "best.ckpt") if (directory / "best.ckpt").is_file() else last
    kept = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "training_loss", "epoch", "global_step")
    return {
        **flat({name: last[name] for name in kept}, "last"),
        **flat({name: last[name] for name in [WEIGHT_AVERAGE_KEY] if name in last}, "last"),
        **flat({name: best[name] for name in ("state_dict", "epoch", "global_step")}, "best"),
        "metrics": (directory / "metrics.csv").read_text(),
    }


def differences(directory, whole):
    ours, theirs = ending(directory), whole.ending
    return [place for place in {**ours, **theirs} if ours.get(place) != theirs.get(place)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Every run, never stopped: what it ended with, and its directory with each checkpoint that it wrote."""
    done = {}

    def whole_run(run):
        if run not in done:
            directory = tmp_path_factory.mktemp("whole")
            fit(directory, run, KeepAll(directory / "last.ckpt", directory / "kept"))
            done[run] = SimpleNamespace(directory=directory, ending=ending(directory))
        return done[run]

    return whole_run


def place_of(checkpoint):
    callbacks = read_checkpoint(checkpoint)["callbacks"]
    return next(state["place"] for name, state in callbacks.items() if name.startswith("LastCheckpoint"))


@pytest.mark.parametrize("run", RUNS)
def test_a_run_killed_after_any_checkpoint_ends_as_if_it_had_not_been(run, whole):
    directory = whole(run).directory
    kept = sorted((directory / "kept").glob("*.ckpt"))
    places = [place_of(checkpoint) for checkpoint in kept]
    # All before a validation and at the end of an epoch, and some of the many behind a batch.
    chosen = [kept[at] for at, place in enumerate(places) if place != "batch" or at % 4 == 1]
    for checkpoint in chosen:
        # All else is as it was at the run's end, and half a row more if there are rows to come.
        shutil.copy(checkpoint, directory / "last.ckpt")
        with (directory / "metrics.csv").open("a") as file:
            file.write("" if checkpoint == kept[-1] else "21,1,0.")
        fit(directory, run, resume=True)
        assert differences(directory, whole(run)) == [], f"from {checkpoint.stem}, {place_of(checkpoint)}"


@pytest.mark.parametrize("run", ["epochs", "validation inside the epoch", "validation across epochs"])
def test_a_run_goes_on_from_any_of_its_best_checkpoints_to_the_same_end(run, whole, tmp_path):
    # By the clock alone, so that there is no checkpoint of this callback's own in the same epoch.
    fit(tmp_path, run, KeepAll(tmp_path / "best.ckpt", tmp_path / "kept"), every_n_steps=None)
    kept = sorted((tmp_path / "kept").glob("*.ckpt"))
    assert len(kept) >= 2
    for checkpoint in kept:
        shutil.copy(checkpoint, tmp_path / "last.ckpt")
        fit(tmp_path, run, resume=True, every_n_steps=None)
        assert differences(tmp_path, whole(run)) == [], f"from {checkpoint.stem}"


def test_a_schedule_that_has_no_metric_to_look_at_does_not_keep_a_run_from_going_on(tmp_path):
    run = "a number of steps, that of the epochs"  # validated at the epoch's end, behind which the best are written
    fit(tmp_path, run, KeepAll(tmp_path / "best.ckpt", tmp_path / "kept"), every_n_steps=None)
    shutil.copy(tmp_path / "kept" / "001.ckpt", tmp_path / "last.ckpt")
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 7
    fit(tmp_path, run, resume=True, every_n_steps=None)
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 14


class CutShort(Callback):
    """Ends the fit inside an epoch, as ``max_time`` does behind a batch, or early stopping behind a validation."""

    def __init__(self, behind, step):
        self.behind, self.step = behind, step

    def on_train_batch_end(self, trainer, *args):
        if self.behind == "batch" and trainer.global_step == self.step:
            trainer.should_stop = True

    def on_validation_end(self, trainer, *args):
        if self.behind == "validation" and trainer.global_step == self.step:
            trainer.should_stop = True


@pytest.mark.parametrize(("behind", "step"), [("batch", 2), ("batch", 9), ("validation", 3)])
def test_a_run_that_is_cut_short_inside_an_epoch_goes_on_there(behind, step, whole, tmp_path):
    run = "validation inside the epoch"
    fit(tmp_path, run, CutShort(behind, step), every_n_steps=None)
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == step
    fit(tmp_path, run, resume=True, every_n_steps=None)
    assert differences(tmp_path, whole(run)) == []


def test_the_checkpoint_before_the_last_one_is_kept_but_not_one_that_was_there_before(tmp_path):
    fit(tmp_path, "no validation")
    steps = [read_checkpoint(tmp_path / name)["global_step"] for name in ("previous.ckpt", "last.ckpt")]
    assert steps == [13, 14]
    # The last one is damaged; the first that the next fit writes must not push it in the place of the one before.
    previous = (tmp_path / "previous.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(b"damaged")
    with pytest.raises(SystemExit):
        fit(tmp_path, "no validation", StopAt(1))
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 1
    assert (tmp_path / "previous.ckpt").read_bytes() == previous


def test_checkpoints_are_written_behind_batches_before_validations_and_at_the_end_of_epochs(whole):
    kept = sorted((whole("validation inside the epoch").directory / "kept").glob("*.ckpt"))
    told = [(place_of(checkpoint), read_checkpoint(checkpoint)["global_step"]) for checkpoint in kept]
    epoch = [("batch", 1), ("batch", 2), ("validation", 3), ("batch", 4), ("batch", 5), ("validation", 6), ("epoch", 7)]
    assert told == [*epoch, *((place, step + 7) for place, step in epoch)]


def test_a_checkpoint_names_no_row_that_is_not_written(whole):
    for run in RUNS:
        kept = sorted((whole(run).directory / "kept").glob("*.ckpt"))
        named = [read_checkpoint(checkpoint)["run_record"]["metric_rows"] for checkpoint in kept]
        files = [checkpoint.with_suffix(".csv") for checkpoint in kept]
        written = [len(file.read_text().splitlines()) - 1 if file.is_file() else 0 for file in files]
        assert named == written


@pytest.mark.parametrize("run", RUNS)
def test_a_run_stopped_again_and_again_ends_as_if_it_had_not_been(run, whole, tmp_path):
    moment, stops = 3, 0
    ended = False
    while not ended:
        ended = True
        try:
            # Every third step, so that most stops are where no checkpoint would be written otherwise.
            fit(tmp_path, run, StopAt(moment), resume=stops > 0, every_n_steps=3)
        except SystemExit:
            ended = False
            stops += 1
            moment += 1  # a validation begins again, and one stop later may come to its end
    assert stops >= 2
    assert differences(tmp_path, whole(run)) == []


def test_signals_end_a_fit_with_their_exit_code_and_their_handlers_with_it(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with pytest.raises(SystemExit) as stopped:
            fit(tmp_path / str(code), "epochs", StopAt(3, number))
        assert stopped.value.code == code
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
        assert read_checkpoint(tmp_path / str(code) / "last.ckpt")["global_step"] == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("hook", ["on_train_epoch_end", "on_train_end"])
def test_a_stop_behind_the_last_batch_is_heard_when_the_fit_is_complete(hook, number, code, whole, tmp_path):
    class Told(Callback):
        pass

    def tell(self, trainer, *args):
        if trainer.global_step == 3 * 7:
            os.kill(os.getpid(), number)

    setattr(Told, hook, tell)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path, "epochs", Told())
    assert stopped.value.code == code
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert differences(tmp_path, whole("epochs")) == []


def test_a_stop_of_a_fit_inside_another_keeps_its_code(tmp_path):
    class Inside(Callback):
        def on_train_epoch_end(self, trainer, *args):
            fit(tmp_path / "inside", "epochs", StopAt(3, signal.SIGINT))

    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path / "outside", "epochs", Inside())
    assert stopped.value.code == 130


def test_behind_a_fit_the_handlers_are_those_from_before_it(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    fit(tmp_path, "epochs")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_what_follows_a_stop_is_not_stopped(tmp_path):
    torch.manual_seed(0)
    model = RegularizedMLPClassifier(in_features=4, num_classes=3, hidden=(8,))
    data = GaussianBlobsDataModule(num_samples=160, num_features=4, num_classes=3, batch_size=16, eval_batch_size=10)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=[GracefulStop(), StopAt(3, signal.SIGINT)],
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with pytest.raises(SystemExit):
        trainer.fit(model, data)
    stopped_at = trainer.global_step
    trainer.validate(model, data, verbose=False)
    trainer.fit(model, data)  # with a sanity check, two batches of validation
    assert (stopped_at, trainer.global_step) == (1, 1 + 2 * 7)


@pytest.mark.parametrize("handler", [None, signal.SIG_IGN])
def test_a_handler_that_was_not_set_by_python_is_no_error(tmp_path, monkeypatch, handler):
    before = [signal.signal(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    stop = GracefulStop()
    monkeypatch.setattr(graceful_stop.signal, "signal", lambda number, new: handlers.append(new) or handler)
    monkeypatch.setattr(graceful_stop.signal, "getsignal", lambda number: stop._on_signal)
    handlers = []
    stop.on_train_start(SimpleNamespace(received_sigterm=False), None)
    stop.teardown(SimpleNamespace(world_size=1), None, "fit")
    assert handlers == [stop._on_signal] * 2 + ([] if handler is None else [handler] * 2)
    monkeypatch.undo()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_third_ctrl_c_ends_what_callbacks_do_behind_the_second(tmp_path):
    class Hang(Callback):
        def on_train_batch_start(self, trainer, *args):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

        def on_exception(self, trainer, *args):
            passed.append("on_exception")
            os.kill(os.getpid(), signal.SIGINT)
            passed.append("never")

    passed = []
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path, "epochs", Hang())
    finally:
        signal.signal(signal.SIGINT, handler)
    assert passed == ["on_exception"]


def test_a_second_ctrl_c_ends_a_step_that_hangs(tmp_path):
    class Hang(Callback):
        def on_train_batch_start(self, trainer, *args):
            if trainer.global_step == 2:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)  # the first one has not stopped it
                passed.append(trainer.global_step)
                os.kill(os.getpid(), signal.SIGINT)
                passed.append("never")

    passed = []
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit):
            fit(tmp_path, "epochs", Hang(), every_n_steps=1)
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning leaves it ignored
    assert passed == [2]
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 1  # the step that was complete, and written


def test_an_epoch_that_was_resumed_inside_has_its_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        fit(tmp_path, "epochs", StopAt(3))
    fit(tmp_path, "epochs", EpochProgress(), resume=True)
    lines = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert lines == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]


class Terminate(Callback):
    """Raises in another stage what a signal raises."""

    def stop(self, *args, **kwargs):
        raise SIGTERMException

    def __init__(self, hook):
        setattr(self, hook, self.stop)


@pytest.mark.parametrize("hook", ["on_fit_start", "on_train_start"])
def test_a_resumed_run_that_is_stopped_before_it_trains_leaves_its_checkpoint(hook, whole, tmp_path):
    run = "validation inside the epoch"
    with pytest.raises(SystemExit):
        fit(tmp_path, run, StopAt(5))
    before = (tmp_path / "last.ckpt").read_bytes()
    with pytest.raises(SystemExit):
        fit(tmp_path, run, Terminate(hook), resume=True)
    assert (tmp_path / "last.ckpt").read_bytes() == before
    fit(tmp_path, run, resume=True)
    assert differences(tmp_path, whole(run)) == []


def test_a_test_that_is_stopped_leaves_the_checkpoint(tmp_path):
    last = LastCheckpoint(tmp_path)
    options = {"accelerator": "cpu", "max_epochs": 1, "logger": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(**options, **quiet, callbacks=[GracefulStop(), last, Terminate("on_test_batch_start")])
    data = GaussianBlobsDataModule(num_samples=160, num_features=4, num_classes=3, batch_size=16)
    model = RegularizedMLPClassifier(in_features=4, num_classes=3, hidden=(8,))
    trainer.fit(model, data)
    before = last.path.read_bytes()
    torch.nn.init.zeros_(next(model.parameters()))  # as a test of the best checkpoint has other weights than the last
    with pytest.raises(SystemExit):
        trainer.test(model, data)
    assert last.path.read_bytes() == before


def test_a_stop_while_gradients_are_gathered_waits_for_the_step(tmp_path):
    with pytest.raises(SystemExit):
        fit(tmp_path, "accumulated gradients", StopAt(1))
    contents = read_checkpoint(tmp_path / "last.ckpt")
    batches = contents["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["completed"]
    assert (contents["global_step"], batches) == (1, 2)


def test_inside_a_long_epoch_a_checkpoint_is_written_by_the_clock(tmp_path):
    class Slow(Callback):
        def on_train_batch_start(self, trainer, *args):
            time.sleep(0.02)

    last = LastCheckpoint(tmp_path, every_seconds=0.05)
    keep = KeepAll(last.path, tmp_path / "kept")
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_val_batches=0,
        callbacks=[last, Slow(), keep],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = GaussianBlobsDataModule(num_samples=160, num_features=4, num_classes=3, batch_size=16)
    trainer.fit(RegularizedMLPClassifier(in_features=4, num_classes=3, hidden=(8,)), data)
    places = [place_of(checkpoint) for checkpoint in sorted((tmp_path / "kept").glob("*.ckpt"))]
    assert places[0] == "batch"
    assert places[-1] == "epoch"


@pytest.mark.parametrize("arguments", [{"every_n_steps": 0}, {"every_n_steps": True}, {"every_seconds": 0}])
def test_intervals_out_of_range_are_refused(arguments, tmp_path):
    with pytest.raises(ValueError, match=rf"^{next(iter(arguments))} must be"):
        LastCheckpoint(tmp_path, **arguments)
