"""What could be saved and never be loaded again is refused by name: before the first step, or when it is written."""

import collections
import datetime
import enum
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from zoo import MLPClassifier, MulticlassClassification
from zoo.callbacks import PlainHyperparameters
from zoo.checkpointing import CheckpointError, read_checkpoint, write_checkpoint


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 1


Point = collections.namedtuple("Point", "x y")

UNSAFE = {
    "module": (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    "partial": (functools.partial(torch.optim.SGD, lr=0.1), "functools.partial"),
    "enum": (Colour.RED, "Colour"),
    "int enum": (Level.HIGH, "Level"),
    "path": (Path("runs"), "pathlib"),
    "numpy float": (np.float64(0.5), "numpy.float64"),
    "numpy int": (np.int64(5), "numpy.int64"),
    "array": (np.zeros(3), "numpy.ndarray"),
    "lambda": (lambda x: x, "builtins.function"),
    "function": (torch.relu, "builtins.builtin_function_or_method"),
    "class": (torch.optim.SGD, "builtins.type"),
    "date": (datetime.date(2000, 1, 1), "datetime.date"),
    "range": (range(3), "builtins.range"),
    "slice": (slice(3), "builtins.slice"),
    "frozenset": (frozenset([1]), "builtins.frozenset"),
    "named tuple": (Point(1, 2), "Point"),
    "default dict": (collections.defaultdict(int), "collections.defaultdict"),
    "generator": (torch.Generator(), "torch._C.Generator"),
}
NESTS = [lambda x: x, lambda x: [1, x], lambda x: ("a", (x,)), lambda x: {"a": {"b": [x]}}]


class Model(LightningModule):
    """Anyone's."""

    def __init__(self, value=None, other=1):
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(2, 1)
        self.steps = 0

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return self.layer(batch[0]).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Data(LightningDataModule):
    """Anyone's."""

    def __init__(self, value=None):
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.zeros(4, 2)))


@pytest.fixture
def fit(make_trainer):
    return lambda model, data: make_trainer(callbacks=[PlainHyperparameters()]).fit(model, datamodule=data)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("nest", NESTS)
@pytest.mark.parametrize(
    ("value", "kind"), [UNSAFE[name] for name in UNSAFE if name != "lambda"]
)  # left out by Lightning
def test_what_anyone_saves_is_refused_before_the_first_step(fit, value, kind, nest):
    model = Model(value=nest(value))
    with pytest.raises(CheckpointError, match=r"Model: hyperparameter value\S* is a .*save_hyperparameters") as caught:
        fit(model, Data())
    assert kind in str(caught.value)
    assert model.steps == 0
    model = Model()
    with pytest.raises(CheckpointError, match="Data: hyperparameter value") as caught:
        fit(model, Data(value=nest(value)))
    assert kind in str(caught.value)
    assert model.steps == 0


def test_keys_are_looked_at_like_values(fit):
    model = Model(value={"names": {np.int64(1): "one"}})
    with pytest.raises(CheckpointError, match=r"hyperparameter a key of value\['names'\] is a numpy\.int64"):
        fit(model, Data())
    assert model.steps == 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "value",
    [1, "a", None, [1, (2,)], {"a": 1}, {1: 2}, {1, 2}, b"x", 1j, torch.zeros(3), torch.float32, torch.Size([1])],
    ids=str,
)
def test_what_can_be_loaded_again_is_accepted_and_loaded_again(make_trainer, tmp_path, value):
    model, trainer = Model(value=value), make_trainer(limit_train_batches=2, callbacks=[PlainHyperparameters()])
    trainer.fit(model, datamodule=Data())
    assert model.steps == 2
    trainer.save_checkpoint(tmp_path / "good.ckpt")
    again = read_checkpoint(tmp_path / "good.ckpt")["hyper_parameters"]["value"]
    assert again.equal(value) if isinstance(value, torch.Tensor) else again == value


@pytest.mark.parametrize(("value", "kind"), UNSAFE.values(), ids=UNSAFE)
def test_what_could_never_be_read_again_is_not_written(tmp_path, value, kind):
    good = {"state_dict": {"a": torch.ones(2)}, "pytorch-lightning_version": "2.6.6"}
    write_checkpoint(good, tmp_path / "last.ckpt")
    with pytest.raises(
        CheckpointError, match=r"could never be read again safely: callbacks\['mine'\]\[1\] is a "
    ) as caught:
        write_checkpoint({**good, "callbacks": {"mine": [0, value]}}, tmp_path / "last.ckpt")
    assert kind in str(caught.value)
    assert torch.equal(read_checkpoint(tmp_path / "last.ckpt")["state_dict"]["a"], torch.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_class_that_was_called_safe_comes_back(tmp_path):
    good = {"state_dict": {}, "pytorch-lightning_version": "2.6.6", "mine": Colour.RED}
    with torch.serialization.safe_globals([Colour]):
        write_checkpoint(good, tmp_path / "last.ckpt")
        assert read_checkpoint(tmp_path / "last.ckpt")["mine"] is Colour.RED
    with pytest.raises(CheckpointError, match=r"holds .*Colour, which is more than plain values"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_a_task_refuses_when_it_is_made():
    with pytest.raises(TypeError, match=r"hyperparameter 'dropout' holds a numpy\.float64"):
        MLPClassifier(in_features=4, num_classes=3, dropout=np.float64(0.1))


class Own(MulticlassClassification):
    """A task of one's own, with an argument of its own."""

    def __init__(self, value=None):
        super().__init__(network=nn.Linear(4, 3), num_classes=3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("nest", NESTS)
@pytest.mark.parametrize("value", [value for value, _ in UNSAFE.values()], ids=UNSAFE)
def test_a_task_of_ones_own_refuses_when_it_is_made(value, nest):
    with pytest.raises(TypeError, match="hyperparameter 'value' holds"):
        Own(value=nest(value))
    assert Own(value=nest(1)).hparams["value"] == nest(1)
