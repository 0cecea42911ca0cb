"""What is left of a run: ``summary.json``, and the last lines on the screen."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger

from experiments import run_directory
from experiments.claims import Claim, report
from zoo.checkpointing import write_whole
from zoo.hardware import device_name
from zoo.tracking import ResilientWandbLogger

_PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "wandb", "jsonargparse", "scikit-learn")


def write_summary(directory: Path, summary: Mapping[str, Any]) -> None:
    """Write ``summary.json`` in one piece.

    Raises:
        CheckpointError: it could not be written, such as on a full disk.
    """
    text = json.dumps(as_json(summary), indent=2) + "\n"
    write_whole(text.encode(), directory / run_directory.SUMMARY)


def as_json(value: Any) -> Any:
    """``None`` for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def circumstances(trainer: Trainer, model: LightningModule) -> dict[str, Any]:
    """What a figure depends on beside the data and the arguments."""
    return {
        "parameters": count_parameters(model),
        "precision": str(trainer.precision),
        "device": device_name(trainer.strategy.root_device),
        "versions": versions(),
    }


def count_parameters(model: LightningModule) -> int:
    """Weights and biases of the model."""
    return sum(parameter.numel() for parameter in model.parameters())


@functools.cache
def versions() -> dict[str, str]:
    """Of Python and of the packages that a figure may depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def data_facts(data: object) -> dict[str, Any]:
    """The data really used: their name, and the samples of each split."""
    facts: dict[str, Any] = {"dataset": getattr(data, "dataset_name", type(data).__name__)}
    samples = getattr(data, "num_samples_by_split", None)
    if samples is not None:
        facts["samples"] = samples
    return facts


def opening(data: object, model: LightningModule, trainer: Trainer) -> str:
    """What is trained on what, in two lines."""
    about = circumstances(trainer, model)
    return (
        f"data      {getattr(data, 'description', type(data).__name__)}\n"
        f"model     {type(model).__name__}, {about['parameters']:,} parameters; "
        f"{about['precision']} on {about['device']}"
    )


def closing(directory: Path, summary: Mapping[str, Any], claims: Sequence[Claim], loggers: Iterable[Logger]) -> str:
    """The result, the time, the checkpoint, and how to see the run, a line each."""
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in summary.items() if name.startswith("test/"))
    examined = ", ".join(f"{name} {value:.4g}" for name, value in summary["examined"].items())
    seconds = summary["seconds"]
    checkpoint = summary["checkpoint"]
    lines = [
        f"result    {metrics} (dataset: {summary['dataset']})",
        *([f"examined  {examined}"] if examined else []),
        *report(claims, summary),
        f"time      {seconds['total']:.1f} s in all: fit {seconds['fit']:.1f} s, test {seconds['test']:.1f} s"
        + (f"; figures {seconds['figures']:.1f} s of it" if summary["figures"] else ""),
        f"model     {relative(Path(checkpoint)) if checkpoint else 'no checkpoint was kept'}",
        f"run       {relative(directory)}: {run_directory.SUMMARY}, metrics.csv, {run_directory.CONFIG}",
    ]
    if summary["figures"]:
        lines.append(f"figures   {relative(directory)}: {', '.join(summary['figures'])}")
    for logger in loggers:
        if not isinstance(logger, ResilientWandbLogger) or logger.broken:
            continue
        # The folder of a resumed run's last part has the whole run in it.
        where = logger.url or f"offline; upload with: wandb sync {relative(logger.run_directory)}"
        lines.append(f"W&B       {where}")
    return "\n".join(lines)


def relative(path: Path, start: Path | None = None) -> str:
    """The shorter of the path and the path from ``start``, or from here."""
    with contextlib.suppress(ValueError):  # on another drive
        return min(str(path), os.path.relpath(path, start), key=len)
    return str(path)
