import numpy as np
import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Generator

from datamodules import DataError, LabelBatch, Padded, PaddedBatch, TensorDataModule
from datamodules.base import feature_statistics
from datamodules.padded import dense

META = torch.device("meta")  # stands in for a GPU


def lengths_of(samples, longest, seed=0):
    """From 1 to ``longest``, both of which are there."""
    lengths = torch.randint(1, longest + 1, (samples,), generator=Generator().manual_seed(seed))
    lengths[1], lengths[2] = longest, 1
    return lengths


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


def ready(module):
    module.setup()
    return module


# What is refused.


@pytest.mark.parametrize(
    ("lengths", "told"),
    [
        ([3, 0, 2], "sample 1 has length 0: each sample has at least one step"),
        ([3, 2, -4], "sample 2 has length -4: each sample has at least one step"),
        ([5, 6, 7], "sample 1 has length 6: the samples are padded to 5"),
        ([9, 0, 1], "sample 1 has length 0: each sample has at least one step"),
    ],
)
def test_length_out_of_range_is_refused_by_its_sample(lengths, told):
    with pytest.raises(DataError, match=f"^{told}$"):
        Padded(torch.zeros(3, 5), torch.tensor(lengths))


@pytest.mark.parametrize(
    ("lengths", "told"),
    [
        (torch.ones(3), r"got \(3,\) and float32"),
        (torch.ones(3, dtype=torch.int32), r"got \(3,\) and int32"),
        (torch.ones(3, dtype=torch.bool), r"got \(3,\) and bool"),
        (torch.ones(2, dtype=torch.int64), r"got \(2,\) and int64"),
        (torch.ones(4, dtype=torch.int64), r"got \(4,\) and int64"),
        (torch.ones(3, 1, dtype=torch.int64), r"got \(3, 1\) and int64"),
        (torch.tensor(1), r"got \(\) and int64"),
    ],
)
def test_lengths_of_another_shape_or_type_are_refused(lengths, told):
    with pytest.raises(DataError, match=rf"^lengths must be of shape \(3,\) and type int64, {told}$"):
        Padded(torch.zeros(3, 5), lengths)


def test_lengths_on_another_device_are_refused_with_a_remedy():
    with pytest.raises(DataError, match=r"^lengths must stay on the CPU, got them on meta: lengths\.cpu\(\)$"):
        Padded(torch.zeros(3, 5), torch.ones(3, dtype=torch.int64, device=META))


def test_labels_on_another_device_are_refused_with_a_remedy():
    with pytest.raises(DataError, match=r"^labels must stay on the CPU, got them on meta: labels\.cpu\(\)$"):
        Padded(torch.zeros(3, 5, device=META), torch.ones(3, dtype=torch.int64), labels=True)


@pytest.mark.parametrize("dim", [0, -1, 3, 4, True, 1.0, "1", None])
def test_dim_that_is_none_behind_the_first_is_refused(dim):
    with pytest.raises(DataError, match=rf"^dim must name a dimension of \(3, 5, 2\) behind the first, got {dim!r}$"):
        Padded(torch.zeros(3, 5, 2), torch.ones(3, dtype=torch.int64), dim)


