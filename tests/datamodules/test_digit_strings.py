import hashlib
import json
from functools import cache, partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.nn import functional
from torchvision import datasets

from datamodules import (
    DataError,
    DigitStringsDataModule,
    FallbackWarning,
    LabelBatch,
    MNISTDataModule,
    PaddedBatch,
    Split,
    mnist,
)
from datamodules.digit_strings import _LineLoader
from datamodules.portable_random import Stream
from zoo import CRNNTranscriber

WIDTH = 28

bundled_digits = cache(mnist.bundled_digits)  # they take a moment to read, and nothing here changes them


@pytest.fixture(autouse=True)
def one_thread_without_network(monkeypatch, closed_mirror):
    """No seed from elsewhere, no download; and tensors this small gain nothing from threads."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [closed_mirror])
    monkeypatch.setattr(mnist, "bundled_digits", bundled_digits)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def as_rank(monkeypatch):
    """A function that makes this process one rank of a world."""
    return lambda rank, world: monkeypatch.setattr("datamodules.loader._world", lambda: (rank, world))


@pytest.fixture
def plant(monkeypatch):
    """A function that puts images, ``(samples, 28, 28)``, and labels in the place of the bundled digits."""

    def put(train, test, train_labels=None, test_labels=None):
        splits = [
            Split(images[:, None], torch.arange(len(images)) % 10 if labels is None else labels)
            for images, labels in ((train, train_labels), (test, test_labels))
        ]
        monkeypatch.setattr(mnist, "bundled_digits", lambda: tuple(splits))

    return put


def make(**arguments):
    small = {"dataset": "digits", "lines_per_epoch": 60, "val_lines": 40, "test_lines": 50, "batch_size": 10, "seed": 0}
    return DigitStringsDataModule(**{**small, **arguments})


def ready(data):
    data.prepare_data()
    data.setup()
    return data


def lines_of(data, batches):
    """Of each line its pixels as bytes, ``(28, width)``, and what it reads."""
    lines = []
    for (images, widths), (labels, lengths) in batches:
        values = images * data.std + data.mean
        pixels = values.round()
        assert (values - pixels).abs().max() < 1e-2
        for image, width, label, length in zip(pixels, widths.tolist(), labels.tolist(), lengths.tolist(), strict=True):
            assert image[..., width:].sum() == 0
            assert label[length:] == [0] * (len(label) - length)
            text = "".join(DigitStringsDataModule.alphabet[number - 1] for number in label[:length])
            lines.append((image[0, :, :width].byte().numpy(), text))
    return lines


def made(data, split):
    return lines_of(data, getattr(data, f"{split}_dataloader")())


def keys(lines):
    """Something to compare lines by."""
    return [(text, image.shape, image.tobytes()) for image, text in lines]


def slow_lines(digits, count, stream, low, high, min_gap, max_gap):
    """The lines, pixel by pixel, from the numbers that the stream gives."""
    margins = max(0, max_gap) + 1
    for draws in stream.uniform(count, 2 + 2 * high).tolist():
        number = low + int(draws[0] * (high - low + 1))
        behind = 2 + int(draws[1] * margins)
        pixels, text, begin, end, last = {}, "", None, None, 0
        for place in range(number):
            sample = int(draws[2 + place] * len(digits))
            image = digits.features[sample, 0].tolist()
            text += str(int(digits.targets[sample]))
            inked = [column for column in range(WIDTH) if any(image[row][column] for row in range(WIDTH))]
            draw = draws[2 + high + place]
            if place == 0:
                begin = 2 + int(draw * margins)
            else:
                begin = max(begin + 8, end + 1 + min_gap + int(draw * (max_gap - min_gap + 1)))
            end = begin + inked[-1] - inked[0]
            last = max(last, end)
            for row in range(WIDTH):
                for column in inked:
                    where = row, begin + column - inked[0]
                    pixels[where] = max(pixels.get(where, 0), image[row][column])
        line = np.zeros((WIDTH, last + 1 + behind), dtype=np.uint8)
        for where, value in pixels.items():
            line[where] = value
        yield line, text


def digits_of(**arguments):
    """The digits that a line may be made of."""
    return ready(MNISTDataModule(**{"dataset": "digits", "seed": 0, **arguments})).splits


# The lines.

LAYOUTS = {
    "as given": (3, 7, -3, 8),
    "one digit": (1, 1, 0, 0),
    "on top of each other": (2, 9, -28, -20),
    "far apart": (1, 4, 20, 28),
    "some of both": (5, 5, -28, 28),
}


@pytest.mark.parametrize(("low", "high", "min_gap", "max_gap"), LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("seed", [0, 5])
def test_lines_are_their_digits_side_by_side_pixel_by_pixel(low, high, min_gap, max_gap, seed):
    layout = {"min_digits": low, "max_digits": high, "min_gap": min_gap, "max_gap": max_gap}
    data = ready(make(seed=seed, val_lines=12, test_lines=12, lines_per_epoch=12, batch_size=4, **layout))
    digits = digits_of(seed=seed)
    for split, stream in (("val", Stream(seed, "validation lines")), ("test", Stream(0, "test lines"))):
        expected = list(slow_lines(getattr(digits, split), 12, stream, low, high, min_gap, max_gap))
        assert keys(made(data, split)) == keys(expected)
    for epoch in range(2):
        stream = Stream(seed, f"training lines of epoch {epoch}")
        loader = data.train_dataloader()
        loader.set_epoch(epoch)
        expected = slow_lines(digits.train, 12, stream, low, high, min_gap, max_gap)
        assert sorted(keys(lines_of(data, loader))) == sorted(keys(expected))


def test_batches_are_of_the_stated_types_and_no_wider_than_need_be():
    data = ready(make(val_lines=23, eval_batch_size=5))
    shapes = set()
    for split in ("train", "val", "test", "predict"):
        for features, targets in getattr(data, f"{split}_dataloader")():
            assert (type(features), type(targets)) == (PaddedBatch, LabelBatch)
            (images, widths), (labels, lengths) = features, targets
            assert (images.dtype, widths.dtype, labels.dtype, lengths.dtype) == (torch.float32, *[torch.int64] * 3)
            assert images.shape == (len(widths), 1, 28, int(widths.max()))
            assert labels.shape == (len(lengths), int(lengths.max()))
            assert len(labels) == len(images)
            assert torch.equal(labels > 0, torch.arange(labels.shape[1]) < lengths[:, None])
            assert labels.max() <= 10
            shapes.add(images.shape)
    assert len(shapes) > 5


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_labels_are_what_the_digits_are(plant, split):
    """A digit d is a bar of value 10 d + 10, so that a line can be read."""
    images = torch.zeros(300, 28, 28, dtype=torch.uint8)
    labels = torch.randint(10, (300,), generator=torch.Generator().manual_seed(0))
    images[:, 5:20, 12:15] = (10 * labels + 10).byte()[:, None, None]
    plant(images[:200], images[200:], labels[:200], labels[200:])
    data = ready(make(min_gap=1, val_size=50))
    texts = set()
    for image, text in made(data, split):
        row = image[10].tolist()
        read = [value // 10 - 1 for before, value in zip([0, *row], row, strict=False) if value and not before]
        assert "".join(map(str, read)) == text
        texts.add(text)
    assert len(texts) > 30
    assert set("".join(texts)) == set("0123456789")


def test_lines_are_made_of_the_digits_of_their_own_split_alone(plant):
    """Each image has a value of its own, so that a line tells which digits are in it."""
    values = torch.arange(1, 251, dtype=torch.uint8)
    images = values[:, None, None].expand(-1, 28, 28)
    plant(images[:200], images[200:])
    seen = {}
    for seed in (0, 1):
        data = ready(make(lines_per_epoch=500, val_lines=200, test_lines=200, min_gap=1, val_size=40, seed=seed))
        for split in ("train", "val", "test"):
            lines = made(data, split)
            seen[split, seed] = {value for image, _ in lines for value in set(image.flatten().tolist()) - {0}}
        assert seen["train", seed].isdisjoint(seen["val", seed])
        assert seen["train", seed] | seen["val", seed] == set(range(1, 201))
        assert len(seen["val", seed]) == 40
        assert seen["test", seed] == set(range(201, 251))
    assert seen["val", 0] != seen["val", 1]


def columns_of(image):
    return (image > 0).any(axis=0).tolist()


@pytest.mark.parametrize(("min_gap", "max_gap"), [(1, 4), (0, 0), (8, 8), (-3, 8), (-5, -5), (-28, 28)], ids=str)
def test_gaps_are_as_even_as_asked_for_overlaps_included(plant, min_gap, max_gap):
    """Each digit is a stroke in a row of its own, 20 wide, in any place of the image."""
    images = torch.zeros(200, 28, 28, dtype=torch.uint8)
    for sample in range(200):
        images[sample, sample % 28, sample % 9 : sample % 9 + 20] = 200
    plant(images[:100], images[100:])
    data = ready(make(min_gap=min_gap, max_gap=max_gap, test_lines=2000, min_digits=2, max_digits=2, val_size=9))
    gaps, starts, ends = [], [], []
    for image, _ in made(data, "test"):
        rows = np.flatnonzero(image.any(axis=1))
        inked = np.flatnonzero(columns_of(image))
        starts.append(inked[0])
        ends.append(image.shape[1] - 1 - inked[-1])
        if len(rows) == 2:
            first, second = sorted(int(np.flatnonzero(image[row])[0]) for row in rows)
            gaps.append(second - first - 20)
    expected = [max(gap, 8 - 20) for gap in range(min_gap, max_gap + 1)]
    assert set(gaps) == set(expected)
    for gap in set(expected):
        share = expected.count(gap) / len(expected)
        assert gaps.count(gap) / len(gaps) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / len(gaps)))
    for margins in (starts, ends):
        assert set(margins) == set(range(2, 3 + max(0, max_gap)))


def test_where_digits_overlap_the_darker_pixel_counts(plant):
    images = torch.zeros(200, 28, 28, dtype=torch.uint8)
    images[0::2, :, 4:24] = 60
    images[1::2, :, 4:24] = 200
    plant(images[:100], images[100:], *[torch.arange(100) % 2] * 2)
    data = ready(make(min_gap=-8, max_gap=-8, min_digits=2, max_digits=2, val_size=9))
    expected = {
        "00": [60] * 32,
        "01": [60] * 12 + [200] * 20,
        "10": [200] * 20 + [60] * 12,
        "11": [200] * 32,
    }
    seen = set()
    for image, text in made(data, "test"):
        assert image[0, 2:-2].tolist() == expected[text]
        seen.add(text)
    assert len(seen) == 4


def test_image_without_ink_takes_one_column(plant):
    plant(torch.zeros(40, 28, 28, dtype=torch.uint8), torch.zeros(30, 28, 28, dtype=torch.uint8))
    data = make(min_gap=0, max_gap=0, val_size=10, batch_size=4)
    with pytest.raises(DataError, match="feature 0 is constant"):
        data.setup()  # nothing but such images cannot be standardized
    train = torch.zeros(40, 28, 28, dtype=torch.uint8)
    train[:, 3, 3] = 9
    plant(train, torch.zeros(30, 28, 28, dtype=torch.uint8))
    data = ready(make(min_gap=0, max_gap=0, val_size=10, batch_size=4))
    assert {(image.shape[1], image.any()) for image, text in made(data, "test") if len(text) == 3} == {
        (2 + 16 + 1 + 2, False)
    }


@pytest.mark.parametrize(("low", "high"), [(3, 7), (1, 2), (4, 4), (1, 12)])
def test_every_number_of_digits_is_as_frequent(low, high):
    data = ready(make(test_lines=3000, min_digits=low, max_digits=high))
    counts = torch.tensor([len(text) for _, text in made(data, "test")]).bincount()
    assert counts[:low].sum() == 0
    assert len(counts) == high + 1
    share = 1 / (high - low + 1)
    assert (counts[low:] / 3000 - share).abs().max() < 4 * np.sqrt(share * (1 - share) / 3000) + 1e-9


def test_every_digit_of_the_split_is_as_frequent(plant):
    images = (1 + torch.arange(100, dtype=torch.uint8))[:, None, None].expand(-1, 28, 28)
    plant(images, images)
    data = ready(make(test_lines=3000, min_digits=4, max_digits=4, min_gap=0, val_size=10))
    drawn = [int(value) for image, _ in made(data, "test") for value in image[0, 2:] if value]
    counts = torch.tensor(drawn).bincount()[1:] / 28
    assert counts.sum() == 12_000
    assert ((counts - 120).abs() < 5 * np.sqrt(120)).all()
    assert counts.std().item() == pytest.approx(np.sqrt(120), rel=0.3)


@pytest.mark.parametrize(
    ("low", "high", "min_gap", "max_gap"),
    [(1, 9, -28, -28), (100, 100, -28, -28), (1, 100, -28, 0), (3, 7, -3, 8)],
    ids=str,
)
@pytest.mark.parametrize("thin", [True, False])
def test_every_line_leaves_ctc_the_steps_it_needs(plant, low, high, min_gap, max_gap, thin):
    """Of digits of one column, all alike, the shortest lines leave not a step to spare."""
    if thin:
        images = torch.zeros(100, 28, 28, dtype=torch.uint8)
        images[:, 4:24, 14] = 255
        plant(images, images, *[torch.full((100,), 3)] * 2)
    layout = {"min_digits": low, "max_digits": high, "min_gap": min_gap, "max_gap": max_gap}
    data = ready(make(lines_per_epoch=50, test_lines=50, val_lines=10, val_size=20, **layout))
    spare = []
    for split in ("train", "test"):
        for (_, widths), (labels, lengths) in getattr(data, f"{split}_dataloader")():
            repeats = torch.tensor([sum(a == b != 0 for a, b in pairwise(row)) for row in labels.tolist()])
            spare += (widths // 4 - lengths - repeats).tolist()
            steps = int(widths.max()) // 4
            even = torch.zeros(steps, len(widths), 11).log_softmax(dim=2)
            loss = functional.ctc_loss(even, labels, widths // 4, lengths, reduction="none")
            assert loss.isfinite().all()
    assert min(spare) >= 0
    if thin and max_gap < 0:
        assert min(spare) == 0


# From the seed and the epoch.


def test_training_lines_are_a_function_of_seed_epoch_and_line():
    first, second = (ready(make(seed=3)) for _ in range(2))
    torch.manual_seed(1)
    loader = first.train_dataloader()
    epochs = [keys(lines_of(first, loader)) for _ in range(3)]
    torch.manual_seed(2)
    again = second.train_dataloader()
    for epoch in (2, 0, 1):
        again.set_epoch(epoch)
        assert keys(lines_of(second, again)) == epochs[epoch]
    other = ready(make(seed=4))
    epochs.append(keys(lines_of(other, other.train_dataloader())))
    assert len({line for epoch in epochs for line in epoch}) == 4 * 60


def test_fewer_lines_an_epoch_are_the_first_of_more():
    few, many = (ready(make(lines_per_epoch=lines)) for lines in (20, 60))
    ours, theirs = (set(keys(lines_of(data, data.train_dataloader()))) for data in (few, many))
    assert ours < theirs


@pytest.mark.parametrize("group_by_length", [False, True])
def test_ranks_together_train_on_the_lines_of_one_process(as_rank, group_by_length):
    epochs = []
    for world in (1, 2, 3):
        seen, counts = [], []
        for rank in range(world):
            as_rank(rank, world)
            data = ready(make(batch_size=12 // world, group_by_length=group_by_length))
            loader = data.train_dataloader()
            loader.set_epoch(1)
            parts = list(loader)
            counts.append(len(parts))
            seen += keys(lines_of(data, parts))
        assert counts == [5] * world
        assert len(set(seen)) == 60
        epochs.append(sorted(seen))
    assert epochs[0] == epochs[1] == epochs[2]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_lines_for_evaluation(as_rank, world):
    data = ready(make(eval_batch_size=7))
    expected = keys(made(data, "test"))
    seen = []
    for rank in range(world):
        as_rank(rank, world)
        seen += keys(made(data, "test"))
    assert sorted(seen) == sorted(expected)


def test_lines_for_validation_are_a_function_of_the_seed_and_those_of_the_test_are_always_the_same():
    val, test = ([keys(made(ready(make(seed=seed)), split)) for seed in (0, 0, 1, 7)] for split in ("val", "test"))
    assert val[0] == val[1]
    assert len({str(lines) for lines in val}) == 3
    assert test[0] == test[1] == test[2] == test[3]


def test_seed_of_seed_everything_is_taken(monkeypatch):
    expected = keys(made(ready(make(seed=7)), "val"))
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    data = ready(make(seed=None))
    assert keys(made(data, "val")) == expected
    assert (data.seed, data.hparams["seed"]) == (7, 7)


def test_more_test_lines_begin_with_the_fewer():
    few, many = (keys(made(ready(make(test_lines=lines)), "test")) for lines in (20, 90))
    assert many[:20] == few


def digest(lines):
    widths = [image.shape[1] for image, _ in lines]
    return hashlib.sha256(json.dumps([[text for _, text in lines], widths]).encode()).hexdigest()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "75386d1f49348947cee51a07bc9cf2ec90ddfc869a370bdf482e1a8e50947bff"),
        (
            {"min_digits": 1, "max_digits": 12, "min_gap": -28, "max_gap": 28, "seed": 9},
            "b35b471d6b00c8682aae08aec41a02e799093a96a44708cc8af67b78ce1198e1",
        ),
    ],
    ids=["as given", "another layout"],
)
def test_test_lines_are_these_very_ones(arguments, expected):
    assert digest(made(ready(make(test_lines=500, **arguments)), "test")) == expected


def test_test_lines_of_mnist_are_these_very_ones(extracted_dir, request):
    """To the last pixel; and made of the digits of the test set."""
    theirs = request.getfixturevalue("mnist")
    data = ready(make(data_dir=str(extracted_dir), dataset="MNIST", source="local", test_lines=2000))
    lines = made(data, "test")
    assert [text for _, text in lines[:3]] == ["018", "815890", "6829397"]
    assert digest(lines) == "a492524a29857b0c75e6bef3ddb042569ce94b44f5e4b6752a86103f9710bcef"
    pixels = b"".join(image.tobytes() for image, _ in lines)
    assert hashlib.sha256(pixels).hexdigest() == "372b2ece8dd2c625134f02492498d21ea4f7110addaa4b66349aa4d7f12ebd69"
    expected = slow_lines(theirs.splits.test, 5, Stream(0, "test lines"), 3, 7, -3, 8)
    assert keys(lines[:5]) == keys(expected)
    assert torch.equal(data.mean, theirs.mean)
    assert torch.equal(data.std, theirs.std)
    assert data.description == "MNIST lines: 60 train, 40 val, 2,000 test; samples of 3 to 7 digits"
    validation = slow_lines(theirs.splits.val, 3, Stream(0, "validation lines"), 3, 7, -3, 8)
    assert keys(made(data, "val")[:3]) == keys(validation)


# Epochs.


@pytest.mark.parametrize(
    ("lines", "batch_size", "drop_last", "sizes"),
    [(60, 10, True, [10] * 6), (65, 10, True, [10] * 6), (65, 10, False, [10] * 6 + [5]), (7, 7, True, [7])],
)
@pytest.mark.parametrize("group_by_length", [False, True])
def test_an_epoch_has_as_many_lines_as_asked_for(lines, batch_size, drop_last, sizes, group_by_length):
    data = ready(
        make(lines_per_epoch=lines, batch_size=batch_size, drop_last=drop_last, group_by_length=group_by_length)
    )
    loader = data.train_dataloader()
    assert len(loader) == len(sizes)
    for _ in range(2):
        assert [len(widths) for (_, widths), _ in loader] == sizes


def test_description_states_the_lines_of_each_split():
    data = ready(make(lines_per_epoch=10_000, val_lines=10, test_lines=20))
    assert data.num_samples_by_split == {"train": 10_000, "val": 10, "test": 20}
    assert data.description == "digits lines: 10,000 train, 10 val, 20 test; samples of 3 to 7 digits"
    assert make(min_digits=5, max_digits=5).sample_in_words() == "5 digits"
    assert len(data.train_dataloader()) == 1000
    assert [len(widths) for (_, widths), _ in data.val_dataloader()] == [10]


def test_lines_of_like_width_save_padding():
    shares = []
    for group_by_length in (False, True):
        data = ready(make(lines_per_epoch=1280, batch_size=20, group_by_length=group_by_length))
        sizes = [(images.numel() / 28, int(widths.sum())) for (images, widths), _ in data.train_dataloader()]
        shares.append(1 - sum(valid for _, valid in sizes) / sum(size for size, _ in sizes))
    assert 0.25 < shares[0] < 0.4
    assert shares[1] < 0.04


@pytest.mark.parametrize("told", [True, False], ids=["epoch set again", "epoch not set"])
@pytest.mark.parametrize("position", [0, 1, 4, 5])
@pytest.mark.parametrize("group_by_length", [False, True])
def test_resume_goes_on_as_if_never_interrupted(group_by_length, position, told):
    data = ready(make(group_by_length=group_by_length))
    whole = data.train_dataloader()
    whole.set_epoch(2)
    expected, following = (keys(lines_of(data, whole)) for _ in range(2))

    interrupted = data.train_dataloader()
    interrupted.set_epoch(2)
    iterator = iter(interrupted)
    begun = [next(iterator) for _ in range(position)]
    state = json.loads(json.dumps(interrupted.state_dict()))

    resumed = data.train_dataloader()
    resumed.load_state_dict(state)
    if told:
        resumed.set_epoch(2)
    assert keys(lines_of(data, [*begun, *resumed])) == expected
    assert keys(lines_of(data, resumed)) == following


def test_lines_are_made_on_the_device_of_the_digits_but_for_lengths_and_labels():
    data = ready(make())
    meta = torch.device("meta")  # stands in for a GPU
    loader = _LineLoader(data.splits.train, 20, data._layout, 5, preprocess=data.preprocess(), device=meta)
    for (images, widths), (labels, lengths) in loader:
        assert (images.device.type, images.dtype) == ("meta", torch.float32)
        assert {part.device.type for part in (widths, labels, lengths)} == {"cpu"}
        assert images.shape == (5, 1, 28, int(widths.max()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_lines_are_the_same_on_every_device():
    data = ready(make())
    loaders = [
        _LineLoader(data.splits.train, 60, data._layout, 10, group_by_length=True, device=device)
        for device in (None, torch.device("cuda"))
    ]
    for (ours, targets), (theirs, same) in zip(*loaders, strict=True):
        assert torch.equal(ours.values, theirs.values.cpu())
        assert torch.equal(ours.lengths, theirs.lengths)
        assert torch.equal(targets.values, same.values)


# Arguments, and where the digits come from.


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"lines_per_epoch": 0}, "lines_per_epoch must be an integer of at least 1, got 0"),
        ({"val_lines": -1}, "val_lines must be an integer of at least 1, got -1"),
        ({"test_lines": 1.5}, "test_lines must be an integer of at least 1, got 1.5"),
        ({"min_digits": 0}, "min_digits must be an integer of at least 1, got 0"),
        ({"max_digits": True}, "max_digits must be an integer of at least 1, got True"),
        ({"min_digits": 8}, "min_digits and max_digits must be a range up to 100, got 8 to 7"),
        ({"max_digits": 101}, "min_digits and max_digits must be a range up to 100, got 3 to 101"),
        ({"min_gap": 9}, "min_gap and max_gap must be whole numbers, a range within -28 to 28, got 9 to 8"),
        ({"min_gap": -29}, "min_gap and max_gap must be whole numbers, a range within -28 to 28, got -29 to 8"),
        ({"max_gap": 29}, "min_gap and max_gap must be whole numbers, a range within -28 to 28, got -3 to 29"),
        ({"max_gap": 1.5}, "min_gap and max_gap must be whole numbers, a range within -28 to 28, got -3 to 1.5"),
        ({"min_gap": False}, "min_gap and max_gap must be whole numbers, a range within -28 to 28, got False to 8"),
        ({"min_gap": "0"}, "min_gap and max_gap must be whole numbers, a range within -28 to 28, got '0' to 8"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"eval_batch_size": None}, "eval_batch_size must be an integer of at least 1, got None"),
        ({"val_size": 0}, "val_size must be a share between 0 and 1 or a number of samples, got 0"),
        ({"dataset": "CIFAR10"}, "dataset must be one of 'MNIST', .*, got 'CIFAR10'"),
        ({"source": "web"}, "source must be one of 'auto', 'local', 'download', got 'web'"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"seed": 1.5}, "seed must be an integer of at least 0, got 1.5"),
        ({"seed": "1"}, "seed must be an integer of at least 0, got '1'"),
        ({"seed": True}, "seed must be an integer of at least 0, got True"),
    ],
    ids=str,
)
def test_wrong_argument_is_refused_at_once(arguments, told):
    with pytest.raises(DataError, match=f"^{told}$"):
        make(**arguments)


def test_batch_of_more_lines_than_an_epoch_has_is_refused_with_a_remedy():
    with pytest.raises(
        DataError, match=r"the training split has 9 samples, fewer than one batch of 10: lower batch_size"
    ):
        make(lines_per_epoch=9).setup()
    # It is the lines that count, not the digits they are made of.
    assert len(ready(make(lines_per_epoch=20_000, batch_size=15_000)).train_dataloader()) == 1
    whole = ready(make(lines_per_epoch=9, drop_last=False))
    assert [len(widths) for (_, widths), _ in whole.train_dataloader()] == [9]


@pytest.mark.parametrize("first", ["prepare_data", "setup"])
def test_bundled_digits_take_the_place_of_mnist_and_say_so_once(tmp_path, first):
    data = make(data_dir=str(tmp_path), dataset="MNIST")
    assert data.dataset_name == "MNIST lines"
    with pytest.warns(FallbackWarning, match="BUNDLED DIGITS INSTEAD OF MNIST") as told:
        getattr(data, first)()
    assert len(told) == 1
    data.setup()  # a second warning would be an error
    assert data.dataset_name == data.state_dict()["dataset"] == "digits lines"
    asked_for = ready(make())
    for split in ("train", "val", "test"):
        assert keys(made(data, split)) == keys(made(asked_for, split))


def test_missing_files_are_an_error_for_who_wants_them(tmp_path):
    with pytest.raises(DataError, match="is missing"):
        make(data_dir=str(tmp_path), dataset="MNIST", source="local").prepare_data()


def test_run_does_not_go_on_with_lines_of_other_digits():
    state = {**ready(make()).state_dict(), "dataset": "MNIST lines"}
    with pytest.raises(DataError, match="trained on 'MNIST lines', but the data at hand are 'digits lines'"):
        make().load_state_dict(state)


def test_hyperparameters_make_the_same_module_again(tmp_path):
    arguments = {
        "data_dir": str(tmp_path),
        "dataset": "digits",
        "source": "local",
        "lines_per_epoch": 20,
        "val_lines": 5,
        "test_lines": 6,
        "min_digits": 2,
        "max_digits": 4,
        "min_gap": -1,
        "max_gap": 2,
        "batch_size": 7,
        "eval_batch_size": 3,
        "val_size": 0.1,
        "group_by_length": False,
        "drop_last": False,
        "seed": 5,
    }
    data = DigitStringsDataModule(**arguments)
    assert dict(data.hparams) == arguments
    assert {type(value) for value in DigitStringsDataModule(tmp_path).hparams.values()} <= {str, int, float, bool}
    again = DigitStringsDataModule(**data.hparams)
    for split in ("train", "val", "test"):
        assert keys(made(ready(again), split)) == keys(made(ready(data), split))


# In a Trainer.


class SaveAt(Callback):
    def __init__(self, step, path):
        self.step = step
        self.path = path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def trainer_of(*callbacks, epochs=2):
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )


def transcriber():
    torch.manual_seed(0)
    return CRNNTranscriber(channels=(4, 8), hidden=8, optimizer=partial(torch.optim.Adam, lr=0.01))


def test_transcriber_trains_on_lines_and_reads_them(tmp_path):
    data, model = make(lines_per_epoch=80), transcriber()
    trainer = trainer_of()
    trainer.fit(model, data)
    assert trainer.global_step == 2 * 8
    [metrics] = trainer.test(model, data, verbose=False)
    assert metrics["test/loss"] < 4  # a network that has not learned even how rare a label is has 10 and more
    assert 0 < metrics["test/cer"] <= 1.2
    predictions = trainer.predict(model, data)
    texts = [text for prediction in predictions for text in prediction.texts]
    assert len(texts) == 50
    assert set("".join(texts)) <= set(data.alphabet)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    saved = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert saved["datamodule_hyper_parameters"] == dict(data.hparams)


@pytest.mark.parametrize("step", [2, 6])
def test_run_resumed_within_an_epoch_and_at_its_end_ends_with_the_same_weights(tmp_path, step):
    path = tmp_path / "saved.ckpt"
    whole, resumed = transcriber(), transcriber()
    trainer_of(SaveAt(step, path)).fit(whole, make())
    trainer_of().fit(resumed, make(), ckpt_path=path, weights_only=True)
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_two_passes_at_once_do_not_disturb_each_other():
    loader = ready(make()).train_dataloader()
    expected = list(loader)
    loader.set_epoch(0)
    first = iter(loader)
    seen = [next(first)]
    loader.set_epoch(1)
    next(iter(loader))
    seen += list(first)
    assert len(seen) == len(expected)
    for (one, _), (other, _) in zip(seen, expected, strict=True):
        assert torch.equal(one.values, other.values)


@pytest.mark.parametrize("dataset", ["FashionMNIST", "KMNIST", "mnist"])
def test_only_digits_make_digit_strings(dataset):
    with pytest.raises(DataError, match=r"dataset must be one of 'MNIST', 'EMNIST', 'digits', got"):
        make(dataset=dataset)


@pytest.mark.parametrize("lines", ["lines_per_epoch", "val_lines", "test_lines"])
def test_more_lines_than_fit_in_memory_are_refused_at_once(lines):
    with pytest.raises(DataError, match="100,000,000,000 lines do not fit in memory"):
        make(**{lines: 100_000_000_000})
