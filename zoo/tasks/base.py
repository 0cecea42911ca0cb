"""What all tasks share: one step, losses and metrics that cost nothing to keep, optimizer and schedule."""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Callable
from os import PathLike
from typing import Any, ClassVar

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.plugins import MixedPrecision, Precision
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.enums import GradClipAlgorithmType
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric, Metric, MetricCollection

from zoo.checkpointing import CheckpointError, MapLocation, read_checkpoint, require_plain
from zoo.optim import ProgressSchedule, UnknownLengthError, apply_changed_settings, optimizer_settings
from zoo.tasks import ranks
from zoo.tasks.restoring import restore, shapes, where_it_was
from zoo.tasks.training_loss import TrainingLoss
from zoo.tasks.transfer import TransferLearning
from zoo.values import NonFiniteLossError, NonFiniteWeightsError, Place, first_not_finite

Inputs = Tensor | tuple[Tensor, Tensor]
"""What a network reads: a tensor, or padded sequences and their lengths ``(batch,)`` int64, which stay on the CPU."""

Batch = tuple[Inputs, Any]
"""Inputs and targets."""

_TRAINING_LOSS_KEY = "training_loss"
_OPTIMIZER_KEY = "optimizer_settings"
_CLASSES_KEY = "optimizer_classes"

TASK_CLASS_KEY = "task_class"
"""Where a checkpoint says what it is one of, as ``"module.Class"``: a name to look up, never one to import."""


def _nothing() -> None:
    """Done."""


def at_least_32_bits(outputs: Tensor) -> Tensor:
    """Outputs of half precision in 32 bits, others as they are."""
    return outputs if outputs.dtype == torch.float64 else outputs.float()


def require_tensor(targets: Any) -> None:
    """Raise :class:`TargetError` for targets that are none, such as those of different lengths."""
    if not isinstance(targets, Tensor):
        raise TargetError(f"targets must be a tensor, one entry a sample, got {type(targets).__name__}")


def label_advice(targets: Tensor) -> str:
    """What to do with labels that are integers of another type than int64."""
    is_integer = not (targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool)
    return ": convert them with targets.long()" if is_integer and targets.dtype != torch.int64 else ""


def sample_with(label: int, targets: Tensor) -> int:
    """The number of the first sample with a label."""
    return int((targets == label).nonzero()[0])


def inputs_of(batch: Any) -> Inputs:
    """The inputs of a batch, or of inputs alone: a tensor, or a :class:`datamodules.PaddedBatch` or its like.

    A plain pair is a batch, inputs and targets: padded inputs and lengths by themselves are ``((inputs, lengths),)``.
    """
    inputs: Inputs = batch if isinstance(batch, Tensor) or hasattr(batch, "lengths") else batch[0]
    return inputs


class TargetError(ValueError):
    """Targets, or a network's outputs, that do not fit the task."""


