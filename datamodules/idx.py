"""The IDX file format of MNIST and its relatives, read with every doubt the format allows.

Format: http://yann.lecun.com/exdb/mnist/ — two zero bytes, a type byte (8 is unsigned byte), the number of axes, the
big-endian size of each axis, then the values.
"""

from __future__ import annotations

import math
import struct

import numpy as np
import torch
from torch import Tensor

from datamodules.errors import DataError

_UNSIGNED_BYTE = 8


def parse_idx(contents: bytes, name: str) -> Tensor:
    """The array in an IDX file of unsigned bytes.

    Args:
        contents: the whole file.
        name: what to call it in an error.

    Returns:
        A uint8 tensor of the shape in the file's header.

    Raises:
        DataError: the header is wrong, or the length is not what the header says.
    """
    if len(contents) < 4 or contents[:2] != b"\0\0" or contents[2] != _UNSIGNED_BYTE or not 1 <= contents[3] <= 4:
        raise DataError(f"{name} is damaged: it does not begin as an IDX file of unsigned bytes")
    axes = contents[3]
    offset = 4 + 4 * axes
    if len(contents) < offset:
        raise DataError(f"{name} is damaged: it ends within its header")
    shape = struct.unpack(f">{axes}I", contents[4:offset])
    size = math.prod(shape)
    if len(contents) - offset != size:
        raise DataError(f"{name} is damaged: its header promises {size:,} values, it holds {len(contents) - offset:,}")
    # The copy is aligned and may be written to, as torch wants it.
    return torch.from_numpy(np.frombuffer(contents, dtype=np.uint8, offset=offset).copy()).reshape(shape)
