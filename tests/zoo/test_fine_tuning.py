"""New models out of old ones: what is kept, what is new, what learns, and what comes back."""

import contextlib
import functools
import io

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from datamodules import TensorDataModule
from zoo import (
    BinaryMLPClassifier,
    CNNClassifier,
    CRNNTranscriber,
    EnsembleClassifier,
    LeNet5Classifier,
    LinearRegressorFromScratch,
    LSTMForecaster,
    MLPClassifier,
    MLPRegressor,
    MulticlassClassification,
    RegularizedMLPClassifier,
    RNNClassifier,
    SoftmaxClassifier,
    load_pretrained,
    save_pretrained,
)
from zoo.callbacks import LastCheckpoint, StepSeeding, TrainingDoctor, ValueGuard
from zoo.checkpointing import CheckpointError, read_checkpoint, write_checkpoint
from zoo.leaves import load_leaf
from zoo.networks import CRNN, MLP, ConvNet, LeNet5, Linear, Recurrent
from zoo.networks.heads import head_of, trunk_of
from zoo.optim import OneCycle

SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
HEAD = ["network.head.4.weight", "network.head.4.bias"]


@pytest.fixture
def images():
    """Random images of five classes."""
    torch.manual_seed(3)
    features, labels = torch.randn(48, 1, 28, 28), torch.arange(48) % 5
    return lambda **settings: TensorDataModule(
        features, labels, **{"batch_size": 8, "val_size": 8, "test_size": 8, "seed": 0, **settings}
    )


def tuned(freeze="trunk", seed=0, **arguments):
    torch.manual_seed(seed)
    return CNNClassifier.from_pretrained(
        "mnist_cnn", freeze=freeze, **{"num_classes": 5, "optimizer": SGD, **arguments}
    )


def state(task):
    return {name: value.clone() for name, value in task.state_dict().items()}


def changed(before, after):
    return [name for name, value in before.items() if not torch.equal(value, after[name])]


# ---------------------------------------------------------------------- heads


@pytest.mark.parametrize(
    ("network", "head"),
    [
        (ConvNet(), "head.2"),
        (ConvNet(hidden=8, dropout=0.5), "head.4"),
        (LeNet5(), "head.5"),
        (MLP(4, (3, 3), 2, norm="layer"), "head"),
        (Recurrent(4, 3, 2), "head"),
        (CRNN(11), "recurrent.head"),
        (nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.Conv1d(3, 2, 1)), nn.LayerNorm((2, 2))), "1.1"),
    ],
)
def test_the_head_is_the_last_layer_and_the_trunk_all_other_parameters(network, head):
    assert head_of(network) == head
    of_head = {id(each) for each in network.get_submodule(head).parameters()}
    of_trunk = {id(each) for part in trunk_of(network) for each in part.parameters(recurse=False)}
    assert not of_head & of_trunk
    assert of_head | of_trunk == {id(each) for each in network.parameters()}


@pytest.mark.parametrize("network", [Linear(4), nn.Linear(3, 2), nn.Sequential(nn.Flatten(), nn.Linear(3, 2))])
def test_a_linear_model_has_no_trunk(network):
    with pytest.raises(ValueError, match="has no trunk: all of its weights are its head"):
        trunk_of(network)


def test_a_network_without_weights_has_no_head():
    with pytest.raises(ValueError, match=r"^ReLU has no layer with weights"):
        head_of(nn.ReLU())


# ---------------------------------------------------------------------- what is kept, and what is new


def test_the_trunk_is_kept_and_the_head_begins_anew():
    before, task = load_pretrained("mnist_cnn"), tuned(freeze=None)
    assert changed(state(before), state(task) | {name: before.state_dict()[name] for name in HEAD}) == []
    assert task.network.head[4].weight.shape == (5, 128)
    assert (task.hparams["num_classes"], task.num_classes, task.temperature) == (5, 5, 1.0)
    assert task.training
    assert all(parameter.requires_grad for parameter in task.parameters())
    # As many classes as before are others all the same.
    assert not torch.equal(tuned(num_classes=10).network.head[4].weight, before.network.head[4].weight)


def test_the_head_is_seeded_as_that_of_any_model():
    torch.manual_seed(5)
    expected = CNNClassifier(num_classes=5).network.head[4].weight
    assert torch.equal(tuned(seed=5).network.head[4].weight, expected)
    assert not torch.equal(tuned(seed=6).network.head[4].weight, expected)
    assert torch.equal(tuned(init="zeros").network.head[4].weight, torch.zeros(5, 128))


