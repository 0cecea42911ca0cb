"""The short ways of a training step: they do what torch's own do, and step aside where those do more."""

import copy
import inspect
import warnings

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.overrides import TorchFunctionMode
from torchmetrics import MeanMetric
from torchmetrics.wrappers import MinMaxMetric

from zoo.bare_step import bare_backward, bare_step, bare_zero_grad
from zoo.callbacks import LeanLoop
from zoo.lean_results import LeanResults

OPTIMIZERS = sorted(
    name
    for name, found in vars(torch.optim).items()
    # LBFGS wants a closure, SparseAdam sparse gradients, and Muon matrices alone.
    if inspect.isclass(found) and name not in ("Optimizer", "LBFGS", "SparseAdam", "Muon")
)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def train(module, optimizer, *, bare, steps=5):
    generator = torch.Generator().manual_seed(1)
    step, zero_grad = (
        (bare_step(optimizer), bare_zero_grad(optimizer)) if bare else (optimizer.step, optimizer.zero_grad)
    )
    for _ in range(steps):
        loss = module(torch.randn(8, 3, generator=generator)).square().mean()
        zero_grad()
        bare_backward(loss) if bare else loss.backward()
        step()
    return [*module.state_dict().values(), *(parameter.grad for parameter in module.parameters())]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_ends_with_the_same_weights_and_gradients(name):
    plain, bare = network(), network()
    optimizers = [getattr(torch.optim, name)(module.parameters(), lr=0.1) for module in (plain, bare)]
    expected, found = train(plain, optimizers[0], bare=False), train(bare, optimizers[1], bare=True)
    assert all(map(torch.equal, expected, found))
    assert not torch.equal(expected[0], network()[0].weight)
    states = [optimizer.state_dict()["state"] for optimizer in optimizers]
    assert states[0].keys() == states[1].keys()


def test_the_short_way_is_taken_where_it_can_be():
    optimizer = torch.optim.AdamW(network().parameters())
    assert bare_step(optimizer) != optimizer.step
    assert bare_zero_grad(optimizer) is not None


def test_a_profiler_sees_what_it_always_did():
    module = network()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    step, zero_grad = bare_step(optimizer), bare_zero_grad(optimizer)
    with torch.profiler.profile(acc_events=True) as profile:
        zero_grad()
        bare_backward(module(torch.ones(2, 3)).sum())
        step()
    names = {event.name for event in profile.events()}
    assert {"Optimizer.step#SGD.step", "Optimizer.zero_grad#SGD.zero_grad"} <= names


def test_an_update_that_is_differentiated_through_keeps_its_graph():
    parameter = torch.ones(1, requires_grad=True).clone()
    optimizer = torch.optim.SGD([parameter], lr=0.1, differentiable=True)
    assert bare_step(optimizer) == optimizer.step


def test_the_step_of_a_class_of_ones_own_is_left_as_it_is():
    calls = []

    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            calls.append("step" if torch.is_grad_enabled() else "step without gradients")
            return super().step(closure)

        def zero_grad(self, set_to_none=True):
            calls.append("zero_grad")
            super().zero_grad(set_to_none)

    optimizer = Counting(network().parameters(), lr=0.1)
    assert bare_zero_grad(optimizer) is None
    bare_step(optimizer)()
    assert calls == ["step"]


def _hook(optimizer, seen):
    optimizer.register_step_post_hook(lambda *_: seen.append("called"))


def _global_hook(optimizer, seen):
    return register_optimizer_step_post_hook(lambda *_: seen.append("called"))


def _own_step(optimizer, seen):
    step = optimizer.step
    optimizer.step = lambda: (seen.append("called"), step())


def _own_zero_grad(optimizer, seen):
    zero_grad = optimizer.zero_grad
    optimizer.zero_grad = lambda: (seen.append("called"), zero_grad())


@pytest.mark.parametrize("change", [_hook, _global_hook, _own_step, _own_zero_grad])
def test_what_an_optimizer_gets_later_is_heeded(change):
    module, seen = network(), []
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    step, zero_grad = bare_step(optimizer), bare_zero_grad(optimizer)
    bare_backward(module(torch.ones(2, 3)).sum())
    handle = change(optimizer, seen)
    try:
        step()
        zero_grad()
    finally:
        if handle is not None:
            handle.remove()
    assert seen == ["called"]
    assert not torch.equal(module[0].weight, network()[0].weight)
    assert module[0].weight.grad is None


def test_a_schedule_made_later_hears_of_the_step():
    module = network()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    step = bare_step(optimizer)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    bare_backward(module(torch.ones(2, 3)).sum())
    step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "lr_scheduler.step() before optimizer.step()"
        schedule.step()


