"""Pretrained weights for the zoo, out of finished runs: ``python -m experiments.publish RUN_DIR [RUN_DIR ...]``.

For maintainers. Of each run it takes the checkpoint that was tested, stores the weights compactly, loads them back
from the bytes that will be shipped, fits the temperature of a classifier to validation (decisions stay as they are),
measures all metrics on the test split once more, with what was loaded and in 32 bits, and enters them in the manifest
under the experiment's name. Weights that have become worse than the run was are refused. The same runs give the same
bytes; other entries stay.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from experiments import run_directory
from experiments.__main__ import list_experiments
from experiments.cli_errors import OneLineParser, UsageError, answered
from experiments.config_files import read_config_file
from experiments.console import quiet
from experiments.evaluation import Evaluation, command_line
from experiments.fitting import FitOnlyCLI
from experiments.resume import differences
from experiments.runner import launch
from zoo import Task
from zoo.calibration import NotCalibratableError, calibrate
from zoo.checkpointing import CheckpointError, read_checkpoint, write_whole
from zoo.checkpointing.safetensors_files import dump_safetensors, parse_safetensors
from zoo.checkpointing.strict_json import JSONError, parse_json
from zoo.leaves import LEAVES, hyperparameter_names
from zoo.pretrained import ManifestEntry, PretrainedError, shipped, write_manifest
from zoo.pretrained.directory import facts_of
from zoo.pretrained.forms import is_dict, is_number, is_text, read_bytes
from zoo.pretrained.record import plain_arguments
from zoo.pretrained.shipped import FOLDER, MANIFEST
from zoo.pretrained.source import Pretrained
from zoo.pretrained.storage import STORAGES, Storage, compact, expand
from zoo.wording import with_article

LARGEST_TOTAL = 9_000_000  # bytes of all weights: a wheel stays under ten million

_MAX_SUMMARY_SIZE = 1024 * 1024
_LARGE = 1_000_000  # bytes of a file; beyond, matrices take 8 bits
_TOLERANCE = 1e-3  # by which a share, such as the accuracy, may be worse than the run's, in other precision
# What does not change a result, or only through the machine's arithmetic.
_NOT_IN_COMMAND = ("seed_everything", "tracking", "figures", "doctor", "log_model", "checkpoint_every")
_NOT_OF_TRAINING = ("trainer.precision", "trainer.accelerator", "data.data_dir", "data.source", "data.eval_batch_size")


@dataclass(frozen=True)
class Published:
    """Weights that are ready to be shipped.

    Args:
        name: of the experiment, and so of the weights.
        entry: of the manifest.
        data: the bytes of the file.
        storage: how its matrices are kept.
        before: the metrics of the run's own test.
    """

    name: str
    entry: ManifestEntry
    data: bytes
    storage: Storage
    before: Mapping[str, float]

    def line(self) -> str:
        """For the screen."""
        metric = next((name for name in ("test/accuracy", "test/cer", "test/mse") if name in self.before), None)
        told = "" if metric is None else f"  {metric} {self.entry.metrics[metric]:.4f} (run {self.before[metric]:.4f})"
        temperature = "" if self.entry.temperature is None else f"  temperature {self.entry.temperature:.3f}"
        return f"{self.name:24} {self.storage:8} {len(self.data) / 1024:8.1f} KiB{told}{temperature}"


def publish(args: Sequence[str]) -> dict[str, ManifestEntry]:
    """Publish the runs that a command line names, and return their entries.

    Raises:
        SystemExit: after one line on stderr, with code 2 for a command line that cannot be used.
        CheckpointError, DataError: see there; nothing was written.
    """
    given = _parser().parse_args(args)
    with quiet(), answered():
        made: dict[str, Published] = {}
        for directory in map(Path, given.runs):
            one = prepare(directory, given.data_dir, given.storage)
            if one.name in made:
                raise UsageError(f"{directory} is a second run of {one.name}: which one is to be shipped?")
            made[one.name] = one
            print(one.line(), flush=True)
        total = write(made, given.output)
        print(f"written   {given.output / MANIFEST}; all weights together {total / 1e6:.2f} MB")
    return {name: one.entry for name, one in made.items()}


def prepare(directory: Path, data_dir: str, storage: str = "auto") -> Published:
    """The weights of a finished run as they will be shipped, loaded back and measured.

    Args:
        directory: of the run.
        data_dir: where its data are.
        storage: one of :data:`zoo.pretrained.storage.STORAGES`, or ``"auto"``: 16 bits, and 8 where the file would be
            larger than a megabyte.

    Raises:
        CheckpointError: it is no finished run of an experiment with a model of the zoo, on the data that it asked for,
            or the weights have become worse than the run was.
    """
    summary, checkpoint = _read_run(directory)
    options = ["--trainer.precision", "32-true", "--trainer.accelerator", "cpu", "--data.data_dir", data_dir]
    made_data = not _has_option(checkpoint, "data_dir")
    asked = command_line("publish", "", {}, ["--checkpoint", str(checkpoint), *(options[:4] if made_data else options)])
    task, name = asked.trained.task, str(summary["experiment"])
    if LEAVES.get(type(task).__name__) is not type(task):
        raise PretrainedError(
            f"{directory}: {with_article(type(task).__name__)} is none of the zoo's models, and cannot be shipped"
        )
    wanted = None if asked.trained.data is None else asked.trained.data.arguments.get("dataset")
    if wanted is not None and wanted != asked.data.dataset_name.removesuffix(" lines"):
        raise PretrainedError(f"{directory} ran on {asked.data.dataset_name}, which took the place of {wanted}")
    before = {key: float(value) for key, value in summary.items() if key.startswith("test/") and value is not None}
    chosen: Storage = "float16" if storage == "auto" else _as_storage(storage)
    data = _stored(task, chosen, name)
    if storage == "auto" and len(data) > _LARGE:
        chosen = "int8"
        data = _stored(task, chosen, name)
    entry = _entry(asked, name, summary, data, directory)
    _require_as_good(directory, before, entry.metrics, len(asked.data.splits.test.targets))
    return Published(name, entry, data, chosen, before)


def write(made: Mapping[str, Published], folder: Path) -> int:
    """Write weights and manifest, and return the bytes of all weights in it.

    Raises:
        CheckpointError: they would be too large together, or could not be written.
    """
    entries = {**shipped(folder), **{name: one.entry for name, one in made.items()}}
    sizes = {name: len(made[name].data) if name in made else _size(folder / entries[name].file) for name in entries}
    total = sum(sizes.values())
    if total > LARGEST_TOTAL:
        largest = max(sizes, key=lambda name: sizes[name])
        raise PretrainedError(
            f"all weights together would take {total:,} bytes, and {LARGEST_TOTAL:,} are as many as may be shipped; "
            f"most of them are those of {largest}: try --storage int8"
        )
    for name, one in made.items():
        write_whole(one.data, folder / entries[name].file)
    write_manifest(dict(sorted(entries.items())), folder / MANIFEST)
    return total


def _read_run(directory: Path) -> tuple[dict[str, Any], Path]:
    """What a run says of itself, and the checkpoint that it was tested with."""
    path = directory / run_directory.SUMMARY
    try:
        summary = parse_json(read_bytes(path, _MAX_SUMMARY_SIZE))
    except JSONError as error:
        raise PretrainedError(f"{path} cannot be used: {error}") from error
    if not isinstance(summary, dict) or summary.get("experiment") not in list_experiments():
        raise PretrainedError(f"{path} is of no experiment of this version")
    numbers = [value for name, value in summary.items() if name.startswith("test/") and value is not None]
    if type(summary.get("seed")) is not int or not is_dict(summary.get("versions"), is_text):
        raise PretrainedError(f"{path} does not say under which seed, or with which versions, it ran")
    if not all(map(is_number, numbers)):
        raise PretrainedError(f"{path} has test figures that are no numbers")
    kept = summary.get("checkpoint")
    if not isinstance(kept, str):
        raise PretrainedError(f"{directory} kept no checkpoint")
    # By its name alone: the run may have been moved since.
    checkpoint = directory / run_directory.CHECKPOINTS / Path(kept).name
    if not checkpoint.is_file():
        raise PretrainedError(f"the checkpoint {checkpoint}, which the run was tested with, is not there")
    return summary, checkpoint


def _has_option(checkpoint: Path, name: str) -> bool:
    arguments = read_checkpoint(checkpoint).get("datamodule_hyper_parameters", {})
    return isinstance(arguments, dict) and name in arguments


def _as_storage(name: str) -> Storage:
    return next(each for each in STORAGES if each == name)


def _stored(task: Task, storage: Storage, name: str) -> bytes:
    return dump_safetensors(compact(task.state_dict(), storage), name)


def _entry(asked: Evaluation, name: str, summary: Mapping[str, Any], data: bytes, directory: Path) -> ManifestEntry:
    """The entry for stored weights, with what is measured of them."""
    kind, facts = type(asked.trained.task), facts_of(asked.data)
    facts.setdefault("mean", (0.0,))  # of data that are not standardised
    facts.setdefault("std", (1.0,))
    entry = ManifestEntry(
        class_name=kind.__name__,
        arguments=plain_arguments({key: asked.trained.task.hparams[key] for key in sorted(hyperparameter_names(kind))}),
        metrics={},
        seed=summary["seed"],
        command=_command(directory, name, summary["seed"]),
        versions=summary["versions"],
        file=f"{name}.safetensors",
        sha256=hashlib.sha256(data).hexdigest(),
        **facts,
    )
    task = Pretrained(name, expand(parse_safetensors(data, name), name), entry).make(kind).eval()
    entry = replace(entry, temperature=_temperature(task, asked))
    loaded = replace(asked, trained=replace(asked.trained, task=task))
    return replace(entry, metrics=dict(sorted(loaded.metrics("test").items())))


def _temperature(task: Task, asked: Evaluation) -> float | None:
    """The temperature that makes a classifier's probabilities right; it is left in the task."""
    try:
        found = calibrate(task, asked.data, asked.trainer)
    except NotCalibratableError:
        return None
    if found.is_bound:  # validation does not say how sure to be
        task.temperature = 1.0  # type: ignore[assignment]
        return None
    return round(found.temperature, 6)


