import functools
import math

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import nn

from datamodules import BatchLoader, TensorDataModule
from zoo import BinaryClassification, BinaryMLPClassifier, NonFiniteLossError, PerceptronClassifier, TargetError


def of_arrays(score):
    """Older releases of scikit-learn take no tensors."""
    return lambda *values, **settings: score(*map(np.asarray, values), **settings)


accuracy_score, average_precision_score, f1_score, roc_auc_score = map(
    of_arrays, [metrics.accuracy_score, metrics.average_precision_score, metrics.f1_score, metrics.roc_auc_score]
)


ADAM = functools.partial(torch.optim.Adam, lr=0.05)


def on_logits(**arguments):
    """A task whose inputs are its logits."""
    return BinaryClassification(network=nn.Identity(), **arguments)


def validate(trainer, task, logits, labels):
    """The metrics over batches of 4 and what is left of them."""
    result = trainer.validate(task, BatchLoader(logits, labels, batch_size=4), verbose=False)[0]
    return {name.removeprefix("val/"): value for name, value in result.items()}


def cross_entropy(logits, labels, pos_weight=1.0):
    total = 0.0
    for logit, label in zip(logits.flatten().tolist(), labels.tolist(), strict=True):
        probability = 1.0 / (1.0 + math.exp(-logit))
        total -= pos_weight * math.log(probability) if label else math.log(1.0 - probability)
    return total / len(labels)


# ---------------------------------------------------------------------- the loss


@pytest.mark.parametrize("pos_weight", [None, 1.0, 0.25, 7, 1e-3])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_the_loss_is_binary_cross_entropy_by_hand(pos_weight, dtype):
    logits, labels = torch.tensor([2.0, -1.0, 0.0, 4.5, -3.0]), torch.tensor([1, 1, 0, 0, 0])
    loss = on_logits(pos_weight=pos_weight).compute_loss(logits, labels.to(dtype))
    assert loss.item() == pytest.approx(cross_entropy(logits, labels, pos_weight or 1.0), rel=1e-5)


def test_the_loss_of_a_logit_far_out_is_finite():
    logits, labels = torch.tensor([500.0, -500.0], requires_grad=True), torch.tensor([0, 1])
    loss = on_logits().compute_loss(logits, labels)
    loss.backward()
    assert (loss.item(), logits.grad.tolist()) == (500.0, [0.5, -0.5])


@pytest.mark.parametrize("leaf", [PerceptronClassifier, BinaryMLPClassifier])
def test_the_first_loss_is_that_of_guessing(leaf):
    task, labels = leaf(in_features=20), torch.arange(400) % 2
    assert task.compute_loss(task(torch.randn(400, 20)), labels).item() == pytest.approx(math.log(2), abs=0.15)
    even = leaf(in_features=20, init="zeros", pos_weight=3.0)
    assert even.compute_loss(even(torch.randn(400, 20)), labels).item() == pytest.approx(2.0 * math.log(2))


def test_one_batch_can_be_overfitted(make_trainer, list_logger):
    task = BinaryMLPClassifier(in_features=5, hidden=(32,), optimizer=ADAM)
    one = BatchLoader(torch.randn(12, 5), torch.arange(12) % 2, batch_size=12)
    make_trainer(max_epochs=60, logger=list_logger, check_val_every_n_epoch=60).fit(task, one, one)
    assert list_logger.values("train/loss")[0] == pytest.approx(math.log(2), abs=0.2)
    assert list_logger.values("val/loss")[59] < 0.02
    assert [list_logger.values(f"val/{name}")[59] for name in ("accuracy", "f1", "auroc")] == [1.0, 1.0, 1.0]


# ---------------------------------------------------------------------- metrics


SCALES = {"spread": lambda x: 3 * x, "within 0 and 1": torch.sigmoid, "small": lambda x: 0.01 * x, "ties": torch.round}


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.62])
@pytest.mark.parametrize("shape", [(41,), (41, 1), (2, 1)])
def test_the_metrics_are_those_of_scikit_learn(make_trainer, scale, threshold, shape):
    # Logits between 0 and 1 a metric would take for probabilities, were it given them.
    logits, labels = scale(torch.randn(shape)), torch.arange(len(torch.empty(shape))) % 3 % 2
    probabilities = logits.flatten().sigmoid()
    classes = (probabilities > threshold).long()
    assert validate(make_trainer(), on_logits(threshold=threshold), logits, labels) == pytest.approx(
        {
            "loss": cross_entropy(logits, labels),
            "accuracy": accuracy_score(labels, classes),
            "f1": f1_score(labels, classes, zero_division=0),
            "auroc": roc_auc_score(labels, probabilities),
            "average_precision": average_precision_score(labels, probabilities),
        },
        rel=1e-5,
    )


