import functools
import inspect

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

import zoo
from datamodules import BatchLoader, Padded, TensorDataModule
from zoo import (
    BinaryClassification,
    BinaryMLPClassifier,
    CNNClassifier,
    CRNNTranscriber,
    DropoutMLPClassifier,
    EnsembleClassification,
    EnsembleClassifier,
    GradientDescentRegression,
    LeNet5Classifier,
    LeNet5Regressor,
    LinearRegressor,
    LinearRegressorFromScratch,
    LSTMClassifier,
    LSTMForecaster,
    MLPClassifier,
    MLPRegressor,
    MulticlassClassification,
    OneHotMLPRegressor,
    PerceptronClassifier,
    PolynomialRegressor,
    Regression,
    RegularizedMLPClassifier,
    RNNClassifier,
    SequenceTranscription,
    SoftmaxClassifier,
    StridedCNNClassifier,
    Task,
    VGGClassifier,
)
from zoo.checkpointing import CheckpointError
from zoo.optim import OneCycle

LINEAR = {"in_features": 1, "out_features": 1, "loss": "mse", "huber_delta": 1.0, "init": None}
OTHER_LINEAR = {"in_features": 4, "out_features": 3, "loss": "huber", "huber_delta": 0.5, "init": "xavier"}
SCRATCH = LINEAR | {"lr": 0.1}
OTHER_SCRATCH = OTHER_LINEAR | {"lr": 0.01, "init": "zeros"}
POLYNOMIAL = LINEAR | {"degree": 5, "domain": None}
OTHER_POLYNOMIAL = OTHER_LINEAR | {"degree": 3, "domain": (-4.0, 4.0), "loss": "l1"}
MLP = {"activation": "relu", "norm": None, "dropout": 0.0, "init": None}
OTHER_MLP = {"activation": "tanh", "norm": "layer", "dropout": 0.5, "init": "kaiming", "hidden": (8, 6, 4)}
MLP_REGRESSOR = LINEAR | MLP | {"hidden": (64, 64)}
OTHER_MLP_REGRESSOR = OTHER_LINEAR | OTHER_MLP
BINARY = {"in_features": 2, "pos_weight": None, "threshold": 0.5, "init": None}
OTHER_BINARY = {"in_features": 5, "pos_weight": 2.5, "threshold": 0.25, "init": "normal"}
PERCEPTRON = BINARY | {"activation": "sigmoid"}
OTHER_PERCEPTRON = OTHER_BINARY | {"activation": "step", "threshold": 0.5}
BINARY_MLP = BINARY | MLP | {"hidden": (64, 64)}
OTHER_BINARY_MLP = OTHER_BINARY | OTHER_MLP
CLASSES = {"num_classes": 10, "label_smoothing": 0.0, "class_weights": None, "init": None}
OTHER_CLASSES = {"num_classes": 4, "label_smoothing": 0.1, "class_weights": (1.0, 2.0, 0.5, 3.0), "init": "xavier"}
SOFTMAX = CLASSES | {"in_features": 784}
OTHER_SOFTMAX = OTHER_CLASSES | {"in_features": 6}
MLP_CLASSIFIER = SOFTMAX | MLP | {"hidden": (256, 128)}
OTHER_MLP_CLASSIFIER = OTHER_SOFTMAX | OTHER_MLP
REGULARIZED = SOFTMAX | {
    "hidden": (512, 512),
    "activation": "gelu",
    "norm": "batch",
    "dropout": 0.3,
    "input_dropout": 0.0,
    "gradient_clip_val": 1.0,
}
OTHER_REGULARIZED = OTHER_SOFTMAX | OTHER_MLP | {"input_dropout": 0.1, "gradient_clip_val": None}
DROPOUT = SOFTMAX | {
    "hidden": (1024, 1024, 1024),
    "activation": "relu",
    "dropout": 0.5,
    "input_dropout": 0.2,
    "max_norm": 3.0,
}
OTHER_DROPOUT = OTHER_SOFTMAX | {"hidden": (8, 6), "activation": "tanh", "dropout": 0.1, "input_dropout": 0.0}
OTHER_DROPOUT |= {"max_norm": None}
CNN = CLASSES | {
    "in_channels": 1,
    "channels": (16, 32),
    "hidden": 128,
    "kernel_size": 5,
    "padding": 0,
    "image_size": 28,
    "norm": "batch",
    "dropout": 0.0,
    "activation": "relu",
}
OTHER_CNN = OTHER_CLASSES | {
    "in_channels": 3,
    "channels": (4, 8, 8),
    "hidden": None,
    "kernel_size": 3,
    "padding": None,
    "image_size": 12,
    "norm": None,
    "dropout": 0.5,
    "activation": "gelu",
}
VGG = CLASSES | {
    "in_channels": 1,
    "channels": (32, 64, 128),
    "depths": (1, 2, 2),
    "kernel_size": 3,
    "norm": "batch",
    "dropout": 0.0,
    "activation": "relu",
}
OTHER_VGG = OTHER_CLASSES | {
    "in_channels": 3,
    "channels": (4, 6),
    "depths": (2, 1),
    "kernel_size": 5,
    "norm": "group",
    "dropout": 0.5,
    "activation": "gelu",
}
ENSEMBLE = CLASSES | {
    "members": (
        {"class": "VGGClassifier", "kernel_size": 3},
        {"class": "VGGClassifier", "kernel_size": 5, "channels": (32, 64, 96), "depths": (1, 1, 1)},
        {"class": "VGGClassifier", "kernel_size": 7, "channels": (32, 48, 64), "depths": (1, 1, 1)},
    ),
    "voting": "soft",
}
OTHER_ENSEMBLE = OTHER_CLASSES | {
    "members": (
        {"class": "SoftmaxClassifier", "in_features": 6},
        {"class": "MLPClassifier", "in_features": 6, "hidden": (5,)},
    ),
    "voting": "hard",
}
STRIDED = CNN | {"channels": (5, 50), "hidden": 100, "stride": 2, "image_size": 29, "norm": None}
OTHER_STRIDED = OTHER_CNN | {"stride": 3, "channels": (4, 8)}
LENET = CLASSES | {"in_channels": 1, "activation": "tanh"}
OTHER_LENET = OTHER_CLASSES | {"in_channels": 3, "activation": "prelu", "init": "kaiming"}
ONE_HOT_LENET = {"num_classes": 10, "activation": "tanh", "loss": "mse", "init": None}
OTHER_ONE_HOT_LENET = {"num_classes": 4, "activation": "relu", "loss": "huber", "init": "kaiming"}
ONE_HOT_MLP = ONE_HOT_LENET | {"in_features": 784, "hidden": (300,), "activation": "relu"}
OTHER_ONE_HOT_MLP = OTHER_ONE_HOT_LENET | {"in_features": 6, "hidden": (8, 6)}
RECURRENT = {"num_layers": 1, "bidirectional": False, "dropout": 0.0}
OTHER_RECURRENT = {"num_layers": 2, "bidirectional": True, "dropout": 0.5, "hidden": 7}
LSTM = CLASSES | RECURRENT | {"in_features": 28, "hidden": 128}
OTHER_LSTM = OTHER_CLASSES | OTHER_RECURRENT | {"in_features": 3}
RNN, OTHER_RNN = LSTM | {"cell": "rnn"}, OTHER_LSTM | {"cell": "gru"}
FORECASTER = {"num_layers": 1, "dropout": 0.0, "hidden": 64, "horizon": 1, "in_features": 1}
FORECASTER |= {"loss": "mse", "huber_delta": 1.0, "init": None}
OTHER_FORECASTER = {"num_layers": 2, "dropout": 0.5, "hidden": 7, "horizon": 3, "in_features": 2}
OTHER_FORECASTER |= {"loss": "l1", "huber_delta": 0.5, "init": "xavier"}
CRNN = {
    "alphabet": "0123456789",
    "in_channels": 1,
    "image_height": 28,
    "channels": (16, 32, 64),
    "halve_width": 2,
    "hidden": 96,
    "cell": "lstm",
    "num_layers": 1,
    "dropout": 0.0,
    "activation": "relu",
    "decoder": "greedy",
    "beam_width": 10,
    "init": None,
}
OTHER_CRNN = {
    "alphabet": "ab \u00fc",
    "in_channels": 3,
    "image_height": 12,
    "channels": (4, 6),
    "halve_width": 1,
    "hidden": 5,
    "cell": "gru",
    "num_layers": 2,
    "dropout": 0.5,
    "activation": "gelu",
    "decoder": "beam",
    "beam_width": 3,
    "init": "xavier",
}
LEAVES = [
    pytest.param(leaf, arguments, expected, id=f"{leaf.__name__}{'-other' if arguments else ''}")
    for leaf, default, other in [
        (LinearRegressor, LINEAR, OTHER_LINEAR),
        (LinearRegressorFromScratch, SCRATCH, OTHER_SCRATCH),
        (PolynomialRegressor, POLYNOMIAL, OTHER_POLYNOMIAL),
        (MLPRegressor, MLP_REGRESSOR, OTHER_MLP_REGRESSOR),
        (PerceptronClassifier, PERCEPTRON, OTHER_PERCEPTRON),
        (BinaryMLPClassifier, BINARY_MLP, OTHER_BINARY_MLP),
        (SoftmaxClassifier, SOFTMAX, OTHER_SOFTMAX),
        (MLPClassifier, MLP_CLASSIFIER, OTHER_MLP_CLASSIFIER),
        (RegularizedMLPClassifier, REGULARIZED, OTHER_REGULARIZED),
        (DropoutMLPClassifier, DROPOUT, OTHER_DROPOUT),
        (CNNClassifier, CNN, OTHER_CNN),
        (VGGClassifier, VGG, OTHER_VGG),
        (StridedCNNClassifier, STRIDED, OTHER_STRIDED),
        (LeNet5Classifier, LENET, OTHER_LENET),
        (LeNet5Regressor, ONE_HOT_LENET, OTHER_ONE_HOT_LENET),
        (OneHotMLPRegressor, ONE_HOT_MLP, OTHER_ONE_HOT_MLP),
        (RNNClassifier, RNN, OTHER_RNN),
        (LSTMClassifier, LSTM, OTHER_LSTM),
        (EnsembleClassifier, ENSEMBLE, OTHER_ENSEMBLE),
        (LSTMForecaster, FORECASTER, OTHER_FORECASTER),
        (CRNNTranscriber, CRNN, OTHER_CRNN),
    ]
    for arguments, expected in [({}, default), (other, other)]
]
RUNS = [
    pytest.param(*leaf.values, given, id=f"{leaf.id}-{'given' if given else 'default'} optimizer")
    for leaf in LEAVES
    for given in (False, True)
    if not (given and leaf.values[0] is LinearRegressorFromScratch)  # it has no optimizer
]
TASKS = {
    *(Task, Regression, GradientDescentRegression, BinaryClassification, MulticlassClassification),
    *(SequenceTranscription, EnsembleClassification),
}
ONE_HOT = (LeNet5Regressor, OneHotMLPRegressor)
METRICS = {
    Regression: {"loss", "mse", "mae", "r2"},
    BinaryClassification: {"loss", "accuracy", "f1", "auroc", "average_precision"},
    MulticlassClassification: {"loss", "accuracy", "f1", "top2_accuracy", "ece"},
    SequenceTranscription: {"loss", "cer", "sequence_accuracy"},
}


