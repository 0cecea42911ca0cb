"""Callbacks, each usable in anyone's ``Trainer``."""

from zoo.callbacks.figure import FigureCallback
from zoo.callbacks.graceful_stop import GracefulStop
from zoo.callbacks.last_checkpoint import LastCheckpoint
from zoo.callbacks.lean_loop import LeanLoop
from zoo.callbacks.plain_hyperparameters import PlainHyperparameters
from zoo.callbacks.progress import EpochProgress
from zoo.callbacks.run_record import RunRecord, describe_optimizer
from zoo.callbacks.seeding import StepSeeding
from zoo.callbacks.training_doctor import TrainingDoctor
from zoo.callbacks.value_guard import BatchSizeError, NoTrainingStepError, ValueGuard

__all__ = [
    "BatchSizeError",
    "EpochProgress",
    "FigureCallback",
    "GracefulStop",
    "LastCheckpoint",
    "LeanLoop",
    "NoTrainingStepError",
    "PlainHyperparameters",
    "RunRecord",
    "StepSeeding",
    "TrainingDoctor",
    "ValueGuard",
    "describe_optimizer",
]
