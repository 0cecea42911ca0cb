"""The lean loop against Lightning's own: the same calls, figures, states and weights."""

import copy
import inspect
import os
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loops.optimization.automatic import Closure
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.profilers import SimpleProfiler
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from datamodules import TensorDataModule
from zoo import MulticlassClassification, RegularizedMLPClassifier
from zoo.callbacks import GracefulStop, LeanLoop, StepSeeding
from zoo.lean_loop import LeanEpochLoop
from zoo.optim import OneCycle, Plateau

HOOKS = [name for name in vars(Callback) if name.startswith("on_")]
# Lightning calls these on the module as well.
MODULE_HOOKS = [name for name in HOOKS if hasattr(LightningModule, name)]


def summary(value):
    """What a hook was called with, comparable."""
    if isinstance(value, torch.Tensor):
        return "tensor", str(value.dtype), tuple(value.shape), value.detach().double().sum().item()
    if isinstance(value, dict):
        return {name: summary(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [summary(item) for item in value]
    return value if isinstance(value, int | str | float | None) else type(value).__name__


class Recorder(Callback):
    """Writes down every hook: its arguments, the step, and what logging in it would go by."""

    def __init__(self):
        self.calls = []

    def record(self, owner, name, trainer, args):
        logs_as = trainer.lightning_module._current_fx_name
        progress = trainer.fit_loop.epoch_loop.batch_progress.current
        counts = progress.ready, progress.started, progress.processed, progress.completed
        self.calls.append((owner, name, logs_as, trainer.global_step, counts, summary(args)))


for _name in HOOKS:

    def _hook(self, trainer, pl_module, *args, _name=_name, **kwargs):
        if "checkpoint" not in _name:
            self.record("callback", _name, trainer, args)

    setattr(Recorder, _name, _hook)


class Rows(Logger):
    """Keeps what is logged."""

    name = version = "rows"

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, params, *args, **kwargs):
        pass


class Module(LightningModule):
    """A module as anyone writes it, which has every hook that may go with the lean loop."""

    def __init__(self, optimizer=None, scheduler=None):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
        self.make_optimizer = optimizer or partial(torch.optim.AdamW, lr=0.01)
        self.make_scheduler = scheduler
        self.recorder = None

    def configure_optimizers(self):
        optimizer = self.make_optimizer(self.parameters())
        return optimizer if self.make_scheduler is None else {"optimizer": optimizer, **self.make_scheduler(optimizer)}

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.network(batch[0]), batch[1])
        self.log("loss", loss, on_step=True, on_epoch=True)
        if batch_idx % 3 == 0:
            self.log("rare", loss * 2, on_step=True, on_epoch=False, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val", nn.functional.cross_entropy(self.network(batch[0]), batch[1]))


for _name in MODULE_HOOKS:

    def _module_hook(self, *args, _name=_name, **kwargs):
        if self.recorder is not None and "checkpoint" not in _name:
            self.recorder.record("module", _name, self.trainer, args)

    if _name != "on_train_batch_start":
        setattr(Module, _name, _module_hook)


class ReturnsDict(Module):
    def training_step(self, batch, batch_idx):
        return {"loss": super().training_step(batch, batch_idx), "size": len(batch[0])}


class TakesNoIndex(Module):
    def training_step(self, batch):
        return super().training_step(batch, 0)


class SkipsSome(Module):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return None if batch_idx == 2 else loss


class ClipsItself(Module):
    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        nn.utils.clip_grad_value_(self.parameters(), 0.01)


class MovesBatches(Module):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0] * 2, batch[1]


