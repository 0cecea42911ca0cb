import gzip
import hashlib
import io
import struct
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch
from torchvision import datasets

from datamodules import (
    DataError,
    FallbackWarning,
    MNISTDataModule,
    RandomAffine,
    RandomElastic,
    RandomShift,
    mnist_files,
)
from datamodules.download import download
from datamodules.mnist import bundled_digits, resize
from datamodules.mnist_files import MNISTFiles

NAMES = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
TEST_LABELS = "t10k-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"

DAMAGES = {
    "a wrong byte": lambda contents: contents[:-1] + bytes([contents[-1] ^ 1]),
    "a wrong label count": lambda contents: contents[:7] + bytes([contents[7] ^ 1]) + contents[8:],
    "truncated": lambda contents: contents[:-100],
    "a byte too many": lambda contents: contents + b"\0",
    "empty": lambda contents: b"",
}
any_damage = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)


@pytest.fixture(autouse=True)
def no_real_network(monkeypatch, closed_mirror):
    for name in ("MNIST", "FashionMNIST", "KMNIST"):
        monkeypatch.setattr(getattr(datasets, name), "mirrors", [closed_mirror], raising=False)
    monkeypatch.setattr(datasets.EMNIST, "url", closed_mirror + "gzip.zip")


def raw(data_dir, dataset="MNIST"):
    return data_dir / dataset / "raw"


