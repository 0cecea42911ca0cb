"""Several trained classifiers as one that votes: ``python -m experiments.combine --checkpoint A B C --output FILE``.

Writes a checkpoint of a :class:`zoo.EnsembleClassifier`, which ``evaluate``, ``predict``, ``calibrate`` and ``export``
take like any other. The members may be of different architectures and seeds; they must have been trained on the same
data, standardised alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch import LightningDataModule
from torch import Tensor

from experiments.checkpoints import Trained, TrainingData, load_trained
from experiments.cli_errors import OneLineParser, UsageError, answered
from experiments.console import quiet
from experiments.runner import launch
from experiments.summary import count_parameters, relative
from zoo import EnsembleClassifier
from zoo.checkpointing import write_checkpoint
from zoo.checkpointing.files import local_target
from zoo.networks.ensemble import VOTINGS
from zoo.tasks.base import TASK_CLASS_KEY

_LARGEST_SHIFT = 0.01  # of the standard deviation: more than other draws of the training split make, and no harm
_OF_THE_DATA = (
    "pytorch-lightning_version",
    LightningDataModule.CHECKPOINT_HYPER_PARAMS_NAME,
    LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY,
)


def combine(args: Sequence[str]) -> EnsembleClassifier:
    """Make what a command line asks for, write it, and return it.

    Raises:
        SystemExit: after one line on stderr, with code 2 for a command line that cannot be used.
        CheckpointError: a member cannot be read, or the file not be written.
    """
    with quiet(), answered():
        given = _parser().parse_args(list(args))
        target = _target(given)
        members = [load_trained(path) for path in given.checkpoint]
        data = _common_data(members)
        tasks: list[Any] = [member.task for member in members]
        try:
            ensemble = EnsembleClassifier.of(tasks, given.voting)
        except ValueError as error:
            raise UsageError(f"--checkpoint: {error}") from error
        write_checkpoint({**_contents(ensemble), **data}, target)
        for number, member in enumerate(members, start=1):
            print(f"member {number}  {type(member.task).__name__} of {member.source}")
        print(f"written   {relative(target)}: {given.voting} vote, {count_parameters(ensemble):,} parameters")
    return ensemble


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m experiments.combine",
        description="Several trained classifiers as one that votes.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        required=True,
        metavar="PATH",
        help="checkpoints of the members, or names of pretrained weights",
    )
    parser.add_argument("--output", required=True, help="the new checkpoint")
    parser.add_argument(
        "--voting",
        choices=VOTINGS,
        default="soft",
        help="soft: the mean probability; hard: the majority (default: soft)",
    )
    parser.add_argument("--force", action="store_true", help="take the place of a file that is there")
    return parser


def _target(given: argparse.Namespace) -> Path:
    target = local_target(given.output)
    if target.is_dir():
        raise UsageError(f"--output: {target} is a directory, give a file")
    if target.exists() and not given.force:
        raise UsageError(f"--output: {target} is there already: --force puts the new one in its place")
    if not target.parent.is_dir():
        raise UsageError(f"--output: there is no directory {target.parent}")
    return target


def _common_data(members: Sequence[Trained]) -> dict[str, Any]:
    """What the members' checkpoints say of their data, as that of the ensemble has it: what all of them say alike."""
    first, *others = members
    if first.data is None:
        raise UsageError(f"--checkpoint: {first.source} does not say what data it was trained on")
    checksums = dict(first.data.checksums)
    for other in others:
        found = other.data
        if found is None or (found.class_name, found.dataset) != (first.data.class_name, first.data.dataset):
            told = "it does not say which" if found is None else f"{found.dataset} ({found.class_name})"
            raise UsageError(
                f"--checkpoint: {other.source} was trained on other data ({told}) than {first.source} "
                f"({first.data.dataset})"
            )
        if not _are_alike(first.data, found):
            raise UsageError(
                f"--checkpoint: the data of {other.source} were standardised otherwise than those of {first.source}, "
                "or have another shape, and the members of an ensemble see the same inputs"
            )
        # Of an image that some of them were trained on, the others' validation tells nothing of the vote.
        checksums = {name: value for name, value in checksums.items() if found.checksums.get(name) == value}
    known = _told_of_data(first, first.data)
    return {**known, first.data.class_name: {**known[first.data.class_name], "checksums": checksums}}


def _told_of_data(member: Trained, data: TrainingData) -> dict[str, Any]:
    """What a checkpoint says of its data, in that form also of shipped weights and of saved models."""
    if member.pretrained is None:
        return {name: member.contents[name] for name in (*_OF_THE_DATA, data.class_name) if name in member.contents}
    return {
        "pytorch-lightning_version": lightning.__version__,
        LightningDataModule.CHECKPOINT_HYPER_PARAMS_NAME: data.class_name,
        LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY: dict(data.arguments),
        data.class_name: {"dataset": data.dataset, "mean": data.mean, "std": data.std},
    }


def _are_alike(first: TrainingData, other: TrainingData) -> bool:
    """Whether inputs prepared for one model are prepared for the other."""
    same = ("image_size", "as_rows")
    return [first.arguments.get(name) for name in same] == [other.arguments.get(name) for name in same] and all(
        _is_near(one, another, first.std) for one, another in ((first.mean, other.mean), (first.std, other.std))
    )


def _is_near(one: Tensor | None, other: Tensor | None, std: Tensor | None) -> bool:
    if one is None or other is None or std is None:
        return one is other
    return one.shape == other.shape and bool(((one - other).abs() <= _LARGEST_SHIFT * std).all())


def _contents(ensemble: EnsembleClassifier) -> dict[str, Any]:
    return {
        "state_dict": ensemble.state_dict(),
        EnsembleClassifier.CHECKPOINT_HYPER_PARAMS_KEY: dict(ensemble.hparams),
        TASK_CLASS_KEY: f"{EnsembleClassifier.__module__}.{EnsembleClassifier.__qualname__}",
    }


if __name__ == "__main__":
    launch(combine)
