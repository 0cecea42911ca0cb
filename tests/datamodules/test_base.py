from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Generator

from datamodules import DataError, InMemoryDataModule, Padded, Split, Splits, TensorDataModule, base
from datamodules.base import Standardize, checksum
from zoo import MulticlassClassification
from zoo.networks import Recurrent


def numbers(samples, *shape, seed=0, mean=0.0, std=1.0):
    return mean + std * torch.randn(samples, *shape, generator=Generator().manual_seed(seed))


def counted(samples=100, **arguments):
    """A module whose targets count the samples; the features are ten times that."""
    targets = torch.arange(float(samples))
    return TensorDataModule(targets.unsqueeze(1) * 10.0, targets, **{"batch_size": 8, **arguments})


def ready(module):
    module.setup()
    return module


def samples_of(module):
    return [getattr(module.splits, name).targets.tolist() for name in ("train", "val", "test")]


def all_batches(loader):
    features, targets = zip(*loader, strict=True)
    return torch.cat(features), torch.cat(targets)


@pytest.mark.parametrize("array", [torch.from_numpy, lambda values: values], ids=["torch", "numpy"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.float64, torch.float32),
        (np.float32, torch.float32),
        (np.float16, torch.float16),
        (np.uint8, torch.uint8),
        (np.int64, torch.int64),
        (np.bool_, torch.bool),
    ],
)
def test_features_keep_their_type_but_for_doubles(array, given, expected):
    values = np.tile(np.array([[0, 1]]), (20, 1)).astype(given)
    split = ready(TensorDataModule(array(values), torch.zeros(20), batch_size=4)).splits.train
    assert split.features.dtype == expected
    assert split.features.tolist() == [[0, 1]] * 16


@pytest.mark.parametrize("array", [torch.from_numpy, lambda values: values], ids=["torch", "numpy"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.uint8, torch.int64),
        (np.int16, torch.int64),
        (np.uint16, torch.int64),
        (np.int32, torch.int64),
        (np.int64, torch.int64),
        (np.float64, torch.float32),
        (np.float32, torch.float32),
    ],
)
def test_targets_get_the_types_that_losses_take(array, given, expected):
    values = np.full(20, 3, dtype=given)
    split = ready(TensorDataModule(torch.rand(20, 2), array(values), batch_size=4)).splits.train
    assert split.targets.dtype == expected
    assert split.targets.tolist() == [3] * 16


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values[::-1],
        np.asfortranarray,
        lambda values: np.broadcast_to(values, values.shape),
        lambda values: values.astype(">f4"),
        lambda values: values[:, ::2],
    ],
    ids=["backwards", "column by column", "read-only", "big-endian", "strided"],
)
def test_any_layout_of_an_array_will_do(change):
    values = change(np.arange(80, dtype=np.float32).reshape(20, 4))
    module = ready(TensorDataModule(values, np.arange(20.0), val_size=1, test_size=1, batch_size=4))
    for split in (module.splits.train, module.splits.val, module.splits.test):
        for features, target in zip(split.features, split.targets, strict=True):
            assert features.tolist() == values[int(target)].tolist()


@pytest.mark.parametrize(
    ("features", "told"),
    [
        ([[1.0], [2.0]], "features must be a tensor or a NumPy array, got list"),
        (np.array(["a", "b"]), "features of NumPy type <U1"),
        (np.array([None, {}]), "features of NumPy type object"),
        (torch.tensor(1.0), "features must have a first dimension"),
    ],
    ids=["list", "text", "objects", "a single number"],
)
def test_features_that_are_no_numbers_are_refused(features, told):
    with pytest.raises(DataError, match=told):
        TensorDataModule(features, torch.zeros(2))