def kind_of(task):
    [kind] = [kind for kind in METRICS if isinstance(task, kind)]
    return kind


def metrics_of(task):
    return METRICS[kind_of(task)] | ({"accuracy"} if isinstance(task, ONE_HOT) else set())


def make_samples(task, size=24):
    """Random inputs that the leaf takes, and targets of its kind; sequences are of different lengths."""
    arguments = dict(task.hparams)
    if "members" in arguments:  # all of them take the same inputs
        [member, *_] = arguments["members"]
        arguments = {**getattr(zoo, member["class"])().hparams, **member, **arguments}
    if kind_of(task) is SequenceTranscription:
        images = torch.randn(size, arguments["in_channels"], arguments["image_height"], 40)
        labels = 1 + torch.arange(size * 3).reshape(size, 3) % len(arguments["alphabet"])
        return (
            Padded(images, 28 + torch.arange(size) % 13, dim=3),
            Padded(labels, 1 + torch.arange(size) % 3, labels=True),
        )
    if "num_layers" in arguments:
        features = Padded(torch.randn(size, 6, arguments["in_features"]), 1 + torch.arange(size) % 6)
    elif "in_channels" in arguments or hasattr(task.network, "image_size"):
        side = getattr(task.network, "image_size", 12)
        features = torch.randn(size, arguments.get("in_channels", 1), side, side)
    else:
        features = torch.randn(size, arguments["in_features"])
    if isinstance(task, ONE_HOT):
        return features, torch.eye(arguments["num_classes"])[torch.arange(size) % arguments["num_classes"]]
    if kind_of(task) is Regression:
        return features, torch.randn(size, arguments.get("out_features") or arguments["horizon"])
    return features, torch.arange(size) % arguments.get("num_classes", 2)


