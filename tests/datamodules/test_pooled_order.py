"""The order of very many small samples, by itself and in a loader."""

import itertools
import json

import pytest
import torch

from datamodules import BatchLoader, Padded
from datamodules.loader import _mix
from datamodules.pooled_order import BLOCK, POOL, PooledOrder

SIZE = BLOCK * POOL
MANY = 2**17  # above which a loader takes this order
# One block; a pool, and around it; a rest of more than a pool's; several pools, and not a multiple of anything.
SIZES = [
    *(BLOCK, BLOCK + 1, 2 * BLOCK - 1, SIZE - 1, SIZE, SIZE + 1, SIZE + BLOCK - 1, SIZE + BLOCK, SIZE + BLOCK + 1),
    *(SIZE + 144, 2 * SIZE + 100, 3 * SIZE + 7777, 5 * SIZE),
]


def generator(seed):
    return torch.Generator().manual_seed(seed)


def order(num_samples, seed=0, prefetch=None):
    return PooledOrder(num_samples, generator(seed), prefetch)


def whole(pooled):
    return pooled[0 : len(pooled)]


def offset_of(num_samples, seed):
    """Where the blocks of an order begin, told by what is prefetched."""
    firsts = []
    order(num_samples, seed, firsts.append)[:1]
    return int(firsts[0][0]) % BLOCK


@pytest.fixture
def as_rank(monkeypatch):
    """A function that makes this process one rank of a world."""
    return lambda rank, world: monkeypatch.setattr("datamodules.loader._world", lambda: (rank, world))


def make(samples=MANY + 5000, batch_size=1000, **arguments):
    """Targets count the samples; the features are half of that."""
    targets = torch.arange(samples)
    return BatchLoader(targets.float().div(2)[:, None], targets, batch_size, **{"shuffle": True, **arguments})


# ------------------------------------------------------------------ the order


@pytest.mark.parametrize("num_samples", SIZES)
def test_each_sample_comes_once_in_whatever_parts_they_are_asked_for(num_samples):
    for seed in range(8):
        expected = whole(order(num_samples, seed))
        assert expected.dtype == torch.int32
        assert torch.equal(expected.sort().values, torch.arange(num_samples))
        for size in (100, 1000, SIZE, SIZE + 3, 2 * SIZE + 1):
            pooled = order(num_samples, seed)
            parts = [pooled[first : min(first + size, num_samples)] for first in range(0, num_samples, size)]
            assert [len(part) for part in parts[:-1]] == [size] * (len(parts) - 1)
            assert torch.equal(torch.cat(parts), expected)


def test_a_block_is_enough_wherever_the_blocks_begin():
    offsets = set()
    for seed in range(1000):
        offsets.add(int(torch.randint(BLOCK, (), generator=generator(seed))))
        assert torch.equal(whole(order(BLOCK, seed)).sort().values, torch.arange(BLOCK))
    assert {0, BLOCK - 1} <= offsets


def test_the_rest_may_be_more_than_a_pool():
    num_samples = 9 * SIZE + 100
    seed = next(seed for seed in range(100) if offset_of(num_samples, seed) > 100)
    pooled = order(num_samples, seed)
    behind = pooled[9 * SIZE : num_samples]  # 63 blocks and both ends, for which eight pools have been left
    assert len(behind) == 100
    assert torch.equal(behind, whole(pooled)[9 * SIZE :])
    assert torch.equal(whole(pooled).sort().values, torch.arange(num_samples))


def test_any_slice_is_that_of_the_whole_order():
    num_samples = 3 * SIZE + 7777
    expected = whole(order(num_samples))
    pooled = order(num_samples)  # one for all: in whatever sequence it is asked
    ends = [0, 1, SIZE - 1, SIZE, SIZE + 1, 2 * SIZE, 3 * SIZE - 5, 3 * SIZE, 3 * SIZE + 1, num_samples]
    for first, last in [*itertools.combinations(ends, 2), (SIZE, SIZE), (num_samples, num_samples)]:
        assert torch.equal(pooled[first:last], expected[first:last])
        assert torch.equal(order(num_samples)[first:last], expected[first:last])  # as after a resume
    assert torch.equal(pooled[num_samples - 3 : num_samples + 10], expected[-3:])


def test_the_order_is_a_function_of_the_generator():
    first, same, other = whole(order(3 * SIZE, 4)), whole(order(3 * SIZE, 4)), whole(order(3 * SIZE, 5))
    assert torch.equal(first, same)
    assert (first == other).float().mean() < 0.01


def test_the_generator_is_not_used_again():
    drawn = generator(0)
    pooled = PooledOrder(3 * SIZE, drawn)
    before = drawn.get_state()
    whole(pooled)
    assert torch.equal(drawn.get_state(), before)


def test_a_sample_is_in_any_place_as_often_as_in_another():
    num_samples, orders = SIZE + 3000, 200
    places = torch.zeros(num_samples)
    for seed in range(orders):
        places[whole(order(num_samples, seed))] += torch.arange(num_samples) / (num_samples * orders)
    deviations = (places - 0.5) / (12 * orders) ** -0.5
    assert deviations.abs().max() < 6.0
    assert deviations.square().mean() == pytest.approx(1.0, abs=0.5)


