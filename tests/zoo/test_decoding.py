"""Decoding against enumeration of all paths, a textbook beam search, and cases worked out by hand."""

import itertools
import math

import pytest
import torch

from zoo.decoding import Decoding, greedy_decode, prefix_beam_search
from zoo.networks import ShapeError


def spelt(path):
    """What is left when repeats are merged and blanks taken out."""
    return tuple(label for label, _ in itertools.groupby(path) if label != 0)


def all_labellings(rows):
    """``{labels: probability}``, from each of the paths."""
    found = {}
    for path in itertools.product(range(len(rows[0])), repeat=len(rows)):
        probability = math.prod(row[label] for row, label in zip(rows, path, strict=True))
        found[spelt(path)] = found.get(spelt(path), 0.0) + probability
    return found


def textbook_search(rows, beam_width):
    """Prefix beam search that looks at every extension of every prefix."""
    beams = {(): (1.0, 0.0)}
    for row in rows:
        following = {}

        def add(prefix, blank, label, into=following):
            before = into.get(prefix, (0.0, 0.0))
            into[prefix] = (before[0] + blank, before[1] + label)

        for prefix, (blank, other) in beams.items():
            add(prefix, (blank + other) * row[0], 0.0)
            for label in range(1, len(row)):
                if prefix and prefix[-1] == label:
                    add(prefix, 0.0, other * row[label])
                    add((*prefix, label), 0.0, blank * row[label])
                else:
                    add((*prefix, label), 0.0, (blank + other) * row[label])
        beams = dict(sorted(following.items(), key=lambda item: -sum(item[1]))[:beam_width])
    labels, ends = next(iter(beams.items()))
    return labels, math.log(sum(ends))


def random_log_probs(*shape, seed, dtype=torch.float64, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(*shape, generator=generator, dtype=dtype)).log_softmax(dim=2)


def log_probs_of(*rows, dtype=torch.float64):
    return torch.tensor([rows], dtype=dtype).log()


def certain(path, num_labels):
    """Log-probabilities that leave nothing but one path."""
    return torch.eye(num_labels, dtype=torch.float64)[list(path)].log()[None]


# ---------------------------------------------------------------------- greedy


@pytest.mark.parametrize(
    ("path", "labels"),
    [
        ((1, 1, 2), (1, 2)),
        ((1, 0, 1), (1, 1)),
        ((0, 0, 0), ()),
        ((0, 2, 2, 0, 0, 2, 1, 1, 3, 0), (2, 2, 1, 3)),
        ((3,), (3,)),
        ((3, 3, 3, 3), (3,)),
        ((1, 2, 1, 2), (1, 2, 1, 2)),
    ],
)
@pytest.mark.parametrize("decode", [greedy_decode, prefix_beam_search])
def test_repeats_are_merged_and_then_the_blanks_taken_out(decode, path, labels):
    # All else has the log-probability -inf.
    assert decode(certain(path, 4)) == [Decoding(labels, 0.0)]


def test_the_greedy_log_probability_is_that_of_its_one_path():
    log_probs = log_probs_of((0.1, 0.7, 0.2), (0.2, 0.5, 0.3), (0.6, 0.1, 0.3), (0.3, 0.3, 0.4))
    [(labels, log_probability)] = greedy_decode(log_probs)
    assert labels == (1, 2)
    assert log_probability == pytest.approx(math.log(0.7 * 0.5 * 0.6 * 0.4), rel=1e-12)
    [(labels, log_probability)] = greedy_decode(log_probs, torch.tensor([2]))
    assert labels == (1,)
    assert log_probability == pytest.approx(math.log(0.7 * 0.5), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(10))
def test_greedy_takes_the_most_probable_of_all_paths(seed, dtype):
    log_probs = random_log_probs(1, 5, 3, seed=seed, dtype=dtype)
    rows = log_probs[0].double().exp().tolist()
    paths = itertools.product(range(3), repeat=5)
    best = max(paths, key=lambda path: math.prod(row[label] for row, label in zip(rows, path, strict=True)))
    [(labels, log_probability)] = greedy_decode(log_probs)
    assert labels == spelt(best)
    expected = sum(math.log(row[label]) for row, label in zip(rows, best, strict=True))
    assert log_probability == pytest.approx(expected, rel=1e-9)


# ---------------------------------------------------------------------- prefix beam search


def test_the_most_probable_path_need_not_spell_the_most_probable_labels():
    # Two steps, each the blank with 0.6 and a with 0.4. The best path is blank, blank: 0.36. But a is spelt by three:
    # a a (0.16), a blank (0.24), blank a (0.24), together 0.64.
    log_probs = log_probs_of((0.6, 0.4), (0.6, 0.4))
    [greedy], [beam] = greedy_decode(log_probs), prefix_beam_search(log_probs, beam_width=2)
    assert greedy.labels == ()
    assert greedy.log_probability == pytest.approx(math.log(0.36), rel=1e-12)
    assert beam.labels == (1,)
    assert beam.log_probability == pytest.approx(math.log(0.64), rel=1e-12)