def make_batch(task, size):
    """All the samples in one batch."""
    [batch] = BatchLoader(*make_samples(task, size), batch_size=size)
    return batch


def make_batches(task):
    """Two batches of 8 for training, 4 samples each for validation and test."""
    return TensorDataModule(*make_samples(task), batch_size=8, eval_batch_size=3, val_size=4, test_size=4, seed=0)


def tensors(prediction):
    parts = [prediction] if isinstance(prediction, torch.Tensor) else prediction
    return [part for part in parts if isinstance(part, torch.Tensor)]


def save(trainer, task, path):
    """A checkpoint of the task as it is."""
    trainer.strategy.connect(task)
    trainer.save_checkpoint(path, weights_only=True)
    return path


def test_every_leaf_is_tested_here():
    public = [getattr(zoo, name) for name in zoo.__all__]
    tasks = {thing for thing in public if isinstance(thing, type) and issubclass(thing, Task)}
    assert tasks - TASKS == {parameters.values[0] for parameters in LEAVES}


@pytest.mark.parametrize(("leaf", "arguments", "expected", "given"), RUNS)
def test_a_leaf_trains_predicts_and_comes_back_from_its_checkpoint_alone(
    make_trainer, tmp_path, leaf, arguments, expected, given
):
    injected = {"optimizer": functools.partial(torch.optim.SGD, lr=0.05), "scheduler": OneCycle} if given else {}
    task = leaf(**arguments, **injected)
    kind, before = kind_of(task), [parameter.detach().clone() for parameter in task.parameters()]
    trainer = make_trainer(max_epochs=1)
    trainer.fit(task, make_batches(task))
    assert trainer.global_step == 2
    assert [type(optimizer) for optimizer in trainer.optimizers] == (
        [] if leaf is LinearRegressorFromScratch else [torch.optim.SGD if given else torch.optim.AdamW]
    )
    assert all(not torch.equal(old, new) for old, new in zip(before, task.parameters(), strict=True))
    result = trainer.test(task, make_batches(task), verbose=False)[0]
    assert set(result) == {f"test/{name}" for name in metrics_of(task)}
    predictions = trainer.predict(task, make_batches(task))
    width = {
        Regression: (expected.get("out_features") or expected.get("horizon") or expected.get("num_classes"),),
        BinaryClassification: (),
        MulticlassClassification: (expected.get("num_classes"),),
        SequenceTranscription: (),
    }[kind]
    assert [tensors(prediction)[0].shape for prediction in predictions] == [(3, *width), (1, *width)]

    path = tmp_path / "model.ckpt"
    trainer.save_checkpoint(path)
    again = leaf.load_from_checkpoint(path)
    saved = torch.load(path, weights_only=True)
    assert saved["hyper_parameters"] == dict(again.hparams) == dict(task.hparams)
    assert not {"network", "metrics", "optimizer", "scheduler", "weights"} & set(saved["hyper_parameters"])
    assert {name: (type(value), value) for name, value in again.hparams.items()} == {
        name: (type(value), value) for name, value in expected.items()
    }
    batch = make_batch(task, 5)
    outputs = task.eval().outputs_of(batch)
    assert torch.equal(again.eval().outputs_of(batch), outputs)
    one, other = again.predict_step((batch[0],)), task.predict_step(batch)
    assert all(map(torch.equal, tensors(one), tensors(other)))
    assert kind is not SequenceTranscription or one.texts == other.texts
    assert torch.equal(again._shared_step(batch)[2], task._shared_step(batch)[2])
    assert make_trainer().test(again, make_batches(again), verbose=False)[0].keys() == result.keys()