def test_what_is_prefetched_is_the_blocks_of_the_pool_that_comes():
    num_samples, asked = 4 * SIZE + 777, []
    for seed in range(4):
        asked.clear()
        pooled = order(num_samples, seed, lambda firsts: asked.append(firsts.clone()))
        assert asked == []
        for first in range(0, num_samples, 1000):
            pooled[first : first + 1000]
        expected = whole(order(num_samples, seed))
        offsets = set()
        assert 3 <= len(asked) <= 4  # each pool once
        rest_start, rest = pooled._rest_start, len(pooled._rest)
        for number, firsts in enumerate(asked):
            start = number * SIZE + (rest if number * SIZE >= rest_start else 0)
            assert firsts.shape == (POOL,)
            assert 0 <= int(firsts.min()) <= int(firsts.max()) <= num_samples - BLOCK
            offsets |= set((firsts % BLOCK).tolist())
            samples = (firsts[:, None] + torch.arange(BLOCK)).flatten().sort().values
            assert torch.equal(expected[start : start + SIZE].sort().values, samples)
        assert len(offsets) == 1


# ------------------------------------------------------------------ where a loader takes it

N = MANY + 1


@pytest.mark.parametrize(
    ("features", "targets", "is_pooled"),
    [
        pytest.param(torch.zeros(N, 1), torch.zeros(N), True, id="numbers"),
        pytest.param(torch.zeros(N, 8, dtype=torch.float64), torch.zeros(N, 16), True, id="a cache line each"),
        pytest.param(torch.zeros(N - 1, 1), torch.zeros(N - 1), False, id="as many as is not many"),
        pytest.param(torch.zeros(N, 65, dtype=torch.uint8), torch.zeros(N), False, id="features beyond a cache line"),
        pytest.param(torch.zeros(N, 1), torch.zeros(N, 17), False, id="targets beyond a cache line"),
        pytest.param(torch.zeros(N, 28, 28, dtype=torch.uint8), torch.zeros(N), False, id="images"),
        pytest.param(torch.zeros(2, N).T, torch.zeros(N), False, id="columns"),
        pytest.param(torch.zeros(N, 1), torch.zeros(N, 2)[:, 0], False, id="every other target"),
        pytest.param(torch.zeros(N, 1, device="meta"), torch.zeros(N, device="meta"), True, id="on a device"),
        pytest.param(Padded(torch.zeros(N, 3), torch.full((N,), 2)), torch.zeros(N), False, id="of different lengths"),
    ],
)
def test_it_is_for_many_small_samples_in_memory(features, targets, is_pooled):
    loader = BatchLoader(features, targets, 100, shuffle=True, seed=3)
    for epoch in (0, 5):
        found = loader._order(epoch)
        if is_pooled:
            assert type(found) is PooledOrder
            assert torch.equal(whole(found), whole(PooledOrder(N, generator(_mix(3, epoch)))))
        else:
            expected = torch.randperm(len(features), generator=generator(_mix(3, epoch)))
            assert torch.equal(found, expected)  # to the bit what it was before there was another


def test_it_is_for_shuffled_samples_that_are_not_grouped():
    assert BatchLoader(torch.zeros(N, 1), torch.zeros(N), 100)._order(0) is None
    lengths = torch.full((N,), 2)
    grouped = BatchLoader(
        Padded(torch.zeros(N, 3), lengths), torch.zeros(N), 100, shuffle=True, group_by_length=True, seed=3
    )
    assert type(grouped._order(0)) is torch.Tensor


def test_features_stay_with_their_targets_and_each_comes_once():
    loader, epochs = make(), []
    for _ in range(2):
        seen = []
        for features, targets in loader:
            assert torch.equal(features, targets.float().div(2)[:, None])
            seen.append(targets)
        assert {len(part) for part in seen[:-1]} == {1000}
        epochs.append(torch.cat(seen))
        assert torch.equal(epochs[-1].sort().values, torch.arange(MANY + 5000))
    assert (epochs[0] == epochs[1]).float().mean() < 0.01


@pytest.mark.parametrize("position", [0, 1, 16, 17, 100, 135])
def test_a_resumed_pass_goes_on_with_the_same_batches(position):
    loader = make(seed=8)
    loader.set_epoch(2)
    iterator = iter(loader)
    expected = [next(iterator) for _ in range(position)]
    state = json.loads(json.dumps(loader.state_dict()))
    rest = list(iterator)
    resumed = make(seed=8)
    resumed.load_state_dict(state)
    assert state == {"epoch": 2, "position": position}
    assert len(expected) + len(rest) == len(loader)
    for (features, targets), (other_features, other_targets) in zip(resumed, rest, strict=True):
        assert torch.equal(features, other_features)
        assert torch.equal(targets, other_targets)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_batches_that_one_process_would_see(as_rank, world):
    samples = 9 * SIZE + 100  # whose rest may be more than a pool's
    single = [targets for _, targets in make(samples, 300 * world)]
    ranks = []
    for rank in range(world):
        as_rank(rank, world)
        ranks.append([targets for _, targets in make(samples, 300)])
    for expected, *shares in zip(single, *ranks, strict=True):
        assert torch.equal(torch.cat(shares), expected)
    assert torch.equal(torch.cat(single).sort().values, torch.arange(samples))


def test_sorted_labels_are_mixed():
    samples, classes = 1_000_000, 10
    labels = torch.arange(samples) * classes // samples
    lacking = []
    for seed in range(4):
        loader = BatchLoader(torch.zeros(samples), labels, 1000, shuffle=True, seed=seed)
        shares = torch.stack([targets.bincount(minlength=classes) for _, targets in loader]) / 1000
        # As of 64 draws, the blocks of a pool; of single samples it would be a quarter of that.
        assert shares.std(dim=0).mean() == pytest.approx((0.1 * 0.9 / POOL) ** 0.5, rel=0.15)
        assert shares[:-1].max() < 0.35  # the last batch may be of the few blocks that fill no pool
        lacking.append((shares == 0).sum(dim=1))
    assert not lacking[0].any()
    # In one of a thousand pools, of 16 batches each, none of its blocks is of a given class.
    assert torch.cat(lacking).max() <= 1
    assert torch.cat(lacking).float().mean() < 0.03
