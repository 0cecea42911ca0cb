"""A bad value ends a run at once, in words that say where it is, and leaves the last good checkpoint as it was."""

import math
from collections import namedtuple
from functools import partial

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from datamodules import BatchLoader, Padded, TensorDataModule
from zoo import (
    BinaryClassification,
    MulticlassClassification,
    NonFiniteBatchError,
    NonFiniteError,
    NonFiniteLossError,
    NonFiniteWeightsError,
    Regression,
    SequenceTranscription,
    TargetError,
)
from zoo.callbacks import BatchSizeError, NoTrainingStepError, ValueGuard, value_guard
from zoo.checkpointing import SealedCheckpointIO, read_checkpoint
from zoo.values import Place, finite_flag, is_finite, named_tensors

SGD = partial(torch.optim.SGD, lr=0.1)
NAN, INF = math.nan, math.inf

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


class Unsized:
    """A loader that does not say how many batches it has."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


class Spoiled:
    """Batches of four, three an epoch; ``spoil`` changes the one that is ``at`` in the order of all that are made."""

    def __init__(self, at, spoil):
        self.at, self.spoil = at, spoil
        self.made = 0

    def __len__(self):
        return 3

    def __iter__(self):
        for _ in range(3):
            generator = torch.Generator().manual_seed(self.made)
            batch = [torch.randn(4, 5, generator=generator), torch.arange(4) % 3]
            if self.made == self.at:
                batch = self.spoil(*batch)
            self.made += 1
            yield tuple(batch)


def put(value, *index):
    """Puts a value into the features."""

    def spoil(features, targets):
        features[index] = value
        return features, targets

    return spoil


def label(value, dtype=torch.int64):
    def spoil(features, targets):
        targets[2] = value
        return features, targets.to(dtype)

    return spoil


def float_label(features, targets):
    return features, torch.tensor([0.0, NAN, 1.0, 2.0])


def multiclass(**settings):
    return MulticlassClassification(nn.Linear(5, 3), 3, optimizer=SGD, **settings)


class BadLoss(nn.Module):
    """Logits whose loss is NaN or infinite in the fifth training step."""

    def __init__(self, value):
        super().__init__()
        self.layer, self.value, self.steps = nn.Linear(5, 3), value, 0

    def forward(self, x):
        self.steps += self.training
        return self.layer(x) * (self.value if self.training and self.steps == 5 else 1.0)


CASES = {
    "nan in features": (multiclass, put(NAN, 2, 1), NonFiniteBatchError, r"features hold nan in sample 2.*\(1,\)"),
    "infinity in features": (multiclass, put(INF, 0, 4), NonFiniteBatchError, r"features hold inf in sample 0"),
    "minus infinity": (multiclass, put(-INF, 3, 0), NonFiniteBatchError, r"features hold -inf in sample 3"),
    "label -100": (
        multiclass,
        label(-100),
        TargetError,
        r"label -100 is outside 0\.\.2: no label is left out.*sample 2",
    ),
    "label too large": (multiclass, label(3), TargetError, r"label 3 is outside 0\.\.2: num_classes=3.*sample 2"),
    "int32 labels": (multiclass, label(1, torch.int32), TargetError, r"int32: convert them with targets\.long\(\)"),
    "float labels": (multiclass, float_label, NonFiniteBatchError, r"targets hold nan in sample 1"),
    "no weight": (
        partial(multiclass, class_weights=(0.0, 1.0, 1.0)),
        lambda features, targets: (features, targets * 0),
        TargetError,
        r"all labels of the batch have class weight 0.*greater than 0",
    ),
}


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists")
@pytest.mark.parametrize(("make_task", "spoil", "error", "message"), CASES.values(), ids=CASES)
def test_a_bad_batch_ends_the_run_and_leaves_the_last_good_checkpoint(
    make_trainer, tmp_path, make_task, spoil, error, message
):
    def trainer():
        kept = ModelCheckpoint(tmp_path, "last", enable_version_counter=False, save_on_train_epoch_end=True)
        callbacks, plugins = [ValueGuard(), kept], [SealedCheckpointIO()]
        return make_trainer(max_epochs=3, callbacks=callbacks, plugins=plugins, enable_checkpointing=True)

    task = make_task()
    with pytest.raises(error, match=message) as caught:
        trainer().fit(task, Spoiled(4, spoil))
    assert "in training at step 4, batch 1 of epoch 1" in str(caught.value)
    saved = read_checkpoint(tmp_path / "last.ckpt")
    assert saved["global_step"] == 3
    assert all(is_finite(value) for value in saved["state_dict"].values())
    # The weights in memory are good as well: those of the step before.
    assert all(is_finite(parameter) for parameter in task.parameters())
    resumed = trainer()
    resumed.fit(make_task(), Spoiled(-1, None), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert resumed.global_step == 9


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_bad_loss_names_step_and_batch(make_trainer, value):
    task = MulticlassClassification(BadLoss(value), 3, optimizer=SGD)
    with pytest.raises(NonFiniteLossError, match="became nan at step 4, batch 1 of epoch 1") as caught:
        make_trainer(max_epochs=3, callbacks=[ValueGuard()]).fit(task, Spoiled(-1, None))
    assert (caught.value.step, caught.value.epoch, caught.value.batch) == (4, 1, 1)


def test_a_bad_validation_loss_names_the_batch(make_trainer):
    data = BatchLoader(torch.full((8, 5), 2e38), torch.arange(8) % 3, batch_size=4)
    task = multiclass()
    nn.init.constant_(task.network.weight, 1.0)  # whose logits are infinite
    with pytest.raises(NonFiniteLossError, match="validation loss became nan at step 3, batch 0"):
        make_trainer(max_epochs=1, callbacks=[ValueGuard()]).fit(task, Spoiled(-1, None), data)


@pytest.mark.parametrize("stage", ["validation", "test"])
def test_evaluation_is_looked_at_too(make_trainer, stage):
    features = torch.randn(12, 5)
    features[9, 2] = INF
    trainer, loader = make_trainer(callbacks=[ValueGuard()]), BatchLoader(features, torch.arange(12) % 3, batch_size=4)
    run = trainer.validate if stage == "validation" else trainer.test
    with pytest.raises(NonFiniteBatchError, match=rf"features hold inf in sample 1 .*in {stage} at step 0, batch 2\)"):
        run(multiclass(), loader, verbose=False)


@pytest.mark.parametrize(
    ("task", "batch", "message"),
    [
        (
            BinaryClassification(nn.Linear(5, 1)),
            (torch.zeros(3, 5), torch.tensor([0, 1, 2])),
            r"label 2 is outside \{0, 1\}.*sample 2",
        ),
        (BinaryClassification(nn.Linear(5, 1)), (torch.zeros(2, 5), torch.tensor([-100, 1])), r"label -100 .*sample 0"),
        (
            BinaryClassification(nn.Linear(5, 1)),
            (torch.zeros(2, 5), torch.tensor([0, 1], dtype=torch.uint8)),
            r"uint8: convert them with targets\.long",
        ),
        (BinaryClassification(nn.Linear(5, 1)), (torch.zeros(2, 5), torch.rand(2)), "int64 or bool, got .* float32"),
        (
            Regression(nn.Linear(5, 1)),
            (torch.zeros(2, 5), torch.zeros(2, 1).long()),
            "floating-point numbers, got int64",
        ),
        (
            SequenceTranscription(nn.Linear(5, 4), "abc"),
            (torch.zeros(2, 6, 5), (torch.tensor([[1, 2], [-100, 1]]), torch.tensor([2, 2]))),
            "sample 1 of the batch holds the label -100",
        ),
    ],
)
def test_labels_that_do_not_fit_say_where_and_what_to_do(task, batch, message):
    with pytest.raises(TargetError, match=rf"{message}.*\(in validation at step 0, batch 7\)"):
        task.validation_step(batch, 7)


class Elsewhere(torch.Tensor):
    """A tensor that says it lives on a GPU."""

    @property
    def device(self):
        return torch.device("cuda", 0)


@pytest.mark.parametrize("wrong", [-100, 3, None])
def test_labels_on_a_gpu_are_told_by_the_loss_and_never_reach_a_kernel(wrong):
    targets = torch.tensor([0, 1, 2])
    if wrong is not None:
        targets[1] = wrong
    logits = torch.randn(3, 3)
    loss = multiclass().compute_loss(logits, targets.as_subclass(Elsewhere)).as_subclass(torch.Tensor)
    assert torch.equal(loss, nn.functional.cross_entropy(logits, targets)) if wrong is None else loss.isnan()


def test_validation_labels_of_one_class_give_no_area_and_no_warning(make_trainer):
    data = BatchLoader(torch.randn(6, 5), torch.ones(6, dtype=torch.int64), batch_size=4)
    [figures] = make_trainer().validate(BinaryClassification(nn.Linear(5, 1)), data, verbose=False)
    assert math.isnan(figures["val/auroc"])
    assert figures["val/average_precision"] == 1.0


# ---------------------------------------------------------------------- anyone's module


class Plain(LightningModule):
    """Somebody else's module."""

    def __init__(self, network=None, lr=0.1):
        super().__init__()
        self.network, self.lr = network or nn.Linear(5, 1), lr

    def training_step(self, batch, batch_idx):
        features = next(tensor for _, tensor in named_tensors(batch))
        return self.network(features).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


