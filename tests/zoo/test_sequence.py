"""Transcription with CTC against values by hand and by enumeration; lengths through the other tasks."""

import functools
import itertools
import math

import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from datamodules import BatchLoader, LabelBatch, Padded, PaddedBatch, TensorDataModule
from zoo import (
    BinaryClassification,
    CRNNTranscriber,
    CTCOnCPUWarning,
    MulticlassClassification,
    NonFiniteLossError,
    Regression,
    SequenceTranscription,
    TargetError,
)
from zoo.networks import Recurrent, ShapeError
from zoo.tasks.sequence import LabelSequences, loss_device

SGD = functools.partial(torch.optim.SGD, lr=0.5)
ADAM = functools.partial(torch.optim.Adam, lr=1e-2)


class Same(nn.Module):
    """Gives its inputs back; looks at no lengths."""

    def forward(self, inputs, lengths=None):
        return inputs


def on_logits(alphabet="abc", **arguments):
    """A task whose inputs are its logits."""
    return SequenceTranscription(network=Same(), alphabet=alphabet, **arguments)


def recurrent_task(**arguments):
    network = Recurrent(3, 6, 4, cell="gru", bidirectional=True, read="every")
    return SequenceTranscription(network=network, alphabet="abc", **arguments)


def padded_labels(*rows, padding=0):
    longest = max(map(len, rows))
    values = torch.tensor([[*row, *[padding] * (longest - len(row))] for row in rows])
    return Padded(values, torch.tensor([len(row) for row in rows]), labels=True)


def targets_of(*rows, padding=0):
    labels = padded_labels(*rows, padding=padding)
    return labels.values, labels.lengths


def ctc(task, logits, targets, steps=None):
    """The loss as a step computes it, checks included."""
    batch = (logits if steps is None else (logits, steps), targets)
    return task._shared_step(batch)[2]


def paths_of(target, steps, num_labels):
    """All paths that spell the target."""
    for path in itertools.product(range(num_labels), repeat=steps):
        if [label for label, _ in itertools.groupby(path) if label != 0] == list(target):
            yield path


def loss_by_enumeration(logits, target):
    """Negative log-probability of all paths that spell the target, over its length."""
    rows = logits.double().softmax(dim=1).tolist()
    total = sum(
        math.prod(row[label] for row, label in zip(rows, path, strict=True))
        for path in paths_of(target, len(rows), len(rows[0]))
    )
    return -math.log(total) / len(target)


def logits_that_spell(*paths, num_labels):
    """Logits so far apart that the paths are certain."""
    return 50.0 * torch.eye(num_labels)[torch.tensor(paths)]


