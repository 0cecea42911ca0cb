import functools
import math
import warnings

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from zoo import CNNClassifier, MulticlassClassification
from zoo.optim import OneCycle, ProgressSchedule, WarmupCosine, apply_changed_settings, optimizer_settings


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


@pytest.mark.parametrize("kind", [OneCycle, WarmupCosine])
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


@pytest.mark.parametrize(("kind", "lowest"), [(OneCycle, "greater than 0"), (WarmupCosine, "at least 0")])
@pytest.mark.parametrize("warmup", [-0.1, 1.0, 30, float("nan")])
def test_a_warmup_outside_its_range_is_refused(kind, lowest, warmup):
    with pytest.raises(ValueError, match=f"warmup must be {lowest} and less than 1, got {warmup}"):
        kind(make_sgd(), warmup=warmup)


def test_one_cycle_needs_a_warmup():
    with pytest.raises(ValueError, match=r"got 0\.0"):
        OneCycle(make_sgd(), warmup=0.0)


@pytest.mark.parametrize("kind", [OneCycle, WarmupCosine])
def test_a_schedule_that_was_told_no_length_says_what_to_do(kind):
    optimizer = make_sgd()
    schedule = kind(optimizer)
    optimizer.step()
    with pytest.raises(RuntimeError, match=f"{kind.__name__} does not know .* set total_steps before the first step"):
        schedule.step()


# ---------------------------------------------------------------------- state


@pytest.mark.parametrize("kind", [OneCycle, WarmupCosine])
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


# ---------------------------------------------------------------------- in a run


class Rates(Callback):
    """The learning rate of each batch."""

    def __init__(self):
        self.rates = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def run(make_trainer, data, lr, schedule, epochs, ckpt_path=None, momentum=0.0):
    """Train a task; gives it, its trainer and the rates."""
    optimizer = functools.partial(torch.optim.SGD, lr=lr, momentum=momentum)
    task = MulticlassClassification(nn.Linear(4, 3), 3, optimizer=optimizer, scheduler=schedule)
    seen = Rates()
    trainer = make_trainer(max_epochs=epochs, callbacks=[seen])
    trainer.fit(task, data, ckpt_path=ckpt_path)
    return task, trainer, seen.rates


SCHEDULES = {
    "none": None,
    "one-cycle": OneCycle,
    "cosine": WarmupCosine,
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