Pair = namedtuple("Pair", "image extra")
BATCHES = {
    "targets": lambda good, bad: (good, bad),
    "features[1]": lambda good, bad: ((good, bad), good),
    "batch[2]": lambda good, bad: (good, good, bad),
    "batch['mask']": lambda good, bad: {"x": good, "mask": bad},
    "features['a'][0]": lambda good, bad: ({"x": good, "a": [bad]}, good),
    "batch.extra": Pair,
    "features.values": lambda good, bad: (next(iter(BatchLoader(padded(bad), good, 4)))[0], good),
}


def padded(values):
    return Padded(values, torch.full((len(values),), values.shape[1]))


@pytest.mark.parametrize(("field", "build"), BATCHES.items(), ids=BATCHES)
def test_every_part_of_a_batch_is_named(make_trainer, field, build):
    bad = torch.ones(4, 5, dtype=torch.float16 if field == "targets" else torch.float32)
    bad[2, 3] = NAN
    loader = Unsized([build(torch.ones(4, 5), torch.ones(4, 5)), build(torch.ones(4, 5), bad)])
    trainer = make_trainer(max_epochs=1, callbacks=[ValueGuard()])
    with pytest.raises(NonFiniteBatchError) as caught:
        trainer.fit(Plain(), loader)
    assert (caught.value.field, caught.value.sample, caught.value.place.batch) == (field, 2, 1)
    if field in {"targets", "features[1]"}:  # which the module does not use
        ignoring = make_trainer(max_epochs=1, callbacks=[ValueGuard(ignore=[field.removesuffix("[1]")])])
        ignoring.fit(Plain(), loader)
        assert ignoring.global_step == 2


