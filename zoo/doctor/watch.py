"""Looks at some steps of a fit, and keeps what it sees."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Optimizer

from zoo.doctor import probes
from zoo.doctor.gradients import by_layer, parameter_norms, total, unused_parameters
from zoo.doctor.graph import Graph, read_graph
from zoo.doctor.history import MAX_PARAMETERS, History, Look
from zoo.doctor.overfitting import OverfitError, overfit
from zoo.doctor.schedule import LookSchedule

_NEVER = 1 << 62
_LEAST_LOOKS = 10
_MAX_GROUPS = 100  # of parameters
_OVERFITS = "whether one batch can be overfitted"


class TrainingWatch(Callback):
    """Keeps a :class:`zoo.doctor.History` of a fit; :class:`zoo.callbacks.TrainingDoctor` says what to make of it.

    A look that fails is noted, and is the last one: nothing of this is worth a run.

    Args:
        looks: see :class:`zoo.callbacks.TrainingDoctor`.
        overfit_batch: likewise.
        overfit_steps: likewise.
        val_loss: likewise.

    Raises:
        ValueError: a value out of range.
        CheckpointError: on resume, a state that is none.
    """

    def __init__(
        self, looks: int = 50, overfit_batch: bool = False, overfit_steps: int = 300, val_loss: str | None = None
    ) -> None:
        for name, value, least in (("looks", looks, _LEAST_LOOKS), ("overfit_steps", overfit_steps, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        self.looks = looks
        self.overfit_batch = overfit_batch
        self.overfit_steps = overfit_steps
        self.val_loss = val_loss
        #: What was seen so far.
        self.history = History()
        self._schedule = LookSchedule(looks, None)
        self._batch = -1
        self._next = _NEVER
        self._look: Look | None = None
        self._graphs: list[Graph] = []
        self._norms: dict[str, float] = {}
        self._rates: dict[int, list[float]] = {}
        self._is_training = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self.history = History()
            self._is_training = False
            self._stop_looking()

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
        history.unused = unused_parameters(pl_module, trainer.optimizers)[:MAX_PARAMETERS] if trainer.optimizers else []
        history.scales_gradients = isinstance(plugin, MixedPrecision) and plugin.scaler is not None
        was_tried = history.overfit or any(note.startswith(_OVERFITS) for note in history.notes)
        if self.overfit_batch and self._batch >= 0 and not was_tried:
            history.note(f"{_OVERFITS}, which is tried in the first step of a run")
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            history.note(f"gradients, which {type(trainer.strategy).__name__} may have spread over processes")
        elif not trainer.optimizers:
            history.note("gradients, as there is no optimizer")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch += 1
        if self._batch < self._next:
            return
        if self._look is None:
            with self._harmlessly():
                self._begin_look(trainer, pl_module, batch)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if self._look is not None:
            with self._harmlessly():
                self._graphs.append(read_graph(loss, pl_module))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if self._look is not None and self._graphs:  # a training step that gave no loss changes no gradient
            with self._harmlessly():
                self._see_gradients(trainer, pl_module, optimizer, self._look)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._look is not None:
            with self._harmlessly():
                self._go_on(trainer, self._look, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._is_training or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        metrics = trainer.callback_metrics
        name = self.val_loss or probes.name_of_val_loss(metrics)
        if name is not None and name in metrics and metrics[name].numel() == 1:
            self.history.add_validation(trainer.global_step, float(metrics[name]))

    def state_dict(self) -> dict[str, Any]:
        return self.history.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = History.from_state_dict(state_dict)

    # ------------------------------------------------------------------ a look

    def _begin_look(self, trainer: Trainer, module: LightningModule, batch: Any) -> None:
        self._look = Look(step=trainer.global_step, epoch=trainer.current_epoch)
        self._graphs, self._norms, self._rates = [], {}, {}
        if self._batch == 0:
            self.history.inputs = probes.describe_inputs(batch)
            if self.overfit_batch:
                self._overfit(trainer, module, batch)

    def _overfit(self, trainer: Trainer, module: LightningModule, batch: Any) -> None:
        note = self.history.note
        if trainer.world_size > 1:
            note(f"{_OVERFITS}, which takes a single process")
            return
        if not module.automatic_optimization:
            note(f"{_OVERFITS}, which takes automatic optimization")
            return
        plugin = trainer.precision_plugin
        # Without the scaler of 16 bits, gradients would underflow: there the copy learns in 32.
        precision = None if self.history.scales_gradients else plugin.train_step_context
        try:
            tried = overfit(module, batch, self.overfit_steps, precision=precision)
            self.history.overfit = tried.state_dict()
            if not tried.is_overfitted and not tried.has_failed:
                note(
                    f"{_OVERFITS}: {tried.steps} steps took the loss from {tried.first_loss:.3g} to "
                    f"{tried.last_loss:.3g}, try more overfit_steps"
                )
        except OverfitError as error:
            note(f"{_OVERFITS}: {error}")

    @contextlib.contextmanager
    def _harmlessly(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  # whatever somebody's tensors, modules and optimizers come up with
            said = " ".join(str(error).split()) or type(error).__name__
            self.history.note(f"anything from batch {self._batch} of the run on: {said:.300}")
            self._stop_looking()

    def _stop_looking(self) -> None:
        self._look, self._next = None, _NEVER
        self._graphs = []

    def _see_gradients(self, trainer: Trainer, module: LightningModule, optimizer: Optimizer, look: Look) -> None:
        rates = [float(group["lr"]) for group in optimizer.param_groups if "lr" in group]
        self._rates[id(optimizer)] = rates[:_MAX_GROUPS]
        look.learning_rates = [rate for rates in self._rates.values() for rate in rates]
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            return
        # A fused optimizer takes the scale out only in its step; of others Lightning has, by now.
        scaled = trainer.scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False)
        norms = parameter_norms(module, optimizer, trainer.scaler.get_scale() if scaled and trainer.scaler else 1.0)
        if trainer.scaler is not None and not all(map(math.isfinite, norms.values())):
            return  # the scaler leaves this step out
        self.history.see_gradients(norms)
        self._norms |= norms  # there may be several optimizers, and one that takes several gradients for a step
        look.gradient_norm = total(self._norms.values())
        look.layer_norms = by_layer(self._norms)

    def _go_on(self, trainer: Trainer, look: Look, outputs: Any, batch: Any, batch_idx: int) -> None:
        look.samples += probes.num_samples(batch)
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor) and loss.numel() == 1:
            look.loss = float(loss)
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch:
            self._end_look(look, self._graphs)

    def _end_look(self, look: Look, graphs: list[Graph]) -> None:
        probes.see_classes(self.history, look, [graph.classes for graph in graphs if graph.classes is not None])
        probes.see_units(self.history, look, [units for graph in graphs for units in graph.units])
        if any(graph.is_compiled for graph in graphs):
            self.history.note("units inside what torch.compile has compiled")
        self.history.add(look)
        self._look, self._graphs = None, []
        self._next = self._schedule.following(self._batch + 1)


def _num_batches(trainer: Trainer) -> int | None:
    """Training batches of the whole run, if that is known."""
    numbers: list[float] = []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        numbers.append(trainer.max_epochs * trainer.num_training_batches)
    if trainer.max_steps >= 0:
        numbers.append(trainer.max_steps * trainer.accumulate_grad_batches)
    least = min(numbers, default=math.inf)
    return int(least) if 0 < least < math.inf else None
