import copy
import functools
import math

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import ReduceLROnPlateau
from sklearn.metrics import f1_score
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from datamodules import BatchLoader
from zoo import (
    CNNClassifier,
    LeNet5Classifier,
    MulticlassClassification,
    NonFiniteLossError,
    SoftmaxClassifier,
    StridedCNNClassifier,
)
from zoo.checkpointing import CheckpointError, read_checkpoint
from zoo.optim import OneCycle, WarmupCosine
from zoo.tasks import TargetError
from zoo.tasks.training_loss import TrainingLoss

SGD = functools.partial(torch.optim.SGD, lr=0.5)


def linear_task(**arguments):
    return MulticlassClassification(network=nn.Linear(4, 3), num_classes=3, **arguments)


def batches_of(data, epoch):
    data.setup()
    loader = data.train_dataloader()
    loader.set_epoch(epoch)
    return list(loader)


def train_by_hand(network, data, epochs, accumulate=1):
    """Plain SGD; gives ``(step, loss, samples)`` of each batch, epoch by epoch."""
    network, history = copy.deepcopy(network), []
    optimizer = SGD(network.parameters())
    step = 0
    for epoch in range(epochs):
        batches = batches_of(data, epoch)
        history.append([])
        for index, (features, labels) in enumerate(batches):
            loss = functional.cross_entropy(network(features), labels)
            history[-1].append((step, loss.item(), len(labels)))
            (loss / accumulate).backward()
            if (index + 1) % accumulate == 0 or index + 1 == len(batches):
                optimizer.step()
                optimizer.zero_grad()
                step += 1
    return history


def weighted_mean(records):
    return sum(loss * size for _, loss, size in records) / sum(size for _, _, size in records)


# ---------------------------------------------------------------------- the loss


@pytest.mark.parametrize("num_classes", [2, 10, 100])
@pytest.mark.parametrize(("leaf", "size"), [(CNNClassifier, 28), (StridedCNNClassifier, 29), (LeNet5Classifier, 32)])
def test_the_first_loss_is_that_of_guessing(leaf, size, num_classes):
    task = leaf(num_classes=num_classes)
    labels = torch.arange(200) % num_classes
    loss = task.compute_loss(task(torch.randn(200, 1, size, size)), labels)
    assert loss.item() == pytest.approx(math.log(num_classes), abs=0.12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.5)])
def test_the_loss_is_cross_entropy_by_hand(smoothing, weights):
    task = linear_task(label_smoothing=smoothing, class_weights=weights)
    logits, labels = [[1.0, 2.0, 0.0], [0.5, 0.5, -3.0], [0.0, 0.0, 0.0], [9.0, 0.0, 1.0]], [0, 1, 2, 2]
    weight = weights or (1.0, 1.0, 1.0)
    total = share = 0.0
    for row, label in zip(logits, labels, strict=True):
        surprises = [math.log(sum(map(math.exp, row))) - value for value in row]
        spread = sum(w * surprise for w, surprise in zip(weight, surprises, strict=True)) / 3
        total += (1 - smoothing) * weight[label] * surprises[label] + smoothing * spread
        share += weight[label]
    loss = task.compute_loss(torch.tensor(logits), torch.tensor(labels))
    assert loss.item() == pytest.approx(total / share, rel=1e-5)


@pytest.mark.parametrize("leaf", [CNNClassifier, StridedCNNClassifier, LeNet5Classifier])
def test_one_batch_can_be_overfitted(leaf, make_trainer, make_images, list_logger):
    task = leaf(optimizer=functools.partial(torch.optim.Adam, lr=3e-3))
    data = make_images(size=task.network.image_size)
    data.setup()
    one = BatchLoader(*batches_of(data, 0)[0], batch_size=8)
    make_trainer(max_epochs=60, logger=list_logger).fit(task, one, one)
    assert list_logger.values("train/loss")[0] > 1.5
    assert list_logger.values("train/loss")[59] < 0.01
    assert list_logger.values("val/accuracy")[59] == 1.0