def test_without_other_outputs_the_head_is_kept():
    task, before = CNNClassifier.from_pretrained("mnist_cnn", freeze="trunk"), load_pretrained("mnist_cnn")
    assert changed(state(before), state(task)) == []
    assert task.temperature == before.temperature
    other = CNNClassifier.from_pretrained("mnist_cnn", label_smoothing=0.2, dropout=0.3)
    assert (other.hparams["label_smoothing"], other.network.head[3].p) == (0.2, 0.3)


@pytest.mark.parametrize(
    ("task", "outputs", "head"),
    [
        (MLPClassifier(6, 4, (5,), class_weights=(1.0, 2.0, 3.0, 4.0)), {"num_classes": 3}, "head"),
        (RegularizedMLPClassifier(6, 4, (5,)), {"num_classes": 3}, "head"),
        (LeNet5Classifier(), {"num_classes": 3}, "head.5"),
        (RNNClassifier(3, 4, 5, bidirectional=True), {"num_classes": 3}, "head"),
        (MLPRegressor(3, (5,), 1), {"out_features": 4}, "head"),
        (LSTMForecaster(hidden=5), {"horizon": 4}, "head"),
        (CRNNTranscriber("abc", channels=(2, 3), hidden=4), {"alphabet": "uvwxyz"}, "recurrent.head"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_every_model_with_a_trunk_can_be_given_other_outputs(task, outputs, head, tmp_path):
    folder = save_pretrained(task, tmp_path / "model")
    new = type(task).from_pretrained(folder, freeze="trunk", **outputs)
    assert [name for name, each in new.network.named_parameters() if each.requires_grad] == [
        f"{head}.weight",
        f"{head}.bias",
    ]
    kept = {name: value for name, value in task.network.state_dict().items() if not name.startswith(f"{head}.")}
    assert kept
    assert changed(kept, new.network.state_dict()) == []
    assert new.network.get_submodule(head).weight.shape[0] != task.network.get_submodule(head).weight.shape[0]
    assert new.hparams.get("class_weights") is None


def test_an_ensemble_has_a_head_in_each_member(tmp_path):
    sizes = ({"class": "MLPClassifier", "in_features": 4, "hidden": (width,)} for width in (5, 6))
    before = EnsembleClassifier(tuple(sizes), num_classes=3)
    new = EnsembleClassifier.from_pretrained(save_pretrained(before, tmp_path), num_classes=7, freeze="trunk")
    learning = {name: tuple(each.shape) for name, each in new.network.named_parameters() if each.requires_grad}
    heads = {"members.0.head.weight": (7, 5), "members.0.head.bias": (7,)}
    assert learning == {**heads, "members.1.head.weight": (7, 6), "members.1.head.bias": (7,)}
    kept = {name: value for name, value in before.network.state_dict().items() if name not in learning}
    assert len(kept) == 4
    assert changed(kept, new.network.state_dict()) == []
    linear = EnsembleClassifier(({"class": "SoftmaxClassifier", "in_features": 4},), num_classes=3)
    with pytest.raises(ValueError, match=r"^Ensemble has no trunk"):
        linear.freeze_trunk()


def test_a_binary_classifier_goes_on_with_its_head(tmp_path):
    folder = save_pretrained(BinaryMLPClassifier(hidden=(3,)), tmp_path)
    task = BinaryMLPClassifier.from_pretrained(folder, freeze="trunk", threshold=0.25)
    assert task.threshold == 0.25
    assert not task.network.hidden[0].weight.requires_grad


def test_a_checkpoint_is_a_source_too(make_trainer, images, tmp_path):
    trainer, task = make_trainer(max_epochs=1), tuned(freeze=None)
    trainer.fit(task, images())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = CNNClassifier.from_pretrained(tmp_path / "a.ckpt", num_classes=7)
    assert again.network.head[4].weight.shape == (7, 128)
    assert set(changed(state(task), state(again) | {name: task.state_dict()[name] for name in HEAD})) == set()
    with pytest.raises(CheckpointError, match=r"a\.ckpt is a CNNClassifier, not a LeNet5Classifier: load it as CNN"):
        LeNet5Classifier.from_pretrained(tmp_path / "a.ckpt", num_classes=7)
    with pytest.raises(CheckpointError, match="there is no checkpoint file"):
        CNNClassifier.from_pretrained(tmp_path / "b.ckpt")


@pytest.mark.parametrize(
    ("leaf", "source", "arguments", "error", "told"),
    [
        (CNNClassifier, "mnist_cnnn", {}, CheckpointError, r"no pretrained weights 'mnist_cnnn'.*mean mnist_cnn\?"),
        (LeNet5Classifier, "mnist_cnn", {}, CheckpointError, "mnist_cnn is a CNNClassifier, not a LeNet5Classifier"),
        (CNNClassifier, "mnist_cnn", {"num_classes": 0}, ValueError, "num_classes must be an integer of at least"),
        (CNNClassifier, "mnist_cnn", {"num_classes": True}, ValueError, "num_classes must be an integer of at least"),
        (
            CNNClassifier,
            "mnist_cnn",
            {"freeze": "trunks"},
            ValueError,
            r"freeze must be one of 'trunk' or None.*mean 't",
        ),
        (CNNClassifier, "mnist_cnn", {"freeze": True}, ValueError, "freeze must be one of 'trunk' or None, got True"),
        (
            CNNClassifier,
            "mnist_cnn",
            {"num_class": 5},
            TypeError,
            "no argument 'num_class'; did you mean num_classes",
        ),
        (CNNClassifier, "mnist_cnn", {"weights": "a"}, TypeError, "takes no argument 'weights'"),
        (CNNClassifier, "mnist_cnn", {"network": nn.Linear(2, 2)}, TypeError, "takes no argument 'network'"),
        (
            *(CNNClassifier, "mnist_cnn", {"image_size": 32, "num_classes": 5}, ValueError),
            r"weights of mnist_cnn do not fit a CNNClassifier with image_size=32: head\.1\.weight is \(128, 512\) in "
            r"them and \(128, 800\)",
        ),
        (CNNClassifier, "mnist_cnn", {"channels": (16, 32, 64)}, ValueError, "do not fit|too small"),
        (CNNClassifier, "mnist_cnn", {"norm": None}, ValueError, "do not fit a CNNClassifier with norm=None"),
        (CNNClassifier, "mnist_cnn", {"image_size": -1}, ValueError, "image_size must be an integer of at least 1"),
        (SoftmaxClassifier, "mnist_softmax", {"num_classes": 5}, ValueError, "^Linear has no trunk"),
        (SoftmaxClassifier, "mnist_softmax", {"freeze": "trunk"}, ValueError, "^Linear has no trunk"),
        (LinearRegressorFromScratch, "mnist_softmax", {}, CheckpointError, "is a SoftmaxClassifier, not a LinearRegr"),
    ],
)
def test_what_does_not_fit_is_answered_in_a_line(leaf, source, arguments, error, told):
    with pytest.raises(error, match=told) as refused:
        leaf.from_pretrained(source, **arguments)
    assert len(str(refused.value).splitlines()) == 1


# ---------------------------------------------------------------------- what learns


def test_nothing_of_a_frozen_trunk_moves_and_the_head_learns(make_trainer, images):
    task = tuned()
    before = state(task)
    trainer = make_trainer(max_epochs=2, num_sanity_val_steps=1, callbacks=[ValueGuard()])
    trainer.fit(task, images())  # and Lightning warns of nothing
    assert changed(before, state(task)) == HEAD
    [optimizer] = trainer.optimizers
    assert [id(each) for group in optimizer.param_groups for each in group["params"]] == [
        id(task.get_parameter(name)) for name in HEAD
    ]


def test_what_is_not_frozen_learns_statistics_included(make_trainer, images):
    task = tuned(freeze=None)
    before = state(task)
    make_trainer(max_epochs=1).fit(task, images())
    assert set(changed(before, state(task))) == set(before)


def test_norms_of_the_trunk_stay_as_in_evaluation_whoever_calls_train():
    task = tuned(dropout=0.5)
    norms = [part for part in task.modules() if isinstance(part, nn.BatchNorm2d)]
    for mode, expected in ((True, False), (False, False), (True, False)):
        task.train(mode)
        assert [norm.training for norm in norms] == [expected] * 2
        assert task.network.head[3].training is mode  # dropout belongs to training, not to the trunk's weights
    task.unfreeze()
    assert [norm.training for norm in norms] == [True] * 2
    assert task.frozen is None
    assert all(parameter.requires_grad for parameter in task.parameters())


def test_the_doctor_finds_nothing_wrong_with_what_is_meant_to_be_still(make_trainer, images):
    doctor, out = TrainingDoctor(draws=False, overfit_batch=True), io.StringIO()
    task = tuned(optimizer=functools.partial(torch.optim.AdamW, lr=0.003))
    with contextlib.redirect_stdout(out):
        make_trainer(max_epochs=15, callbacks=[doctor]).fit(task, images())
    told = " ".join(map(str, doctor.findings)) + " ".join(doctor.notes)
    for word in ("optimizer", "no gradient", "gradient", "dead", "anything from batch"):
        assert word not in told, told
    assert doctor.history.unused == []
    assert task.frozen == "trunk"


def test_any_network_can_be_frozen(make_trainer):
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))
    task = MulticlassClassification(network=network, num_classes=3)
    task.freeze_trunk()
    before = state(task)
    data = TensorDataModule(torch.randn(30, 4), torch.arange(30) % 3, batch_size=1, val_size=5, test_size=5)
    make_trainer(max_epochs=1).fit(task, data)  # by single samples, of which no statistics are taken
    assert changed(before, state(task)) == ["network.4.weight", "network.4.bias"]


def test_single_samples_train_the_head_behind_frozen_norms(make_trainer, tmp_path):
    folder = save_pretrained(RegularizedMLPClassifier(4, 3, (5,)), tmp_path / "m")
    task = RegularizedMLPClassifier.from_pretrained(folder, freeze="trunk", num_classes=2)
    data = TensorDataModule(torch.randn(30, 4), torch.arange(30) % 2, batch_size=1, val_size=5, test_size=5)
    trainer = make_trainer(max_epochs=1, callbacks=[ValueGuard()])
    trainer.fit(task, data)
    assert trainer.global_step == 20


# ---------------------------------------------------------------------- checkpoints


def test_a_fine_tuned_model_comes_back_from_its_checkpoint_alone(make_trainer, images, tmp_path):
    task, trainer, path = tuned(), make_trainer(max_epochs=1), tmp_path / "a.ckpt"
    trainer.fit(task, images())
    trainer.save_checkpoint(path)
    for again in (CNNClassifier.load_from_checkpoint(path), load_leaf(path)):
        assert changed(state(task), state(again)) == []
        assert again.frozen == "trunk"
        assert [name for name, each in again.named_parameters() if each.requires_grad] == HEAD
        assert not again.network.features[0].norm.training
    before = state(again)
    make_trainer(max_epochs=1).fit(again, images())
    assert changed(before, state(again)) == HEAD
    write_checkpoint({**read_checkpoint(path), "frozen": "everything"}, path)
    with pytest.raises(CheckpointError, match="it froze 'everything', and only 'trunk' can be"):
        CNNClassifier.load_from_checkpoint(path)


@pytest.mark.parametrize("freeze", ["trunk", None])
def test_a_resumed_fine_tuning_ends_with_the_same_bits(make_trainer, images, tmp_path, freeze):
    class StopsAfterOneEpoch(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = True

    def make(*more):
        callbacks = [StepSeeding(), LastCheckpoint(tmp_path), *more]
        return make_trainer(max_epochs=3, callbacks=callbacks, enable_checkpointing=True)

    whole, stopped = (tuned(freeze, scheduler=OneCycle, dropout=0.3) for _ in range(2))
    make().fit(whole, images())
    (tmp_path / "last.ckpt").unlink()
    trainer = make(StopsAfterOneEpoch())
    trainer.fit(stopped, images())
    assert trainer.current_epoch == 1
    assert changed(state(whole), state(stopped))
    last = (tmp_path / "last.ckpt").read_bytes()
    # Made as anybody would make it again, or from scratch: what was frozen is in the checkpoint.
    for again in (tuned(freeze, scheduler=OneCycle, dropout=0.3, seed=9), CNNClassifier(
        num_classes=5, label_smoothing=0.05, dropout=0.3, optimizer=SGD, scheduler=OneCycle
    )):  # fmt: skip
        (tmp_path / "last.ckpt").write_bytes(last)
        make().fit(again, images(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
        assert again.frozen == freeze
        assert changed(state(whole), state(again)) == []


def test_a_run_that_trained_everything_is_not_gone_on_with_frozen(make_trainer, images, tmp_path):
    trainer = make_trainer(max_epochs=1)
    trainer.fit(tuned(freeze=None), images())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(
        CheckpointError, match="trained all of the network, and here the trunk is frozen: call unfreeze"
    ):
        make_trainer(max_epochs=2).fit(tuned(), images(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
