"""The metrics of the multiclass task, against scikit-learn and computations by hand."""

import functools
import math

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from datamodules import BatchLoader
from zoo import (
    DropoutMLPClassifier,
    MLPClassifier,
    MulticlassClassification,
    RegularizedMLPClassifier,
    SoftmaxClassifier,
)
from zoo.tasks.top_k import TopKAccuracy


def of_arrays(score):
    """Older releases of scikit-learn take no tensors."""
    return lambda *values, **settings: score(*map(np.asarray, values), **settings)


accuracy_score, f1_score = map(of_arrays, [metrics.accuracy_score, metrics.f1_score])


def on_logits(num_classes, **arguments):
    """A task whose inputs are its logits."""
    return MulticlassClassification(network=nn.Identity(), num_classes=num_classes, **arguments)


def validate(trainer, task, logits, labels):
    """The metrics over batches of 4 and what is left of them."""
    result = trainer.validate(task, BatchLoader(logits, labels, batch_size=4), verbose=False)[0]
    return {name.removeprefix("val/"): value for name, value in result.items()}


def calibration_error(probabilities, labels):
    """In 15 bins of equal width, the last one closed."""
    confidences, right = [[] for _ in range(15)], [[] for _ in range(15)]
    for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
        index = min(int(max(row) * 15), 14)
        confidences[index].append(max(row))
        right[index].append(row.index(max(row)) == label)
    return sum(abs(sum(c) - sum(r)) for c, r in zip(confidences, right, strict=True)) / len(labels)


def in_top(k, logits, labels):
    ranked = [sorted(range(len(row)), key=row.__getitem__, reverse=True)[:k] for row in logits.tolist()]
    return sum(label in best for label, best in zip(labels.tolist(), ranked, strict=True)) / len(labels)


SCALES = {"spread": lambda x: 3 * x, "within 0 and 1": torch.sigmoid, "small": lambda x: 0.01 * x}


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("top_k", [2, 3, 5])
@pytest.mark.parametrize("size", [1, 7, 41])
def test_the_metrics_are_those_of_scikit_learn_and_by_hand(make_trainer, scale, top_k, size):
    # Logits between 0 and 1 a metric would take for probabilities, were it given them.
    logits, labels = scale(torch.randn(size, 5)), torch.randint(5, (size,))
    classes = logits.argmax(dim=1)
    assert validate(make_trainer(), on_logits(5, top_k=top_k), logits, labels) == pytest.approx(
        {
            "loss": (logits.exp().sum(dim=1).log() - logits[range(size), labels]).mean().item(),
            "accuracy": accuracy_score(labels, classes),
            "f1": f1_score(labels, classes, average="macro"),
            f"top{top_k}_accuracy": in_top(top_k, logits, labels),
            "ece": calibration_error(logits.softmax(dim=1), labels),
        },
        abs=1e-5,
    )


def test_a_probability_of_one_has_no_bin_of_its_own(make_trainer):
    # Seven samples whose class is certain, one of them wrong, and three of 0.98, all right: in one bin the two
    # errors take each other away in part.
    certain, likely = [60.0, 0.0], [math.log(0.98 / 0.02), 0.0]
    logits = torch.tensor([certain] * 7 + [likely] * 3)
    labels = torch.tensor([1, *[0] * 9])
    assert logits.softmax(dim=1).max() == 1.0
    expected = abs(7 * 1.0 + 3 * 0.98 - 9) / 10
    result = validate(make_trainer(), on_logits(2), logits, labels)
    assert result["ece"] == pytest.approx(expected, abs=1e-5)
    assert (result["accuracy"], result["top2_accuracy"]) == (pytest.approx(0.9), 1.0)


def test_a_class_that_is_neither_there_nor_predicted_does_not_lower_the_f1(make_trainer):
    logits, labels = torch.eye(4)[[0, 1, 1]], torch.tensor([0, 1, 0])
    assert validate(make_trainer(), on_logits(4), logits, labels)["f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "32-true", "64-true"])
def test_the_metrics_have_their_digits_at_any_precision(make_trainer, precision):
    logits, labels = torch.randn(1003, 3).bfloat16().float(), torch.arange(1003) % 3
    loader = BatchLoader(logits, labels, batch_size=10)
    result = make_trainer(precision=precision).validate(on_logits(3), loader, verbose=False)[0]
    assert result["val/ece"] == pytest.approx(calibration_error(logits.softmax(dim=1), labels), rel=1e-4)
    assert result["val/f1"] == pytest.approx(f1_score(labels, logits.argmax(dim=1), average="macro"), rel=1e-5)


@pytest.mark.parametrize("num_classes", [2, 10, 100])
@pytest.mark.parametrize("leaf", [SoftmaxClassifier, MLPClassifier, RegularizedMLPClassifier, DropoutMLPClassifier])
def test_the_first_loss_is_that_of_guessing(leaf, num_classes):
    task, labels = leaf(in_features=64, num_classes=num_classes), torch.arange(400) % num_classes
    first = task.compute_loss(task(torch.randn(400, 64)), labels).item()
    assert first == pytest.approx(math.log(num_classes), abs=0.3)
    even = leaf(in_features=64, num_classes=num_classes, init="zeros")
    assert even.compute_loss(even(torch.randn(400, 64)), labels).item() == pytest.approx(math.log(num_classes))


@pytest.mark.parametrize("leaf", [MLPClassifier, RegularizedMLPClassifier, DropoutMLPClassifier])
def test_one_batch_can_be_overfitted(leaf, make_trainer, list_logger):
    task = leaf(in_features=20, num_classes=4, hidden=(64,), optimizer=functools.partial(torch.optim.Adam, lr=1e-2))
    one = BatchLoader(torch.randn(12, 20), torch.arange(12) % 4, batch_size=12)
    make_trainer(max_epochs=60, logger=list_logger, check_val_every_n_epoch=60).fit(task, one, one)
    assert list_logger.values("val/loss")[59] < 0.05
    assert list_logger.values("val/accuracy")[59] == list_logger.values("val/f1")[59] == 1.0


@pytest.mark.parametrize("top_k", [2, 5, 7])
def test_top_k_accuracy_is_the_librarys(top_k):
    ours, theirs = TopKAccuracy(top_k), MulticlassAccuracy(7, average="micro", top_k=top_k, validate_args=False)
    generator = torch.Generator().manual_seed(0)
    for size in (1, 50, 1000):
        # A tenth's steps: many of them are equal.
        outputs = torch.randint(10, (size, 7), generator=generator) / 10
        targets = torch.randint(7, (size,), generator=generator)
        ours.update(outputs, targets)
        theirs.update(outputs, targets)
    assert ours.compute() == theirs.compute()
    assert (0.1 < ours.compute() < 0.95) == (top_k < 7)


def test_top_k_accuracy_by_hand():
    metric = TopKAccuracy(2)
    metric.update(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]), torch.tensor([1, 0, 0]))
    assert metric.compute() == pytest.approx(2 / 3)
    metric.reset()
    metric.update(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert metric.compute() == 0.0