# ---------------------------------------------------------------------- what is logged


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_logged_training_loss_is_the_mean_since_the_last_log_point(
    make_trainer, make_data, list_logger, every, accumulate
):
    task, data = linear_task(optimizer=SGD), make_data(train=18, drop_last=False)  # batches of 4, 4, 4, 4, 2
    history = train_by_hand(task.network, data, epochs=2, accumulate=accumulate)
    expected, window = {}, []
    records = [record for epoch in history for record in epoch]
    for record, following in zip(records, [*records[1:], (None,)], strict=True):
        window.append(record)
        step = record[0]
        if (step + 1) % every == 0 and following[0] != step:
            expected[step] = weighted_mean(window)
            window = []
    make_trainer(max_epochs=2, logger=list_logger, log_every_n_steps=every, accumulate_grad_batches=accumulate).fit(
        task, data
    )
    assert list_logger.values("train/loss") == pytest.approx(expected, rel=1e-5)


def test_the_epochs_training_loss_is_the_mean_over_its_samples(make_trainer, make_data, list_logger):
    task, data = linear_task(optimizer=SGD), make_data(train=14, drop_last=False)  # batches of 4, 4, 4, 2
    expected = [weighted_mean(epoch) for epoch in train_by_hand(task.network, data, epochs=3)]
    make_trainer(max_epochs=3, logger=list_logger).fit(task, data)
    assert list(list_logger.values("train/loss_epoch").values()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("stage", ["val", "test"])
def test_evaluation_is_the_mean_over_samples_with_an_uneven_last_batch(make_trainer, make_data, stage):
    task, data = linear_task(), make_data()
    data.setup()
    split = getattr(data.splits, stage)
    assert len(split) % 4 != 0
    logits = task(split.features)
    trainer = make_trainer()
    result = (trainer.validate if stage == "val" else trainer.test)(task, data, verbose=False)[0]
    confidences, classes = logits.softmax(dim=1).max(dim=1)
    right = (classes == split.targets).float()
    gaps = torch.zeros(15).index_add_(0, (confidences * 15).long(), confidences.detach() - right)  # summed bin by bin
    assert result == pytest.approx(
        {
            f"{stage}/loss": functional.cross_entropy(logits, split.targets).item(),
            f"{stage}/accuracy": right.mean().item(),
            f"{stage}/f1": f1_score(split.targets, classes, average="macro"),
            f"{stage}/top2_accuracy": (logits.argmin(dim=1) != split.targets).float().mean().item(),  # of three
            f"{stage}/ece": (gaps.abs().sum() / len(split)).item(),
        },
        rel=1e-5,
    )


def test_metrics_start_anew_every_time(make_trainer, make_data, list_logger):
    task, data = linear_task(optimizer=SGD), make_data()
    trainer = make_trainer(max_epochs=3, logger=list_logger)
    trainer.fit(task, data)
    last = list(list_logger.values("val/loss").values())[-1]
    assert trainer.validate(task, data, verbose=False)[0]["val/loss"] == pytest.approx(last, rel=1e-6)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_resumed_epoch_logs_what_the_whole_one_did(make_trainer, make_data, list_logger, tmp_path):
    def run(task, ckpt_path=None):
        saver = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=3, save_top_k=-1)
        settings = {"max_epochs": 2, "log_every_n_steps": 2, "callbacks": [saver], "enable_checkpointing": True}
        trainer = make_trainer(logger=list_logger, **settings)
        trainer.fit(task, make_data(train=20), ckpt_path=ckpt_path)  # five batches an epoch

    whole, again = linear_task(optimizer=SGD), linear_task(optimizer=SGD)
    run(whole)
    calls, list_logger.calls = list_logger.calls, []
    run(again, ckpt_path=tmp_path / "step=3.ckpt")
    assert list_logger.calls == [(step, metrics) for step, metrics in calls if step >= 3]
    assert all(torch.equal(again.state_dict()[name], value) for name, value in whole.state_dict().items())


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("loaded", ["made from", "validated with"])
def test_a_new_run_logs_nothing_of_the_run_that_its_checkpoint_is_of(
    make_trainer, make_data, list_logger, tmp_path, loaded
):
    data, path = make_data(train=20), tmp_path / "good.ckpt"
    saver = ModelCheckpoint(tmp_path, "good", every_n_train_steps=3)
    task = linear_task(optimizer=SGD)
    make_trainer(max_steps=3, log_every_n_steps=2, callbacks=[saver], enable_checkpointing=True).fit(task, data)
    assert read_checkpoint(path)["training_loss"]["window_count"] == 4
    if loaded == "made from":
        task = MulticlassClassification.load_from_checkpoint(path, network=nn.Linear(4, 3), optimizer=SGD)
    trainer = make_trainer(max_steps=2, log_every_n_steps=2, logger=list_logger)
    if loaded == "validated with":
        trainer.validate(task, data, ckpt_path=path, verbose=False)
    [expected] = train_by_hand(task.network, data, 1)
    trainer.fit(task, data)
    assert list_logger.values("train/loss")[1] == pytest.approx(weighted_mean(expected[:2]), rel=1e-5)


