"""How the process of an experiment begins and ends."""

import gc
import os
import platform
import signal
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from experiments import process, runner

FEW = [
    *("--data.num_samples", "400", "--data.batch_size", "64", "--trainer.max_epochs", "2"),
    *("--trainer.accelerator", "cpu", "--tracking", "none", "--figures", "none", "--run_dir", "run"),
]
PATIENCE = 120  # seconds

# What somebody else may have to do with the process of an experiment.
OTHERS = """
import atexit, gc, sys
from lightning.pytorch import Callback

class _Kept:
    def __del__(self):
        print("taken apart")

kept = _Kept()

def last_words(text):
    print(text, end="")  # neither a line nor flushed

class Late(Callback):
    def on_fit_end(self, trainer, module):
        atexit.register(last_words, "at the end of stdout")
        print("threshold", gc.get_threshold(), "frozen", gc.get_freeze_count() > 100_000)

class Fails(Callback):
    def on_train_start(self, trainer, module):
        atexit.register(last_words, "at the end of stdout")
        raise ZeroDivisionError("nobody expected this")
"""
EARLY = """
import atexit
atexit.register(print, "registered before the experiment", end="")
"""


@pytest.fixture
def started(tmp_path):
    """Starts ``python -m experiments.linear_regression``, which finds the files that are given by name."""
    processes = []

    def start(*options, **files):
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
        environment = {
            **{name: value for name, value in os.environ.items() if name not in ("PL_GLOBAL_SEED", "ZOO_RUN_DIR")},
            "PYTHONPATH": os.pathsep.join((str(tmp_path), str(REPOSITORY))),
            "OMP_NUM_THREADS": "1",
        }
        environment.pop("PYTHONUNBUFFERED", None)
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "experiments.linear_regression", *FEW, *options],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=tmp_path,
                env=environment,
            )
        )
        return processes[-1]

    yield start
    for each in processes:
        each.kill()
        each.communicate()


def finished(child):
    """Exit code, stdout and stderr."""
    out, err = child.communicate(timeout=PATIENCE)
    return child.returncode, out, err


def test_a_run_ends_early_and_loses_nothing(started):
    code, out, err = finished(started("--trainer.callbacks+=others.Late", others=OTHERS))
    assert code == 0
    assert err == ""
    assert "\nresult    test/loss " in out
    assert out.endswith("summary.json, metrics.csv, config.yaml\nat the end of stdout")
    assert "threshold (100000, 20, 100) frozen True\n" in out
    assert "taken apart" not in out  # object by object, as Python does at its end


def test_an_option_that_is_none_is_told_in_one_line(started):
    code, out, err = finished(started("--data.num_sample", "3"))
    assert (code, out) == (2, "")
    assert err == "error: unknown option --data.num_sample; did you mean --data.num_samples?\n"


def test_an_error_keeps_its_code_and_those_who_came_before_are_heard(started):
    code, out, err = finished(started("--data.batch_size", "4000", sitecustomize=EARLY))
    assert code == 1
    assert err.startswith("error: the training split has 280 samples, fewer than one batch of 4000")
    assert out == "registered before the experiment"


def test_an_error_nobody_expected_has_its_traceback(started):
    code, out, err = finished(started("--trainer.callbacks+=others.Fails", others=OTHERS))
    assert code == 1
    assert err.startswith("Traceback (most recent call last):\n")
    assert "\nZeroDivisionError: nobody expected this\n" in err
    assert "\nat the end of stdout" in out


def test_sigterm_keeps_its_code(started):
    child = started("--trainer.max_epochs", "1000000")
    assert any(line.startswith("epoch 1/") for line in child.stdout)
    child.send_signal(signal.SIGTERM)
    code, _, err = finished(child)
    assert code == 143
    assert err == "stopped   go on with --resume run\n"


