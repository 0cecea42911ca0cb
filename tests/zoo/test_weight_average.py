"""The average of the weights: its numbers by hand, where it stands in for the weights, and what goes on without it."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch import nn

from zoo import MLPClassifier, MulticlassClassification
from zoo.callbacks import WEIGHT_AVERAGE_KEY, LastCheckpoint, LeanLoop, StepSeeding, WeightAverage
from zoo.checkpointing import CheckpointError, SealedCheckpointIO, read_checkpoint, write_checkpoint

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
FIELDS = ("network.0.weight", "network.1.running_mean", "network.1.running_var")


class Watch(Callback):
    """Keeps the weights behind every step, and those that are validated."""

    def __init__(self):
        self.steps, self.validated = [], []

    def on_train_batch_end(self, trainer, pl_module, *args):
        if trainer.global_step > (self.steps[-1][0] if self.steps else 0):
            self.steps.append((trainer.global_step, copied(pl_module)))

    def on_validation_batch_start(self, trainer, pl_module, *args):
        self.validated.append(copied(pl_module))


def copied(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def make_task(**arguments):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    return MulticlassClassification(network=network, num_classes=3, optimizer=SGD, **arguments)


@pytest.fixture
def fit(make_trainer, make_data, tmp_path):
    """Fits a task with callbacks, four steps an epoch; returns trainer, task and the weights behind each step."""

    def fit(*callbacks, task=None, ckpt_path=None, **settings):
        task, watch = task or make_task(), Watch()
        if ckpt_path is not None:
            callbacks = (*callbacks, LastCheckpoint(tmp_path / "resumed"))
        trainer = make_trainer(
            callbacks=[StepSeeding(0), watch, *callbacks],
            plugins=[SealedCheckpointIO()],
            **{"max_epochs": 2, "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks)} | settings,
        )
        trainer.fit(task, make_data(train=16), ckpt_path=ckpt_path, weights_only=True)
        return trainer, task, watch

    return fit


def test_the_exponential_average_by_hand(fit):
    _, task, watch = fit(WeightAverage("ema", decay=0.3))
    weights = [state for _, state in watch.steps]
    for name in FIELDS:
        expected = weights[0][name]
        for done, state in enumerate(weights[1:], start=1):
            decay = min(0.3, (1 + done) / (10 + done))  # 2/11, 3/12, 4/13, then 0.3
            expected = decay * expected + (1 - decay) * state[name]
        torch.testing.assert_close(task.state_dict()[name], expected)
        assert not torch.equal(expected, weights[-1][name])
    assert task.network[1].num_batches_tracked == 8  # not averaged: what the trained weights have


@pytest.mark.parametrize(("start", "left_out"), [(0.5, 4), (None, 6), (0.0, 0)])
def test_the_stochastic_average_is_the_mean_of_the_steps_behind_its_start(fit, start, left_out):
    _, task, watch = fit(WeightAverage("swa", start=start))
    for name in FIELDS:
        mean = torch.stack([state[name] for _, state in watch.steps[left_out:]]).mean(dim=0)
        torch.testing.assert_close(task.state_dict()[name], mean)


def test_steps_are_averaged_not_batches(fit):
    _, task, watch = fit(WeightAverage("swa", start=0.0), accumulate_grad_batches=2, limit_val_batches=0)
    assert [step for step, _ in watch.steps] == [1, 2, 3, 4]
    # Between two steps a BatchNorm sees another batch: its statistics behind the steps count.
    mean = torch.stack([state["network.0.weight"] for _, state in watch.steps]).mean(dim=0)
    torch.testing.assert_close(task.state_dict()["network.0.weight"], mean)


class StopAfterTwo(Callback):
    def on_train_batch_end(self, trainer, *args):
        trainer.should_stop = trainer.global_step == 2


def test_until_its_start_nothing_is_otherwise(fit, tmp_path):
    _, _, plain = fit()
    _, task, watch = fit(WeightAverage("swa"), StopAfterTwo(), LastCheckpoint(tmp_path))
    assert len(watch.steps) == 2
    assert all(torch.equal(value, plain.steps[1][1][name]) for name, value in copied(task).items())
    assert all(torch.equal(value, plain.steps[1][1][name]) for name, value in watch.validated[-1].items())
    assert WEIGHT_AVERAGE_KEY not in read_checkpoint(tmp_path / "last.ckpt")


@pytest.mark.parametrize("loop", [[], [LeanLoop()]], ids=["Lightning's loop", "the lean loop"])
def test_the_average_is_validated_and_the_training_never_sees_it(fit, loop):
    _, _, plain = fit(*loop, val_check_interval=2)
    _, task, watch = fit(*loop, WeightAverage("ema", decay=0.5), val_check_interval=2)
    assert len(plain.steps) == len(watch.steps) == 8
    for (_, ours), (_, theirs) in zip(watch.steps, plain.steps, strict=True):
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    validated = watch.validated[::2]  # seven samples are two batches
    assert len(validated) == 4
    for name in FIELDS:
        assert not torch.equal(validated[0][name], watch.steps[1][1][name])
        assert torch.equal(validated[-1][name], copied(task)[name])


def test_a_checkpoint_is_of_the_average_and_has_what_the_training_goes_on_with(fit, make_data, tmp_path):
    best = ModelCheckpoint(tmp_path, "best", monitor="val/loss", save_on_train_epoch_end=False)
    average, last = WeightAverage("ema", decay=0.8), LastCheckpoint(tmp_path)
    trainer, task, watch = fit(average, best, last)
    contents = read_checkpoint(tmp_path / "last.ckpt")
    trained = contents[WEIGHT_AVERAGE_KEY]["trained"]
    assert contents[WEIGHT_AVERAGE_KEY]["updates"] == 8
    for name in FIELDS:
        assert torch.equal(contents["state_dict"][name], copied(task)[name])
        assert torch.equal(trained[name], watch.steps[-1][1][name])
    # Whoever tests with the same trainer tests the average of the best checkpoint.
    [result] = trainer.test(task, make_data(train=16), ckpt_path=best.best_model_path, weights_only=True, verbose=False)
    saved = read_checkpoint(best.best_model_path)["state_dict"]
    assert all(torch.equal(value, copied(task)[name]) for name, value in saved.items())
    [again] = trainer.test(task, make_data(train=16), verbose=False)
    assert again == result
    # What is saved behind a test is what was tested.
    trainer.save_checkpoint(tmp_path / "tested.ckpt")
    assert WEIGHT_AVERAGE_KEY not in read_checkpoint(tmp_path / "tested.ckpt")


def test_a_leaf_comes_back_as_its_average(fit, tmp_path):
    task = MLPClassifier(in_features=4, num_classes=3, hidden=(5,), norm="batch", optimizer=SGD)
    fit(WeightAverage("swa", start=0.0), LastCheckpoint(tmp_path), task=task)
    again = MLPClassifier.load_from_checkpoint(tmp_path / "last.ckpt")
    assert all(torch.equal(value, copied(task)[name]) for name, value in copied(again).items())
    begun = MLPClassifier(4, 3, (5,), norm="batch", weights=str(tmp_path / "last.ckpt"))
    assert all(torch.equal(value, copied(task)[name]) for name, value in copied(begun).items())


def test_a_longer_run_goes_on_from_the_end_of_a_shorter_one(fit, tmp_path):
    _, whole, _ = fit(WeightAverage(), max_epochs=4)
    fit(WeightAverage(), LastCheckpoint(tmp_path), max_epochs=2)
    _, resumed, _ = fit(WeightAverage(), max_epochs=4, ckpt_path=tmp_path / "last.ckpt")
    assert all(torch.equal(value, copied(resumed)[name]) for name, value in copied(whole).items())


def test_half_precision_is_averaged_in_32_bits(fit, tmp_path):
    task = make_task()
    _, _, watch = fit(WeightAverage("ema", decay=0.999), LastCheckpoint(tmp_path), task=task, precision="bf16-true")
    weights = [state["network.0.weight"] for _, state in watch.steps]
    assert weights[0].dtype == copied(task)["network.0.weight"].dtype == torch.bfloat16
    expected = weights[0].float()
    for done, weight in enumerate(weights[1:], start=1):
        expected = torch.lerp(expected, weight.float(), 1 - (1 + done) / (10 + done))
    contents = read_checkpoint(tmp_path / "last.ckpt")
    average = contents[WEIGHT_AVERAGE_KEY]["average"]["network.0.weight"]
    assert torch.equal(average, expected)
    assert torch.equal(contents["state_dict"]["network.0.weight"], expected.bfloat16())
    # A resumed run goes on with all the digits.
    _, whole, _ = fit(WeightAverage(), max_epochs=3, precision="bf16-true")
    _, resumed, _ = fit(WeightAverage(), max_epochs=3, precision="bf16-true", ckpt_path=tmp_path / "last.ckpt")
    assert all(torch.equal(value, copied(resumed)[name]) for name, value in copied(whole).items())


class Somebodys(LightningModule):
    """A module that owes nothing to this project, with a weight of two names and a mask."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.other = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.other.weight = self.one.weight
        self.register_buffer("mask", torch.tensor([0.0, 0.0, 0.0, -torch.inf]))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.other(self.one(batch[0])) + self.mask, batch[1])

    def validation_step(self, batch, batch_idx):
        assert self.other.weight is self.one.weight

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_of_any_module_a_weight_with_two_names_and_infinite_buffers(fit, tmp_path):
    _, task, watch = fit(WeightAverage("swa", start=0.0), LastCheckpoint(tmp_path), task=Somebodys())
    mean = torch.stack([state["one.weight"] for _, state in watch.steps]).mean(dim=0)
    saved = read_checkpoint(tmp_path / "last.ckpt")["state_dict"]
    for state in (saved, copied(task)):
        torch.testing.assert_close(state["one.weight"], mean)
        assert torch.equal(state["one.weight"], state["other.weight"])
        assert state["mask"].tolist() == [0.0, 0.0, 0.0, -torch.inf]
    assert any(
        not torch.equal(before["one.weight"], after["one.weight"]) for (_, before), (_, after) in pairwise(watch.steps)
    )


