"""Trainings broken on purpose: each is told what is wrong with it, and nothing else; healthy ones are told nothing."""

import math
import re
from functools import partial

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional

from zoo.callbacks import TrainingDoctor
from zoo.doctor import History, Look, diagnose
from zoo.doctor.diagnosis import CHECKS

SGD = partial(torch.optim.SGD, lr=0.1)
ADAM = partial(torch.optim.Adam, lr=0.01)


class Module(LightningModule):
    """Anyone's module: owes nothing to this project."""

    def __init__(self, network, optimizer=SGD, loss=functional.cross_entropy):
        super().__init__()
        self.network, self.make_optimizer, self.loss = network, optimizer, loss

    def training_step(self, batch, batch_idx):
        return self.loss(self.network(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(self.network(batch[0]), batch[1]))

    def configure_optimizers(self):
        return self.make_optimizer(self.parameters())


class TrainsTheHeadAlone(Module):
    def configure_optimizers(self):
        return self.make_optimizer(self.network[-1].parameters())


class DoesNotUseAll(Module):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.forgotten = nn.Linear(3, 3)


class Shuffles(nn.Module):
    """Gives its outputs in another order than its inputs, so that no target belongs to any of them."""

    def forward(self, outputs):
        return outputs[torch.randperm(len(outputs))]


class RootAtStep(nn.Linear):
    """Takes the root of zero from its ninth step on, whose derivative is infinite."""

    steps = 0

    def forward(self, inputs):
        self.steps += 1
        outputs = super().forward(inputs)
        return outputs if self.steps < 9 else outputs + (0.0 * outputs).abs().sqrt()


def mlp(hidden=32, outputs=3, activation=nn.ReLU):
    return nn.Sequential(nn.Linear(4, hidden), activation(), nn.Linear(hidden, outputs))


def changed(network, layer, weight=1.0, bias=0.0, units=None):
    with torch.no_grad():
        network[layer].weight[:units] *= weight
        network[layer].bias[:units] += bias
    return network


def samples(count=120, noise=1.0):
    """Three classes around corners of a cube."""
    labels = torch.arange(count) % 3
    return functional.one_hot(labels, 4) * 2.0 + noise * torch.randn(count, 4), labels


def random_labels(count=120):
    return torch.randn(count, 4), torch.randint(3, (count,))


def scaled(factor):
    features, labels = samples()
    return factor * features, labels


def rare_and_hard(count=400):
    """Two classes, 65 and 35 of a hundred, that the features tell apart so little that one is never predicted."""
    labels = (torch.arange(count) % 100 < 35).long()
    return torch.randn(count, 4) + 0.25 * labels[:, None], labels


def column():
    features, _ = samples()
    return features, features[:, :1] * 3 + 1


def deep_sigmoid():
    hidden = [part for _ in range(12) for part in (nn.Linear(4, 4), nn.Sigmoid())]
    return nn.Sequential(*hidden, nn.Linear(4, 3))


class Batches:
    """The plainest loader there is."""

    def __init__(self, data, size=30):
        self.batches = list(zip(*(tensor.split(size) for tensor in data), strict=True))

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


@pytest.fixture
def fit(make_trainer, capsys):
    """Trains under a doctor; returns it, and what it printed."""

    def run(module, data, epochs=1, val_data=None, **options):
        doctor = TrainingDoctor(draws=False, **options)
        limits = {"limit_val_batches": 0} if val_data is None else {}
        trainer = make_trainer(max_epochs=epochs, callbacks=[doctor], **limits)
        trainer.fit(module, Batches(data), Batches(val_data or data))
        return doctor, capsys.readouterr().out

    return run


# What is broken: the module, its data, epochs of four steps, what the evidence says, and more options.
BROKEN = {
    "initial_loss": (lambda: Module(changed(mlp(), 2, weight=40.0)), samples, 4, r"where ln\(3\) = 1.10 is expected"),
    "unstandardised_inputs": (
        lambda: Module(changed(mlp(activation=nn.Tanh), 0, weight=1e-3), partial(torch.optim.SGD, lr=1e-4)),
        lambda: scaled(400.0),
        4,
        r"feature \d of the first batch has mean \d+ and standard deviation \d+",
    ),
    "vanishing_gradients": (
        lambda: Module(deep_sigmoid()),
        samples,
        30,
        r"gradient norm of network\.[02] is \S+e-\d+ in the median, \S+e\+\d+ times less than that of the last layer, "
        r"network\.24 \(\d+ layers",
    ),
    "exploding_gradients": (
        lambda: Module(nn.Linear(4, 1), partial(torch.optim.SGD, lr=0.9), functional.mse_loss),
        column,
        2,
        r"gradients explode: their norm was at most \S+ in the first steps and is \S+ at step 7",
    ),
    "dead_units": (
        lambda: Module(changed(mlp(), 0, bias=-50.0, units=12)),
        samples,
        30,
        r"38 % of the units of network\.0 are dead: zero for all 150 samples of the last 5 looks",
    ),
    "zero_learning_rate": (
        lambda: Module(mlp(), partial(torch.optim.SGD, lr=0.0)),
        samples,
        30,
        r"the learning rate was 0 at all \d+ looks",
    ),
    "parameters_without_gradient": (
        lambda: DoesNotUseAll(mlp()),
        samples,
        4,
        r"2 parameters are without a gradient other than zero at all 1\d looks: forgotten\.weight, forgotten\.bias",
    ),
    "parameters_in_no_optimizer": (
        lambda: TrainsTheHeadAlone(mlp()),
        samples,
        30,
        r"2 parameters are in no optimizer: network\.0\.weight, network\.0\.bias",
    ),
    "overflow": (lambda: Module(RootAtStep(4, 3)), samples, 4, r"the gradient norm is nan at step 8"),
    "loss_not_falling": (
        lambda: Module(mlp(), partial(torch.optim.SGD, lr=1e-9)),
        samples,
        30,
        r"the loss did not fall in 30 epochs: (\S+) in the first steps, \1 in the last of 120, with .* up to 1e-09",
    ),
    "chance_level": (
        lambda: Module(changed(nn.Sequential(nn.Linear(4, 3)), 0, weight=2.0), ADAM),
        lambda: random_labels(6000),
        1,
        r"at chance level: a cross-entropy of 1\.\d+, the labels' entropy is 1\.\d+, and an accuracy of 3\d %",
    ),
    "unbalanced_predictions": (
        lambda: Module(nn.Sequential(nn.Linear(4, 2)), ADAM),
        rare_and_hard,
        12,
        r"\d+ % of the predictions are class 0, which 6\d % of the labels are",
    ),
    "cannot_overfit_batch": (
        lambda: Module(nn.Sequential(mlp(), Shuffles())),
        samples,
        4,
        r"a batch of 30 samples cannot be overfitted: .* and an accuracy of \d+ % in 60 steps",
        {"overfit_batch": True, "overfit_steps": 60},
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_training_is_told_what_is_wrong_and_nothing_else(name, fit):
    make_module, make_data, epochs, says, *options = BROKEN[name]
    doctor, printed = fit(make_module(), make_data(), epochs, **(options[0] if options else {}))
    assert [finding.name for finding in doctor.findings] == [name], printed
    [finding] = doctor.findings
    assert re.search(says, finding.evidence), finding.evidence
    assert finding.remedy
    assert f"doctor    {finding.evidence}: {finding.remedy}\n" in printed


def test_overfitting_is_told(fit):
    doctor, _ = fit(Module(mlp(64), ADAM), random_labels(30), 150, val_data=random_labels(30))
    assert [finding.name for finding in doctor.findings] == ["overfitting"]
    assert doctor.history.validations[-1][0] == 150
    assert "the validation loss rose from 1." in doctor.findings[0].evidence


def test_every_check_has_a_broken_training():
    assert {check.__name__ for check in CHECKS} == {*BROKEN, "overfitting"}


HEALTHY = {
    "classifier": lambda: (Module(mlp(), ADAM), samples(), {}),
    "classifier that overfits a batch": lambda: (Module(mlp(), ADAM), samples(), {"overfit_batch": True}),
    "tanh, by plain SGD": lambda: (Module(mlp(activation=nn.Tanh)), samples(), {}),
    "regression": lambda: (Module(nn.Linear(4, 1), SGD, functional.mse_loss), column(), {}),
    "functions for modules": lambda: (Module(Functional(), ADAM), samples(), {}),
}


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, inputs):
        return self.second(torch.relu(self.first(inputs)))


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_training_is_told_nothing(name, fit):
    module, data, options = HEALTHY[name]()
    doctor, printed = fit(module, data, 40, val_data=data, **options)
    assert doctor.findings == []
    assert printed.startswith(f"doctor    nothing looks wrong in {doctor.history.num_looks} looks\n")
    assert ("a batch of 30 is overfitted" in printed) == bool(options)


def test_clipped_gradients_that_do_their_work_are_no_finding(make_trainer):
    class Steep(Module):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * (1e4 if batch_idx == 3 else 1.0)

    found = {}
    for clip in (None, 1.0):
        torch.manual_seed(0)
        doctor = TrainingDoctor(draws=False)
        trainer = make_trainer(max_epochs=1, callbacks=[doctor], gradient_clip_val=clip, limit_val_batches=0)
        trainer.fit(Steep(mlp(), partial(torch.optim.SGD, lr=0.03)), Batches(samples(600)), Batches(samples()))
        found[clip] = [finding.name for finding in doctor.findings]
    assert found == {None: ["exploding_gradients"], 1.0: []}


def test_a_norm_layer_sees_to_inputs_of_any_size(fit):
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm1d(4), *mlp())
    doctor, _ = fit(Module(network), scaled(1000.0), 4)
    assert doctor.history.inputs["std"] > 100.0
    assert doctor.findings == []


def test_a_single_sample_says_little_of_the_loss_at_initialisation():
    def found(samples, cross_entropy):
        look = Look(step=0, epoch=0, samples=samples, cross_entropy=cross_entropy)
        return [finding.name for finding in diagnose(History(looks=[look], num_looks=1, num_classes=10))]

    assert found(1, 4.0) == []
    assert found(128, 4.0) == ["initial_loss"]
    assert found(128, math.log(10)) == found(128, 0.01) == found(0, math.nan) == []


def test_loss_at_initialisation_is_that_of_the_network_alone(fit):
    # Weights of classes, smoothing and a penalty change the loss, and not what is expected of the network.
    weight = torch.tensor([100.0, 1.0, 1.0])

    def loss(logits, labels):
        return functional.cross_entropy(logits, labels, weight=weight, label_smoothing=0.2, reduction="sum") + 50.0

    features, labels = samples(30)
    network = changed(nn.Sequential(nn.Linear(4, 3)), 0, weight=0.0)
    with torch.no_grad():
        network[0].bias.copy_(torch.tensor([0.0, 0.0, math.log(2.0)]))  # probabilities 1/4, 1/4, 1/2
    doctor, _ = fit(Module(network, SGD, loss), (features, labels))
    expected = (10 * math.log(4) + 10 * math.log(4) + 10 * math.log(2)) / 30
    assert doctor.history.looks[0].cross_entropy == pytest.approx(expected, rel=1e-6)
    assert doctor.history.looks[0].loss > 50.0
    assert doctor.history.looks[0].predictions == [0, 0, 30]
    assert doctor.history.looks[0].labels == [10, 10, 10]