@pytest.mark.parametrize(("leaf", "arguments", "expected"), LEAVES)
def test_the_hyperparameters_are_the_leafs_own_arguments(leaf, arguments, expected):
    task = leaf(**arguments)
    assert dict(task.hparams) == expected
    assert leaf(**task.hparams).hparams == task.hparams
    injected = {"weights"} if leaf is LinearRegressorFromScratch else {"weights", "optimizer", "scheduler"}
    parameters = inspect.signature(leaf).parameters
    assert set(parameters) == set(expected) | injected
    assert all(parameter.default is not parameter.empty for parameter in parameters.values())


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
@pytest.mark.parametrize(("leaf", "arguments", "expected"), LEAVES[1::2])
def test_a_leaf_is_evaluated_on_a_single_sample(make_trainer, leaf, arguments, expected, precision):
    task = leaf(**arguments)
    data = TensorDataModule(*make_samples(task, 12), val_size=1, test_size=1, batch_size=4, seed=0)
    trainer = make_trainer(max_epochs=1, precision=precision)
    trainer.fit(task, data)
    result = trainer.test(task, data, verbose=False)[0]
    assert set(result) == {f"test/{name}" for name in metrics_of(task)}
    assert np.isfinite(result["test/loss"])
    assert [tensors(prediction)[0].dtype for prediction in trainer.predict(task, data)] == [torch.float32]


