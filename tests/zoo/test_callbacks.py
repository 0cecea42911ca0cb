import functools
import io
import re
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn

from zoo import MulticlassClassification, NonFiniteLossError
from zoo.callbacks import EpochProgress, RunRecord, StepSeeding, describe_optimizer
from zoo.optim import OneCycle
from zoo.tracking import MetricsCSV, read_csv

SGD = functools.partial(torch.optim.SGD, lr=0.1)


class Draws(nn.Module):
    """A linear layer after dropout; notes a random number each time it is trained."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layer, self.dropout = nn.Linear(4, 3), nn.Dropout(0.5)
        self.drawn = []

    def forward(self, x):
        if self.training:
            self.drawn.append(torch.rand(()).item())
        return self.layer(self.dropout(x))


def noisy_task(**arguments):
    return MulticlassClassification(network=Draws(), num_classes=3, optimizer=SGD, **arguments)


class Disturb(Callback):
    """Draws random numbers of its own, as validation or a figure may."""

    def __init__(self, count):
        self.count = count

    def on_train_batch_end(self, *args):
        torch.rand(self.count)


class Somebodys(LightningModule):
    """A module that owes nothing to this project."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.02, betas=(0.7, 0.8))


# ---------------------------------------------------------------------- StepSeeding


def train_disturbed(make_trainer, data, count, *callbacks, **settings):
    task = noisy_task()
    torch.manual_seed(count)
    make_trainer(max_epochs=2, callbacks=[Disturb(count), *callbacks], **settings).fit(task, data)
    return task.network


def test_random_draws_do_not_depend_on_what_was_drawn_before(make_trainer, make_data):
    seeded = [train_disturbed(make_trainer, make_data(), count, StepSeeding(7)) for count in (1, 50)]
    assert seeded[0].drawn == seeded[1].drawn
    assert torch.equal(seeded[0].layer.weight, seeded[1].layer.weight)
    unseeded = [train_disturbed(make_trainer, make_data(), count) for count in (1, 50)]
    assert unseeded[0].drawn != unseeded[1].drawn


@pytest.mark.parametrize("accumulate", [1, 2])
def test_every_batch_and_every_seed_draw_anew(make_trainer, make_data, accumulate):
    drawn = []
    for seed in (7, 8):
        task = noisy_task()
        trainer = make_trainer(max_epochs=3, callbacks=[StepSeeding(seed)], accumulate_grad_batches=accumulate)
        trainer.fit(task, make_data())
        drawn += task.network.drawn
    assert len(set(drawn)) == len(drawn) == 18


def test_every_rank_draws_its_own():
    drawn = []
    for rank in (0, 1, 0):
        trainer = SimpleNamespace(fit_loop=SimpleNamespace(total_batch_idx=5), global_rank=rank)
        StepSeeding(7).on_train_batch_start(trainer, noisy_task(), None, 0)
        drawn.append(torch.rand(()).item())
    assert drawn[0] == drawn[2] != drawn[1]


@pytest.mark.parametrize(("environment", "seed"), [(None, 0), ("23", 23)])
def test_the_seed_is_that_of_seed_everything(monkeypatch, environment, seed):
    if environment is not None:
        monkeypatch.setenv("PL_GLOBAL_SEED", environment)
    assert StepSeeding().seed == seed
    assert StepSeeding(5).seed == 5


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("scheduler", [None, OneCycle], ids=["constant", "one-cycle"])
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_run_resumed_at_any_step_ends_with_the_same_bits(
    make_trainer, make_data, tmp_path, step, accumulate, scheduler
):
    def run(task, ckpt_path=None):
        saver = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1, enable_version_counter=False)
        settings = {"callbacks": [StepSeeding(7), saver], "enable_checkpointing": True}
        trainer = make_trainer(max_epochs=2, accumulate_grad_batches=accumulate, **settings)
        trainer.fit(task, make_data(train=12 * accumulate), ckpt_path=ckpt_path)
        assert trainer.global_step == 6

    whole, again = noisy_task(scheduler=scheduler), noisy_task(scheduler=scheduler)
    run(whole)
    run(again, ckpt_path=tmp_path / f"step={step}.ckpt")
    assert again.network.drawn == whole.network.drawn[step * accumulate :]
    assert torch.equal(again.network.layer.weight, whole.network.layer.weight)


