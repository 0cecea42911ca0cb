"""The doctor in a trainer: it changes nothing, looks seldom, goes on where it was, and speaks at the end."""

import math
import warnings
from functools import partial

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from PIL import Image
from torch import nn
from torch.nn import functional

from datamodules import GaussianBlobsDataModule
from zoo import MulticlassClassification
from zoo.callbacks import GracefulStop, LastCheckpoint, LeanLoop, StepSeeding, TrainingDoctor
from zoo.checkpointing import CheckpointError, read_checkpoint
from zoo.lean_loop import LeanEpochLoop
from zoo.networks import MLP
from zoo.optim import OneCycle

SGD = partial(torch.optim.SGD, lr=0.05)


def blobs(samples=300, **settings):
    arguments = {"num_features": 6, "num_classes": 3, "batch_size": 10, "seed": 0, "separation": 4.0} | settings
    return GaussianBlobsDataModule(num_samples=samples, **arguments)


def task(**arguments):
    torch.manual_seed(1)
    first, second = (
        nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2)),
        nn.Sequential(nn.Linear(16, 16), nn.ReLU()),
    )
    network = nn.Sequential(first, nn.BatchNorm1d(16), second, nn.Linear(16, 3))
    return MulticlassClassification(network, 3, **({"optimizer": SGD, "scheduler": OneCycle} | arguments))


