"""What one process, and each rank of several, evaluates, reads from loaders and trains."""

from __future__ import annotations

import contextlib
import io
import logging
import signal
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torchmetrics import ExplainedVariance

from datamodules import BatchLoader, Padded
from datamodules.loader import EpochLoader
from experiments import linear_regression
from zoo import (
    BinaryClassification,
    DropoutMLPClassifier,
    GradientDescentRegression,
    MulticlassClassification,
    PolynomialRegressor,
    Regression,
    SequenceTranscription,
)
from zoo.callbacks import (
    WEIGHT_AVERAGE_KEY,
    ClassificationFigure,
    FigureWarning,
    GracefulStop,
    LastCheckpoint,
    LeanLoop,
    TrainingDoctor,
    WeightAverage,
)
from zoo.checkpointing import read_checkpoint
from zoo.networks import Recurrent
from zoo.optim import OneCycle
from zoo.tasks import ranks

SIZES = (1, 2, 5, 129, 10_000, 10_001)
FAMILIES = ("regression", "binary", "multiclass", "weighted_multiclass", "transcription")
GLOBAL_BATCH = 60  # divisible by 1, 2 and 3
MAX_NORM = 0.5  # less than what the weights begin with
SHARDED_BATCHES = (1, 33)
TRAININGS = ("plain", "weighted", "by_hand", "accumulated", "grouped", "drop_last", "max_norm")
PARTS = ((20, 20, 20), (7, 6, 6), (1, 1, 0), (1, 0, 0), (333, 333, 334))  # samples of a batch, by rank
# Of 14 steps, 7 an epoch: the first one, inside, the epoch's last, inside, the last; and twice behind that.
STOPS = (0, 4, 6, 10, 13, 14, 15)
TRAINING_SIZES = (1, 2, 5, 129, 1001)  # the last batch: 1, 2, 5, 9 and 41 samples


class Shards(EpochLoader):
    """Batches that are the numbers of their samples."""

    lengths: torch.Tensor | None = None

    def sample_lengths(self, epoch: int) -> torch.Tensor | None:
        return self.lengths

    def make_batch(self, chosen: torch.Tensor | slice, epoch: int, seed: int) -> list[int]:
        return torch.arange(self.num_samples)[chosen].tolist()


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trainer_of(world: int, **arguments: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=world,
        strategy="ddp" if world > 1 else "auto",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"enable_checkpointing": False, **arguments},
    )


def task_of(family: str, **arguments: Any) -> Any:
    torch.manual_seed(1)
    if family == "regression":
        metrics = {"explained_variance": ExplainedVariance()}  # states that take their type from the first batch
        return Regression(nn.Linear(3, 2), metrics=metrics, **arguments)
    if family == "binary":
        return BinaryClassification(nn.Linear(3, 1), pos_weight=2.0, **arguments)
    if family == "multiclass":
        return MulticlassClassification(nn.Linear(3, 4), 4, label_smoothing=0.1, **arguments)
    if family == "weighted_multiclass":
        return MulticlassClassification(nn.Linear(3, 4), 4, class_weights=(1.0, 3.0, 0.5, 2.0), **arguments)
    return SequenceTranscription(Recurrent(2, 4, 4, read="every"), alphabet="abc", **arguments)


def samples_of(family: str, size: int) -> tuple[Any, Any]:
    generator = drawn(size)
    features = torch.randn(10_001, 3, generator=generator)[:size]
    if family == "regression":
        return features, 100.0 + features[:, :2] + torch.randn(size, 2, generator=generator)
    if family == "binary":
        return features, (features[:, 0] + torch.randn(size, generator=generator) > 0).long()
    if "multiclass" in family:
        return features, torch.randint(4, (size,), generator=generator)
    lengths = torch.randint(4, 8, (size,), generator=generator)
    words = torch.randint(1, 4, (size, 2), generator=generator)
    return (
        Padded(torch.randn(size, 7, 2, generator=generator), lengths),
        Padded(words, torch.randint(1, 3, (size,), generator=generator), labels=True),
    )


