"""Lightning's training loop without its overhead: the same steps, hooks and counts, all else looked up once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from lightning.fabric.plugins import Precision as FabricPrecision
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loops.fetchers import _DataFetcher, _PrefetchDataFetcher
from lightning.pytorch.loops.optimization.automatic import Closure, ClosureResult, _AutomaticOptimization
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins import MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer import call
from lightning.pytorch.utilities.combined_loader import _MaxSizeCycle
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from zoo.bare_step import bare_backward, bare_step, bare_zero_grad, pre_hooks, untouched
from zoo.lean_results import NotingResults

_TRANSFERS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class LeanEpochLoop(_TrainingEpochLoop):
    """The part of Lightning's ``fit`` that runs the batches of an epoch, with a fraction of the overhead.

    At every step of every batch Lightning asks which callbacks there are, what precision and strategy do, and who
    defines which hook, and wraps each answer into contexts: together 0.3 to 1 milliseconds, more than a small model
    takes to learn from the batch. This loop asks once an epoch. It calls the hooks that somebody has defined, steps,
    counts and logs in Lightning's order: what is logged and saved is the same, and so are the weights, to the bit.

    It does so where the fit is an ordinary one: automatic optimization by one of torch's optimizers that evaluate the
    loss once (not LBFGS), without a hook ahead of its step, on one device or by several processes under
    ``DDPStrategy``, in full or bfloat16 precision, without accumulated gradients, without a profiler, and with a module
    that defines neither ``optimizer_step`` nor ``on_train_batch_start``. Any other fit goes Lightning's own way.

    Installed by :class:`zoo.callbacks.LeanLoop`. Hooks that a callback gets inside an epoch, and settings of validation
    and schedules that are changed there, count from the next epoch on.
    """

    def __init__(self, trainer: Trainer, min_steps: int | None = None, max_steps: int = -1) -> None:
        super().__init__(trainer, min_steps, max_steps)
        self._results = NotingResults(training=True)
        self._plan: _Plan | None = None
        self._is_lean = False

        #: Whether several processes agree on a stop by other means than a message from the first before each batch.
        self.stops_are_agreed = False

    def _broadcast_sigterm_tensor(self) -> None:
        if not self.stops_are_agreed:
            super()._broadcast_sigterm_tensor()

    @property
    def is_lean(self) -> bool:
        """Whether the epoch under way, or else the last one, does without the overhead."""
        return self._is_lean

    def run(self, data_fetcher: _DataFetcher) -> None:
        try:
            super().run(data_fetcher)
        finally:
            self._plan = None  # it holds what belongs to the epoch, such as the loader's workers

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        self._plan = None
        super().on_run_start(data_fetcher)
        self._make_plan(data_fetcher)

    def _make_plan(self, data_fetcher: _DataFetcher) -> None:
        self._is_lean = _is_ordinary(self, data_fetcher)
        self._plan = _Plan(self.trainer, self, data_fetcher) if self._is_lean else None

    def advance(self, data_fetcher: _DataFetcher) -> None:
        if self._plan is not None and not self._plan.holds(self.trainer):
            self._make_plan(data_fetcher)
        plan = self._plan
        if plan is None or self.restarting:
            super().advance(data_fetcher)
            return
        self.val_loop._restarting = False
        trainer, connector = self.trainer, self.trainer._logger_connector
        if plan.is_one_of_several:
            self._broadcast_sigterm_tensor()
        total: Any = self.batch_progress.total
        current: Any = self.batch_progress.current

        batch = plan.fetch()
        batch_idx = current.ready
        self.batch_progress.is_last_batch = data_fetcher.done
        batch = plan.transfer(batch)
        total.ready += 1
        current.ready += 1
        plan.results.begin(connector, batch)
        output: dict[str, Any] | None = None
        if batch is None:
            self._warning_cache.warn("train_dataloader yielded None. If this was on purpose, ignore this warning...")
        else:
            plan.on_train_batch_start(batch, batch_idx)
            total.started += 1
            current.started += 1
            if torch.is_grad_enabled():
                output = self._optimize(plan, batch, batch_idx)
            else:  # by a callback, which Lightning's closure makes up for
                with torch.enable_grad():
                    output = self._optimize(plan, batch, batch_idx)
        total.processed += 1
        current.processed += 1
        for config in plan.schedules:
            if (batch_idx + 1) % config.frequency == 0:
                self.scheduler_progress.increment_ready()
                plan.enter("lr_scheduler_step")
                plan.module.lr_scheduler_step(config.scheduler, None)
                self.scheduler_progress.increment_completed()
        plan.enter(None)
        if self._num_ready_batches_reached():
            self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        plan.on_train_batch_end(output, batch, batch_idx)
        plan.results.end(connector)
        total.completed += 1
        current.completed += 1
        interval = trainer.log_every_n_steps
        if (interval and (self._batches_that_stepped + 1) % interval == 0) or trainer.should_stop or plan.is_dev_run:
            connector.update_train_step_metrics()

    def _optimize(self, plan: _Plan, batch: Any, batch_idx: int) -> dict[str, Any]:
        """One step: loss, gradients, update."""
        trainer, module, optimizer = self.trainer, plan.module, plan.optimizer
        if not plan.steps_as_it_did():  # a hook has come with the batch: torch calls some of them before the closure
            arguments = self._build_kwargs(OrderedDict(), batch, batch_idx)
            return dict(self.automatic_optimization.run(optimizer, batch_idx, arguments))
        counts: Any = self.automatic_optimization.optim_progress.optimizer
        counts.step.total.ready += 1
        counts.step.current.ready += 1

        plan.enter("training_step")
        with plan.precision:
            returned = plan.training_step(batch, batch_idx) if plan.takes_index else plan.training_step(batch)
        if isinstance(returned, Tensor):
            loss: Tensor | None = returned
            output: dict[str, Any] = {"loss": returned.detach().clone()}
        else:
            result = ClosureResult.from_training_step_output(returned)
            loss, output = result.closure_loss, {} if result.loss is None else result.asdict()
            if loss is None and plan.is_one_of_several:
                raise RuntimeError("training_step returned None: of several processes none can skip a step")
            if loss is None:
                Closure.warning_cache.warn(
                    "`training_step` returned `None`. If this was on purpose, ignore this warning..."
                )

        plan.enter("optimizer_step")
        zeroed = counts.zero_grad
        zeroed.total.ready += 1
        zeroed.current.ready += 1
        plan.on_before_zero_grad(optimizer)
        zeroed.total.started += 1
        zeroed.current.started += 1
        if plan.zero_grad is None:
            plan.enter("optimizer_zero_grad")
            module.optimizer_zero_grad(trainer.current_epoch, batch_idx, optimizer)
        else:
            plan.zero_grad()
        zeroed.total.completed += 1
        zeroed.current.completed += 1

        if loss is not None:
            plan.enter("backward")
            plan.on_before_backward(loss)
            plan.backward(loss)
            plan.on_after_backward()
        plan.enter("optimizer_step")

        # Lightning does all of this from inside optimizer.step, which for these optimizers is the first thing they do.
        plan.on_before_optimizer_step(optimizer)
        if plan.clips or trainer.gradient_clip_val:
            plan.enter("configure_gradient_clipping")
            module.configure_gradient_clipping(
                optimizer,
                gradient_clip_val=trainer.gradient_clip_val,
                gradient_clip_algorithm=trainer.gradient_clip_algorithm,
            )
            plan.enter("optimizer_step")
        plan.step()
        counts.step.total.completed += 1
        counts.step.current.completed += 1
        return output

    @property
    def done(self) -> bool:
        plan = self._plan
        if plan is None or self.restarting or self.trainer.should_stop:
            return super().done
        return self._is_training_done

    def _should_check_val_epoch(self) -> bool:
        return super()._should_check_val_epoch() if self._plan is None else self._plan.validates

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        plan, trainer = self._plan, self.trainer
        if (
            plan is None
            or not plan.holds(trainer)
            or self._skip_next_val
            or trainer.should_stop
            or trainer.received_sigterm
            or plan.updates_plateaus
            or (plan.validates and self._validates_now(plan, data_fetcher))
        ):
            super().on_advance_end(data_fetcher)
        else:
            self._batches_that_stepped += 1

    def _validates_now(self, plan: _Plan, data_fetcher: _DataFetcher) -> bool:
        if plan.validates_every is None:
            return self._should_check_val_fx(data_fetcher)
        current: Any = self.batch_progress.current
        return bool(current.ready % plan.validates_every == 0)


class _Plan:
    """What the steps of an epoch need, looked up once."""

    def __init__(self, trainer: Trainer, loop: LeanEpochLoop, data_fetcher: _DataFetcher) -> None:
        self.module = module = trainer.lightning_module
        self.optimizer = optimizer = trainer.optimizers[0]
        self.step = bare_step(optimizer)
        self.steps_as_it_did = untouched(optimizer)
        zeroes = not _defines(module, "optimizer_zero_grad", LightningModule)
        self.zero_grad = bare_zero_grad(optimizer) if zeroes else None
        self.backward = module.backward if _defines(module, "backward", LightningModule) else bare_backward
        self._callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning's connector
        self._num_callbacks = len(self._callbacks)
        self.results: NotingResults = loop._results  # type: ignore[assignment]
        self.fetch = _fetch(data_fetcher)
        self.precision = _context(trainer.precision_plugin)
        self.is_one_of_several = trainer.world_size > 1
        self.training_step = _training_step(trainer)
        self.takes_index = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
        self.clips = any(
            _defines(module, name, LightningModule) for name in ("configure_gradient_clipping", "clip_gradients")
        )
        self.is_dev_run = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # set by Lightning
        self.validates = loop._should_check_val_epoch()
        #: Batches between two validations, where nothing but the number of the batch decides.
        self.validates_every = _validation_interval(trainer)
        configs = [config for config in trainer.lr_scheduler_configs if config.interval == "step"]
        self.schedules = [config for config in configs if not config.reduce_on_plateau]
        self.updates_plateaus = len(self.schedules) < len(configs)
        transfers = any(
            _defines(owner, name, base)
            for owner, base in ((module, LightningModule), (trainer.datamodule, LightningDataModule))  # type: ignore[attr-defined]
            for name in _TRANSFERS
        )
        self._here = None if transfers else trainer.strategy.root_device
        self.on_train_batch_start = _Hook(trainer, "on_train_batch_start")
        self.on_before_zero_grad = _Hook(trainer, "on_before_zero_grad")
        self.on_before_backward = _Hook(trainer, "on_before_backward")
        self.on_after_backward = _Hook(trainer, "on_after_backward")
        self.on_before_optimizer_step = _Hook(trainer, "on_before_optimizer_step")
        self.on_train_batch_end = _Hook(trainer, "on_train_batch_end")

    def holds(self, trainer: Any) -> bool:
        """Whether nothing was changed since that a callback may change inside an epoch."""
        return (
            trainer.accumulate_grad_batches == 1
            and trainer.callbacks is self._callbacks
            and len(trainer.callbacks) == self._num_callbacks
            and trainer.optimizers[0] is self.optimizer
            and self.steps_as_it_did()
        )

    def enter(self, hook: str | None) -> None:
        """Say which hook of the module is about to be called: what it logs depends on that."""
        self.module.__dict__["_current_fx_name"] = hook

    def transfer(self, batch: Any) -> Any:
        """The batch on the device, as Lightning would bring it there."""
        if type(batch) in (tuple, list) and all(type(part) is Tensor and part.device == self._here for part in batch):
            return batch if type(batch) is tuple else list(batch)  # a list may be changed by whoever gets it
        batch = self.module._on_before_batch_transfer(batch, dataloader_idx=0)
        return call._call_strategy_hook(self.module.trainer, "batch_to_device", batch, dataloader_idx=0)


class _Hook:
    """One hook of all callbacks that define it, and then of the module."""

    def __init__(self, trainer: Trainer, name: str) -> None:
        module = trainer.lightning_module
        self._name = name
        self._state = module.__dict__  # not by setattr, by which a module looks for parameters each time
        self._functions: list[Callable[..., Any]] = [
            partial(getattr(callback, name), trainer, module)
            for callback in trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning's connector
            if _defines(callback, name, Callback)
        ]
        if _defines(module, name, LightningModule):
            self._functions.append(getattr(module, name))

    def __call__(self, *args: Any) -> None:
        if self._functions:
            before = self._state["_current_fx_name"]
            self._state["_current_fx_name"] = self._name
            for function in self._functions:
                function(*args)
            self._state["_current_fx_name"] = before


def _is_ordinary(loop: LeanEpochLoop, data_fetcher: _DataFetcher) -> bool:
    """Whether a fit is one that the lean loop does as Lightning would."""
    trainer: Any = loop.trainer
    module, strategy, plugin = trainer.lightning_module, trainer.strategy, trainer.precision_plugin
    return (
        type(data_fetcher) is _PrefetchDataFetcher
        and module.automatic_optimization
        and type(loop.automatic_optimization) is _AutomaticOptimization
        and not loop.automatic_optimization._skip_backward
        and (_is_alone(strategy, module) or _is_one_of_several(strategy, module))
        and trainer.accumulate_grad_batches == 1
        and type(plugin) in (Precision, MixedPrecision)
        and getattr(plugin, "scaler", None) is None
        and type(trainer.profiler) is PassThroughProfiler
        and len(trainer.optimizers) == 1
        and _steps_once(trainer.optimizers[0])
        and not any(_defines(module, name, LightningModule) for name in ("optimizer_step", "on_train_batch_start"))
    )


def _is_alone(strategy: Any, module: LightningModule) -> bool:
    """Whether a module is trained as it is, on one device."""
    return type(strategy) is SingleDeviceStrategy and strategy.world_size == 1 and strategy.model is module


def _is_one_of_several(strategy: Any, module: LightningModule) -> bool:
    """Whether it is trained by processes that average their gradients at each step, and nothing else."""
    return (
        type(strategy) is DDPStrategy
        and type(strategy.model) is DistributedDataParallel
        and strategy.model.module is module
        and strategy._model_averager is None
    )


def _training_step(trainer: Trainer) -> Callable[..., Any]:
    """Calls the module's step; of a wrapped one through the wrapper's ``forward``, which prepares its gradients."""
    module, strategy = trainer.lightning_module, trainer.strategy
    if strategy.model is None or strategy.model is module:

        def step(*args: Any) -> Any:
            return module.training_step(*args)  # which may be another by then

        return step
    return partial(strategy._forward_redirection, strategy.model, module, "training_step")


def _steps_once(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer is one of torch's that call a closure once, first of all, with its step as it was made."""
    own_step = vars(optimizer).get("step")  # a schedule's wrapper counts the calls, and that is all it does
    return (
        f"{type(optimizer).__module__}.".startswith("torch.optim.")
        and not isinstance(optimizer, torch.optim.LBFGS)
        and not any(pre_hooks(optimizer))
        and (
            own_step is None
            or (hasattr(own_step, "_wrapped_by_lr_sched") and own_step.__wrapped__ is type(optimizer).step)
        )
    )


