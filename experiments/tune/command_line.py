"""The command line of a search: what is asked for, checked before the first trial, and what is said."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from experiments.__main__ import list_experiments
from experiments.cli_errors import OneLineParser, UsageError
from experiments.command_line import Experiment
from experiments.console import quiet
from experiments.fitting import FitOnlyCLI
from experiments.options import option_value
from experiments.summary import opening
from experiments.tune.space import Choices, Range, default_space, parse_entry, probes, read_space

if TYPE_CHECKING:
    from experiments.tune.study import Search
    from experiments.tune.worker import Finished

LOSS = "val/loss"
_MISSING = 'a search needs Optuna and SQLAlchemy: pip install -e ".[tune]"'
# A trial has none of what they are about.
_NOT_FOR_TRIALS = ("--run_dir", "--resume", "--tracking", "--checkpoint_every", "--log_model", "--figures", "--doctor")
# The loss is another quantity under another value of these.
_CHANGE_THE_LOSS = ("label_smoothing", "loss", "huber_delta", "class_weights", "pos_weight")
_SECTIONS = ("model.", "data.", "trainer.")
_SUCH_AS = ("model.optimizer.lr", "data.batch_size", "trainer.gradient_clip_val")
_VALIDATIONS = "0.25"  # of an epoch


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return number


def make_parser() -> argparse.ArgumentParser:
    """What a search itself is asked for."""
    parser = OneLineParser(
        prog="python -m experiments.tune",
        description="Search options of an experiment with Optuna. Behind -- come options that all trials have.",
        epilog="Trials are chosen by validation: none is tested, tracked or kept.",
        allow_abbrev=False,
    )
    parser.add_argument("experiment", choices=sorted(list_experiments()), metavar="experiment")
    parser.add_argument(
        "--trials",
        type=_positive,
        default=20,
        help="finished trials that the study is to have in the end, those of earlier calls and of other processes "
        "counted (default: 20)",
    )
    parser.add_argument(
        "--storage",
        default="sqlite:///tune.db",
        help="address of the database, such as sqlite:///tune.db (the default) or postgresql://user@host/database; "
        "a password is better left to PGPASSWORD or ~/.pgpass",
    )
    parser.add_argument("--study", help="name of the study in the database (default: the experiment's)")
    parser.add_argument(
        "--search",
        action="append",
        default=[],
        metavar="OPTION=SPACE",
        help="search an option, in log:LOW:HIGH, uniform:LOW:HIGH, int:LOW:HIGH, logint:LOW:HIGH or A,B,C; "
        "may be given again, and takes the place of the experiment's own space",
    )
    parser.add_argument("--space", type=Path, metavar="FILE", help="a YAML file of such lines, OPTION: SPACE")
    parser.add_argument(
        "--metric",
        help="validation metric to choose and prune by: val/loss (the default), or the one that the experiment's own "
        "best checkpoint is chosen by",
    )
    parser.add_argument(
        "--grace",
        type=_positive,
        default=60,
        metavar="SECONDS",
        help="a trial whose process was not heard of for so long is run again (default: 60)",
    )
    return parser


def split(args: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """What a search is asked for, and the options of the trials, which may come behind ``--`` or among the others.

    Raises:
        UsageError: an option that is neither's.
    """
    own = list(args[: args.index("--")]) if "--" in args else list(args)
    parser = make_parser()
    given, rest = parser.parse_known_args(own)
    known = [option for action in parser._actions for option in action.option_strings]
    for arg in rest:
        name = arg.partition("=")[0]
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
        if name.startswith("--") and "." not in name and close:
            raise UsageError(f"unknown option {name}; did you mean {close[0]}?")
    return given, [*rest, *args[len(own) + 1 :]]


def make_search(given: argparse.Namespace, fixed: Sequence[str]) -> Search:
    """What is to be searched, after every part of it was tried on the experiment's own parser.

    Raises:
        UsageError: it cannot be.
    """
    from experiments.tune.study import Search

    experiment: Experiment = importlib.import_module(f"experiments.{given.experiment}").EXPERIMENT
    for option in _NOT_FOR_TRIALS:
        if any(arg.partition("=")[0] == option for arg in fixed):
            raise UsageError(f"{option}: a trial is neither tracked nor kept; run the best one by itself in the end")
    metric, mode = given.metric or LOSS, experiment.mode
    if metric not in (LOSS, experiment.monitor):
        raise UsageError(f"--metric: {metric!r} is not one of {LOSS}, {experiment.monitor}")
    if metric == LOSS:
        mode = "min"
    space = make_space(given, experiment, fixed)
    changing = [name for name in space if name.rpartition(".")[2] in _CHANGE_THE_LOSS]
    if metric == LOSS and changing:
        other = f": give --metric {experiment.monitor}" if experiment.monitor != LOSS else ""
        raise UsageError(f"{changing[0]} changes what {LOSS} measures, so that it cannot be chosen by it{other}")
    fixed = [*fixed, *_defaults_of_trials(experiment, fixed)]
    for arguments in probes(space):
        cli = _try(experiment, [*fixed, *arguments])
        _check_trainer(cli)
    return Search(experiment, space, fixed, metric, mode)


def make_space(given: argparse.Namespace, experiment: Experiment, fixed: Sequence[str]) -> dict[str, Range | Choices]:
    """The space that the command line names, else the experiment's own.

    Raises:
        UsageError: it says something that cannot be understood, or nothing.
    """
    space = {} if given.space is None else read_space(given.space)
    for text in given.search:
        option, equals, entry = text.removeprefix("--").partition("=")
        if not equals or not option:
            raise UsageError(f"--search: expected OPTION=SPACE, got {text!r}")
        space[option] = parse_entry(f"--search {option}", entry)
    for option in space:
        if not option.startswith(_SECTIONS):
            raise UsageError(f"{option!r} cannot be searched: that can be options such as {', '.join(_SUCH_AS)}")
        if option_value(fixed, f"--{option}") is not None:
            raise UsageError(f"--{option} is searched, and given as well: leave one of them out")
    if given.space is None and not given.search:
        space = default_space(experiment, fixed)
    if not space:
        raise UsageError("there is nothing to search: give --search OPTION=SPACE")
    return space


def _defaults_of_trials(experiment: Experiment, fixed: Sequence[str]) -> list[str]:
    """What a trial needs beside the options given: one device, and validations enough to be pruned by."""
    cli = _try(experiment, fixed)
    trainer = cli.config.trainer
    more = []
    if cli.trainer.world_size > 1 and trainer.devices == "auto":
        more.append("--trainer.devices=1")
    if trainer.max_epochs == 1 and trainer.val_check_interval is None:
        more.append(f"--trainer.val_check_interval={_VALIDATIONS}")
    return more


def _check_trainer(cli: FitOnlyCLI) -> None:
    trainer = cli.config.trainer
    if trainer.limit_val_batches == 0:
        raise UsageError("--trainer.limit_val_batches: must not be 0, trials are chosen by validation")
    if trainer.fast_dev_run:
        raise UsageError("--trainer.fast_dev_run: tries the code, and says nothing of the options")
    if cli.trainer.world_size > 1:
        raise UsageError(
            "--trainer.devices: a trial takes one; start this command once for each, with CUDA_VISIBLE_DEVICES"
        )


def _try(experiment: Experiment, args: Sequence[str]) -> FitOnlyCLI:
    """Make model, data, optimizer and trainer once for nothing.

    Raises:
        UsageError: that cannot be done.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        return FitOnlyCLI(experiment, args, Path(directory))