class FailInValidation(Callback):
    def on_validation_batch_start(self, *args):
        raise RuntimeError("no more")


def test_a_validation_that_fails_leaves_the_trained_weights(fit):
    task = make_task()
    with pytest.raises(RuntimeError, match="no more"):
        fit(watch := Watch(), WeightAverage("swa", start=0.0), FailInValidation(), task=task)
    assert all(torch.equal(value, watch.steps[-1][1][name]) for name, value in copied(task).items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "emma"}, "kind must be one of 'ema', 'swa', got 'emma'; did you mean 'ema'"),
        *(({"decay": decay}, "decay must be greater than 0 and less than 1") for decay in (0.0, 1.0, -1, True, "0.9")),
        ({"decay": float("nan")}, "decay must be greater than 0 and less than 1, got nan"),
        ({"start": 1.0}, "start must be at least 0 and less than 1"),
        ({"start": -0.1}, "start must be at least 0 and less than 1"),
    ],
)
def test_values_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        WeightAverage(**arguments)


def test_two_averages_are_one_too_many(fit):
    with pytest.raises(Exception, match="there are two WeightAverage callbacks"):
        fit(WeightAverage(), WeightAverage("swa"))


def test_a_start_needs_a_length(fit):
    with pytest.raises(ValueError, match="needs to know how long the run is"):
        fit(WeightAverage("swa"), max_epochs=-1)


