import sys

import pytest
import torch
from torch import nn

import zoo
from zoo import MLPClassifier, MulticlassClassification, RNNClassifier, Task
from zoo.checkpointing import read_checkpoint, write_checkpoint
from zoo.leaves import LEAVES, UnknownTaskError, hyperparameter_names, leaf_of, load_leaf, task_name


@pytest.fixture
def save(make_trainer, tmp_path):
    """Writes a checkpoint of a task, with changes, and returns its path."""

    def save(task, **changes):
        trainer, path = make_trainer(), tmp_path / "a.ckpt"
        trainer.strategy.connect(task)
        trainer.save_checkpoint(path)
        kept = {**read_checkpoint(path), **changes}
        write_checkpoint({key: value for key, value in kept.items() if value is not None}, path)
        return path

    return save


def test_the_leaves_are_the_ready_models_of_the_zoo():
    public = {name: getattr(zoo, name) for name in zoo.__all__}
    ready = {name for name, thing in public.items() if getattr(thing, "__module__", "") == "zoo.models"}
    assert set(LEAVES) == ready
    assert len(LEAVES) == 21


def test_no_two_leaves_have_the_same_hyperparameters():
    names = [frozenset(hyperparameter_names(leaf)) for leaf in LEAVES.values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("leaf", LEAVES.values(), ids=LEAVES)
def test_every_leaf_comes_back_by_its_path_alone(leaf, save):
    model = leaf()
    path = save(model)
    assert task_name(read_checkpoint(path)) == f"zoo.models.{leaf.__name__}"
    again = load_leaf(path)
    assert type(again) is leaf
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    # One from before checkpoints named their class is known by its hyperparameters.
    assert type(load_leaf(save(model, task_class=None))) is leaf


def test_a_checkpoint_can_name_nothing_else(save, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil_leaf.py").write_text("raise SystemExit('imported')")
    model = MLPClassifier(hidden=(4,))
    for name in ("evil_leaf.MLPClassifier", "os.system", "zoo.models.torch", "zoo.models.Task", "MLPClassifier", ""):
        with pytest.raises(UnknownTaskError, match="none of the zoo's ready models"):
            load_leaf(save(model, task_class=name))
    assert "evil_leaf" not in sys.modules
    with pytest.raises(UnknownTaskError) as refused:
        load_leaf(save(model, task_class="\x1b[31m\n" + "x" * 1000))
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


def test_a_task_around_another_network_is_none_of_them(save):
    task = MulticlassClassification(nn.Linear(2, 3), num_classes=3)
    with pytest.raises(UnknownTaskError, match=r"holds a zoo\.tasks\.multiclass\.MulticlassClassification"):
        load_leaf(save(task))
    with pytest.raises(UnknownTaskError, match="does not say which model"):
        load_leaf(save(task, task_class=None))
    for hyperparameters in (None, [1], "x", {}):
        with pytest.raises(UnknownTaskError):
            leaf_of({"state_dict": {}, Task.CHECKPOINT_HYPER_PARAMS_KEY: hyperparameters}, "it")


def test_what_names_another_leaf_than_its_weights_is_refused(save):
    with pytest.raises(zoo.checkpointing.CheckpointError, match="not those of its hyperparameters"):
        load_leaf(save(RNNClassifier(), task_class="zoo.models.LSTMClassifier"))
