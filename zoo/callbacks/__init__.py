"""Callbacks, each usable in anyone's ``Trainer``."""

from zoo.callbacks.progress import EpochProgress
from zoo.callbacks.run_record import RunRecord, describe_optimizer
from zoo.callbacks.seeding import StepSeeding

__all__ = ["EpochProgress", "RunRecord", "StepSeeding", "describe_optimizer"]