# ---------------------------------------------------------------------- any network, any data


@pytest.mark.parametrize("plain", [False, True], ids=["TensorDataModule", "DataLoader"])
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_anyones_network_learns(make_trainer, make_data, plain):
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))

        def forward(self, x):
            return self.layers(x)

    task = MulticlassClassification(
        network=Mine(), num_classes=3, optimizer=functools.partial(torch.optim.Adam, lr=0.05)
    )
    data = make_data(train=60, batch_size=20)
    trainer = make_trainer(max_epochs=30)
    if plain:
        data.setup()
        train, val = (TensorDataset(part.features, part.targets) for part in (data.splits.train, data.splits.val))
        trainer.fit(task, DataLoader(train, batch_size=20), DataLoader(val, batch_size=4))
    else:
        trainer.fit(task, data)
    features, labels = data.splits.train.features, data.splits.train.targets
    assert (task(features).argmax(dim=1) == labels).float().mean() > 0.8  # a third by guessing
    assert 0.0 <= trainer.callback_metrics["val/accuracy"] <= 1.0


def test_predictions_are_probabilities_and_their_largest(make_trainer, make_data):
    task, data = linear_task(), make_data()
    predictions = make_trainer().predict(task, data)
    logits = task(data.splits.test.features)
    probabilities = torch.cat([prediction.probabilities for prediction in predictions])
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(5))
    torch.testing.assert_close(probabilities, logits.exp() / logits.exp().sum(dim=1, keepdim=True))
    assert torch.cat([prediction.classes for prediction in predictions]).tolist() == logits.argmax(dim=1).tolist()
    alone = task.predict_step(data.splits.test.features)
    torch.testing.assert_close(alone.probabilities, probabilities)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 3.0)])
def test_losses_and_probabilities_have_their_32_bits_at_any_precision(make_trainer, make_data, precision, weights):
    task, data = linear_task(class_weights=weights), make_data()
    trainer = make_trainer(max_epochs=1, precision=precision)
    trainer.fit(task, data)
    logged = trainer.callback_metrics
    assert all(torch.finfo(logged[name].dtype).bits >= 32 for name in ("train/loss", "train/loss_epoch", "val/loss"))
    assert logged["val/loss"].item() == pytest.approx(math.log(3), abs=1.0)
    probabilities = trainer.predict(task, data)[0].probabilities
    assert probabilities.dtype == (torch.float64 if precision == "64-true" else torch.float32)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(4, dtype=probabilities.dtype))


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_many_losses_are_added_up_without_rounding(make_trainer, make_data, precision):
    task, data = linear_task(), make_data(train=1012, val_size=1007)
    result = make_trainer(precision=precision).validate(task, data, verbose=False)[0]
    features, labels = data.splits.val.features, data.splits.val.targets
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        logits = task(features.to(task.dtype)).float()
    assert result["val/loss"] == pytest.approx(functional.cross_entropy(logits, labels).item(), rel=1e-4)


