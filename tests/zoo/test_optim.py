import functools
import math
import warnings

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from zoo import CNNClassifier, MulticlassClassification
from zoo.networks import MLP
from zoo.optim import (
    Constant,
    OneCycle,
    Plateau,
    ProgressSchedule,
    StepDecay,
    WarmupCosine,
    apply_changed_settings,
    optimizer_settings,
    weight_decay_groups,
)


def make_sgd(lr=0.3, **settings):
    return torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=lr, **settings)


def rates(optimizer, schedule, steps):
    """The learning rate of each step, and that after the last."""
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return [*seen, optimizer.param_groups[0]["lr"]]


# ---------------------------------------------------------------------- shapes


@pytest.mark.parametrize("warmup", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("steps", [500, 3000])
def test_one_cycle_is_that_of_torch(steps, warmup):
    ours, theirs = make_sgd(), make_sgd()
    mine = rates(ours, OneCycle(ours, warmup=warmup, total_steps=steps), steps)[:steps]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        theirs,
        max_lr=0.3,
        total_steps=steps + 1,
        pct_start=warmup,
        div_factor=25,
        final_div_factor=1e4,
        cycle_momentum=False,
    )
    reference = rates(theirs, schedule, steps)[:steps]
    # Torch's peak is one step earlier: at the steepest place that is pi/2 of the peak over the warm-up's steps.
    assert mine == pytest.approx(reference, abs=0.3 * max(0.01, math.pi / 2 / (warmup * steps)))
    assert max(mine) == pytest.approx(0.3)
    assert mine.index(max(mine)) == pytest.approx(warmup * steps, abs=1)


def test_one_cycle_by_hand():
    optimizer = make_sgd(lr=2.0)
    schedule = OneCycle(optimizer, warmup=0.2, start_factor=0.5, end_factor=0.1, total_steps=20)
    seen = rates(optimizer, schedule, 20)
    assert [seen[step] for step in (0, 2, 4, 12, 20)] == pytest.approx([1.0, 1.5, 2.0, 1.1, 0.2])
    assert seen[8] == pytest.approx(2 * (0.1 + 0.9 * 0.5 * (1 + math.sqrt(0.5))))
    assert seen == sorted(seen[:5]) + sorted(seen[5:], reverse=True)


def test_one_cycle_starts_and_ends_low_and_leaves_the_momentum():
    optimizer = make_sgd(momentum=0.9)
    seen = rates(optimizer, OneCycle(optimizer, total_steps=50), 50)
    assert (seen[0], seen[-1]) == (pytest.approx(0.3 / 25), pytest.approx(0.3 / 25 / 1e4))
    assert optimizer.param_groups[0]["momentum"] == 0.9


def test_warmup_cosine_by_hand():
    optimizer = make_sgd(lr=2.0)
    seen = rates(optimizer, WarmupCosine(optimizer, warmup=0.25, end_factor=0.1, total_steps=40), 40)
    assert seen[:11] == pytest.approx([0.002, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0])
    assert [seen[25], seen[40]] == pytest.approx([1.1, 0.2])
    assert seen[20] == pytest.approx(2 * (0.1 + 0.9 * 0.75))  # a third of the way: (1 + cos 60°) / 2


def test_warmup_cosine_without_warmup_begins_at_the_peak():
    optimizer = make_sgd(lr=2.0)
    seen = rates(optimizer, WarmupCosine(optimizer, warmup=0.0, total_steps=4), 4)
    assert seen == pytest.approx([2.0, 1 + math.sqrt(0.5), 1.0, 1 - math.sqrt(0.5), 0.0], abs=1e-12)


def test_step_decay_is_that_of_torch():
    ours, theirs = make_sgd(lr=2.0), make_sgd(lr=2.0)
    mine = rates(ours, StepDecay(ours, milestones=[0.3, 0.5, 0.9], gamma=0.5, total_steps=20), 20)
    schedule = torch.optim.lr_scheduler.MultiStepLR(theirs, milestones=[6, 10, 18], gamma=0.5)
    assert mine == pytest.approx(rates(theirs, schedule, 20))
    assert [mine[step] for step in (5, 6, 9, 10, 17, 18, 20)] == pytest.approx([2.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25])