def test_ignored_fields_are_names():
    with pytest.raises(ValueError, match=r"such as \['targets'\]"):
        ValueGuard(ignore="targets")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
def test_large_numbers_whose_sum_overflows_are_no_false_alarm(dtype):
    largest = torch.finfo(dtype).max
    values = torch.full((3, 50), largest, dtype=dtype)
    assert is_finite(values)
    assert finite_flag(values) == 0.0
    for value in (NAN, INF, -INF):
        values[1, 7] = value
        assert not is_finite(values)
        assert finite_flag(values).isnan()


def test_sparse_batches_are_looked_at():
    dense = torch.eye(3)
    assert is_finite(dense.to_sparse())
    dense[1, 1] = INF
    assert not is_finite(dense.to_sparse())
    assert finite_flag(dense.to_sparse()).isnan()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_batches_are_looked_at(layout):
    parts = [torch.ones(2), torch.ones(3)]
    assert is_finite(torch.nested.nested_tensor(parts, layout=layout))
    parts[1][2] = NAN
    broken = torch.nested.nested_tensor(parts, layout=layout)
    assert not is_finite(broken)
    assert finite_flag(broken).isnan()


def test_a_sparse_batch_is_refused_without_its_sample():
    place = Place("training", 3, 0, 2)
    error = NonFiniteBatchError("features", place, torch.tensor([[0.0, NAN]]).to_sparse())
    assert str(error).startswith("the features hold NaN or infinity (in training at step 3")
    assert error.sample is None


@pytest.fixture
def deferred(monkeypatch):
    """As if batches and losses lived on a GPU."""
    here = value_guard.finite_flag
    monkeypatch.setattr(value_guard, "finite_flag", lambda tensor: here(tensor.as_subclass(torch.Tensor)))
    monkeypatch.setattr(
        value_guard,
        "named_tensors",
        lambda batch: [(name, tensor.as_subclass(Elsewhere)) for name, tensor in named_tensors(batch)],
    )
    monkeypatch.setattr(value_guard, "is_finite", lambda tensor: True)  # of the loss, which is on the CPU here


