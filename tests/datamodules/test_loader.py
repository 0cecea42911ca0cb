import json

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules import (
    BatchLoader,
    DataError,
    EpochLoader,
    LabelBatch,
    Padded,
    PaddedBatch,
    RandomAffine,
    RandomElastic,
    RandomShift,
)

SIZES = [1, 2, 5, 129, 10_001]
WORLDS = [1, 2, 3]


def noise(features, generator):
    return features + torch.rand(features.shape, generator=generator)


def make(samples=10, batch_size=3, **arguments):
    """Targets count the samples; the features are ten times that."""
    targets = torch.arange(samples)
    return BatchLoader(targets.unsqueeze(1) * 10.0, targets, batch_size, **arguments)


def batches(loader):
    return [targets.tolist() for _, targets in loader]


def samples_of(parts):
    return [sample for part in parts for sample in part]


def take(loader, count):
    iterator = iter(loader)
    return [next(iterator) for _ in range(count)]


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for (features, targets), (other_features, other_targets) in zip(ours, theirs, strict=True):
        assert torch.equal(features, other_features)
        assert torch.equal(targets, other_targets)


@pytest.fixture
def as_rank(monkeypatch):
    """A function that makes this process one rank of a world."""
    return lambda rank, world: monkeypatch.setattr("datamodules.loader._world", lambda: (rank, world))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("samples", "batch_size"), [(1, 1), (1, 5), (10, 3), (12, 4), (129, 64)])
def test_each_epoch_has_every_sample_once(shuffle, samples, batch_size):
    loader = make(samples, batch_size, shuffle=shuffle)
    for _ in range(3):
        parts = batches(loader)
        assert sorted(samples_of(parts)) == list(range(samples))
        assert {len(part) for part in parts[:-1]} <= {batch_size}


@pytest.mark.parametrize("shuffle", [False, True])
def test_features_stay_with_their_targets(shuffle):
    for features, targets in make(50, 7, shuffle=shuffle):
        assert torch.equal(features, targets.unsqueeze(1) * 10.0)


def test_order_is_that_of_the_data_without_shuffling():
    loader = make()
    for _ in range(2):
        assert batches(loader) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_last_batch_is_left_out_if_asked():
    assert batches(make(drop_last=True)) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("samples", "batch_size"), [(10, 3), (9, 3), (3, 3), (11, 1), (129, 64)])
def test_len_is_the_number_of_batches(samples, batch_size, drop_last):
    loader = make(samples, batch_size, shuffle=True, drop_last=drop_last)
    expected = samples // batch_size if drop_last else -(-samples // batch_size)
    assert len(loader) == len(list(loader)) == expected


def test_order_is_a_function_of_seed_and_epoch():
    first, second = make(100, shuffle=True, seed=3), make(100, shuffle=True, seed=3)
    torch.manual_seed(1)
    orders = [batches(first) for _ in range(3)]
    torch.manual_seed(2)
    for epoch in (2, 0, 1):
        second.set_epoch(epoch)
        assert batches(second) == orders[epoch]


def test_loader_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(make(100, shuffle=True, augment=noise))
    assert torch.equal(torch.get_rng_state(), before)


def test_orders_differ_between_epochs_and_seeds():
    orders = set()
    for seed in range(5):
        loader = make(100, 100, shuffle=True, seed=seed)
        orders |= {tuple(batches(loader)[0]) for _ in range(5)}
    assert len(orders) == 25


def test_every_sample_can_come_first():
    loader = make(5, 5, shuffle=True)
    first = [batches(loader)[0][0] for _ in range(500)]
    assert min(first.count(sample) for sample in range(5)) > 70  # 100 expected


def test_passes_without_a_trainer_are_successive_epochs():
    plain, told = make(100, shuffle=True), make(100, shuffle=True)
    for epoch in range(3):
        told.set_epoch(epoch)
        assert batches(plain) == batches(told)


def test_epoch_may_be_set_after_iter():
    expected, loader = make(100, shuffle=True), make(100, shuffle=True)
    expected.set_epoch(4)
    iterator = iter(loader)
    loader.set_epoch(4)
    loader.set_epoch(4)
    assert [targets.tolist() for _, targets in iterator] == batches(expected)