FAULTS = """
import resource, sys
import torch
if len(sys.argv) > 1:
    from experiments.process import keep_freed_memory
    keep_freed_memory()

def step():
    # Activations of many megabytes, freed at once, as those of a training step are.
    kept = [torch.ones(7_500_000) for _ in range(4)]

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*arguments, **variables):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-c", FAULTS, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has other settings")
def test_freed_memory_is_kept_for_the_next_step():
    pages = 20 * 4 * 30_000_000 // 4096  # all that the steps write
    # By itself glibc keeps it or does not, as the heap happens to lie: mostly not. One step of the twenty may still
    # have to grow the heap, which is a twentieth of the pages and no more.
    assert page_faults("keep") < pages // 10
    # The environment wins.
    assert page_faults("keep", MALLOC_TRIM_THRESHOLD_="131072") > pages // 4
    assert page_faults("keep", GLIBC_TUNABLES="glibc.malloc.trim_threshold=131072") > pages // 4


SCIPY = """
import sys
sys.argv = ["-m"]
import experiments, importlib.util
assert importlib.util.find_spec("torchmetrics")  # to look for it is not to import it
import torchmetrics
print(sorted(name for name in sys.modules if name.partition(".")[0] == "scipy"))
import scipy.signal
print([round(value, 9) for value in scipy.signal.windows.hamming(3).tolist()], bool(scipy.__version__))
import torch
from torchmetrics.functional.audio import permutation_invariant_training
ones, twos = torch.ones(1, 1, 4), 2 * torch.ones(1, 1, 4)
apart = lambda a, b: (a - b).square().mean(-1)
least, order = permutation_invariant_training(
    torch.cat([ones, twos, 3 * ones, 4 * ones], 1), torch.cat([twos, ones, 4 * ones, 3 * ones], 1), apart,
    mode="speaker-wise", eval_func="min",
)
print(least.tolist(), order.tolist())
"""


def test_torchmetrics_comes_without_scipy_and_scipy_works_all_the_same():
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", SCIPY], check=False, capture_output=True, text=True, env=environment)
    assert done.stderr == ""
    assert done.stdout == "[]\n[0.08, 1.0, 0.08] True\n[0.0] [[1, 0, 3, 2]]\n"


TRANSFORMERS = """
import scipy
from scipy import signal, sparse
import scipy.linalg, sklearn.metrics
version, found = scipy.__version__, [sparse.eye(2).nnz, float(scipy.linalg.det([[2.0, 0.0], [0.0, 3.0]]))]
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})
"""
WITH_TRANSFORMERS = """
import sys
sys.argv = ["-m"]
finders = list(sys.meta_path)
import experiments, torchmetrics
assert sys.meta_path == finders
import scipy.signal, transformers
print(transformers.found, transformers.version == scipy.__version__)
print(transformers.signal.lfilter is scipy.signal.lfilter)
"""


def test_what_torchmetrics_imports_beside_gets_all_of_scipy(tmp_path):
    # A package that torchmetrics takes along where it is installed, and that imports SciPy, as the real one does.
    (tmp_path / "transformers.py").write_text(TRANSFORMERS)
    (tmp_path / "transformers-4.50.0.dist-info").mkdir()
    (tmp_path / "transformers-4.50.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: transformers\nVersion: 4.50.0\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-c", WITH_TRANSFORMERS], check=False, capture_output=True, text=True, env=environment
    )
    assert done.stderr == ""
    assert done.stdout == "[2, 6.0] True\nTrue\n"


def test_a_process_without_stdout_ends_with_its_code():
    command = f'"{sys.executable}" -m experiments.linear_regression --zzz >&-'
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, shell=True, check=False, capture_output=True, text=True, env=environment, timeout=PATIENCE
    )
    assert (done.returncode, done.stderr) == (2, "error: unknown option --zzz\n")


# ------------------------------------------------------------------ as a library

LIBRARY = """
import atexit, gc, sys
before = gc.get_threshold(), atexit._ncallbacks()
finders = list(sys.meta_path)
import experiments, experiments.process
assert sys.meta_path == finders
assert (gc.get_threshold(), atexit._ncallbacks()) == before, "changed"
atexit.register(print, "at the end")
print("as before")
"""


def test_importing_the_package_changes_nothing_in_the_process():
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", LIBRARY], check=False, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "as before\nat the end\n", "")


@pytest.fixture
def launch(monkeypatch):
    """Launches a function in this process; gives the exit codes that were kept for its end, and what was raised."""
    kept = []
    monkeypatch.setattr(process, "_exit_codes", kept)
    monkeypatch.setattr(gc, "freeze", lambda: None)

    def call(main):
        with pytest.raises(SystemExit) as caught:
            runner.launch(main)
        return kept, caught.value.code

    return call


def raising(error):
    def main(args):
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "code"),
    [
        (lambda args: {"test/accuracy": 1.0}, 0),
        (raising(FileNotFoundError("no such file\nat all")), 1),
        (raising(SystemExit(2)), 2),
        (raising(KeyboardInterrupt()), 130),
        (raising(SystemExit(143)), 143),
    ],
)
def test_exit_codes_are_kept_for_the_end(launch, capsys, main, code):
    assert launch(main) == ([code], code)
    assert capsys.readouterr().err == ("error: no such file at all\n" if code == 1 else "")


def test_an_exit_without_a_number_is_left_to_python(launch):
    assert launch(raising(SystemExit("some words"))) == ([], "some words")


def test_another_error_is_left_to_python(monkeypatch):
    kept = []
    monkeypatch.setattr(process, "_exit_codes", kept)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    with pytest.raises(ZeroDivisionError):
        runner.launch(raising(ZeroDivisionError()))
    assert kept == []


def test_a_main_gets_the_command_line(launch, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "argv", ["experiment", "--option", "3"])
    launch(seen.append)
    assert seen == [["--option", "3"]]