@pytest.mark.parametrize(
    ("val_size", "test_size", "expected"),
    [
        (0.1, 0.1, (80, 10, 10)),
        (0.25, 0.05, (70, 25, 5)),
        (20, 30, (50, 20, 30)),
        (20.0, 0.3, (50, 20, 30)),
        (1, 1, (98, 1, 1)),
        (0.014, 0.016, (97, 1, 2)),
    ],
)
def test_sizes_are_shares_or_numbers(val_size, test_size, expected):
    parts = samples_of(ready(counted(val_size=val_size, test_size=test_size)))
    assert tuple(map(len, parts)) == expected


@pytest.mark.parametrize("name", ["val_size", "test_size"])
@pytest.mark.parametrize("size", [0, 0.0, -1, -0.1, 1.5, float("nan"), float("inf"), 100, 101, 0.001, 0.999])
def test_size_that_makes_an_empty_part_is_refused(name, size):
    with pytest.raises(DataError, match=f"{name}.*{size!r}|{name}={size!r}"):
        counted(**{name: size}).setup()


def test_parts_that_leave_nothing_for_training_are_refused():
    with pytest.raises(DataError, match="of 100 samples 100 are for validation and test"):
        counted(val_size=60, test_size=40).setup()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_splits_are_disjoint_and_exhaustive(seed):
    parts = samples_of(ready(counted(seed=seed)))
    assert sorted(sample for part in parts for sample in part) == list(range(100))


def test_splits_keep_the_order_of_the_data():
    for part in samples_of(ready(counted())):
        assert part == sorted(part)


def test_splits_are_a_function_of_the_seed():
    torch.manual_seed(1)
    first = samples_of(ready(counted(seed=4)))
    torch.manual_seed(2)
    assert samples_of(ready(counted(seed=4))) == first
    assert samples_of(ready(counted(seed=5)))[1] != first[1]


