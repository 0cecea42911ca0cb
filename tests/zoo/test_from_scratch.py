"""Gradient descent by hand, against ``torch.optim.SGD`` in the same task."""

import functools
import math

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn

from datamodules import TensorDataModule
from zoo import GradientDescentRegression, LinearRegressor, LinearRegressorFromScratch, NonFiniteLossError, Regression
from zoo.checkpointing import CheckpointError
from zoo.networks import MLP

LR = 0.07


def make_data():
    """Ten batches of 4 and one of 2 an epoch, and 5 samples each for validation and test."""
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(52, 3, generator=generator)
    targets = features @ torch.randn(3, 2, generator=generator) + torch.randn(52, 2, generator=generator)
    return TensorDataModule(
        features, targets, val_size=5, test_size=5, batch_size=4, eval_batch_size=2, drop_last=False, seed=0
    )


def make_pair(loss="mse"):
    """Both ways of descent from the same start."""
    by_hand = LinearRegressorFromScratch(3, 2, lr=LR, loss=loss)
    by_torch = LinearRegressor(3, 2, loss=loss, optimizer=functools.partial(torch.optim.SGD, lr=LR))
    by_torch.load_state_dict(by_hand.state_dict())
    return by_hand, by_torch


class Weights(Callback):
    """The parameters and the steps after each batch and each epoch."""

    def __init__(self):
        self.batches, self.epochs = [], []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.batches.append(self.look(trainer, pl_module))

    def on_train_epoch_end(self, trainer, pl_module):
        self.epochs.append(self.look(trainer, pl_module))

    @staticmethod
    def look(trainer, pl_module):
        return trainer.global_step, [parameter.detach().clone() for parameter in pl_module.parameters()]