@pytest.mark.parametrize(("leaf", "arguments", "expected"), LEAVES)
def test_a_leaf_trains_on_batches_of_one(make_trainer, leaf, arguments, expected):
    task = leaf(**arguments)
    loader, trainer = BatchLoader(*make_samples(task, 2), batch_size=1), make_trainer(max_epochs=1)
    if task.hparams.get("norm") == "batch" and leaf is RegularizedMLPClassifier:
        with pytest.raises(ValueError, match="batch norm cannot be trained with a single sample"):
            trainer.fit(task, loader, loader)
    else:
        trainer.fit(task, loader, loader)
        assert trainer.global_step == 2


# ---------------------------------------------------------------------- initialisation and weights to begin with


@pytest.mark.parametrize(("leaf", "arguments", "expected"), LEAVES)
def test_a_leaf_is_initialised_by_name(leaf, arguments, expected):
    task = leaf(**arguments | {"init": "constant"})
    weights = [parameter for parameter in task.parameters() if parameter.ndim >= 2]
    assert weights
    assert all(torch.equal(weight, torch.full_like(weight, 0.01)) for weight in weights)
    assert task.hparams["init"] == "constant"
    with pytest.raises(ValueError, match=r"init must be one of .* got 'xaveir'; did you mean 'xavier'"):
        leaf(**arguments | {"init": "xaveir"})


@pytest.mark.parametrize("plain", [False, True], ids=["checkpoint", "state dict"])
@pytest.mark.parametrize(("leaf", "arguments", "expected"), LEAVES[1::2])
def test_a_leaf_begins_with_the_weights_in_a_file(make_trainer, tmp_path, leaf, arguments, expected, plain):
    first, path = leaf(**arguments), tmp_path / "first.ckpt"
    if plain:
        torch.save(first.network.state_dict(), path)
    else:
        save(make_trainer(), first, path)
    second = leaf(**arguments, weights=str(path))
    assert second.state_dict().keys() == first.state_dict().keys()
    assert all(torch.equal(second.state_dict()[name], value) for name, value in first.state_dict().items())
    assert dict(second.hparams) == expected

    trainer = make_trainer(max_epochs=1)
    trainer.fit(second, make_batches(second))
    trainer.save_checkpoint(tmp_path / "second.ckpt")
    path.unlink()
    third = leaf.load_from_checkpoint(tmp_path / "second.ckpt")
    batch = make_batch(second, 24)
    assert torch.equal(third.eval().outputs_of(batch), second.eval().outputs_of(batch))
    assert not torch.equal(third.outputs_of(batch), first.eval().outputs_of(batch))
    with pytest.raises(CheckpointError, match=r"there is no checkpoint file .*first\.ckpt"):
        leaf(**arguments, weights=str(path))