def test_seed_of_seed_everything_is_taken(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert samples_of(ready(counted())) == samples_of(ready(counted(seed=7)))
    assert counted(seed=3).seed == 3
    monkeypatch.delenv("PL_GLOBAL_SEED")
    assert counted().seed == 0


def test_every_sample_can_be_in_every_split():
    places = [set(), set(), set()]
    for seed in range(30):
        parts = samples_of(ready(counted(10, val_size=3, test_size=3, batch_size=1, seed=seed)))
        for place, samples in zip(places, parts, strict=True):
            place.update(samples)
    assert places == [set(range(10))] * 3


def test_given_test_set_is_used_whole_and_in_order():
    test = (np.arange(5.0)[::-1, None], np.array([4, 2, 0, 1, 3]))
    module = ready(counted(50, val_size=10, test=test))
    assert module.splits.test.features.tolist() == [[4], [3], [2], [1], [0]]
    assert module.splits.test.targets.tolist() == [4, 2, 0, 1, 3]
    train, val, _ = samples_of(module)
    assert (len(train), len(val)) == (40, 10)
    assert sorted(train + val) == list(range(50))


def test_split_keeps_features_with_their_targets():
    module = ready(counted())
    for split in (module.splits.train, module.splits.val, module.splits.test):
        assert torch.equal(split.features, split.targets.unsqueeze(1) * 10.0)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((4,), 0), ((3, 6, 5), (0, 2, 3)), ((), 0)],
    ids=["tabular", "images", "plain numbers"],
)
@pytest.mark.parametrize("samples", [60, 5000])
@pytest.mark.parametrize("mean", [0, 3, 1e4])
def test_standardize_takes_the_statistics_of_the_training_split_alone(shape, axes, samples, mean):
    scales = (1 + torch.arange(shape[0] if shape else 1.0)).reshape(-1, *[1] * (len(shape) - 1))
    features = numbers(samples, *shape, mean=mean) if not shape else mean + scales * numbers(samples, *shape)
    module = ready(TensorDataModule(features, torch.zeros(samples), standardize=True, drop_last=False, batch_size=32))
    train = module.splits.train.features.double().numpy()
    expected_mean, expected_std = train.mean(axis=axes, keepdims=True)[0], train.std(axis=axes, keepdims=True)[0]
    np.testing.assert_allclose(module.mean.numpy(), expected_mean, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(module.std.numpy(), expected_std, rtol=1e-6)
    # A mean of 1e4 has about three digits left behind the point in 32 bits, and so have the data.
    tolerance = 1e-5 if mean < 10 else 1e-3
    standardized = all_batches(module.train_dataloader())[0].double().numpy()
    assert np.abs(standardized.mean(axis=axes)).max() < tolerance
    assert np.abs(standardized.std(axis=axes) - 1).max() < tolerance


@pytest.mark.parametrize("name", ["val", "test"])
def test_evaluation_is_standardized_with_the_statistics_of_training(name):
    features = numbers(200, 3, mean=5, std=2)
    module = ready(TensorDataModule(features, torch.zeros(200), standardize=True, batch_size=8))
    train, split = module.splits.train.features.numpy(), getattr(module.splits, name).features.numpy()
    result, _ = all_batches(getattr(module, f"{name}_dataloader")())
    np.testing.assert_allclose(result.numpy(), (split - train.mean(axis=0)) / train.std(axis=0), rtol=1e-4, atol=1e-5)


def test_outlier_outside_the_training_split_does_not_count():
    plain = ready(TensorDataModule(numbers(100, 2), torch.zeros(100), standardize=True, batch_size=8))
    outliers = (torch.full((10, 2), 1e6), torch.zeros(10))
    module = TensorDataModule(numbers(100, 2), torch.zeros(100), test=outliers, standardize=True, batch_size=8)
    assert ready(module).mean.abs().max() < 1
    assert plain.mean.abs().max() < 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_whole_numbers_are_standardized(dtype):
    generator = Generator().manual_seed(0)
    low, high = (0, 256) if dtype == torch.uint8 else (30_000, 30_100)
    images = torch.randint(low, high, (5000, 2, 8, 8), generator=generator, dtype=dtype)
    module = ready(TensorDataModule(images, torch.zeros(5000), standardize=True))
    train = module.splits.train.features.double().numpy()
    assert module.mean.shape == (2, 1, 1)
    np.testing.assert_allclose(module.mean.flatten().numpy(), train.mean(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(module.std.flatten().numpy(), train.std(axis=(0, 2, 3)), rtol=1e-5)


def test_large_whole_numbers_are_standardized():
    """Such as seconds since 1970: beyond the 24 bits of a 32-bit float, but not beyond 64."""
    seconds = 1_700_000_000 + torch.arange(1000).unsqueeze(1)
    module = ready(TensorDataModule(seconds, torch.zeros(1000), standardize=True))
    assert module.std.item() == pytest.approx(module.splits.train.features.double().numpy().std(), rel=1e-3)


def test_standardize_leaves_the_data_alone():
    features = torch.ones(4, 2)
    result = Standardize(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 4.0]))(features)
    assert result.tolist() == [[0, 0.25]] * 4
    assert torch.equal(features, torch.ones(4, 2))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.bool, torch.float16])
def test_standardized_batches_are_floats_of_single_precision(dtype):
    features = (torch.arange(40).reshape(20, 2) % 3).to(dtype)
    module = ready(TensorDataModule(features, torch.zeros(20), standardize=True, batch_size=4))
    assert next(iter(module.train_dataloader()))[0].dtype == torch.float32


def test_nothing_is_scaled_unless_asked():
    module = ready(counted())
    assert module.mean is None
    features, targets = next(iter(module.train_dataloader()))
    assert torch.equal(features, targets.unsqueeze(1) * 10.0)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e4])
def test_constant_feature_is_refused_by_its_number(value):
    features = numbers(5000, 4)
    features[:, 2] = value
    with pytest.raises(DataError, match="feature 2 is constant over the training split"):
        TensorDataModule(features, torch.zeros(5000), standardize=True).setup()