@pytest.fixture
def algorithms(monkeypatch):
    """Lets a test choose deterministic algorithms, and puts all back that a trainer changes with them."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as a trainer would, for good
    yield torch.use_deterministic_algorithms
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])


# ---------------------------------------------------------------------- the loss


def test_the_loss_is_that_of_all_paths_written_out():
    # Probabilities of blank, a, b in three steps.
    rows = [[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]]
    logits = torch.tensor([rows] * 4, dtype=torch.float64).log()
    # ab: aab, abb, ab-, a-b, -ab
    ab = 0.3 * 0.6 * 0.6 + 0.3 * 0.3 * 0.6 + 0.3 * 0.3 * 0.2 + 0.3 * 0.1 * 0.6 + 0.5 * 0.6 * 0.6
    # a: aaa, aa-, a--, -aa, -a-, --a
    a = 0.3 * 0.6 * 0.2 + 0.3 * 0.6 * 0.2 + 0.3 * 0.1 * 0.2 + 0.5 * 0.6 * 0.2 + 0.5 * 0.6 * 0.2 + 0.5 * 0.1 * 0.2
    # bb: b-b alone; bab likewise
    bb, bab = 0.2 * 0.1 * 0.6, 0.2 * 0.6 * 0.6
    expected = [-math.log(ab) / 2, -math.log(a) / 1, -math.log(bb) / 2, -math.log(bab) / 3]
    targets = [(1, 2), (1,), (2, 2), (2, 1, 2)]
    task = on_logits("ab")
    for index, target in enumerate(targets):
        loss = ctc(task, logits[[index]], targets_of(target))
        assert loss.item() == pytest.approx(expected[index], rel=1e-12)
    # The mean over samples of the loss over its length, not the loss of all over all lengths.
    assert ctc(task, logits, targets_of(*targets)).item() == pytest.approx(sum(expected) / 4, rel=1e-12)


CASES = [  # labels of each sample, steps of each
    ([(1,), (2, 2), (3, 1, 3)], [5, 3, 4]),
    ([(1, 1, 1)], [5]),
    ([(2, 1), (3,), (1, 2, 3), (3, 3)], [2, 1, 3, 5]),
    ([(1, 2, 3, 1)], [6]),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "steps"), CASES)
def test_the_loss_is_that_of_all_paths_and_torchs_own(rows, steps, dtype):
    logits, task = 2.0 * torch.randn(len(rows), max(steps), 4, dtype=dtype), on_logits()
    loss = ctc(task, logits, targets_of(*rows), torch.tensor(steps))
    alone = [loss_by_enumeration(logits[i, : steps[i]], row) for i, row in enumerate(rows)]
    assert loss.item() == pytest.approx(sum(alone) / len(alone), rel=1e-5 if dtype == torch.float32 else 1e-12)
    targets = torch.tensor([label for row in rows for label in row])  # one after the other, as torch takes them, too
    lengths = torch.tensor([len(row) for row in rows])
    own = functional.ctc_loss(logits.log_softmax(2).transpose(0, 1), targets, torch.tensor(steps), lengths)
    torch.testing.assert_close(loss, own)
    assert loss.dtype == dtype


def test_what_stands_in_the_padding_changes_neither_the_loss_nor_its_gradient():
    rows, steps = [(1, 2), (3,), (2, 2, 1)], torch.tensor([3, 1, 6])
    clean = torch.randn(3, 6, 4, dtype=torch.float64)
    beyond = torch.arange(6) >= steps[:, None]
    losses, gradients = [], []
    for steps_padding, label_padding, further in [(0.0, 0, 0), (1e3, 3, 0), (-7.0, -5, 4), (math.nan, 99, 2)]:
        logits = clean.masked_fill(beyond[:, :, None], steps_padding)
        logits = torch.cat([logits, torch.full((3, further, 4), steps_padding, dtype=torch.float64)], dim=1)
        labels, lengths = targets_of(*rows, padding=label_padding)
        labels = torch.cat([labels, torch.full((3, further), label_padding)], dim=1)
        logits.requires_grad_()
        losses.append(ctc(on_logits(), logits, (labels, lengths), steps))
        gradients.append(torch.autograd.grad(losses[-1], logits)[0][:, :6])
    expected = sum(loss_by_enumeration(clean[i, : steps[i]], row) for i, row in enumerate(rows)) / 3
    assert [loss.item() for loss in losses] == pytest.approx([expected] * 4, rel=1e-12)
    for gradient in gradients:
        torch.testing.assert_close(gradient[~beyond], gradients[0][~beyond])
    for gradient in gradients[:3]:  # what is no number has no gradient that is one
        assert gradient[beyond].abs().max() == 0.0
    assert gradients[0][~beyond].abs().max() > 0.01


def test_the_gradient_agrees_with_finite_differences():
    logits = torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
    targets, steps = targets_of((1, 2), (3, 3), (2,), padding=-1), torch.tensor([5, 4, 2])
    assert torch.autograd.gradcheck(lambda values: ctc(on_logits(), values, targets, steps), logits)


@pytest.mark.parametrize("leaf", ["recurrent", "crnn"])
def test_the_first_loss_is_that_of_guessing(leaf):
    # Of n labels and r repeats there are C(steps + n - r, 2 n) paths, each with the probability 1 / 4 a step.
    rows, steps = [(1, 2, 3), (2, 2), (1,)], [8, 5, 3]
    repeats = [0, 1, 0]
    expected = [
        (count * math.log(4) - math.log(math.comb(count + len(row) - repeated, 2 * len(row)))) / len(row)
        for row, count, repeated in zip(rows, steps, repeats, strict=True)
    ]
    assert len(list(paths_of((2, 2), 5, 4))) == math.comb(5 + 2 - 1, 4)
    if leaf == "recurrent":
        task, inputs, lengths = recurrent_task(), torch.randn(3, 8, 3), torch.tensor(steps)
        head = task.network.head
    else:
        task = CRNNTranscriber(alphabet="abc", image_height=8, channels=(4, 4), hidden=5)
        inputs, lengths = torch.randn(3, 1, 8, 32), 4 * torch.tensor(steps)
        head = task.network.recurrent.head
    assert ctc(task, inputs, targets_of(*rows), lengths).item() == pytest.approx(sum(expected) / 3, abs=0.5)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    assert ctc(task, inputs, targets_of(*rows), lengths).item() == pytest.approx(sum(expected) / 3, rel=1e-6)


@pytest.mark.parametrize("leaf", ["recurrent", "crnn"])
def test_one_batch_can_be_overfitted(leaf, make_trainer, list_logger):
    rows = [(1, 2, 3), (2, 2), (1,), (3, 1, 1, 2)]
    if leaf == "recurrent":
        task = recurrent_task(optimizer=functools.partial(torch.optim.Adam, lr=3e-2))
        features = Padded(torch.randn(4, 9, 3), torch.tensor([6, 5, 4, 9]))
    else:
        task = CRNNTranscriber(alphabet="abc", image_height=8, channels=(4, 8), hidden=16, optimizer=ADAM)
        features = Padded(torch.randn(4, 1, 8, 40), torch.tensor([24, 21, 8, 40]), dim=3)
    one = BatchLoader(features, padded_labels(*rows), batch_size=4)
    make_trainer(max_epochs=120, logger=list_logger, check_val_every_n_epoch=120).fit(task, one, one)
    assert list_logger.values("train/loss")[0] > 1.0
    assert list_logger.values("val/loss")[119] < 0.1
    assert list_logger.values("val/cer")[119] == 0.0
    assert list_logger.values("val/sequence_accuracy")[119] == 1.0


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_losses_and_scores_have_their_32_bits_at_any_precision(make_trainer, precision):
    task, rows = recurrent_task(optimizer=SGD), [(1, 2, 3), (2, 2), (1,)]
    loader = BatchLoader(Padded(torch.randn(3, 8, 3), torch.tensor([8, 5, 3])), padded_labels(*rows), batch_size=3)
    trainer = make_trainer(max_epochs=1, precision=precision)
    trainer.fit(task, loader, loader)
    logged = trainer.callback_metrics
    assert all(torch.finfo(logged[name].dtype).bits >= 32 for name in ("train/loss", "val/loss", "val/cer"))
    [transcription] = trainer.predict(task, loader)
    assert transcription.log_probabilities.dtype == torch.float32
    assert transcription.log_probabilities.shape == (3,)


# ---------------------------------------------------------------------- metrics

READ = [  # target, path that is read, errors
    ("abc", (1, 1, 2, 3, 0, 0), 0),
    ("abc", (1, 2, 0, 0, 4, 4), 1),  # abd: a substitution
    ("abcd", (1, 0, 3, 3, 4, 0), 1),  # acd: a deletion
    ("ab", (1, 3, 2, 2, 2, 2), 1),  # acb: an insertion
    ("a", (0, 2, 0, 3, 0, 4), 3),  # bcd: a substitution and two insertions
    ("aa", (1, 0, 0, 1, 1, 0), 0),
    ("aa", (1, 1, 1, 1, 1, 1), 1),  # a
]


@pytest.mark.parametrize("stage", ["validate", "test"])
@pytest.mark.parametrize("batch_size", [7, 4, 3, 1])
def test_error_rate_and_accuracy_are_those_of_all_samples(make_trainer, stage, batch_size):
    rows = [["abcd".index(character) + 1 for character in target] for target, _, _ in READ]
    logits = logits_that_spell(*(path for _, path, _ in READ), num_labels=5)
    loader = BatchLoader(logits, padded_labels(*rows), batch_size=batch_size)
    [result] = getattr(make_trainer(), stage)(on_logits("abcd"), loader, verbose=False)
    prefix = {"validate": "val", "test": "test"}[stage]
    expected = {
        "loss": sum(loss_by_enumeration(logits[i], row) for i, row in enumerate(rows)) / 7,
        "cer": 7 / 17,
        "sequence_accuracy": 2 / 7,
    }
    # Not the means over batches: of 4 and 3 samples these would be (3 / 12 + 4 / 5) / 2 and (1 / 4 + 1 / 3) / 2.
    assert result == pytest.approx({f"{prefix}/{name}": value for name, value in expected.items()}, rel=1e-5)


def test_more_errors_than_characters_are_a_rate_above_one(make_trainer):
    logits = logits_that_spell((1, 2, 3, 1), num_labels=4)
    [result] = make_trainer().validate(on_logits(), BatchLoader(logits, padded_labels((2,)), 1), verbose=False)
    assert (result["val/cer"], result["val/sequence_accuracy"]) == (3.0, 0.0)


def test_metrics_do_not_see_the_padding(make_trainer):
    logits = logits_that_spell((1, 2, 3, 1, 2), (3, 0, 3, 2, 1), (2, 1, 1, 3, 3), num_labels=4)
    features = Padded(logits, torch.tensor([5, 3, 1]))
    labels = Padded(torch.tensor([[1, 2, 3, 1, 2], [3, 3, 77, -1, 0], [2, 2, 2, 2, 2]]), torch.tensor([5, 2, 1]))
    [result] = make_trainer().validate(on_logits(), BatchLoader(features, labels, batch_size=2), verbose=False)
    assert (result["val/cer"], result["val/sequence_accuracy"]) == (0.0, 1.0)
    assert result["val/loss"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "text", "score"),
    [
        ({}, "", 0.36),
        ({"decoder": "greedy"}, "", 0.36),
        ({"decoder": "beam"}, "a", 0.64),
        ({"decoder": "beam", "beam_width": 1}, "", 0.36),
    ],
)
def test_the_decoder_is_chosen_by_its_name(make_trainer, arguments, text, score):
    # Two steps, each the blank with 0.6 and a with 0.4: nothing is the best path, a is spelt by three.
    task, logits = on_logits("a", **arguments), torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log() + 3.0
    [result] = make_trainer().validate(task, BatchLoader(logits, padded_labels((1,)), 1), verbose=False)
    assert result["val/cer"] == (text != "a")
    assert result["val/sequence_accuracy"] == (text == "a")
    assert result["val/loss"] == pytest.approx(-math.log(0.64), rel=1e-6)
    read = task.predict_step(logits)
    assert read.texts == [text]
    assert read.log_probabilities.tolist() == pytest.approx([math.log(score)], rel=1e-6)


@pytest.mark.parametrize("decoder", ["greedy", "beam"])
def test_a_broken_model_has_a_loss_that_is_no_number_and_reads_nothing(make_trainer, decoder):
    logits = logits_that_spell((1, 2, 3), (3, 0, 3), num_labels=4)
    logits[1, 0, 2] = math.nan
    loader = BatchLoader(logits, padded_labels((1, 2, 3), (3, 3)), batch_size=1)
    [result] = make_trainer().test(on_logits(decoder=decoder), loader, verbose=False)
    assert math.isnan(result["test/loss"])
    assert result["test/cer"] == pytest.approx(1 / 5)  # of the second sample the last character is left
    with pytest.raises(ValueError, match="NaN among the log-probabilities"):
        on_logits(decoder=decoder).predict_step(logits)


def test_a_validation_loss_that_is_nan_ends_the_run(make_trainer):
    task, features = recurrent_task(optimizer=SGD), torch.randn(2, 5, 3)
    labels = padded_labels((1,), (2,))
    broken = features.clone()
    broken[1, 2, 0] = math.nan
    with pytest.raises(NonFiniteLossError, match="the validation loss became nan at step 2"):
        make_trainer(max_epochs=2).fit(task, BatchLoader(features, labels, 1), BatchLoader(broken, labels, 1))


# ---------------------------------------------------------------------- predictions


def test_texts_are_written_in_the_alphabet():
    task = on_logits(" ßé本😀")
    paths = [(2, 1, 1, 0, 1, 5), (4, 4, 0, 4, 3, 3), (0, 0, 0, 0, 0, 0)]
    read = task.predict_step(logits_that_spell(*paths, num_labels=6))
    assert read.texts == ["ß  😀", "本本é", ""]
    assert task.text([5, 1, 2]) == "😀 ß"
    targets = LabelSequences(*targets_of((2, 1, 1, 5), (4, 3), (1,)), steps=torch.tensor([6, 5, 1]))
    read, expected = task.metric_inputs(logits_that_spell(*paths, num_labels=6), targets)
    assert (read, expected) == (["ß  😀", "本本é", ""], ["ß  😀", "本é", " "])


def test_spaces_and_characters_beyond_ascii_count_as_one_each(make_trainer):
    logits = logits_that_spell((2, 1, 1, 0, 1, 5), (4, 4, 0, 4, 3, 3), num_labels=6)
    loader = BatchLoader(logits, padded_labels((2, 1, 1, 5), (4, 3)), batch_size=2)
    [result] = make_trainer().validate(on_logits(" ßé本😀"), loader, verbose=False)
    assert result["val/cer"] == pytest.approx(1 / 6)  # one 本 too many
    assert result["val/sequence_accuracy"] == 0.5


def test_predictions_are_texts_and_their_log_probabilities(make_trainer):
    task, inputs, lengths = recurrent_task(), torch.randn(5, 7, 3), torch.tensor([7, 2, 5, 1, 6])
    with torch.no_grad():
        paths = [task(inputs[[i], :count])[0].log_softmax(dim=1).max(dim=1) for i, count in enumerate(lengths)]
    texts = ["".join("-abc"[label] for label, _ in itertools.groupby(path.indices.tolist())) for path in paths]
    scores = [path.values.sum().item() for path in paths]
    loader = BatchLoader(Padded(inputs, lengths), padded_labels(*[(1,)] * 5), batch_size=2)
    read = make_trainer().predict(task, loader)
    assert [text for part in read for text in part.texts] == [text.replace("-", "") for text in texts]
    assert [score for part in read for score in part.log_probabilities.tolist()] == pytest.approx(scores, rel=1e-5)
    alone = task.predict_step(((inputs, lengths),))  # padded inputs, and no targets
    assert alone.texts == [text for part in read for text in part.texts]


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_predictions_need_no_targets_and_no_lengths(make_trainer):
    logits = logits_that_spell((1, 2, 3), (3, 0, 3), (0, 1, 0), num_labels=4)
    expected = ["abc", "cc", "a"]
    for data in (TensorDataset(logits), logits):  # batches of (inputs,), and of plain tensors
        read = make_trainer().predict(on_logits(), DataLoader(data, batch_size=2))
        assert [text for part in read for text in part.texts] == expected
    assert on_logits().predict_step((logits,)).texts == on_logits().predict_step(logits).texts == expected


# ---------------------------------------------------------------------- loaders


class Pairs(torch.utils.data.Dataset):
    """Samples as anyone's data set gives them: padded tensors beside their lengths."""

    def __init__(self, inputs, lengths, labels, label_lengths):
        self.parts = inputs, lengths, labels, label_lengths

    def __len__(self):
        return len(self.parts[0])

    def __getitem__(self, index):
        inputs, lengths, labels, label_lengths = self.parts
        return (inputs[index], int(lengths[index])), (labels[index], int(label_lengths[index]))


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_plain_dataloader_will_do(make_trainer):
    inputs, steps = torch.randn(5, 8, 3), torch.tensor([8, 5, 3, 4, 6])
    labels, lengths = targets_of((1, 2, 3), (2, 2), (1,), (3, 1), (1, 2))
    plain = DataLoader(Pairs(inputs, steps, labels, lengths), batch_size=2)
    [(first_inputs, first_labels), *_] = plain
    assert isinstance(first_inputs, list)
    assert isinstance(first_labels, list)
    ours = BatchLoader(Padded(inputs, steps), Padded(labels, lengths, labels=True), batch_size=2)
    results = []
    for loader in (plain, ours):
        torch.manual_seed(3)
        task = recurrent_task(optimizer=SGD)
        trainer = make_trainer(max_epochs=2)
        trainer.fit(task, loader, loader)
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        texts = [text for part in trainer.predict(task, loader) for text in part.texts]
        results.append((metrics, texts))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    assert results[0][0].keys() >= {"train/loss", "val/loss", "val/cer", "val/sequence_accuracy"}
    assert results[0][1] == results[1][1]