@pytest.mark.parametrize("first", ["validate", "test", "predict", "fit"])
def test_a_task_can_be_evaluated_and_then_trained(make_trainer, make_data, first):
    task, data = linear_task(), make_data()
    settings = {} if first in ("fit", "predict") else {"verbose": False}
    getattr(make_trainer(max_epochs=1), first)(task, data, **settings)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(task, data)
    expected = trainer.callback_metrics["val/loss"].item()
    assert trainer.validate(task, data, verbose=False)[0]["val/loss"] == pytest.approx(expected, rel=1e-6)
    assert set(trainer.test(task, data, verbose=False)[0]) == {
        f"test/{name}" for name in ("loss", "accuracy", "f1", "top2_accuracy", "ece")
    }


# ---------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.tensor([0.0, 1.0]), r"class indices of shape \(2,\) and type int64, got \(2,\) and float32"),
        (torch.tensor([0, 1], dtype=torch.int32), r"type int64, got \(2,\) and int32"),
        (torch.tensor([0, 3]), r"label 3 is outside 0\.\.2: num_classes=3 does not fit"),
        (torch.tensor([0, -100]), r"label -100 is outside 0\.\.2"),
        (torch.tensor([[0], [1]]), r"of shape \(2,\) and type int64, got \(2, 1\) and int64"),
        (torch.tensor([0, 1, 2]), r"of shape \(2,\) and type int64, got \(3,\)"),
        (torch.eye(3)[:2], r"got \(2, 3\) and float32"),
    ],
)
def test_targets_that_are_no_class_indices_are_refused(targets, message):
    assert issubclass(TargetError, ValueError)
    with pytest.raises(TargetError, match=message):
        linear_task().validation_step((torch.randn(2, 4), targets), 0)


@pytest.mark.parametrize(("width", "shape"), [(nn.Linear(4, 5), "(2, 5)"), (nn.Unflatten(1, (2, 2)), "(2, 2, 2)")])
def test_logits_of_another_shape_are_refused(width, shape):
    task = MulticlassClassification(network=width, num_classes=3)
    with pytest.raises(TargetError, match=r"logits of shape \(batch, 3\), got") as caught:
        task.validation_step((torch.randn(2, 4), torch.tensor([0, 1])), 0)
    assert f"got {shape} (in validation at step 0, batch 0)" in str(caught.value)