def test_feature_that_varies_outside_the_training_split_only_is_constant():
    test = (numbers(20, 3), torch.zeros(20))
    features = numbers(100, 3)
    features[:, 0] = 1
    with pytest.raises(DataError, match="feature 0 is constant"):
        TensorDataModule(features, torch.zeros(100), test=test, standardize=True).setup()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_constant_channel_is_refused_by_its_number(dtype):
    images = torch.randint(256, (200, 3, 9, 9), generator=Generator().manual_seed(0)).to(dtype)
    images[:, 1] = 77
    with pytest.raises(DataError, match="feature 1 is constant"):
        TensorDataModule(images, torch.zeros(200), standardize=True).setup()


def test_pixel_that_never_changes_is_no_constant_channel():
    images = torch.randint(256, (200, 1, 9, 9), dtype=torch.uint8, generator=Generator().manual_seed(0))
    images[:, :, 0, 0] = 0
    module = TensorDataModule(images, torch.zeros(200), standardize=True)
    assert 60 < ready(module).std.item() < 80


def test_small_spread_is_no_constant():
    features = 1 + 1e-4 * numbers(1000, 2)
    module = ready(TensorDataModule(features, torch.zeros(1000), standardize=True))
    np.testing.assert_allclose(module.std.numpy(), module.splits.train.features.double().numpy().std(axis=0), rtol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("sample", [0, 3, 4096, 4999])
def test_number_that_is_none_is_refused_with_its_place(value, sample):
    features = numbers(5000, 2, 3)
    features[sample, 1, 2] = value
    with pytest.raises(DataError, match=rf"features of the test split hold {value} in sample {sample}, at \(1, 2\)"):
        counted(test=(features, torch.zeros(5000, dtype=torch.int64))).setup()


def test_target_that_is_no_number_is_refused_with_its_place():
    targets = torch.zeros(20)
    targets[7] = float("nan")
    with pytest.raises(DataError, match="targets of the test split hold nan in sample 7"):
        TensorDataModule(numbers(100, 2), torch.zeros(100), test=(numbers(20, 2), targets)).setup()


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_sample_with_a_number_that_is_none_is_counted_as_it_was_given(name):
    clean = ready(counted(seed=0))
    sample = getattr(clean.splits, name).targets[2].long()
    features = torch.arange(100.0)
    features[sample] = float("nan")
    with pytest.raises(DataError, match=rf"features of the data hold nan in sample {int(sample)}\b"):
        TensorDataModule(features, torch.arange(100.0), batch_size=8, seed=0).setup()


def test_double_beyond_single_precision_is_refused():
    features = np.ones((100, 2))
    features[:, 1] = 1e300
    with pytest.raises(DataError, match="inf"):
        TensorDataModule(features, np.zeros(100)).setup()


@pytest.mark.parametrize("samples", [0, 1, 2])
def test_data_too_few_to_split_are_refused(samples):
    with pytest.raises(DataError, match="empty"):
        counted(samples).setup()


def test_empty_test_set_is_refused():
    with pytest.raises(DataError, match="the test split is empty"):
        counted(test=(torch.empty(0, 1), torch.empty(0, dtype=torch.int64))).setup()


def test_training_split_smaller_than_a_batch_is_refused_with_a_remedy():
    with pytest.raises(DataError, match=r"80 samples, fewer than one batch of 81.*at most 80"):
        counted(batch_size=81).setup()
    assert len(ready(counted(batch_size=80)).train_dataloader()) == 1


def test_training_split_smaller_than_a_batch_will_do_if_nothing_is_dropped():
    module = ready(counted(batch_size=81, drop_last=False))
    assert [len(targets) for _, targets in module.train_dataloader()] == [80]


@pytest.mark.parametrize("targets", [99, 101])
def test_lengths_that_differ_are_refused(targets):
    with pytest.raises(DataError, match=f"100 features but {targets} targets"):
        TensorDataModule(torch.rand(100, 2), torch.zeros(targets)).setup()
    with pytest.raises(DataError, match=f"100 features but {targets} targets in the test split"):
        TensorDataModule(torch.rand(100, 2), torch.zeros(100), test=(torch.rand(100, 2), torch.zeros(targets))).setup()


def test_negative_label_is_refused():
    labels = torch.arange(100)
    labels[50] = -2
    with pytest.raises(DataError, match="label -2 is negative"):
        TensorDataModule(torch.rand(100, 2), labels)
    with pytest.raises(DataError, match="label -2 is negative"):
        TensorDataModule(torch.rand(100, 2), torch.arange(100), test=(torch.rand(100, 2), labels))


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (torch.tensor([0, 1, 4] * 20), 5),
        (torch.zeros(60, dtype=torch.uint8), 1),
        (torch.rand(60), None),
        (-torch.rand(60), None),
        (torch.zeros(60, 3, dtype=torch.int64), None),
    ],
    ids=["labels", "one class", "numbers", "negative numbers", "several targets"],
)
def test_classes_are_counted_from_class_indices(targets, expected):
    assert TensorDataModule(torch.rand(60, 2), targets).num_classes == expected