def test_lengths_and_labels_stay_on_the_cpu_when_a_batch_is_moved():
    inputs = PaddedBatch(torch.zeros(2, 5, 3), torch.tensor([5, 2]))
    targets = LabelBatch(torch.ones(2, 4, dtype=torch.int64), torch.tensor([4, 1]))
    moved_inputs, moved_targets = move_data_to_device((inputs, targets), torch.device("meta"))
    assert type(moved_inputs) is PaddedBatch
    assert type(moved_targets) is LabelBatch
    assert moved_inputs.values.device.type == "meta"
    assert moved_inputs.lengths.tolist() == [5, 2]
    assert (moved_targets.values.device.type, moved_targets.lengths.tolist()) == ("cpu", [4, 1])


# ---------------------------------------------------------------------- targets and lengths that are refused

LOGITS = torch.zeros(2, 5, 4)


@pytest.mark.parametrize(
    ("rows", "lengths", "message"),
    [
        ([[1, 2], [1, 2]], [2, 0], "the target of sample 1 of the batch has length 0: a target has at least one label"),
        ([[1, 2], [1, 2]], [-1, 2], "sample 0 of the batch has length -1"),
        ([[1, 2], [1, 2]], [2, 3], "sample 1 of the batch has length 3, but the targets are padded to 2 labels"),
        ([[1, 2], [3, 0]], [2, 2], "sample 1 .* holds the label 0, which is the blank: the 3 characters .* from 1"),
        ([[1, 4], [3, 0]], [2, 1], "sample 0 .* holds the label 4: the 3 characters of the alphabet count from 1"),
        ([[1, 0], [-2, 0]], [1, 1], "sample 1 .* holds the label -2: the 3 characters of the alphabet count from 1"),
        ([[9, -9], [3, 3]], [2, 2], "sample 0 .* holds the label -9"),
        (
            [[1, 1, 1, 2], [2, 2, 2, 2]],
            [3, 4],
            "the target of sample 1 of the batch needs 7 steps, 4 labels and 3 between labels that repeat, but has 5: "
            "give it a longer input, or a network that shortens it less",
        ),
        ([[1, 1, 2, 3, 1], [2, 1, 2, 3, 1]], [5, 5], "sample 0 .* needs 6 steps, 5 labels and 1 between .* has 5"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_targets_that_cannot_be_are_refused(rows, lengths, message, training):
    with pytest.raises(TargetError, match=message):
        ctc(on_logits().train(training), LOGITS, (torch.tensor(rows), torch.tensor(lengths)))


def test_a_target_that_just_fits_has_a_finite_loss():
    # aab in four steps: a blank a b, and no other path.
    logits = torch.randn(1, 4, 4, dtype=torch.float64)
    log_probs = logits[0].log_softmax(dim=1)
    expected = -(log_probs[0, 1] + log_probs[1, 0] + log_probs[2, 1] + log_probs[3, 2]).item() / 3
    assert ctc(on_logits(), logits, targets_of((1, 1, 2))).item() == pytest.approx(expected, rel=1e-12)
    with pytest.raises(TargetError, match="needs 4 steps, 3 labels and 1 between labels that repeat, but has 3"):
        ctc(on_logits(), logits, targets_of((1, 1, 2)), torch.tensor([3]))
    # In its padding labels may repeat.
    assert ctc(on_logits(), logits, targets_of((1,), padding=1), torch.tensor([1])).isfinite()


def test_a_label_that_the_network_rules_out_is_an_infinite_loss_and_no_less():
    logits = torch.zeros(2, 4, 4)
    logits[1, :, 2] = -math.inf
    assert ctc(on_logits(), logits, targets_of((1,), (3,))).isfinite()
    assert ctc(on_logits(), logits, targets_of((1,), (2,))).item() == math.inf


@pytest.mark.parametrize("alone", [False, True])
def test_a_target_too_long_for_its_image_ends_training_before_the_first_step(make_trainer, alone):
    task = CRNNTranscriber(alphabet="abc", image_height=8, channels=(4, 4), hidden=5)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    images, widths = torch.randn(3, 1, 8, 40), torch.tensor([40, 40, 15])  # three steps of the last
    rows = [(1, 2), (3,), (1, 2, 2)]
    if alone:
        loader = BatchLoader(images[2:, :, :, :15].clone(), padded_labels(rows[2]), batch_size=1)
    else:
        loader = BatchLoader(Padded(images, widths, dim=3), padded_labels(*rows), batch_size=3)
    message = f"sample {0 if alone else 2} of the batch needs 4 steps, 3 labels and 1 between .* but has 3"
    with pytest.raises(TargetError, match=message):
        make_trainer(max_epochs=1).fit(task, loader, loader)
    assert all(torch.equal(task.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.ones(2, 3, dtype=torch.int64), "targets must be a pair of labels and their lengths, got Tensor"),
        ((torch.ones(2, 3, dtype=torch.int64),), "must be a pair of labels and their lengths, got tuple"),
        ("ab", "must be a tensor, got str"),
        (([[1], [2]], torch.ones(2, dtype=torch.int64)), "the labels of the targets must be a tensor, got list"),
        ((torch.ones(2, 1, dtype=torch.int64), [1, 1]), "the lengths of the targets must be a tensor, got list"),
        (
            (torch.ones(2, 3), torch.ones(2, dtype=torch.int64)),
            r"the labels of the targets must be of shape \(2, longest\) and type int64, got \(2, 3\) and float32",
        ),
        (
            (torch.ones(2, 3, dtype=torch.int32), torch.ones(2, dtype=torch.int64)),
            "the labels of the targets .* and int32",
        ),
        (
            (torch.ones(6, dtype=torch.int64), torch.tensor([3, 3])),
            r"the labels of the targets must be of shape \(2, longest\) and type int64, got \(6,\)",
        ),
        (
            (torch.ones(3, 3, dtype=torch.int64), torch.ones(2, dtype=torch.int64)),
            r"the labels of the targets .* \(3, 3\)",
        ),
        (
            (torch.ones(2, 3, dtype=torch.int64), torch.ones(2)),
            r"the lengths of the targets must be of shape \(2,\) and type int64, got \(2,\) and float32",
        ),
        (
            (torch.ones(2, 3, dtype=torch.int64), torch.ones(3, dtype=torch.int64)),
            r"the lengths of the targets .* \(3,\)",
        ),
        (
            (torch.ones(2, 3, dtype=torch.int64, device="meta"), torch.ones(2, dtype=torch.int64)),
            "the labels of the targets must stay on the CPU, got them on meta",
        ),
        (
            (torch.ones(2, 3, dtype=torch.int64), torch.ones(2, dtype=torch.int64, device="meta")),
            "the lengths of the targets must stay on the CPU, got them on meta",
        ),
    ],
)
def test_targets_of_another_form_are_refused(targets, message):
    with pytest.raises(TargetError, match=message):
        ctc(on_logits(), LOGITS, targets)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (torch.tensor([5, 0]), "sequence 1 has length 0: each has at least one of the steps"),
        (torch.tensor([-1, 5]), "sequence 0 has length -1"),
        (torch.tensor([5, 6]), "has length 6, but the batch is padded to 5 steps|gives 5 steps where 6 were expected"),
        (torch.tensor([5]), r"lengths must be of shape \(2,\) and type int64, got \(1,\)"),
        (torch.tensor([5.0, 5.0]), "type int64, got .* float32"),
        (torch.ones(2, dtype=torch.int64, device="meta"), "lengths must stay on the CPU, got them on meta"),
    ],
)
@pytest.mark.parametrize("task", [recurrent_task, on_logits])  # the one's network looks at its lengths
def test_lengths_of_inputs_that_do_not_fit_are_refused(task, lengths, message):
    inputs = torch.zeros(2, 5, 3 if task is recurrent_task else 4)
    with pytest.raises(ShapeError, match=message):
        ctc(task(), inputs, targets_of((1,), (2,)), lengths)
    with pytest.raises(ShapeError, match=message):
        task().predict_step(((inputs, lengths),))


