"""Classifiers that learn side by side as they would alone, and decide together."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from zoo import (
    BinaryMLPClassifier,
    CNNClassifier,
    EnsembleClassification,
    EnsembleClassifier,
    MLPClassifier,
    MulticlassClassification,
    SoftmaxClassifier,
    TargetError,
)
from zoo.callbacks import StepSeeding
from zoo.checkpointing import CheckpointError, read_checkpoint, write_checkpoint
from zoo.leaves import LEAVES
from zoo.networks import Ensemble, Linear

ADAM = partial(torch.optim.Adam, lr=0.05)
MEMBERS = (
    {"class": "SoftmaxClassifier", "in_features": 4},
    {"class": "MLPClassifier", "in_features": 4, "hidden": (5,)},
)


def make_ensemble(**arguments):
    return EnsembleClassifier(**{"members": MEMBERS, "num_classes": 3, "optimizer": ADAM} | arguments)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.5)])
def test_the_loss_is_the_mean_of_the_members_in_training_and_the_votes_otherwise(smoothing, weights):
    task = make_ensemble(label_smoothing=smoothing, class_weights=weights)
    inputs, targets = torch.randn(6, 4), torch.arange(6) % 3
    loss_of = partial(
        functional.cross_entropy,
        target=targets,
        label_smoothing=smoothing,
        weight=None if weights is None else torch.tensor(weights),
    )
    one, other = (member(inputs) for member in task.network.members)
    outputs, _, loss = task.train()._shared_step((inputs, targets))
    assert outputs.shape == (6, 2, 3)
    torch.testing.assert_close(loss, (loss_of(one) + loss_of(other)) / 2)
    mean = (one.softmax(dim=1) + other.softmax(dim=1)) / 2
    outputs, _, loss = task.eval()._shared_step((inputs, targets))
    torch.testing.assert_close(outputs, mean.log())
    torch.testing.assert_close(loss, loss_of(mean.log()))
    prediction = task.predict_step((inputs, targets))
    torch.testing.assert_close(prediction.probabilities, mean)
    assert torch.equal(prediction.classes, mean.argmax(dim=1))


def test_each_member_learns_what_it_would_learn_alone(make_trainer, make_data):
    task = make_ensemble()
    alone = [copy.deepcopy(member) for member in task.network.members]
    make_trainer(max_epochs=3, callbacks=[StepSeeding(0)]).fit(task, make_data())
    for network, member in zip(alone, task.network.members, strict=True):
        single = MulticlassClassification(network=network, num_classes=3, optimizer=ADAM)
        make_trainer(max_epochs=3, callbacks=[StepSeeding(0)]).fit(single, make_data())
        for expected, got in zip(network.parameters(), member.parameters(), strict=True):
            # Adam's epsilon does not know that the gradients are halved.
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_targets_and_members_that_do_not_fit_are_told():
    task = make_ensemble().train()
    with pytest.raises(TargetError, match=r"label 3 is outside 0\.\.2"):
        task._shared_step((torch.randn(2, 4), torch.tensor([0, 3])))
    with pytest.raises(TargetError, match=r"class indices of shape \(2,\)"):
        task._shared_step((torch.randn(2, 4), torch.zeros(2, 3)))
    wrong = EnsembleClassification(Ensemble([Linear(4, 2)]), num_classes=3)
    with pytest.raises(TargetError, match=r"logits of shape \(batch, 3\), got \(2, 2\)"):
        wrong.train()._shared_step((torch.randn(2, 4), torch.tensor([0, 1])))
    with pytest.raises(TypeError, match=r"network must be a zoo\.networks\.Ensemble, got Linear"):
        EnsembleClassification(nn.Linear(4, 3), num_classes=3)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ((), "at least one member"),
        ((3,), "a member must be a dictionary with its 'class' and its arguments, got 3"),
        (({"hidden": 5},), "a member must be a dictionary with its 'class'"),
        (({"class": "MLPClasifier"},), "a member's class must be one of .* did you mean 'MLPClassifier'"),
        (({"class": "EnsembleClassifier"},), "a member's class must be one of"),  # none inside another without end
        (({"class": ["MLPClassifier"]},), "a member's class must be one of"),
        (({"class": "MLPClassifier", "depth": 3},), "no MLPClassifier can be made of .*depth"),
        (({"class": "MLPClassifier", "weights": "a.ckpt"},), "weights is the ensemble's"),
        (({"class": "MLPClassifier", "optimizer": "SGD"},), "optimizer is the ensemble's"),
        (({"class": "MLPClassifier", "num_classes": 7},), "num_classes is the ensemble's"),
        (({"class": "MLPClassifier", "hidden": (0,)},), "at least 1, got 0"),
    ],
)
def test_members_that_cannot_be(members, message):
    with pytest.raises(ValueError, match=message):
        EnsembleClassifier(members=members)


def test_trained_classifiers_are_put_together_and_come_back(make_trainer, make_data, tmp_path):
    one = SoftmaxClassifier(4, 3, label_smoothing=0.1, init="xavier", optimizer=ADAM)
    other = MLPClassifier(4, 3, (5,), norm="batch", dropout=0.5, optimizer=ADAM)
    for task in (one, other):
        make_trainer(max_epochs=2).fit(task, make_data())
    ensemble = EnsembleClassifier.of([one, other])
    trainer = make_trainer()
    [result] = trainer.test(ensemble, make_data(), verbose=False)
    inputs = torch.randn(7, 4)
    mean = (one.eval()(inputs).softmax(dim=1) + other.eval()(inputs).softmax(dim=1)) / 2
    torch.testing.assert_close(ensemble.eval()(inputs).softmax(dim=1), mean)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = EnsembleClassifier.load_from_checkpoint(tmp_path / "a.ckpt")
    assert torch.equal(again.eval()(inputs), ensemble(inputs))
    assert again.hparams["members"][1]["hidden"] == (5,)
    assert make_trainer().test(again, make_data(), verbose=False) == [result]
    with torch.no_grad():  # the ensemble's weights are its own
        one.network.linear.weight.zero_()
    assert torch.equal(again(inputs), ensemble(inputs))


def test_every_classifier_of_the_zoo_can_be_a_member_but_one_with_max_norm():
    leaves = {name for name, leaf in LEAVES.items() if issubclass(leaf, MulticlassClassification)}
    for name in leaves - {"EnsembleClassifier", "DropoutMLPClassifier"}:
        assert isinstance(EnsembleClassifier(({"class": name},)).network.members[0], nn.Module)
    with pytest.raises(ValueError, match=r"a member's class must be one of .* got 'DropoutMLPClassifier'"):
        EnsembleClassifier(({"class": "DropoutMLPClassifier"},))


def test_what_cannot_be_put_together_is_told():
    with pytest.raises(ValueError, match="at least one member"):
        EnsembleClassifier.of([])
    with pytest.raises(ValueError, match=r"a member's class must be one of .* got 'BinaryMLPClassifier'"):
        EnsembleClassifier.of([BinaryMLPClassifier()])
    with pytest.raises(ValueError, match="the members tell 10 and 3 classes apart"):
        EnsembleClassifier.of([CNNClassifier(), SoftmaxClassifier(4, 3)])


def test_a_checkpoint_cannot_ask_for_other_members_than_its_weights(make_trainer, tmp_path):
    trainer, path = make_trainer(), tmp_path / "a.ckpt"
    trainer.strategy.connect(make_ensemble())
    trainer.save_checkpoint(path)
    contents = read_checkpoint(path)
    secret = tmp_path / "secret.ckpt"
    for members in (
        ({"class": "MLPClassifier", "in_features": 4, "hidden": (5,), "weights": str(secret)},),
        ({"class": "MLPClassifier", "in_features": 10**6, "hidden": (10**6,)},) * 2,
        ({"class": "SoftmaxClassifier", "in_features": 4},) * 100_000,
        "SoftmaxClassifier",
        ({"class": "torch.nn.Linear"},),
    ):
        hparams = {**contents["hyper_parameters"], "members": members}
        write_checkpoint({**contents, "hyper_parameters": hparams}, path)
        with pytest.raises(CheckpointError):
            EnsembleClassifier.load_from_checkpoint(path)