@pytest.mark.parametrize("share", [1 / 3, 0.1, 0.29, 0.57, 0.7])
@pytest.mark.parametrize("steps", [300, 3000])
def test_a_milestone_falls_on_its_step_in_spite_of_rounding(share, steps):
    optimizer = make_sgd()
    seen = rates(optimizer, StepDecay(optimizer, milestones=(share,), total_steps=steps), steps)
    assert seen.count(0.3) == round(share * steps)


def test_step_decay_without_milestones_is_constant():
    optimizer = make_sgd()
    assert rates(optimizer, StepDecay(optimizer, milestones=(), total_steps=5), 5) == [0.3] * 6


def test_constant_is_constant_after_its_warmup():
    optimizer = make_sgd(lr=2.0)
    assert rates(optimizer, Constant(optimizer, total_steps=4), 6) == [2.0] * 7
    optimizer = make_sgd(lr=2.0)
    seen = rates(optimizer, Constant(optimizer, warmup=0.4, total_steps=10), 10)
    assert seen == pytest.approx([0.002, 0.5, 1.0, 1.5] + [2.0] * 7)


def test_plateau_by_hand():
    optimizer = make_sgd(lr=1.0)
    schedule = Plateau(optimizer, mode="max", factor=0.5, patience=1, threshold=0.1, min_lr=0.2)
    seen = []
    # Better by more than a tenth, or it does not count; the second value in a row that does not lowers the rate.
    for value in (1.0, 1.05, 1.2, 1.3, 1.3, 1.3, 1.3, 1.3, 1.3, float("nan"), float("nan")):
        optimizer.step()
        schedule.step(torch.tensor(value))
        seen.append(optimizer.param_groups[0]["lr"])
    assert seen == pytest.approx([1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2])


@pytest.mark.parametrize("kind", [OneCycle, WarmupCosine, StepDecay, Constant])
def test_after_its_end_a_schedule_stays_where_it_is(kind):
    optimizer = make_sgd()
    seen = rates(optimizer, kind(optimizer, total_steps=10), 13)
    assert seen[10:] == [seen[10]] * 4


def test_each_group_keeps_its_own_peak():
    first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [first]}, {"params": [second], "lr": 0.01}], lr=1.0)
    schedule = OneCycle(optimizer, warmup=0.5, total_steps=10)
    rates(optimizer, schedule, 5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1.0, 0.01])


def test_a_schedule_of_ones_own_is_a_function_of_progress():
    class Line(ProgressSchedule):
        def factor(self, progress):
            return 1.0 - progress

    optimizer = make_sgd(lr=4.0)
    assert rates(optimizer, Line(optimizer, total_steps=4), 4) == [4.0, 3.0, 2.0, 1.0, 0.0]


# ---------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("kind", "lowest"), [(OneCycle, "greater than 0"), (WarmupCosine, "at least 0"), (Constant, "at least 0")]
)
@pytest.mark.parametrize("warmup", [-0.1, 1.0, 30, float("nan")])
def test_a_warmup_outside_its_range_is_refused(kind, lowest, warmup):
    with pytest.raises(ValueError, match=f"warmup must be {lowest} and less than 1, got {warmup}"):
        kind(make_sgd(), warmup=warmup)


def test_one_cycle_needs_a_warmup():
    with pytest.raises(ValueError, match=r"got 0\.0"):
        OneCycle(make_sgd(), warmup=0.0)


@pytest.mark.parametrize("kind", [WarmupCosine, Constant])
@pytest.mark.parametrize("warmup", ["0.1", None, True])
def test_a_warmup_that_is_no_number_is_refused(kind, warmup):
    with pytest.raises(ValueError, match=f"warmup must be at least 0 and less than 1, got {warmup!r}"):
        kind(make_sgd(), warmup=warmup)