def test_lengths_that_are_a_list_are_refused():
    with pytest.raises(ShapeError, match="lengths must be a tensor, got list"):
        recurrent_task().predict_step(((torch.zeros(2, 5, 3), [5, 5]),))


@pytest.mark.parametrize("outputs", [(2, 5, 3), (2, 5, 5), (2, 4)])
def test_a_network_with_another_number_of_outputs_is_refused(outputs):
    message = (
        rf"the network must give logits of shape \(batch, steps, 4\), one for the blank .* of 'abc', got \({outputs[0]}"
    )
    with pytest.raises(TargetError, match=message):
        ctc(on_logits(), torch.zeros(outputs), targets_of((1,), (2,)))
    with pytest.raises(TargetError, match=message):
        on_logits().predict_step(torch.zeros(outputs))


class Halves(nn.Module):
    """Every second step; says so, if asked to."""

    def __init__(self, says=False):
        super().__init__()
        if says:
            self.num_steps = lambda lengths: (lengths + 1) // 2

    def forward(self, inputs, lengths):
        return inputs[:, ::2]


def test_a_network_that_shortens_its_inputs_says_how_many_steps_are_left():
    logits, lengths, targets = torch.randn(2, 7, 4), torch.tensor([7, 3]), targets_of((1, 2), (3,))
    task = SequenceTranscription(network=Halves(), alphabet="abc")
    with pytest.raises(
        ShapeError, match=r"gives 4 steps where 7 were expected: .* shortens .* a method num_steps\(lengths\)"
    ):
        ctc(task, logits, targets, lengths)
    loss = ctc(SequenceTranscription(network=Halves(says=True), alphabet="abc"), logits, targets, lengths)
    alone = [loss_by_enumeration(logits[0, ::2], (1, 2)), loss_by_enumeration(logits[1, :3:2], (3,))]
    assert loss.item() == pytest.approx(sum(alone) / 2, rel=1e-5)