def listing(folder):
    """What lies in a folder, but for the lock, which stays."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def spoil(path, damage):
    path.write_bytes(damage(path.read_bytes()))


def load_test_set(data_dir, *, may_download=False):
    return MNISTFiles(data_dir, "MNIST", may_download=may_download).load(train=False)


def official(extracted_dir, name):
    with gzip.open(raw(extracted_dir) / f"{name}.gz") as file:
        return file.read()


# The real data set.


def test_sizes_are_the_canonical_ones(mnist):
    splits = mnist.splits
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [55_000, 5_000, 10_000]
    assert mnist.description == "MNIST: 55,000 train, 5,000 val, 10,000 test; samples of 1x28x28, 10 classes"
    assert (splits.train.features.dtype, splits.train.targets.dtype) == (torch.uint8, torch.int64)


def test_test_set_is_the_canonical_one_in_its_order(mnist, extracted_dir):
    theirs = datasets.MNIST(str(extracted_dir), train=False)
    assert torch.equal(mnist.splits.test.features.squeeze(1), theirs.data)
    assert torch.equal(mnist.splits.test.targets, theirs.targets)
    assert mnist.splits.test.targets[:5].tolist() == [7, 2, 1, 0, 4]


def test_training_and_validation_are_the_canonical_training_set(mnist, extracted_dir):
    theirs = datasets.MNIST(str(extracted_dir), train=True)
    ours = torch.cat([mnist.splits.train.features, mnist.splits.val.features]).flatten(1)
    assert hashes(ours) == hashes(theirs.data.flatten(1))
    labels = torch.cat([mnist.splits.train.targets, mnist.splits.val.targets])
    assert torch.equal(labels.bincount(), theirs.targets.bincount())


def hashes(images):
    """A number for each image; the sorted numbers tell whether two sets are the same whatever their order."""
    weights = torch.randint(1, 2**31, (images.shape[1],), generator=torch.Generator().manual_seed(0)).double()
    return sorted((images.double() @ weights).tolist())


def test_statistics_are_those_of_the_training_split(mnist):
    pixels = mnist.splits.train.features.double()
    assert mnist.mean.item() == pytest.approx(pixels.mean().item(), rel=1e-5)
    assert mnist.std.item() == pytest.approx(pixels.std(correction=0).item(), rel=1e-5)
    assert mnist.mean.item() / 255 == pytest.approx(0.1307, abs=5e-4)
    assert mnist.std.item() / 255 == pytest.approx(0.3081, abs=5e-4)


def test_evaluation_is_whole_in_order_and_standardized(mnist):
    batches = list(mnist.test_dataloader())
    assert [len(targets) for _, targets in batches] == [1000] * 10
    assert torch.equal(torch.cat([targets for _, targets in batches]), mnist.splits.test.targets)
    expected = (mnist.splits.test.features[:1000].float() - mnist.mean) / mnist.std
    assert torch.allclose(batches[0][0], expected, atol=1e-6)


def test_training_batches_are_full(mnist):
    loader = mnist.train_dataloader()
    assert len(loader) == 55_000 // 256
    features, targets = next(iter(loader))
    assert (features.shape, features.dtype) == ((256, 1, 28, 28), torch.float32)
    assert targets.shape == (256,)


@pytest.mark.parametrize("size", [32, 14])
def test_images_of_another_size(extracted_dir, mnist, size):
    module = MNISTDataModule(str(extracted_dir), source="local", image_size=size, seed=0)
    module.setup()
    images, original = module.splits.test.features, mnist.splits.test.features
    assert images.shape == (10_000, 1, size, size)
    assert module.splits.train.features.shape == (55_000, 1, size, size)
    assert torch.equal(module.splits.val.targets, mnist.splits.val.targets)
    if size == 32:
        assert torch.equal(images[..., 2:30, 2:30], original)
        assert images.sum() == original.sum()
    else:
        means = original.double().reshape(-1, 1, 14, 2, 14, 2).mean(dim=(3, 5))
        assert torch.equal(images, means.round().to(torch.uint8))


@pytest.mark.parametrize(("size", "top"), [(29, 0), (30, 1), (31, 1)])
def test_padding_is_as_even_as_can_be(size, top):
    images = torch.randint(1, 256, (2, 1, 28, 28), dtype=torch.uint8)
    padded = resize(images, size)
    assert torch.equal(padded[..., top : top + 28, top : top + 28], images)
    assert (padded > 0).sum() == images.numel()


# Arguments.


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"dataset": "CIFAR10"}, "dataset must be one of 'MNIST', 'FashionMNIST', 'KMNIST', 'EMNIST'.*, got 'CIFAR10'"),
        ({"source": "web"}, "source must be one of 'auto', 'local', 'download', got 'web'"),
        ({"augment": "flip"}, "augment must be one of 'shift', 'affine', 'elastic', 'elastic_affine', got 'flip'"),
        ({"image_size": 7}, "image_size must be an integer from 8 to 256, got 7"),
        ({"image_size": 257}, "image_size must be an integer from 8 to 256, got 257"),
        ({"image_size": 28.0}, "image_size must be an integer from 8 to 256, got 28.0"),
        ({"image_size": True}, "image_size must be an integer from 8 to 256, got True"),
        ({"val_size": 0}, "val_size must be a share between 0 and 1 or a number of samples, got 0"),
        ({"val_size": 60_000}, "val_size=60000 makes 60000 of 60000 samples"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
    ],
)
def test_wrong_argument_is_refused_at_once(arguments, told):
    with pytest.raises(DataError, match=told):
        MNISTDataModule(**arguments)


@pytest.mark.parametrize(
    ("name", "kind"), [("shift", RandomShift), ("affine", RandomAffine), ("elastic", RandomElastic)]
)
def test_augmentation_by_name(name, kind):
    assert type(MNISTDataModule(augment=name).augment) is kind


def test_elastic_augmentation_by_name_is_the_papers_with_or_without_an_affine_one():
    alone, both = (MNISTDataModule(augment=name).augment for name in ("elastic", "elastic_affine"))
    assert (alone.alpha, alone.sigma, both.alpha, both.sigma) == (34.0, 4.0, 14.0, 4.0)
    assert (alone.affine.degrees, both.affine.degrees) == (0.0, 7.0)


def test_augmentation_of_ones_own():
    augment = RandomShift(3)
    assert MNISTDataModule(augment=augment).augment is augment


def test_hyperparameters_make_the_same_module_again():
    module = MNISTDataModule("elsewhere", "KMNIST", "local", 10, 20, 0.1, 32, "shift", False, 5, True, True, 500)
    again = MNISTDataModule(**module.hparams)
    assert dict(again.hparams) == dict(module.hparams)
    assert (again.batch_size, again.eval_batch_size, again.image_size, again.seed) == (10, 20, 32, 5)
    assert (again.one_hot, again.as_rows, again.train_size) == (True, True, 500)


def test_few_samples_are_drawn_out_of_those_for_training_alone():
    few, same, other, whole = (
        MNISTDataModule(dataset="digits", seed=seed, train_size=size)
        for seed, size in ((0, 500), (0, 500), (1, 500), (0, None))
    )
    for module in (few, same, other, whole):
        module.setup()
    assert few.num_samples_by_split == {"train": 5000, "val": 180, "test": 360}  # an epoch sees each ten times
    drawn = {tuple(image.flatten().tolist()) for image in few.splits.train.features}
    assert len(drawn) == 500
    assert drawn < {tuple(image.flatten().tolist()) for image in whole.splits.train.features}
    assert torch.equal(few.splits.train.features, same.splits.train.features)
    assert not torch.equal(few.splits.train.features, other.splits.train.features)
    for split in ("val", "test"):
        assert few.checksums[split] == whole.checksums[split]
    share = MNISTDataModule(dataset="digits", seed=0, train_size=0.5)
    share.setup()
    assert share.num_samples_by_split["train"] == 10 * round(0.5 * 1257)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "500", 60_000])
def test_a_number_of_samples_that_cannot_be_is_refused(size):
    with pytest.raises(DataError, match="train_size"):
        MNISTDataModule(dataset="digits", train_size=size)


def test_more_samples_than_there_are_are_refused():
    with pytest.raises(DataError, match="train_size=1257 makes 1257 of 1257 samples"):
        MNISTDataModule(dataset="digits", train_size=1257).setup()


def test_hyperparameters_are_plain_values():
    values = MNISTDataModule(augment=RandomShift(2)).hparams.values()
    assert {type(value) for value in values} <= {str, int, float, bool, type(None)}


# Files found, mended, refused.


def test_archives_are_extracted_once(archives_dir, extracted_dir):
    images, labels = load_test_set(archives_dir)
    assert (raw(archives_dir) / TEST_IMAGES).read_bytes() == official(extracted_dir, TEST_IMAGES)
    assert listing(raw(archives_dir)) == sorted([*(f"{name}.gz" for name in NAMES), TEST_IMAGES, TEST_LABELS])
    written = (raw(archives_dir) / TEST_IMAGES).stat().st_mtime_ns
    again = load_test_set(archives_dir)
    assert (raw(archives_dir) / TEST_IMAGES).stat().st_mtime_ns == written
    assert torch.equal(again[0], images)
    assert torch.equal(again[1], labels)


@any_damage
def test_damaged_file_is_mended_from_its_archive(archives_dir, extracted_dir, damage):
    load_test_set(archives_dir)
    spoil(raw(archives_dir) / TEST_LABELS, damage)
    _, labels = load_test_set(archives_dir)
    expected = official(extracted_dir, TEST_LABELS)
    assert bytes(labels.tolist()) == expected[8:]
    assert (raw(archives_dir) / TEST_LABELS).read_bytes() == expected


@any_damage
def test_intact_file_will_do_for_a_damaged_archive(archives_dir, extracted_dir, damage):
    load_test_set(archives_dir)
    archive = raw(archives_dir) / f"{TEST_LABELS}.gz"
    spoil(archive, damage)
    _, labels = load_test_set(archives_dir)
    assert bytes(labels.tolist()) == official(extracted_dir, TEST_LABELS)[8:]


def test_extracted_files_will_do_without_archives(archives_dir, extracted_dir):
    load_test_set(archives_dir)
    for archive in raw(archives_dir).glob("*.gz"):
        archive.unlink()
    images, _ = load_test_set(archives_dir)
    assert images.numpy().tobytes() == official(extracted_dir, TEST_IMAGES)[16:]
    assert listing(raw(archives_dir)) == sorted([TEST_IMAGES, TEST_LABELS])


@any_damage
def test_damaged_file_and_damaged_archive_are_refused_by_name(archives_dir, damage):
    load_test_set(archives_dir)
    file = raw(archives_dir) / TEST_LABELS
    spoil(file, damage)
    spoil(raw(archives_dir) / f"{TEST_LABELS}.gz", damage)
    before = listing(raw(archives_dir))
    with pytest.raises(DataError, match=rf"{file} and {file}\.gz are damaged") as caught:
        load_test_set(archives_dir)
    assert "put the official archives" in str(caught.value)
    assert listing(raw(archives_dir)) == before


@any_damage
def test_damaged_archive_alone_is_refused_by_name(archives_dir, damage):
    archive = raw(archives_dir) / f"{TRAIN_LABELS}.gz"
    spoil(archive, damage)
    with pytest.raises(DataError, match=f"{archive} is damaged"):
        MNISTDataModule(str(archives_dir), source="local").prepare_data()


@any_damage
def test_damaged_file_without_archive_is_refused_by_name(archives_dir, damage):
    load_test_set(archives_dir)
    for archive in raw(archives_dir).glob("*.gz"):
        archive.unlink()
    spoil(raw(archives_dir) / TEST_LABELS, damage)
    with pytest.raises(DataError, match=f"{raw(archives_dir) / TEST_LABELS} is damaged"):
        load_test_set(archives_dir)


@pytest.mark.parametrize("name", NAMES)
def test_missing_file_is_named(archives_dir, name):
    (raw(archives_dir) / f"{name}.gz").unlink()
    with pytest.raises(DataError, match=rf"{raw(archives_dir) / name} is missing, and so is {name}\.gz"):
        MNISTDataModule(str(archives_dir), source="local").prepare_data()


def test_local_source_makes_no_folder(tmp_path):
    with pytest.raises(DataError, match="is missing"):
        MNISTDataModule(str(tmp_path / "nowhere"), source="local").setup()
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("source", ["local", "download"])
def test_data_folder_that_is_a_file_is_refused(tmp_path, source):
    (tmp_path / "data").write_text("no folder")
    with pytest.raises(DataError, match="is missing"):
        MNISTDataModule(str(tmp_path / "data"), source=source).setup()


@pytest.mark.parametrize("may_download", [False, True])
def test_read_only_archives_will_do(archives_dir, extracted_dir, lock_folder, may_download):
    before = sorted(raw(archives_dir).iterdir())
    lock_folder(raw(archives_dir))
    images, labels = load_test_set(archives_dir, may_download=may_download)
    assert images.numpy().tobytes() == official(extracted_dir, TEST_IMAGES)[16:]
    assert labels.numpy().tobytes() == official(extracted_dir, TEST_LABELS)[8:]
    assert sorted(raw(archives_dir).iterdir()) == before


@pytest.mark.parametrize("may_download", [False, True])
def test_read_only_extracted_files_will_do(archives_dir, extracted_dir, lock_folder, may_download):
    load_test_set(archives_dir)
    for archive in raw(archives_dir).glob("*.gz"):
        archive.unlink()
    lock_folder(raw(archives_dir))
    _, labels = load_test_set(archives_dir, may_download=may_download)
    assert labels.numpy().tobytes() == official(extracted_dir, TEST_LABELS)[8:]


def test_read_only_damaged_file_is_read_from_its_archive(archives_dir, extracted_dir, lock_folder):
    load_test_set(archives_dir)
    spoil(raw(archives_dir) / TEST_LABELS, DAMAGES["a wrong byte"])
    lock_folder(raw(archives_dir))
    _, labels = load_test_set(archives_dir)
    assert labels.numpy().tobytes() == official(extracted_dir, TEST_LABELS)[8:]


def test_read_only_folder_without_files_is_an_error(archives_dir, lock_folder):
    for archive in raw(archives_dir).iterdir():
        archive.unlink()
    lock_folder(raw(archives_dir))
    with pytest.raises(DataError, match="cannot be written to"):
        load_test_set(archives_dir, may_download=True)


def test_full_disk_costs_the_extracted_file_only(archives_dir, extracted_dir, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("datamodules.atomic.os.fsync", full)
    before = listing(raw(archives_dir))
    _, labels = load_test_set(archives_dir)
    assert labels.numpy().tobytes() == official(extracted_dir, TEST_LABELS)[8:]
    assert listing(raw(archives_dir)) == before


# The package without its __init__, which takes seconds to import Lightning.
PREPARE = """
import sys, time, types
from pathlib import Path

