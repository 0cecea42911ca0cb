"""The arithmetic of a training step, without what torch puts around it for profilers, compilers and mistakes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Variable
from torch.autograd.graph import _engine_run_backward
from torch.optim.optimizer import (
    Optimizer,
    _global_optimizer_post_hooks,
    _global_optimizer_pre_hooks,
    _use_grad_for_differentiable,
)
from torch.overrides import has_torch_function_unary


def _nothing() -> None:
    """Stands for a step."""


#: What torch wraps around the step of each of its optimizers, known by its code: every wrapping makes a new function.
_PROFILED, _WITHOUT_GRADIENTS = (
    wrap(_nothing).__code__ for wrap in (Optimizer.profile_hook_step, _use_grad_for_differentiable)
)


def bare_step(optimizer: Optimizer) -> Callable[[], Any]:
    """What does as ``optimizer.step()`` does.

    Around each step torch marks its place for a profiler, looks for hooks and breaks the graph of a compiler: 25
    microseconds, more than a small model's update takes. While torch's profiler is on, or the step has hooks or was
    replaced since, ``optimizer.step`` is called; with an optimizer that is differentiated through or wrapped by others,
    it is that itself.
    """
    update: Any = type(optimizer).step
    wrappers = []
    while (code := getattr(update, "__code__", None)) in (_PROFILED, _WITHOUT_GRADIENTS):
        wrappers.append(code)
        update = update.__wrapped__
    if _WITHOUT_GRADIENTS not in wrappers or optimizer.defaults.get("differentiable"):
        return optimizer.step
    is_untouched, followers = untouched(optimizer), post_hooks(optimizer)
    is_counted = "step" in vars(optimizer)  # a schedule wants to know that the first step came before its own

    def step() -> None:
        if _is_profiled() or any(followers) or not is_untouched():
            optimizer.step()
            return
        if is_counted:
            optimizer._opt_called = True  # type: ignore[attr-defined]  # as the schedule's wrapper does
        with torch.no_grad():
            update(optimizer)

    return step


def bare_zero_grad(optimizer: Optimizer) -> Callable[[], None] | None:
    """What does as ``optimizer.zero_grad()`` does, likewise; ``None`` where the optimizer has a way of its own."""
    if type(optimizer).zero_grad is not Optimizer.zero_grad:
        return None
    own = vars(optimizer)

    def zero_grad() -> None:
        if "zero_grad" in own or _is_profiled():
            optimizer.zero_grad()
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    return zero_grad


def untouched(optimizer: Optimizer) -> Callable[[], bool]:
    """Tells whether an optimizer's step is what it is now, with no hook ahead of it."""
    own = vars(optimizer)
    step = own.get("step")
    hooks = pre_hooks(optimizer)
    return lambda: not any(hooks) and own.get("step") is step


def pre_hooks(optimizer: Optimizer) -> tuple[Mapping[int, Any], ...]:
    """The hooks that an optimizer's step calls before anything else, of which any may be registered at any time."""
    return optimizer._optimizer_step_pre_hooks, _global_optimizer_pre_hooks


def post_hooks(optimizer: Optimizer) -> tuple[Mapping[int, Any], ...]:
    """The hooks that it calls at its end, likewise."""
    return optimizer._optimizer_step_post_hooks, _global_optimizer_post_hooks


def bare_backward(loss: Tensor) -> None:
    """What does as ``loss.backward()`` does; with a plain loss straight away, else by that method.

    Of the 30 microseconds that the smallest network's backward pass takes, a third are checks of arguments that a plain
    loss does not have.
    """
    is_plain = loss.ndim == 0 and loss.requires_grad and loss.is_floating_point()
    if is_plain and not has_torch_function_unary(loss):
        keep_graph = create_graph = False
        # An accelerator's gradients are computed by a thread of its own, to which torch hands on this one's context.
        run_backward = Variable._execution_engine.run_backward if loss.is_cpu else _engine_run_backward
        run_backward(
            (loss,),
            (torch.ones_like(loss),),
            keep_graph,
            create_graph,
            (),
            allow_unreachable=True,
            accumulate_grad=True,
        )
    else:
        loss.backward()  # type: ignore[no-untyped-call]


def _is_profiled() -> bool:
    return bool(torch.autograd._profiler_enabled())  # type: ignore[attr-defined]  # not in its __all__