def test_setting_the_same_epoch_within_a_pass_changes_nothing():
    loader, expected = make(shuffle=True), make(shuffle=True)
    iterator = iter(loader)
    ours = []
    for targets in iterator:
        ours.append(targets)
        loader.set_epoch(0)
        assert loader.state_dict() == {"epoch": 0, "position": len(ours)}
    assert_equal(ours, list(expected))


def test_trainer_finds_set_epoch_on_the_sampler():
    loader, expected = make(100, shuffle=True), make(100, shuffle=True)
    loader.sampler.set_epoch(7)
    expected.set_epoch(7)
    assert batches(loader) == batches(expected)


@pytest.mark.parametrize("told", [True, False], ids=["epoch set again", "epoch not set"])
@pytest.mark.parametrize("position", [0, 1, 2, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_resume_goes_on_as_if_never_interrupted(shuffle, position, told):
    arguments = {"shuffle": shuffle, "augment": noise, "seed": 8}
    whole = make(**arguments)
    whole.set_epoch(2)
    expected, following = list(whole), list(whole)

    interrupted = make(**arguments)
    interrupted.set_epoch(2)
    begun = take(interrupted, position)
    state = json.loads(json.dumps(interrupted.state_dict()))
    assert state == {"epoch": 2, "position": position}

    resumed = make(**arguments)
    resumed.load_state_dict(state)
    if told:
        resumed.set_epoch(2)
    assert_equal(begun + list(resumed), expected)
    assert_equal(list(resumed), following)


def test_resume_at_the_end_of_an_epoch_goes_to_the_next():
    loader, resumed = make(shuffle=True), make(shuffle=True)
    take(loader, len(loader))
    resumed.load_state_dict(loader.state_dict())
    loader.set_epoch(1)
    assert batches(resumed) == batches(loader)


def test_state_after_a_whole_pass_is_the_start_of_the_next_epoch():
    loader = make(shuffle=True)
    list(loader)
    assert loader.state_dict() == {"epoch": 1, "position": 0}


def test_resumed_loader_states_its_position_in_the_whole_epoch():
    resumed = make(shuffle=True)
    resumed.load_state_dict({"epoch": 5, "position": 2})
    assert resumed.state_dict() == {"epoch": 5, "position": 2}
    take(resumed, 1)
    assert resumed.state_dict() == {"epoch": 5, "position": 3}


@pytest.mark.parametrize("count", [1, 2])
def test_pass_after_an_abandoned_one_is_whole(count):
    loader = make(shuffle=True)
    loader.load_state_dict({"epoch": 5, "position": 2})
    take(loader, count)
    assert sorted(samples_of(batches(loader))) == list(range(10))


def test_setting_another_epoch_forgets_the_position():
    resumed, expected = make(shuffle=True), make(shuffle=True)
    resumed.load_state_dict({"epoch": 5, "position": 2})
    resumed.set_epoch(6)
    expected.set_epoch(6)
    assert batches(resumed) == batches(expected)


def test_augmentation_differs_between_batches_epochs_seeds_and_ranks(as_rank):
    draws = set()
    for seed in (0, 1):
        for rank in (0, 1):
            as_rank(rank, 2)
            loader = BatchLoader(torch.zeros(12), torch.zeros(12), 3, seed=seed, augment=noise)
            draws |= {tuple(features.tolist()) for _ in range(2) for features, _ in loader}
    assert len(draws) == 2 * 2 * 2 * 2


def test_augmentation_comes_before_preprocessing():
    loader = make(augment=lambda features, _: features + 1, preprocess=lambda features: features * 2)
    assert next(iter(loader))[0].flatten().tolist() == [2, 22, 42]


def test_one_call_makes_a_whole_batch():
    sizes = []
    images = torch.zeros(7, 1, 5, 5, dtype=torch.uint8)

    def augment(features, generator):
        sizes.append(len(features))
        return RandomShift(1)(features, generator)

    list(BatchLoader(images, torch.arange(7), 3, augment=augment))
    assert sizes == [3, 3, 1]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("kind", ["preprocess", "augment"])
def test_work_in_place_on_a_batch_leaves_the_data_alone(shuffle, kind):
    work = {"preprocess": lambda features: features.sub_(1), "augment": lambda features, _: features.sub_(1)}[kind]
    loader = make(shuffle=shuffle, **{kind: work})
    for _ in range(2):
        for features, targets in loader:
            assert torch.equal(features, targets.unsqueeze(1) * 10.0 - 1)
    assert torch.equal(loader.features, torch.arange(10).unsqueeze(1) * 10.0)


@pytest.mark.parametrize("shuffle", [False, True])
def test_batch_may_be_edited_in_place_by_its_user(shuffle):
    loader = make(shuffle=shuffle)
    for features, targets in loader:
        features.zero_()
        targets.zero_()
    assert torch.equal(loader.features, torch.arange(10).unsqueeze(1) * 10.0)
    assert torch.equal(loader.targets, torch.arange(10))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.bool])