# ---------------------------------------------------------------------- RunRecord


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (None, {"class": "torch.optim.adamw.AdamW", "lr": 1e-3, "betas": [0.9, 0.999], "weight_decay": 0.01}),
        (
            functools.partial(torch.optim.AdamW, lr=0.03, betas=(0.8, 0.9), weight_decay=0.2),
            {"class": "torch.optim.adamw.AdamW", "lr": 0.03, "betas": [0.8, 0.9], "weight_decay": 0.2},
        ),
        (
            functools.partial(torch.optim.SGD, lr=0.5, momentum=0.9),
            {"class": "torch.optim.sgd.SGD", "lr": 0.5, "momentum": 0.9, "weight_decay": 0},
        ),
    ],
)
@pytest.mark.parametrize("scheduler", [None, OneCycle])
def test_the_loggers_get_the_live_optimizer(make_trainer, make_data, list_logger, optimizer, expected, scheduler):
    task = MulticlassClassification(nn.Linear(4, 3), 3, optimizer=optimizer, scheduler=scheduler)
    trainer = make_trainer(max_epochs=2, logger=list_logger, callbacks=[RunRecord({"experiment": "mine", "runs": 3})])
    trainer.fit(task, make_data())
    settings = list_logger.settings
    assert {name: settings["optimizer"][name] for name in expected} == expected
    assert "params" not in settings["optimizer"]
    assert (settings["experiment"], settings["runs"], settings["num_classes"]) == ("mine", 3, 3)
    assert (settings["data"]["class"], settings["dataset"]) == ("TensorDataModule", "tensors")
    if scheduler is None:
        assert settings["scheduler"] is None
    else:
        schedule = {"class": "zoo.optim.OneCycle", "warmup": 0.3, "start_factor": 0.04, "total_steps": 6}
        assert {name: settings["scheduler"][name] for name in schedule} == schedule


def test_a_record_works_without_logger_or_datamodule_in_anyones_run(make_trainer, make_data, list_logger):
    data = make_data()
    data.setup()
    make_trainer(max_epochs=1, callbacks=[RunRecord()]).fit(Somebodys(), data.train_dataloader())
    trainer = make_trainer(max_epochs=1, callbacks=[RunRecord()], logger=list_logger)
    trainer.fit(Somebodys(), data.train_dataloader())
    assert list_logger.settings["optimizer"]["class"] == "torch.optim.adam.Adam"
    assert (list_logger.settings["optimizer"]["lr"], list_logger.settings["optimizer"]["betas"]) == (0.02, [0.7, 0.8])
    assert "data" not in list_logger.settings


def test_a_record_works_in_a_run_that_logs_no_step(make_trainer, make_data, tmp_path):
    data, saver = make_data(), ModelCheckpoint(tmp_path, "saved", every_n_train_steps=1)
    data.setup()
    settings = {"log_every_n_steps": 0, "logger": MetricsCSV(tmp_path), "enable_checkpointing": True}
    trainer = make_trainer(max_steps=1, callbacks=[RunRecord(), saver], **settings)
    trainer.fit(Somebodys(), data.train_dataloader())
    assert torch.load(tmp_path / "saved.ckpt", weights_only=True)["run_record"]["metric_rows"] == 0


def test_a_schedule_of_torch_is_described_by_its_plain_values(make_trainer, make_data, list_logger):
    halve = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=3, gamma=0.5)
    trainer = make_trainer(max_epochs=1, logger=list_logger, callbacks=[RunRecord()])
    trainer.fit(noisy_task(scheduler=halve), make_data())
    expected = {"class": "torch.optim.lr_scheduler.StepLR", "step_size": 3, "gamma": 0.5}
    assert {name: list_logger.settings["scheduler"][name] for name in expected} == expected
    assert list_logger.settings["optimizer"]["lr"] == 0.1


def test_values_that_differ_between_groups_are_listed():
    first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    groups = [{"params": [first]}, {"params": [second], "lr": 0.01, "betas": (0.5, 0.6)}]
    description = describe_optimizer(torch.optim.AdamW(groups, lr=1.0, weight_decay=0.3))
    assert description["class"] == "torch.optim.adamw.AdamW"
    assert description["lr"] == [1.0, 0.01]
    assert description["betas"] == [[0.9, 0.999], [0.5, 0.6]]
    assert description["weight_decay"] == 0.3
    assert "params" not in description


def test_the_rate_described_is_the_one_that_a_schedule_works_from():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    OneCycle(optimizer)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.02)
    assert describe_optimizer(optimizer)["lr"] == 0.5
    assert "initial_lr" not in describe_optimizer(optimizer)


@pytest.mark.parametrize("when", ["step=1", "step=3", "step=5", "epoch=0", "epoch=1", "val=0", "val=1"])
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_resumed_metrics_file_is_that_of_the_whole_run(make_trainer, make_data, tmp_path, when):
    def run(directory, ckpt_path=None):
        rows = None if ckpt_path is None else torch.load(ckpt_path, weights_only=True)["run_record"]["metric_rows"]
        logger = MetricsCSV(directory, keep_rows=rows)
        places = {
            "step={step}": {"every_n_train_steps": 1},
            "epoch={epoch}": {"save_on_train_epoch_end": True},
            "val={epoch}": {"save_on_train_epoch_end": False, "monitor": "val/loss"},
        }
        kept = {"save_top_k": -1, "enable_version_counter": False, "auto_insert_metric_name": False}
        savers = [ModelCheckpoint(tmp_path / "checkpoints", name, **kept, **place) for name, place in places.items()]
        callbacks = [RunRecord(), *savers]
        trainer = make_trainer(max_epochs=3, logger=logger, callbacks=callbacks, enable_checkpointing=True)
        torch.manual_seed(0)
        task = MulticlassClassification(nn.Linear(4, 3), 3, optimizer=SGD)
        trainer.fit(task, make_data(train=8), ckpt_path=ckpt_path)  # two batches an epoch

    run(tmp_path / "whole")
    (tmp_path / "again").mkdir()
    shutil.copy(tmp_path / "whole" / "metrics.csv", tmp_path / "again")
    run(tmp_path / "again", tmp_path / "checkpoints" / f"{when}.ckpt")
    whole, again = (read_csv(tmp_path / name / "metrics.csv")[1] for name in ("whole", "again"))
    assert len(whole) == 6 + 2 * 3  # every step, and a row each of training and validation every epoch
    assert again == whole