def deep_linear():
    """Diverges within some steps."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3))
    return MulticlassClassification(network, 3, optimizer=partial(torch.optim.SGD, lr=20.0))


def doctor(**options):
    return TrainingDoctor(**({"draws": False} | options))


@pytest.fixture
def fit(make_trainer):
    def run(*callbacks, module=None, data=None, **settings):
        trainer = make_trainer(**({"max_epochs": 2, "callbacks": [StepSeeding(seed=3), *callbacks]} | settings))
        module = module or task()
        trainer.fit(module, data or blobs())
        return trainer, module

    return run


def bits(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# ---------------------------------------------------------------------- it changes nothing


class Draws(Callback):
    """What is drawn behind each batch, which depends on all that was drawn before."""

    def __init__(self):
        self.drawn = []

    def on_train_batch_end(self, *args):
        self.drawn.append(torch.rand(()).item())


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("overfits", [False, True])
def test_a_run_is_the_same_to_the_bit(fit, list_logger, lean, overfits):
    runs = {}
    for watched in (False, True):
        logger, draws = type(list_logger)(), Draws()
        callbacks = [LeanLoop()] if lean else []
        if watched:
            callbacks.append(doctor(looks=20, overfit_batch=overfits))
        torch.manual_seed(5)
        trainer, module = fit(*callbacks, draws, logger=logger)
        runs[watched] = bits(module), logger.calls, draws.drawn, trainer.optimizers[0].state_dict()["param_groups"]
        assert not any(part._forward_hooks or part._backward_hooks for part in module.modules())
        if lean:
            assert isinstance(trainer.fit_loop.epoch_loop, LeanEpochLoop)
            assert trainer.fit_loop.epoch_loop.is_lean
    assert same(runs[True][0], runs[False][0])
    assert runs[True][1:] == runs[False][1:]


def test_the_lean_loop_and_lightnings_own_show_the_doctor_the_same(fit):
    seen = []
    for callbacks in ([], [LeanLoop()]):
        watching = doctor(looks=20)
        fit(*callbacks, watching)
        seen.append(watching.history)
    assert seen[0] == seen[1]
    assert len(seen[0].looks) > 10


# ---------------------------------------------------------------------- when and what it looks at


def test_it_looks_at_the_steps_of_the_schedule_alone(fit):
    watching = doctor(looks=10)
    trainer, _ = fit(watching, max_epochs=5)
    steps = trainer.global_step
    assert steps == 105
    assert [look.step for look in watching.history.looks] == [0, 1, 2, 4, 8, 16, 21, 42, 63, 84, 104]


def test_gradient_norms_are_those_of_the_step_before_clipping(fit):
    class Norms(Callback):
        def __init__(self):
            self.norms = []

        def on_before_optimizer_step(self, trainer, module, optimizer):
            self.norms.append(math.hypot(*(value.grad.norm().item() for value in module.parameters())))

    watching, norms = doctor(), Norms()
    fit(watching, norms, gradient_clip_val=1e-3, max_epochs=1)
    looked = [norms.norms[look.step] for look in watching.history.looks]
    assert [look.gradient_norm for look in watching.history.looks] == pytest.approx(looked, rel=1e-5)
    assert watching.history.gradient_clip_val == 1e-3
    for look in watching.history.looks:
        assert math.hypot(*look.layer_norms.values()) == pytest.approx(look.gradient_norm)


def test_with_accumulated_gradients_a_look_is_at_a_whole_step(fit):
    whole, parts = doctor(), doctor()
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    for watching, size, accumulated in ((whole, 20, 1), (parts, 10, 2)):
        torch.manual_seed(0)
        module = MulticlassClassification(network=network, num_classes=3, optimizer=partial(torch.optim.SGD, lr=0.0))
        fit(watching, module=module, data=blobs(320, batch_size=size), accumulate_grad_batches=accumulated)
    assert parts.history.looks[0].samples == whole.history.looks[0].samples == 20
    by_step = {look.step: look for look in whole.history.looks}
    common = [look for look in parts.history.looks if look.step in by_step]
    assert len(common) > 10
    for look in common:
        assert look.gradient_norm == pytest.approx(by_step[look.step].gradient_norm, rel=1e-4)
        assert look.cross_entropy == pytest.approx(by_step[look.step].cross_entropy, rel=1e-4)
        assert look.labels == by_step[look.step].labels
        assert look.dead == by_step[look.step].dead


def test_frozen_layers_and_parameter_groups(fit):
    module = task(scheduler=None)
    module.network[0].requires_grad_(False)

    def optimizer(parameters):
        *most, last = parameters
        return torch.optim.SGD([{"params": most, "lr": 0.1}, {"params": [last], "lr": 0.0}])

    module._optimizer = optimizer
    watching = doctor()
    fit(watching, module=module)
    assert "network.0.0" not in watching.history.looks[0].layer_norms
    assert watching.history.looks[0].learning_rates == [0.1, 0.0]
    [finding] = watching.findings
    assert finding.evidence.startswith("the learning rate of parameter group 1 was 0 at all")


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_are_those_without_the_scale_of_a_scaler(fit, fused):
    norms = []
    for scale in (None, 2.0**12):
        plugin = scale and MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))
        watching = doctor()
        settings = {} if plugin is None else {"plugins": [plugin]}
        fit(watching, module=task(optimizer=partial(torch.optim.SGD, lr=0.05, fused=fused)), max_epochs=1, **settings)
        norms.append([look.gradient_norm for look in watching.history.looks[:5]])
        assert watching.findings == []
    assert norms[1] == pytest.approx(norms[0], rel=0.05)
    assert watching.history.scales_gradients


def test_steps_that_a_scaler_leaves_out_are_no_finding(fit):
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**40))
    watching = doctor(overfit_batch=True)
    fit(watching, module=task(scheduler=None), plugins=[plugin])
    assert watching.history.looks[0].gradient_norm is None
    assert watching.history.looks[-1].gradient_norm > 0.0
    assert watching.history.overfit["is_overfitted"]
    assert watching.findings == []


def test_bfloat16(fit):
    watching = doctor(overfit_batch=True)
    fit(watching, precision="bf16-mixed")
    assert watching.history.overfit["is_overfitted"]
    assert list(watching.history.looks[0].dead) == ["network.0.0", "network.2.0"]
    assert watching.findings == []


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_of_what_is_compiled_units_are_not_measured_and_that_is_said(fit, capsys):
    plain, compiled = doctor(overfit_batch=True), doctor(overfit_batch=True)
    for watching in (plain, compiled):
        torch.manual_seed(0)
        # A network with a forward of its own: torch 2.11 leaves a Sequential as it is.
        module = MulticlassClassification(MLP(6, (8,), 3), 3, optimizer=SGD)
        if watching is compiled:
            module.network.compile(backend="aot_eager")
        fit(watching, module=module, max_epochs=1, data=blobs(300, val_size=10, test_size=50))
    said = "units inside what torch.compile has compiled"
    assert plain.notes == []
    assert compiled.notes == [said]
    assert f"doctor    not measured: {said}\n" in capsys.readouterr().out
    assert compiled.history.looks[0].dead == {}
    assert compiled.history.overfit["is_overfitted"]
    for ours, theirs in zip(compiled.history.looks, plain.history.looks, strict=True):
        assert ours.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-3)
        assert ours.cross_entropy == pytest.approx(theirs.cross_entropy, rel=1e-3)


class Manual(LightningModule):
    """Two optimizers, by hand."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def training_step(self, batch, batch_idx):
        loss = functional.cross_entropy(self.second(self.first(batch[0]).relu()), batch[1])
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
            optimizer.zero_grad()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return [SGD(self.first.parameters()), SGD(self.second.parameters())]


def test_manual_optimization_with_two_optimizers(fit):
    watching = doctor(overfit_batch=True)
    fit(watching, module=Manual())
    look = watching.history.looks[-1]
    assert list(look.layer_norms) == ["first", "second"]
    assert look.gradient_norm == pytest.approx(math.hypot(*look.layer_norms.values()))
    assert list(look.dead) == ["first"]
    assert look.loss is None
    assert watching.notes == ["whether one batch can be overfitted, which takes automatic optimization"]
    assert watching.findings == []


def test_a_step_that_is_skipped_is_nothing_to_learn_from(fit):
    class Skips(MulticlassClassification):
        def training_step(self, batch, batch_idx):
            return None if batch_idx % 2 == 0 else super().training_step(batch, batch_idx)

    watching = doctor()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*returned `None`")
        fit(watching, module=Skips(nn.Linear(6, 3), 3, optimizer=SGD))
    assert {look.gradient_norm is None for look in watching.history.looks} == {True, False}
    assert watching.findings == []