@pytest.mark.parametrize("size", [1, 9])
@pytest.mark.parametrize("label", [0, 1])
def test_a_ranking_of_one_class_is_not_defined(make_trainer, size, label):
    result = validate(make_trainer(), on_logits(), torch.ones(size, 1), torch.full((size,), label))
    assert (result["accuracy"], result["f1"]) == (label, label)
    assert math.isnan(result["auroc"])
    assert result["average_precision"] == 1.0 if label else math.isnan(result["average_precision"])


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "32-true", "64-true"])
def test_losses_and_metrics_have_their_digits_at_any_precision(make_trainer, precision):
    logits, labels = torch.randn(1003, 1).bfloat16().float(), torch.arange(1003) % 2
    loader = BatchLoader(logits, labels, batch_size=10)
    result = make_trainer(precision=precision).validate(on_logits(pos_weight=3.0), loader, verbose=False)[0]
    assert result["val/loss"] == pytest.approx(cross_entropy(logits, labels, 3.0), rel=1e-4)
    assert result["val/auroc"] == pytest.approx(roc_auc_score(labels, logits.flatten()), rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "32-true", "64-true"])
def test_a_model_trains_at_any_precision(make_trainer, precision):
    features = torch.randn(200, 2)
    data = TensorDataModule(features, features[:, 0] > features[:, 1], batch_size=20, val_size=40, seed=0)
    trainer = make_trainer(max_epochs=4, precision=precision)
    trainer.fit(PerceptronClassifier(optimizer=ADAM), data)
    assert trainer.callback_metrics["val/auroc"] > 0.95


# ---------------------------------------------------------------------- predictions


def test_predictions_are_probabilities_and_classes_at_the_threshold(make_trainer):
    logits, labels = torch.tensor([[-2.0], [0.0], [1.0], [3.0], [0.5]]), torch.tensor([0, 0, 1, 1, 1])
    for threshold, expected in [(0.1, [1, 1, 1, 1, 1]), (0.5, [0, 0, 1, 1, 1]), (0.7, [0, 0, 1, 1, 0])]:
        task = on_logits(threshold=threshold)
        predictions = make_trainer().predict(task, BatchLoader(logits, labels, batch_size=2))
        assert [prediction.probabilities.shape for prediction in predictions] == [(2,), (2,), (1,)]
        probabilities = torch.cat([prediction.probabilities for prediction in predictions])
        classes = torch.cat([prediction.classes for prediction in predictions])
        assert probabilities.tolist() == pytest.approx([1 / (1 + math.exp(-x)) for x in logits.flatten().tolist()])
        assert (classes.dtype, classes.tolist()) == (torch.int64, expected)
        assert torch.equal(task.predict_step(logits).classes, classes)
        result = validate(make_trainer(), task, logits, labels)
        assert result["accuracy"] == pytest.approx(accuracy_score(labels, expected))
        assert result["f1"] == pytest.approx(f1_score(labels, expected))