package = types.ModuleType("datamodules")
package.__path__ = [sys.argv[3]]
sys.modules["datamodules"] = package
from datamodules.mnist_files import MNISTFiles

folder = Path(sys.argv[1])
(folder / f"ready-{sys.argv[2]}").touch()
ends = time.monotonic() + 60
while len(list(folder.glob("ready-*"))) < 2 and time.monotonic() < ends:
    time.sleep(0.001)
images, labels = MNISTFiles(folder, "MNIST", may_download=False).load(train=False)
print(int(images.sum()), int(labels.sum()))
"""


def test_two_processes_may_prepare_one_folder_at_once(archives_dir, mnist):
    package = str(Path(mnist_files.__file__).parent)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PREPARE, archives_dir, name, package], stdout=subprocess.PIPE, text=True
        )
        for name in ("first", "second")
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    test = mnist.splits.test
    assert outputs == [f"{int(test.features.sum())} {int(test.targets.sum())}\n"] * 2
    assert listing(raw(archives_dir)) == sorted([*(f"{name}.gz" for name in NAMES), TEST_IMAGES, TEST_LABELS])


# The network.


@pytest.fixture
def mirrors(server, extracted_dir, monkeypatch):
    """A function that lets MNIST's mirrors be the server, in some ways."""
    server.contents = {path.name: path.read_bytes() for path in raw(extracted_dir).glob("*.gz")}

    def let(*manners):
        monkeypatch.setattr(datasets.MNIST, "mirrors", [server.mirror(manner) for manner in manners])

    return let