def test_data_with_more_classes_than_the_model_are_refused_before_the_first_step(make_trainer, make_data):
    task = MulticlassClassification(network=nn.Linear(4, 2), num_classes=2)
    with pytest.raises(TargetError, match=r"the data have 3 classes, the model num_classes=2: .* outside 0\.\.1"):
        make_trainer(max_epochs=1).fit(task, make_data())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_classes": 1}, ValueError, "num_classes must be an integer of at least 2, got 1"),
        ({"num_classes": 3.0}, ValueError, "at least 2, got 3.0"),
        ({"num_classes": True}, ValueError, "at least 2, got True"),
        ({"label_smoothing": 1.0}, ValueError, "label_smoothing must be at least 0 and less than 1, got 1.0"),
        ({"label_smoothing": -0.1}, ValueError, "got -0.1"),
        ({"class_weights": (1.0, 2.0)}, ValueError, "class_weights must hold 3 numbers, one a class, got 2"),
        ({"class_weights": torch.ones(3)}, TypeError, "hyperparameter 'class_weights' holds a torch.Tensor"),
        ({"class_weights": (1.0, -1.0, 1.0)}, ValueError, r"must be at least 0, one of them greater, got \(1.0, -1.0"),
        ({"class_weights": (1.0, math.nan, 1.0)}, ValueError, "must be at least 0, one of them greater"),
        ({"class_weights": (1.0, math.inf, 1.0)}, ValueError, "must be at least 0, one of them greater"),
        ({"class_weights": (0.0, 0.0, 0.0)}, ValueError, "must be at least 0, one of them greater"),
        ({"top_k": 1}, ValueError, "top_k must be an integer from 2 to num_classes=3, got 1"),
        ({"top_k": 4}, ValueError, "top_k must be an integer from 2 to num_classes=3, got 4"),
        ({"top_k": 2.0}, ValueError, "top_k must be an integer from 2 to num_classes=3, got 2.0"),
        ({"top_k": True}, ValueError, "top_k must be an integer from 2 to num_classes=3, got True"),
        ({"network": "resnet"}, TypeError, "network must be a torch.nn.Module, got str"),
        ({"network": nn.Linear}, TypeError, "network must be a torch.nn.Module, got type"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        MulticlassClassification(**({"network": nn.Linear(4, 3), "num_classes": 3} | arguments))


# ---------------------------------------------------------------------- a loss that is not finite


class BreaksAt(nn.Module):
    """Gives logits that are not finite in one training step."""

    def __init__(self, step, value):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.step, self.value = step, value
        self.steps = 0

    def forward(self, x):
        self.steps += self.training
        return self.layer(x) + (self.value if self.training and self.steps == self.step + 1 else 0.0)


class Elsewhere(torch.Tensor):
    """A tensor that says it lives on a GPU."""

    @property
    def device(self):
        return torch.device("cuda", 0)


@pytest.fixture
def deferred(request, monkeypatch):
    if request.param:
        keep = TrainingLoss.keep
        monkeypatch.setattr(
            TrainingLoss,
            "keep",
            lambda self, loss, *details: keep(self, loss.as_subclass(Elsewhere), *details),
        )
    return request.param


@pytest.mark.parametrize("deferred", [False, True], indirect=True, ids=["cpu", "deferred"])
@pytest.mark.parametrize("step", [3, 4, 5])
def test_a_loss_that_is_nan_ends_the_run_and_leaves_the_checkpoints(make_trainer, make_data, tmp_path, step, deferred):
    task = MulticlassClassification(network=BreaksAt(step, float("nan")), num_classes=3, optimizer=SGD)
    saver = ModelCheckpoint(tmp_path, "best", monitor="val/loss", save_last=True)
    trainer = make_trainer(max_epochs=4, log_every_n_steps=50, callbacks=[saver], enable_checkpointing=True)
    with pytest.raises(NonFiniteLossError) as stop:
        trainer.fit(task, make_data())  # three batches an epoch
    assert (stop.value.step, math.isnan(stop.value.value)) == (step, True)
    assert f"became nan at step {step}" in str(stop.value)
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]
    for name in ("best.ckpt", "last.ckpt"):
        saved = torch.load(tmp_path / name, weights_only=True)
        assert saved["global_step"] == 3
        assert all(value.isfinite().all() for value in saved["state_dict"].values())


@pytest.mark.parametrize("deferred", [False, True], indirect=True, ids=["cpu", "deferred"])
def test_no_checkpoint_inside_an_epoch_holds_broken_weights(make_trainer, make_data, tmp_path, deferred):
    task = MulticlassClassification(network=BreaksAt(4, float("inf")), num_classes=3, optimizer=SGD)
    saver = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    with pytest.raises(NonFiniteLossError, match="at step 4"):
        make_trainer(max_epochs=4, callbacks=[saver], enable_checkpointing=True).fit(task, make_data())
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {f"step={step}.ckpt" for step in (1, 2, 3, 4)}


def one_broken_batch():
    """Two batches, in the second of which one value is NaN."""
    features = torch.randn(8, 4)
    features[5, 2] = math.nan
    return BatchLoader(features, torch.arange(8) % 3, batch_size=4)