# ---------------------------------------------------------------------- arguments that are refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alphabet": ""}, "alphabet must be a string of at least one character, got ''"),
        ({"alphabet": ["a", "b"]}, r"alphabet must be a string of at least one character, got \['a', 'b'\]"),
        ({"alphabet": 10}, "alphabet must be a string of at least one character, got 10"),
        ({"alphabet": None}, "alphabet must be a string of at least one character, got None"),
        ({"alphabet": "abca"}, "alphabet must name each character once, got 'a' twice in 'abca'"),
        ({"decoder": "beem"}, "decoder must be one of 'greedy', 'beam', got 'beem'; did you mean 'beam'"),
        ({"decoder": "gredy"}, "did you mean 'greedy'"),
        ({"decoder": None}, "decoder must be one of 'greedy', 'beam', got None"),
        ({"beam_width": 0}, "beam_width must be an integer of at least 1, got 0"),
        ({"beam_width": 2.5}, "beam_width must be an integer of at least 1, got 2.5"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        on_logits(**arguments)
    if isinstance(arguments.get("alphabet", ""), str):
        with pytest.raises(ValueError, match=message):
            CRNNTranscriber(**arguments)


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_data_in_another_alphabet_are_refused_before_the_first_step(make_trainer, stage):
    data = TensorDataModule(torch.randn(12, 5, 3), padded_labels(*[(1, 2)] * 12), batch_size=4, val_size=2, test_size=2)
    data.alphabet = "acb"
    with pytest.raises(TargetError, match="the data are written in the alphabet 'acb', the model reads 'abc'"):
        getattr(make_trainer(max_epochs=1), stage)(recurrent_task(), data)
    data.alphabet = "abc"
    getattr(make_trainer(max_epochs=1), stage)(recurrent_task(), data)


# ---------------------------------------------------------------------- deterministic


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", "cpu", "xpu"])
@pytest.mark.parametrize("deterministic", [True, False, "warn"])
def test_the_loss_is_computed_on_a_gpu_unless_its_gradient_must_be_deterministic(algorithms, device, deterministic):
    algorithms(bool(deterministic), warn_only=deterministic == "warn")
    stays = device.startswith("cuda") and not deterministic
    assert loss_device(torch.device(device)) == torch.device(device if stays else "cpu")


def test_a_run_whose_loss_is_computed_on_the_cpu_says_so(algorithms, monkeypatch):
    task = recurrent_task()
    algorithms(True)
    task.on_fit_start()  # on the CPU there is nothing to say
    monkeypatch.setattr(SequenceTranscription, "device", torch.device("cuda", 0))
    with pytest.warns(CTCOnCPUWarning, match="the CTC loss is computed on the CPU, not on cuda:0") as said:
        task.on_fit_start()
    assert len(said) == 1
    algorithms(False)
    task.on_fit_start()
    assert issubclass(CTCOnCPUWarning, UserWarning)


def test_a_deterministic_run_can_be_repeated_to_the_last_bit(algorithms, make_trainer):
    images, widths = torch.randn(6, 1, 8, 40), torch.tensor([40, 40, 24, 30, 33, 20])
    labels = padded_labels((1, 2, 3), (2, 2), (1,), (3, 1), (1, 2), (3,))
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        task = CRNNTranscriber(alphabet="abc", image_height=8, channels=(4, 4), hidden=5, optimizer=ADAM)
        loader = BatchLoader(Padded(images, widths, dim=3), labels, batch_size=2, shuffle=True, seed=seed)
        make_trainer(max_epochs=2, deterministic=True).fit(task, loader, loader)
        assert torch.are_deterministic_algorithms_enabled()
        weights.append(torch.cat([parameter.detach().flatten() for parameter in task.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


# ---------------------------------------------------------------------- lengths in the other tasks

STEPS = torch.tensor([6, 1, 4, 3, 6])
OTHERS = {
    "multiclass": (
        lambda network: MulticlassClassification(network=network, num_classes=3, optimizer=SGD),
        3,
        torch.tensor([0, 2, 1, 1, 0]),
        lambda output, target: functional.cross_entropy(output, target[None]),
    ),
    "binary": (
        lambda network: BinaryClassification(network=network, optimizer=SGD),
        1,
        torch.tensor([0, 1, 1, 0, 1]),
        lambda output, target: functional.softplus(output[0, 0]) - target * output[0, 0],
    ),
    "regression": (
        lambda network: Regression(network=network, optimizer=SGD),
        2,
        torch.tensor([[0.0, 1.0], [2.0, -1.0], [0.5, 0.5], [1.0, 1.0], [-1.0, 0.0]]),
        lambda output, target: (output[0] - target).square().mean(),
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_sequences_of_a_padded_batch_are_learned_from_as_if_they_were_alone(make_trainer, kind, bidirectional):
    make, width, targets, loss_of = OTHERS[kind]
    inputs = torch.randn(5, 6, 3)
    network = Recurrent(3, 4, width, cell="lstm", bidirectional=bidirectional)
    task = make(network)

    def losses():
        return [loss_of(network(inputs[[i], :count]), targets[i]) for i, count in enumerate(STEPS.tolist())]

    padded = inputs.masked_fill(torch.arange(6)[None, :, None] >= STEPS[:, None, None], 1e4)
    loader = BatchLoader(Padded(padded, STEPS), targets, batch_size=2)
    [result] = make_trainer().validate(task, loader, verbose=False)
    assert result["val/loss"] == pytest.approx(sum(losses()).item() / 5, rel=1e-5)
    read = make_trainer().predict(task, loader)
    read = torch.cat([part if isinstance(part, torch.Tensor) else part.probabilities for part in read])
    outputs = torch.cat([network(inputs[[i], :count]) for i, count in enumerate(STEPS.tolist())]).detach()
    activated = {"multiclass": outputs.softmax(dim=1), "binary": outputs.sigmoid().squeeze(1), "regression": outputs}
    torch.testing.assert_close(read, activated[kind], rtol=1e-4, atol=1e-6)

    gradients = torch.autograd.grad(sum(losses()) / 5, list(network.parameters()))
    expected = [value.detach() - 0.5 * slope for value, slope in zip(network.parameters(), gradients, strict=True)]
    # One step, in which all samples are one batch.
    whole = BatchLoader(Padded(padded, STEPS), targets, batch_size=5)
    make_trainer(max_epochs=1).fit(task, whole, whole)
    for value, wanted in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(value.detach(), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", OTHERS)
def test_lengths_that_do_not_fit_are_refused_by_the_other_tasks_too(make_trainer, kind):
    make, width, targets, _ = OTHERS[kind]
    task = make(Recurrent(3, 4, width))
    for lengths, message in (
        (torch.tensor([6, 1, 0, 3, 6]), "sequence 2 has length 0"),
        (torch.tensor([6, 1, 4, 3, 7]), "sequence 4 has length 7, but the batch is padded to 6 steps"),
        (STEPS.to("meta"), "lengths must stay on the CPU, got them on meta"),
    ):
        with pytest.raises(ShapeError, match=message):
            task._shared_step(((torch.zeros(5, 6, 3), lengths), targets))


def test_a_named_pair_alone_is_read_with_its_lengths_like_any_batch():
    task = SequenceTranscription(Recurrent(3, 5, 3, read="every"), alphabet="ab").eval()
    pair = PaddedBatch(torch.randn(2, 6, 3), torch.tensor([6, 2]))
    one, other = task.predict_step(pair), task.predict_step((pair, None))
    assert one.texts == other.texts
    assert torch.equal(one.log_probabilities, other.log_probabilities)
    longer = task.predict_step(pair.values)
    assert one.log_probabilities[0] == longer.log_probabilities[0]
    assert one.log_probabilities[1] > longer.log_probabilities[1]  # four steps less


def test_nothing_in_the_padding_of_the_outputs_comes_into_the_gradient():
    task = SequenceTranscription(torch.nn.Identity(), alphabet="ab")
    logits = torch.randn(1, 5, 3)
    logits[0, 3:] = torch.nan
    logits.requires_grad_()
    targets = LabelSequences(torch.tensor([[1, 2]]), torch.tensor([2]), torch.tensor([3]))
    loss = task.compute_loss(logits, targets)
    loss.backward()
    short = logits.detach()[:, :3].requires_grad_()
    task.compute_loss(short, targets).backward()
    assert torch.equal(logits.grad[0, 3:], torch.zeros(2, 3))
    torch.testing.assert_close(logits.grad[:, :3], short.grad)


@pytest.mark.parametrize("alphabet", [10, None, "", "aba"])
def test_the_leaf_refuses_such_an_alphabet_too(alphabet):
    with pytest.raises(ValueError, match="alphabet must"):
        CRNNTranscriber(alphabet=alphabet)


def test_a_text_and_its_labels():
    task = SequenceTranscription(nn.Linear(2, 4), alphabet="a \u00fc")
    assert task.labels("\u00fca a") == [3, 1, 2, 1]
    assert task.text(task.labels("\u00fca a")) == "\u00fca a"
    with pytest.raises(TargetError, match="'ab' has 'b', which is not in the alphabet"):
        task.labels("ab")


def test_an_alphabet_that_is_a_list_of_the_same_characters_will_do(make_trainer):
    data = TensorDataModule(torch.randn(20, 5, 2), Padded(torch.ones(20, 1, dtype=torch.int64), torch.ones(20).long()))
    data.alphabet = ["a", "b"]
    data.batch_size = 4
    trainer = make_trainer(max_epochs=1)
    trainer.fit(SequenceTranscription(nn.Linear(2, 3), alphabet="ab"), data)
    assert trainer.global_step == 4


def test_an_output_for_every_step_is_no_regression_of_padded_sequences():
    task = Regression(Recurrent(3, 4, 2, read="every"))
    inputs, targets = torch.randn(2, 6, 3), torch.randn(2, 6, 2)
    assert torch.isfinite(task._shared_step((inputs, targets))[2])  # whole ones may be
    with pytest.raises(TargetError, match=r"an output for every step, .* those in the padding included"):
        task._shared_step((PaddedBatch(inputs, torch.tensor([6, 2])), targets))


@pytest.mark.parametrize(
    "task",
    [
        Regression(nn.Linear(3, 1)),
        BinaryClassification(nn.Linear(3, 1)),
        MulticlassClassification(nn.Linear(3, 2), num_classes=2),
    ],
)
def test_targets_of_different_lengths_are_for_transcription(task):
    targets = LabelBatch(torch.ones(2, 3, dtype=torch.int64), torch.tensor([3, 2]))
    with pytest.raises(TargetError, match="targets must be a tensor, one entry a sample, got LabelBatch"):
        task._shared_step((torch.zeros(2, 3), targets))