@pytest.mark.parametrize("source", ["auto", "download"])
def test_missing_archives_are_downloaded(tmp_path, mirrors, mnist, server, source):
    mirrors("good")
    module = MNISTDataModule(str(tmp_path), source=source, seed=0)
    module.prepare_data()
    module.setup()
    assert module.dataset_name == "MNIST"
    assert torch.equal(module.splits.val.features, mnist.splits.val.features)
    assert sorted(server.requests) == sorted(f"/good/{name}.gz" for name in NAMES)
    assert listing(raw(tmp_path)) == sorted([*NAMES, *(f"{name}.gz" for name in NAMES)])


def test_intact_files_are_not_downloaded(extracted_dir, mirrors, server):
    mirrors("good")
    load_test_set(extracted_dir, may_download=True)
    assert server.requests == []


def test_only_what_is_damaged_is_downloaded(archives_dir, mirrors, server, extracted_dir):
    mirrors("good")
    spoil(raw(archives_dir) / f"{TEST_LABELS}.gz", DAMAGES["truncated"])
    _, labels = load_test_set(archives_dir, may_download=True)
    assert labels.numpy().tobytes() == official(extracted_dir, TEST_LABELS)[8:]
    assert server.requests == [f"/good/{TEST_LABELS}.gz"]


def test_archives_are_downloaded_once_for_all_who_wait(tmp_path, mirrors, server):
    mirrors("good")
    with ThreadPoolExecutor(2) as pool:
        loads = [pool.submit(load_test_set, tmp_path, may_download=True) for _ in range(2)]
    (images, labels), (other_images, other_labels) = (load.result() for load in loads)
    assert torch.equal(images, other_images)
    assert torch.equal(labels, other_labels)
    assert sorted(server.requests) == [f"/good/{TEST_IMAGES}.gz", f"/good/{TEST_LABELS}.gz"]