def test_classes_of_the_test_set_count():
    test = (torch.rand(3, 2), torch.tensor([1, 0, 8]))
    assert TensorDataModule(torch.rand(60, 2), torch.zeros(60, dtype=torch.int64), test=test).num_classes == 9


@pytest.mark.parametrize("name", ["batch_size", "eval_batch_size"])
@pytest.mark.parametrize("size", [0, -3, 1.5, True, None])
def test_wrong_batch_size_is_refused(name, size):
    with pytest.raises(DataError, match=f"batch_size must be an integer of at least 1, got {size!r}"):
        counted(**{name: size})


def test_training_is_shuffled_and_drops_its_last_batch():
    module = ready(counted(batch_size=30))
    features, targets = all_batches(module.train_dataloader())
    assert len(targets) == 60
    assert targets.tolist() != sorted(targets.tolist())
    assert torch.equal(features, targets.unsqueeze(1) * 10.0)


@pytest.mark.parametrize("name", ["val", "test", "predict"])
def test_evaluation_is_whole_and_in_order(name):
    module = ready(counted(eval_batch_size=3, augment=lambda features, _: features + 1))
    loader = getattr(module, f"{name}_dataloader")()
    split = module.splits.val if name == "val" else module.splits.test
    assert [len(targets) for _, targets in loader] == [3, 3, 3, 1]
    features, targets = all_batches(loader)
    assert torch.equal(features, split.features)
    assert torch.equal(targets, split.targets)


def test_augmentation_is_for_training_and_before_scaling():
    module = ready(counted(augment=lambda features, _: features + 1, standardize=True))
    features, targets = next(iter(module.train_dataloader()))
    expected = (targets.unsqueeze(1) * 10.0 + 1 - module.mean) / module.std
    assert torch.allclose(features, expected, atol=1e-6)


