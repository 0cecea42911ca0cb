"""The card of a model: what the Hugging Face Hub, and whoever reads it, wants to know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml
from torch import nn

from zoo.networks import CRNN, VGG, ConvNet, Ensemble, LeNet5
from zoo.pretrained.forms import is_text, require
from zoo.pretrained.record import ModelRecord
from zoo.tasks import BinaryClassification, MulticlassClassification, Regression, SequenceTranscription, Task

LIBRARY = "lightning-model-zoo"

_IMAGE_DATA = frozenset({"MNISTDataModule", "DigitStringsDataModule"})
# The Hub knows metrics by these names.
_METRIC_TYPES = {"cer": "cer", "accuracy": "accuracy", "f1": "f1", "mse": "mse", "mae": "mae", "auroc": "roc_auc"}


def model_card(
    record: ModelRecord,
    task: Task,
    description: str = "",
    license: str | None = None,  # noqa: A002  # what the Hub calls it
    tags: Sequence[str] = (),
    *,
    name: str = "",
) -> str:
    """A model card, Markdown behind a block of metadata, in the form that the Hub asks for.

    Metadata: https://huggingface.co/docs/hub/model-cards. Results are in it where both the metrics and the data that
    they were measured on are known.

    Args:
        record: of the model.
        task: the model.
        description: Markdown.
        license: as the Hub calls it.
        tags: beside those that follow from the model.
        name: of the model; its class, if there is none.

    Raises:
        PretrainedError: a license or a tag is no line of text.
    """
    require(license is None or is_text(license), "license", "a line of text", license)
    require(not isinstance(tags, str), "tags", "a list of lines of text", tags)
    for tag in tags:
        require(is_text(tag), "each of tags", "a line of text", tag)
    title = name if is_text(name) else record.class_name
    metadata: dict[str, Any] = {"library_name": LIBRARY}
    if license is not None:
        metadata["license"] = license
    pipeline = pipeline_of(record, task)
    if pipeline is not None:
        metadata["pipeline_tag"] = pipeline
    metadata["tags"] = list(dict.fromkeys(["pytorch", "lightning", record.class_name, *tags]))
    measured = {key.rpartition("/")[2]: value for key, value in record.metrics.items() if not key.startswith("val/")}
    if measured:
        metadata["metrics"] = [_METRIC_TYPES.get(key, key) for key in measured if key != "loss"]
    if measured and record.data is not None:
        metadata["model-index"] = [_results(title, pipeline or "other", record.data, measured)]
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{front}---\n\n" + "\n\n".join(_sections(record, task, description, title, measured)) + "\n"


def pipeline_of(record: ModelRecord, task: Task) -> str | None:
    """What the Hub calls the kind of task; ``None`` where that cannot be told."""
    is_image = _takes_images(task.network) or record.data_class in _IMAGE_DATA
    is_known = is_image or type(task.network).__module__.startswith("zoo.networks.")
    if isinstance(task, SequenceTranscription):
        return "image-to-text" if is_image else None
    if isinstance(task, MulticlassClassification | BinaryClassification):
        return "image-classification" if is_image else "tabular-classification" if is_known else None
    if isinstance(task, Regression):
        is_series = "horizon" in record.arguments
        return None if is_image or not is_known else "time-series-forecasting" if is_series else "tabular-regression"
    return None


def _takes_images(network: nn.Module) -> bool:
    if isinstance(network, Ensemble):
        return any(map(_takes_images, network.members))
    return isinstance(network, CRNN | ConvNet | LeNet5 | VGG)


def _results(name: str, pipeline: str, data: str, measured: dict[str, float]) -> dict[str, Any]:
    metrics = [
        {"type": _METRIC_TYPES.get(key, key), "name": f"test {key.replace('_', ' ')}", "value": value}
        for key, value in measured.items()
    ]
    result = {
        "task": {"type": pipeline},
        "dataset": {"type": data.lower().replace(" ", "-"), "name": data, "split": "test"},
        "metrics": metrics,
    }
    return {"name": name, "results": [result]}


def _sections(record: ModelRecord, task: Task, description: str, title: str, measured: dict[str, float]) -> list[str]:
    parameters = sum(parameter.numel() for parameter in task.parameters())
    data = "" if record.data is None else f", trained on {record.data}"
    sections = [f"# {title}"]
    if description:
        sections.append(description.strip())
    sections.append(f"A `{record.class_name}` of `{record.module}`, {parameters:,} parameters{data}.")
    if measured:
        rows = [f"| {key} | {value:.4f} |" for key, value in measured.items()]
        sections.append("\n".join(["## Results", "", "| test metric | value |", "| --- | --- |", *rows]))
    sections.append(f"## Use\n\n{_usage(record)}")
    if record.temperature is not None:
        sections.append(f"Probabilities are those of the logits over a temperature of {record.temperature:.4g}.")
    made = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    command = "" if record.command is None else f" by `{record.command}`"
    if made or command:
        sections.append(f"Made{command} with {made}." if made else f"Made{command}.")
    return sections


def _usage(record: ModelRecord) -> str:
    own = record.module == "zoo.models"
    more = [] if own else [f"from {record.module} import {record.class_name}"]
    argument = "" if own else f", cls={record.class_name}"
    lines = [
        "from huggingface_hub import snapshot_download",
        *more,
        "from zoo import load_pretrained",
        "",
        f'task = load_pretrained(snapshot_download("OWNER/NAME"){argument})  # in evaluation mode',
    ]
    usage = "```python\n" + "\n".join(lines) + "\n```"
    if record.mean is None or record.std is None:
        return usage
    return (
        f"{usage}\n\nInputs are raw features less {_numbers(record.mean)}, over {_numbers(record.std)}: mean and "
        "standard deviation of the training split."
    )


def _numbers(values: Sequence[float]) -> str:
    told = ", ".join(f"{value:.6g}" for value in values[:8])
    return told if len(values) <= 8 else f"{told}, … ({len(values)} numbers, see `config.json`)"