def test_a_validation_loss_that_is_nan_in_one_batch_ends_the_run(make_trainer, make_data):
    task, data = linear_task(optimizer=SGD), make_data()
    data.setup()
    with pytest.raises(NonFiniteLossError, match="the validation loss became nan at step 3"):
        make_trainer(max_epochs=2).fit(task, data.train_dataloader(), one_broken_batch())


def test_a_loss_that_is_nan_in_one_batch_is_nan_in_the_test(make_trainer):
    assert math.isnan(make_trainer().test(linear_task(), one_broken_batch(), verbose=False)[0]["test/loss"])


def test_the_training_loss_is_read_only_when_it_is_asked_for():
    losses = TrainingLoss()
    for step, value in enumerate([1.0, 4.0]):
        shared = torch.tensor(value).as_subclass(Elsewhere)
        losses.keep(shared, size=1 + step, step=step)
        shared.fill_(99.0)  # a captured graph writes the next loss into the same memory
    assert losses.window_mean() == pytest.approx((1 * 1.0 + 2 * 4.0) / 3)
    losses.keep(torch.tensor(10.0), size=3, step=2)
    assert losses.window_mean() == 10.0
    assert losses.epoch_mean() == (pytest.approx((1 + 8 + 30) / 6), 6)


def test_a_deferred_loss_that_is_not_finite_is_found_with_its_step():
    losses = TrainingLoss()
    for step, value in enumerate([1.0, math.inf, math.nan]):
        losses.keep(torch.tensor(value).as_subclass(Elsewhere), size=4, step=step + 7)
    with pytest.raises(NonFiniteLossError, match="became inf at step 8") as caught:
        losses.flush()
    assert (caught.value.step, caught.value.value) == (8, math.inf)


def test_a_loss_on_the_cpu_is_refused_at_once():
    losses = TrainingLoss()
    with pytest.raises(NonFiniteLossError, match="became nan at step 5"):
        losses.keep(torch.tensor(math.nan), size=4, step=5)


def test_the_training_loss_goes_on_from_its_state():
    first, second = TrainingLoss(), TrainingLoss()
    first.keep(torch.tensor(1.0), size=2, step=0)
    assert first.window_mean() == 1.0
    first.keep(torch.tensor(2.0), size=2, step=1)
    state = first.state_dict()
    assert state == {"window_sum": 4.0, "window_count": 2, "epoch_sum": 6.0, "epoch_count": 4}
    second.keep(torch.tensor(77.0), size=9, step=0)
    second.load_state_dict(state)
    for losses in (first, second):
        losses.keep(torch.tensor(6.0), size=2, step=2)
        assert losses.epoch_mean() == (3.0, 6)
        assert losses.window_mean() == 4.0
    assert state["epoch_count"] == 4  # neither writes into what it gave or got


# ---------------------------------------------------------------------- optimizer and schedule


class Rates(Callback):
    """The learning rate of each batch."""

    def __init__(self):
        self.rates = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_the_default_optimizer_is_adamw_at_a_constant_rate(make_trainer, make_data):
    task, rates = linear_task(), Rates()
    trainer = make_trainer(max_epochs=2, callbacks=[rates])
    trainer.fit(task, make_data())
    assert type(trainer.optimizers[0]) is torch.optim.AdamW
    assert rates.rates == [1e-3] * 6


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "Adamax"])
def test_any_optimizer_of_torch_trains(make_trainer, make_data, kind):
    task = linear_task(optimizer=functools.partial(getattr(torch.optim, kind), lr=0.01, weight_decay=0.5))
    before = task.network.weight.detach().clone()
    trainer = make_trainer(max_epochs=1)
    trainer.fit(task, make_data())
    group = trainer.optimizers[0].param_groups[0]
    assert (type(trainer.optimizers[0]).__name__, group["lr"], group["weight_decay"]) == (kind, 0.01, 0.5)
    assert not torch.equal(before, task.network.weight)


OPTIMIZERS = {
    name: kind
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
}
OTHER_OPTIMIZERS = {
    "SparseAdam": "does not support dense gradients",
    "Muon": "only supports 2D parameters",  # it wants an optimizer for the biases beside it
}


