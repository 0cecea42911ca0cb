"""How much memory there is."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def memory() -> int:
    """Bytes this process may use. The kernel promises more than there are, and ends who takes it at its word."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):  # of the container
        with suppress(OSError, ValueError):  # there is none, or it says "max"
            limits.append(int(Path(path).read_text()))
    return min(limits)