def test_what_cannot_be_gone_on_with_is_told(fit, tmp_path):
    fit(WeightAverage(), LastCheckpoint(tmp_path))
    path = tmp_path / "last.ckpt"
    with pytest.raises(CheckpointError, match="averages its weights by 'ema', not 'swa'"):
        fit(WeightAverage("swa"), ckpt_path=path, max_epochs=3)
    contents = read_checkpoint(path)
    good = contents[WEIGHT_AVERAGE_KEY]
    trained = good["trained"]
    for damaged in (
        *(
            [],
            {},
            "ema",
            3,
            {**good, "updates": "many"},
            {**good, "updates": float("inf")},
            {**good, "trained": {}},
            {**good, "trained": None},
        ),
        {**good, "trained": {**trained, FIELDS[0]: torch.zeros(7)}},
        {**good, "trained": {**trained, FIELDS[0]: "weight"}},
        {**good, "average": {FIELDS[0]: torch.zeros(2, 2)}},
    ):
        write_checkpoint({**contents, WEIGHT_AVERAGE_KEY: damaged}, path)
        with pytest.raises(CheckpointError, match="the average of the weights in the checkpoint is damaged"):
            fit(WeightAverage(), ckpt_path=path, max_epochs=3)
    # One that was not averaged before is from here on.
    del contents[WEIGHT_AVERAGE_KEY]
    write_checkpoint(contents, path)
    _, task, watch = fit(WeightAverage("swa", start=0.0), ckpt_path=path, max_epochs=3)
    mean = torch.stack([state[FIELDS[0]] for _, state in watch.steps]).mean(dim=0)
    assert len(watch.steps) == 4
    torch.testing.assert_close(copied(task)[FIELDS[0]], mean)


def test_a_second_fit_begins_an_average_of_its_own(fit, make_data):
    trainer, task, watch = fit(WeightAverage("swa", start=0.0), max_epochs=1)
    first = copied(task)
    watch.steps.clear()
    trainer.fit_loop.max_epochs = 2
    trainer.fit(task, make_data(train=16))
    mean = torch.stack([state[FIELDS[0]] for _, state in watch.steps]).mean(dim=0)
    torch.testing.assert_close(copied(task)[FIELDS[0]], mean)
    assert not torch.equal(copied(task)[FIELDS[0]], first[FIELDS[0]])