# ---------------------------------------------------------------------- EpochProgress


FIGURES = ("train/loss", "val/accuracy", "val/ece", "val/f1", "val/loss", "val/top2_accuracy")
LINE = re.compile(r"epoch (\d)/(\d)  " + "".join(rf"{name} (\S+)  " for name in FIGURES) + r"\d+\.\d s")


def test_an_epoch_is_one_line_with_its_values(make_trainer, make_data, list_logger, capsys):
    settings = {"callbacks": [EpochProgress()], "enable_progress_bar": True, "num_sanity_val_steps": 2}
    trainer = make_trainer(max_epochs=3, logger=list_logger, **settings)
    trainer.fit(noisy_task(), make_data())
    printed = capsys.readouterr()
    lines = [LINE.fullmatch(line) for line in printed.out.splitlines()]
    assert len(lines) == 3
    assert all(lines)
    columns = [list_logger.values(name.replace("train/loss", "train/loss_epoch")).values() for name in FIGURES]
    for epoch, (line, *values) in enumerate(zip(lines, *columns, strict=True)):
        assert line.groups() == (str(epoch + 1), "3", *(f"{value:.4f}" for value in values))
    assert "batch" not in printed.err


def test_a_line_shows_no_values_of_an_epoch_before(make_trainer, make_data, capsys):
    settings = {"callbacks": [EpochProgress()], "enable_progress_bar": True, "check_val_every_n_epoch": 2}
    make_trainer(max_epochs=4, **settings).fit(noisy_task(), make_data())
    lines = capsys.readouterr().out.splitlines()
    assert [("val/loss" in line, "train/loss" in line) for line in lines] == [(False, True), (True, True)] * 2


def test_progress_works_in_anyones_run_without_a_last_epoch(make_trainer, make_data, capsys):
    data = make_data()
    data.setup()
    settings = {"callbacks": [EpochProgress()], "enable_progress_bar": True}
    make_trainer(max_epochs=-1, max_steps=5, **settings).fit(Somebodys(), data.train_dataloader())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(re.fullmatch(rf"epoch {number} +\d+\.\d s", line) for number, line in zip((1, 2), lines, strict=True))


class Terminal(io.StringIO):
    """A stream that somebody is watching."""

    def isatty(self):
        return True


def test_on_a_terminal_the_bar_is_not_redrawn_with_every_batch(make_trainer, make_data, capsys, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    settings = {"callbacks": [EpochProgress(refresh_hz=1e-3)], "enable_progress_bar": True}
    make_trainer(max_epochs=2, **settings).fit(noisy_task(), make_data(train=200))
    drawn = re.findall(r"epoch \d/2", terminal.getvalue())
    assert drawn == ["epoch 1/2", "epoch 2/2"]  # fifty batches each, the bar drawn when it appeared
    assert "/50" in terminal.getvalue()
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_run_that_breaks_leaves_no_bar_and_no_line(make_trainer, make_data, capsys, monkeypatch):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(x) * float("nan")

    terminal, progress = Terminal(), EpochProgress()
    monkeypatch.setattr(sys, "stderr", terminal)
    trainer = make_trainer(max_epochs=2, callbacks=[progress], enable_progress_bar=True)
    with pytest.raises(NonFiniteLossError):
        trainer.fit(MulticlassClassification(Broken(), 3), make_data())
    assert capsys.readouterr().out == ""
    assert terminal.getvalue().rstrip(" ").endswith("\r")  # wiped


def test_progress_can_be_switched_off(make_trainer, make_data, capsys):
    progress = EpochProgress()
    trainer = make_trainer(max_epochs=1, callbacks=[progress], enable_progress_bar=True)
    progress.disable()
    trainer.fit(noisy_task(), make_data())
    assert capsys.readouterr().out == ""
    progress.enable()
    trainer = make_trainer(max_epochs=1, callbacks=[progress], enable_progress_bar=True)
    trainer.fit(noisy_task(), make_data())
    assert capsys.readouterr().out.startswith("epoch 1/1  train/loss ")


def test_validation_and_test_alone_print_no_line(make_trainer, make_data, capsys):
    trainer = make_trainer(callbacks=[EpochProgress()], enable_progress_bar=True)
    trainer.validate(noisy_task(), make_data(), verbose=False)
    trainer.test(noisy_task(), make_data(), verbose=False)
    assert capsys.readouterr().out == ""
