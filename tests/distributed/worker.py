"""One rank of a process group: runs every case once and writes down what came of it."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import torch


def main(out: str, rank: str, world: str, port: str) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=port, WORLD_SIZE=world, LOCAL_RANK=rank, NODE_RANK="0", OMP_NUM_THREADS="1"
    )
    torch.set_num_threads(1)
    import cases

    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message="`isinstance\\(treespec, LeafSpec\\)`", category=FutureWarning)
    results = cases.run_all(int(world), Path(out))
    torch.save(results, Path(out) / f"{rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