def evaluated(world: int) -> dict[Any, Any]:
    """The metrics of each family on sets of each size, by validate and by test."""
    results = {}
    for family in FAMILIES:
        task = task_of(family)
        trainer = trainer_of(world)
        for size in SIZES:
            loader = BatchLoader(*samples_of(family, size), batch_size=1000)
            [validated] = trainer.validate(task, loader, verbose=False)
            [tested] = trainer.test(task, loader, verbose=False)
            results[family, size] = {**validated, **tested}
    return results


def sharded() -> dict[Any, Any]:
    """The samples of two epochs as this rank gets them: the batches, and which of them stand in."""
    results = {}
    for size in SIZES:
        for batch in SHARDED_BATCHES if size < 10_000 else SHARDED_BATCHES[1:]:
            for options in ({}, {"drop_last": True}, {"group_by_length": True}):
                try:
                    loader = Shards(size, batch, shuffle=True, seed=3, **options)
                except ValueError as error:
                    results[(size, batch, *options)] = str(error)
                    continue
                loader.lengths = torch.randint(1, 30, (size,), generator=drawn(size))
                epochs = [[(part, loader.stands_in(index)) for index, part in enumerate(loader)] for _ in range(2)]
                results[(size, batch, *options)] = epochs
    return results


def trained(world: int) -> dict[Any, Any]:
    """Weights and logged losses of two epochs with the same global batches, whatever the number of ranks."""
    return {(kind, size): _trained(world, kind, size) for kind in TRAININGS for size in TRAINING_SIZES}