class LogsEverywhere(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.log("start", float(batch_idx))

    def on_before_backward(self, trainer, pl_module, loss):
        pl_module.log("backward", loss.detach())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.log("end", outputs["loss"], on_step=True, on_epoch=True)


class StopsAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            trainer.should_stop = True


class ChangesBatch(Callback):
    """Changes what the step gets, as an augmentation in a callback does."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        batch[0].mul_(-1.0)


def samples():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(90, 6, generator=generator), torch.randint(3, (90,), generator=generator)


class Unsized(IterableDataset):
    def __iter__(self):
        return zip(*samples(), strict=True)


class Kept:
    """A loader that makes its batches once."""

    def __init__(self):
        self.batches = [list(batch) for batch in DataLoader(TensorDataset(*samples()), 8)]

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


def loader(kind):
    if kind == "ours":
        return TensorDataModule(*samples(), batch_size=8, standardize=True)
    validation = DataLoader(TensorDataset(*samples()), batch_size=30)
    if kind == "unsized":
        return {"train_dataloaders": DataLoader(Unsized(), batch_size=8), "val_dataloaders": validation}
    if kind == "kept":
        return {"train_dataloaders": Kept(), "val_dataloaders": validation}
    if kind == "several":
        sets = {name: DataLoader(TensorDataset(*samples()), batch_size=8) for name in "ab"}
        return {"train_dataloaders": sets, "val_dataloaders": validation}
    train = DataLoader(TensorDataset(*samples()), batch_size=8)
    return {"train_dataloaders": train, "val_dataloaders": validation}


class TwoBatches(Module):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch["a"], batch_idx)


def fit(module, lean, data="torch", ckpt_path=None, callbacks=(), **options):
    torch.manual_seed(1)
    module = copy.deepcopy(module)
    recorder, rows = Recorder(), Rows()
    if isinstance(module, Module):
        module.recorder = recorder
    given = {
        "accelerator": "cpu",
        "max_epochs": 3,
        "log_every_n_steps": 4,
        "num_sanity_val_steps": 0,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        **options,
    }
    trainer = Trainer(
        callbacks=[*([LeanLoop()] if lean else []), StepSeeding(0), recorder, *copy.deepcopy(list(callbacks))],
        logger=rows,
        **given,
    )
    data = loader(data)
    kwargs = data if isinstance(data, dict) else {"datamodule": data}
    trainer.fit(module, ckpt_path=ckpt_path, weights_only=True, **kwargs)
    return trainer, recorder.calls, rows.rows


def plain(value):
    """Tensors as lists, for a comparison."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def state(trainer):
    checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    return plain(checkpoint)


LEAN = {
    "as it is": (Module(), {}),
    "Adafactor, whose module is the package itself": (Module(partial(torch.optim.Adafactor, lr=0.01)), {}),
    "our data": (Module(), {"data": "ours"}),
    "bfloat16": (Module(), {"precision": "bf16-mixed"}),
    "clipped by norm": (Module(), {"gradient_clip_val": 0.05}),
    "clipped by value": (Module(), {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
    "clips itself": (ClipsItself(), {}),
    "max_steps": (Module(), {"max_steps": 17, "max_epochs": -1}),
    "max_steps at an epoch's end": (Module(), {"max_steps": 24, "max_epochs": -1}),
    "cut short": (Module(), {"limit_train_batches": 5, "limit_val_batches": 2}),
    "no validation": (Module(), {"limit_val_batches": 0}),
    "validation inside": (Module(), {"val_check_interval": 4}),
    "validation by a share": (Module(), {"val_check_interval": 0.3}),
    "validation by steps": (Module(), {"val_check_interval": 7, "check_val_every_n_epoch": None}),
    "validation by the clock": (Module(), {"val_check_interval": "00:00:00:01", "check_val_every_n_epoch": None}),
    "validation of every second": (Module(), {"check_val_every_n_epoch": 2}),
    "dev run": (Module(), {"fast_dev_run": 3}),
    "log each step": (Module(), {"log_every_n_steps": 1}),
    "logs in callbacks": (Module(), {"callbacks": [LogsEverywhere()]}),
    "batches changed by a callback": (Module(), {"callbacks": [ChangesBatch()]}),
    "stopped inside": (Module(), {"callbacks": [StopsAt(6)]}),
    "stopped early": (Module(), {"callbacks": [EarlyStopping("val", patience=1, min_delta=10.0)]}),
    "dict": (ReturnsDict(), {}),
    "no index": (TakesNoIndex(), {}),
    "moves batches": (MovesBatches(), {}),
    "unsized": (Module(), {"data": "unsized"}),
    "several loaders": (TwoBatches(), {"data": "several"}),
    "SGD fused": (Module(partial(torch.optim.SGD, lr=0.1, momentum=0.9, fused=True)), {}),
    "schedule by epoch": (
        Module(scheduler=lambda optimizer: {"lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)}),
        {},
    ),
    "schedule every third step": (
        Module(
            scheduler=lambda optimizer: {
                "lr_scheduler": {
                    "scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
                    "interval": "step",
                    "frequency": 3,
                }
            }
        ),
        {},
    ),
    "plateau by steps": (
        Module(
            scheduler=lambda optimizer: {
                "lr_scheduler": {
                    "scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1.0),
                    "monitor": "loss_step",
                    "interval": "step",
                    "frequency": 4,
                }
            }
        ),
        {"log_every_n_steps": 1},
    ),
    "our task": (
        RegularizedMLPClassifier(in_features=6, num_classes=3, hidden=(8,), scheduler=OneCycle),
        {"data": "ours", "gradient_clip_val": 1.0},
    ),
    "our plateau": (
        RegularizedMLPClassifier(in_features=6, num_classes=3, hidden=(8,), scheduler=Plateau),
        {"data": "ours"},
    ),
}


@pytest.mark.parametrize("case", LEAN)
def test_a_fit_is_the_same_call_by_call(case):
    module, options = LEAN[case]
    ours, our_calls, our_rows = fit(module, True, **options)
    theirs, their_calls, their_rows = fit(module, False, **options)
    assert ours.fit_loop.epoch_loop.is_lean
    assert type(theirs.fit_loop.epoch_loop) is _TrainingEpochLoop
    for index, (our_call, their_call) in enumerate(zip(our_calls, their_calls, strict=False)):
        assert our_call == their_call, index
    assert len(our_calls) == len(their_calls) > 20
    assert plain(our_rows) == plain(their_rows)
    assert state(ours) == state(theirs)
    assert plain(dict(ours.callback_metrics)) == plain(dict(theirs.callback_metrics))
    assert plain(dict(ours.progress_bar_metrics)) == plain(dict(theirs.progress_bar_metrics))


def test_every_hook_of_a_step_is_compared():
    _, calls, _ = fit(Module(), True)
    seen = {(owner, name) for owner, name, *_ in calls}
    for name in ("on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward"):
        assert ("callback", name) in seen
    for name in ("on_before_optimizer_step", "on_train_batch_end", "on_before_zero_grad", "on_after_backward"):
        assert ("callback", name) in seen
        assert ("module", name) in seen


def test_a_step_without_a_loss_is_skipped_as_lightning_does():
    module = SkipsSome()
    Closure.warning_cache.clear()  # it warns once in a process
    with pytest.warns(UserWarning, match="returned `None`"):
        ours, our_calls, _ = fit(module, True)
    theirs, their_calls, _ = fit(module, False)
    assert our_calls == their_calls
    assert state(ours) == state(theirs)


class LogsInBackward(Module):
    def backward(self, loss):
        self.log("inside", loss.detach())
        super().backward(loss)


class ClipsByWay(Module):
    def clip_gradients(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        nn.utils.clip_grad_value_(self.parameters(), 0.01)


class OnceSet(Callback):
    """Changes an attribute of the trainer in the fifth batch."""

    def __init__(self, name, value):
        self.name, self.value = name, value

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 5:
            setattr(trainer, self.name, self.value)


class ReplacesStep(Callback):
    """Puts another step in the place of the module's behind the fifth batch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 5:
            before = pl_module.training_step
            pl_module.training_step = lambda batch, batch_idx: 2 * before(batch, batch_idx)


class HooksStep(Callback):
    """Has the optimizer scale its gradients or weights at each step from the sixth on, but not in the second epoch."""

    def __init__(self, when, hook):
        self.when = when
        setattr(self, hook, self.register)

    def register(self, trainer, *args):
        if trainer.global_step == 5:
            [optimizer] = trainer.optimizers
            self.handle = getattr(optimizer, f"register_step_{self.when}_hook")(self.shrink)

    def on_train_epoch_end(self, trainer, pl_module):
        self.handle.remove()

    @torch.no_grad()
    def shrink(self, optimizer, args, kwargs):
        for weight in optimizer.param_groups[0]["params"]:
            scaled = weight if self.when == "post" else weight.grad  # of the step before
            scaled.mul_(0.9)


class LeavesGradientsOff(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.set_grad_enabled(False)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        torch.set_grad_enabled(True)


class ChangesLoss(Callback):
    def on_before_backward(self, trainer, pl_module, loss):
        with torch.no_grad():
            loss.mul_(10)


class ReplacesFeatures(Callback):
    """Puts others into the batch, which a loader that keeps its batches must not see again."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        batch[0] = batch[0] * 2


CHANGED = {
    "logs in backward": (LogsInBackward(), {"callbacks": [LogsEverywhere()]}),
    "clips by way": (ClipsByWay(), {}),
    "clips from the fifth step on": (Module(), {"callbacks": [OnceSet("gradient_clip_val", 0.001)]}),
    "accumulates from the fifth step on": (Module(), {"callbacks": [OnceSet("accumulate_grad_batches", 2)]}),
    "another step from the fifth on": (Module(), {"callbacks": [ReplacesStep()]}),
    **{
        f"a {when} hook of the step, from {hook} on": (Module(), {"callbacks": [HooksStep(when, hook)]})
        for when in ("pre", "post")
        for hook in ("on_train_batch_start", "on_train_batch_end")
    },
    "gradients off": (Module(), {"callbacks": [LeavesGradientsOff()]}),
    "loss changed": (Module(), {"callbacks": [ChangesLoss()]}),
    "lists that are kept": (Module(), {"data": "kept", "callbacks": [ReplacesFeatures()]}),
}


@pytest.mark.parametrize("case", CHANGED)
def test_what_modules_and_callbacks_may_do_has_the_same_effect(case):
    module, options = CHANGED[case]
    ours, our_calls, our_rows = fit(module, True, **options)
    theirs, their_calls, their_rows = fit(module, False, **options)
    assert our_calls == their_calls
    assert plain(our_rows) == plain(their_rows)
    assert state(ours) == state(theirs)


@pytest.mark.parametrize("kind", ["pre hook", "post hook", "patched"])
def test_an_optimizer_that_somebody_has_changed_does_as_in_lightnings_loop(kind):
    class Changed(Module):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            weights = list(self.parameters())

            def scale(*args, **kwargs):
                with torch.no_grad():
                    for weight in weights:
                        weight.mul_(0.99)

            if kind == "pre hook":
                optimizer.register_step_pre_hook(scale)
            elif kind == "post hook":
                optimizer.register_step_post_hook(scale)
            else:
                step = optimizer.step

                def twice(closure):
                    closure()
                    return step(closure)

                optimizer.step = twice
            return optimizer

    module = Changed()
    ours, our_calls, _ = fit(module, True)
    theirs, their_calls, _ = fit(module, False)
    # What follows the update is called where it always was; what comes before, or in its place, ahead of the loss.
    assert ours.fit_loop.epoch_loop.is_lean == (kind == "post hook")
    assert our_calls == their_calls
    assert state(ours) == state(theirs)


def test_nothing_of_an_epoch_is_kept_behind_it():
    trainer, _, _ = fit(Module(), True)
    loop = trainer.fit_loop.epoch_loop
    assert loop.is_lean
    assert loop._plan is None


class OwnStep(Module):
    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        optimizer.step(closure=optimizer_closure)


class OwnStart(Module):
    def on_train_batch_start(self, batch, batch_idx):
        return -1 if batch_idx == 4 else None


class ByHand(Module):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


class Twice(torch.optim.SGD):
    """Evaluates the loss more than once, as sharpness-aware minimisation does."""

    def step(self, closure=None):
        closure()
        return super().step(closure)


NOT_LEAN = {
    "accumulated gradients": (Module(), {"accumulate_grad_batches": 3}),
    "LBFGS": (Module(partial(torch.optim.LBFGS, lr=0.01, max_iter=2)), {}),
    "an optimizer of one's own": (Module(partial(Twice, lr=0.01)), {}),
    "a step of one's own": (OwnStep(), {}),
    "a start of one's own": (OwnStart(), {}),
    "optimization by hand": (ByHand(), {}),
    "a profiler": (Module(), {"profiler": SimpleProfiler()}),
    "double precision": (Module(), {"precision": "64-true"}),
}


@pytest.mark.parametrize("case", NOT_LEAN)
def test_what_is_not_ordinary_goes_lightnings_way(case):
    module, options = NOT_LEAN[case]
    ours, our_calls, our_rows = fit(module, True, **options)
    theirs, their_calls, their_rows = fit(module, False, **options)
    assert not ours.fit_loop.epoch_loop.is_lean
    assert our_calls == their_calls
    assert plain(our_rows) == plain(their_rows)
    assert state(ours) == state(theirs)


class SavesAt(Callback):
    def __init__(self, path, step):
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize(("saved_lean", "resumed_lean"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("step", [6, 7, 16])
def test_a_checkpoint_of_either_loop_goes_on_in_either(saved_lean, resumed_lean, step, tmp_path):
    task = RegularizedMLPClassifier(in_features=6, num_classes=3, hidden=(8,), scheduler=OneCycle)
    path = tmp_path / "inside.ckpt"
    saving = [SavesAt(path, step)]
    fit(task, saved_lean, data="ours", callbacks=saving, val_check_interval=4)
    resumed, calls, rows = fit(task, resumed_lean, data="ours", ckpt_path=path, val_check_interval=4)
    expected, expected_calls, expected_rows = fit(task, False, data="ours", ckpt_path=path, val_check_interval=4)
    assert calls == expected_calls
    assert plain(rows) == plain(expected_rows)
    assert state(resumed) == state(expected)


def test_a_second_fit_goes_on_where_the_first_has_ended():
    module, ends = Module(), []
    for lean in (True, False):
        trainer, _, _ = fit(module, lean, max_epochs=1)
        trainer.fit_loop.max_epochs = 2
        trainer.fit(trainer.lightning_module, **loader("torch"))
        ends.append(state(trainer))
        assert isinstance(trainer.fit_loop.epoch_loop, LeanEpochLoop) == lean
    assert ends[0] == ends[1]
    assert ends[0]["global_step"] == 24


def test_who_agrees_on_stops_is_asked_at_each_fit():
    trainer, _, _ = fit(Module(), True, max_epochs=1, callbacks=[GracefulStop()])
    loop = trainer.fit_loop.epoch_loop
    assert loop.stops_are_agreed
    trainer.callbacks = [callback for callback in trainer.callbacks if not isinstance(callback, GracefulStop)]
    trainer.fit_loop.max_epochs = 2
    trainer.fit(trainer.lightning_module, **loader("torch"))
    assert trainer.fit_loop.epoch_loop is loop
    assert not loop.stops_are_agreed


def test_a_loader_that_ends_before_its_length_ends_the_epoch():
    class Short(DataLoader):
        def __len__(self):
            return 20

    ends = []
    for lean in (True, False):
        torch.manual_seed(1)
        module, recorder = Module(), Recorder()
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=2,
            callbacks=[*([LeanLoop()] if lean else []), StepSeeding(0), recorder],
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        trainer.fit(module, **{**loader("torch"), "train_dataloaders": Short(TensorDataset(*samples()), batch_size=8)})
        ends.append((recorder.calls, state(trainer)))
    assert ends[0] == ends[1]


def test_an_error_in_a_step_leaves_the_counts_as_lightning_does():
    class Fails(Module):
        def training_step(self, batch, batch_idx):
            if batch_idx == 3:
                raise RuntimeError("broken")
            return super().training_step(batch, batch_idx)

    ends = []
    for lean in (True, False):
        torch.manual_seed(1)
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            callbacks=[LeanLoop()] if lean else [],
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        with pytest.raises(RuntimeError, match="broken"):
            trainer.fit(Fails(), **loader("torch"))
        ends.append(plain(trainer.fit_loop.state_dict()))
    assert ends[0] == ends[1]


def test_a_loop_of_ones_own_is_kept():
    class OwnLoop(_TrainingEpochLoop):
        pass

    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[LeanLoop()],
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit_loop.epoch_loop = OwnLoop(trainer)
    trainer.fit(Module(), **loader("torch"))
    assert type(trainer.fit_loop.epoch_loop) is OwnLoop


def test_bad_targets_are_named_with_their_batch():
    task = MulticlassClassification(network=nn.Linear(6, 3), num_classes=3)
    features, labels = samples()
    data = DataLoader(TensorDataset(features, labels.where(torch.arange(90) != 20, 7)), batch_size=8)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[LeanLoop()],
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    with pytest.raises(ValueError, match="batch 2"):
        trainer.fit(task, **{**loader("torch"), "train_dataloaders": data})


def test_the_loop_overrides_what_lightning_has():
    """Names that Lightning no longer has would be overridden for nothing, and the loop be slow without a word."""
    own = {name for name in vars(LeanEpochLoop) if not name.startswith("__")}
    inherited = {name for name in own if hasattr(_TrainingEpochLoop, name)}
    assert inherited == {
        *(
            "run",
            "on_run_start",
            "advance",
            "on_advance_end",
            "done",
            "_should_check_val_epoch",
            "_broadcast_sigterm_tensor",
        )
    }
    assert "data_fetcher" in inspect.signature(_TrainingEpochLoop.advance).parameters


@pytest.mark.parametrize(("has_cuda", "check"), [(False, "0"), (True, "1")])
def test_gpus_are_not_looked_for_where_there_are_none(monkeypatch, make_trainer, has_cuda, check):
    trainer = make_trainer(max_epochs=1, callbacks=[LeanLoop()])
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # as Lightning does when it is imported
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    for callback in trainer.callbacks:
        callback.setup(trainer, Module(), "fit")
    assert os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] == check