def test_order_of_training_is_a_function_of_the_seed():
    orders = [all_batches(ready(counted(seed=seed)).train_dataloader())[1].tolist() for seed in (1, 1, 2)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_splits_before_setup_are_an_error():
    with pytest.raises(RuntimeError, match=r"TensorDataModule: call setup\(\) first"):
        counted().train_dataloader()


def test_second_setup_keeps_the_splits():
    module = ready(counted())
    splits = module.splits
    module.setup("test")
    assert module.splits is splits


def test_given_data_are_not_changed():
    features, targets = numbers(100, 2, mean=3), torch.arange(100.0)
    before = features.clone()
    module = TensorDataModule(features, targets, test=(features, targets), standardize=True, batch_size=8)
    module.setup()
    for loader in (module.train_dataloader(), module.val_dataloader(), module.test_dataloader()):
        list(loader)
    assert torch.equal(features, before)


@pytest.mark.parametrize(
    ("shape", "told"), [((3,), "samples of 3"), ((1, 5, 4), "samples of 1x5x4"), ((), "samples of 1")]
)
def test_description_states_sizes_shape_and_classes(shape, told):
    labels = torch.arange(2000) % 7
    module = ready(TensorDataModule(numbers(2000, *shape), labels))
    assert module.description == f"tensors: 1,600 train, 200 val, 200 test; {told}, 7 classes"


def standardized(seed=0, shift=0.0, **arguments):
    return TensorDataModule(
        numbers(100, 2) + shift, torch.zeros(100), **{"standardize": True, "batch_size": 8, "seed": seed, **arguments}
    )


def test_state_is_plain_and_accepted_for_the_same_data(tmp_path):
    saved = ready(standardized())
    torch.save(saved.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["dataset"] == "tensors"
    assert torch.equal(state["mean"], saved.mean)
    assert torch.equal(state["std"], saved.std)
    resumed = standardized()
    resumed.load_state_dict(state)
    assert torch.equal(resumed.mean, saved.mean)


@pytest.mark.parametrize(
    "other",
    [{"shift": 1.0}, {"seed": 1}, {"standardize": False}, {"val_size": 20}],
    ids=["other data", "another seed", "no scaling", "another split"],
)
def test_state_of_other_data_is_refused(other):
    state = ready(standardized()).state_dict()
    with pytest.raises(DataError, match="mean of the training split differs"):
        standardized(**other).load_state_dict(state)
    with pytest.raises(DataError, match="mean of the training split differs"):
        standardized().load_state_dict(ready(standardized(**other)).state_dict())


def plain(values=None, **arguments):
    values = numbers(100, 2) if values is None else values
    return TensorDataModule(values, torch.zeros(100), **{"batch_size": 8, "seed": 0, **arguments})


def test_batches_of_another_size_are_the_same_data():
    data = ready(plain(batch_size=4, eval_batch_size=7))
    data.load_state_dict(ready(plain()).state_dict())
    assert data.checksums == ready(plain()).checksums


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_resume_on_other_values_is_refused_without_standardising(split):
    saved = ready(plain())
    row = getattr(saved.splits, split).features[3]
    values = numbers(100, 2)
    values[(values == row).all(dim=1)] += 1e-3
    with pytest.raises(DataError, match=f"samples of the {split} split are not those that the checkpoint was trained"):
        plain(values).load_state_dict(saved.state_dict())


def test_a_resume_on_another_split_is_refused_without_standardising():
    with pytest.raises(DataError, match="samples of the train split are not those"):
        plain(seed=1).load_state_dict(ready(plain()).state_dict())


def test_checkpoints_without_checksums_still_load():
    state = ready(plain()).state_dict()
    del state["checksums"]
    plain(seed=1).load_state_dict(state)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64, torch.bfloat16, torch.float32])
def test_a_checksum_is_of_values_types_and_shapes(dtype):
    values = (torch.arange(5000 * 3).reshape(5000, 3) % 2).to(dtype)
    first = checksum(values)
    assert checksum(values.t().contiguous().t()) == first  # whatever the layout in memory
    changed = values.clone()
    changed[4999, 2] = 1 - changed[4999, 2].int()
    other = torch.int32 if dtype == torch.float32 else torch.float32
    assert len({first, checksum(changed), checksum(values.reshape(-1, 5)), checksum(values.to(other))}) == 4


def test_a_checksum_of_padded_samples_counts_their_lengths():
    values = torch.zeros(4, 3)
    sums = {checksum(Padded(values, torch.tensor(lengths))) for lengths in ([1, 2, 3, 3], [1, 2, 3, 2])}
    assert len(sums | {checksum(values)}) == 3


def test_checksums_are_computed_once(monkeypatch):
    data = ready(plain())
    first = data.state_dict()["checksums"]
    monkeypatch.setattr(base, "checksum", None)
    assert data.state_dict()["checksums"] == first


