"""Gradients of two processes of one machine, averaged through memory that they share, with no thread between them."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import secrets
import shutil
import socket
import struct
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

LARGEST = 32 * 2**20
"""Bytes of gradients up to which shared memory is the faster way.

More of them take longer than the wait for a thread, and torch's own exchange is done while the rest of the gradients
are computed.
"""

_TOKEN_BYTES = 16
_ADDRESS_BYTES = 256
_ALIGNMENT = 64
_RAM_DISK = "/dev/shm"  # noqa: S108  # a folder of one's own is made in there


class PeerError(RuntimeError):
    """The other process has left, or does something else."""


class SharedMemoryMean:
    """The mean of the tensors of two ranks, computed by both from what they have laid side by side.

    Where every core computes, gloo's messages wait for a thread that has to be given a core first: up to milliseconds
    for what the memory moves in a tenth of one. Here the thread that computes does it all: it writes, tells the other
    one by a socket, and adds. The mean is gloo's to the bit, as a sum of two has but one order; of more ranks it would
    not be. Made by :meth:`connect`, on both ranks at once.
    """

    def __init__(self, rank: int, slots: Tensor, peer: socket.socket) -> None:
        self._rank = rank
        self._slots = slots  # (turn, rank, byte)
        self._peer = peer
        self._turn = 0

    @classmethod
    def connect(cls, capacity: int, timeout: float) -> SharedMemoryMean | None:
        """Find the other rank; ``None`` on both if they do not share a machine, or it has no such memory.

        Nothing is left on the disk, whatever becomes of the processes afterwards.

        Args:
            capacity: bytes of the largest tensor.
            timeout: seconds to wait for the other rank in each mean.
        """
        rank = distributed.get_rank()
        capacity = -(-capacity // _ALIGNMENT) * _ALIGNMENT
        size = 4 * capacity
        folder, listening = _open(size) if rank == 0 else (None, None)
        slots: Tensor | None = None
        peer: socket.socket | None = None
        try:
            place, token = _broadcast(folder)
            with contextlib.suppress(OSError, ValueError):
                slots = _map(place, token, size)
                peer = _call(place / "socket") if rank == 1 else None
            is_ready = slots is not None and (peer is not None or listening is not None)
            if _both_have(is_ready) and slots is not None:
                if listening is not None:
                    peer, _ = listening.accept()  # the other rank has called already, as it says
                if peer is not None:
                    peer.settimeout(timeout)
                    return cls(rank, slots.view(2, 2, capacity), peer)
        finally:  # whoever is connected needs neither any more
            if listening is not None:
                listening.close()
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
        if peer is not None:
            peer.close()
        return None

    def has_room_for(self, values: Tensor) -> bool:
        """Whether a tensor is not larger than the largest that was spoken of."""
        return values.numel() * values.element_size() <= self._slots.shape[-1]

    def mean_(self, values: Tensor) -> Tensor:
        """Put the mean over both ranks in the place of a dense tensor on the CPU, which both give in the same size.

        Raises:
            PeerError: the other rank has ended, does not answer, or gave a tensor of another size.
        """
        size = values.numel() * values.element_size()
        # The other rank may still read those of the last turn; when these are written anew, both have met in between.
        slots = [slot[:size].view(values.dtype).view(values.shape) for slot in self._slots[self._turn]]
        self._turn = 1 - self._turn
        torch.div(values, 2, out=slots[self._rank])
        self._meet(size)
        return torch.add(*slots, out=values)

    def _meet(self, size: int) -> None:
        """Wait until the other rank has come here, too."""
        said = struct.pack("<Q", size)
        try:
            self._peer.sendall(said)
            heard = self._peer.recv(len(said), socket.MSG_WAITALL)
        except TimeoutError as error:
            raise PeerError(f"the other process did not come for {self._peer.gettimeout():.0f} seconds") from error
        except OSError as error:
            raise PeerError("the other process has left") from error
        if heard != said:
            raise PeerError(f"the other process {'averages something else' if heard else 'has left'}")

    def close(self) -> None:
        """Leave; if the other rank waits, it is told so."""
        with contextlib.suppress(OSError):  # which it has left itself
            self._peer.shutdown(socket.SHUT_RDWR)  # also for forks of this process, such as a loader's workers
        self._peer.close()


def share_gradients(model: DistributedDataParallel, timeout: float) -> SharedMemoryMean | None:
    """Let the copies of a module in two processes average their gradients so, if that is possible and faster.

    Both must call this, before the first backward pass. The gradients of sparse embeddings go the old way.

    Args:
        model: without a communication hook of its own.
        timeout: see :meth:`SharedMemoryMean.connect`.
    """
    gradients = [parameter for parameter in model.parameters() if parameter.requires_grad]
    size = sum(math.prod(parameter.shape) * parameter.element_size() for parameter in gradients)
    is_possible = hasattr(os, "posix_fallocate") and hasattr(socket, "AF_UNIX")
    on_cpu = all(parameter.device.type == "cpu" for parameter in gradients)
    if not (is_possible and on_cpu and size <= LARGEST and distributed.get_world_size() == 2):
        return None
    # A bucket may begin each gradient on a boundary of its own.
    means = SharedMemoryMean.connect(size + len(gradients) * _ALIGNMENT, timeout)
    if means is None:
        return None

    group = model.process_group  # the model, which holds the hook, would never be freed if the hook held it

    # torch compares annotations with objects, which they are not here.
    def average(state: Any, bucket):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        values = bucket.buffer()
        # More than there is room for are those of parameters that were frozen after the copies were made.
        if values.layout != torch.strided or not means.has_room_for(values):
            from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

            return allreduce_hook(group, bucket)
        done: Future[Tensor] = Future()
        done.set_result(means.mean_(values))
        return done

    model.register_comm_hook(None, average)
    return means


# ---------------------------------------------------------------------- how the ranks find each other


def _open(size: int) -> tuple[Path | None, socket.socket | None]:
    """A folder that nobody else may look into, with the memory in it, and the socket there; neither if it cannot be."""
    for parent in (_RAM_DISK, None):
        folder = listening = None
        with contextlib.suppress(OSError):
            listening = socket.socket(socket.AF_UNIX)
            folder = Path(tempfile.mkdtemp(prefix="zoo-", dir=parent))
            (folder / "token").write_bytes(secrets.token_bytes(_TOKEN_BYTES))
            with (folder / "memory").open("xb") as file:
                os.posix_fallocate(file.fileno(), 0, size)  # a mapped page that there is no room for ends the process
            listening.bind(str(folder / "socket"))
            listening.listen(1)
            return folder, listening
        if listening is not None:
            listening.close()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return None, None


def _call(address: Path) -> socket.socket:
    calling = socket.socket(socket.AF_UNIX)
    try:
        calling.connect(str(address))
    except OSError:
        calling.close()
        raise
    return calling


def _broadcast(folder: Path | None) -> tuple[Path, bytes]:
    """The first rank's folder and the token in it, on both ranks; an empty token if it has none."""
    said = torch.zeros(_TOKEN_BYTES + _ADDRESS_BYTES, dtype=torch.uint8)
    if folder is not None and len(os.fsencode(folder)) <= _ADDRESS_BYTES:
        text = (folder / "token").read_bytes() + os.fsencode(folder)
        said[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    distributed.broadcast(said, src=0)
    heard = bytes(said.tolist())
    return Path(os.fsdecode(heard[_TOKEN_BYTES:].rstrip(b"\0"))), heard[:_TOKEN_BYTES]


def _map(folder: Path, token: bytes, size: int) -> Tensor:
    """The memory as bytes, if the folder is the one that was meant, and not one of its name on another machine."""
    if not any(token) or not secrets.compare_digest((folder / "token").read_bytes(), token):
        raise ValueError(f"{folder} is another machine's")
    with (folder / "memory").open("r+b") as file:
        return torch.frombuffer(mmap.mmap(file.fileno(), size), dtype=torch.uint8)


def _both_have(it: bool) -> bool:
    """Whether something holds on both ranks."""
    answer = torch.tensor(int(it))
    distributed.all_reduce(answer, distributed.ReduceOp.MIN)
    return bool(answer)
