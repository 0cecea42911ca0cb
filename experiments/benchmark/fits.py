"""Our full-featured ``fit`` and ``test`` against a plain loop that does the same arithmetic."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from datamodules import BatchLoader, Split
from experiments import linear_regression, mnist_cnn, mnist_mlp
from experiments.benchmark.comparison import Comparison, Pair, alternate
from experiments.benchmark.plain import PlainData, PlainFit, precision_context
from experiments.command_line import Experiment, ExperimentCLI
from experiments.console import quiet
from zoo.tracking import ResilientWandbLogger

CNN = (mnist_cnn.EXPERIMENT, ("--trainer.max_epochs", "2", "--data.batch_size", "256", "--data.augment", "null"))
MLP = (
    mnist_mlp.EXPERIMENT,
    (
        *("--trainer.max_epochs", "2", "--model.hidden", "[256]", "--data.batch_size", "64"),
        *("--data.augment", "null"),
    ),
)
LINEAR = (
    linear_regression.EXPERIMENT,
    # Of which 10,000 are for training.
    ("--trainer.max_epochs", "10", "--data.num_samples", "14286", "--data.batch_size", "32"),
)

Case = tuple[Experiment, Sequence[str]]


class UnequalWeightsError(RuntimeError):
    """The two loops that are compared did not do the same."""


class _Terminal(io.StringIO):
    """Takes what is printed, and lets a progress bar believe that somebody is watching."""

    def isatty(self) -> bool:
        return True


@contextlib.contextmanager
def prepared(case: Case, *options: str) -> Iterator[ExperimentCLI]:
    """An experiment ready to fit, with its data at hand, its W&B run started offline, and a bar on a terminal."""
    experiment, arguments = case
    with (
        tempfile.TemporaryDirectory() as folder,
        _offline(),
        quiet(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(_Terminal()),
    ):
        # What figures cost is in a run's seconds, and in the rows of whole processes.
        place = ("--run_dir", str(Path(folder) / "run"), "--trainer.accelerator", "auto", "--figures", "none")
        cli = ExperimentCLI(experiment, [*place, *arguments, *options], None)
        cli.datamodule.prepare_data()
        cli.datamodule.setup("fit")
        try:
            yield cli
        finally:
            for logger in cli.loggers:
                if isinstance(logger, ResilientWandbLogger):
                    logger.finish()


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    before = os.environ.get("WANDB_MODE")
    os.environ["WANDB_MODE"] = "offline"
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_MODE"]
        else:
            os.environ["WANDB_MODE"] = before


def compare_fits(case: Case, rounds: int, *options: str) -> Iterator[Pair]:
    """Seconds of our ``fit`` and of the plain loop, from the same weights, over the same batches.

    Raises:
        UnequalWeightsError: they did not end with the same weights.
    """
    for number in range(rounds):
        with prepared(case, *options) as cli:
            plain = copy.deepcopy(cli.model.network)
            baseline = _plain_fit(cli, plain)
            if number % 2:
                theirs = _seconds(baseline)
                ours = _seconds(lambda: cli.trainer.fit(cli.model, cli.datamodule))
            else:
                ours = _seconds(lambda: cli.trainer.fit(cli.model, cli.datamodule))
                theirs = _seconds(baseline)
            _check_equal(cli.model.network, plain)
        yield Pair(ours, theirs, f"{cli.trainer.global_step} steps, weights equal")


def _plain_fit(cli: ExperimentCLI, network: nn.Module) -> Callable[[], Any]:
    """The plain loop for an experiment, ready to run."""
    task: Any = cli.model
    data: Any = cli.datamodule
    device = cli.trainer.strategy.root_device
    loader = data.train_dataloader()
    orders = [_order(loader, epoch).to(device) for epoch in range(cli.trainer.max_epochs or 0)]
    steps = len(loader)
    network.to(device)
    optimizer = task._optimizer(list(network.parameters()))
    schedule = None if task._scheduler is None else task._scheduler(optimizer)
    if schedule is not None:
        schedule.total_steps = steps * len(orders)
        schedule.refresh()
    fit = PlainFit(
        network,
        task.compute_loss,
        optimizer,
        schedule,
        precision=precision_context(cli.config.trainer.precision, device),
        batch_size=data.batch_size,
        eval_batch_size=data.eval_batch_size,
    )
    train, val = (_plain_data(data, split, device) for split in (data.splits.train, data.splits.val))
    return lambda: fit.run(train, val, orders, steps)


def _order(loader: BatchLoader, epoch: int) -> Tensor:
    order = loader._order(epoch)
    assert isinstance(order, Tensor)
    return order


def _plain_data(data: Any, split: Split, device: torch.device) -> PlainData:
    assert isinstance(split.features, Tensor)
    assert isinstance(split.targets, Tensor)
    if data.mean is None:
        return PlainData(split.features.to(device), split.targets.to(device), lambda features: features)
    mean, std = data.mean.to(device), data.std.to(device)
    return PlainData(
        split.features.to(device),
        split.targets.to(device),
        lambda features: features.to(torch.float32, copy=True).sub_(mean).div_(std),
    )


def _check_equal(ours: nn.Module, plain: nn.Module) -> None:
    states = zip(ours.state_dict().items(), plain.state_dict().values(), strict=True)
    for (name, value), other in states:
        # On a GPU sums are not always taken in the same order.
        if not (torch.allclose(value, other, rtol=1e-2) if value.is_cuda else torch.equal(value, other)):
            raise UnequalWeightsError(f"{name} differs between our fit and the plain loop: they did not do the same")


def compare_evaluations(rounds: int) -> Iterator[Pair]:
    """Seconds of ``trainer.test`` and of a plain pass over the test images that gives loss and accuracy.

    Raises:
        UnequalWeightsError: they do not find the same accuracy.
    """
    with prepared(CNN, "--tracking", "none") as cli:
        data: Any = cli.datamodule
        device = cli.trainer.strategy.root_device
        network = copy.deepcopy(cli.model.network).to(device)
        images = _plain_data(data, data.splits.test, device)
        baseline = PlainFit(
            network,
            cli.model.compute_loss,
            torch.optim.SGD(network.parameters(), lr=0.1),  # unused
            None,
            precision=precision_context(cli.config.trainer.precision, device),
            batch_size=data.batch_size,
            eval_batch_size=data.eval_batch_size,
        )
        [found] = cli.trainer.test(cli.model, cli.datamodule, verbose=False)  # and a first pass, for the caches
        _, accuracy = baseline.evaluate(images)
        if abs(found["test/accuracy"] - accuracy) > 1e-6:
            raise UnequalWeightsError(f"trainer.test finds accuracy {found['test/accuracy']}, a plain pass {accuracy}")
        pairs = list(
            alternate(
                lambda: _seconds(lambda: cli.trainer.test(cli.model, cli.datamodule, verbose=False)),
                lambda: _seconds(lambda: baseline.evaluate(images)),
                rounds,
            )
        )
    yield from pairs  # not before: what is printed in there is not shown


def _seconds(action: Callable[[], Any]) -> float:
    _synchronize()
    started = time.perf_counter()
    action()
    _synchronize()
    return time.perf_counter() - started


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


_FULL = "fit with W&B offline, CSV, progress bar, checkpoints and validation"
_PLAIN = "plain loop with the same batches, steps, validation and final weights"

COMPARISONS = [
    Comparison(
        "fit_cnn",
        f"{_FULL}: mnist_cnn's network, batch 256, 2 epochs",
        _PLAIN,
        "s",
        must=1.08,
        aim=1.03,
        measure=lambda rounds: compare_fits(CNN, rounds),
    ),
    Comparison(
        "fit_mlp",
        f"{_FULL}: MLP 784-256-10, batch 64, 2 epochs",
        _PLAIN,
        "s",
        must=1.30,
        aim=1.15,
        measure=lambda rounds: compare_fits(MLP, rounds),
    ),
    Comparison(
        "fit_linear",
        f"{_FULL}: linear regression, 10,000 rows in training, batch 32, 10 epochs",
        _PLAIN,
        "s",
        must=1.8,
        aim=1.3,
        measure=lambda rounds: compare_fits(LINEAR, rounds),
    ),
    Comparison(
        "test",
        "trainer.test on the test images with all metrics",
        "one plain batched pass for loss and accuracy",
        "s",
        must=1.3,
        aim=1.1,
        measure=compare_evaluations,
    ),
]
