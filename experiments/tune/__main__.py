"""``python -m experiments.tune mnist_cnn --trials 20 --storage sqlite:///tune.db``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from experiments.cli_errors import answered
from experiments.runner import exit_code_of, launch, terminable
from experiments.tune.command_line import Console, make_search, require_extra, split, told_once

if TYPE_CHECKING:
    from experiments.tune.study import Search


def main(args: Sequence[str]) -> None:
    """Search, and print the best trial with the command that repeats it.

    Raises:
        SystemExit: with code 2 for a command line that cannot be used, 1 for a search that fails or has no result, 130
            after Ctrl-C and 143 after SIGTERM.
    """
    with told_once(), terminable(), answered():
        _search(args)


def _search(args: Sequence[str]) -> None:
    given, fixed = split(args)
    require_extra()
    from experiments.tune import storage

    url = storage.parse_url(given.storage)
    search = make_search(given, fixed)
    try:
        _work(given, search, url)
    except storage.DATABASE_ERRORS as error:
        message = f"the database {storage.shown(url)} broke off: {storage.reason(error, url)}"
        _fail(f"{message}; the same command goes on with the study")
    except storage.StorageError as error:
        _fail(str(error))


def _work(given: Any, search: Search, url: Any) -> None:
    import optuna

    from experiments.tune.storage import open_storage, shown
    from experiments.tune.study import StudyError, is_finished, open_study, queue_again
    from experiments.tune.worker import Worker

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # what befalls a trial is told here
    name = given.study or search.experiment.name
    study = open_study(open_storage(url, given.grace, queue_again), name, search)
    done = sum(map(is_finished, study.get_trials(deepcopy=False)))
    console = Console(search, given.trials, done)
    console.say(f"study     {name} in {shown(url)}: {done} of {given.trials} trials are finished")
    console.say("search    " + ", ".join(f"{option} {entry}" for option, entry in search.space.items()))
    worker = Worker(study, search, given.trials, given.grace, console.tell, console.wait, console.begin)
    try:
        worker.work()
    except StudyError as error:
        console.close()
        _fail(str(error))
    except (SystemExit, KeyboardInterrupt) as stopped:
        console.close()
        print("stopped   the same command goes on with the study", file=sys.stderr)
        raise SystemExit(exit_code_of(stopped)) from None
    finally:
        console.close()
    _conclude(study, search)


def _conclude(study: Any, search: Search) -> None:
    from experiments.tune.study import ARGUMENTS, METRICS, REASON, best_trial, is_finished

    best = best_trial(study)
    trials = [trial for trial in study.get_trials(deepcopy=False) if is_finished(trial)]
    if best is None:
        reasons = [trial.user_attrs[REASON] for trial in trials if REASON in trial.user_attrs]
        last = f"; the last one said: {reasons[-1]}" if reasons else ""
        _fail(f"none of the {len(trials)} trials came to a result{last}")
        return
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in sorted(best.user_attrs[METRICS].items()))
    states = [trial.state.name for trial in trials]
    print(
        f"result    {len(trials)} trials, {states.count('COMPLETE')} of them complete, {states.count('PRUNED')} pruned"
    )
    print(f"best      {search.metric} {best.value:.6g} in trial {best.number} ({metrics}); chosen by validation alone")
    command = ["python", "-m", f"experiments.{search.experiment.name}", *search.fixed, *best.user_attrs[ARGUMENTS]]
    print(f"run it    {shlex.join(command)}", flush=True)


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    launch(main)
