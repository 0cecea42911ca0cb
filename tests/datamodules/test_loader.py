import json

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules import BatchLoader, DataError, RandomShift

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
        assert len(loader) == len(parts)
        assert all(parts)
        seen += samples_of(parts)
    assert sorted(seen) == list(range(size))


@pytest.mark.parametrize("batch_size", [1, 64])
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("size", SIZES)
def test_ranks_train_the_same_number_of_batches_without_overlap(as_rank, world, size, batch_size):
    if size < world:
        as_rank(0, world)
        with pytest.raises(DataError, match=f"{size} training samples are fewer than one batch"):
            make(size, batch_size, shuffle=True)
        return
    seen, counts = [], []
    for rank in range(world):
        as_rank(rank, world)
        loader = make(size, batch_size, shuffle=True)
        parts = batches(loader)
        assert len(loader) == len(parts)
        assert all(parts)
        counts.append(len(parts))
        seen += samples_of(parts)
    assert len(set(counts)) == 1
    assert len(set(seen)) == len(seen) >= size - (world - 1)


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