def test_a_schedule_hears_of_the_step():
    module = network()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    bare_backward(module(torch.ones(2, 3)).sum())
    bare_step(optimizer)()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "lr_scheduler.step() before optimizer.step()"
        schedule.step()


def test_parameters_added_later_are_updated_and_zeroed():
    module, late = network(), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    step, zero_grad = bare_step(optimizer), bare_zero_grad(optimizer)
    optimizer.add_param_group({"params": [late]})
    bare_backward(late.sum())
    step()
    assert late.tolist() == [0.5, 0.5]
    zero_grad()
    assert late.grad is None


def test_gradients_are_on_again_behind_a_step():
    module = network()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    bare_backward(module(torch.ones(2, 3)).sum())
    bare_step(optimizer)()
    assert torch.is_grad_enabled()


def test_a_loss_that_torch_refuses_is_refused_in_its_words():
    with pytest.raises(RuntimeError, match="grad can be implicitly created only for scalar outputs"):
        bare_backward(torch.ones(2, requires_grad=True) * 2)
    with pytest.raises(RuntimeError, match="does not require grad"):
        bare_backward(torch.tensor(1.0))


def test_a_loss_of_one_element_is_taken():
    parameter = torch.tensor([3.0], requires_grad=True)
    bare_backward(parameter * 2.0)
    assert parameter.grad.tolist() == [2.0]


def test_a_mode_that_looks_on_sees_the_backward_pass():
    seen = []

    class Mode(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    loss = torch.ones(2, requires_grad=True).sum()
    with Mode():
        bare_backward(loss)
    assert torch.Tensor.backward in seen


def test_the_thread_of_an_accelerator_is_handed_what_torch_hands_it():
    seen = []
    parameter = torch.ones(2, requires_grad=True, device="meta")
    parameter.register_hook(lambda _: seen.append(torch._C._is_key_in_tls("context")))
    for backward in (torch.Tensor.backward, bare_backward):
        backward(parameter.sum())
    ordinary, bare = seen
    assert ordinary == bare  # torch 2.11 hands on nothing yet


def test_a_second_backward_pass_is_refused_in_torchs_words():
    loss = torch.ones(2, requires_grad=True).square().sum()
    bare_backward(loss)
    with pytest.raises(RuntimeError, match="a second time"):
        bare_backward(loss)


# ---------------------------------------------------------------------- what is logged


def logged(results, value, name="value"):
    results.log("training_step", name, value, on_step=False, on_epoch=True, batch_size=2)
    return results


def test_logged_values_are_those_of_lightnings_collection():
    collections = [_ResultCollection(training=True), LeanResults(training=True)]
    for results in collections:
        for value in (1.0, 2.0, 6.0):
            logged(results, torch.tensor(value))
    metrics = [results.metrics(on_step=False) for results in collections]
    assert metrics[0] == metrics[1]
    assert metrics[1]["log"] == {"value": torch.tensor(3.0)}


def test_a_value_is_moved_to_where_it_is_not():
    results = logged(LeanResults(training=True), torch.tensor(1.0))
    [held] = results.values()
    held.to(torch.device("meta"))
    assert held.value.device.type == "meta"
    assert held.cumulated_batch_size.device.type == "meta"
    assert held._defaults["value"].device.type == "meta"


@pytest.mark.parametrize("make", [MeanMetric, lambda: MinMaxMetric(MeanMetric())], ids=["plain", "nested"])
def test_a_metric_is_moved_with_all_it_holds(make):
    metric = make()
    metric.update(torch.tensor(2.0))
    results = logged(LeanResults(training=True), metric)
    [held] = results.values()
    held.to(torch.device("meta"))
    inner = held.value if isinstance(held.value, MeanMetric) else held.value._base_metric
    assert inner.mean_value.device.type == "meta"


def test_a_metric_that_lies_about_its_device_is_moved():
    metric = MeanMetric()
    metric.mean_value = metric.mean_value.to("meta")
    results = logged(LeanResults(training=True), metric)
    [held] = results.values()
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        held.to(torch.device("cpu"))


def test_a_collection_is_copied_whole():
    results = logged(LeanResults(training=True), torch.tensor(1.0))
    copied = copy.deepcopy(results)
    logged(results, torch.tensor(5.0))
    assert copied.metrics(on_step=False)["log"] == {"value": torch.tensor(1.0)}


def test_the_loops_that_evaluate_have_such_a_collection_with_the_callback_alone():
    kinds = []
    for callbacks in ([], [LeanLoop()]):
        trainer = Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=callbacks,
        )  # fmt: skip
        trainer.test(BoringModel(), verbose=False)
        kinds.append(type(trainer.test_loop._results))
    assert kinds == [_ResultCollection, LeanResults]
