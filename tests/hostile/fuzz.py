"""Opens files that were changed at random, and sees to it that nothing but the named errors comes of it.

    python tests/hostile/fuzz.py --mutations 5000 --seed 0 [--only NAME] [--keep DIRECTORY]

Each changed file is opened in a process apart, which is killed after ten seconds and may take 2 GB more memory
than it has at its start. The change of a number under a seed is the same every time: ``--first NUMBER --mutations 1``
repeats it. Targets are in ``targets*.py`` beside this file, each with a list ``TARGETS``.
"""

import argparse
import contextlib
import gc
import importlib
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

SECONDS = 10
MEMORY = 2 * 2**30
ALLOCATION = ("can't allocate memory", "DefaultCPUAllocator", "Cannot allocate memory", "bad_alloc", "std::bad")


@dataclass
class Target:
    """A kind of file.

    Args:
        name: for ``--only``.
        seeds: makes valid files, as bytes, in an empty directory.
        open: opens a file; ends, or raises one of ``expected``.
        expected: the errors that say what is wrong with a file.
        mutators: ways to change one, functions of a random generator, the bytes and all seeds.
        suffix: of the file.
        quick: how many changes the tests make.
    """

    name: str
    seeds: Callable
    open: Callable
    expected: tuple
    mutators: list
    suffix: str = ".bin"
    quick: int = 60


@dataclass
class Outcome:
    """What became of the changed files of a target."""

    opened: int = 0
    refused: Counter = field(default_factory=Counter)
    failures: list = field(default_factory=list)
    seconds: float = 0.0


def change(target, seeds, seed, number):
    """The changed file with a number."""
    generator = random.Random(f"{seed}/{target.name}/{number}")
    data = generator.choice(seeds)
    for _ in range(generator.choice([1, 1, 1, 2])):
        with contextlib.suppress(Exception):  # the first change left nothing that the second understands
            data = generator.choice(target.mutators)(generator, data, seeds)
    return data


def _serve(target, connection, directory):
    """Open what comes over the connection, in a process of its own."""
    os.chdir(directory)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # the others were not forked with this one, and would be waited for for ever
    path = Path(directory) / f"changed{target.suffix}"
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (own + MEMORY, own + MEMORY))
    gc.freeze()  # going through all that was imported would take longer than opening a file
    connection.send("ready")
    while (data := connection.recv()) is not None:
        path.write_bytes(data)
        try:
            target.open(path)
            answer = ("opened", "")
        except target.expected as error:
            answer = ("refused", type(error).__name__)
            if not str(error) or "\n" in str(error) or len(str(error)) > 2000:
                answer = ("failed", f"not one clear sentence: {str(error)[:300]!r}")
            if _ran_out_of_memory(error):
                answer = ("failed", f"more than 2 GB: {error}"[:300])
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is not a clear error
            answer = ("failed", f"{type(error).__name__}: {error}"[:300])
        connection.send(answer)


def _ran_out_of_memory(error):
    while error is not None:
        if isinstance(error, MemoryError) or any(words in str(error) for words in ALLOCATION):
            return True
        error = error.__cause__ or error.__context__
    return False


class Worker:
    """A process that opens files, started again after a crash."""

    def __init__(self, target):
        self.target = target
        self.process = None

    def start(self):
        self.connection, theirs = multiprocessing.Pipe()
        self.directory = tempfile.TemporaryDirectory()
        # Forked: what is imported here need not be imported again after each crash.
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=_serve, args=(self.target, theirs, self.directory.name), daemon=True)
        with warnings.catch_warnings():  # Python 3.12 warns of forks beside threads, and torch has some
            warnings.simplefilter("ignore", DeprecationWarning)
            self.process.start()
        theirs.close()
        self.connection.recv()

    def open(self, data):
        """What became of a file: what happened, and the error."""
        if self.process is None:
            self.start()
        try:
            self.connection.send(data)
            if self.connection.poll(SECONDS):
                return self.connection.recv()
            self.stop()
            return "failed", f"not done after {SECONDS} s"
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            self.stop()
            return "failed", f"the process died with {code}"

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.connection.close()
            self.directory.cleanup()
            self.process = None


def fuzz(target, mutations, seed, first=0, keep=None):
    """Open changed files of a target, and return what became of them."""
    outcome, worker, started = Outcome(), Worker(target), time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)  # else the same change would be one of another file
            seeds = target.seeds(Path(directory))
        for data in seeds:
            status, reason = worker.open(data)
            if status != "opened":
                outcome.failures.append((-1, f"a seed is not opened: {status} {reason}"))
        for number in range(first, first + mutations):
            data = change(target, seeds, seed, number)
            status, reason = worker.open(data)
            if status == "opened":
                outcome.opened += 1
            elif status == "refused":
                outcome.refused[reason] += 1
            else:
                outcome.failures.append((number, reason))
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{target.name}-{seed}-{number}{target.suffix}").write_bytes(data)
    finally:
        worker.stop()
    outcome.seconds = time.perf_counter() - started
    return outcome


def all_targets():
    """The targets of all ``targets*.py`` beside this file."""
    here = Path(__file__).parent
    if str(here) not in sys.path:
        sys.path.insert(0, str(here))
    sys.modules.setdefault("fuzz", sys.modules[__name__])
    modules = [importlib.import_module(file.stem) for file in sorted(here.glob("targets*.py"))]
    return [target for module in modules for target in module.TARGETS]


def main(args=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mutations", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first change")
    parser.add_argument("--only", help="name of a target")
    parser.add_argument("--keep", type=Path, help="where to keep files that failed")
    given = parser.parse_args(args)
    targets = [target for target in all_targets() if given.only in (None, target.name)]
    if not targets:
        parser.error(f"there is no target {given.only}: {', '.join(target.name for target in all_targets())}")
    failed = False
    for target in targets:
        outcome = fuzz(target, given.mutations, given.seed, given.first, given.keep)
        refused = ", ".join(f"{count} {name}" for name, count in outcome.refused.most_common())
        print(
            f"{target.name}: {given.mutations} changes under seed {given.seed}, {outcome.opened} opened, refused: "
            f"{refused or 'none'}; {len(outcome.failures)} failures; {outcome.seconds:.0f} s",
            flush=True,
        )
        for number, reason in outcome.failures:
            print(f"  change {number}: {reason}", flush=True)
        failed |= bool(outcome.failures)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
