import math

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torchmetrics.functional.classification import multiclass_calibration_error

from datamodules import TensorDataModule
from zoo import (
    BinaryClassification,
    BinaryMLPClassifier,
    LinearRegressor,
    MLPClassifier,
    MulticlassClassification,
    PerceptronClassifier,
)
from zoo.calibration import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    NotCalibratableError,
    calibrate,
    collect_logits,
    confidence,
    fit_temperature,
)
from zoo.checkpointing import CheckpointError, read_checkpoint, write_checkpoint


def drawn(samples=20_000, classes=5, spread=2.0):
    """Logits, and labels that were drawn with just their probabilities."""
    generator = torch.Generator().manual_seed(3)
    logits = spread * torch.randn(samples, classes, generator=generator)
    return logits, torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]


# ---------------------------------------------------------------------- the fit


@pytest.mark.parametrize("temperature", [0.05, 0.4, 1.0, 3.0, 50.0])
def test_a_known_temperature_is_found(temperature):
    logits, labels = drawn()
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.03)


def test_it_is_the_minimum_of_the_likelihood_to_the_last_digits():
    logits, labels = drawn(500)
    found = fit_temperature(logits, labels)
    inverse = torch.tensor(1 / found, dtype=torch.float64, requires_grad=True)
    nn.functional.cross_entropy(logits.double() * inverse, labels).backward()
    assert abs(inverse.grad.item()) < 1e-12
    assert fit_temperature(4 * logits, labels) == pytest.approx(4 * found, rel=1e-9)
    assert fit_temperature(logits + 1000.0 * torch.arange(500)[:, None], labels) == pytest.approx(found, rel=1e-4)
    assert fit_temperature(logits, labels) == found


def test_it_is_never_worse_than_none():
    generator = torch.Generator().manual_seed(0)
    for trial in range(200):
        samples, classes = 1 + trial % 7, 2 + trial % 3
        logits = torch.randn(samples, classes, generator=generator) * 10.0 ** (trial % 9 - 4)
        labels = torch.randint(classes, (samples,), generator=generator)
        found = fit_temperature(logits, labels)
        assert LOWEST_TEMPERATURE <= found <= HIGHEST_TEMPERATURE
        assert confidence(logits, labels, found).nll <= confidence(logits, labels).nll


@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        (5 * torch.eye(4), torch.arange(4), LOWEST_TEMPERATURE),  # all right
        (5 * torch.eye(4), torch.arange(4).flip(0), HIGHEST_TEMPERATURE),  # all wrong
        (torch.zeros(4, 3), torch.tensor([0, 1, 2, 2]), 1.0),  # nothing is said at all
        (torch.tensor([[1.0, 0.0]]), torch.tensor([0]), LOWEST_TEMPERATURE),
        (torch.tensor([[1.0, 0.0]]), torch.tensor([1]), HIGHEST_TEMPERATURE),
        (20 * torch.eye(3), torch.arange(3), LOWEST_TEMPERATURE),
        (1e30 * torch.eye(3), torch.arange(3), 1.0),  # right with certainty: nothing is left to gain
        (1e-30 * torch.eye(3), torch.arange(3), LOWEST_TEMPERATURE),
        # Two of three right by one, in the only class that there is: 1 / (1 + exp(-1/T)) = 2/3.
        (torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 0]), 1 / math.log(2)),
    ],
)
def test_cases_at_the_edge_are_bounded(logits, labels, expected):
    assert fit_temperature(logits, labels) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), "no sample"),
        (torch.tensor([[0.0, 1.0], [0.0, math.nan]]), torch.tensor([0, 1]), "sample 1 hold NaN or infinity"),
        (torch.tensor([[0.0, -math.inf]]), torch.tensor([0]), "sample 0 hold NaN"),
        (torch.zeros(1, 3), torch.tensor([3]), "from 0 to 2"),
        (torch.zeros(1, 3), torch.tensor([-1]), "from 0 to 2"),
    ],
)
def test_what_no_temperature_fits_is_refused(logits, labels, words):
    with pytest.raises(NotCalibratableError, match=words):
        fit_temperature(logits, labels)