@pytest.mark.parametrize(
    "milestones", [(0.5, 0.5), (0.7, 0.3), (0.0, 0.5), (0.5, 1.0), (30, 60), (math.nan,), 0.5, "ab", ("0.5",), None]
)
def test_milestones_that_are_no_rising_shares_are_refused(milestones):
    with pytest.raises(ValueError, match=r"milestones must be rising shares of the run, in \(0, 1\), got ") as caught:
        StepDecay(make_sgd(), milestones=milestones)
    assert str(caught.value).endswith(repr(milestones))


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (StepDecay, {"gamma": 0.0}, r"gamma must be a finite number greater than 0, got 0\.0"),
        (StepDecay, {"gamma": math.nan}, "gamma must be a finite number greater than 0, got nan"),
        (StepDecay, {"gamma": math.inf}, "gamma must be a finite number greater than 0, got inf"),
        (Plateau, {"factor": 1.0}, r"factor must be greater than 0 and less than 1, got 1\.0"),
        (Plateau, {"factor": 0.0}, "factor must be greater than 0 and less than 1, got 0"),
        (Plateau, {"factor": math.nan}, "factor must be greater than 0 and less than 1, got nan"),
        (Plateau, {"patience": -1}, "patience must be an integer of at least 0, got -1"),
        (Plateau, {"patience": 1.5}, r"patience must be an integer of at least 0, got 1\.5"),
        (Plateau, {"patience": math.nan}, "patience must be an integer of at least 0, got nan"),
        (Plateau, {"threshold": -0.1}, r"threshold must be a finite number of at least 0, got -0\.1"),
        (Plateau, {"threshold": math.nan}, "threshold must be a finite number of at least 0, got nan"),
        (Plateau, {"min_lr": -1e-3}, r"min_lr must be a finite number of at least 0, got -0\.001"),
        (Plateau, {"mode": "maximum"}, "mode must be one of 'min', 'max', got 'maximum'"),
    ],
)
def test_a_value_out_of_range_is_refused(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(make_sgd(), **arguments)


@pytest.mark.parametrize("kind", [OneCycle, WarmupCosine, StepDecay, Constant])
def test_a_schedule_that_was_told_no_length_says_what_to_do(kind):
    optimizer = make_sgd()
    schedule = kind(optimizer)
    optimizer.step()
    with pytest.raises(RuntimeError, match=f"{kind.__name__} does not know .* set total_steps before the first step"):
        schedule.step()


# ---------------------------------------------------------------------- state


@pytest.mark.parametrize("kind", [OneCycle, WarmupCosine, StepDecay, functools.partial(Constant, warmup=0.5)])
@pytest.mark.parametrize("length", [10, 40])
def test_a_resumed_schedule_follows_the_length_it_is_given(kind, length):
    optimizer = make_sgd()
    schedule = kind(optimizer, total_steps=10)
    rates(optimizer, schedule, 4)
    state = schedule.state_dict()
    assert "total_steps" not in state
    again = make_sgd()
    resumed = kind(again, total_steps=length)
    again.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(state)
    assert (resumed.total_steps, resumed.last_epoch) == (length, 4)
    whole = make_sgd()
    expected = rates(whole, kind(whole, total_steps=length), length)
    assert rates(again, resumed, length - 4)[1:] == pytest.approx(expected[5:], rel=1e-12)


def plateau_after(values, optimizer=None, **settings):
    schedule = Plateau(optimizer or make_sgd(lr=1.0), **settings)
    for value in values:
        schedule.step(value)
    return schedule


def test_a_resumed_plateau_counts_on_with_the_settings_it_is_given():
    state = plateau_after([1.0, 2.0], patience=3).state_dict()
    assert not {"patience", "factor", "min_lrs", "threshold"} & set(state)
    resumed = Plateau(make_sgd(lr=1.0), patience=1, factor=0.25, min_lr=0.1)
    resumed.load_state_dict(state)
    assert (resumed.patience, resumed.factor, resumed.best, resumed.num_bad_epochs) == (1, 0.25, 1.0, 1)
    resumed.step(2.0)
    assert resumed.optimizer.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize("other", [{"monitor": "val/error"}, {"mode": "max"}])
def test_the_best_value_of_another_metric_is_forgotten(other):
    resumed = Plateau(make_sgd(lr=1.0), patience=0, **other)
    resumed.load_state_dict(plateau_after([0.5, 0.5], patience=3).state_dict())
    assert (resumed.last_epoch, resumed.num_bad_epochs, resumed.best) == (2, 0, resumed.mode_worse)
    assert {name: getattr(resumed, name) for name in other} == other


def test_a_plateau_keeps_what_it_was_lowered_by_when_another_rate_is_given():
    optimizer = make_sgd(lr=1.0)
    [before] = optimizer_settings(optimizer)
    schedule = plateau_after([1.0, 1.0], optimizer, patience=0, factor=0.5)
    assert optimizer_settings(optimizer) == [before]
    changes = apply_changed_settings(optimizer, schedule, [before], [{**before, "lr": 0.2}])
    assert changes == {"lr": (1.0, 0.2)}
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_the_settings_of_an_optimizer_are_what_it_was_given():
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=0.1, betas=(0.8, 0.9), weight_decay=0.5)
    OneCycle(optimizer)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.004)
    [settings] = optimizer_settings(optimizer)
    assert {name: settings[name] for name in ("lr", "betas", "weight_decay")} == {
        "lr": 0.1,
        "betas": (0.8, 0.9),
        "weight_decay": 0.5,
    }
    assert not {"params", "initial_lr"} & set(settings)


