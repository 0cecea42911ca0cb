"""What Weights & Biases keeps of a model: its best checkpoint as an artifact, and its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy
from torchmetrics import Metric, MetricCollection

_SLOWEST = 500_000  # bytes a second
_ANSWERS = 20.0  # seconds


def upload_seconds(checkpoint: Path) -> float:
    """Seconds that an upload may take, on a slow line."""
    return _ANSWERS + checkpoint.stat().st_size / _SLOWEST


def log_artifact(run: Any, checkpoint: Path, name: str, metadata: Mapping[str, Any], aliases: Sequence[str]) -> None:
    """Log a checkpoint as an artifact of type ``model``, from where it is: no copy is made.

    Raises:
        Exception: whatever W&B says against it.
    """
    import wandb

    artifact = wandb.Artifact(f"{name}-{run.id}", type="model", metadata=dict(metadata))
    artifact.add_file(str(checkpoint.absolute()), name=checkpoint.name, policy="immutable")
    run.log_artifact(artifact, aliases=list(aliases))


def summarize_layers(module: nn.Module) -> str:
    """The layers of a module with their parameter counts, a line each; metrics are no layers.

    A line has the layer's name, its class, and its parameters, those of the layers inside it included.
    """
    rows, metrics = [("layer", "class", "parameters")], []
    for name, layer in module.named_modules():
        if isinstance(layer, Metric | MetricCollection):
            metrics.append(f"{name}.")
        elif name and not name.startswith(tuple(metrics)):
            rows.append((name, type(layer).__name__, f"{_count(layer):,}"))
    rows.append(("total", type(module).__name__, f"{_count(module):,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:>{widths[2]}}" for row in rows)


def _count(module: nn.Module) -> int:
    """Parameters of a module, each once, those left out that have no shape yet."""
    return sum(parameter.numel() for parameter in module.parameters() if not is_lazy(parameter))