def _context(plugin: FabricPrecision) -> AbstractContextManager[Any]:
    """What a step runs in; an autocast that is entered at every step needs to be made once."""
    return plugin.autocast_context_manager() if isinstance(plugin, MixedPrecision) else nullcontext()


def _defines(owner: Any, name: str, base: type) -> bool:
    """Whether an object's method, or a function in the place of one, is another than its base class's."""
    method = getattr(owner, name, None)
    return callable(method) and getattr(method, "__func__", method) is not getattr(base, name)


def _fetch(data_fetcher: _DataFetcher) -> Callable[[], Any]:
    """Fetches a batch; from a single loader of known length without the way through those that combine several."""
    combined = data_fetcher.combined_loader
    source: Any = combined._iterator
    length = data_fetcher.length
    if (
        length is None
        or type(source) is not _MaxSizeCycle
        or len(source.iterators) != 1
        or combined.iterables is not combined.flattened[0]
    ):
        return lambda: next(data_fetcher)[0]
    iterator = source.iterators[0]

    def fetch() -> Any:
        if data_fetcher.done:
            raise StopIteration
        try:
            batch = next(iterator)
        except StopIteration:
            data_fetcher.done = True
            raise
        data_fetcher.fetched += 1
        data_fetcher.done = data_fetcher.fetched >= length
        return batch

    return fetch


def _validation_interval(trainer: Any) -> int | None:
    """Batches of an epoch between two validations, if they are due by nothing else."""
    every = trainer.val_check_batch
    is_plain = trainer._val_check_time_interval is None and trainer.check_val_every_n_epoch is not None
    return every if is_plain and isinstance(every, int) else None