@pytest.mark.parametrize(("interval", "seen"), [(1, 4), (2, 5), (50, 6)])
def test_other_devices_are_read_at_log_points_and_name_the_batch(make_trainer, deferred, interval, seen):
    steps = []
    task = Plain()
    task.on_train_batch_end = lambda *_: steps.append(task.global_step)
    trainer = make_trainer(max_epochs=3, log_every_n_steps=interval, callbacks=[ValueGuard()])
    with pytest.raises(NonFiniteBatchError, match=r"features hold NaN or infinity \(in training at step 4, batch 1 of"):
        trainer.fit(task, Spoiled(4, put(NAN, 0, 0)))
    assert len(steps) == seen


@pytest.mark.parametrize("automatic", [True, False])
def test_a_loss_of_anyones_module_is_refused_before_it_is_differentiated(make_trainer, automatic):
    class Breaks(Plain):
        automatic_optimization = automatic

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx) * (NAN if self.global_step == 4 else 1.0)
            if not automatic:
                self.optimizers().zero_grad()
                self.manual_backward(loss)
                self.optimizers().step()
            return loss

    task = Breaks()
    with pytest.raises(NonFiniteLossError, match="training loss became nan at step 4, batch 1 of epoch 1"):
        make_trainer(max_epochs=3, callbacks=[ValueGuard()]).fit(task, Spoiled(-1, None))
    assert all(is_finite(parameter) for parameter in task.parameters())


# ---------------------------------------------------------------------- weights


class BreaksWeights(Plain):
    """Its fourth update breaks the weights, and no loss shows it."""

    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
        if self.global_step == 3:  # three were complete before
            self.network.bias.data.fill_(NAN)


@pytest.mark.parametrize("every", [1, 4])
def test_weights_that_an_update_broke_are_never_written_over_good_ones(make_trainer, tmp_path, every):
    saver = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=every, save_top_k=-1)
    trainer = make_trainer(max_steps=4, max_epochs=-1, callbacks=[ValueGuard(), saver], enable_checkpointing=True)
    with pytest.raises(NonFiniteWeightsError, match=r"network\.bias is no longer finite after step 4"):
        trainer.fit(BreaksWeights(), Spoiled(-1, None))
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == [f"step={s}.ckpt" for s in (1, 2, 3) if every == 1]


def test_broken_weights_at_the_end_of_a_fit_are_an_error_without_any_checkpoint(make_trainer):
    with pytest.raises(NonFiniteWeightsError, match=r"network\.bias"):
        make_trainer(max_steps=4, max_epochs=-1, callbacks=[ValueGuard()]).fit(BreaksWeights(), Spoiled(-1, None))


def test_a_task_saves_no_broken_weights_whatever_kind_of_checkpoint(make_trainer, tmp_path):
    task = multiclass()
    trainer = make_trainer(max_epochs=1)
    trainer.fit(task, Spoiled(-1, None))
    task.network.weight.data[0, 0] = INF
    for weights_only in (False, True):
        with pytest.raises(NonFiniteWeightsError, match=r"network\.weight is no longer finite after step 3"):
            trainer.save_checkpoint(tmp_path / "broken.ckpt", weights_only)
    assert not (tmp_path / "broken.ckpt").exists()


def test_a_mask_of_infinities_may_stay(make_trainer, tmp_path):
    task = Plain()
    task.register_buffer("mask", torch.tensor([0.0, -INF]))
    trainer = make_trainer(max_epochs=1, callbacks=[ValueGuard()])
    trainer.fit(task, Spoiled(-1, None))
    trainer.save_checkpoint(tmp_path / "good.ckpt")
    assert torch.load(tmp_path / "good.ckpt", weights_only=True)["global_step"] == 3


# ---------------------------------------------------------------------- no steps, and batches of one


class NoBatches(IterableDataset):
    def __iter__(self):
        return iter(())


def dropped():
    return DataLoader(TensorDataset(torch.zeros(3, 5)), batch_size=4, drop_last=True)


@pytest.mark.filterwarnings("ignore:Total length of:UserWarning", "ignore:.*num_workers:UserWarning")
@pytest.mark.parametrize(
    ("loader", "settings"),
    [
        (lambda: Spoiled(-1, None), {"limit_train_batches": 0}),
        (dropped, {}),
        (list, {}),
        (lambda: DataLoader(NoBatches()), {"max_epochs": 2}),
    ],
    ids=["limit of zero", "dropped", "empty", "empty iterable"],
)
def test_a_fit_without_a_step_is_an_error(make_trainer, loader, settings):
    trainer = make_trainer(**({"max_epochs": 1, "callbacks": [ValueGuard()]} | settings))
    with pytest.raises(NoTrainingStepError, match=r"gave no batch.*limit_train_batches.*drop_last"):
        trainer.fit(Plain(), loader())