def test_confidence_by_hand():
    logits, labels = torch.tensor([[math.log(3.0), 0.0], [math.log(3.0), 0.0]]), torch.tensor([0, 1])
    at_one = confidence(logits, labels)
    assert at_one.nll == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)
    assert at_one.ece == pytest.approx(0.25, abs=1e-6)  # 75 % sure, half of them right
    assert confidence(logits, labels, 0.5).ece == pytest.approx(0.4, abs=1e-6)  # 9 : 1


# ---------------------------------------------------------------------- tasks


@pytest.fixture
def data():
    """Three classes, and a validation split that is not told apart too well."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(600) % 3
    features = torch.randn(600, 4, generator=generator) + labels[:, None]
    return TensorDataModule(features, labels, val_size=200, test_size=200, batch_size=50, eval_batch_size=64, seed=0)


@pytest.fixture
def task(data, make_trainer):
    """Trained, and then made far too sure of itself."""
    task = MLPClassifier(in_features=4, num_classes=3, hidden=(8,), label_smoothing=0.1)
    make_trainer(max_epochs=3, limit_val_batches=0).fit(task, data)
    with torch.no_grad():
        for parameter in list(task.parameters())[-2:]:
            parameter.mul_(8.0)
    return task


def test_calibration_error_falls_and_nothing_else_changes(task, data, make_trainer):
    trainer = make_trainer()
    [before] = trainer.test(task, data, verbose=False)
    weights = {name: value.clone() for name, value in task.state_dict().items()}
    found = calibrate(task, data)
    [after] = trainer.test(task, data, verbose=False)
    assert found.temperature == task.temperature > 2.0
    assert found.samples == 200
    assert not found.is_bound
    assert found.after.nll < found.before.nll
    assert after.pop("test/ece") < 0.7 * before.pop("test/ece")
    assert after == before  # accuracy, f1, top-2 accuracy and the loss, smoothing included: to the bit
    assert task.state_dict().keys() == weights.keys()
    assert all(torch.equal(task.state_dict()[name], value) for name, value in weights.items())


def test_the_metric_is_that_of_the_calibrated_probabilities(task, data, make_trainer):
    logits, labels = collect_logits(task, data, stage="test")
    data.setup()
    assert torch.equal(labels, data.splits.test.targets)
    with torch.no_grad():
        torch.testing.assert_close(logits, task(data.splits.test.features))
    task.temperature = 3.0
    [metrics] = make_trainer().test(task, data, verbose=False)
    expected = multiclass_calibration_error((logits / 3.0).softmax(dim=1), labels, 3)
    assert metrics["test/ece"] == pytest.approx(float(expected), abs=1e-6)
    assert metrics["test/ece"] == pytest.approx(confidence(logits, labels, 3.0).ece, abs=1e-6)
    prediction = task.predict_step(data.splits.test.features)
    torch.testing.assert_close(prediction.probabilities, (logits / 3.0).softmax(dim=1))
    assert torch.equal(prediction.classes, logits.argmax(dim=1))


def test_what_others_ask_the_task_is_no_sample_of_the_split(task, data, make_trainer):
    class Asking(Callback):
        def ask(self, trainer, pl_module, *_):
            pl_module(torch.zeros(7, 4))

        on_test_start = on_test_batch_start = on_test_batch_end = on_test_epoch_end = on_test_end = ask

    alone = collect_logits(task, data, stage="test")
    beside = collect_logits(task, data, make_trainer(callbacks=[Asking()]), stage="test")
    assert all(map(torch.equal, alone, beside))


def test_it_is_in_the_checkpoint_and_comes_back_from_everywhere(task, data, make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.validate(task, data, verbose=False)
    trainer.save_checkpoint(tmp_path / "before.ckpt")
    temperature = calibrate(task, data, trainer).temperature
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    assert MLPClassifier.load_from_checkpoint(tmp_path / "after.ckpt").temperature == temperature
    # From before there were temperatures, or without one: strictly the same weights.
    assert "temperature" not in read_checkpoint(tmp_path / "before.ckpt")
    assert MLPClassifier.load_from_checkpoint(tmp_path / "before.ckpt", strict=True).temperature == 1.0
    fresh = MLPClassifier(in_features=4, num_classes=3, hidden=(8,), label_smoothing=0.1)
    results = [
        make_trainer().test(fresh, data, ckpt_path=tmp_path / name, weights_only=True, verbose=False)[0]["test/ece"]
        for name in ("after.ckpt", "before.ckpt")
    ]
    assert results[0] < results[1]
    assert fresh.temperature == 1.0  # what the last checkpoint says


def test_training_begins_without_one(task, data, make_trainer, tmp_path):
    trainer = make_trainer(max_epochs=1)
    trainer.fit(task, data)
    calibrate(task, data)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(tmp_path / "calibrated.ckpt")
    assert read_checkpoint(tmp_path / "calibrated.ckpt")["temperature"] != 1.0
    resumed = MLPClassifier(in_features=4, num_classes=3, hidden=(8,), label_smoothing=0.1)
    make_trainer(max_epochs=2).fit(resumed, data, ckpt_path=tmp_path / "calibrated.ckpt", weights_only=True)
    assert resumed.temperature == 1.0
    make_trainer(max_epochs=1).fit(task, data)
    assert task.temperature == 1.0


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, "2", None, True, [1.0]])
def test_a_checkpoint_with_another_temperature_is_refused(task, make_trainer, tmp_path, value):
    with pytest.raises(ValueError, match="temperature must be a positive number"):
        task.temperature = value
    trainer = make_trainer()
    trainer.strategy.connect(task)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    write_checkpoint({**read_checkpoint(tmp_path / "a.ckpt"), "temperature": value}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="temperature must be a positive number"):
        MLPClassifier.load_from_checkpoint(tmp_path / "a.ckpt")


def test_a_binary_task(make_trainer):
    generator = torch.Generator().manual_seed(1)
    features = 3 * torch.randn(4000, 1, generator=generator)
    labels = (torch.rand(4000, generator=generator) < torch.sigmoid(features[:, 0])).long()
    data = TensorDataModule(features, labels, val_size=2000, test_size=1000, seed=0)
    task = BinaryClassification(nn.Linear(1, 1, bias=False), threshold=0.3)
    nn.init.constant_(task.network.weight, 4.0)  # four times as sure as it should be
    [before] = make_trainer().test(task, data, verbose=False)
    classes = task.predict_step(features).classes
    found = calibrate(task, data)
    assert found.temperature == pytest.approx(4.0, rel=0.15)
    assert found.after.ece < 0.5 * found.before.ece
    assert make_trainer().test(task, data, verbose=False) == [before]
    prediction = task.predict_step(features)
    assert torch.equal(prediction.classes, classes)
    torch.testing.assert_close(prediction.probabilities, torch.sigmoid(4.0 * features[:, 0] / found.temperature))


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (LinearRegressor(), "LinearRegressor gives no probabilities of classes"),
        (PerceptronClassifier(activation="step"), "PerceptronClassifier with activation='step' says 0 or 1"),
    ],
)
def test_other_tasks_are_refused_by_name(task, words, make_data):
    with pytest.raises(NotCalibratableError, match=words):
        calibrate(task, make_data())


def test_broken_weights_are_refused_and_leave_no_trace(data, make_trainer):
    task, trainer = MLPClassifier(in_features=4, num_classes=3, hidden=(4,)), make_trainer()
    nn.init.constant_(list(task.parameters())[-1], math.nan)
    callbacks = list(trainer.callbacks)
    with pytest.raises(NotCalibratableError, match="NaN or infinity"):
        calibrate(task, data, trainer)
    assert task.temperature == 1.0
    assert not task._forward_hooks
    assert trainer.callbacks == callbacks


def test_the_step_perceptron_and_the_mlp_decide_as_before():
    features = torch.randn(100, 2)
    for task in (PerceptronClassifier(activation="step"), BinaryMLPClassifier(hidden=(4,))):
        before = task.predict_step(features).classes
        task.temperature = 7.0
        assert torch.equal(task.predict_step(features).classes, before)


def test_a_task_of_ones_own_that_knows_nothing_of_it(data, make_trainer):
    class Own(MulticlassClassification):
        def metric_inputs(self, outputs, targets):
            return outputs.softmax(dim=1), targets

    task = Own(nn.Linear(4, 3), num_classes=3)
    calibrate(task, data, make_trainer())
    assert make_trainer().test(task, data, verbose=False)[0]["test/ece"] < 0.3
