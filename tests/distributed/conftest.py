import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
PATIENCE = 180  # seconds, of which an idle core needs a tenth


@pytest.fixture(scope="session")
def run_ranks(tmp_path_factory):
    """Starts the ranks of a world once and returns what each of them found; fails with their words if one does."""
    done = {}

    def run(world):
        if world not in done:
            done[world] = _run(world, tmp_path_factory.mktemp(f"world{world}"))
        results, failure = done[world]
        if failure:
            pytest.fail(failure)
        return results

    return run


def _run(world, out):
    """What each rank found and nothing, or nothing and what went wrong."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    environment.pop("PL_GLOBAL_SEED", None)
    logs = [out / f"{rank}.log" for rank in range(world)]
    started = []
    try:
        for rank, log in enumerate(logs):
            command = [sys.executable, str(HERE / "worker.py"), *map(str, (out, rank, world, port))]
            with log.open("w") as file:
                started.append(subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=out))
        codes = [process.wait(PATIENCE) for process in started]
    except subprocess.TimeoutExpired:
        codes = ["no end"]
    finally:
        for process in started:
            process.kill()
            process.wait()
    if any(codes):
        words = "\n".join(f"rank {rank}: {log.read_text()[-4000:]}" for rank, log in enumerate(logs))
        return None, f"{world} ranks ended with {codes}:\n{words}"
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(world)], None
