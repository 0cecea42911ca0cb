import pytest
import torch

from zoo.pretrained import PretrainedError
from zoo.pretrained.storage import compact, expand

WEIGHTS = {
    "linear.weight": torch.linspace(-2.0, 2.0, 64 * 100).reshape(64, 100),
    "conv.weight": torch.linspace(-1.0, 0.3, 32 * 16 * 9).reshape(32, 16, 3, 3),
    "small.weight": torch.tensor([[0.1, -0.7]]),
    "bias": torch.tensor([1e-9, 70_000.0]),
    "seen": torch.tensor(3),
}


def test_32_bits_are_kept_as_they_are():
    again = expand(compact(WEIGHTS, "float32"), "it")
    assert again.keys() == WEIGHTS.keys()
    assert all(torch.equal(again[name], value) for name, value in WEIGHTS.items())


def test_16_bits_keep_eleven_binary_digits_and_leave_vectors_alone():
    stored = compact(WEIGHTS, "float16")
    assert stored["linear.weight"].dtype == stored["small.weight"].dtype == torch.float16
    again = expand(stored, "it")
    for name in ("linear.weight", "conv.weight", "small.weight"):
        assert again[name].dtype == torch.float32
        assert torch.allclose(again[name], WEIGHTS[name], rtol=2**-11, atol=2**-25)
    assert all(torch.equal(again[name], WEIGHTS[name]) for name in ("bias", "seen"))


def test_8_bits_are_right_to_half_a_step_of_each_row():
    stored = compact(WEIGHTS, "int8")
    assert stored["linear.weight"].dtype == stored["conv.weight"].dtype == torch.int8
    assert stored["small.weight"].dtype == torch.float16  # too few to be worth a scale
    assert stored["conv.weight.scale"].shape == (32,)
    again = expand(stored, "it")
    assert again.keys() == WEIGHTS.keys()
    for name in ("linear.weight", "conv.weight"):
        rows = WEIGHTS[name].flatten(1)
        step = rows.abs().amax(dim=1, keepdim=True) / 127
        assert ((again[name].flatten(1) - rows).abs() <= step / 2 * 1.0001).all()
        largest = rows.abs().argmax(dim=1, keepdim=True)
        assert torch.allclose(again[name].flatten(1).gather(1, largest), rows.gather(1, largest), rtol=1e-6)


def test_a_row_of_zeros_stays_one():
    weights = {"a": torch.cat([torch.zeros(1, 5000), torch.ones(1, 5000)])}
    assert torch.equal(expand(compact(weights, "int8"), "it")["a"], weights["a"])


def test_what_is_called_a_scale_and_is_none_is_a_weight():
    weights = {"norm.scale": torch.ones(3), "a.scale": torch.ones(2, 2), "a": torch.zeros(2)}
    assert expand(compact(weights, "float32"), "it").keys() == weights.keys()


@pytest.mark.parametrize(
    "stored",
    [
        {"a": torch.zeros(2, 3, dtype=torch.int8)},
        {"a": torch.zeros(2, 3, dtype=torch.int8), "a.scale": torch.ones(3)},
        {"a": torch.zeros(2, 3, dtype=torch.int8), "a.scale": torch.ones(2, dtype=torch.float64)},
        {"a": torch.zeros(3, dtype=torch.int8), "a.scale": torch.ones(3)},
    ],
)
def test_integers_without_their_scales_are_refused(stored):
    with pytest.raises(PretrainedError, match="it: a is of 8-bit integers, without the scales"):
        expand(stored, "it")


def test_numbers_beyond_16_bits_and_unknown_kinds_are_refused():
    with pytest.raises(PretrainedError, match="a holds numbers that are too large for 16 bits"):
        compact({"a": torch.full((2, 2), 1e5)}, "float16")
    with pytest.raises(ValueError, match="storage must be one of 'float32', 'float16', 'int8', got 'int4'"):
        compact(WEIGHTS, "int4")