def test_second_mirror_is_asked(tmp_path, mirrors, server):
    mirrors("wrong", "good")
    images, _ = load_test_set(tmp_path, may_download=True)
    assert images.shape == (10_000, 28, 28)
    assert server.requests[:2] == [f"/wrong/{TEST_IMAGES}.gz", f"/good/{TEST_IMAGES}.gz"]


@pytest.mark.parametrize("manner", ["wrong", "cut", "missing", "silent", "trickle"])
def test_bad_mirror_is_an_error_and_leaves_nothing(tmp_path, mirrors, monkeypatch, manner):
    mirrors(manner)
    monkeypatch.setattr(mnist_files, "download", partial(download, patience=0.3))
    began = time.monotonic()
    with pytest.raises(DataError, match=f"{NAMES[0]} is missing.*could not be downloaded"):
        MNISTDataModule(str(tmp_path), source="download").prepare_data()
    assert time.monotonic() - began < 30
    assert listing(raw(tmp_path)) == []


@pytest.mark.parametrize("manner", ["wrong", "silent"])
def test_digits_take_the_place_of_what_cannot_be_had(tmp_path, mirrors, monkeypatch, manner):
    mirrors(manner)
    monkeypatch.setattr(mnist_files, "download", partial(download, patience=0.3))
    module = MNISTDataModule(str(tmp_path))
    began = time.monotonic()
    with pytest.warns(FallbackWarning, match="BUNDLED DIGITS INSTEAD OF MNIST.*could not be downloaded"):
        module.setup()
    assert time.monotonic() - began < 30
    assert module.dataset_name == "digits"
    assert listing(raw(tmp_path)) == []


def test_no_network_is_an_error_for_who_wants_a_download(tmp_path):
    with pytest.raises(DataError, match="could not be downloaded"):
        MNISTDataModule(str(tmp_path), source="download").setup()


def test_auto_falls_back_where_nothing_can_be_written(tmp_path, lock_folder):
    lock_folder(tmp_path)
    module = MNISTDataModule(str(tmp_path / "data"))
    with pytest.warns(FallbackWarning, match="BUNDLED DIGITS INSTEAD OF MNIST"):
        module.setup()
    assert module.dataset_name == "digits"


# The bundled digits.


@pytest.fixture
def digits(tmp_path):
    module = MNISTDataModule(str(tmp_path), seed=0)
    with pytest.warns(FallbackWarning):
        module.prepare_data()
    module.setup()  # a second warning would be an error
    return module


def test_digits_have_their_sizes_and_their_name(digits):
    assert digits.description == "digits: 12,570 train, 180 val, 360 test; samples of 1x28x28, 10 classes"
    assert digits.state_dict()["dataset"] == "digits"


def test_digits_of_training_come_ten_times_and_nowhere_else(digits):
    unique, counts = digits.splits.train.features.flatten(1).unique(dim=0, return_counts=True)
    assert (len(unique), set(counts.tolist())) == (1257, {10})
    train = {tuple(image.tolist()) for image in unique}
    for split in (digits.splits.val, digits.splits.test):
        assert train.isdisjoint(tuple(image.tolist()) for image in split.features.flatten(1))


def test_digits_of_the_test_are_the_last_of_the_canonical_order(digits):
    from sklearn.datasets import load_digits

    theirs = load_digits()
    assert digits.splits.test.targets.tolist() == theirs.target[-360:].tolist()
    for ours, small in zip(digits.splits.test.features, theirs.images[-360:], strict=True):
        assert ours.double().sum() / 255 / 400 == pytest.approx(small.sum() / 16 / 64, abs=0.05)