def test_torch_has_the_optimizers_one_knows():
    assert {"SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "LBFGS", *OTHER_OPTIMIZERS} <= set(OPTIMIZERS)


@pytest.mark.parametrize("kind", sorted(set(OPTIMIZERS) - set(OTHER_OPTIMIZERS)))
def test_every_optimizer_of_torch_lowers_the_loss_by_its_own_defaults(make_trainer, make_data, kind):
    # SGD brought no default rate before torch 2.2, and its momentum is what it is mostly used with.
    optimizer = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9) if kind == "SGD" else OPTIMIZERS[kind]
    task, data = SoftmaxClassifier(in_features=4, num_classes=3, optimizer=optimizer), make_data(batch_size=12)
    data.setup()
    features, labels = data.splits.train.features, data.splits.train.targets
    before = task.compute_loss(task(features), labels).item()
    trainer = make_trainer(max_epochs=8)
    trainer.fit(task, data)
    assert (type(trainer.optimizers[0]).__name__, trainer.global_step) == (kind, 8)
    assert task.compute_loss(task(features), labels).item() < before


@pytest.mark.parametrize("kind", sorted(OTHER_OPTIMIZERS))
def test_an_optimizer_for_other_parameters_says_so(make_trainer, make_data, kind):
    task = SoftmaxClassifier(in_features=4, num_classes=3, optimizer=OPTIMIZERS[kind])
    with pytest.raises((ValueError, RuntimeError), match=OTHER_OPTIMIZERS[kind]):
        make_trainer(max_epochs=1).fit(task, make_data())


def test_lbfgs_reaches_the_minimum_within_a_few_steps(make_trainer, make_data):
    # Its closure computes the loss again and again within a step.
    optimizer = functools.partial(torch.optim.LBFGS, line_search_fn="strong_wolfe")
    task, data = SoftmaxClassifier(in_features=4, num_classes=3, optimizer=optimizer), make_data(36, batch_size=36)
    data.setup()
    make_trainer(max_epochs=8).fit(task, data)
    features, labels = data.splits.train.features, data.splits.train.targets
    gradient = torch.autograd.grad(task.compute_loss(task(features), labels), list(task.parameters()))
    assert all(part.abs().max() < 1e-3 for part in gradient)


def test_frozen_parameters_stay_out_of_the_optimizer(make_trainer, make_data):
    task = linear_task(optimizer=SGD)
    task.network.bias.requires_grad_(False)
    before = task.network.bias.detach().clone()
    trainer = make_trainer(max_epochs=1)
    trainer.fit(task, make_data())
    assert [len(group["params"]) for group in trainer.optimizers[0].param_groups] == [1]
    assert torch.equal(before, task.network.bias)


def test_schedules_of_torch_step_once_an_epoch(make_trainer, make_data):
    halve = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    rates = Rates()
    make_trainer(max_epochs=3, callbacks=[rates]).fit(linear_task(optimizer=SGD, scheduler=halve), make_data())
    assert rates.rates == [0.5] * 3 + [0.25] * 3 + [0.125] * 3