def test_state_of_another_shape_is_refused():
    state = ready(standardized()).state_dict()
    with pytest.raises(DataError, match="differs"):
        TensorDataModule(numbers(100, 3), torch.zeros(100), standardize=True).load_state_dict(state)


def test_state_of_a_data_set_of_another_name_is_refused():
    state = {**ready(standardized()).state_dict(), "dataset": "MNIST"}
    with pytest.raises(DataError, match="trained on 'MNIST', but the data at hand are 'tensors'"):
        standardized().load_state_dict(state)


class Given(InMemoryDataModule):
    """A data module by someone else."""

    def __init__(self, splits, **arguments):
        super().__init__(**arguments)
        self.given = splits

    def load_splits(self):
        return self.given


def part(samples):
    return Split(torch.rand(samples, 2), torch.zeros(samples))


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_empty_split_of_a_subclass_is_refused(empty):
    sizes = [10, 10, 10]
    sizes[empty] = 0
    with pytest.raises(DataError, match=f"the {('train', 'val', 'test')[empty]} split is empty"):
        Given(Splits(*map(part, sizes)), batch_size=5).setup()


@pytest.mark.parametrize("label", [-100, -1, 3])
@pytest.mark.parametrize("split", [0, 1, 2])
def test_labels_of_a_subclass_outside_its_classes_are_refused(split, label):
    parts = [Split(torch.rand(10, 2), torch.arange(10) % 3) for _ in range(3)]
    parts[split].targets[7] = label
    data = Given(Splits(*parts), batch_size=5)
    data.num_classes = 3
    name = ("train", "val", "test")[split]
    with pytest.raises(DataError, match=rf"targets of the {name} split hold label {label} in sample 7, outside 0\.\.2"):
        data.setup()


def test_subclass_gets_loaders_from_its_splits():
    module = ready(Given(Splits(part(30), part(20), part(10)), batch_size=10, eval_batch_size=4))
    loaders = (module.train_dataloader(), module.val_dataloader(), module.test_dataloader())
    assert [len(loader) for loader in loaders] == [3, 5, 3]


@pytest.mark.parametrize(("classes", "drop_last"), [(81, True), (81, False), (100, True)])
def test_fewer_samples_than_classes_are_refused(classes, drop_last):
    module = TensorDataModule(numbers(100, 2), torch.arange(100) % classes, batch_size=8, drop_last=drop_last)
    with pytest.raises(
        DataError,
        match=f"^the training split has 80 samples, fewer than the {classes} classes that its labels count: use more",
    ):
        module.setup()


def test_as_many_samples_as_classes_will_do():
    module = ready(TensorDataModule(numbers(100, 2), torch.arange(100) % 80, batch_size=8))
    assert (module.num_classes, len(module.splits.train)) == (80, 80)


# Samples of different lengths.


def sequences(samples=100, longest=9, features=(2,), seed=0):
    """Padded with a number so large that whoever reads it will notice."""
    lengths = torch.randint(2, longest + 1, (samples,), generator=Generator().manual_seed(seed))
    lengths[:20] = torch.tensor([2, longest]).repeat(10)
    values = numbers(samples, longest, *features, seed=seed)
    values[torch.arange(longest) >= lengths[:, None]] = 1e6
    return Padded(values, lengths)


@pytest.mark.parametrize(
    ("features", "told"),
    [
        (sequences(2000), "samples of (2 to 9)x2"),
        (sequences(2000, features=()), "samples of (2 to 9)"),
        (Padded(torch.zeros(2000, 1, 4, 9), torch.arange(2000) % 6 + 3, dim=3), "samples of 1x4x(3 to 8)"),
        (Padded(torch.zeros(2000, 9, 2), torch.full((2000,), 7)), "samples of 7x2"),
    ],
    ids=["sequences", "numbers", "images", "one length"],
)
def test_description_states_the_range_of_lengths(features, told):
    module = ready(TensorDataModule(features, torch.arange(2000) % 7))
    assert module.description == f"tensors: 1,600 train, 200 val, 200 test; {told}, 7 classes"
    assert module.num_samples_by_split == {"train": 1600, "val": 200, "test": 200}


