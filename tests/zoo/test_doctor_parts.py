"""What the doctor is made of: when it looks, what it reads off gradients and graphs, and what it keeps."""

import math
import random

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional

from zoo import MulticlassClassification
from zoo.callbacks import TrainingDoctor
from zoo.checkpointing import CheckpointError
from zoo.doctor import Finding, History, Look, OverfitError, diagnose, overfit
from zoo.doctor.gradients import by_layer, parameter_norms, some, total, unused_parameters
from zoo.doctor.graph import read_graph
from zoo.doctor.history import MAX_LOOKS, MAX_UNITS, MAX_VALIDATIONS, WINDOW
from zoo.doctor.probes import begins_with_norm, describe_inputs, name_of_val_loss
from zoo.doctor.schedule import LookSchedule

# ---------------------------------------------------------------------- when


def due(looks, length, batches):
    schedule = LookSchedule(looks, length)
    return [batch for batch in range(batches) if schedule.following(batch) == batch]


def test_looks_are_close_together_at_first_and_then_even():
    assert due(50, 4000, 4000) == [0, 1, 2, 4, 8, 16, 32, 64, *range(100, 4000, 100), 3999]
    assert due(10, 12, 12) == [0, 1, 2, 3, 6, 9, 11]
    assert due(50, 20, 20) == list(range(20))
    assert due(50, 1, 1) == [0]


@pytest.mark.parametrize("length", [1, 2, 3, 7, 50, 51, 430, 4300, 99_991, 1_000_000])
def test_looks_are_about_as_many_as_wanted_and_come_in_order(length):
    schedule, batch, seen = LookSchedule(50, length), 0, []
    while batch < length:
        batch = schedule.following(batch)
        if batch < length:
            seen.append(batch)
        batch += 1
    assert min(length, 25) <= len(seen) <= 65
    assert seen[-1] == length - 1
    assert seen == sorted(set(seen))


def test_a_run_of_unknown_length_is_looked_at_ever_less_often():
    schedule, batch, seen = LookSchedule(50, None), 0, []
    while batch < 1_000_000:
        seen.append(batch)
        batch = schedule.following(batch + 1)
    assert len(seen) <= 60
    assert seen[:5] == [0, 1, 2, 3, 4]
    # Whoever goes on in the middle looks at the same batches.
    assert schedule.following(seen[40] - 3) == seen[40]
    assert schedule.following(seen[40]) == seen[40]


# ---------------------------------------------------------------------- gradients


def test_gradient_norms_by_hand():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1, bias=False), nn.Linear(1, 1))
    network[0].weight.grad = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    network[0].bias.grad = torch.tensor([0.0, 12.0])
    network[1].weight.grad = torch.tensor([[6e3, 8e3]], dtype=torch.float32)
    network[2].weight.requires_grad_(False)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    norms = parameter_norms(network, optimizer)
    assert norms == {"0.weight": 5.0, "0.bias": 12.0, "1.weight": 1e4, "2.bias": 0.0}
    assert by_layer(norms) == {"0": 13.0, "1": 1e4, "2": 0.0}
    assert total(norms.values()) == pytest.approx(math.sqrt(13**2 + 1e8))
    assert parameter_norms(network, optimizer, scale=100.0)["0.bias"] == pytest.approx(0.12)
    assert parameter_norms(network, torch.optim.SGD(network[2].parameters(), lr=0.1)) == {"2.bias": 0.0}
    assert unused_parameters(network, [torch.optim.SGD(network[:2].parameters(), lr=0.1)]) == ["2.bias"]


def test_gradient_norms_of_half_precision_and_of_sparse_gradients_do_not_overflow():
    half = nn.Linear(2, 1, bias=False).half()
    half.weight.grad = torch.tensor([[3e4, 4e4]], dtype=torch.float16)
    table = nn.Embedding(1000, 2, sparse=True)
    table(torch.tensor([3, 3])).sum().backward()
    network = nn.ModuleDict({"layer": half, "table": table})
    norms = parameter_norms(network, torch.optim.SGD(network.parameters(), lr=0.1))
    assert norms == {"layer.weight": pytest.approx(5e4, rel=1e-3), "table.weight": pytest.approx(math.sqrt(8))}