def test_a_plateau_is_watched_through_its_own_monitor(make_trainer, make_data):
    # By the threshold no epoch is better than the first, so every epoch after it halves the rate.
    plateau = functools.partial(
        ReduceLROnPlateau, monitor="val/accuracy", mode="max", patience=0, factor=0.5, threshold=9
    )
    rates = Rates()
    make_trainer(max_epochs=4, callbacks=[rates]).fit(linear_task(optimizer=SGD, scheduler=plateau), make_data())
    assert rates.rates == [0.5] * 6 + [0.25] * 3 + [0.125] * 3


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"max_epochs": 3}, 9),
        ({"max_steps": 5, "max_epochs": -1}, 5),
        ({"max_epochs": 9, "max_steps": 4}, 4),
        ({"max_epochs": 3, "accumulate_grad_batches": 2}, 6),
        ({"max_epochs": 9, "max_steps": 5, "accumulate_grad_batches": 3}, 5),
        ({"max_epochs": 4, "limit_train_batches": 2}, 8),
    ],
)
def test_our_schedules_step_every_step_and_know_how_many_there_are(make_trainer, make_data, settings, steps):
    schedule = functools.partial(WarmupCosine, warmup=0.25, end_factor=0.1)
    task, rates = linear_task(optimizer=SGD, scheduler=schedule), Rates()
    trainer = make_trainer(callbacks=[rates], **settings)
    trainer.fit(task, make_data())
    assert (trainer.global_step, task.lr_schedulers().total_steps) == (steps, steps)

    def rate(step):
        progress = step / steps
        if progress < 0.25:
            return 0.5 * max(progress / 0.25, 1e-3)
        return 0.5 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (progress - 0.25) / 0.75)))

    seen = list(dict.fromkeys(rates.rates))  # the batches of one step have one rate
    assert seen == pytest.approx([rate(step) for step in range(steps)])


def test_a_length_that_was_given_is_kept(make_trainer, make_data):
    task = linear_task(scheduler=functools.partial(OneCycle, total_steps=100))
    make_trainer(max_epochs=1).fit(task, make_data())
    assert task.lr_schedulers().total_steps == 100


@pytest.mark.parametrize("schedule", [OneCycle, WarmupCosine])
def test_a_schedule_over_a_run_without_an_end_is_refused(make_trainer, make_data, schedule):
    with pytest.raises(ValueError, match=f"{schedule.__name__} needs to know how long the run is: set max_steps"):
        make_trainer(max_epochs=-1).fit(linear_task(scheduler=schedule), make_data())


class Stream(IterableDataset):
    """Samples without an end that anyone could know."""

    def __iter__(self):
        return iter([(torch.randn(4), 1)] * 8)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_schedule_over_data_without_a_length_needs_a_number_of_steps(make_trainer):
    loader = DataLoader(Stream(), batch_size=4)
    with pytest.raises(ValueError, match="OneCycle needs to know how long the run is: set max_steps"):
        make_trainer(max_epochs=2, limit_val_batches=0).fit(linear_task(scheduler=OneCycle), loader, loader)
    task = linear_task(scheduler=OneCycle)
    make_trainer(max_steps=4, limit_val_batches=0).fit(task, loader, loader)
    assert task.lr_schedulers().total_steps == 4


# ---------------------------------------------------------------------- checkpoints


def test_a_bare_task_comes_back_with_its_network(make_trainer, make_data, tmp_path):
    task = linear_task(label_smoothing=0.1, class_weights=(1.0, 2.0, 3.0))
    trainer = make_trainer(max_epochs=1)
    trainer.fit(task, make_data())
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    again = MulticlassClassification.load_from_checkpoint(tmp_path / "task.ckpt", network=nn.Linear(4, 3))
    assert again.hparams == {
        "num_classes": 3,
        "label_smoothing": 0.1,
        "class_weights": (1.0, 2.0, 3.0),
        "top_k": 2,
    }
    assert again.class_weights.tolist() == [1.0, 2.0, 3.0]
    features, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    assert torch.equal(again(features), task(features))
    assert torch.equal(again.compute_loss(again(features), labels), task.compute_loss(task(features), labels))
    changed = MulticlassClassification.load_from_checkpoint(
        str(tmp_path / "task.ckpt"), network=nn.Linear(4, 3), label_smoothing=0.0
    )
    assert (changed.label_smoothing, changed.hparams["label_smoothing"]) == (0.0, 0.0)


def test_loading_unsafely_is_refused(tmp_path):
    with pytest.raises(ValueError, match="weights_only=False would run code"):
        CNNClassifier.load_from_checkpoint(tmp_path / "any.ckpt", weights_only=False)
    with pytest.raises(CheckpointError, match="there is no checkpoint file"):
        CNNClassifier.load_from_checkpoint(tmp_path / "any.ckpt", weights_only=True)