class Task(TransferLearning):
    """A network with its loss, metrics, optimizer and schedule; it knows nothing of its data.

    A batch is ``(inputs, targets)``. Inputs of different lengths are a pair, padded inputs and their lengths, and the
    network is called with both; the lengths belong on the CPU, where a :class:`datamodules.PaddedBatch`, or anything
    else with a ``to`` of its own, keeps them when Lightning moves the batch. Logged are ``train/loss`` (the mean since
    the last time, every ``log_every_n_steps``), ``train/loss_epoch``, ``val/loss`` and ``test/loss`` (means over
    samples of the loss that is trained, smoothing and weights included), and the metrics, prefixed ``val/`` and
    ``test/``. Between two log points a training step neither logs nor, on a GPU, waits for the device (what packs
    sequences of different lengths does).

    A subclass passes its metrics and defines :meth:`compute_loss`, :meth:`check_targets` and ``predict_step``. All
    arguments but those in :attr:`not_hyperparameters` are saved as hyperparameters and must be plain values.

    Args:
        network: any module that maps the inputs of a batch to outputs.
        metrics: by name, each updated with what :meth:`metric_inputs` makes of outputs and targets; cloned for
            validation and test.
        optimizer: makes the optimizer from parameters, such as ``functools.partial(torch.optim.SGD, lr=0.1)``;
            ``None`` is AdamW with torch's defaults (lr 1e-3).
        scheduler: makes a learning-rate schedule from the optimizer, such as :class:`zoo.optim.OneCycle`; ``None``
            keeps the rate constant. The schedules of :mod:`zoo.optim` step once an optimizer step and are told the
            run's length, those of torch step once an epoch, :class:`zoo.optim.Plateau` in epochs with a validation.

    Raises:
        TypeError: a network that is no module, or a hyperparameter that a checkpoint could not bring back.
    """

    #: Arguments that are objects, not plain values: a checkpoint that held them could not be loaded safely. A subclass
    #: with more of them adds their names.
    not_hyperparameters: ClassVar[tuple[str, ...]] = ("network", "metrics", "optimizer", "scheduler")

    #: Metrics of how sure the task is rather than of what it decides: they see outputs after :meth:`calibrated`.
    calibration_metrics: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        network: nn.Module,
        metrics: dict[str, Metric],
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise TypeError(f"network must be a torch.nn.Module, got {type(network).__name__}")
        # Takes the arguments of the subclass's __init__, so that no subclass has to remember to.
        self.save_hyperparameters(ignore=[*self.not_hyperparameters, *self._arguments_of_bases_alone()])
        require_plain(self.hparams)
        self._refuse_dropped()
        self.network = network
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._optimizer_settings: list[dict[str, Any]] | None = None
        self._optimizer_settings_before: list[dict[str, Any]] | None = None
        self._optimizer_classes: dict[str, str | None] = {}
        self._optimizer_classes_before: dict[str, str | None] | None = None
        #: On a resumed run, the optimizer's settings that are not those it began with: ``{name: (before, now)}``.
        self.changed_settings: dict[str, tuple[Any, Any]] = {}
        self._training_loss = TrainingLoss()
        self._validation_losses: list[Tensor] = []
        self._end_sharing: Callable[[], None] = _nothing
        self.train_loss_epoch = MeanMetric()
        # compute_groups would merge metrics by comparing their states, which costs more than it saves here.
        # NaN stays NaN: by default a mean leaves it out, and the loss of a broken model would look like a good one's.
        loss = MeanMetric(nan_strategy=math.nan)
        stage_metrics = MetricCollection({"loss": loss, **metrics}, compute_groups=False)
        self.val_metrics = stage_metrics.clone(prefix="val/")
        self.test_metrics = stage_metrics.clone(prefix="test/")

    @classmethod
    def _arguments_of_bases_alone(cls) -> set[str]:
        """What a base class's ``__init__`` takes and this one's does not: no way leads from a checkpoint to these."""
        bases = [base for base in cls.__mro__ if issubclass(base, Task) and "__init__" in vars(base)]
        taken = {name for base in bases for name in inspect.signature(base.__init__).parameters}
        return taken - set(inspect.signature(cls.__init__).parameters)

    def _refuse_dropped(self) -> None:
        """Lightning leaves out functions without a word: the checkpoint would bring back the default instead."""
        parameters = list(inspect.signature(type(self)).parameters.values())
        named = {item.name for item in parameters if item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD)}
        dropped = named - {*self.not_hyperparameters, *self.hparams}
        if dropped:
            raise TypeError(
                f"hyperparameter {min(dropped)!r} holds what a checkpoint cannot bring back, such as a function: "
                "pass a plain value, or name it in the class's not_hyperparameters"
            )

    # ------------------------------------------------------------------ what a subclass defines

    @abstractmethod
    def compute_loss(self, outputs: Tensor, targets: Any) -> Tensor:
        """The mean loss of a batch, a scalar."""

    @abstractmethod
    def check_targets(self, outputs: Tensor, targets: Any) -> None:
        """Raise :class:`TargetError` for targets that do not fit the task; must not wait for a GPU in training."""

    # ------------------------------------------------------------------ what a subclass may define otherwise

    def metric_inputs(self, outputs: Tensor, targets: Any) -> tuple[Any, Any]:
        """What the metrics are updated with; outputs and targets as they are, unless a subclass says otherwise."""
        return outputs, targets

    def calibrated(self, outputs: Tensor) -> Tensor:
        """The outputs from which probabilities are made; outputs as they are, unless a subclass says otherwise."""
        return outputs

    def loss_weight(self, outputs: Tensor, targets: Any) -> Tensor | float:
        """What :meth:`compute_loss` is a mean over: the samples, unless it weighs them and a subclass says otherwise.

        By it the losses of batches, and of the ranks' parts of a batch, are put together.
        """
        return len(outputs)

    def optimizer_parameters(self) -> list[Any]:
        """What the optimizer is made with: parameters, or parameter groups."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    # ------------------------------------------------------------------ steps

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        # A network that reads no sequences takes no lengths.
        outputs: Tensor = self.network(inputs) if lengths is None else self.network(inputs, lengths)
        return outputs

    def outputs_of(self, batch: Batch | Tensor) -> Tensor:
        """The network's outputs for a batch, or see :func:`inputs_of`, for inputs alone.

        Mixed precision ends here, before losses, metrics and predictions.
        """
        inputs = inputs_of(batch)
        return at_least_32_bits(self(inputs) if isinstance(inputs, Tensor) else self(*inputs))

    def _shared_step(self, batch: Batch) -> tuple[Tensor, Any, Tensor]:
        outputs, targets = self.outputs_of(batch), batch[1]
        self.check_targets(outputs, targets)
        return outputs, targets, self.compute_loss(outputs, targets)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        try:
            outputs, targets, loss = self._shared_step(batch)
        except TargetError as error:
            raise self._with_place(error, "training", batch_idx) from error
        step = self.global_step
        is_one_of_several = self._is_one_of_several()
        weight = 0 if is_one_of_several and self._stands_in(batch_idx) else self.loss_weight(outputs, targets)
        self._training_loss.keep(loss.detach(), weight, step, self.current_epoch, batch_idx)
        interval = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning's logger connector
        if interval and (step + 1) % interval == 0 and self._is_step_complete(batch_idx):
            mean = self._training_loss.window_mean(self._over_ranks)
            self.log("train/loss", mean, on_step=True, on_epoch=False, prog_bar=True)
        return ranks.weigh(loss, weight, self._global_weight(batch_idx)) if is_one_of_several else loss

    def _global_weight(self, batch_idx: int) -> int | None:
        """The sum of :meth:`loss_weight` over all ranks, where it is their samples and the loader knows how many."""
        global_size = getattr(self.trainer.train_dataloader, "global_size", None)
        if global_size is None or type(self).loss_weight is not Task.loss_weight:
            return None
        size: int = global_size(batch_idx)
        return size

    def _stands_in(self, batch_idx: int) -> bool:
        """Whether the batch is there only for this rank to take part, see :meth:`datamodules.EpochLoader.stands_in`."""
        stands_in = getattr(self.trainer.train_dataloader, "stands_in", None)
        return stands_in is not None and stands_in(batch_idx)

    def _is_one_of_several(self) -> bool:
        return self._trainer is not None and self._trainer.world_size > 1 and ranks.in_process_group()

    def _over_ranks(self, sums: list[float]) -> list[float]:
        return ranks.sum_over_ranks(sums, self.device) if self._is_one_of_several() else sums

    def _is_step_complete(self, batch_idx: int) -> bool:
        """Whether the optimizer steps after this batch; with accumulated gradients it does not after every one."""
        return (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0 or self.trainer.is_last_batch

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        try:
            loss = self._evaluate(batch, self.val_metrics)
        except TargetError as error:
            raise self._with_place(error, "validation", batch_idx) from error
        self._validation_losses.append(loss.detach())

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        try:
            self._evaluate(batch, self.test_metrics)
        except TargetError as error:
            raise self._with_place(error, "test", batch_idx) from error

    def _evaluate(self, batch: Batch, metrics: MetricCollection) -> Tensor:
        outputs, targets, loss = self._shared_step(batch)
        decided = self.metric_inputs(outputs, targets)
        scaled = self.calibrated(outputs)
        calibrated = decided if scaled is outputs else self.metric_inputs(scaled, targets)
        for name, metric in metrics.items(keep_base=True, copy_state=False):
            if name == "loss":
                metric.update(loss, weight=self.loss_weight(outputs, targets))
            else:
                metric.update(*(calibrated if name in self.calibration_metrics else decided))
        return loss

    def _with_place(self, error: TargetError, stage: str, batch_idx: int) -> TargetError:
        """An error that also says in which batch the targets are."""
        return TargetError(f"{error} ({Place(stage, self.global_step, self.current_epoch, batch_idx)})")

    # ------------------------------------------------------------------ epochs

    def on_train_epoch_start(self) -> None:
        self._training_loss.start_epoch()

    def on_validation_start(self) -> None:
        self._training_loss.flush()  # a run that has gone bad stops here, before its weights can be called the best

    def on_train_epoch_end(self) -> None:
        mean, count = self._training_loss.epoch_mean(self._over_ranks)
        if count:
            self.train_loss_epoch.set_dtype(torch.float32)
            self.train_loss_epoch.update(mean, weight=count)
            self.log("train/loss_epoch", self.train_loss_epoch)

    def on_train_end(self) -> None:
        self._training_loss.start_run()

    def on_validation_epoch_start(self) -> None:
        self._validation_losses.clear()
        if self._is_one_of_several():
            # The model to be judged is the one that will be saved.
            self._end_sharing = ranks.share_buffers(self.network, self.trainer.strategy.model)
        self._start_evaluation(self.val_metrics)

    def on_test_epoch_start(self) -> None:
        self._start_evaluation(self.test_metrics)

    @staticmethod
    def _start_evaluation(metrics: MetricCollection) -> None:
        # Lightning resets metrics when it has read them; in inference mode, whose tensors a later fit may not change.
        metrics.reset()
        for metric in metrics.values(copy_state=False):
            # A module in half precision takes its metrics along, and a sum over an epoch needs more digits than that.
            # Asked of the states: what a metric says of its dtype is wrong once it has been moved to a device.
            dtypes = {state.dtype for state in metric.metric_state.values() if isinstance(state, Tensor)}
            if dtypes & {torch.float16, torch.bfloat16}:
                metric.to(torch.float32)

    @staticmethod
    def _end_evaluation(metrics: MetricCollection) -> None:
        if ranks.in_process_group():
            ranks.align_states(metrics.values(copy_state=False))

    def on_validation_epoch_end(self) -> None:
        self._end_sharing()
        self._end_sharing = _nothing
        self._end_evaluation(self.val_metrics)
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            loss = float(self.val_metrics["loss"].compute())
            if not math.isfinite(loss):
                # The last update did it: no training loss has shown it yet, and these weights must not be kept.
                values = [float(value) for value in self._validation_losses]  # none on a rank without a batch
                batch = next((index for index, value in enumerate(values) if not math.isfinite(value)), None)
                raise NonFiniteLossError(loss, self.global_step, batch=batch, kind="validation")
        self.log_dict(self.val_metrics, prog_bar=True)

    def on_test_epoch_end(self) -> None:
        self._end_evaluation(self.test_metrics)
        self.log_dict(self.test_metrics)

    # ------------------------------------------------------------------ optimizer and schedule

    def configure_optimizers(self) -> Any:
        parameters = self.optimizer_parameters()
        optimizer = torch.optim.AdamW(parameters) if self._optimizer is None else self._optimizer(parameters)
        scheduler = None if self._scheduler is None else self._scheduler(optimizer)
        self._optimizer_settings = optimizer_settings(optimizer)
        self._optimizer_classes = {
            "optimizer": type(optimizer).__name__,
            "scheduler": None if scheduler is None else type(scheduler).__name__,
        }
        self._check_same_classes()
        if scheduler is None:
            return optimizer
        config: dict[str, Any] = {"scheduler": scheduler, "interval": "epoch"}
        if isinstance(scheduler, ProgressSchedule):
            config["interval"] = "step"
        if hasattr(scheduler, "monitor"):
            if scheduler.monitor.startswith("val/") and self.trainer.limit_val_batches == 0:
                raise MisconfigurationException(
                    f"{type(scheduler).__name__} looks at {scheduler.monitor}, and limit_val_batches=0 leaves none"
                )
            config["monitor"] = scheduler.monitor
            # There is something new to look at only after a validation.
            config["frequency"] = self.trainer.check_val_every_n_epoch or 1
        return {"optimizer": optimizer, "lr_scheduler": config}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer is told to; a fused optimizer's gradients, too, where no loss scale is in them."""
        if not gradient_clip_val:
            return
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is None:
            # Lightning refuses this for fear that such an optimizer will take out a loss scale only in its step.
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val, algorithm)
        else:
            try:
                self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            except RuntimeError as error:
                raise MisconfigurationException(
                    f"with precision {self.trainer.precision} the gradients of a fused optimizer cannot be clipped: "
                    "use fused=False, or bf16-mixed"
                ) from error

    def _check_same_classes(self) -> None:
        """A state belongs to a class: poured into another it fails, or worse, does not."""
        before, self._optimizer_classes_before = self._optimizer_classes_before, None
        for kind, now in self._optimizer_classes.items():
            if before is not None and before.get(kind) != now:
                raise CheckpointError(
                    f"the run to resume has the {kind} {before.get(kind)}, not {now}: its values may change in a "
                    "resumed run, its class may not; begin a new run instead"
                )

    def on_train_start(self) -> None:
        super().on_train_start()
        if self._is_one_of_several():
            ranks.keep_batch_norms_apart(self, self.trainer.strategy.model)
        schedules = [config.scheduler for config in self.trainer.lr_scheduler_configs]
        for schedule in schedules:
            # Not in configure_optimizers: asked there, Lightning would set up the loaders before it has restored them,
            # and a run resumed inside an epoch would see its batches again.
            if isinstance(schedule, ProgressSchedule) and schedule.total_steps is None:
                schedule.total_steps = self._total_steps(schedule)
        before, now = self._optimizer_settings_before, self._optimizer_settings
        if before is not None and now is not None and len(before) == len(now):
            [optimizer] = self.trainer.optimizers
            self.changed_settings = apply_changed_settings(optimizer, next(iter(schedules), None), before, now)
        self._optimizer_settings_before = None
        for schedule in schedules:
            if isinstance(schedule, ProgressSchedule):
                schedule.refresh()  # the rate of the first step, where the length or the peak is another than before

    def _total_steps(self, schedule: ProgressSchedule) -> int:
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps) or steps < 1:
            raise UnknownLengthError(
                f"{type(schedule).__name__} needs to know how long the run is: set max_steps, or max_epochs and a "
                "loader that has a length"
            )
        return int(steps)

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        broken = first_not_finite(self.named_parameters())
        if broken is not None:
            raise NonFiniteWeightsError(broken, self.global_step)  # the file before keeps its place
        super().on_save_checkpoint(checkpoint)
        checkpoint[TASK_CLASS_KEY] = f"{type(self).__module__}.{type(self).__qualname__}"
        checkpoint[_TRAINING_LOSS_KEY] = dict(self._training_loss.state_dict(self._over_ranks))
        checkpoint[_OPTIMIZER_KEY] = self._optimizer_settings
        checkpoint[_CLASSES_KEY] = self._optimizer_classes

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self._trainer is not None and self.strict_loading:
            self._check_fits(checkpoint)
        # Loaded for anything else, the run that follows is a new one, and the optimizer's state will not be restored.
        if self._trainer is None or self._trainer.state.fn != TrainerFn.FITTING:
            return
        self._optimizer_settings_before = checkpoint.get(_OPTIMIZER_KEY)
        self._optimizer_classes_before = checkpoint.get(_CLASSES_KEY)
        if _TRAINING_LOSS_KEY in checkpoint and self.global_rank == 0:  # its sums are those of all ranks
            self._training_loss.load_state_dict(checkpoint[_TRAINING_LOSS_KEY])

    def _check_fits(self, checkpoint: dict[str, Any]) -> None:
        own, saved = shapes(self.state_dict()), shapes(checkpoint["state_dict"])
        if own == saved:
            return
        name = next(name for name in [*saved, *own] if own.get(name) != saved.get(name))
        hparams = checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {})
        differ = [
            f"{key} was {value!r:.100}"
            for key, value in hparams.items()
            if key in self.hparams and self.hparams[key] != value
        ]
        raise CheckpointError(
            f"the checkpoint does not fit the model: {name} is {saved.get(name, 'missing')} in it and "
            f"{own.get(name, 'missing')} in the model" + (f" ({', '.join(differ)})" if differ else "")
        )

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # narrower on purpose
        cls,
        checkpoint_path: str | PathLike[str],
        map_location: MapLocation | None = None,
        hparams_file: None = None,
        strict: bool | None = None,
        weights_only: bool = True,
        **kwargs: Any,
    ) -> Any:
        """The task saved in a local checkpoint; a leaf needs no other argument, a bare task its ``network``.

        Read once, with ``weights_only=True``, and never made larger than its weights are.

        Args:
            checkpoint_path: a local file.
            map_location: as in ``torch.load``; ``None`` is where it was, or the CPU if there is no such device.
            hparams_file: refused: give hyperparameters as arguments.
            strict: whether the weights must be exactly the model's; ``None`` asks its ``strict_loading``.
            weights_only: no other value is taken.
            **kwargs: arguments, and hyperparameters that win over those in the checkpoint.

        Raises:
            CheckpointError: no such file, a URL, a file that cannot be read safely, or one from which no such task can
                be made.
            ValueError: ``weights_only=False``, or a ``hparams_file``.
        """
        if not weights_only:
            raise ValueError("weights_only=False would run code from the file: it is not supported")
        if hparams_file is not None:
            raise ValueError("hparams_file is not supported: pass hyperparameters as arguments")
        checkpoint = read_checkpoint(checkpoint_path, map_location or where_it_was)
        return restore(cls, checkpoint, checkpoint_path, kwargs, strict)