def test_changed_settings_win_and_the_others_stay_as_restored():
    optimizer = make_sgd(lr=0.3, momentum=0.9, weight_decay=0.1)
    [before] = optimizer_settings(optimizer)
    optimizer.param_groups[0]["weight_decay"] = 0.7  # something moved it during the first part
    changes = apply_changed_settings(optimizer, None, [before], [{**before, "lr": 0.1, "momentum": 0.5}])
    assert changes == {"lr": (0.3, 0.1), "momentum": (0.9, 0.5)}
    group = optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.5, 0.7)


def test_a_list_that_was_a_tuple_is_no_change():
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], betas=(0.8, 0.9))
    [settings] = optimizer_settings(optimizer)
    assert apply_changed_settings(optimizer, None, [settings], [{**settings, "betas": [0.8, 0.9]}]) == {}


# ---------------------------------------------------------------------- weight decay


def test_weight_decay_shrinks_weights_alone():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.PReLU(), nn.Flatten(), nn.Linear(8, 3))
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = torch.optim.AdamW(weight_decay_groups(network), lr=0.1, weight_decay=0.5)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in network.named_parameters():
        share = 0.95 if name in ("0.weight", "4.weight") else 1.0
        torch.testing.assert_close(parameter, before[name] * share)


@pytest.mark.parametrize("norm", [nn.LayerNorm([2, 4, 4]), nn.RMSNorm([4, 4])])
def test_the_scale_of_a_norm_over_an_image_is_no_weight(norm):
    [rest] = weight_decay_groups(norm)
    assert (rest["weight_decay"], len(rest["params"])) == (0.0, len(list(norm.parameters())))


def test_every_parameter_that_learns_is_in_one_group():
    network = MLP(4, (8, 8), 2, activation="prelu", norm="batch")
    network.extra = network.head  # shared
    network.hidden[0].requires_grad_(False)
    groups = weight_decay_groups(network)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in network.parameters() if parameter.requires_grad)
    assert [len(group["params"]) for group in groups] == [2, 7]
    assert "weight_decay" not in groups[0]