def test_digits_look_like_those_of_the_data_set_they_stand_for(digits):
    images = digits.splits.train.features
    assert images.dtype == torch.uint8
    assert images.max() == 255
    assert (images[..., :4, :].max(), images[..., 24:].max()) == (0, 0)
    labels = digits.splits.train.targets.bincount()
    assert len(labels) == 10
    assert labels.min() > 1000


@pytest.mark.parametrize("source", ["auto", "local", "download"])
def test_digits_asked_for_are_no_surprise_and_leave_no_trace(tmp_path, digits, source):
    module = MNISTDataModule(str(tmp_path / "nowhere"), "digits", source, seed=0)
    module.prepare_data()
    module.setup()
    assert module.description == digits.description
    assert torch.equal(module.splits.val.features, digits.splits.val.features)
    assert not (tmp_path / "nowhere").exists()


def test_one_hot_targets_are_one_where_the_class_is():
    labels, vectors = (MNISTDataModule(dataset="digits", seed=0, one_hot=one_hot) for one_hot in (False, True))
    labels.setup()
    vectors.setup()
    assert vectors.description == labels.description
    for name in ("train", "val", "test"):
        ours, theirs = getattr(vectors.splits, name), getattr(labels.splits, name)
        assert torch.equal(ours.features, theirs.features)
        assert ours.targets.shape == (len(theirs), 10)
        assert torch.equal(ours.targets, torch.eye(10)[theirs.targets])
    features, classes = next(iter(labels.train_dataloader()))
    same_features, targets = next(iter(vectors.train_dataloader()))
    assert torch.equal(same_features, features)
    assert (targets.dtype, targets.argmax(dim=1).tolist()) == (torch.float32, classes.tolist())


@pytest.mark.parametrize("augment", [None, "shift", "affine", "elastic"])
@pytest.mark.parametrize("size", [28, 32, 14])
def test_rows_are_those_of_the_images_from_top_to_bottom(size, augment):
    arguments = {"dataset": "digits", "seed": 0, "image_size": size, "augment": augment, "batch_size": 50}
    images, rows = (MNISTDataModule(**arguments, as_rows=as_rows) for as_rows in (False, True))
    for module in (images, rows):
        module.setup()
    assert rows.splits.val.features.shape == images.splits.val.features.shape == (180, 1, size, size)
    for name in ("train", "val", "test", "predict"):
        expected, expected_labels = next(iter(getattr(images, f"{name}_dataloader")()))
        sequences, labels = next(iter(getattr(rows, f"{name}_dataloader")()))
        assert sequences.shape == (len(labels), size, size)
        assert (sequences.dtype, labels.tolist()) == (torch.float32, expected_labels.tolist())
        for step in range(size):
            assert torch.equal(sequences[:, step], expected[:, 0, step])


@pytest.mark.parametrize("size", [28, 32])
def test_rows_are_described_as_such(size):
    module = MNISTDataModule(dataset="digits", seed=0, image_size=size, as_rows=True)
    module.setup()
    told = f"samples of {size} rows of {size} pixels"
    assert module.description == f"digits: 12,570 train, 180 val, 360 test; {told}, 10 classes"


def test_rows_of_real_images_are_standardized_with_the_same_statistics(mnist, extracted_dir):
    module = MNISTDataModule(str(extracted_dir), source="local", seed=0, as_rows=True)
    module.setup()
    assert torch.equal(module.mean, mnist.mean)
    sequences, labels = next(iter(module.test_dataloader()))
    expected = (mnist.splits.test.features[:1000, 0].double() - mnist.mean.item()) / mnist.std.item()
    assert torch.allclose(sequences.double(), expected, atol=1e-5)
    assert torch.equal(labels, mnist.splits.test.targets[:1000])


def test_digits_are_the_same_each_time():
    for first, second in zip(bundled_digits(), bundled_digits(), strict=True):
        assert torch.equal(first.features, second.features)
        assert torch.equal(first.targets, second.targets)


@pytest.mark.parametrize(("val_size", "expected"), [(5000, 180), (100, 100), (0.1, 144)])
def test_digits_spare_few_for_validation(tmp_path, val_size, expected):
    module = MNISTDataModule(str(tmp_path), val_size=val_size)
    with pytest.warns(FallbackWarning):
        module.setup()
    assert len(module.splits.val) == expected
    assert len(module.splits.train) == 10 * (1437 - expected)