def test_samples_without_a_dimension_to_pad_are_refused():
    with pytest.raises(DataError, match=r"^dim must name a dimension of \(3,\) behind the first, got 1$"):
        Padded(torch.zeros(3), torch.ones(3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("values", "lengths", "told"),
    [
        ([[1.0]], torch.tensor([1]), "list and Tensor"),
        (torch.zeros(1, 1), [1], "Tensor and list"),
        (np.zeros((1, 1)), np.ones(1, dtype=np.int64), "ndarray and ndarray"),
    ],
)
def test_anything_but_tensors_is_refused(values, lengths, told):
    with pytest.raises(DataError, match=f"^values and lengths must be tensors, got {told}$"):
        Padded(values, lengths)


@pytest.mark.parametrize(("name", "place"), [("features", 2), ("features", 4), ("targets", 2)])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_number_that_is_none_is_refused_with_its_place_in_the_padding_too(name, place, value):
    wrong = torch.zeros(40, 5)
    wrong[7, place] = value
    parts = {name: Padded(torch.zeros(40, 5), torch.full((40,), 3)) for name in ("features", "targets")}
    parts[name] = Padded(wrong, torch.full((40,), 3))
    with pytest.raises(DataError, match=rf"^the {name} of the data hold {value} in sample 7, at \({place},\)"):
        TensorDataModule(**parts).setup()


def test_padded_samples_are_not_dense():
    values = torch.zeros(2, 3)
    assert dense(values) is values
    with pytest.raises(DataError, match="padded samples of different lengths have no place here"):
        dense(Padded(values, torch.tensor([1, 3])))


# What they are.


def test_samples_of_the_least_and_the_greatest_length_will_do():
    samples = Padded(torch.zeros(2, 5), torch.tensor([1, 5]))
    assert (len(samples), samples.shape, samples.nbytes) == (2, (2, 5), 40)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (slice(1, 3), [1, 2]),
        (slice(None, None, 2), [0, 2]),
        (torch.tensor([3, 0, 3]), [3, 0, 3]),
        (torch.tensor([False, True, False, True]), [1, 3]),
        (slice(0, 0), []),
    ],
    ids=["slice", "every second", "numbers", "mask", "none"],
)
@pytest.mark.parametrize(("dim", "labels"), [(1, True), (2, False)])
def test_chosen_samples_keep_their_lengths(chosen, expected, dim, labels):
    values, lengths = torch.arange(60).reshape(4, 3, 5), torch.tensor([1, 3, 2, 1])
    part = Padded(values, lengths, dim, labels)[chosen]
    assert part.values.tolist() == [values[sample].tolist() for sample in expected]
    assert part.lengths.tolist() == [lengths[sample].item() for sample in expected]
    assert (part.dim, part.labels) == (dim, labels)


def test_samples_go_to_a_device_without_their_lengths():
    samples = Padded(torch.zeros(2, 3, 5), torch.tensor([1, 4]), dim=2).to(META)
    assert (samples.values.device.type, samples.lengths.device.type) == ("meta", "cpu")
    assert (samples.lengths.tolist(), samples.dim, samples.labels) == ([1, 4], 2, False)


def test_labels_stay_where_they_are():
    labels = Padded(torch.ones(2, 3, dtype=torch.int64), torch.tensor([1, 3]), labels=True)
    assert labels.to(META) is labels


def test_lightning_moves_the_values_of_a_batch_alone():
    batch = (
        PaddedBatch(torch.zeros(2, 3), torch.tensor([1, 3])),
        LabelBatch(torch.ones(2, 4), torch.tensor([2, 4])),
    )
    features, targets = move_data_to_device(batch, META)
    assert (type(features), type(targets)) == (PaddedBatch, LabelBatch)
    assert (features.values.device.type, features.lengths.tolist()) == ("meta", [1, 3])
    assert (targets.values.tolist(), targets.lengths.tolist()) == ([[1] * 4] * 2, [2, 4])


@pytest.mark.parametrize(("shape", "dim"), [((3, 4), 1), ((3, 4, 2), 1), ((3, 2, 4), 2), ((3, 1, 2, 4), 3)])
def test_valid_is_true_before_the_padding(shape, dim):
    lengths = [4, 1, 3]
    valid = Padded(torch.zeros(shape), torch.tensor(lengths), dim).valid.expand(shape).movedim(dim, -1)
    for sample, length in zip(valid, lengths, strict=True):
        assert all(row == [True] * length + [False] * (4 - length) for row in sample.reshape(-1, 4).tolist())


# In a data module.


