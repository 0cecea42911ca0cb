import copy
import math
import pickle

import pytest
import torch
from torch import nn

from zoo.networks import MLP, Dropout

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


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_a_probability_that_is_none_is_refused(p):
    with pytest.raises(ValueError, match="probability"):
        Dropout(p)


def test_under_vmap_samples_have_draws_of_their_own_or_one_for_all():
    values, dropout = torch.ones(5, 64), Dropout(0.5)
    assert len(torch.func.vmap(dropout, randomness="different")(values).unique(dim=0)) == 5
    assert len(torch.func.vmap(dropout, randomness="same")(values).unique(dim=0)) == 1
    # An input that all members of an ensemble see, each with weights of its own.
    members = torch.func.vmap(lambda weights, shared: weights * dropout(shared), (0, None), randomness="different")
    assert len(members(torch.ones(5, 1), values[0]).unique(dim=0)) == 5


def test_gradients_of_each_sample_can_be_had():
    network = MLP(6, (32,), 1, dropout=0.5)
    parameters = dict(network.named_parameters())

    def output(parameters, sample):
        return torch.func.functional_call(network, parameters, (sample[None],)).squeeze()

    each = torch.func.vmap(torch.func.grad(output), (None, 0), randomness="different")(parameters, torch.ones(8, 6))
    dropped = each["head.weight"] == 0
    assert len(dropped.unique(dim=0)) == 8


def test_a_second_derivative_can_be_had():
    def cubed(values):
        torch.manual_seed(0)
        return Dropout(0.5)(values) ** 3

    values = torch.randn(9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(cubed, values)
    assert torch.autograd.gradgradcheck(cubed, values)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace")
def test_a_program_that_is_taken_down_has_torchs_dropout_in_it():
    network, values = nn.Sequential(nn.Linear(3, 3), Dropout(0.25)), torch.ones(2, 3)
    traced = torch.jit.trace(network, values, check_trace=False)
    assert traced(torch.ones(7, 3)).shape == (7, 3)
    assert "dropout" in str(traced.inlined_graph)
    nodes = torch.fx.symbolic_trace(network).graph.nodes
    assert [node.target for node in nodes if node.op == "call_function"] == [nn.functional.dropout]
    exported = torch.export.export(network, (values,)).graph.nodes
    assert torch.ops.aten.dropout.default in [node.target for node in exported]


def test_it_draws_where_the_input_is_whatever_the_default_device():
    values = torch.ones(50)
    expected = Dropout(0.5)(values)
    torch.manual_seed(0)
    with torch.device("meta"):
        assert torch.equal(Dropout(0.5)(values), expected)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_samples_of_different_lengths_are_dropped_from(layout):
    nested = torch.nested.nested_tensor([torch.ones(40, 3), torch.ones(70, 3)], layout=layout)
    dropped = Dropout(0.5)(nested).unbind()
    assert [sample.shape for sample in dropped] == [(40, 3), (70, 3)]
    assert all(set(sample.flatten().tolist()) == {0.0, 2.0} for sample in dropped)


def test_it_is_copied_and_has_no_state():
    assert copy.deepcopy(Dropout(0.25)).p == 0.25
    assert pickle.loads(pickle.dumps(Dropout(0.25, inplace=True))).inplace
    assert Dropout(0.25).state_dict() == {}