def test_groups_without_parameters_are_left_out():
    assert weight_decay_groups(nn.ReLU()) == []
    assert [len(group["params"]) for group in weight_decay_groups(nn.Linear(2, 2, bias=False))] == [1]
    assert [group["weight_decay"] for group in weight_decay_groups(nn.BatchNorm1d(2))] == [0.0]


def test_each_group_is_scheduled_and_changed_by_itself():
    optimizer = torch.optim.AdamW(weight_decay_groups(nn.Linear(2, 2)), lr=1.0, weight_decay=0.5)
    before = optimizer_settings(optimizer)
    rates(optimizer, StepDecay(optimizer, total_steps=4), 2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.1])
    now = [{**before[0], "weight_decay": 0.7}, before[1]]
    assert apply_changed_settings(optimizer, None, before, now) == {"weight_decay": (0.5, 0.7)}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.7, 0.0]


# ---------------------------------------------------------------------- in a run


class Rates(Callback):
    """The learning rate of each batch."""

    def __init__(self):
        self.rates = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def run(make_trainer, data, lr, schedule, epochs, ckpt_path=None, momentum=0.0, **settings):
    """Train a task; gives it, its trainer and the rates."""
    optimizer = functools.partial(torch.optim.SGD, lr=lr, momentum=momentum)
    task = MulticlassClassification(nn.Linear(4, 3), 3, optimizer=optimizer, scheduler=schedule)
    seen = Rates()
    trainer = make_trainer(max_epochs=epochs, callbacks=[seen], **settings)
    trainer.fit(task, data, ckpt_path=ckpt_path)
    return task, trainer, seen.rates