def _command(directory: Path, name: str, seed: int) -> str:
    """The command that makes such a run: the options that are not the experiment's own."""
    run = read_config_file(directory / run_directory.CONFIG)
    experiment = importlib.import_module(f"experiments.{name}").EXPERIMENT
    with tempfile.TemporaryDirectory() as temporary:
        cli = FitOnlyCLI(experiment, ["--seed_everything", str(seed)], Path(temporary))
        own = yaml.safe_load(cli._config_text())
    command = f"python -m experiments.{name} --seed_everything {seed}"
    for line in differences(own, run):
        option = line.partition(" ")[0]
        if option in (*_NOT_IN_COMMAND, *_NOT_OF_TRAINING):
            continue
        value: Any = run
        for part in option.split("."):
            value = value[part]
        command += f" --{option} {shlex.quote(value if isinstance(value, str) else json.dumps(value))}"
    return command


def _require_as_good(directory: Path, before: Mapping[str, float], after: Mapping[str, float], samples: int) -> None:
    """Raise unless what is shipped decides as well as the run did; of few samples, one may be decided otherwise."""
    share = max(_TOLERANCE, 1.01 / samples)
    for name, sign in (("test/accuracy", 1.0), ("test/cer", -1.0), ("test/mse", -1.0)):
        if name not in before:
            continue
        allowed = share if name != "test/mse" else 0.01 * before[name]
        if sign * (before[name] - after[name]) > allowed:
            raise PretrainedError(
                f"the weights of {directory} have a {name} of {after[name]:.4f} as they would be shipped, and the run "
                f"had {before[name]:.4f}: they are not its weights, or lose too much (try --storage float32)"
            )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise CheckpointError(f"{path}, which the manifest lists, cannot be read: {error.strerror}") from error


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m experiments.publish",
        description="Pretrained weights for the zoo, out of finished runs.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="the directory of a finished run")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder of the manifest (default: the zoo's own)")
    parser.add_argument("--data_dir", default="data", help="folder of all data sets (default: data)")
    parser.add_argument(
        "--storage",
        choices=["auto", *STORAGES],
        default="auto",
        help="how matrices are kept (default: 16 bits, and 8 in a file that would be larger than a megabyte)",
    )
    return parser


if __name__ == "__main__":
    launch(publish)