def test_the_place_of_a_polynomial_comes_with_its_weights(make_trainer, tmp_path):
    first = PolynomialRegressor()
    make_trainer(max_epochs=1).fit(first, TensorDataModule(torch.rand(40, 1) + 7.0, torch.rand(40, 1), batch_size=8))
    second = PolynomialRegressor(weights=save(make_trainer(), first, tmp_path / "first.ckpt"))
    ends = (second.network.low.item(), second.network.high.item())
    assert ends == (first.network.low.item(), first.network.high.item()) == pytest.approx((7.0, 8.0), abs=0.4)
    inputs = 7.4 + torch.rand(5, 1) * 0.2
    expected = first.eval()(inputs)
    assert torch.equal(second.eval()(inputs), expected)
    assert torch.equal(second.train()(inputs * 1.0), expected)  # not placed anew


def test_weights_that_cannot_be_are_refused(make_trainer, tmp_path):
    path = tmp_path / "file"
    save(make_trainer(), SoftmaxClassifier(6, 3), path)
    with pytest.raises(CheckpointError, match=r"linear\.weight is \(3, 6\) in it and \(4, 6\) in the network"):
        SoftmaxClassifier(6, 4, weights=path)
    with pytest.raises(CheckpointError, match=r"the weights in .* are another network's"):
        MLPClassifier(6, 3, weights=path)
    torch.save([torch.zeros(3, 6)], path)
    with pytest.raises(CheckpointError, match="holds no weights"):
        SoftmaxClassifier(6, 3, weights=path)
    torch.save({"linear.weight": torch.zeros(3, 6)}, path)
    with pytest.raises(CheckpointError, match=r"linear\.bias is missing in it"):
        SoftmaxClassifier(6, 3, weights=path)
    torch.save(nn.Linear(6, 3), path)
    with pytest.raises(CheckpointError, match="which is more than plain values and tensors"):
        SoftmaxClassifier(6, 3, weights=path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="it is not the zip archive that torch writes"):
        SoftmaxClassifier(6, 3, weights=path)
    with pytest.raises(CheckpointError, match="is a URL"):
        SoftmaxClassifier(6, 3, weights="https://example.org/model.ckpt")


# ---------------------------------------------------------------------- the regularized classifier


class Gradients(Callback):
    """The norm of each gradient as it was computed, and as the optimizer got it."""

    def __init__(self):
        self.computed, self.used = [], []

    def on_after_backward(self, trainer, pl_module):
        self.computed.append(self.norm(pl_module))

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.used.append(self.norm(pl_module))

    @staticmethod
    def norm(pl_module):
        return torch.stack([parameter.grad.square().sum() for parameter in pl_module.parameters()]).sum().sqrt().item()


REGULAR = [
    pytest.param(functools.partial(torch.optim.SGD, lr=1e-3, momentum=0.9, weight_decay=0.2), 0.2, id="SGD"),
    pytest.param(torch.optim.Adam, 0.0, id="Adam"),
    pytest.param(functools.partial(torch.optim.AdamW, weight_decay=0.3), 0.3, id="AdamW"),
    pytest.param(functools.partial(torch.optim.RMSprop, weight_decay=1), 1, id="RMSprop"),
    pytest.param(None, 0.01, id="default"),
]


SGD, *OTHERS = [optimizer.values[0] for optimizer in REGULAR]


