"""Max-norm by hand, behind every optimizer, and in a fit."""

import copy
import math
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from datamodules import BatchLoader
from zoo import DropoutMLPClassifier
from zoo.callbacks import LeanLoop, StepSeeding
from zoo.checkpointing import read_checkpoint
from zoo.max_norm import MaxNorm
from zoo.optim import OneCycle


def step_to(values, limit, make=torch.optim.SGD, lr=1.0, removed=False):
    """A weight of zeros that one step of plain gradient descent would make ``values``, behind the step."""
    weight = nn.Parameter(torch.zeros_like(values))
    optimizer = make([weight], lr=lr)
    handle = MaxNorm([weight], limit).attach(optimizer)
    if removed:
        handle.remove()
    weight.grad = -values
    optimizer.step()
    return weight.detach()


def test_longer_weights_are_shortened_to_the_bound_and_others_left_alone():
    values = torch.tensor([[3.0, 4.0], [0.3, -0.4], [0.0, 0.0], [-6.0, 8.0]])
    expected = torch.tensor([[1.2, 1.6], [0.3, -0.4], [0.0, 0.0], [-1.2, 1.6]])
    torch.testing.assert_close(step_to(values, 2.0), expected)
    assert torch.equal(step_to(values, 10.0), values)
    assert torch.equal(step_to(values, 2.0, removed=True), values)


def test_the_norm_of_a_convolution_is_over_all_weights_into_a_map():
    values = torch.full((2, 3, 2, 2), 2.0)  # 12 twos: a norm of 6.93
    values[1] /= 100
    expected = torch.stack([torch.full((3, 2, 2), 1 / math.sqrt(12)), values[1]])
    torch.testing.assert_close(step_to(values, 1.0), expected)


@pytest.mark.parametrize(
    "make",
    [
        partial(torch.optim.SGD, momentum=0.9),
        partial(torch.optim.AdamW, fused=True),
        partial(torch.optim.AdamW, foreach=True),
        torch.optim.Adagrad,
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_works_behind_any_optimizer_and_again_is_no_change(make, dtype):
    weight = step_to(torch.randn(50, 20, dtype=dtype), 0.5, make, lr=5.0)
    norms = torch.linalg.vector_norm(weight.double(), dim=1)
    assert norms.max().item() == pytest.approx(0.5, rel=1e-6)
    assert (norms > 0.499).sum() > 40
    again = weight.clone()
    MaxNorm([again], 0.5)(None, (), {})
    assert (again - weight).abs().max() < 1e-7


def test_a_step_that_a_gradient_scaler_leaves_out_changes_nothing():
    weight = nn.Parameter(torch.full((1, 4), 3.0))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    MaxNorm([weight], 1.0).attach(optimizer)
    scaler = torch.amp.GradScaler("cpu")
    weight.grad = torch.tensor([[math.inf, 0.0, 0.0, 0.0]])
    scaler.scale(torch.tensor(1.0))
    scaler.step(optimizer)
    assert weight.tolist() == [[3.0] * 4]
    scaler.update()
    weight.grad = torch.zeros(1, 4)
    scaler.step(optimizer)
    torch.testing.assert_close(weight.detach(), torch.full((1, 4), 0.5))


@pytest.mark.parametrize("limit", [0.0, -1.0, math.inf, math.nan, True, "3"])
def test_a_bound_that_is_none_is_refused(limit):
    with pytest.raises(ValueError, match="must be a finite number greater than 0, got"):
        MaxNorm([torch.zeros(2, 2)], limit)
    with pytest.raises(ValueError, match="max_norm must be a finite number greater than 0, got"):
        DropoutMLPClassifier(hidden=(3,), max_norm=limit)


def test_weights_that_are_none_are_refused():
    with pytest.raises(ValueError, match="there are no weights"):
        MaxNorm([], 1.0)
    with pytest.raises(ValueError, match=r"shape \(units, ...\), got \(7,\): a bias has no norm"):
        MaxNorm([torch.zeros(2, 2), torch.zeros(7)], 1.0)


# In a fit.

BOUND = 0.6


class SaveAt(Callback):
    """Saves behind a step, and notes the longest weights that any batch, checkpoint and validation saw."""

    def __init__(self, path=None, step=None):
        self.path, self.step, self.longest = path, step, []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.longest.append(longest(pl_module))
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)

    def on_validation_start(self, trainer, pl_module):
        self.longest.append(longest(pl_module))


def longest(task):
    """Of hidden units, and of the outputs, which have no bound."""
    norms = [torch.linalg.vector_norm(layer.weight.detach(), dim=1).max() for layer in layers(task)]
    return max(norms[:-1]).item(), norms[-1].item()


def layers(task):
    return [layer for layer in task.network.modules() if isinstance(layer, nn.Linear)]


def fit(make_trainer, callbacks, ckpt_path=None, precision="32-true", **options):
    torch.manual_seed(1)
    task = DropoutMLPClassifier(
        **{"in_features": 6, "num_classes": 3, "hidden": (16, 12), "max_norm": BOUND, **options},
        optimizer=partial(torch.optim.AdamW, lr=0.05),
        scheduler=OneCycle,
    )
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(40, 6, generator=generator), torch.randint(3, (40,), generator=generator)
    train, val = (BatchLoader(features, labels, batch_size=8, shuffle=shuffle) for shuffle in (True, False))
    trainer = make_trainer(max_epochs=3, precision=precision, callbacks=[StepSeeding(0), *callbacks])
    trainer.fit(task, train, val, ckpt_path=ckpt_path, weights_only=None if ckpt_path is None else True)
    assert trainer.global_step == 15
    return {name: value.clone() for name, value in task.state_dict().items()}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("loop", [[], [LeanLoop()]], ids=["lightning's loop", "lean loop"])
def test_no_hidden_unit_is_ever_seen_beyond_the_bound(make_trainer, precision, loop):
    seen = SaveAt()
    fit(make_trainer, [seen, *copy.deepcopy(loop)], precision=precision)
    hidden, outputs = zip(*seen.longest, strict=True)
    assert len(seen.longest) == 15 + 3
    assert max(hidden) == pytest.approx(BOUND, rel=1e-5)
    assert max(outputs) > 1.3 * BOUND
    free = SaveAt()
    fit(make_trainer, [free], precision=precision, max_norm=None)
    assert max(hidden for hidden, _ in free.longest) > 1.3 * BOUND


@pytest.mark.parametrize("step", [3, 5, 9])
def test_a_resumed_fit_ends_with_the_same_bits(make_trainer, tmp_path, step):
    path = tmp_path / "a.ckpt"
    whole = fit(make_trainer, [SaveAt(path, step)])
    saved = read_checkpoint(path)["state_dict"]
    assert torch.linalg.vector_norm(saved["network.hidden.0.weight"], dim=1).max().item() <= BOUND * (1 + 1e-6)
    resumed = fit(make_trainer, [], ckpt_path=path)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_both_loops_end_with_the_same_bits(make_trainer):
    ours, theirs = fit(make_trainer, [LeanLoop()]), fit(make_trainer, [])
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