def test_of_very_many_layers_some_are_kept():
    names = [str(number) for number in range(1000)]
    kept = some(names)
    assert (len(kept), kept[0], kept[-1]) == (100, "0", "999")
    assert kept == sorted(set(kept), key=int)
    assert some(names[:100]) == names[:100]


# ---------------------------------------------------------------------- the graph of a loss


class Net(nn.Module):
    """ReLU as a module, in place, and as a function; behind convolutions, norms and linear layers."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3)
        self.relu, self.first, self.last = nn.ReLU(inplace=True), nn.Linear(12, 4, bias=False), nn.Linear(4, 5)

    def forward(self, images):
        features = functional.max_pool2d(self.relu(self.norm(self.conv(images))), 2)
        return self.last(functional.relu6(torch.relu(self.first(features.flatten(1)))))


@pytest.mark.parametrize("autocast", [False, True])
def test_units_are_named_by_the_layer_before_them(autocast):
    torch.manual_seed(0)
    network, images = Net(), torch.randn(8, 1, 6, 6)
    with torch.no_grad():
        network.norm.bias[1] = -100.0
        network.first.weight[:2] = 0.1
        network.first.weight[2:] = 0.0
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = functional.cross_entropy(network(images), torch.arange(8) % 5)
    graph = read_graph(loss, network)
    fired = {units.layer: (units.peaks > 0.0).tolist() for units in graph.units}
    assert fired == {
        "norm": [True, False, True],
        "first": [True, True, False, False],
        "first (2)": [True, True, False, False],
    }
    assert not graph.is_compiled
    loss.backward()  # nothing was taken from the backward pass
    assert network.conv.weight.grad.norm() > 0.0


def test_units_of_sequences_are_features_and_those_of_one_dimensional_convolutions_channels():
    network = nn.ModuleDict({"linear": nn.Linear(3, 4), "conv": nn.Conv1d(3, 2, 1)})
    steps = torch.randn(5, 3, 3)
    with torch.no_grad():
        network["linear"].bias[0] = network["conv"].bias[1] = -100.0
    loss = network["linear"](steps).relu().sum() + network["conv"](steps).relu().sum()
    fired = {units.layer: (units.peaks > 0.0).tolist() for units in read_graph(loss, network).units}
    assert fired == {"linear": [False, True, True, True], "conv": [True, False]}


def test_cross_entropy_is_read_off_the_graph():
    logits = torch.randn(6, 4, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 3, -100, 1])
    loss = functional.cross_entropy(logits, labels, weight=torch.tensor([9.0, 1, 1, 1]), label_smoothing=0.3)
    classes = read_graph(loss * 7 + 3, nn.Identity()).classes
    kept = [0, 1, 2, 3, 5]
    by_hand = torch.stack([logits[row].logsumexp(0) - logits[row, labels[row]] for row in kept]).mean()
    assert classes.cross_entropy.item() == pytest.approx(by_hand.item(), rel=1e-5)
    counts, predicted, accuracy = classes.count()
    assert (classes.num_classes, counts) == (4, [1, 2, 1, 1])
    guesses = logits.argmax(1)[kept]
    assert predicted == torch.bincount(guesses, minlength=4).tolist()
    assert accuracy == pytest.approx((guesses == labels[kept]).float().mean().item())


def test_cross_entropy_of_pixels_and_of_a_single_sample():
    logits, labels = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randint(3, (2, 4, 4))
    loss = functional.cross_entropy(logits, labels)
    classes = read_graph(loss, nn.Identity()).classes
    assert classes.num_classes == 3
    assert classes.cross_entropy.item() == pytest.approx(loss.item(), rel=1e-5)
    assert sum(classes.count()[0]) == 32
    loss = functional.cross_entropy(logits[0, :, 0, 0], labels[0, 0, 0])
    assert read_graph(loss, nn.Identity()).classes.cross_entropy.item() == pytest.approx(loss.item(), rel=1e-5)


def test_binary_cross_entropy_of_logits_and_of_probabilities():
    logits, labels = torch.randn(8, requires_grad=True), (torch.arange(8) < 3).float()
    weighted = functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=torch.tensor(5.0))
    plain = functional.binary_cross_entropy_with_logits(logits, labels).item()
    found = [
        read_graph(weighted, nn.Identity()).classes,
        read_graph(functional.binary_cross_entropy(logits.sigmoid()[:, None], labels[:, None]), nn.Identity()).classes,
    ]
    for classes in found:
        assert classes.num_classes == 2
        assert classes.cross_entropy.item() == pytest.approx(plain, rel=1e-4)
        assert classes.count()[:2] == ([5, 3], [int((logits <= 0).sum()), int((logits > 0).sum())])
    several = functional.binary_cross_entropy_with_logits(torch.randn(4, 3, requires_grad=True), torch.ones(4, 3))
    assert read_graph(several, nn.Identity()).classes.count() == ([], [], None)


@pytest.mark.parametrize("loss", [torch.tensor(1.0), torch.ones((), requires_grad=True)])
def test_a_loss_without_a_graph_tells_nothing(loss):
    graph = read_graph(loss, nn.Identity())
    assert (graph.units, graph.classes, graph.is_compiled) == ([], None, False)


# ---------------------------------------------------------------------- batches and modules


def test_inputs_are_described_by_the_column_that_is_farthest_off():
    features = torch.zeros(4, 3)
    features[:, 1] = torch.tensor([1000.0, 1000.0, 1004.0, 1004.0])
    assert describe_inputs((features, torch.zeros(4).long())) == {"mean": 1002.0, "std": 2.0, "feature": 1.0}
    assert describe_inputs({"image": torch.tensor([[1.0, 3.0]])}) == {"mean": 2.0, "std": 1.0}
    assert describe_inputs((torch.zeros(4, 3).long(), torch.zeros(4).long())) == {}
    assert describe_inputs(("text", 3)) == {}
    assert describe_inputs(torch.zeros(0, 3)) == {}


def test_a_network_that_begins_with_a_norm():
    assert begins_with_norm(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3, affine=False), nn.Linear(3, 3)))
    assert not begins_with_norm(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
    assert not begins_with_norm(nn.Flatten())


def test_the_validation_loss_is_found_by_its_name():
    value = torch.tensor(1.0)
    assert name_of_val_loss({"val/accuracy": value, "val/loss": value, "train/loss": value}) == "val/loss"
    assert name_of_val_loss({"val_mse_loss": value, "val_accuracy": value}) == "val_mse_loss"
    assert name_of_val_loss({"loss": value, "interval_loss": value, "val_accuracy": value}) is None


# ---------------------------------------------------------------------- what is kept


def test_a_unit_is_dead_when_it_was_silent_for_a_window_of_looks():
    history = History()
    shares = []
    for number in range(8):
        # The first unit fires always, the second only at look 1, the third never.
        shares.append(history.see_units("layer", [True, number == 1, False]))
        history.add(Look(step=number, epoch=0))
    third = pytest.approx(1 / 3)
    assert WINDOW == 5
    assert shares == [pytest.approx(2 / 3), *[third] * 5, *[pytest.approx(2 / 3)] * 2]


def test_history_is_bounded():
    history = History()
    for step in range(1000):
        history.see_units("wide", [True] * 5000)
        history.add(Look(step, 0, loss=float(step)))
        history.add_validation(step, 1.0)
    steps = [look.step for look in history.looks]
    assert len(steps) <= MAX_LOOKS
    assert history.num_looks == 1000
    assert steps[:3] == [0, 1, 2]
    assert steps[-1] == 999
    assert steps == sorted(set(steps))
    assert len(history.validations) <= MAX_VALIDATIONS
    assert history.validations[-1] == (999, 1.0)
    assert len(history.last_fired["wide"]) == MAX_UNITS


def test_history_comes_back_from_plain_values(tmp_path):
    history = History(num_classes=3, notes=["this"], without_gradient=["a.weight"])
    history.see_units("layer", [True, False])
    history.add(Look(0, 0, 4, 1.5, layer_norms={"layer": 0.5}, dead={"layer": 0.5}, learning_rates=[0.1]))
    history.add_validation(1, 2.0)
    torch.save(history.state_dict(), tmp_path / "state.pt")
    assert History.from_state_dict(torch.load(tmp_path / "state.pt", weights_only=True)) == history


@pytest.mark.parametrize(
    "state",
    [{"looks": 3}, {"looks": [{"nonsense": 1}]}, {"nonsense": 1}, {"validations": [1]}, 7, {"num_looks": "many"}],
)
def test_a_damaged_state_is_refused_in_words(state):
    with pytest.raises(CheckpointError, match="state of the TrainingDoctor is damaged"):
        TrainingDoctor().load_state_dict(state)


def test_an_empty_history_has_no_findings():
    assert diagnose(History()) == []
    assert str(Finding("name", "this is so", "do that")) == "this is so: do that"


# ---------------------------------------------------------------------- one batch by heart


def classifier(**arguments):
    network = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Dropout(0.9), nn.BatchNorm1d(32), nn.Linear(32, 3))
    return MulticlassClassification(network=network, num_classes=3, **arguments)


def test_overfitting_changes_nothing_but_a_copy():
    task, batch = classifier(label_smoothing=0.1), (torch.randn(12, 4), torch.arange(12) % 3)
    task.network[0].weight.grad = torch.ones(32, 4)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    tried = overfit(task, batch)
    assert tried.is_overfitted
    assert tried.samples == 12
    assert tried.first_loss > 0.5
    assert tried.last_loss <= 0.1 * math.log(3) or tried.accuracy >= 0.99
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert torch.equal(task.network[0].weight.grad, torch.ones(32, 4))
    assert task.network[4].weight.grad is None
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # noqa: NPY002
    assert overfit(task, batch) == tried


class Somebodys(LightningModule):
    """Logs, and returns a dictionary."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 40)

    def training_step(self, batch):
        loss = self.layer(batch).pow(2).mean() + 3.0
        self.log("loss", loss)
        self.log_dict({"more": loss})
        return {"loss": loss - 3.0}