def test_the_same_label_again_is_a_new_one_only_behind_a_blank():
    # a with 0.9, then the blank with 0.8, then a with 0.7. Without the blank between them a a a is one a:
    # aa: a blank a                                       0.9 0.8 0.7          = 0.504
    # a:  a a a, a a blank, a blank blank,                0.126 + 0.054 + 0.216
    #     blank a a, blank a blank, blank blank a         0.014 + 0.006 + 0.056 = 0.472
    log_probs = log_probs_of((0.1, 0.9), (0.8, 0.2), (0.3, 0.7))
    [(labels, log_probability)] = prefix_beam_search(log_probs)
    assert labels == (1, 1)
    assert log_probability == pytest.approx(math.log(0.504), rel=1e-12)
    [(labels, log_probability)] = prefix_beam_search(log_probs, torch.tensor([2]))
    assert labels == (1,)
    assert log_probability == pytest.approx(math.log(0.9 + 0.1 * 0.2), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("steps", "num_labels"), [(1, 2), (1, 5), (2, 3), (3, 4), (4, 3), (5, 3), (7, 2)])
def test_a_beam_that_holds_everything_finds_the_most_probable_labelling(steps, num_labels, dtype):
    log_probs = random_log_probs(12, steps, num_labels, seed=10 * steps + num_labels, dtype=dtype, spread=1.0)
    differs = 0
    for sample, (labels, log_probability) in zip(log_probs, prefix_beam_search(log_probs, None, 10_000), strict=True):
        labellings = all_labellings(sample.double().exp().tolist())
        assert sum(labellings.values()) == pytest.approx(1.0, abs=1e-5)
        assert labels == max(labellings, key=labellings.get)
        assert log_probability == pytest.approx(math.log(labellings[labels]), rel=1e-9)
        differs += labels != greedy_decode(sample[None])[0].labels
    assert differs or steps < 3  # there was something to find


@pytest.mark.parametrize("beam_width", [1, 2, 3, 5, 10])
@pytest.mark.parametrize(("num_labels", "spread"), [(2, 1.0), (3, 0.5), (4, 2.0), (11, 3.0)])
def test_a_small_beam_keeps_what_the_textbooks_search_keeps(beam_width, num_labels, spread):
    log_probs = random_log_probs(15, 12, num_labels, seed=beam_width + 100 * num_labels, spread=spread)
    for sample, (labels, log_probability) in zip(
        log_probs, prefix_beam_search(log_probs, beam_width=beam_width), strict=True
    ):
        expected, score = textbook_search(sample.exp().tolist(), beam_width)
        assert labels == expected
        assert log_probability == pytest.approx(score, rel=1e-9)


@pytest.mark.parametrize("beam_width", [1, 2, 4, 100])
def test_labels_that_cannot_be_have_no_share(beam_width):
    log_probs = random_log_probs(20, 5, 4, seed=beam_width)
    barred = torch.rand(log_probs.shape, generator=torch.Generator().manual_seed(3)) < 0.5
    barred[:, range(5), [0, 1, 0, 2, 3]] = False  # something is left of each step
    log_probs = log_probs.masked_fill(barred, -math.inf).log_softmax(dim=2)
    for sample, (labels, log_probability) in zip(
        log_probs, prefix_beam_search(log_probs, beam_width=beam_width), strict=True
    ):
        rows = sample.exp().tolist()
        labellings = all_labellings(rows)
        if beam_width == 100:
            assert labels == max(labellings, key=labellings.get)
            assert log_probability == pytest.approx(math.log(labellings[labels]), rel=1e-9)
        assert log_probability <= math.log(labellings[labels]) + 1e-9  # a small beam does not see all of its paths
        assert log_probability == pytest.approx(textbook_search(rows, beam_width)[1], rel=1e-9)


def test_a_step_in_which_nothing_can_be_is_refused():
    log_probs = random_log_probs(1, 3, 3, seed=0)
    log_probs[0, 1] = -math.inf
    with pytest.raises(ValueError, match="a step leaves every path found without a probability above zero"):
        prefix_beam_search(log_probs)


def test_two_thousand_steps_do_not_underflow():
    # 666 times two steps of nine labels and one that is b for certain, and two that are blank for certain. In the two
    # steps a is spelt with 0.15² + 2 · 0.15 · 0.2 = 0.0825, nothing with 0.04, any of the seven others with
    # 0.65² / 49 + 2 · 0.2 · 0.65 / 7 = 0.0458, and two labels with less. The product is about 10 to the power of -722.
    open_step, b = [0.2, 0.15, *[0.65 / 7] * 7, 0.0], [0.0] * 9 + [1.0]
    rows = [open_step, open_step, b] * 666 + [[1.0] + [0.0] * 9] * 2
    [(labels, log_probability)] = prefix_beam_search(log_probs_of(*rows), beam_width=5)
    assert labels == (1, 9) * 666
    assert log_probability == pytest.approx(666 * math.log(0.0825), rel=1e-9)
    [(labels, log_probability)] = greedy_decode(log_probs_of(*rows))
    assert labels == (9,) * 666
    assert log_probability == pytest.approx(666 * 2 * math.log(0.2), rel=1e-9)