def _trained(world: int, kind: str, size: int) -> Any:
    torch.manual_seed(1)
    options: dict[str, Any] = {"drop_last": kind == "drop_last", "group_by_length": kind == "grouped"}
    families = {"grouped": "transcription", "weighted": "weighted_multiclass", "by_hand": "regression"}
    family = families.get(kind, "multiclass")
    if kind == "drop_last" and size < GLOBAL_BATCH:
        return None
    if kind == "by_hand":
        torch.manual_seed(1)
        task: Any = GradientDescentRegression(nn.Linear(3, 2), lr=0.1, loss="huber")
    elif kind == "max_norm":
        optimizer = partial(torch.optim.SGD, lr=0.5, momentum=0.9)
        arguments = {"hidden": (8, 8), "dropout": 0.0, "input_dropout": 0.0, "max_norm": MAX_NORM}
        task = DropoutMLPClassifier(3, 4, **arguments, optimizer=optimizer)
    else:
        task = task_of(family, optimizer=partial(torch.optim.SGD, lr=0.5, momentum=0.9))
    loader = BatchLoader(*samples_of(family, size), batch_size=GLOBAL_BATCH // world, shuffle=True, seed=3, **options)
    accumulate = 3 if kind == "accumulated" else 1
    trainer = trainer_of(
        world, max_epochs=2, accumulate_grad_batches=accumulate, log_every_n_steps=1, limit_val_batches=0
    )
    trainer.fit(task, loader, loader)
    losses = {name: float(value) for name, value in trainer.logged_metrics.items()}
    return {name: value.detach().clone() for name, value in task.named_parameters()}, losses, trainer.global_step


def fitted_with_batch_norm(world: int, size: int, *callbacks: Callback) -> Any:
    """The validation metrics of a fit, and those of the model that the first rank then has."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    task = MulticlassClassification(network, 4)
    train = BatchLoader(*samples_of("multiclass", 120), batch_size=20, shuffle=True)
    val = BatchLoader(*samples_of("multiclass", size), batch_size=20)
    trainer = trainer_of(world, max_epochs=1, log_every_n_steps=1, callbacks=list(callbacks))
    trainer.fit(task, train, val)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    [again] = trainer_of(world).validate(task, val, verbose=False)  # every rank begins with the first one's state
    return logged, again


def averaged(world: int) -> dict[str, torch.Tensor]:
    """The averaged weights of a fit, and those that it would go on with."""
    task = task_of("multiclass", optimizer=partial(torch.optim.SGD, lr=0.5, momentum=0.9))
    loader = BatchLoader(*samples_of("multiclass", 129), batch_size=GLOBAL_BATCH // world, shuffle=True, seed=3)
    trainer = trainer_of(world, max_epochs=2, log_every_n_steps=1, callbacks=[WeightAverage(decay=0.5)])
    trainer.fit(task, loader, BatchLoader(*samples_of("multiclass", 5), batch_size=5))
    dumped = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    trained = {f"trained {name}": value.clone() for name, value in dumped[WEIGHT_AVERAGE_KEY]["trained"].items()}
    return {**trained, **{name: value.detach().clone() for name, value in task.named_parameters()}}


def weighed(world: int) -> dict[Any, Any]:
    """This rank's losses of batches of which it has the given parts, scaled with and without the known sum."""
    rank = torch.distributed.get_rank() if world > 1 else 0
    results = {}
    for parts in PARTS if world > 1 else ():
        loss = torch.rand((), generator=drawn(rank)) + 0.1
        both = ranks.weigh(loss, parts[rank], sum(parts[:world])), ranks.weigh(loss, parts[rank])
        results[parts] = loss.item(), *(scaled.item() for scaled in both)
    return results


class Broadcasts(Callback):
    """Notes whether buffers are sent before the next batch."""

    def __init__(self) -> None:
        self.seen: set[bool] = set()

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.seen.add(bool(getattr(trainer.strategy.model, "broadcast_buffers", False)))


def with_buffers(world: int) -> dict[str, Any]:
    """Whether buffers were sent in a fit, this rank's afterwards, and the metrics of the last validation."""
    results = {}
    apart = ranks.keep_batch_norms_apart
    for kind in ("apart", "sent", "polynomial", "polynomial with norm"):
        torch.manual_seed(1)
        # Each rank has other samples, and other statistics of them.
        features, labels = samples_of("multiclass", 130)
        task: Any
        if kind in ("apart", "sent"):
            network = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
            task = MulticlassClassification(network, 4, optimizer=partial(torch.optim.SGD, lr=0.1))
            data = (features, labels)
        else:
            task = PolynomialRegressor(degree=2, in_features=3, optimizer=partial(torch.optim.SGD, lr=0.01))
            if kind == "polynomial with norm":
                task.network = nn.Sequential(nn.BatchNorm1d(3), task.network)
            data = (features, features[:, :1])
        train, val = (BatchLoader(*data, batch_size=12 // world, shuffle=shuffle) for shuffle in (True, False))
        broadcasts = Broadcasts()
        trainer = trainer_of(world, max_epochs=2, log_every_n_steps=1, callbacks=[broadcasts])
        ranks.keep_batch_norms_apart = apart if kind != "sent" else lambda module, wrapped: None
        try:
            trainer.fit(task, train, val)
        finally:
            ranks.keep_batch_norms_apart = apart
        logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        buffers = {name: value.clone() for name, value in task.network.named_buffers()}
        weights = {name: value.detach().clone() for name, value in task.network.named_parameters()}
        results[kind] = {"sent": sorted(broadcasts.seen), "buffers": buffers, "weights": weights, "logged": logged}
    return results


class TellsOneRank(Callback):
    """Sends SIGTERM to one rank alone, in the midst of a step, at the end of the last epoch or at that of training."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_zero_grad(self, trainer: Trainer, *args: Any) -> None:
        self._tell(trainer, trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == 14:
            self._tell(trainer, 14)  # when the others have been asked about this epoch

    def on_train_end(self, trainer: Trainer, *args: Any) -> None:
        self._tell(trainer, 15)

    def _tell(self, trainer: Trainer, step: int) -> None:
        if step == self.step and trainer.global_rank == trainer.world_size - 1:
            signal.raise_signal(signal.SIGTERM)


def stopped(world: int, directory: Path) -> Any:
    """A fit of two epochs, and, for each step of a signal: exit code, steps, whether it can go on, and what follows."""
    whole = _fitted_for(world, directory / f"never{world}")
    results = {}
    for step in STOPS:
        folder = directory / f"stopped{world}_{step}"
        # None of the other ranks' callbacks knows that one was told.
        code, steps, _ = _fitted_for(world, folder, TellsOneRank(step))
        can_go_on = (folder / "last.ckpt").is_file()
        results[step] = code, steps, can_go_on, _fitted_for(world, folder, resume=can_go_on)
    return whole, results


def stopped_seldom(world: int, directory: Path) -> Any:
    """The same, of ranks that ask each other seldom, for a stop in the second step."""
    whole = _fitted_for(world, directory / f"never_seldom{world}")
    folder = directory / f"seldom{world}"
    code, steps, _ = _fitted_for(world, folder, TellsOneRank(1), interval=3600.0)
    return whole, (code, steps, _fitted_for(world, folder, resume=True))


def _fitted_for(world: int, folder: Path, *callbacks: Callback, resume: bool = False, interval: float = 0.0) -> Any:
    """Exit code, steps and weights."""
    task = task_of("multiclass", optimizer=partial(torch.optim.SGD, lr=0.5, momentum=0.9), scheduler=OneCycle)
    train, val = (
        BatchLoader(*samples_of("multiclass", 130), batch_size=18 // world, shuffle=shuffle, drop_last=shuffle)
        for shuffle in (True, False)
    )
    # LastCheckpoint is there in both, so that a resumed run knows where it is.
    ours = [LeanLoop(), GracefulStop(interval), LastCheckpoint(folder)]
    options = {"max_epochs": 2, "log_every_n_steps": 1, "enable_checkpointing": True}
    trainer = trainer_of(world, **options, callbacks=[*ours, *callbacks])
    code = None
    try:
        trainer.fit(task, train, val, ckpt_path=str(folder / "last.ckpt") if resume else None, weights_only=True)
    except SystemExit as stop:
        code = stop.code
    return code, trainer.global_step, {name: value.detach().clone() for name, value in task.named_parameters()}


class Calls(Callback):
    """Notes the hooks of training, and whether the loop was the lean one."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.lean: set[bool] = set()

    def _note(self, name: str, trainer: Trainer) -> None:
        self.names.append(f"{name} {trainer.global_step}")
        self.lean.add(getattr(trainer.fit_loop.epoch_loop, "is_lean", False))

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self._note("start", trainer)

    def on_before_backward(self, trainer: Trainer, *args: Any) -> None:
        self._note("before backward", trainer)

    def on_after_backward(self, trainer: Trainer, *args: Any) -> None:
        self._note("after backward", trainer)

    def on_before_optimizer_step(self, trainer: Trainer, *args: Any) -> None:
        self._note("before step", trainer)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self._note("end", trainer)

    def on_validation_end(self, trainer: Trainer, *args: Any) -> None:
        self._note("validated", trainer)


def lean(world: int) -> dict[bool, Any]:
    """Calls, weights and logged values of a fit with norm, clipping and a schedule, with the lean loop and without."""
    results = {}
    for is_lean in (False, True):
        torch.manual_seed(1)
        network = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
        task = MulticlassClassification(
            network, 4, optimizer=partial(torch.optim.SGD, lr=0.5, momentum=0.9), scheduler=OneCycle
        )
        train, val = (
            BatchLoader(*samples_of("multiclass", 126), batch_size=18 // world, shuffle=shuffle)
            for shuffle in (True, False)
        )
        calls = Calls()
        callbacks = [*([LeanLoop()] if is_lean else []), GracefulStop(), calls]
        trainer = trainer_of(
            world, max_epochs=2, log_every_n_steps=3, gradient_clip_val=0.1, val_check_interval=3, callbacks=callbacks
        )
        trainer.fit(task, train, val)
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        state = {name: value.clone() for name, value in task.state_dict().items()}
        results[is_lean] = {"lean": calls.lean, "calls": calls.names, "logged": logged, "state": state}
    return results


def untouched_loader(world: int) -> Any:
    """What a foreign module sees of a loader under the trainer's defaults, and what the trainer made of the loader."""
    module = Recorder()
    loader = BatchLoader(torch.arange(7.0)[:, None], torch.arange(7), batch_size=6 // world)
    trainer = trainer_of(world)
    trainer.test(module, loader, verbose=False)
    return module.seen, trainer.test_dataloaders is loader


class Recorder(LightningModule):
    """Anyone's module: it notes the targets it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen: list[int] = []

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.seen += batch[1].tolist()


class Seen(ClassificationFigure):
    """Notes what it would draw, if this process draws."""

    with_inputs = True
    found: Any = None

    def draw(self, trainer: Trainer, predictions: Any) -> None:
        worst = predictions.worst
        order = predictions.probabilities[:, 0].argsort()  # ranks have the samples in another order
        self.found = predictions.probabilities[order], predictions.classes[order], worst.inputs, worst.confidences


def drawn_figures(world: int) -> dict[int, Any]:
    """What there was to draw of tests of several sizes; with a single sample some ranks have none."""
    found = {}
    for size in (1, 5, 129):
        figure = Seen()
        loader = BatchLoader(*samples_of("multiclass", size), batch_size=10)
        trainer_of(world, callbacks=[figure]).test(task_of("multiclass"), loader, verbose=False)
        found[size] = figure.found
    return found


class BrokenOnOne(ClassificationFigure):
    """Cannot follow the test in the last process."""

    def on_test_batch_end(self, trainer: Trainer, *args: Any) -> None:
        super().on_test_batch_end(trainer, *args)
        if trainer.global_rank == trainer.world_size - 1:
            self._recorder.error = ValueError("spoilt")  # type: ignore[union-attr]


def broken_figure(world: int) -> Any:
    """What a test whose figure fails in one process comes to: the loss, and the warnings in this process."""
    loader = BatchLoader(*samples_of("multiclass", 129), batch_size=10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FigureWarning)
        trainer = trainer_of(world, callbacks=[BrokenOnOne()])
        [metrics] = trainer.test(task_of("multiclass"), loader, verbose=False)
    said = [str(each.message) for each in caught if issubclass(each.category, FigureWarning)]
    return float(metrics["test/loss"]), said


def watched(world: int) -> Any:
    """What a doctor saw in this process: gradient norms, samples, findings, notes; and the weights it ended with."""
    doctor = TrainingDoctor(looks=10, overfit_batch=True, draws=False)
    loader = BatchLoader(*samples_of("multiclass", 1001), batch_size=GLOBAL_BATCH // world, shuffle=True)
    task = task_of("multiclass", optimizer=partial(torch.optim.SGD, lr=0.01))
    trainer = trainer_of(world, max_epochs=2, callbacks=[LeanLoop(), doctor])
    trainer.fit(task, loader, BatchLoader(*samples_of("multiclass", 5), batch_size=5))
    looks = doctor.history.looks
    seen = [look.gradient_norm for look in looks], [look.samples for look in looks]
    return *seen, [each.name for each in doctor.findings], doctor.notes, task.state_dict()


def experimented(world: int, directory: Path) -> Any:
    """Test metrics and weights of an experiment, and of one stopped after half of its epochs and resumed."""
    shared = ["--tracking", "none", "--data.num_samples", "400", "--data.batch_size", str(60 // world)]
    shared += ["--data.val_size", "1", "--model.scheduler", "Constant"]
    shared += [
        "--trainer.devices",
        str(world),
        "--trainer.accelerator",
        "cpu",
        "--trainer.enable_progress_bar",
        "false",
    ]
    shared += ["--trainer.strategy", "ddp" if world > 1 else "auto"]
    whole, halves = (str(directory / f"{name}{world}") for name in ("whole", "halves"))
    metrics = linear_regression.main([*shared, "--run_dir", whole, "--trainer.max_epochs", "2"])
    linear_regression.main([*shared, "--run_dir", halves, "--trainer.max_epochs", "1"])
    again = linear_regression.main(["--resume", halves, "--trainer.max_epochs", "2"])
    states = [read_checkpoint(f"{run}/checkpoints/last.ckpt")["state_dict"] for run in (whole, halves)]
    return (metrics, states[0]), (again, states[1])


def run_all(world: int, directory: Path) -> dict[str, Any]:
    """Every case once.

    Args:
        world: the number of processes.
        directory: for what they write, the same for all.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        return {
            "evaluated": evaluated(world),
            "sharded": sharded(),
            "trained": trained(world),
            "batch_norm": {size: fitted_with_batch_norm(world, size) for size in (1, 129)},
            "batch_norm_averaged": fitted_with_batch_norm(world, 129, WeightAverage(decay=0.5)),
            "averaged": averaged(world),
            "weighed": weighed(world),
            "buffers": with_buffers(world),
            "stopped": stopped(world, directory),
            "stopped_seldom": stopped_seldom(world, directory),
            "lean": lean(world),
            "untouched": untouched_loader(world),
            "figures": drawn_figures(world),
            "broken_figure": broken_figure(world),
            "watched": watched(world),
            "experimented": experimented(world, directory),
        }