def test_anyones_module_can_be_tried():
    tried = overfit(Somebodys(), torch.randn(8, 4))
    assert tried.is_overfitted
    assert tried.last_loss <= 0.1 * tried.first_loss
    assert tried.accuracy is None


def nn_lazy():
    module = Somebodys()
    module.layer = nn.LazyLinear(40)
    return module


def test_steps_that_were_too_few_are_no_failure():
    torch.manual_seed(0)
    task, batch = classifier(), (torch.randn(60, 4), torch.randint(3, (60,)))
    few = overfit(task, batch, steps=160)
    assert (few.is_overfitted, few.has_failed, few.steps) == (False, False, 160)
    assert 0.1 * math.log(3) < few.last_loss <= 0.5 * math.log(3)
    none = overfit(task, batch, steps=1)
    assert (none.is_overfitted, none.has_failed) == (False, True)


def test_what_cannot_be_tried_is_said_and_random_states_come_back():
    class Draws(Somebodys):
        def training_step(self, batch):
            torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
            raise KeyError("no such field")

    class NoLoss(Somebodys):
        def training_step(self, batch):
            return None

    batch, labels = torch.randn(8, 4), torch.arange(8) % 3
    unlike = Somebodys()
    unlike.lock = (item for item in ())
    cases = [
        (Draws(), batch, "a copy of the model could not be trained: 'no such field'"),
        (NoLoss(), batch, "gives no loss that can be differentiated"),
        (classifier().requires_grad_(False), (batch, labels), "0 parameters cannot learn 8 targets by heart"),
        (nn_lazy(), batch, "layers whose size is not known before its first step"),
        (Somebodys(), batch[:0], "the batch is empty"),
        (Somebodys(), torch.randn(80, 4), "200 parameters cannot learn 320 targets by heart"),
        (unlike, batch, "a copy of the model could not be trained: cannot pickle 'generator'"),
    ]
    state, python = torch.get_rng_state(), random.getstate()
    for module, data, says in cases:
        with pytest.raises(OverfitError, match=says):
            overfit(module, data)
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python
    with pytest.raises(ValueError, match="steps must be an integer of at least 1, got 0"):
        overfit(Somebodys(), batch, steps=0)