SCHEDULES = {
    "none": None,
    "one-cycle": OneCycle,
    "cosine": WarmupCosine,
    "step decay": StepDecay,
    "constant": functools.partial(Constant, warmup=0.5),
    "plateau": functools.partial(Plateau, patience=0, factor=0.5, threshold=0.9),
    "steps": functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("lr", [0.3, 0.1])
def test_a_resumed_run_follows_the_rate_and_the_length_it_is_given(make_trainer, make_data, tmp_path, schedule, lr):
    _, trainer, _ = run(make_trainer, make_data(), 0.3, schedule, epochs=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    _, _, whole = run(make_trainer, make_data(), lr, schedule, epochs=4)
    task, _, resumed = run(make_trainer, make_data(), lr, schedule, epochs=4, ckpt_path=tmp_path / "half.ckpt")
    assert task.changed_settings == ({} if lr == 0.3 else {"lr": (0.3, 0.1)})
    assert resumed[1:] == pytest.approx(whole[7:])
    if schedule is not OneCycle and schedule is not WarmupCosine:  # of these the first rate was set for the old length
        assert resumed[0] == pytest.approx(whole[6])


def test_a_resumed_run_takes_a_changed_momentum(make_trainer, make_data, tmp_path):
    _, trainer, _ = run(make_trainer, make_data(), 0.3, None, epochs=1, momentum=0.9)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    settings = {"epochs": 2, "ckpt_path": tmp_path / "half.ckpt", "momentum": 0.5}
    task, trainer, rates = run(make_trainer, make_data(), 0.3, None, **settings)
    assert task.changed_settings == {"momentum": (0.9, 0.5)}
    assert (trainer.optimizers[0].param_groups[0]["momentum"], rates) == (0.5, [0.3] * 3)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("way", ["load_from_checkpoint", "validate"])
def test_fine_tuning_a_loaded_model_is_no_resume(make_trainer, make_images, tmp_path, schedule, way):
    small = {"channels": (4,), "hidden": None, "image_size": 8, "padding": None}
    trainer = make_trainer(max_epochs=1)
    trainer.fit(CNNClassifier(**small), make_images(8))
    trainer.save_checkpoint(tmp_path / "first.ckpt")

    def tune(task):
        seen = Rates()
        make_trainer(max_epochs=2, callbacks=[seen]).fit(task, make_images(8))
        return seen.rates

    arguments = {"optimizer": functools.partial(torch.optim.AdamW, lr=0.01), "scheduler": schedule}
    if way == "validate":
        loaded = CNNClassifier(**small, **arguments)
        make_trainer().validate(loaded, make_images(8), ckpt_path=tmp_path / "first.ckpt", verbose=False)
    else:
        loaded = CNNClassifier.load_from_checkpoint(tmp_path / "first.ckpt", **arguments)
    assert tune(loaded) == pytest.approx(tune(CNNClassifier(**small, **arguments)))
    assert loaded.changed_settings == {}


def test_no_schedule_warns_of_its_order(make_trainer, make_data):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(make_trainer, make_data(), 0.3, OneCycle, epochs=1)
    assert not [warning for warning in caught if "lr_scheduler" in str(warning.message)]


# ---------------------------------------------------------------------- plateau in a run

# After the first value none is better by nine tenths, so that every validation but the first halves the rate.
HALVE = {"patience": 0, "factor": 0.5, "threshold": 0.9}


def test_plateau_looks_at_each_validation_once(make_trainer, make_data):
    schedule = functools.partial(Plateau, **HALVE)
    _, _, every = run(make_trainer, make_data(), 0.3, schedule, epochs=4)
    assert every[::3] == pytest.approx([0.3, 0.3, 0.15, 0.075])
    _, _, other = run(make_trainer, make_data(), 0.3, schedule, epochs=8, check_val_every_n_epoch=2)
    assert other[::3] == pytest.approx([0.3] * 4 + [0.15] * 2 + [0.075] * 2)


def test_plateau_follows_the_metric_it_is_told(make_trainer, make_data):
    schedule = functools.partial(Plateau, monitor="val/accuracy", mode="max", patience=0, factor=0.5, threshold=9.0)
    task, _, rates = run(make_trainer, make_data(), 0.3, schedule, epochs=3)
    assert rates[::3] == pytest.approx([0.3, 0.3, 0.15])
    assert 0.0 < task.lr_schedulers().best <= 1.0


def test_plateau_without_its_metric_names_those_there_are(make_trainer, make_data):
    schedule = functools.partial(Plateau, monitor="val/los")
    with pytest.raises(Exception, match=r"val/los[^s].*\['.*val/loss"):
        run(make_trainer, make_data(), 0.3, schedule, epochs=1)


@pytest.mark.parametrize("stop", [3, 4, 5])
@pytest.mark.parametrize("lr", [0.3, 0.1])
def test_a_resumed_plateau_follows_the_run_that_was_never_stopped(make_trainer, make_data, tmp_path, stop, lr):
    schedule = functools.partial(Plateau, **HALVE)
    every_other = {"check_val_every_n_epoch": 2}
    _, trainer, _ = run(make_trainer, make_data(), 0.3, schedule, epochs=stop, **every_other)
    trainer.save_checkpoint(tmp_path / "part.ckpt")
    settings = {"epochs": 8, "ckpt_path": tmp_path / "part.ckpt", **every_other}
    task, _, resumed = run(make_trainer, make_data(), lr, schedule, **settings)
    expected = [lr] * 4 + [lr / 2] * 2 + [lr / 4] * 2
    assert resumed[::3] == pytest.approx(expected[stop:])
    assert task.changed_settings == ({} if lr == 0.3 else {"lr": (0.3, 0.1)})


def test_a_resumed_plateau_takes_a_changed_factor(make_trainer, make_data, tmp_path):
    _, trainer, _ = run(make_trainer, make_data(), 0.3, functools.partial(Plateau, **HALVE), epochs=2)
    trainer.save_checkpoint(tmp_path / "part.ckpt")
    tenth = functools.partial(Plateau, **(HALVE | {"factor": 0.1}))
    _, _, resumed = run(make_trainer, make_data(), 0.3, tenth, epochs=4, ckpt_path=tmp_path / "part.ckpt")
    assert resumed[::3] == pytest.approx([0.15, 0.015])
