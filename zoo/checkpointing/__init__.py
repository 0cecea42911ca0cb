"""Checkpoints and weights: whole or not there, checked when written and read, and never code."""

from zoo.checkpointing.checkpoints import MapLocation, SealedCheckpointIO, read_checkpoint, write_checkpoint
from zoo.checkpointing.files import CheckpointError, require_local_file, write_whole
from zoo.checkpointing.plain import first_unsafe, require_plain
from zoo.checkpointing.safetensors_files import save_weights
from zoo.checkpointing.weights import load_weights

__all__ = [
    "CheckpointError",
    "MapLocation",
    "SealedCheckpointIO",
    "first_unsafe",
    "load_weights",
    "read_checkpoint",
    "require_local_file",
    "require_plain",
    "save_weights",
    "write_checkpoint",
    "write_whole",
]