def test_run_with_digits_does_not_go_on_with_other_data(digits, mnist):
    with pytest.raises(DataError, match="trained on 'MNIST', but the data at hand are 'digits'"):
        digits.load_state_dict(mnist.state_dict())
    with pytest.raises(DataError, match="trained on 'digits', but the data at hand are 'MNIST'"):
        mnist.load_state_dict(digits.state_dict())


# The relatives, in miniature.


def idx(values):
    shape = values.shape
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + values.numpy().tobytes()


def miniature(train_part="train", test_part="t10k", prefix=""):
    """Contents of the four files of a data set with 60 + 10 images."""
    generator = torch.Generator().manual_seed(0)
    files = {}
    for part, samples in ((train_part, 60), (test_part, 10)):
        images = torch.randint(256, (samples, 28, 28), dtype=torch.uint8, generator=generator)
        files[f"{prefix}{part}-images-idx3-ubyte"] = idx(images)
        files[f"{prefix}{part}-labels-idx1-ubyte"] = idx(torch.arange(samples).remainder(10).byte())
    return files


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    """A function that puts archives of a miniature Fashion-MNIST to disk as the official ones."""
    monkeypatch.setattr(mnist_files, "_SAMPLES", {"train": 60, "t10k": 10})

    def put(**changes):
        files = miniature()
        files.update({name.replace("_", "-"): contents for name, contents in changes.items()})
        archives = {f"{name}.gz": gzip.compress(contents) for name, contents in files.items()}
        resources = [(name, hashlib.md5(archive).hexdigest()) for name, archive in archives.items()]
        monkeypatch.setattr(datasets.FashionMNIST, "resources", resources)
        raw(tmp_path, "FashionMNIST").mkdir(parents=True)
        for name, archive in archives.items():
            (raw(tmp_path, "FashionMNIST") / name).write_bytes(archive)
        return str(tmp_path)

    return put


def module_of(data_dir, **arguments):
    module = MNISTDataModule(data_dir, "FashionMNIST", "local", **{"batch_size": 5, "val_size": 20, **arguments})
    module.setup()
    return module


def test_relative_is_read_from_its_own_folder(fashion):
    module = module_of(fashion())
    assert module.description == "FashionMNIST: 40 train, 20 val, 10 test; samples of 1x28x28, 10 classes"
    assert module.splits.test.targets.tolist() == list(range(10))


def test_validation_is_drawn_from_the_training_set_by_the_seed(fashion):
    data_dir = fashion()
    modules = [module_of(data_dir, seed=seed) for seed in (1, 1, 2)]
    val = [module.splits.val.features for module in modules]
    assert torch.equal(val[0], val[1])
    assert not torch.equal(val[0], val[2])
    for module in modules:
        both = torch.cat([module.splits.train.features, module.splits.val.features]).flatten(1)
        assert len(both.unique(dim=0)) == 60
        assert torch.equal(module.splits.test.features, modules[0].splits.test.features)


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("train_labels_idx1_ubyte", torch.full((60,), 10), "holds the label 10, beyond 0..9"),
        ("t10k_labels_idx1_ubyte", torch.tensor([255] + [0] * 9), "holds the label 255, beyond 0..9"),
        ("train_labels_idx1_ubyte", torch.zeros(59), r"its shape is \(59,\) instead of \(60,\)"),
        ("train_labels_idx1_ubyte", torch.zeros(60, 1), r"its shape is \(60, 1\) instead of \(60,\)"),
        ("t10k_images_idx3_ubyte", torch.zeros(11, 28, 28), r"its shape is \(11, 28, 28\) instead of \(10, 28, 28\)"),
        ("t10k_images_idx3_ubyte", torch.zeros(10, 28, 27), r"its shape is \(10, 28, 27\) instead of \(10, 28, 28\)"),
        ("t10k_images_idx3_ubyte", torch.zeros(10, 784), r"its shape is \(10, 784\) instead of \(10, 28, 28\)"),
    ],
)
def test_contents_that_cannot_be_are_refused_by_name(fashion, name, values, told):
    data_dir = fashion(**{name: idx(values.byte())})
    with pytest.raises(DataError, match=f"raw/{name.replace('_', '-')} is damaged: .*{told}"):
        module_of(data_dir)


def test_archive_of_something_else_is_refused_by_name(fashion):
    data_dir = fashion(t10k_labels_idx1_ubyte=b"no such file")
    with pytest.raises(DataError, match="raw/t10k-labels-idx1-ubyte is damaged: it does not begin as an IDX file"):
        module_of(data_dir)


@any_damage
def test_damaged_file_of_a_relative_is_mended_from_its_archive(fashion, tmp_path, damage):
    first = module_of(fashion())
    file = raw(tmp_path, "FashionMNIST") / TRAIN_LABELS
    before = file.read_bytes()
    spoil(file, damage)
    again = module_of(str(tmp_path))
    assert torch.equal(again.splits.train.targets, first.splits.train.targets)
    assert file.read_bytes() == before


