"""The arithmetic of a training step, without what torch puts around it for profilers, compilers and mistakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Variable
from torch.optim.optimizer import Optimizer, _use_grad_for_differentiable


def _nothing() -> None:
    """Stands for a step."""


#: What torch wraps around the step of each of its optimizers, known by their code: every wrapping makes a new function.
_WRAPPERS = frozenset(wrap(_nothing).__code__ for wrap in (Optimizer.profile_hook_step, _use_grad_for_differentiable))


def bare_step(optimizer: Optimizer) -> Callable[[], Any]:
    """What does as ``optimizer.step()`` does, for as long as nobody looks on.

    Around each step torch marks its place for a profiler, looks for hooks and breaks the graph of a compiler: 25
    microseconds, more than a small model's update takes. With torch's profiler on, or with an optimizer that is
    differentiated through or wrapped by others, it is ``optimizer.step`` itself.

    Args:
        optimizer: without hooks of its step, which would not be called.
    """
    update: Any = type(optimizer).step
    while getattr(update, "__code__", None) in _WRAPPERS:
        update = update.__wrapped__
    if update is type(optimizer).step or optimizer.defaults.get("differentiable") or _is_profiled():
        return optimizer.step
    is_counted = "step" in vars(optimizer)  # a schedule wants to know that the first step came before its own

    def step() -> None:
        if is_counted:
            optimizer._opt_called = True  # type: ignore[attr-defined]  # as the schedule's wrapper does
        with torch.no_grad():
            update(optimizer)

    return step


def bare_zero_grad(optimizer: Optimizer) -> Callable[[], None] | None:
    """What does as ``optimizer.zero_grad()`` does, likewise; ``None`` where the optimizer has a way of its own."""
    if type(optimizer).zero_grad is not Optimizer.zero_grad or "zero_grad" in vars(optimizer) or _is_profiled():
        return None

    def zero_grad() -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    return zero_grad


def bare_backward(loss: Tensor) -> None:
    """What does as ``loss.backward()`` does; with a plain loss straight away, else by that method.

    Of the 30 microseconds that the smallest network's backward pass takes, a third are checks of arguments that a plain
    loss does not have.
    """
    if type(loss) is Tensor and loss.ndim == 0 and loss.requires_grad and loss.is_floating_point():
        keep_graph = create_graph = False
        engine = Variable._execution_engine
        engine.run_backward(
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
