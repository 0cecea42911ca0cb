"""A random order of very many small samples that a processor's cache can follow."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

BLOCK = 256
"""Neighbours that are read together: 1,024 bytes of a single 32-bit feature."""

POOL = 64
"""Blocks that are shuffled together: their samples, 16,384, stay in a cache of a few hundred kilobytes."""

_SIZE = BLOCK * POOL


class PooledOrder:
    """An order in which samples are drawn from one pool after the other, each of many blocks from all over the data.

    In a uniformly random order of data that are much larger than the processor's caches, reading a small sample takes
    a few times as long as it does of small data: each comes from the memory by itself, with the cache line around it.
    Here the blocks of an epoch, runs of :data:`BLOCK` neighbours that begin at another sample in each epoch, are
    shuffled uniformly, pools are filled with :data:`POOL` of them, and the samples of a pool are shuffled. Each sample
    comes once. Of data that are sorted a batch still has samples from up to :data:`POOL` places.

    Args:
        num_samples: at least one block's.
        generator: what the order is drawn from; used here and not again.
        prefetch: called with the first samples of a pool's blocks, in any order, when its samples are about to be read.
    """

    def __init__(
        self, num_samples: int, generator: Generator, prefetch: Callable[[Tensor], object] | None = None
    ) -> None:
        offset = int(torch.randint(BLOCK, (), generator=generator))
        num_blocks = (num_samples - offset) // BLOCK
        firsts = torch.randperm(num_blocks, generator=generator) * BLOCK + offset
        inside = torch.randperm(_SIZE, generator=generator)
        # The same shuffle in every pool: which samples meet there is drawn by the blocks.
        self._block_inside, self._sample_inside = inside // BLOCK, inside % BLOCK
        num_pools = num_blocks // POOL
        self._pools = firsts[: num_pools * POOL].reshape(-1, POOL)
        # What fills no block, and the blocks that fill no pool.
        left = (firsts[num_pools * POOL :, None] + torch.arange(BLOCK)).flatten()
        ends = torch.arange(offset), torch.arange(offset + num_blocks * BLOCK, num_samples)
        left = torch.cat([left, *ends])
        self._rest = left[torch.randperm(len(left), generator=generator)]
        # Between any two pools: the samples at both ends of the data shall not be those that drop_last leaves out.
        self._rest_start = int(torch.randint(num_pools + 1, (), generator=generator)) * _SIZE
        self._num_samples = num_samples
        self._prefetch = prefetch
        # Half the width is half the time to write and read them, wherever it can hold them.
        self._dtype = torch.int32 if num_samples <= torch.iinfo(torch.int32).max else torch.int64
        self._pools, self._rest = self._pools.to(self._dtype), self._rest.to(self._dtype)
        self._block_inside, self._sample_inside = (
            part.to(self._dtype) for part in (self._block_inside, self._sample_inside)
        )
        self._start = self._end = 0  # of the places that are at hand
        self._samples = self._rest[:0]

    def __len__(self) -> int:
        return self._num_samples

    def __getitem__(self, part: slice) -> Tensor:
        """The sample numbers at consecutive places, ``(places,)`` int32, or int64 where there are too many for that."""
        first, last, _ = part.indices(self._num_samples)
        if first >= last:
            return self._rest[:0]
        if not self._start <= first < self._end:
            self._start, self._samples = self._around(first)
            self._end = self._start + len(self._samples)
        start, end, samples = self._start, self._end, self._samples
        if last <= end:
            return samples[first - start : last - start]
        return torch.cat([samples[first - start :], self[end:last]])

    def _around(self, place: int) -> tuple[int, Tensor]:
        """The first of the places that are shuffled together around one, and the samples there."""
        rest = len(self._rest)
        if self._rest_start <= place < self._rest_start + rest:
            return self._rest_start, self._rest
        skipped = rest if place >= self._rest_start else 0
        number = (place - skipped) // _SIZE
        return number * _SIZE + skipped, self._pool(number)

    def _pool(self, number: int) -> Tensor:
        firsts = self._pools[number]
        if self._prefetch is not None:
            self._prefetch(firsts)
        return firsts.index_select(0, self._block_inside).add_(self._sample_inside)