def test_file_of_a_relative_cannot_be_checked_without_its_archive(fashion, tmp_path):
    module_of(fashion())
    (raw(tmp_path, "FashionMNIST") / f"{TRAIN_LABELS}.gz").unlink()
    with pytest.raises(DataError, match=f"{TRAIN_LABELS} is damaged, or cannot be checked"):
        module_of(str(tmp_path))


@pytest.fixture
def emnist(monkeypatch):
    """The bundle of a miniature EMNIST, as the official one."""
    monkeypatch.setattr(mnist_files, "_EMNIST_SAMPLES", {"train": 60, "test": 10})
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as bundle:
        bundle.writestr("gzip/emnist-letters-train-images-idx3-ubyte.gz", b"not asked for")
        for name, contents in miniature(test_part="test", prefix="emnist-digits-").items():
            bundle.writestr(f"gzip/{name}.gz", gzip.compress(contents))
    monkeypatch.setattr(datasets.EMNIST, "md5", hashlib.md5(packed.getvalue()).hexdigest())
    return packed.getvalue()


def load_emnist(data_dir, *, may_download=False):
    return MNISTFiles(data_dir, "EMNIST", may_download=may_download).load(train=True)


def test_emnist_comes_out_of_its_bundle_and_upright(tmp_path, emnist):
    raw(tmp_path, "EMNIST").mkdir(parents=True)
    (raw(tmp_path, "EMNIST") / "gzip.zip").write_bytes(emnist)
    images, labels = load_emnist(tmp_path)
    stored = miniature(test_part="test", prefix="emnist-digits-")["emnist-digits-train-images-idx3-ubyte"][16:]
    assert images.transpose(1, 2).numpy().tobytes() == stored
    assert labels.tolist() == list(range(10)) * 6
    assert "emnist-letters-train-images-idx3-ubyte.gz" not in listing(raw(tmp_path, "EMNIST"))


def test_emnist_is_downloaded(tmp_path, emnist, server, monkeypatch):
    server.contents["gzip.zip"] = emnist
    monkeypatch.setattr(datasets.EMNIST, "url", server.mirror("good") + "gzip.zip")
    assert load_emnist(tmp_path, may_download=True)[0].shape == (60, 28, 28)
    assert server.requests == ["/good/gzip.zip"]


def test_wrong_bundle_is_refused_and_leaves_nothing(tmp_path, emnist, server, monkeypatch):
    server.contents["gzip.zip"] = emnist
    monkeypatch.setattr(datasets.EMNIST, "url", server.mirror("wrong") + "gzip.zip")
    with pytest.raises(DataError, match=r"gzip\.zip could not be downloaded"):
        load_emnist(tmp_path, may_download=True)
    assert listing(raw(tmp_path, "EMNIST")) == []


def test_missing_emnist_is_named(tmp_path):
    with pytest.raises(DataError, match="emnist-digits-train-images-idx3-ubyte is missing"):
        load_emnist(tmp_path)


@any_damage
def test_damaged_file_of_emnist_is_mended(tmp_path, emnist, damage):
    raw(tmp_path, "EMNIST").mkdir(parents=True)
    (raw(tmp_path, "EMNIST") / "gzip.zip").write_bytes(emnist)
    _, labels = load_emnist(tmp_path)
    spoil(raw(tmp_path, "EMNIST") / "emnist-digits-train-labels-idx1-ubyte", damage)
    assert torch.equal(load_emnist(tmp_path)[1], labels)


@any_damage
def test_damaged_archive_of_emnist_is_made_again_from_the_bundle(tmp_path, emnist, damage):
    raw(tmp_path, "EMNIST").mkdir(parents=True)
    (raw(tmp_path, "EMNIST") / "gzip.zip").write_bytes(emnist)
    _, labels = load_emnist(tmp_path)
    spoil(raw(tmp_path, "EMNIST") / "emnist-digits-train-labels-idx1-ubyte", damage)
    spoil(raw(tmp_path, "EMNIST") / "emnist-digits-train-labels-idx1-ubyte.gz", damage)
    assert torch.equal(load_emnist(tmp_path)[1], labels)


def test_read_only_bundle_will_do_or_is_an_error_of_ours(tmp_path, emnist, lock_folder):
    raw(tmp_path, "EMNIST").mkdir(parents=True)
    (raw(tmp_path, "EMNIST") / "gzip.zip").write_bytes(emnist)
    lock_folder(raw(tmp_path, "EMNIST"))
    with suppress(DataError):
        assert load_emnist(tmp_path)[1].tolist() == list(range(10)) * 6