def test_statistics_of_numbers_by_hand():
    values = torch.tensor([[1.0, 3.0, 99.0], [5.0, -99.0, 1e6], [7.0, 9.0, 11.0]])
    mean, std = feature_statistics(Padded(values, torch.tensor([2, 1, 3])))
    # 1, 3, 5, 7, 9, 11: mean 6, variance (25 + 9 + 1) * 2 / 6
    assert mean.tolist() == [6]
    assert std.item() == pytest.approx((70 / 6) ** 0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "dim", "axis", "expected"),
    [
        ((9,), 1, None, (1,)),
        ((9, 4), 1, 1, (4,)),
        ((4, 9), 2, 0, (4, 1)),
        ((3, 5, 9), 3, 0, (3, 1, 1)),
        ((3, 9, 5), 2, 0, (3, 1, 1)),
    ],
    ids=["numbers", "sequences", "channels first", "images", "images padded below"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_statistics_are_of_the_valid_steps_of_the_training_split_alone(shape, dim, axis, expected, dtype):
    samples, longest = 300, 9
    scale = torch.arange(1.0, 1 + (1 if axis is None else shape[axis])).reshape(expected if axis is not None else (1,))
    values = 100 + 10 * scale * numbers(samples, *shape).clamp(-2, 2)
    lengths = lengths_of(samples, longest)
    beyond = torch.arange(longest) >= lengths[:, None]
    values.movedim(dim, 1)[beyond] = 255  # a view, so this is the padding of values
    values = values.to(dtype)
    module = TensorDataModule(Padded(values, lengths, dim), torch.zeros(samples), standardize=True, batch_size=8)
    train = ready(module).splits.train.features
    # Sample by sample and without padding, by NumPy.
    valid = [
        np.take(value.double().numpy(), range(length), axis=dim - 1)
        for value, length in zip(train.values, train.lengths.tolist(), strict=True)
    ]
    steps = [sample.reshape(-1) if axis is None else np.moveaxis(sample, axis, 0) for sample in valid]
    flat = np.concatenate([step.reshape(1 if axis is None else shape[axis], -1) for step in steps], axis=1)
    assert module.mean.shape == module.std.shape == expected
    np.testing.assert_allclose(module.mean.flatten().numpy(), flat.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(module.std.flatten().numpy(), flat.std(axis=1), rtol=1e-5)
    features, _ = next(iter(module.val_dataloader()))
    val = module.splits.val.features
    cut = val.values.narrow(dim, 0, int(val.lengths.max())).double().numpy()
    mean, std = (flat.mean(axis=1).reshape(expected), flat.std(axis=1).reshape(expected))
    np.testing.assert_allclose(features.values.numpy(), (cut - mean) / std, rtol=1e-4, atol=1e-4)


def test_feature_that_varies_in_the_padding_alone_is_constant():
    values = numbers(100, 6, 3)
    values[:, :2, 1] = 4
    with pytest.raises(DataError, match="feature 1 is constant over the training split"):
        TensorDataModule(Padded(values, torch.full((100,), 2)), torch.zeros(100), standardize=True).setup()


def test_splits_keep_sequences_lengths_and_targets_together():
    lengths = lengths_of(100, 7)
    samples = torch.arange(100)
    features = Padded(1000.0 * samples[:, None] + torch.arange(7), lengths)
    targets = Padded(samples[:, None].expand(-1, 7).contiguous(), lengths, labels=True)
    module = ready(TensorDataModule(features, targets, seed=3, batch_size=8))
    seen = []
    for name in ("train", "val", "test"):
        split = getattr(module.splits, name)
        chosen = split.targets.values[:, 0]
        assert torch.equal(split.features.values, features.values[chosen])
        assert torch.equal(split.features.lengths, lengths[chosen])
        assert torch.equal(split.targets.lengths, lengths[chosen])
        assert (split.targets.labels, split.features.labels) == (True, False)
        seen += chosen.tolist()
    assert sorted(seen) == list(range(100))
    assert [len(split) for split in (module.splits.train, module.splits.val, module.splits.test)] == [80, 10, 10]


@pytest.mark.parametrize(
    ("given", "features", "targets"),
    [
        (torch.float64, torch.float32, torch.float32),
        (torch.uint8, torch.uint8, torch.int64),
        (torch.int32, torch.int32, torch.int64),
    ],
)
def test_padded_samples_get_the_types_of_others(given, features, targets):
    padded = Padded(torch.ones(20, 3, dtype=given), torch.full((20,), 2))
    split = ready(TensorDataModule(padded, padded, batch_size=4)).splits.train
    assert (split.features.values.dtype, split.targets.values.dtype) == (features, targets)
    assert split.targets.lengths.tolist() == [2] * 16


def test_given_test_set_may_be_of_another_size():
    test = (Padded(torch.ones(3, 9), torch.tensor([9, 1, 5])), torch.tensor([0, 1, 2]))
    train = Padded(torch.zeros(20, 4), torch.full((20,), 4))
    module = ready(TensorDataModule(train, torch.arange(20) % 3, test=test, batch_size=4, eval_batch_size=2))
    assert [tuple(features.values.shape) for features, _ in module.test_dataloader()] == [(2, 9), (1, 5)]


def test_parallel_training_on_gpus_leaves_the_lengths_on_the_cpu_too():
    """DistributedDataParallel moves whatever it finds in tuples; a batch is none."""
    from torch.distributed.utils import _to_kwargs

    batch = (PaddedBatch(torch.zeros(2, 3), torch.tensor([1, 3])), LabelBatch(torch.ones(2, 3), torch.tensor([3, 2])))
    [((features, targets), index)], _ = _to_kwargs((batch, 0), {}, torch.device("meta"), True)
    assert index == 0
    assert (features.lengths.device.type, targets.lengths.device.type, targets.values.device.type) == ("cpu",) * 3


def test_batch_is_unpacked_into_values_and_lengths():
    values, lengths = batch = PaddedBatch(torch.zeros(2, 3), torch.tensor([1, 3]))
    assert (values is batch.values, lengths is batch.lengths) == (True, True)
    labels = LabelBatch(values, lengths)
    assert labels.to("meta") is labels
    assert labels.pin_memory() is labels


@pytest.mark.parametrize("dim", [1, 3])
def test_samples_in_a_list_are_padded_with_zeros(dim):
    shapes = {1: [(4, 2), (1, 2), (3, 2)], 3: [(1, 5, 4), (1, 5, 1), (1, 5, 3)]}[dim]
    samples = [torch.rand(shape) for shape in shapes]
    padded = Padded.from_list(samples, dim)
    assert padded.lengths.tolist() == [4, 1, 3]
    for index, sample in enumerate(samples):
        assert torch.equal(padded.values[index].narrow(dim - 1, 0, sample.shape[dim - 1]), sample)
    assert float(padded.values.sum()) == pytest.approx(float(sum(sample.sum() for sample in samples)))
    words = Padded.from_list([torch.tensor([3, 1]), torch.tensor([2])], labels=True)
    assert (words.values.tolist(), words.labels) == ([[3, 1], [2, 0]], True)


@pytest.mark.parametrize("samples", [[], [torch.zeros(3, 2), torch.zeros(3, 4)], [torch.tensor(1.0)]])
def test_list_of_samples_that_do_not_fit_together_is_refused(samples):
    with pytest.raises(DataError, match="expected samples that differ in dimension 0 alone"):
        Padded.from_list(samples)


def test_single_sample_is_a_slice():
    padded = Padded(torch.zeros(2, 3), torch.tensor([1, 3]))
    with pytest.raises(DataError, match=r"a slice of length one: \[1:2\]"):
        padded[1]
    # By identity: tensors would answer element by element, and there is no one answer in that.
    assert padded != Padded(padded.values.clone(), padded.lengths.clone())
