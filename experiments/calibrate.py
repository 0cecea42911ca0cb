"""A trained classifier's probabilities, made right: ``python -m experiments.calibrate --checkpoint PATH``.

Fits one temperature to the validation split of the model's own data (Guo et al. 2017), shows what it does on test, and
writes a checkpoint that holds it beside the other: ``best-calibrated.ckpt`` beside ``best.ckpt``. Weights and decisions
stay as they are. Of a directory that ``zoo.save_pretrained`` wrote, or of the name of pretrained weights, it writes
another such directory.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from experiments.cli_errors import UsageError, answered
from experiments.console import quiet
from experiments.evaluation import Evaluation, command_line
from experiments.runner import launch
from experiments.summary import as_json
from zoo.calibration import Calibration, Confidence, NotCalibratableError, calibrate, collect_logits, confidence
from zoo.checkpointing import write_checkpoint
from zoo.checkpointing.files import local_target
from zoo.pretrained.card import model_card
from zoo.pretrained.directory import write_directory
from zoo.tasks.temperature import TEMPERATURE_KEY

_OPTIONS: dict[str, dict[str, Any]] = {
    "output": {"type": str, "help": "The new checkpoint or directory (default: beside the other, NAME-calibrated)."},
    "force": {"action": "store_true", "help": "Take the place of what is there."},
}


def calibrate_checkpoint(args: Sequence[str]) -> Calibration:
    """Calibrate what a command line names, print what changed, and write the new checkpoint.

    Raises:
        SystemExit: after one line on stderr, with code 2 for a command line that cannot be used.
        NotCalibratableError, CheckpointError, DataError: see there.
    """
    with quiet(), answered():
        asked = command_line("calibrate", "Fits a temperature to a trained classifier.", _OPTIONS, args)
        target = _target(asked)
        if asked.may_have_seen_validation:
            raise NotCalibratableError(
                "the validation split is not the one of the model's run, and may hold samples that it was trained on: "
                "give the data and the seed of its run"
            )
        task = asked.trained.task
        found = calibrate(task, asked.data, asked.trainer)
        logits, labels = collect_logits(task, asked.data, asked.trainer, "test")
        before, after = confidence(logits, labels), confidence(logits, labels, found.temperature)
        _write(asked, target, found.temperature)
        if asked.given.get("json"):
            test = {"before": asdict(before), "after": asdict(after)}
            print(
                json.dumps(as_json({**asked.facts(), **asdict(found), "test": test, "output": str(target)}), indent=2)
            )
        else:
            print("\n".join([asked.opening(), *_report(found, before, after), f"written   {target}"]))
    return found


def _target(asked: Evaluation) -> Path:
    source, is_directory = asked.trained.source, asked.trained.pretrained is not None
    given = asked.given.get("output")
    stem, suffix = (source.name, "") if is_directory else (source.stem, source.suffix)
    target = source.with_name(f"{stem}-calibrated{suffix}") if given is None else local_target(given)
    if target.is_dir() and not is_directory:
        raise UsageError(f"--output: {target} is a directory, give a file")
    if target.is_file() and is_directory:
        raise UsageError(f"--output: {target} is a file, give a directory")
    if target.exists() and not asked.given.get("force"):
        raise UsageError(f"--output: {target} is there already: --force puts the new one in its place")
    return target


def _write(asked: Evaluation, target: Path, temperature: float) -> None:
    pretrained = asked.trained.pretrained
    if pretrained is not None:
        metrics = {name: value for name, value in pretrained.record.metrics.items() if name != "test/ece"}
        record = replace(pretrained.record, temperature=temperature, metrics=metrics)
        card = model_card(record, asked.trained.task, name=target.name)
        write_directory(replace(pretrained, record=record), target, card, overwrite=True)
        return
    source = asked.trained.source.stat()
    write_checkpoint({**asked.trained.contents, TEMPERATURE_KEY: temperature}, target)
    # As old as the other: the newest file tells --resume last which run was the last one.
    with contextlib.suppress(OSError):
        os.utime(target, ns=(source.st_atime_ns, source.st_mtime_ns))


def _report(found: Calibration, before: Confidence, after: Confidence) -> list[str]:
    lines = [f"found     temperature {found.temperature:.4f}, on {found.samples:,} validation samples"]
    if found.is_bound:
        lines.append("note      this is as far as is tried: validation does not say how sure to be, so trust it little")
    for split, (first, then) in {"val": (found.before, found.after), "test": (before, after)}.items():
        ece = f"ece {first.ece:.4f} -> {then.ece:.4f}"
        lines.append(f"{split:9} {ece}, negative log-likelihood {first.nll:.4f} -> {then.nll:.4f}")
    return lines


if __name__ == "__main__":
    launch(calibrate_checkpoint)