@pytest.mark.parametrize("init", [None, "zeros"])
def test_a_step_decides_and_is_measured_by_its_decisions(make_trainer, init):
    task = PerceptronClassifier(activation="step", init=init)
    features = torch.cat([torch.randn(20, 2), torch.zeros(3, 2)])
    labels = torch.arange(23) % 2
    logits = task(features).detach()
    probabilities, classes = task.predict_step(features)
    assert classes.tolist() == (logits >= 0.0).long().tolist()
    assert probabilities.tolist() == classes.tolist()
    result = validate(make_trainer(), task, features, labels)
    assert result["accuracy"] == pytest.approx(accuracy_score(labels, classes))
    assert result["f1"] == pytest.approx(f1_score(labels, classes))
    assert result["auroc"] == pytest.approx(roc_auc_score(labels, logits))  # of the ranks, which a step has none of
    assert result["loss"] == pytest.approx(cross_entropy(logits, labels), rel=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", "step"])
@pytest.mark.parametrize(("name", "labels"), [("and", [0, 0, 0, 1]), ("or", [0, 1, 1, 1]), ("xor", [0, 1, 1, 0])])
def test_a_perceptron_learns_and_and_or_but_not_xor(make_trainer, activation, name, labels):
    inputs = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    task = PerceptronClassifier(activation=activation, optimizer=functools.partial(torch.optim.Adam, lr=0.3))
    loader = BatchLoader(inputs, torch.tensor(labels), batch_size=4)
    trainer = make_trainer(max_epochs=40, check_val_every_n_epoch=40)
    trainer.fit(task, loader, loader)
    right = (task.predict_step(inputs).classes == torch.tensor(labels)).float().mean().item()
    assert right == trainer.callback_metrics["val/accuracy"]
    assert right < 1.0 if name == "xor" else right == 1.0


def test_a_step_has_no_other_threshold():
    with pytest.raises(ValueError, match=r"threshold must be 0\.5 with activation='step', .* got 0\.7"):
        PerceptronClassifier(activation="step", threshold=0.7)


# ---------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.tensor([0.0, 1.0]), r"0 and 1 of shape \(2,\) and type int64 or bool, got \(2,\) and float32"),
        (torch.tensor([0, 1], dtype=torch.int32), r"got \(2,\) and int32"),
        (torch.tensor([0, 1], dtype=torch.uint8), r"got \(2,\) and uint8"),
        (torch.tensor([[0], [1]]), r"of shape \(2,\) and type int64 or bool, got \(2, 1\) and int64"),
        (torch.tensor([0, 1, 1]), r"got \(3,\) and int64"),
        (torch.tensor(1), r"got \(\) and int64"),
        (torch.eye(2).long(), r"got \(2, 2\) and int64"),
        (torch.tensor([0, 2]), r"label 2 is outside \{0, 1\}"),
        (torch.tensor([-1, 1]), r"label -1 is outside \{0, 1\}"),
        (torch.tensor([0, 255]), r"label 255 is outside \{0, 1\}"),
    ],
)
@pytest.mark.parametrize("column", [True, False])
def test_targets_that_are_no_binary_labels_are_refused(targets, message, column):
    logits = torch.randn(2, 1) if column else torch.randn(2)
    with pytest.raises(TargetError, match=message):
        on_logits().validation_step((logits, targets), 0)


@pytest.mark.parametrize("shape", [(2, 2), (2, 1, 1), ()])
def test_networks_of_another_output_are_refused(shape):
    with pytest.raises(TargetError, match="the network must give one logit a sample, of shape"):
        on_logits().validation_step((torch.zeros(shape), torch.tensor([0, 1])), 0)


@pytest.mark.parametrize("label", [-1, 2, 7])
def test_the_loss_of_a_label_that_nobody_looked_at_is_nan(make_trainer, monkeypatch, label):
    # As on a GPU, where looking would mean waiting.
    monkeypatch.setattr(BinaryClassification, "check_targets", lambda self, outputs, targets: None)
    one = BatchLoader(torch.randn(4, 2), torch.tensor([0, 1, label, 1]), batch_size=4)
    with pytest.raises(NonFiniteLossError):
        make_trainer(max_epochs=1).fit(PerceptronClassifier(), one, one)


def test_data_with_more_classes_are_refused_before_the_first_step(make_trainer, make_data):
    with pytest.raises(TargetError, match="the data have 3 classes, a binary task has labels 0 and 1"):
        make_trainer(max_epochs=1).fit(PerceptronClassifier(in_features=4), make_data())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"pos_weight": 0}, ValueError, "pos_weight must be a positive number, or None, got 0"),
        ({"pos_weight": -1.0}, ValueError, r"pos_weight must be a positive number, or None, got -1\.0"),
        ({"pos_weight": math.inf}, ValueError, "got inf"),
        ({"pos_weight": math.nan}, ValueError, "got nan"),
        ({"pos_weight": np.float32(2.0)}, TypeError, "hyperparameter 'pos_weight' holds a numpy.float32"),
        ({"threshold": 0.0}, ValueError, r"threshold must be greater than 0 and less than 1, got 0\.0"),
        ({"threshold": 1}, ValueError, "threshold must be greater than 0 and less than 1, got 1"),
        ({"threshold": 50}, ValueError, "less than 1, got 50"),
        ({"threshold": math.nan}, ValueError, "less than 1, got nan"),
        ({"threshold": True}, ValueError, "less than 1, got True"),
        ({"threshold": np.float64(0.5)}, TypeError, "hyperparameter 'threshold' holds a numpy.float64"),
        ({"network": nn.Linear}, TypeError, "network must be a torch.nn.Module, got type"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        BinaryClassification(**({"network": nn.Linear(2, 1)} | arguments))