def test_a_fit_that_has_nothing_left_to_do_is_none(make_trainer, tmp_path):
    first = make_trainer(max_epochs=1, callbacks=[ValueGuard()])
    first.fit(Plain(), Spoiled(-1, None))
    first.save_checkpoint(tmp_path / "done.ckpt")
    again = make_trainer(max_epochs=1, callbacks=[ValueGuard()])
    again.fit(Plain(), Spoiled(-1, None), ckpt_path=tmp_path / "done.ckpt", weights_only=True)
    none = make_trainer(max_epochs=0, callbacks=[ValueGuard()])
    none.fit(Plain(), Spoiled(-1, None))
    assert (again.global_step, none.global_step) == (3, 0)


def flat_norm():
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def image_norm():
    return nn.Sequential(nn.Unflatten(1, (1, 5, 1)), nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten())


def collapsed_norm():
    return nn.Sequential(nn.Unflatten(1, (5, 1, 1)), nn.BatchNorm2d(5), nn.Flatten())


def ours(samples, **settings):
    return BatchLoader(torch.randn(samples, 5), torch.zeros(samples), 4, shuffle=True, **settings)


def torchs(samples, **settings):
    return DataLoader(TensorDataset(torch.randn(samples, 5)), batch_size=4, **settings)


@pytest.mark.filterwarnings("ignore:.*num_workers:UserWarning")
@pytest.mark.parametrize(
    ("network", "loader", "settings", "steps"),
    [
        (flat_norm, lambda: ours(9), {}, 0),
        (flat_norm, lambda: torchs(9), {}, 0),
        (flat_norm, lambda: ours(9), {"accumulate_grad_batches": 3}, 0),
        (collapsed_norm, lambda: ours(9), {}, 0),
        (flat_norm, lambda: Unsized(ours(9)), {}, 2),
        (flat_norm, lambda: torchs(9, drop_last=True), {}, None),
        (flat_norm, lambda: ours(10), {}, None),
        (flat_norm, lambda: ours(9), {"limit_train_batches": 2}, None),
        (image_norm, lambda: ours(9), {}, None),
    ],
)
def test_batch_norm_over_one_sample_is_refused_before_the_first_step_where_it_can_be(
    make_trainer, network, loader, settings, steps
):
    trainer = make_trainer(max_epochs=1, callbacks=[ValueGuard()], **settings)
    if steps is None:
        trainer.fit(Plain(network()), loader())
        assert trainer.global_step == trainer.num_training_batches
        return
    which = "the last batch of every epoch" if steps == 0 else "the batch in training at step 2, batch 2 of epoch 0"
    with pytest.raises(
        BatchSizeError, match=rf"{which} holds a single sample.*network\.\d \(BatchNorm.*drop_last=True"
    ):
        trainer.fit(Plain(network()), loader())
    assert trainer.global_step == steps


class NoLength(Unsized):
    def __len__(self):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("network", "loader", "max_steps"),
    [
        (flat_norm, lambda: ours(9), 2),
        (flat_norm, lambda: NoLength(ours(10)), 3),
        (lambda: nn.LazyLinear(1), lambda: ours(9), 3),
    ],
    ids=["ends before the last batch", "length not implemented", "weights without a shape yet"],
)
def test_a_run_that_would_go_well_is_not_refused(make_trainer, network, loader, max_steps):
    trainer = make_trainer(max_epochs=-1, max_steps=max_steps, callbacks=[ValueGuard()])
    trainer.fit(Plain(network()), loader())
    assert trainer.global_step == max_steps


def test_frozen_batch_norm_takes_single_samples(make_trainer):
    network = flat_norm()

    class Frozen(Plain):
        def on_train_epoch_start(self):
            network[1].eval()

    trainer = make_trainer(max_epochs=1, callbacks=[ValueGuard()])
    trainer.fit(Frozen(network), ours(9))
    assert trainer.global_step == 3
    assert not network[1]._forward_pre_hooks


def test_all_errors_about_values_are_of_one_kind():
    kinds = {NonFiniteBatchError, NonFiniteLossError, NonFiniteWeightsError}
    assert {kind for kind in kinds if issubclass(kind, NonFiniteError)} == kinds


def test_a_batch_of_the_guards_own_data_module_passes(make_trainer):
    data = TensorDataModule(torch.randn(40, 5), torch.arange(40) % 3, batch_size=8, standardize=True)
    trainer = make_trainer(max_epochs=2, callbacks=[ValueGuard()])
    trainer.fit(multiclass(), data)
    assert trainer.global_step == 8
