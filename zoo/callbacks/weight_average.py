"""An average of the weights along the training: what is validated, tested and kept in their place."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo.checkpointing import CheckpointError
from zoo.networks.checks import check_choice, check_fraction
from zoo.optim import UnknownLengthError

AverageKind = Literal["ema", "swa"]

WEIGHT_AVERAGE_KEY = "weight_average"
"""Where a checkpoint holds what training goes on with: its ``state_dict`` is the average."""

_STARTS: dict[str, float] = {"ema": 0.0, "swa": 0.75}


class WeightAverage(Callback):
    """Averages the weights along the training, and has the average validated, tested and kept in their place.

    * ``"ema"``, the exponential moving average (Polyak and Juditsky 1992; Tarvainen and Valpola 2017): the average of
      before counts ``decay``, the weights of the step the rest. After n steps no more than (1 + n) / (10 + n) counts,
      so that the first weights are soon forgotten.
    * ``"swa"``, stochastic weight averaging (Izmailov et al. 2018): the plain mean over the steps behind ``start``.

    The optimizer goes on with the weights of its own steps. Averaged, in 32 bits at least, are the parameters, and with
    them the running statistics of BatchNorms; other buffers are the live ones.

    Inside a fit validation is of the average, and after the fit the module holds it. Every checkpoint of the fit has it
    as its ``state_dict``, so that tests, ``load_from_checkpoint`` and exports read the average, and the trained weights
    beside it, from which a resumed fit goes on, to the bit: it needs this callback, too. Lightning does not ask
    callbacks about checkpoints of the weights alone (``save_weights_only=True``): these hold the trained weights.

    For one device, and for several under ``DDPStrategy``.

    Args:
        kind: ``"ema"`` or ``"swa"``.
        decay: of ``"ema"``, in (0, 1): about 1 / (1 - ``decay``) steps count.
        start: share of the run before the first weights that count, in [0, 1); ``None`` is 0 for ``"ema"`` and 0.75 for
            ``"swa"``. Until then everything is as without this callback.

    Raises:
        ValueError: a value out of range.
        CheckpointError: from a fit, if the run to resume was averaged otherwise, or its average is damaged.
        UnknownLengthError: from a fit of unknown length, if there is a ``start``.
        MisconfigurationException: from a fit with two of these.
    """

    def __init__(self, kind: AverageKind = "ema", decay: float = 0.999, start: float | None = None) -> None:
        check_choice("kind", kind, _STARTS)
        if isinstance(decay, bool) or not isinstance(decay, Real) or not 0.0 < decay < 1.0:
            raise ValueError(f"decay must be greater than 0 and less than 1, got {decay!r}")
        if start is not None:
            check_fraction(start=start)
        self.kind: AverageKind = kind
        self.decay: float = decay
        self.start: float = _STARTS[kind] if start is None else start
        self._forget()

    def _forget(self) -> None:
        self._updates = 0
        self._step = self._first_step = 0
        self._live: list[Tensor] = []
        self._average: list[Tensor] = []
        # The trained weights, while the module holds the average.
        self._trained: list[Tensor] | None = None

    # ------------------------------------------------------------------ the average

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        callbacks = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning's connector
        if sum(isinstance(callback, WeightAverage) for callback in callbacks) > 1:
            raise MisconfigurationException(
                "there are two WeightAverage callbacks, and weights have one average: drop one"
            )
        self._forget()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step
        self._first_step = self._steps_before(trainer)
        if self._updates:  # of a resumed run, whose module was still on the CPU
            self._live = list(_averaged(pl_module).values())
            self._average = [average.to(live.device) for average, live in zip(self._average, self._live, strict=True)]

    def _steps_before(self, trainer: Trainer) -> int:
        if self.start == 0.0:
            return 0
        steps = trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise UnknownLengthError(
                f"an average from {self.start:g} of the run on needs to know how long the run is: set max_steps, or "
                "max_epochs and a loader that has a length"
            )
        return int(self.start * steps)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step <= self._step:
            return  # gradients are being accumulated
        self._step = step
        if self._updates == 0:
            if step <= self._first_step:
                return
            self._live = list(_averaged(pl_module).values())
            self._average = [_at_least_32_bits(live).detach().clone() for live in self._live]
        else:
            # One call for all of them, as the optimizers of torch have it.
            torch._foreach_lerp_(self._average, [_at_least_32_bits(live) for live in self._live], self._rate())
        self._updates += 1

    def _rate(self) -> float:
        """How much the weights of a step count."""
        done = self._updates
        return 1.0 / (done + 1) if self.kind == "swa" else 1.0 - min(self.decay, (1 + done) / (10 + done))

    # ------------------------------------------------------------------ where the module holds it

    # Not in the hook before, in which a LastCheckpoint looks at the weights; and no longer than to the last hook of the
    # validation, in which others save what was validated.
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._put_in(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._take_out(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._take_out(trainer, pl_module)

    # Not at the training's end, where its last checkpoint may still have to be written.
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._put_in(pl_module)

    @torch.no_grad()
    def _put_in(self, module: LightningModule) -> None:
        if self._updates and self._trained is None:
            # Asked anew: a module that was moved has other buffers.
            live = list(_averaged(module).values())
            self._trained = [tensor.detach().clone() for tensor in live]
            for tensor, average in zip(live, self._average, strict=True):
                tensor.copy_(average)

    @torch.no_grad()
    def _take_out(self, trainer: Trainer, module: LightningModule) -> None:
        trained = self._trained
        if trained is not None and trainer.state.fn == TrainerFn.FITTING:
            self._trained = None
            for tensor, value in zip(_averaged(module).values(), trained, strict=True):
                tensor.copy_(value)

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if not self._updates or trainer.state.fn != TrainerFn.FITTING:
            return
        averaged = _averaged(pl_module)
        live = [tensor.detach() for tensor in averaged.values()]
        saved = [average.to(tensor.dtype) for average, tensor in zip(self._average, live, strict=True)]
        # By the tensors themselves: one that has two names is saved under both.
        numbers = {id(tensor): number for number, tensor in enumerate(averaged.values())}
        for name, tensor in pl_module.state_dict(keep_vars=True).items():
            if id(tensor) in numbers and name in checkpoint["state_dict"]:
                checkpoint["state_dict"][name] = saved[numbers[id(tensor)]]
        checkpoint[WEIGHT_AVERAGE_KEY] = {
            "kind": self.kind,
            "updates": self._updates,
            "trained": dict(zip(averaged, live if self._trained is None else self._trained, strict=True)),
            # The state dict has the others, to the bit.
            "average": {
                name: average
                for name, average, tensor in zip(averaged, self._average, live, strict=True)
                if average.dtype != tensor.dtype
            },
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint.get(WEIGHT_AVERAGE_KEY)
        if saved is None or trainer.state.fn != TrainerFn.FITTING:
            return  # what is tested is the average; and one that was not averaged before is from here on
        try:
            kind, updates = saved["kind"], int(saved["updates"])
            if kind != self.kind:
                raise CheckpointError(
                    f"the run to resume averages its weights by {kind!r:.20}, not {self.kind!r}, and one cannot go on "
                    "as the other: give the same again, or begin a new run"
                )
            self._restore(pl_module, saved["trained"], {**checkpoint["state_dict"], **saved["average"]})
        except CheckpointError:
            raise
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                "the average of the weights in the checkpoint is damaged, or of another model "
                f"({' '.join(str(error).split()):.200})"
            ) from error
        self._updates = max(updates, 1)

    @torch.no_grad()
    def _restore(self, module: LightningModule, trained: dict[str, Tensor], averages: dict[str, Tensor]) -> None:
        averaged = _averaged(module)
        if trained.keys() != averaged.keys():
            raise ValueError(f"it is of {len(trained)} tensors, the model has {len(averaged)}, or others")
        self._average = [_at_least_32_bits(averages[name]).clone() for name in averaged]
        for (name, tensor), average in zip(averaged.items(), self._average, strict=True):
            if not trained[name].shape == average.shape == tensor.shape:
                raise ValueError(f"{name} is {tuple(trained[name].shape)} in it and {tuple(tensor.shape)} in the model")
            tensor.copy_(trained[name])


def _averaged(module: nn.Module) -> dict[str, Tensor]:
    """What there is an average of: the parameters, and the running statistics of BatchNorms, by name."""
    found: dict[str, Tensor] = {
        name: parameter for name, parameter in module.named_parameters() if parameter.is_floating_point()
    }
    for name, part in module.named_modules():
        if isinstance(part, _BatchNorm):
            for key in ("running_mean", "running_var"):
                if isinstance(statistics := part._buffers.get(key), Tensor):
                    found[f"{name}.{key}" if name else key] = statistics
    return found


def _at_least_32_bits(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