def test_batches_have_the_type_of_the_data(dtype):
    features, targets = next(iter(BatchLoader(torch.ones(4, dtype=dtype), torch.ones(4, dtype=torch.int32), 2)))
    assert (features.dtype, targets.dtype) == (dtype, torch.int32)


def test_batches_are_made_on_the_device_asked_for():
    features, targets = next(iter(make(shuffle=True, device=torch.device("meta"))))
    assert (features.device.type, targets.device.type) == ("meta", "meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_order_is_the_same_on_every_device():
    device = torch.device("cuda")
    on_gpu = BatchLoader(torch.arange(100.0), torch.arange(100), 7, shuffle=True, augment=_shift_all, device=device)
    assert batches(on_gpu) == batches(make(100, 7, shuffle=True))


def _shift_all(features, generator):
    return features + torch.rand(1, generator=generator, device=features.device)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("size", SIZES)
def test_ranks_together_evaluate_every_sample_once(as_rank, world, size):
    seen = []
    for rank in range(world):
        as_rank(rank, world)
        loader = make(size, 64)
        parts = batches(loader)
        assert len(loader) == max(1, len(parts))  # with a length of 0 Lightning would leave the rank out
        assert all(parts)
        seen += samples_of(parts)
    assert sorted(seen) == list(range(size))


@pytest.mark.parametrize("batch_size", [1, 64])
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("size", SIZES)
def test_ranks_train_the_same_number_of_batches_without_overlap(as_rank, world, size, batch_size):
    seen, counts = [], []
    for rank in range(world):
        as_rank(rank, world)
        loader = make(size, batch_size, shuffle=True)
        parts = batches(loader)
        assert len(loader) == len(parts)
        assert all(parts)
        counts.append(len(parts))
        own = [part for position, part in enumerate(parts) if not loader.stands_in(position)]
        assert len(own) >= len(parts) - 1
        seen += samples_of(own)
    assert len(set(counts)) == 1
    assert sorted(seen) == list(range(size))


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("size", [5, 129, 10_001])
def test_ranks_that_drop_the_last_batch_get_full_ones_only(as_rank, world, size):
    batch_size = 1 if size == 5 else 43
    seen = []
    for rank in range(world):
        as_rank(rank, world)
        parts = batches(make(size, batch_size, shuffle=True, drop_last=True))
        assert {len(part) for part in parts} == {batch_size}
        assert len(parts) == size // (batch_size * world)
        seen += samples_of(parts)
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_batches_that_one_process_would_see(as_rank, world):
    single = batches(make(130, 6 * world, shuffle=True, seed=2))
    parts = []
    for rank in range(world):
        as_rank(rank, world)
        parts.append(batches(make(130, 6, shuffle=True, seed=2)))
    for together, *shares in zip(single, *parts, strict=True):
        assert samples_of(shares) == together
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_rank_resumes_exactly(as_rank):
    as_rank(1, 3)
    arguments = {"samples": 100, "batch_size": 6, "shuffle": True, "augment": noise}
    expected = list(make(**arguments))
    resumed = make(**arguments)
    resumed.load_state_dict({"epoch": 0, "position": 2})
    assert_equal(list(resumed), expected[2:])


@pytest.mark.parametrize("batch_size", [0, -1, True, 2.5, "8", None])
def test_wrong_batch_size_is_refused(batch_size):
    with pytest.raises(DataError, match=f"batch_size must be an integer of at least 1, got {batch_size!r}"):
        make(batch_size=batch_size)


def test_lengths_that_differ_are_refused():
    with pytest.raises(DataError, match="10 features but 9 targets"):
        BatchLoader(torch.zeros(10), torch.zeros(9), 2)


def test_no_samples_are_refused():
    with pytest.raises(DataError, match="not a single sample"):
        make(0)


def test_fewer_samples_than_a_batch_are_refused_with_a_remedy():
    with pytest.raises(DataError, match=r"10 training samples are fewer than one batch of 16.*at most 10"):
        make(10, 16, drop_last=True)


def test_fewer_samples_than_the_batches_of_all_ranks_are_refused_with_a_remedy(as_rank):
    as_rank(0, 3)
    with pytest.raises(DataError, match=r"10 training samples are fewer than one batch of 12.*at most 3"):
        make(10, 4, drop_last=True)


# Samples of different lengths.

JUNK = -7.0  # in the padding


def lengths_of(samples, longest):
    return torch.randint(1, longest + 1, (samples,), generator=torch.Generator().manual_seed(samples))


def make_padded(samples=10, batch_size=3, longest=12, labels=False, **arguments):
    """Step ``t`` of sample ``n`` is ``100 n + t``; targets count the samples, as labels once a step."""
    lengths = lengths_of(samples, longest)
    steps = torch.arange(longest)
    values = torch.where(steps < lengths[:, None], 100.0 * torch.arange(samples)[:, None] + steps, JUNK)
    targets = torch.arange(samples)
    if labels:
        targets = Padded(torch.where(steps < lengths[:, None], targets[:, None], -1), lengths, labels=True)
    return BatchLoader(Padded(values, lengths), targets, batch_size, **arguments)


def samples_in(batch):
    """The numbers of the samples, told from the first steps."""
    return batch[0].values[:, 0].long().div(100, rounding_mode="floor").tolist()


def flat(parts):
    """Batches as pairs of plain tensors, for assert_equal."""
    return [pair for features, targets in parts for pair in ((features.values, features.lengths), (targets, targets))]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("labels", [False, True])
def test_padded_batches_are_as_long_as_their_longest_and_right(shuffle, labels):
    loader = make_padded(50, 7, labels=labels, shuffle=shuffle)
    sizes = set()
    for features, targets in loader:
        assert type(features) is PaddedBatch
        assert features.values.shape == (len(features.lengths), int(features.lengths.max()))
        sizes.add(features.values.shape[1])
        for row, length, sample in zip(
            features.values.tolist(), features.lengths.tolist(), samples_in((features, targets)), strict=True
        ):
            assert length == loader.features.lengths[sample]
            assert row == [100.0 * sample + step for step in range(length)] + [JUNK] * (len(row) - length)
        if labels:
            assert type(targets) is LabelBatch
            assert targets.values.shape == features.values.shape
            assert targets.values[:, 0].tolist() == samples_in((features, targets))
            assert torch.equal(targets.lengths, features.lengths)
        else:
            assert targets.tolist() == samples_in((features, targets))
    assert len(sizes) > 1


@pytest.mark.parametrize("group_by_length", [False, True])
def test_images_are_cut_to_the_widest_of_the_batch(group_by_length):
    widths = torch.tensor([3, 9, 4, 1, 12, 2])
    images = torch.arange(6.0)[:, None, None, None] + torch.zeros(6, 2, 5, 12)
    loader = BatchLoader(
        Padded(images, widths, dim=3), torch.arange(6), 2, shuffle=True, group_by_length=group_by_length
    )
    for features, targets in loader:
        assert features.values.shape == (2, 2, 5, max(widths[targets].tolist()))
        assert features.values[:, 0, 0, 0].tolist() == targets.tolist()


def test_targets_alone_may_be_of_different_lengths():
    labels = Padded(torch.tensor([[1, 2, 3], [4, 0, 0], [5, 6, 0]]), torch.tensor([3, 1, 2]), labels=True)
    (first, targets), (second, last) = BatchLoader(torch.arange(3.0), labels, 2)
    assert (first.tolist(), second.tolist()) == ([0, 1], [2])
    assert (targets.values.tolist(), targets.lengths.tolist()) == ([[1, 2, 3], [4, 0, 0]], [3, 1])
    assert (last.values.tolist(), last.lengths.tolist()) == ([[5, 6]], [2])


def test_work_on_a_padded_batch_is_on_its_values_alone():
    seen = []

    def augment(values, generator):
        seen.append((tuple(values.shape), torch.rand(1, generator=generator).item()))
        return values + 1

    loader = make_padded(6, 3, augment=augment, preprocess=lambda values: values * 2)
    plain = make_padded(6, 3)
    for (features, targets), (before, _) in zip(loader, plain, strict=True):
        assert type(features) is PaddedBatch
        assert torch.equal(features.values, (before.values + 1) * 2)
        assert torch.equal(features.lengths, before.lengths)
        assert targets.tolist() == samples_in((before, targets))
    assert [shape for shape, _ in seen] == [tuple(features.values.shape) for features, _ in plain]
    assert len({draw for _, draw in seen}) == 2


@pytest.mark.parametrize("shuffle", [False, True])
def test_padded_batch_may_be_edited_in_place_by_its_user(shuffle):
    loader, expected = (make_padded(shuffle=shuffle, labels=True) for _ in range(2))
    for features, targets in loader:
        for part in (*features, *targets):
            part.zero_()
    for ours, theirs in ((loader.features, expected.features), (loader.targets, expected.targets)):
        assert torch.equal(ours.values, theirs.values)
        assert torch.equal(ours.lengths, theirs.lengths)


def test_padded_batches_are_made_on_the_device_asked_for_but_for_lengths_and_labels():
    features, targets = next(iter(make_padded(shuffle=True, labels=True, device=torch.device("meta"))))
    assert (features.values.device.type, features.lengths.device.type) == ("meta", "cpu")
    assert (targets.values.device.type, targets.lengths.device.type) == ("cpu", "cpu")
    assert features.values.shape == (3, int(features.lengths.max()))


def padding(loader):
    """Share of the steps of an epoch that are padding."""
    sizes = [(features.values.numel(), int(features.lengths.sum())) for features, _ in loader]
    return 1 - sum(valid for _, valid in sizes) / sum(size for size, _ in sizes)


def test_batches_of_like_length_save_padding():
    arguments = {"samples": 2000, "batch_size": 20, "longest": 100, "shuffle": True}
    # The longest of 20 is of 95 steps, the mean of 50; sorted, a batch holds two or three lengths.
    assert 0.44 < padding(make_padded(**arguments)) < 0.50
    assert padding(make_padded(**arguments, group_by_length=True)) < 0.03


def test_four_batches_are_grouped_in_two_halves_and_the_rest_is_last():
    lengths = torch.tensor([1, 9] * 8 + [5])
    loader = BatchLoader(
        Padded(torch.zeros(17, 9), lengths), torch.arange(17), 4, shuffle=True, group_by_length=True, seed=1
    )
    for _ in range(20):
        parts = [features.lengths.tolist() for features, _ in loader]
        assert [len(part) for part in parts] == [4, 4, 4, 4, 1]
        # Each half is sorted and cut in two: of its two batches at most one has both lengths, or a 5 between them.
        assert sum(len(set(part)) > 1 for part in parts) <= 2


@pytest.mark.parametrize(("samples", "batch_size"), [(1, 1), (1, 5), (10, 3), (12, 4), (129, 64), (700, 5)])
def test_each_grouped_epoch_has_every_sample_once(samples, batch_size):
    loader = make_padded(samples, batch_size, shuffle=True, group_by_length=True)
    for _ in range(3):
        parts = batches(loader)
        assert sorted(samples_of(parts)) == list(range(samples))
        assert {len(part) for part in parts[:-1]} <= {batch_size}
        assert len(parts) == len(loader) == -(-samples // batch_size)
        assert len(parts[-1]) == samples - (len(parts) - 1) * batch_size


def test_grouped_epoch_without_its_rest_has_full_batches_only():
    loader = make_padded(103, 10, shuffle=True, group_by_length=True, drop_last=True)
    left_out = set()
    for _ in range(20):
        parts = batches(loader)
        assert [len(part) for part in parts] == [10] * 10
        assert len(set(samples_of(parts))) == 100
        left_out |= set(range(103)) - set(samples_of(parts))
    assert len(left_out) > 30  # 46 expected: whoever is left out changes


def test_grouped_order_is_a_function_of_seed_and_epoch():
    arguments = {"samples": 300, "batch_size": 7, "shuffle": True, "group_by_length": True}
    first, second = make_padded(**arguments, seed=3), make_padded(**arguments, seed=3)
    torch.manual_seed(1)
    orders = [batches(first) for _ in range(3)]
    torch.manual_seed(2)
    for epoch in (2, 0, 1):
        second.set_epoch(epoch)
        assert batches(second) == orders[epoch]
    orders.append(batches(make_padded(**arguments, seed=4)))
    assert len({str(order) for order in orders}) == 4


@pytest.mark.parametrize(("samples", "batch_size"), [(32, 4), (96, 12), (640, 10), (1300, 10)])
def test_grouped_batches_differ_between_epochs_even_if_all_lengths_do(samples, batch_size):
    lengths = 1 + torch.arange(samples)
    features = Padded(torch.zeros(samples, 1).expand(samples, samples), lengths)
    loader = BatchLoader(features, lengths, batch_size, shuffle=True, group_by_length=True)
    first, second = ({frozenset(part) for part in batches(loader)} for _ in range(2))
    assert len(first & second) < 0.2 * len(first)


def test_grouped_batches_come_in_no_order_of_length():
    lengths = torch.arange(1, 101).repeat_interleave(10)
    loader = BatchLoader(Padded(torch.zeros(1000, 100), lengths), lengths, 10, shuffle=True, group_by_length=True)
    means = torch.tensor([features.lengths.double().mean() for features, _ in loader])
    position = torch.arange(100.0)
    assert abs(torch.corrcoef(torch.stack([means, position]))[0, 1]) < 0.3
    assert means.std() > 20  # of 1 to 100; a random batch of 10 has 9


def test_grouping_without_shuffling_is_refused():
    with pytest.raises(DataError, match=r"^group_by_length is for shuffled batches: without shuffle the samples keep"):
        make_padded(group_by_length=True)


@pytest.mark.parametrize("shuffle", [False, True])
def test_grouping_samples_of_one_size_is_refused(shuffle):
    with pytest.raises(DataError, match=r"^group_by_length needs samples of different lengths, given as Padded$"):
        make(group_by_length=True, shuffle=shuffle)


def test_grouping_by_the_targets_alone_is_refused():
    labels = Padded(torch.ones(4, 2), torch.tensor([1, 2, 1, 2]), labels=True)
    with pytest.raises(DataError, match=r"^group_by_length needs samples of different lengths, given as Padded$"):
        BatchLoader(torch.zeros(4), labels, 2, shuffle=True, group_by_length=True)


@pytest.mark.parametrize("samples", [(10, 9), (9, 10)])
def test_padded_samples_without_their_targets_are_refused(samples):
    features, targets = (Padded(torch.zeros(count, 2), torch.ones(count, dtype=torch.int64)) for count in samples)
    with pytest.raises(DataError, match=f"{samples[0]} features but {samples[1]} targets"):
        BatchLoader(features, targets, 2)


def test_no_padded_samples_are_refused():
    none = Padded(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(DataError, match="not a single sample"):
        BatchLoader(none, none, 2)


@pytest.mark.parametrize("told", [True, False], ids=["epoch set again", "epoch not set"])
@pytest.mark.parametrize("position", [0, 1, 4, 6])
@pytest.mark.parametrize("group_by_length", [False, True])
def test_padded_resume_goes_on_as_if_never_interrupted(group_by_length, position, told):
    arguments = {"samples": 33, "shuffle": True, "augment": noise, "seed": 8, "batch_size": 5}
    whole = make_padded(**arguments, group_by_length=group_by_length)
    whole.set_epoch(2)
    expected, following = list(whole), list(whole)

    interrupted = make_padded(**arguments, group_by_length=group_by_length)
    interrupted.set_epoch(2)
    begun = take(interrupted, position)
    state = json.loads(json.dumps(interrupted.state_dict()))
    assert state == {"epoch": 2, "position": position}

    resumed = make_padded(**arguments, group_by_length=group_by_length)
    resumed.load_state_dict(state)
    if told:
        resumed.set_epoch(2)
    assert_equal(flat(begun) + flat(resumed), flat(expected))
    assert_equal(flat(resumed), flat(following))


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("size", SIZES)
def test_ranks_together_evaluate_every_padded_sample_once(as_rank, world, size):
    seen = []
    for rank in range(world):
        as_rank(rank, world)
        loader = make_padded(size, 64)
        parts = list(loader)
        assert len(loader) == max(1, len(parts))
        for features, targets in parts:
            assert features.values.shape[1] == features.lengths.max()
            assert targets.tolist() == samples_in((features, targets))
            seen += targets.tolist()
    assert sorted(seen) == list(range(size))


@pytest.mark.parametrize("batch_size", [1, 64])
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("size", [5, 129, 2001])
@pytest.mark.parametrize("group_by_length", [False, True])
def test_ranks_train_the_same_number_of_padded_batches_without_overlap(
    as_rank, world, size, batch_size, group_by_length
):
    seen, counts = [], []
    for rank in range(world):
        as_rank(rank, world)
        loader = make_padded(size, batch_size, shuffle=True, group_by_length=group_by_length)
        parts = batches(loader)
        assert len(loader) == len(parts)
        assert all(parts)
        counts.append(len(parts))
        own = [part for position, part in enumerate(parts) if not loader.stands_in(position)]
        assert len(own) >= len(parts) - 1
        seen += samples_of(own)
    assert len(set(counts)) == 1
    assert sorted(seen) == list(range(size))


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_grouped_batches_that_one_process_would_see(as_rank, world):
    arguments = {"samples": 1300, "shuffle": True, "group_by_length": True, "seed": 2, "longest": 60}
    single = batches(make_padded(batch_size=6 * world, **arguments))
    parts, shares_of_padding = [], []
    for rank in range(world):
        as_rank(rank, world)
        parts.append(batches(make_padded(batch_size=6, **arguments)))
        shares_of_padding.append(padding(make_padded(batch_size=6, **arguments)))
    for together, *shares in zip(single, *parts, strict=True):
        assert samples_of(shares) == together
    assert max(shares_of_padding) < 0.03


# Loaders of other samples.


class Squares(EpochLoader):
    """The squares of the sample numbers, and what each epoch and each batch are given."""

    def __init__(self, *arguments, lengths=None, **keywords):
        super().__init__(*arguments, **keywords)
        self.lengths = lengths
        self.epochs = []
        self.seeds = []

    def sample_lengths(self, epoch):
        return self.lengths

    def make_batch(self, chosen, epoch, seed):
        self.epochs.append(epoch)
        self.seeds.append(seed)
        return torch.arange(self.num_samples)[chosen].square().tolist()


def test_loader_of_ones_own_samples_in_order():
    loader = Squares(5, 2)
    assert len(loader) == 3
    assert list(loader) == list(loader) == [[0, 1], [4, 9], [16]]
    assert loader.epochs == [0, 0, 0, 1, 1, 1]
    assert len(set(loader.seeds)) == 6


def test_loader_of_ones_own_goes_on_where_it_was():
    loader = Squares(10, 3, shuffle=True, seed=4)
    expected = list(loader)
    seeds = loader.seeds
    assert sorted(samples_of(expected)) == [n * n for n in range(10)]
    resumed = Squares(10, 3, shuffle=True, seed=4)
    resumed.load_state_dict({"epoch": 0, "position": 2})
    assert list(resumed) == expected[2:]
    assert (resumed.epochs, resumed.seeds) == ([0, 0], seeds[2:])


def test_loader_of_ones_own_is_shared_by_ranks(as_rank):
    seen, seeds = [], []
    for rank in range(2):
        as_rank(rank, 2)
        loader = Squares(10, 2, shuffle=True)
        seen += samples_of(list(loader))
        seeds += loader.seeds
    assert sorted(seen) == [n * n for n in range(10)]
    assert len(set(seeds)) == len(seeds) == 6


def test_loader_of_ones_own_groups_by_the_lengths_of_the_epoch():
    loader = Squares(8, 2, shuffle=True, group_by_length=True, lengths=torch.tensor([1, 1, 1, 1, 9, 9, 9, 9]))
    mixed = [sum(min(part) < 16 <= max(part) for part in loader) for _ in range(50)]
    # A half of four samples makes at most one mixed batch, and with an even number of short ones none.
    assert set(mixed) == {0, 2}


def test_loader_of_ones_own_without_lengths_cannot_group():
    loader = Squares(8, 2, shuffle=True, group_by_length=True)
    with pytest.raises(DataError, match=r"^group_by_length needs samples of different lengths, given as Padded$"):
        next(iter(loader))


def test_loader_that_makes_no_batches_cannot_be():
    with pytest.raises(TypeError, match=r"abstract.*make_batch"):
        EpochLoader(4, 2)


@pytest.mark.parametrize("augment", [RandomShift(2), RandomAffine(), RandomElastic()])
def test_augmentation_that_moves_pixels_is_refused_for_padded_images(augment):
    images = Padded(torch.zeros(4, 1, 8, 12), torch.tensor([12, 3, 5, 6]), dim=3)
    with pytest.raises(DataError, match="would move what stands in the padding into the samples"):
        BatchLoader(images, torch.zeros(4), 2, augment=augment)


@pytest.mark.parametrize("samples", [0, -5])
def test_loader_of_ones_own_without_samples_is_refused(samples):
    with pytest.raises(DataError, match="not a single sample"):
        Squares(samples, 2)


class Recorder(LightningModule):
    """Trains nothing and keeps the batches it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch):
        self.seen.append((batch[0].clone(), batch[1].clone()))
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAt(Callback):
    def __init__(self, step, path):
        self.step = step
        self.path = path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def fit(recorder, loader, callbacks=(), **arguments):
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(recorder, loader, **arguments)
    return recorder.seen


def test_trainer_trains_the_epochs_of_the_loader():
    expected = make(shuffle=True, augment=noise)
    assert_equal(fit(Recorder(), make(shuffle=True, augment=noise)), [batch for _ in range(3) for batch in expected])


@pytest.mark.parametrize("step", [1, 3, 4, 6, 8, 11])
def test_trainer_resumes_within_an_epoch_and_at_its_end(tmp_path, step):
    path = tmp_path / "saved.ckpt"
    expected = fit(Recorder(), make(shuffle=True, augment=noise), [SaveAt(step, path)])
    resumed = fit(Recorder(), make(shuffle=True, augment=noise), ckpt_path=path)
    assert_equal(resumed, expected[step:])


def test_trainer_trains_on_a_loader_of_ones_own():
    class Pairs(Squares):
        def make_batch(self, chosen, epoch, seed):
            squares = torch.tensor(super().make_batch(chosen, epoch, seed))
            return squares, -squares

    seen = fit(Recorder(), Pairs(10, 3, shuffle=True, seed=1))
    expected = Squares(10, 3, shuffle=True, seed=1)
    assert [squares.tolist() for squares, _ in seen] == [part for _ in range(3) for part in expected]
    assert all(torch.equal(targets, -squares) for squares, targets in seen)


def test_what_copies_gets_a_view_in_evaluation_and_leaves_the_data_as_they_are():
    seen = []

    class Doubles:
        copies = True

        def __call__(self, features):
            seen.append(features.data_ptr())
            return features * 2

    features = torch.arange(6.0)
    loader = BatchLoader(features, torch.arange(6), batch_size=2, preprocess=Doubles())
    batches = [batch for batch, _ in loader]
    assert seen == [features[first:].data_ptr() for first in (0, 2, 4)]
    for batch in batches:
        batch.zero_()
    assert torch.equal(features, torch.arange(6.0))
    seen.clear()
    # Whoever augments may change what it gets.
    list(BatchLoader(features, torch.arange(6), batch_size=2, augment=lambda f, g: f.add_(1), preprocess=Doubles()))
    assert torch.equal(features, torch.arange(6.0))