def test_a_run_without_an_end_is_looked_at_and_fast_dev_run_draws_nothing(fit, tmp_path):
    class Stops(Callback):
        def on_train_batch_end(self, trainer, *args):
            trainer.should_stop = trainer.global_step >= 90

    watching = doctor(draws=True)
    fit(watching, Stops(), module=task(scheduler=None), max_epochs=-1)
    assert [look.step for look in watching.history.looks][:6] == [0, 1, 2, 3, 4, 5]
    assert watching.history.looks[-1].step > 60
    assert len(watching.history.looks) < 30
    (tmp_path / "figures" / "gradient_norms.png").unlink()
    fit(watching, fast_dev_run=True)
    assert not (tmp_path / "figures" / "gradient_norms.png").exists()


# ---------------------------------------------------------------------- it goes on where it was


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_resumed_run_has_the_history_of_one_that_never_stopped(fit, make_trainer, tmp_path, accumulated):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 13:
                trainer.callbacks[1].signal = 15  # as GracefulStop's handler does

    whole = doctor(overfit_batch=True)
    settings = {"accumulate_grad_batches": accumulated, "max_epochs": 3, "enable_checkpointing": True}
    _, straight = fit(GracefulStop(), whole, LastCheckpoint(tmp_path / "whole"), **settings)

    stopped = doctor(overfit_batch=True)
    with pytest.raises(SystemExit):
        fit(GracefulStop(), stopped, Stop(), LastCheckpoint(tmp_path / "part"), **settings)
    assert 3 < len(stopped.history.looks) < len(whole.history.looks)
    path = tmp_path / "part" / "last.ckpt"
    state = read_checkpoint(path)["callbacks"]["TrainingDoctor"]
    assert len(state["looks"]) == len(stopped.history.looks)

    resumed = doctor(overfit_batch=True)
    callbacks = [StepSeeding(seed=3), GracefulStop(), resumed, LastCheckpoint(tmp_path / "part")]
    trainer, module = make_trainer(callbacks=callbacks, **settings), task()
    trainer.fit(module, blobs(), ckpt_path=str(path), weights_only=True)
    assert resumed.history == whole.history
    assert same(bits(module), bits(straight))


def test_a_damaged_state_ends_a_resume_in_words(fit, make_trainer, tmp_path):
    fit(doctor(), LastCheckpoint(tmp_path), enable_checkpointing=True)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    checkpoint["callbacks"]["TrainingDoctor"]["looks"] = [{"step": 0, "surprise": 1}]
    torch.save(checkpoint, tmp_path / "damaged.ckpt")
    callbacks = [StepSeeding(seed=3), doctor(), LastCheckpoint(tmp_path)]
    trainer = make_trainer(max_epochs=3, callbacks=callbacks, enable_checkpointing=True)
    with pytest.raises(CheckpointError, match=r"state of the TrainingDoctor is damaged.*surprise"):
        trainer.fit(task(), blobs(), ckpt_path=str(tmp_path / "damaged.ckpt"), weights_only=True)


# ---------------------------------------------------------------------- what it says and draws


def test_it_speaks_and_draws_once_at_the_end(fit, tmp_path, capsys):
    class Keeps(TrainingDoctor):
        def report(self, trainer, findings):
            self.told = trainer.global_step, findings

    watching = Keeps("a title", tmp_path / "pictures")
    trainer, _ = fit(watching)
    assert watching.told == (trainer.global_step, [])
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["dead_units.png", "gradient_norms.png"]
    with Image.open(tmp_path / "pictures" / "gradient_norms.png") as picture:
        assert min(picture.size) > 400
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_a_run_that_fails_hears_what_was_wrong_before(fit, tmp_path, capsys):
    watching = doctor(draws=True)
    with pytest.raises(RuntimeError, match="loss became"):
        fit(watching, module=deep_linear(), max_epochs=5)
    assert "doctor    " in capsys.readouterr().out
    assert "exploding_gradients" in [finding.name for finding in watching.findings]
    assert (tmp_path / "figures" / "gradient_norms.png").is_file()
    with pytest.raises(ValueError, match="no such step"):
        fit(watching, module=Fails(nn.Linear(6, 3), 3))
    assert capsys.readouterr().out == ""


class Fails(MulticlassClassification):
    def training_step(self, batch, batch_idx):
        raise ValueError("no such step")


def test_a_directory_that_cannot_be_written_to_does_not_hide_what_failed_first(fit, tmp_path):
    (tmp_path / "taken").write_text("a file")
    watching = TrainingDoctor(directory=tmp_path / "taken")
    with pytest.raises(RuntimeError, match="loss became"):
        fit(watching, module=deep_linear(), max_epochs=5)


@pytest.mark.parametrize(
    "options", [{"looks": 9}, {"looks": True}, {"looks": 10.5}, {"overfit_steps": 0}, {"overfit_steps": "all"}]
)
def test_numbers_out_of_range_are_refused(options):
    [name] = options
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least"):
        TrainingDoctor(**options)
