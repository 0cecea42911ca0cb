"""An experiment in a process of its own, with something done to its disk, its user or itself at a step."""

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
from pathlib import Path

NOBODY = 65534

# Processes that need not import everything again.
_CONTEXT = multiprocessing.get_context("forkserver")


def start_server():
    """Have the imports done once, before the first run."""
    _CONTEXT.set_forkserver_preload(["__main__", "experiments.multiclass_blobs"])


def run(directory, options, fault=None, step=None):
    """Exit code, stdout and stderr of ``multiclass_blobs``, resumed if ``directory`` is a run's.

    ``fault`` names a function of this module, with its arguments, that is called in the run's process: at the start,
    when training is at a ``step``, or behind the test (``"tested"``).
    """
    place = "--resume" if (directory / "config.yaml").is_file() else "--run_dir"
    with tempfile.TemporaryDirectory() as elsewhere:
        logs = [Path(elsewhere) / name for name in ("out", "err")]
        process = _CONTEXT.Process(target=_run, args=([*options, place, str(directory)], logs, fault, step))
        process.start()
        process.join(120)
        process.kill()
        process.join()
        return process.exitcode, *(log.read_text() for log in logs)


def _run(args, logs, fault, step):
    for log, stream in zip(logs, (sys.stdout, sys.stderr), strict=True):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), stream.fileno())
    from experiments import multiclass_blobs, runner
    from zoo.callbacks import StepSeeding

    def strike():
        name, *arguments = fault
        globals()[name](*arguments)

    if fault is not None and step is None:
        strike()
    original, examine = StepSeeding.on_train_batch_start, runner._examine

    def at_step(callback, trainer, *rest):
        if trainer.global_step == step:
            strike()
        original(callback, trainer, *rest)

    def behind_the_test(cli):
        if step == "tested":
            strike()
        return examine(cli)

    StepSeeding.on_train_batch_start, runner._examine = at_step, behind_the_test
    sys.argv = ["multiclass_blobs", *args]
    runner.launch(multiclass_blobs.main)


# ------------------------------------------------------------------ what may happen to a run


def fill(folder):
    """Fill a small file system; what does it is called ``ballast``."""
    with Path(folder, "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


def limit_files(size):
    """As ``ulimit -f`` does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def limit_files_to(path, more):
    """Let no file grow beyond the size of this one and ``more``."""
    limit_files(Path(path).stat().st_size + more)


def forbid(path, mode):
    """Go on as a user who may not write there: not root, whom no mode of a file binds."""
    if os.geteuid() == 0:
        run_directory = Path(path).parent
        for each in (run_directory, *run_directory.rglob("*")):
            os.chown(each, NOBODY, NOBODY)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    Path(path).chmod(mode)


def die_writing(where):
    """Be killed when the next file has been written, and not yet been renamed, with ``$TMPDIR`` elsewhere."""
    os.environ["TMPDIR"] = where
    tempfile.tempdir = None
    os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