def test_a_wider_beam_finds_no_less_here():
    log_probs = random_log_probs(10, 30, 6, seed=5, spread=0.7)
    scores = [sum(found.log_probability for found in prefix_beam_search(log_probs, None, width)) for width in (1, 30)]
    assert scores[0] < scores[1] - 1.0


# ---------------------------------------------------------------------- batches


@pytest.mark.parametrize("decode", [greedy_decode, prefix_beam_search])
@pytest.mark.parametrize("padding", [None, -math.inf, 5.0, math.nan])
def test_each_sample_is_decoded_as_if_it_were_alone_whatever_is_behind_it(decode, padding):
    log_probs, steps = random_log_probs(5, 9, 4, seed=8, spread=1.0), torch.tensor([9, 1, 4, 7, 2])
    alone = [decode(log_probs[[index], :count])[0] for index, count in enumerate(steps.tolist())]
    if padding is not None:
        for index, count in enumerate(steps.tolist()):
            log_probs[index, count:] = padding
    together = decode(log_probs, steps)
    assert [found.labels for found in together] == [found.labels for found in alone]
    scores = [found.log_probability for found in alone]
    assert [found.log_probability for found in together] == pytest.approx(scores, rel=1e-12)
    assert len(set(scores)) == 5


@pytest.mark.parametrize("decode", [greedy_decode, prefix_beam_search])
def test_of_nothing_nothing_is_read(decode):
    assert decode(torch.zeros(0, 4, 3)) == []
    assert decode(torch.zeros(0, 4, 3), torch.zeros(0, dtype=torch.int64)) == []
    assert decode(torch.zeros(2, 0, 3)) == [Decoding((), 0.0)] * 2


@pytest.mark.parametrize("decode", [greedy_decode, prefix_beam_search])
def test_log_probabilities_may_need_a_gradient_or_be_of_half_precision(decode):
    log_probs = random_log_probs(3, 8, 4, seed=2, dtype=torch.float32)
    expected = [found.labels for found in decode(log_probs)]
    assert [found.labels for found in decode(log_probs.clone().requires_grad_())] == expected
    assert [found.labels for found in decode(log_probs.bfloat16())] == expected


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("decode", [greedy_decode, prefix_beam_search])
@pytest.mark.parametrize(
    ("log_probs", "error", "message"),
    [
        (torch.zeros(2, 5, 3) + 0.5, ValueError, r"at most 0: apply log_softmax\(dim=2\) to logits first"),
        (torch.full((2, 5, 3), math.nan), ValueError, "there are NaN among the log-probabilities"),
        (torch.zeros(5, 3), ShapeError, r"expected log-probabilities of shape \(batch, steps, labels\), .* \(5, 3\)"),
        (torch.zeros(2, 5, 1), ShapeError, r"the blank and at least one label, got \(2, 5, 1\) of float32"),
        (torch.zeros(2, 5, 3, dtype=torch.int64), ShapeError, "floating-point, .* of int64"),
    ],
)
def test_what_are_no_log_probabilities_is_refused(decode, log_probs, error, message):
    with pytest.raises(error, match=message):
        decode(log_probs)


@pytest.mark.parametrize("decode", [greedy_decode, prefix_beam_search])
@pytest.mark.parametrize("value", [math.nan, 0.5])
def test_a_single_bad_value_in_a_valid_step_is_refused(decode, value):
    log_probs = random_log_probs(2, 5, 3, seed=0)
    log_probs[1, 2, 0] = value
    decode(log_probs, torch.tensor([5, 2]))
    with pytest.raises(ValueError, match="log-probabilities"):
        decode(log_probs, torch.tensor([5, 3]))


@pytest.mark.parametrize("decode", [greedy_decode, prefix_beam_search])
@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (torch.tensor([5, 6]), "sequence 1 has length 6, but the batch is padded to 5 steps"),
        (torch.tensor([0, 5]), "sequence 0 has length 0: each has at least one of the steps"),
        (torch.tensor([5, -1]), "sequence 1 has length -1"),
        (torch.tensor([5]), r"lengths must be of shape \(2,\) and type int64, got \(1,\)"),
        (torch.tensor([5.0, 5.0]), r"type int64, got \(2,\) and float32"),
        (torch.ones(2, dtype=torch.int64, device="meta"), "lengths must stay on the CPU, got them on meta"),
        ([5, 5], "lengths must be a tensor, got list"),
    ],
)
def test_steps_that_do_not_fit_are_refused(decode, steps, message):
    with pytest.raises(ShapeError, match=message):
        decode(random_log_probs(2, 5, 3, seed=0), steps)


@pytest.mark.parametrize("beam_width", [0, -1, 2.0, True])
def test_a_beam_holds_at_least_one_prefix(beam_width):
    with pytest.raises(ValueError, match="beam_width must be an integer of at least 1"):
        prefix_beam_search(random_log_probs(2, 5, 3, seed=0), beam_width=beam_width)