@contextlib.contextmanager
def told_once() -> Iterator[None]:
    """Quiet, and what is the same in every trial is said once."""
    said = set()
    with quiet():
        show = warnings.showwarning

        def show_once(message: Warning | str, *place: Any, **kwargs: Any) -> None:
            if str(message) not in said:
                said.add(str(message))
                show(message, *place, **kwargs)

        warnings.showwarning = show_once  # given back by quiet()
        yield


class Console:
    """A line for each finished trial, and a bar where somebody is watching.

    Args:
        search: what is searched.
        total: trials in the end.
        done: those that there are already.
    """

    def __init__(self, search: Search, total: int, done: int) -> None:
        self.search = search
        self._is_begun = False
        self._bar: tqdm[Any] | None = None
        if sys.stderr.isatty():
            self._bar = tqdm(
                desc="trials", total=total, initial=min(done, total), unit="trial", leave=False, dynamic_ncols=True
            )

    def begin(self, model: Any, data: Any, trainer: Any) -> None:
        """What is trained on what, before the first trial."""
        if not self._is_begun:
            self._is_begun = True
            self.say(opening(data, model, trainer))

    def wait(self, count: int) -> None:
        """Others have the last trials."""
        self.say(f"waiting   for {count} trial{'s' if count > 1 else ''} of other processes")

    def tell(self, trial: Finished) -> None:
        """A trial is finished."""
        metrics = {**trial.metrics, self.search.metric: trial.value}
        names = dict.fromkeys((self.search.metric, self.search.experiment.monitor))
        figures = ", ".join(f"{name} {metrics[name]:.4g}" for name in names if name in metrics)
        said = {
            "complete": f"{figures}{' (best so far)' if trial.is_best else ''}",
            "pruned": f"pruned at {self.search.metric} {trial.value:.4g}",
            "diverged": f"diverged: {trial.reason.partition(': ')[0]}",
            "failed": f"failed: {trial.reason}",
            "lost": "lost to other processes, which had not heard of this one for too long",
        }[trial.outcome]
        tried = ", ".join(self._shortened(argument) for argument in trial.arguments)
        self.say(f"trial {trial.number:<3} {said}; {tried}; {trial.seconds:.1f} s")
        if self._bar is not None:
            self._bar.update(trial.done - self._bar.n)  # other processes finish trials, too

    def _shortened(self, argument: str) -> str:
        """``--model.optimizer.lr=0.1`` as ``lr 0.1``, where no other option that is searched ends like it."""
        option, _, value = argument.removeprefix("--").partition("=")
        last = option.rpartition(".")[2]
        alike = [name for name in self.search.space if name.rpartition(".")[2] == last]
        return f"{last if len(alike) == 1 else option} {value}"

    def say(self, text: str) -> None:
        """Print lines above the bar."""
        if self._bar is None:
            print(text, flush=True)
        else:
            tqdm.write(text, file=sys.stdout)

    def close(self) -> None:
        """Leave the screen to others."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def require_extra() -> None:
    """Raise a :class:`UsageError` if what a search needs is not installed."""
    try:
        for name in ("optuna", "sqlalchemy"):
            importlib.import_module(name)
    except ImportError as error:
        raise UsageError(_MISSING) from error
