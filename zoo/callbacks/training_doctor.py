"""Looks at a training from inside, and says in words what looks wrong."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.optim import Optimizer

from zoo.callbacks.figure import FigureCallback
from zoo.doctor import probes
from zoo.doctor.diagnosis import diagnose
from zoo.doctor.findings import Finding
from zoo.doctor.gradients import by_layer, parameter_norms, total, unused_parameters
from zoo.doctor.graph import Graph, read_graph
from zoo.doctor.history import History, Look
from zoo.doctor.overfitting import OverfitError, overfit
from zoo.doctor.schedule import LookSchedule

_NEVER = 1 << 62
_LEAST_LOOKS = 10


class TrainingDoctor(FigureCallback):
    """Looks at about fifty steps of a fit of any module, and says at its end what looks wrong, and what to do.

    It looks for (see :data:`zoo.doctor.diagnosis.CHECKS`) inputs that are not standardised; a loss at initialisation
    far from ln(classes); gradients that vanish or explode; units behind a ReLU that are zero for every sample;
    parameters without gradient, or in no optimizer; a learning rate of 0; values near overflow; a loss that does not
    fall, or stays at chance level; predictions of one class; a validation loss that rises while the training loss
    falls; and, with ``overfit_batch=True``, a model that cannot learn a single batch by heart. Each is a
    :class:`zoo.doctor.Finding`.

    :attr:`findings` are those of the moment. At the end of a fit, also of one that failed, they are printed, and
    figures are drawn: ``gradient_norms``, and ``dead_units`` where there are ReLUs. A run that is told to stop, and
    goes on later, says nothing yet.

    A look only reads: weights, random draws and what is logged are the same to the bit as without it. Steps between
    looks do nothing but count, wait for no device and have no hooks in the network. Units and cross-entropies are read
    off the graph of the loss, whatever modules or functions made it; of what ``torch.compile`` has compiled they are
    not measured. With accumulated gradients a look spans the batches of a step. Gradients are taken before clipping,
    without the scale of a gradient scaler. Of several processes only the first looks, at its own share of a batch;
    gradients that are sharded are not measured. Under manual optimization the loss is not judged. What could not be
    measured is among :attr:`notes`.

    The state in a checkpoint is bounded and made of plain values; a resumed run goes on with it.

    Args:
        title: see :class:`FigureCallback`.
        directory: likewise.
        looks: about how many steps to look at, at least 10.
        overfit_batch: before the first step, train a copy of the model on its batch, see :func:`zoo.doctor.overfit`; in
            a single process.
        overfit_steps: at most.
        val_loss: the name of the validation loss among what is logged; ``None`` finds ``val/loss``, ``val_loss`` and
            their like.
        draws: whether to draw figures.

    Raises:
        ValueError: a value out of range.
        CheckpointError: on resume, a state that is none.
    """

    def __init__(
        self,
        title: str | None = None,
        directory: str | Path | None = None,
        *,
        looks: int = 50,
        overfit_batch: bool = False,
        overfit_steps: int = 300,
        val_loss: str | None = None,
        draws: bool = True,
    ) -> None:
        super().__init__(title, directory)
        for name, value, least in (("looks", looks, _LEAST_LOOKS), ("overfit_steps", overfit_steps, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        self.looks = looks
        self.overfit_batch = overfit_batch
        self.overfit_steps = overfit_steps
        self.val_loss = val_loss
        self.draws = draws
        self.history = History()
        self._schedule = LookSchedule(looks, None)
        self._batch = -1
        self._next = _NEVER
        self._look: Look | None = None
        self._graphs: list[Graph] = []
        self._is_training = False

    @property
    def findings(self) -> list[Finding]:
        """What looks wrong so far."""
        return diagnose(self.history)

    @property
    def notes(self) -> list[str]:
        """What could not be measured, and why."""
        return list(self.history.notes)

    def report(self, trainer: Trainer, findings: list[Finding]) -> None:
        """Say what was found, at the end of a fit; a subclass may say it elsewhere."""
        for finding in findings:
            print(f"doctor    {finding}", flush=True)
        if not findings:
            print(f"doctor    nothing looks wrong in {self.history.num_looks} looks", flush=True)
        tried = self.history.overfit
        if tried and tried["is_overfitted"]:
            print(f"doctor    a batch of {tried['samples']} is overfitted in {tried['steps']} steps", flush=True)
        for note in self.notes:
            print(f"doctor    not measured: {note}", flush=True)

    # ------------------------------------------------------------------ the fit

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self.history = History()
            self._look, self._next, self._is_training = None, _NEVER, False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self._is_training = True
        self._schedule = LookSchedule(self.looks, _num_batches(trainer))
        self._batch = trainer.fit_loop.epoch_loop.total_batch_idx
        self._next = self._schedule.following(self._batch + 1)
        history, plugin = self.history, trainer.precision_plugin
        history.gradient_clip_val = None if trainer.gradient_clip_val is None else float(trainer.gradient_clip_val)
        history.is_automatic = pl_module.automatic_optimization
        history.has_input_norm = probes.begins_with_norm(pl_module)
        history.unused = unused_parameters(pl_module, trainer.optimizers) if trainer.optimizers else []
        history.scales_gradients = isinstance(plugin, MixedPrecision) and plugin.scaler is not None
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            history.note(f"gradients, which {type(trainer.strategy).__name__} may have spread over processes")
        elif not trainer.optimizers:
            history.note("gradients, as there is no optimizer")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch += 1
        if self._batch < self._next:
            return
        if self._look is None:
            self._begin_look(trainer, pl_module, batch)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if self._look is not None:
            self._graphs.append(read_graph(loss, pl_module))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if self._look is not None and self._graphs:  # a training step that gave no loss changes no gradient
            self._see_gradients(trainer, pl_module, optimizer, self._look)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._look is None:
            return
        self._look.samples += probes.num_samples(batch)
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor) and loss.numel() == 1:
            self._look.loss = float(loss)
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch:
            self._end_look()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._is_training or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        name = self.val_loss or probes.name_of_val_loss(trainer.callback_metrics)
        if name is not None and name in trainer.callback_metrics:
            self.history.add_validation(trainer.global_step, float(trainer.callback_metrics[name]))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_training:
            self._finish(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        is_stopped = isinstance(exception, SIGTERMException | KeyboardInterrupt)
        if self._is_training and not is_stopped and self.findings:
            with contextlib.suppress(OSError):  # what went wrong first is what is to be heard of
                self._finish(trainer)
        self._is_training, self._look = False, None
        self._graphs.clear()

    def state_dict(self) -> dict[str, Any]:
        return self.history.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = History.from_state_dict(state_dict)

    # ------------------------------------------------------------------ a look

    def _begin_look(self, trainer: Trainer, module: LightningModule, batch: Any) -> None:
        self._look = Look(step=trainer.global_step, epoch=trainer.current_epoch)
        self._graphs.clear()
        if self._batch == 0:
            self.history.inputs = probes.describe_inputs(batch)
            if self.overfit_batch:
                self._overfit(trainer, module, batch)

    def _overfit(self, trainer: Trainer, module: LightningModule, batch: Any) -> None:
        note = self.history.note
        if trainer.world_size > 1:
            note("whether one batch can be overfitted, which takes a single process")
            return
        if not module.automatic_optimization:
            note("whether one batch can be overfitted, which takes automatic optimization")
            return
        plugin = trainer.precision_plugin
        # Without the scaler of 16 bits, gradients would underflow: there the copy learns in 32.
        precision = None if self.history.scales_gradients else plugin.train_step_context
        try:
            self.history.overfit = overfit(module, batch, self.overfit_steps, precision=precision).state_dict()
        except OverfitError as error:
            note(f"whether one batch can be overfitted: {error}")

    def _see_gradients(self, trainer: Trainer, module: LightningModule, optimizer: Optimizer, look: Look) -> None:
        groups = optimizer.param_groups
        look.learning_rates += [float(group["lr"]) for group in groups if "lr" in group]
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            return
        # A fused optimizer takes the scale out only in its step; of others Lightning has, by now.
        scaled = trainer.scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False)
        norms = parameter_norms(module, optimizer, trainer.scaler.get_scale() if scaled and trainer.scaler else 1.0)
        if trainer.scaler is not None and not all(map(math.isfinite, norms.values())):
            return  # the scaler leaves this step out
        self.history.see_gradients(norms)
        before = [] if look.gradient_norm is None else [look.gradient_norm]  # of another optimizer
        look.gradient_norm = total([*before, *norms.values()])
        look.layer_norms |= by_layer(norms)

    def _end_look(self) -> None:
        look, graphs = self._look, self._graphs
        assert look is not None
        probes.see_classes(self.history, look, [graph.classes for graph in graphs if graph.classes is not None])
        probes.see_units(self.history, look, [units for graph in graphs for units in graph.units])
        if any(graph.is_compiled for graph in graphs):
            self.history.note("units inside what torch.compile has compiled")
        self.history.add(look)
        self._look, self._graphs = None, []
        self._next = self._schedule.following(self._batch + 1)

    # ------------------------------------------------------------------ the end

    def _finish(self, trainer: Trainer) -> None:
        self._is_training = False
        self.report(trainer, self.findings)
        if self.draws and self.history.looks and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by Lightning
            self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        from zoo.figures.training import dead_units, gradient_norms

        looks = self.history.looks
        steps = [look.step for look in looks]
        if any(look.gradient_norm is not None for look in looks):
            layers = _columns(look.layer_norms for look in looks)
            norms = [look.gradient_norm for look in looks]
            clip = self.history.gradient_clip_val
            figure = gradient_norms(steps, norms, layers, self.title_of(trainer, "gradient norms"), clip)
            self.publish(trainer, "gradient_norms", figure)
        if shares := _columns(look.dead for look in looks):
            figure = dead_units(steps, shares, self.title_of(trainer, "dead units"))
            self.publish(trainer, "dead_units", figure)


def _columns(rows: Iterable[dict[str, float]]) -> dict[str, list[float | None]]:
    """Rows of named values as columns, ``None`` where a row has no value of that name."""
    rows = list(rows)
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


def _num_batches(trainer: Trainer) -> int | None:
    """Training batches of the whole run, if that is known."""
    numbers: list[float] = []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        numbers.append(trainer.max_epochs * trainer.num_training_batches)
    if trainer.max_steps >= 0:
        numbers.append(trainer.max_steps * trainer.accumulate_grad_batches)
    least = min(numbers, default=math.inf)
    return int(least) if 0 < least < math.inf else None
