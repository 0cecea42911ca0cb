"""A loader for data that live in memory: a batch is one indexing operation."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, TypedDict

import torch
import torch.distributed
from torch import Generator, Tensor

from datamodules.errors import DataError, check_positive
from datamodules.padded import LabelBatch, Padded, PaddedBatch, Samples
from datamodules.pooled_order import BLOCK, PooledOrder

Preprocess = Callable[[Tensor], Tensor]
"""Works on the features of a whole batch, such as a normalisation.

One with an attribute ``copies`` that is true leaves what it gets as it is and gives memory of its own, so it may get a
view of the data."""

Augment = Callable[[Tensor, Generator], Tensor]
"""Works on the features of a whole batch and draws from the generator, which lives on the features' device.

Of :class:`Padded` features it gets the padded values, and must not move them along the padded dimension."""


class LoaderState(TypedDict):
    """Where an :class:`EpochLoader` stands."""

    epoch: int
    position: int


class EpochLoader(ABC):
    """Batches made from sample numbers: the order, the share of each process, and the place for a resume.

    * The order of an epoch is a function of ``(seed, epoch)``; what a batch draws, of ``(seed, epoch, batch, rank)``.
      Without a trainer each whole pass over the loader is the next epoch.
    * ``state_dict`` counts the batches handed out; after ``load_state_dict`` the next pass goes on behind them.
    * In a process group each rank gets its part of every global batch (``batch_size`` a rank); together the ranks
      see each sample of an epoch once. In evaluation nothing is padded or dropped, so a rank may get a batch less, or
      none. Ranks that train take every step together: where the last batch has fewer samples than there are ranks,
      those without one get another's, and :meth:`stands_in` says that it does not count. :class:`zoo.Task` leaves it
      out; any other module learns from it twice, as from the padding of torch's ``DistributedSampler``.

    A subclass defines :meth:`make_batch`, :meth:`sample_lengths` where samples differ in length, and :attr:`draws`.

    Args:
        num_samples: samples an epoch.
        batch_size: samples a batch and rank.
        shuffle: a new order each epoch.
        drop_last: leave out the last batch of an epoch if it is not full.
        group_by_length: put samples of like length into the same batches, which saves padding; for shuffled batches.
        seed: where the order and all draws come from.

    Raises:
        DataError: no samples, a batch size below 1, grouping without shuffling, or, with ``drop_last``, fewer samples
            than one global batch.
    """

    #: Whether :meth:`make_batch` draws anything; if not, it gets no seed worth the name.
    draws = True

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        group_by_length: bool = False,
        seed: int = 0,
    ) -> None:
        check_positive(batch_size=batch_size)
        if num_samples < 1:
            raise DataError("there is not a single sample: the data, or this split of them, are empty")
        if group_by_length and not shuffle:
            raise DataError("group_by_length is for shuffled batches: without shuffle the samples keep their order")
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.group_by_length = group_by_length
        self.seed = seed
        self.epoch = 0
        self._start = 0  # the first batch of the next pass
        self._position = 0  # batches handed out in this pass
        if self._num_batches == 0 and drop_last:
            raise DataError(
                f"{num_samples} training samples are fewer than one batch of {self._global_batch_size}: "
                f"lower batch_size to at most {max(1, num_samples // _world()[1])}, or use more data"
            )

    # ------------------------------------------------------------------ what a subclass defines

    @abstractmethod
    def make_batch(self, chosen: Tensor | slice, epoch: int, seed: int) -> Any:
        """The batch of the samples of these numbers, no more and no fewer: by them the ranks' parts are weighed.

        Args:
            chosen: int64, or int32, on the CPU, or a slice.
            epoch: of which the samples are, where they differ.
            seed: for whatever is drawn.
        """

    def sample_lengths(self, epoch: int) -> Tensor | None:
        """The lengths of an epoch's samples, ``(samples,)`` int64, if they have such."""
        return None

    # ------------------------------------------------------------------ what Lightning asks of a loader

    def __len__(self) -> int:
        """Batches that this rank gets in an epoch; at least 1, also where it gets none.

        Of a length of 0 Lightning would conclude that this rank has no part in the evaluation, and the others would
        wait for its metrics for ever.
        """
        return max(1, self._num_batches)

    @property
    def _num_batches(self) -> int:
        full, rest = divmod(self.num_samples, self._global_batch_size)
        if self.drop_last or rest == 0:
            return full
        return full + (self.shuffle or not self.stands_in(full))

    @property
    def last_batch_size(self) -> int:
        """Samples of an epoch's last batch, on the rank that gets the fewest of it."""
        rest = 0 if self.drop_last else self.num_samples % self._global_batch_size
        return max(1, rest // _world()[1]) if rest else self.batch_size

    def global_size(self, position: int) -> int:
        """Samples of a batch over all ranks, each counted once.

        Args:
            position: the batch's number in its epoch, from 0.
        """
        size = self._global_batch_size
        return min(size, self.num_samples - position * size)

    def stands_in(self, position: int) -> bool:
        """Whether a batch has no sample of this rank's own, only one of another's, so that it can take the step.

        Args:
            position: the batch's number in its epoch, from 0.
        """
        # _share gives the first ranks one sample more.
        return self.num_samples - position * self._global_batch_size <= _world()[0]

    @property
    def _global_batch_size(self) -> int:
        return self.batch_size * _world()[1]

    batch_sampler = None  # Lightning asks every loader that has a sampler

    @property
    def sampler(self) -> EpochLoader:
        """Itself: Lightning calls ``set_epoch`` on a loader's ``sampler``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass that of ``epoch``; its own epoch again changes nothing."""
        if epoch != self.epoch:
            self.epoch, self._start, self._position = epoch, 0, 0

    def state_dict(self) -> LoaderState:
        """The epoch and the number of its batches already handed out."""
        return {"epoch": self.epoch, "position": self._position}

    def load_state_dict(self, state: LoaderState) -> None:
        """Let the next pass go on where ``state`` was taken.

        Raises:
            DataError: a state of no loader.
        """
        epoch, position = int(state["epoch"]), int(state["position"])
        if min(epoch, position) < 0:
            raise DataError(f"no loader was ever in epoch {epoch} at batch {position}: the checkpoint is damaged")
        self.epoch = epoch
        self._start = self._position = position

    def __iter__(self) -> Iterator[Any]:
        # A generator runs nothing before its first next(), so set_epoch may still come after iter().
        if self._start >= len(self):
            self.set_epoch(self.epoch + 1)
        start, self._start = self._start, 0
        epoch = self.epoch
        order = self._order(epoch)
        rank, world = _world()
        size = self._global_batch_size
        for position in range(start, self._num_batches):
            first = position * size
            last = min(first + size, self.num_samples)
            if world > 1:
                first, last = (first, first + 1) if self.stands_in(position) else _share(first, last, rank, world)
            chosen = slice(first, last) if order is None else order[first:last]
            seed = _mix(self.seed, epoch, position, rank) if self.draws else 0
            batch = self.make_batch(chosen, epoch, seed)
            self._position = position + 1
            yield batch
        self.set_epoch(epoch + 1)

    def _order(self, epoch: int) -> Tensor | PooledOrder | None:
        if not self.shuffle:
            return None
        # Drawn on the CPU, so that every device sees the same order.
        generator = Generator().manual_seed(_mix(self.seed, epoch))
        order = torch.randperm(self.num_samples, generator=generator)
        if not self.group_by_length:
            return order
        lengths = self.sample_lengths(epoch)
        if lengths is None:
            raise DataError("group_by_length needs samples of different lengths, given as Padded")
        return _grouped(order, lengths, self._global_batch_size, generator)


_MANY = 2**17
_SMALL = 64  # bytes of a cache line


class BatchLoader(EpochLoader):
    """Batches of features and targets held as tensors, in memory or on a GPU.

    A hundred times the speed of a ``DataLoader`` over single samples, because a batch is one indexing operation,
    one augmentation and one preprocessing of the whole batch. Lightning takes it as it is: ``len``, ``set_epoch``
    and the state for an exact resume are here, see :class:`EpochLoader`.

    More than 131,072 samples of at most 64 bytes each, in memory, are shuffled by :class:`PooledOrder`, so that reading
    one takes little longer than in small data.

    A batch is ``(features, targets)``; of samples that are :class:`Padded` either is a :class:`PaddedBatch`, padded to
    the longest of the batch.

    Args:
        features: ``(samples, ...)``, any type.
        targets: ``(samples, ...)``.
        batch_size: samples a batch and rank.
        shuffle: a new order each epoch.
        drop_last: leave out the last batch of an epoch if it is not full.
        group_by_length: put samples of like length into the same batches, which saves padding; for shuffled batches
            of padded features.
        seed: where the order and the augmentation come from.
        augment: applied to the features of a batch, before ``preprocess``.
        preprocess: applied to the features of a batch.
        device: where the data are kept and the batches made; ``None`` leaves the tensors where they are.

    Raises:
        DataError: no samples, features and targets of different lengths, a batch size below 1, grouping without
            shuffling or without lengths, or, with ``drop_last``, fewer samples than one batch.

    Example:
        >>> loader = BatchLoader(torch.arange(5.0), torch.arange(5), batch_size=2)
        >>> [targets.tolist() for _, targets in loader]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        features: Samples,
        targets: Samples,
        batch_size: int,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        group_by_length: bool = False,
        seed: int = 0,
        augment: Augment | None = None,
        preprocess: Preprocess | None = None,
        device: torch.device | None = None,
    ) -> None:
        if len(features) != len(targets):
            raise DataError(f"there are {len(features)} features but {len(targets)} targets: each sample needs both")
        if group_by_length and not isinstance(features, Padded):
            raise DataError("group_by_length needs samples of different lengths, given as Padded")
        if isinstance(features, Padded) and getattr(augment, "moves_pixels", False):
            raise DataError(f"{type(augment).__name__} would move what stands in the padding into the samples")
        super().__init__(
            len(features),
            batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            group_by_length=group_by_length,
            seed=seed,
        )
        self.features = features if device is None else features.to(device)
        self.targets = targets if device is None else targets.to(device)
        self.augment = augment
        self.draws = augment is not None
        self.preprocess = preprocess
        self._takes_views = augment is None and getattr(preprocess, "copies", False)
        self._generator: Generator | None = None

    def sample_lengths(self, epoch: int) -> Tensor | None:
        return self.features.lengths if isinstance(self.features, Padded) else None

    def _order(self, epoch: int) -> Tensor | PooledOrder | None:
        parts = [part for part in (self.features, self.targets) if isinstance(part, Tensor) and _is_beyond_caches(part)]
        if not self.shuffle or len(parts) < 2:
            return super()._order(epoch)
        generator = Generator().manual_seed(_mix(self.seed, epoch))
        in_memory = [part for part in parts if part.device.type == "cpu"]

        def prefetch(firsts: Tensor) -> None:
            # Block by block, which memory is good at. What was read is not needed, but it is in the cache then.
            offset, numbers = int(firsts[0]) % BLOCK, firsts // BLOCK
            for part in in_memory:
                whole = (len(part) - offset) // BLOCK * BLOCK
                part[offset : offset + whole].reshape(whole // BLOCK, -1).index_select(0, numbers)

        return PooledOrder(self.num_samples, generator, prefetch)

    def make_batch(self, chosen: Tensor | slice, epoch: int, seed: int) -> tuple[Any, Any]:
        targets = take(self.targets, chosen)
        if self._takes_views and isinstance(chosen, slice) and isinstance(self.features, Tensor):
            return self._prepare(self.features[chosen], seed), targets
        features = take(self.features, chosen)
        if isinstance(features, PaddedBatch):
            return PaddedBatch(self._prepare(features.values, seed), features.lengths), targets
        return self._prepare(features, seed), targets

    def _prepare(self, features: Tensor, seed: int) -> Tensor:
        if self.augment is not None:
            self._generator = self._generator or Generator(device=features.device)
            features = self.augment(features, self._generator.manual_seed(seed))
        return features if self.preprocess is None else self.preprocess(features)


def _is_beyond_caches(values: Tensor) -> bool:
    """Whether samples are so many, and so small, that each of them would be a cache miss."""
    return len(values) > _MANY and 0 < values.nbytes <= _SMALL * len(values) and values.is_contiguous()


def take(samples: Samples, chosen: Tensor | slice) -> Any:
    """The chosen samples, in memory of their own and padded no further than need be."""
    if isinstance(samples, Padded):
        lengths = take(samples.lengths, chosen)
        longest = int(lengths.max()) if len(lengths) else 0
        values = take(samples.values.narrow(samples.dim, 0, longest), chosen)
        return LabelBatch(values, lengths) if samples.labels else PaddedBatch(values, lengths)
    if isinstance(chosen, slice):
        return samples[chosen].clone()  # as an index gives copies: whoever gets a batch may change it
    return samples.index_select(0, chosen.to(samples.device, non_blocking=True))


_POOL = 64  # batches sorted together: enough for like lengths, few enough for batches that differ in each epoch


def _grouped(order: Tensor, lengths: Tensor, batch_size: int, generator: Generator) -> Tensor:
    """The order with samples of like length in each batch; the batches themselves in random order."""
    full = len(order) - len(order) % batch_size
    # Two pools at least: of a single one, with lengths that all differ, each epoch would have the same batches.
    pool_size = max(1, min(_POOL, full // batch_size // 2)) * batch_size
    pools = [pool[lengths[pool].argsort(stable=True)] for pool in torch.split(order[:full], pool_size)]
    batches = torch.cat(pools).reshape(-1, batch_size)
    shuffled = batches[torch.randperm(len(batches), generator=generator)].flatten()
    return torch.cat([shuffled, order[full:]])


def _world() -> tuple[int, int]:
    """This process's rank and the number of processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _share(first: int, last: int, rank: int, world: int) -> tuple[int, int]:
    """The part ``[start, stop)`` of ``[first, last)`` that belongs to ``rank``, sizes as even as can be."""
    size, extra = divmod(last - first, world)
    start = first + rank * size + min(rank, extra)
    return start, start + size + (rank < extra)


def _mix(*numbers: int) -> int:
    """One seed from several: neighbouring numbers give unrelated seeds."""
    text = ",".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
