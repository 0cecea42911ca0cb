"""What ranks tell each other, so that several processes give the numbers of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torchmetrics import Metric


def in_process_group() -> bool:
    """Whether this process is one of a group."""
    return distributed.is_available() and distributed.is_initialized()


def sum_over_ranks(values: list[float], device: torch.device) -> list[float]:
    """The sum of each value over all ranks, which must all call this."""
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    return sums.tolist()


def weigh(loss: Tensor, weight: Tensor | float, total: float | None = None) -> Tensor:
    """A rank's mean loss, scaled so that the plain average over ranks is the mean over the global batch.

    ``DistributedDataParallel`` averages the gradients of all ranks alike, however many samples each of them had.
    Without a ``total`` all ranks must call this; none waits for its device.

    Args:
        loss: the mean over the rank's own part of the batch.
        weight: what that mean is over: its samples, or the sum of their weights.
        total: the sum of that over the ranks, where it is known without asking them.
    """
    if total is not None:
        factor = weight * distributed.get_world_size() / total
        return loss * factor if isinstance(factor, Tensor) or factor != 1.0 else loss
    own = weight.to(loss.dtype) if isinstance(weight, Tensor) else torch.full_like(loss, weight, requires_grad=False)
    over_ranks = own.detach().clone()
    distributed.all_reduce(over_ranks)
    return loss * (own * distributed.get_world_size() / over_ranks)


def keep_batch_norms_apart(module: nn.Module, wrapped: nn.Module | None) -> None:
    """Let no rank send the statistics of its BatchNorms before each batch.

    In training they are written and not read, and :func:`share_buffers` gives all ranks those of the first when they
    are. Where a module has other buffers, all are sent as before.

    Args:
        module: whose buffers.
        wrapped: the module as the strategy runs it.
    """
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # not what is derived from them, which may read them
    norms = [part for part in module.modules() if type(part) in kinds and part.training]
    has_no_others = sum(1 for _ in module.buffers()) == sum(1 for norm in norms for _ in norm.buffers(recurse=False))
    if has_no_others and isinstance(wrapped, DistributedDataParallel):
        wrapped.broadcast_buffers = False


def share_buffers(module: nn.Module, wrapped: nn.Module | None) -> Callable[[], None]:
    """Give every rank the buffers of the first, such as the statistics of a BatchNorm, as its checkpoints hold them.

    From then on a rank runs batches by itself, until it calls what this returns. ``DistributedDataParallel`` would
    broadcast the buffers before each batch, and fail, or wait for ever, where the ranks have not equally many.

    Args:
        module: whose buffers.
        wrapped: the module as the strategy runs it.
    """
    for buffer in module.buffers():
        distributed.broadcast(buffer, src=0)
    if not isinstance(wrapped, DistributedDataParallel):
        return lambda: None
    before, wrapped.broadcast_buffers = wrapped.broadcast_buffers, False
    return lambda: setattr(wrapped, "broadcast_buffers", before)


def align_states(metrics: Iterable[Metric]) -> None:
    """Give metrics that were never updated states of the type and shape that they have on the first rank.

    Some take them from their first batch. Of a rank that had none torchmetrics would send others than the rest expect.
    The first rank is the last to go without a batch.
    """
    metrics = list(metrics)
    forms: list[Any] = [[_forms(metric) for metric in metrics if metric.update_called]]
    distributed.broadcast_object_list(forms, src=0)
    if len(forms[0]) < len(metrics):
        return
    for metric, form in zip(metrics, forms[0], strict=True):
        if not metric.update_called:
            _take_form(metric, form)


_Form = tuple[bool, torch.dtype, tuple[int, ...]]


def _forms(metric: Metric) -> dict[str, _Form]:
    forms = {}
    for name, state in metric.metric_state.items():
        is_list = isinstance(state, list)
        if is_list and not state:
            continue
        tensor = state[0] if isinstance(state, list) else state
        forms[name] = (is_list, tensor.dtype, tuple(tensor.shape))
    return forms


def _take_form(metric: Metric, forms: dict[str, _Form]) -> None:
    for name, (is_list, dtype, shape) in forms.items():
        if is_list:
            setattr(metric, name, [torch.empty((0, *shape[1:]), dtype=dtype, device=metric.device)])
        else:
            state = getattr(metric, name).to(dtype)
            # What begins as a single zero may become one an output.
            setattr(metric, name, state.expand(shape).clone() if state.numel() == 1 else state)