@pytest.mark.parametrize(
    ("optimizer", "own", "of_the_trainer", "expected"),
    [
        (SGD, 1.0, None, 1.0),
        (SGD, 1e-3, None, 1e-3),
        (SGD, None, None, None),
        (SGD, 1.0, 0.1, 0.1),
        (SGD, None, 0.1, 0.1),
        (SGD, 0.1, 1.0, 1.0),
        (SGD, 1.0, 0, None),
        *((other, own, None, own) for other in OTHERS for own in (1.0, None)),
    ],
)
def test_gradients_are_clipped(make_trainer, optimizer, own, of_the_trainer, expected):
    task = RegularizedMLPClassifier(6, 3, (8, 5), gradient_clip_val=own, optimizer=optimizer)
    # Large weights at the end make for long gradients, whatever the norms make of the inputs.
    nn.init.normal_(task.network.head.weight, std=5.0)
    gradients = Gradients()
    trainer = make_trainer(max_epochs=2, callbacks=[gradients], gradient_clip_val=of_the_trainer)
    trainer.fit(task, make_batches(task))
    assert len(gradients.computed) == len(gradients.used) == 4
    assert min(gradients.computed) > 1.5
    if expected is None:
        assert gradients.used == gradients.computed
    else:
        assert gradients.used == pytest.approx([expected] * 4, rel=1e-4)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(("own", "of_the_trainer"), [(1.0, None), (None, 1.0)])
def test_the_gradients_of_a_fused_optimizer_are_clipped_too(make_trainer, precision, own, of_the_trainer):
    """Lightning refuses to under mixed precision, even where no loss scale is in the gradients."""
    fused = functools.partial(torch.optim.AdamW, lr=0.01, fused=True)
    task, gradients = RegularizedMLPClassifier(6, 3, (8, 5), gradient_clip_val=own, optimizer=fused), Gradients()
    nn.init.normal_(task.network.head.weight, std=5.0)
    trainer = make_trainer(max_epochs=1, callbacks=[gradients], gradient_clip_val=of_the_trainer, precision=precision)
    trainer.fit(task, make_batches(task))
    assert min(gradients.computed) > 1.5
    assert gradients.used == pytest.approx([1.0] * 2, rel=1e-4)


def test_a_short_gradient_is_left_alone(make_trainer):
    task, gradients = RegularizedMLPClassifier(6, 3, (8, 5), gradient_clip_val=1e6), Gradients()
    make_trainer(max_epochs=1, callbacks=[gradients]).fit(task, make_batches(task))
    assert gradients.used == gradients.computed


@pytest.mark.parametrize(("optimizer", "weight_decay"), REGULAR)
@pytest.mark.parametrize(("norm", "activation"), [("batch", "gelu"), ("layer", "prelu"), (None, "relu")])
def test_weight_decay_is_kept_off_norms_and_biases(make_trainer, optimizer, weight_decay, norm, activation):
    task = RegularizedMLPClassifier(6, 3, (8, 5), activation=activation, norm=norm, optimizer=optimizer)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(task, make_batches(task))
    names = {parameter: name for name, parameter in task.network.named_parameters()}
    [live] = trainer.optimizers
    groups = [{names[parameter] for parameter in group["params"]} for group in live.param_groups]
    linear = {name for name, layer in task.network.named_modules() if isinstance(layer, nn.Linear)}
    assert len(linear) == 3
    assert groups == [
        {f"{name}.weight" for name in linear},
        set(names.values()) - {f"{name}.weight" for name in linear},
    ]
    assert [group["weight_decay"] for group in live.param_groups] == [weight_decay, 0.0]


def test_a_resumed_run_knows_its_groups_and_its_changed_settings(make_trainer, tmp_path):
    def run(epochs, weight_decay, ckpt_path=None):
        optimizer = functools.partial(torch.optim.AdamW, weight_decay=weight_decay)
        task = RegularizedMLPClassifier(6, 3, (8, 5), dropout=0.0, optimizer=optimizer)
        trainer = make_trainer(max_epochs=epochs)
        torch.manual_seed(5)  # the same data each time, or the run could not go on with them
        trainer.fit(task, make_batches(task), ckpt_path=ckpt_path, weights_only=True)
        trainer.save_checkpoint(tmp_path / "run.ckpt")
        return task, [group["weight_decay"] for group in trainer.optimizers[0].param_groups]

    assert run(1, 0.1)[1] == [0.1, 0.0]
    task, groups = run(2, 0.4, tmp_path / "run.ckpt")
    assert (groups, task.changed_settings) == ([0.4, 0.0], {"weight_decay": (0.1, 0.4)})


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_gradient_clip_val_that_would_leave_nothing_is_refused(value):
    with pytest.raises(ValueError, match="gradient_clip_val must be greater than 0, or None, got"):
        RegularizedMLPClassifier(gradient_clip_val=value)


# ---------------------------------------------------------------------- images