@pytest.mark.parametrize("grouped", [False, True])
def test_training_alone_is_grouped_by_length_if_asked(grouped):
    module = ready(
        TensorDataModule(
            sequences(1000), torch.arange(1000.0), batch_size=8, eval_batch_size=8, group_by_length=grouped
        )
    )
    spread = [float(features.lengths.double().std()) for features, _ in module.train_dataloader()]
    assert (np.mean(spread) < 0.2) == grouped  # 2.3 for lengths from 2 to 9
    for name in ("val", "test", "predict"):
        split = module.splits.val if name == "val" else module.splits.test
        parts = list(getattr(module, f"{name}_dataloader")())
        assert torch.equal(torch.cat([targets for _, targets in parts]), split.targets)
        assert torch.equal(torch.cat([features.lengths for features, _ in parts]), split.features.lengths)


def test_grouping_samples_of_one_size_is_refused_at_once():
    with pytest.raises(DataError, match=r"^group_by_length needs samples of different lengths, given as Padded$"):
        counted(group_by_length=True)


def test_grouping_samples_of_one_size_of_a_subclass_is_refused():
    module = ready(Given(Splits(part(30), part(20), part(10)), batch_size=10, group_by_length=True))
    with pytest.raises(DataError, match=r"^group_by_length needs samples of different lengths, given as Padded$"):
        module.train_dataloader()
    assert len(module.val_dataloader()) == 1


def test_state_of_padded_data_is_accepted_for_the_same_and_refused_for_others():
    def module(seed):
        return TensorDataModule(sequences(seed=seed), torch.zeros(100), standardize=True, batch_size=8, seed=0)

    state = ready(module(0)).state_dict()
    module(0).load_state_dict(state)
    with pytest.raises(DataError, match="mean of the training split differs"):
        module(1).load_state_dict(state)


@pytest.mark.parametrize("grouped", [False, True])
def test_recurrent_network_learns_from_sequences_of_different_lengths(grouped):
    """Whether the first of a sequence's numbers is positive: what is far back counts, what is in the padding not."""
    torch.manual_seed(0)
    features = sequences(1000, features=(1,))
    labels = (features.values[:, 0, 0] > 0).long()
    data = TensorDataModule(
        features, labels, standardize=True, batch_size=20, eval_batch_size=30, group_by_length=grouped, seed=0
    )
    model = MulticlassClassification(
        network=Recurrent(1, 12, 2, cell="gru"), num_classes=2, optimizer=partial(torch.optim.Adam, lr=0.02)
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=4,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    [metrics] = trainer.test(model, data, verbose=False)
    assert trainer.global_step == 4 * 40
    assert metrics["test/accuracy"] > 0.9
    predictions = trainer.predict(model, data)
    assert [len(prediction.classes) for prediction in predictions] == [30, 30, 30, 10]
    right = torch.cat([prediction.classes for prediction in predictions]) == data.splits.test.targets
    assert right.double().mean().item() == pytest.approx(metrics["test/accuracy"], abs=1e-6)


def test_features_of_sequences_are_standardised_each_by_itself_padded_or_not():
    sequences = torch.randn(60, 7, 2) * torch.tensor([1.0, 1000.0]) + torch.tensor([3.0, -500.0])
    plain = TensorDataModule(sequences, torch.zeros(60), standardize=True, batch_size=10, seed=0)
    padded = TensorDataModule(Padded(sequences, torch.full((60,), 7)), torch.zeros(60), standardize=True, batch_size=10)
    for data in (plain, padded):
        data.setup()
        assert data.mean.shape == data.std.shape == (2,)
    train = plain.splits.train.features.flatten(0, 1).double()
    torch.testing.assert_close(plain.mean.double(), train.mean(dim=0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(plain.std.double(), train.std(dim=0, correction=0), rtol=1e-5, atol=1e-5)