def same(one, other):
    """Equal to the bit."""
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("loss", ["mse", "huber", "l1"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
def test_the_whole_run_is_that_of_sgd_to_the_bit(make_trainer, list_logger, loss, precision):
    runs = []
    for task in make_pair(loss):
        list_logger.calls, weights = [], Weights()
        trainer = make_trainer(
            max_epochs=4, precision=precision, logger=list_logger, callbacks=[weights], log_every_n_steps=3
        )
        trainer.fit(task, make_data())
        runs.append((weights, list_logger.calls, trainer.test(task, make_data(), verbose=False)))
    (by_hand, logged, tested), (by_torch, logged_by_torch, tested_by_torch) = runs
    assert [step for step, _ in by_hand.epochs] == [11, 22, 33, 44]
    assert [step for step, _ in by_hand.batches] == list(range(1, 45))
    for one, other in zip(by_hand.batches + by_hand.epochs, by_torch.batches + by_torch.epochs, strict=True):
        assert one[0] == other[0]
        assert same(one[1], other[1])
    assert not same(by_hand.epochs[0][1], by_hand.epochs[1][1])
    assert len([step for step, metrics in logged if "train/loss" in metrics]) == 44 // 3
    assert logged == logged_by_torch
    assert tested == tested_by_torch


def test_any_network_descends_like_sgd(make_trainer):
    runs = []
    for make in (
        functools.partial(GradientDescentRegression, lr=LR),
        functools.partial(Regression, optimizer=functools.partial(torch.optim.SGD, lr=LR)),
    ):
        torch.manual_seed(5)
        task = make(MLP(3, (8, 8), 2, "tanh", "batch"))
        task.network.head.bias.requires_grad_(False)
        make_trainer(max_epochs=3).fit(task, make_data())
        runs.append(list(task.state_dict().values()))
    assert same(*runs)


def test_one_step_by_hand(make_trainer):
    task = GradientDescentRegression(nn.Linear(1, 1), lr=0.25)
    nn.init.constant_(task.network.weight, 2.0)
    nn.init.zeros_(task.network.bias)
    data = TensorDataModule(torch.full((6, 1), 3.0), torch.ones(6, 1), val_size=2, test_size=2, batch_size=2)
    make_trainer(max_epochs=1).fit(task, data)
    # The loss is (3 w + b - 1)², its gradients 6 (3 w + b - 1) and 2 (3 w + b - 1).
    assert (task.network.weight.item(), task.network.bias.item()) == (2.0 - 0.25 * 30.0, -0.25 * 10.0)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
# Lightning would rather have the state before a step; after it, as with any optimizer, is what goes on.
@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization and every_n_train_steps")
@pytest.mark.parametrize("start", ["epoch=1-step=22.ckpt", "epoch=2-step=25.ckpt"], ids=["epoch", "batch"])
def test_a_resumed_run_is_the_whole_one(make_trainer, list_logger, tmp_path, start):
    def run(task, ckpt_path=None):
        list_logger.calls, weights = [], Weights()
        savers = [
            ModelCheckpoint(tmp_path, "{epoch}-{step}", every_n_epochs=1, save_top_k=-1),
            ModelCheckpoint(tmp_path, "{epoch}-{step}", every_n_train_steps=25, save_top_k=-1),
        ]
        settings = {"max_epochs": 4, "log_every_n_steps": 2, "callbacks": [weights, *savers]}
        trainer = make_trainer(logger=list_logger, enable_checkpointing=True, **settings)
        trainer.fit(task, make_data(), ckpt_path=ckpt_path, weights_only=True)
        return trainer, list_logger.calls, weights.epochs

    _, calls, epochs = run(make_pair()[0])
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {
        *(f"epoch={epoch}-step={11 * epoch + 11}.ckpt" for epoch in range(4)),
        "epoch=2-step=25.ckpt",
    }
    again, calls_again, epochs_again = run(LinearRegressorFromScratch(3, 2, lr=LR), tmp_path / start)
    first = 22 if "step=22" in start else 25
    assert calls_again == [(step, metrics) for step, metrics in calls if step >= first]
    assert again.global_step == 44
    assert [step for step, _ in epochs_again] == [33, 44]
    assert all(same(one[1], other[1]) for one, other in zip(epochs[2:], epochs_again, strict=True))


def test_the_steps_are_counted_for_max_steps(make_trainer):
    weights = Weights()
    trainer = make_trainer(max_steps=14, max_epochs=-1, callbacks=[weights])
    trainer.fit(LinearRegressorFromScratch(3, 2), make_data())
    assert (trainer.global_step, len(weights.batches), len(weights.epochs)) == (14, 14, 2)


def test_weights_begin_standard_normal_and_biases_zero():
    network = LinearRegressorFromScratch(in_features=100, out_features=100).network.linear
    assert network.weight.std().item() == pytest.approx(1.0, abs=0.03)
    assert network.weight.mean().item() == pytest.approx(0.0, abs=0.03)
    assert network.bias.tolist() == [0.0] * 100
    assert LinearRegressorFromScratch(init="constant").network.linear.weight.item() == pytest.approx(0.01)


def test_the_loss_of_a_rate_too_high_ends_the_run(make_trainer):
    with pytest.raises(NonFiniteLossError, match="the training loss became"):
        make_trainer(max_epochs=20).fit(LinearRegressorFromScratch(3, 2, lr=100.0), make_data())


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0)])
def test_neither_goes_on_with_the_others_run(make_trainer, tmp_path, first, second):
    tasks, trainer = make_pair(), make_trainer(max_epochs=1)
    trainer.fit(tasks[first], make_data())
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    with pytest.raises(CheckpointError, match=r"the run to resume has the optimizer (SGD, not None|None, not SGD)"):
        make_trainer(max_epochs=2).fit(tasks[second], make_data(), ckpt_path=tmp_path / "run.ckpt", weights_only=True)


def test_a_scaled_loss_is_refused(make_trainer):
    # On a GPU "16-mixed" brings the scaler; nobody would take the scale out of the gradients again.
    scaler = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(MisconfigurationException, match="precision 16-mixed scales the loss for an optimizer"):
        make_trainer(max_epochs=1, plugins=[scaler]).fit(LinearRegressorFromScratch(3, 2), make_data())


@pytest.mark.parametrize("settings", [{"gradient_clip_val": 1.0}, {"accumulate_grad_batches": 2}])
def test_what_is_done_to_an_optimizers_step_is_refused(make_trainer, settings):
    with pytest.raises(MisconfigurationException, match="not supported for manual optimization"):
        make_trainer(max_epochs=1, **settings).fit(LinearRegressorFromScratch(3, 2), make_data())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lr": 0.0}, ValueError, r"lr must be a positive number, got 0\.0"),
        ({"lr": -0.1}, ValueError, r"lr must be a positive number, got -0\.1"),
        ({"lr": math.nan}, ValueError, "lr must be a positive number, got nan"),
        ({"lr": math.inf}, ValueError, "lr must be a positive number, got inf"),
        ({"loss": "mea"}, ValueError, "loss must be one of 'mse', 'huber', 'l1', got 'mea'"),
        ({"optimizer": torch.optim.SGD}, TypeError, "optimizer"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        LinearRegressorFromScratch(3, 2, **arguments)
