import copy
import math

import pytest
import torch
from torch import nn

from zoo.networks import Dropout

VALUES = 400_000


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def kept_of(p, shape=(VALUES,)):
    return Dropout(p)(torch.ones(shape)) != 0


@pytest.mark.parametrize("p", [0.001, 0.1, 0.2, 0.5, 0.85, 0.999])
def test_as_many_are_dropped_as_there_should_be(p):
    share = 1.0 - kept_of(p).double().mean().item()
    assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / VALUES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_what_is_kept_is_scaled_and_nothing_else_happens_to_it(dtype):
    values = torch.linspace(1, 2, 1000).to(dtype)
    dropped = Dropout(0.5)(values)
    assert dropped.dtype == dtype
    kept = dropped != 0
    assert 400 < kept.sum() < 600
    assert torch.equal(dropped[kept], 2 * values[kept])


def test_the_scale_is_that_of_the_share_that_is_dropped():
    share = round(0.3 * 65536) / 65536
    kept = Dropout(0.3)(torch.ones(1000, dtype=torch.float64)).max().item()
    assert kept * (1 - share) == pytest.approx(1.0, abs=1e-15)


def test_the_gradient_is_what_the_value_was_multiplied_by():
    values = torch.randn(50, 7, requires_grad=True)
    dropped = Dropout(0.4)(values)
    dropped.sum().backward()
    assert torch.equal(values.grad * values, dropped)
    assert (values.grad == 0).any()


def test_neighbours_and_draws_know_nothing_of_each_other():
    kept = kept_of(0.5).double() - 0.5
    for distance in range(1, 9):  # four decisions come from one draw
        together = (kept[distance:] * kept[:-distance]).mean().item() / 0.25
        assert abs(together) < 5 / math.sqrt(VALUES)
    by_place = kept.view(-1, 4).mean(dim=0)
    assert by_place.abs().max() < 5 * 0.5 / math.sqrt(VALUES / 4)
    assert not torch.equal(kept_of(0.5), kept_of(0.5))


def test_the_seed_decides():
    first = kept_of(0.5)
    torch.manual_seed(0)
    assert torch.equal(kept_of(0.5), first)
    torch.manual_seed(1)
    assert not torch.equal(kept_of(0.5), first)


def test_nothing_is_dropped_outside_of_training_and_at_zero():
    values = torch.randn(100)
    state = torch.get_rng_state()
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0)(values) is values
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (2, 3, 5), (1, 1, 1, 1)])
def test_any_shape(shape):
    assert Dropout(0.5)(torch.ones(shape)).shape == shape


@pytest.mark.parametrize("reorder", [lambda it: it.to(memory_format=torch.channels_last), lambda it: it.mT])
def test_the_order_in_memory_changes_nothing(reorder):
    values = torch.randn(2, 3, 8, 8)
    torch.manual_seed(0)
    expected = Dropout(0.5)(reorder(values).contiguous())
    torch.manual_seed(0)
    assert torch.equal(Dropout(0.5)(reorder(values)), expected)


@pytest.mark.parametrize("p", [1.0, 1.0 - 1e-7, 1e-7])
def test_at_the_ends_it_is_that_of_torch(p):
    values = torch.randn(5000)
    ours = Dropout(p)(values)
    torch.manual_seed(0)
    torch.randn(5000)
    assert torch.equal(ours, nn.Dropout(p)(values))


def test_in_place_and_when_compiled_it_is_that_of_torch(monkeypatch):
    values = torch.ones(1000)
    changed = values.clone()
    assert Dropout(0.5, inplace=True)(changed) is changed
    torch.manual_seed(0)
    assert torch.equal(changed, nn.Dropout(0.5)(values))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.manual_seed(0)
    assert torch.equal(Dropout(0.5)(values), changed)


@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_a_probability_that_is_none_is_refused(p):
    with pytest.raises(ValueError, match="probability"):
        Dropout(p)


def test_it_is_copied_and_has_no_state():
    assert copy.deepcopy(Dropout(0.25)).p == 0.25
    assert Dropout(0.25).state_dict() == {}