def test_the_default_cnn_has_80250_parameters():
    # (400 + 32) + (12,800 + 64) + (512 * 128 + 128) + (128 * 10 + 10): 28 -> 24 -> 12 -> 8 -> 4
    assert sum(parameter.numel() for parameter in CNNClassifier().parameters()) == 80_250
    assert sum(parameter.numel() for parameter in LeNet5Classifier().parameters()) == 61_706
    # Simard et al. 2003: 5 and 50 maps of 5x5, 29 -> 13 -> 5, a hidden layer of 100.
    strided = (5 * 26) + (50 * (5 * 25 + 1)) + (50 * 25 + 1) * 100 + 101 * 10
    assert sum(parameter.numel() for parameter in StridedCNNClassifier().parameters()) == strided == 132_540
    # Srivastava et al. 2014: three hidden layers of 1,024.
    dropout = 785 * 1024 + 2 * 1025 * 1024 + 1025 * 10
    assert sum(parameter.numel() for parameter in DropoutMLPClassifier().parameters()) == dropout


def test_a_loaded_cnn_is_channels_last_still(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.strategy.connect(CNNClassifier())
    trainer.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    again = CNNClassifier.load_from_checkpoint(tmp_path / "model.ckpt")
    kernels = [parameter for parameter in again.parameters() if parameter.ndim == 4]
    assert len(kernels) == 2
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


def test_a_list_of_channels_is_taken_too():
    assert CNNClassifier(channels=[4, 8]).hparams["channels"] == [4, 8]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"chanels": (4, 8)}, TypeError, "chanels"),
        ({"norm": "btach"}, ValueError, "did you mean 'batch'"),
        ({"num_classes": 1}, ValueError, "num_classes must be an integer of at least 2, got 1"),
        ({"dropout": np.float64(0.1)}, TypeError, "hyperparameter 'dropout' holds a numpy.float64"),
        ({"channels": (4, np.int64(8))}, ValueError, "out_channels must be an integer of at least 1"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        CNNClassifier(**arguments)


# ---------------------------------------------------------------------- leaves of one's own


class Wide(MulticlassClassification):
    """Somebody's own leaf, which saves nothing by itself."""

    def __init__(self, width=3, names=("a", "b", "c"), activation=nn.ReLU, optimizer=None):
        layers = nn.Sequential(nn.Linear(4, width), activation(), nn.Linear(width, len(names)))
        super().__init__(network=layers, num_classes=len(names), optimizer=optimizer)


class OnBackbone(MulticlassClassification):
    """Somebody's own task around a module that is an argument; kept out in the way the error advises."""

    not_hyperparameters = (*MulticlassClassification.not_hyperparameters, "backbone")

    def __init__(self, backbone, width=3):
        super().__init__(network=nn.Sequential(backbone, nn.Linear(width, 3)), num_classes=3)


def test_a_leaf_of_ones_own_names_the_argument_that_cannot_be_saved():
    with pytest.raises(TypeError, match=r"hyperparameter 'activation' holds a builtins\.type"):
        Wide()


def test_the_advice_for_an_argument_that_cannot_be_saved_works():
    with pytest.raises(TypeError, match="not_hyperparameters"):
        Wide()
    assert OnBackbone(nn.Linear(4, 3)).hparams["width"] == 3
    assert "backbone" not in OnBackbone(nn.Linear(4, 3)).hparams


class Narrow(MulticlassClassification):
    """Somebody's own leaf with plain arguments."""

    def __init__(self, width=3, names=("a", "b", "c"), optimizer=None):
        layers = nn.Sequential(nn.Linear(4, width), nn.Linear(width, len(names)))
        super().__init__(network=layers, num_classes=len(names), optimizer=optimizer)


def test_a_leaf_of_ones_own_comes_back_alone(make_trainer, make_data, tmp_path):
    task = Narrow(width=5, optimizer=torch.optim.Adagrad)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(task, make_data())
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    again = Narrow.load_from_checkpoint(tmp_path / "mine.ckpt")
    features = torch.randn(3, 4)
    assert torch.equal(again(features), task(features))
    assert (again.hparams["width"], again.hparams["names"]) == (5, ("a", "b", "c"))
