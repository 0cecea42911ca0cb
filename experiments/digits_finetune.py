"""Weights that read MNIST learn other digits from 500 samples: 98.06 %, from scratch 95.85 %, in 13 s.

The shipped weights of ``mnist_cnn`` with a new head, trained on 500 of scikit-learn's bundled digits, which were
scanned and scaled otherwise than MNIST's: twenty passes of one-cycle AdamW over all of the network. Beside it, under
each of three seeds, on the same samples and for as long: the same network from scratch, and with its trunk frozen, so
that the head alone learns. The learning rate is the best of three for the network from scratch. ``gain`` is the mean
accuracy of fine-tuning less that of training from scratch.

Measured with ``python -m experiments.scoreboard --only digits_finetune``, seeds 0 to 4: gain 2.20 % +- 1.00 (lowest
1.02), accuracy fine-tuned 98.06 % +- 0.51, with the trunk frozen 95.67 % +- 0.65, from scratch 95.85 % +- 0.78;
13.0 s +- 0.9 in all; Intel Xeon Processor, 2 threads; torch 2.15.0, lightning 2.6.6, Python 3.11.7, bfloat16.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from datamodules import MNISTDataModule
from experiments.claims import Claim
from experiments.runner import Experiment, launch, run, train_beside
from zoo import CNNClassifier, Task

_SEEDS = 3


def fine_tuned(
    freeze: str | None = None,
    num_classes: int = 10,
    optimizer: OptimizerCallable | None = None,
    scheduler: LRSchedulerCallable | None = None,
) -> CNNClassifier:
    """The shipped ``mnist_cnn`` with a new head.

    Args:
        freeze: ``"trunk"`` trains the head alone; ``None`` trains all of the network.
        num_classes: number of classes.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """
    return CNNClassifier.from_pretrained(
        "mnist_cnn", freeze=freeze, num_classes=num_classes, optimizer=optimizer, scheduler=scheduler
    )


def others_beside(task: Task, data: Any, trainer: Trainer) -> dict[str, float]:
    """Mean accuracies over seeds of fine-tuning, with and without its trunk frozen, and of training from scratch."""
    plain, optimizer, scheduler = dict(task.hparams), task._optimizer, task._scheduler
    makers: dict[str, Callable[[], Task]] = {
        "fine_tuned": partial(fine_tuned, None, data.num_classes, optimizer, scheduler),
        "frozen": partial(fine_tuned, "trunk", data.num_classes, optimizer, scheduler),
        "scratch": partial(CNNClassifier, optimizer=optimizer, scheduler=scheduler, **plain),
    }
    found = {name: statistics.mean(_accuracies(make, data, trainer)) for name, make in makers.items()}
    figures = {f"{name}/accuracy": value for name, value in found.items()}
    return {**figures, "gain": found["fine_tuned"] - found["scratch"]}


def _accuracies(make: Callable[[], Task], data: Any, trainer: Trainer) -> list[float]:
    """The test accuracy under each seed: of what is drawn for the weights, and of the order of the samples."""
    accuracies = []
    for number in range(_SEEDS):
        samples = copy.copy(data)  # the same ones
        samples.seed = data.seed + number
        torch.manual_seed(samples.seed)
        accuracies.append(train_beside(make(), samples, trainer)["accuracy"])
    return accuracies


EXPERIMENT = Experiment(
    name="digits_finetune",
    doc=__doc__,
    model=fine_tuned,
    data=MNISTDataModule,
    defaults={
        "trainer.max_epochs": 2,
        "model.optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.003, "weight_decay": 1e-4}},
        "model.scheduler": {"class_path": "zoo.optim.OneCycle"},
        "data.dataset": "digits",
        "data.train_size": 500,
        "data.batch_size": 50,
    },
    select="last",
    claims=[Claim("gain", 0.01, dataset="digits")],
    examine=others_beside,
    architecture="the CNN of mnist_cnn, fine-tuned with a new head on 500 digits; gain over training from scratch",
    reported={
        "fine_tuned/accuracy": "accuracy fine-tuned",
        "frozen/accuracy": "with the trunk frozen",
        "scratch/accuracy": "from scratch",
    },
    headline=("fine_tuned/accuracy", "scratch/accuracy", "seconds"),
)


def main(args: list[str] | None = None) -> dict[str, float]:
    """Run with the options in ``args`` (``None``: the defaults) and return the test metrics."""
    return run(EXPERIMENT, args)


if __name__ == "__main__":
    launch(main)
