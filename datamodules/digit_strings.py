"""Lines of handwritten digits, made from MNIST."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from datamodules.base import InMemoryDataModule, Split, Splits
from datamodules.errors import DataError, check_positive
from datamodules.loader import EpochLoader, Preprocess
from datamodules.memory import memory
from datamodules.mnist import MNISTDataModule, Source
from datamodules.padded import LabelBatch, Padded, PaddedBatch, dense
from datamodules.portable_random import Stream

DigitDataset = Literal["MNIST", "EMNIST", "digits"]
DIGIT_DATASETS: tuple[DigitDataset, ...] = ("MNIST", "EMNIST", "digits")

_MARGIN = 2  # columns of background at either end, at least
_LEAST_ADVANCE = 8  # columns from one digit's ink to the next's: two steps of a network that reads every fourth column
_DIGIT_WIDTH = 28
_LARGEST_GAP = 28
_MOST_DIGITS = 100
_TEST_SEED = 0


class DigitStringsDataModule(InMemoryDataModule):
    """Lines of some digits side by side, with gaps and overlaps, and what they read; for CTC.

    A line is made of digits of its own split alone, so no test digit, and no digit of the validation split, is ever
    seen in training. Training lines are made on the fly, others in each epoch, a function of ``(seed, epoch, line)``;
    the lines for validation are a function of the seed; the test lines are always the same. From one digit to the next
    a gap is drawn between the last column with ink and the first; where it is negative they overlap, and the darker
    pixel counts. No digit begins less than 8 columns behind the one before.

    Where MNIST cannot be had, the lines are made of the bundled digits, see :class:`MNISTDataModule`; ``dataset_name``
    is ``"MNIST lines"`` or ``"digits lines"``.

    Args:
        data_dir: see :class:`MNISTDataModule`, as for ``source``.
        dataset: those of its data sets that are digits: ``"MNIST"``, ``"EMNIST"`` or ``"digits"``.
        source: see there.
        lines_per_epoch: training lines an epoch.
        val_lines: lines for validation.
        test_lines: lines for the test.
        min_digits: digits of the shortest lines.
        max_digits: digits of the longest lines; every number between the two is as frequent.
        min_gap: least gap between the ink of two digits, in columns; negative is an overlap.
        max_gap: largest gap.
        batch_size: lines a training batch.
        eval_batch_size: lines a batch of validation, test and prediction.
        val_size: digits drawn from the training set for validation; a number, or a share in (0, 1).
        group_by_length: put lines of like width into the same training batches, which saves padding.
        drop_last: leave out the last training batch of an epoch if it is not full.
        seed: of the split, the lines and their order; ``None`` takes that of ``seed_everything``, else 0.

    Raises:
        DataError: from the constructor, a value out of range; from ``setup``, data that are missing or damaged.

    Shape:
        A batch is ``((images, widths), (labels, lengths))``: images ``(batch, 1, 28, width)`` float32, standardised;
        widths ``(batch,)`` int64; labels ``(batch, longest)`` int64, of a digit ``d`` the label ``d + 1``, zeros behind
        the last; lengths ``(batch,)`` int64.
    """

    #: What the labels 1, 2, ... stand for; 0 is CTC's blank.
    alphabet = "0123456789"

    def __init__(
        self,
        data_dir: str = "data",
        dataset: DigitDataset = "MNIST",
        source: Source = "auto",
        lines_per_epoch: int = 10_000,
        val_lines: int = 1000,
        test_lines: int = 2000,
        min_digits: int = 3,
        max_digits: int = 7,
        min_gap: int = -3,
        max_gap: int = 8,
        batch_size: int = 64,
        eval_batch_size: int = 500,
        val_size: int | float = 5000,
        group_by_length: bool = True,
        drop_last: bool = True,
        seed: int | None = None,
    ) -> None:
        if dataset not in DIGIT_DATASETS:
            raise DataError(f"dataset must be one of {', '.join(map(repr, DIGIT_DATASETS))}, got {dataset!r}")
        check_positive(
            lines_per_epoch=lines_per_epoch,
            val_lines=val_lines,
            test_lines=test_lines,
            min_digits=min_digits,
            max_digits=max_digits,
        )
        if not min_digits <= max_digits <= _MOST_DIGITS:
            raise DataError(
                f"min_digits and max_digits must be a range up to {_MOST_DIGITS}, got {min_digits} to {max_digits}"
            )
        whole = all(isinstance(gap, int) and not isinstance(gap, bool) for gap in (min_gap, max_gap))
        if not whole or not -_LARGEST_GAP <= min_gap <= max_gap <= _LARGEST_GAP:
            raise DataError(
                f"min_gap and max_gap must be whole numbers, a range within -{_LARGEST_GAP} to {_LARGEST_GAP}, got "
                f"{min_gap!r} to {max_gap!r}"
            )
        widest = _MARGIN + max_digits * (_DIGIT_WIDTH + max(0, max_gap))
        needed = 64 * max_digits * lines_per_epoch + 4 * _DIGIT_WIDTH * widest * max(val_lines, test_lines)
        if needed > memory():
            raise DataError(
                f"{max(lines_per_epoch, val_lines, test_lines):,} lines do not fit in memory: about "
                f"{needed // 2**30:,} GiB"
            )
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            standardize=True,
            drop_last=drop_last,
            seed=seed,
            group_by_length=group_by_length,
        )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise DataError(f"seed must be an integer of at least 0, got {self.seed!r}")
        self._digits = MNISTDataModule(data_dir, dataset, source, val_size=val_size, seed=self.seed)
        self.lines_per_epoch = lines_per_epoch
        self.val_lines = val_lines
        self.test_lines = test_lines
        self._layout = _Layout(min_digits, max_digits, min_gap, max_gap)
        self.dataset_name = f"{dataset} lines"
        self.save_hyperparameters(ignore=["data_dir"], logger=False)
        self.hparams.update(data_dir=str(data_dir), seed=self.seed)

    def prepare_data(self) -> None:
        """Bring the files to disk and check them, in one process of each machine."""
        if self._splits is None:
            self._digits.prepare_data()

    def load_splits(self) -> Splits:
        digits = self._digits.load_splits()
        self.dataset_name = f"{self._digits.dataset_name} lines"
        made = [
            _Digits(split).lines(self._layout.draw(count, len(split), Stream(seed, name)))
            for split, count, seed, name in (
                (digits.val, self.val_lines, self.seed, "validation lines"),
                (digits.test, self.test_lines, _TEST_SEED, "test lines"),
            )
        ]
        return Splits(digits.train, *made)

    def training_samples(self, splits: Splits) -> int:
        return self.lines_per_epoch

    def sample_in_words(self) -> str:
        fewest, most = self._layout.min_digits, self._layout.max_digits
        return f"{most} digits" if fewest == most else f"{fewest} to {most} digits"

    def train_dataloader(self) -> EpochLoader:
        """Lines that are made while they are asked for."""
        return _LineLoader(
            self.splits.train,
            self.lines_per_epoch,
            self._layout,
            self.batch_size,
            drop_last=self.drop_last,
            group_by_length=self.group_by_length,
            seed=self.seed,
            preprocess=self.preprocess(),
            device=self._data_device(),
        )


class _LineLoader(EpochLoader):
    """Lines made of digits batch by batch, others in each epoch; see :class:`DigitStringsDataModule`.

    Args:
        digits: images ``(samples, 1, 28, 28)`` uint8 and labels ``(samples,)`` int64.
        num_lines: lines an epoch.
        layout: how they are laid out.
        batch_size: see :class:`EpochLoader`, as for ``drop_last``, ``group_by_length`` and ``seed``.
        drop_last: see there.
        group_by_length: see there.
        seed: see there.
        preprocess: applied to the images of a batch.
        device: where the digits are kept and the lines made.
    """

    def __init__(
        self,
        digits: Split,
        num_lines: int,
        layout: _Layout,
        batch_size: int,
        *,
        drop_last: bool = False,
        group_by_length: bool = False,
        seed: int = 0,
        preprocess: Preprocess | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(
            num_lines, batch_size, shuffle=True, drop_last=drop_last, group_by_length=group_by_length, seed=seed
        )
        self._digits = _Digits(digits, device)
        self._layout = layout
        self._preprocess = preprocess
        self._kept: tuple[int, _Plan] | None = None  # the last epoch's, and which that is

    def sample_lengths(self, epoch: int) -> Tensor:
        return self._digits.widths(self._plan(epoch))

    def make_batch(self, chosen: Tensor | slice, epoch: int, seed: int) -> tuple[Any, Any]:
        lines = self._digits.lines(self._plan(epoch)[chosen])
        images, labels = lines.features, lines.targets
        assert isinstance(images, Padded)
        assert isinstance(labels, Padded)
        pixels = images.values if self._preprocess is None else self._preprocess(images.values)
        return PaddedBatch(pixels, images.lengths), LabelBatch(labels.values, labels.lengths)

    def _plan(self, epoch: int) -> _Plan:
        if self._kept is None or self._kept[0] != epoch:
            stream = Stream(self.seed, f"training lines of epoch {epoch}")
            self._kept = epoch, self._layout.draw(self.num_samples, len(self._digits), stream)
        return self._kept[1]


@dataclass(frozen=True)
class _Plan:
    """Lines before they are made; all ``(lines, most)`` int64 but ``counts`` and ``ends``, ``(lines,)``."""

    counts: Tensor  # digits of each line
    digits: Tensor  # their numbers in the split; of the places behind the last digit, some number
    gaps: Tensor  # columns of background in front of each, negative for an overlap
    ends: Tensor  # columns of background behind the last

    def __getitem__(self, chosen: Tensor | slice) -> _Plan:
        return _Plan(self.counts[chosen], self.digits[chosen], self.gaps[chosen], self.ends[chosen])


@dataclass(frozen=True)
class _Layout:
    """How many digits a line has, and how far they are apart."""

    min_digits: int
    max_digits: int
    min_gap: int
    max_gap: int

    def draw(self, lines: int, samples: int, stream: Stream) -> _Plan:
        """Lines of any of so many digit images."""
        draws = stream.uniform(lines, 2 + 2 * self.max_digits)
        counts = self.min_digits + _whole(draws[:, 0], self.max_digits - self.min_digits + 1)
        margins = max(0, self.max_gap)
        ends = _MARGIN + _whole(draws[:, 1], margins + 1)
        digits = _whole(draws[:, 2 : 2 + self.max_digits], samples)
        gaps = self.min_gap + _whole(draws[:, 2 + self.max_digits :], self.max_gap - self.min_gap + 1)
        gaps[:, 0] = _MARGIN + _whole(draws[:, 2 + self.max_digits], margins + 1)
        return _Plan(*map(torch.from_numpy, (counts, digits, gaps, ends)))


def _whole(uniform: Any, choices: int) -> Any:
    """Numbers in (0, 1) as whole ones from 0 to below ``choices``, each as often."""
    return np.minimum(uniform * choices, choices - 1).astype(np.int64)


class _Digits:
    """Digit images, and where their ink is."""

    def __init__(self, split: Split, device: torch.device | None = None) -> None:
        images = dense(split.features)[:, 0]
        ink = images.amax(dim=1) > 0
        ink[~ink.any(dim=1), images.shape[2] // 2] = True  # an empty image takes one column
        self.first = ink.int().argmax(dim=1).cpu()
        self.size = (images.shape[2] - ink.flip(1).int().argmax(dim=1)).cpu() - self.first  # columns of ink
        self.labels = dense(split.targets).cpu()
        self.images = images if device is None else images.to(device)

    def __len__(self) -> int:
        return len(self.images)

    def _columns(self, plan: _Plan) -> tuple[Tensor, Tensor]:
        """The column where each digit's ink begins, ``(lines, most)``, and the width of each line, ``(lines,)``."""
        sizes = self.size[plan.digits]
        begin, starts = plan.gaps[:, 0], [plan.gaps[:, 0]]
        for place in range(1, sizes.shape[1]):
            begin = begin + (sizes[:, place - 1] + plan.gaps[:, place]).clamp_min(_LEAST_ADVANCE)
            starts.append(begin)
        columns = torch.stack(starts, dim=1)
        present = torch.arange(sizes.shape[1]) < plan.counts[:, None]
        return columns, ((columns + sizes) * present).amax(dim=1) + plan.ends

    def widths(self, plan: _Plan) -> Tensor:
        """Columns of each line."""
        return self._columns(plan)[1]

    def lines(self, plan: _Plan) -> Split:
        """The lines, padded with background, and what they read."""
        columns, widths = self._columns(plan)
        size = self.images.shape[2]
        lines, most = plan.digits.shape
        device = self.images.device
        # The images reach beyond their ink, so there is room on either side for what is background anyway.
        canvas = torch.zeros(
            lines, self.images.shape[1], int(widths.max()) + 2 * size, dtype=torch.uint8, device=device
        )
        place = columns - self.first[plan.digits] + size
        present = torch.arange(most) < plan.counts[:, None]
        for index in range(int(plan.counts.max())):  # one after another, so that no two write to the same pixel at once
            drawn = present[:, index].nonzero()[:, 0]
            image = self.images[plan.digits[drawn, index].to(device)]
            where = (place[drawn, index, None] + torch.arange(size)).to(device)[:, None].expand_as(image)
            rows = canvas[drawn.to(device)]
            rows.scatter_(2, where, torch.maximum(rows.gather(2, where), image))
            canvas[drawn.to(device)] = rows
        images = canvas[:, None, :, size:-size].contiguous()
        labels = ((self.labels[plan.digits] + 1) * present)[:, : int(plan.counts.max())]
        return Split(Padded(images, widths, dim=3), Padded(labels, plan.counts, labels=True))
