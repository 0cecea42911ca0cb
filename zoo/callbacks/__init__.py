"""Callbacks, each usable in anyone's ``Trainer``."""

from zoo.callbacks.classification import (
    ClassificationFigure,
    ConfusionMatrix,
    ReliabilityDiagram,
    RocAndPrecisionRecall,
    WorstImages,
)
from zoo.callbacks.figure import FigureCallback, FigureWarning
from zoo.callbacks.graceful_stop import GracefulStop
from zoo.callbacks.last_checkpoint import LastCheckpoint
from zoo.callbacks.lean_loop import LeanLoop
from zoo.callbacks.learning_curves import LearningCurves
from zoo.callbacks.plain_hyperparameters import PlainHyperparameters
from zoo.callbacks.progress import EpochProgress
from zoo.callbacks.run_record import RunRecord, describe_optimizer
from zoo.callbacks.seeding import StepSeeding
from zoo.callbacks.value_guard import BatchSizeError, NoTrainingStepError, ValueGuard

__all__ = [
    "BatchSizeError",
    "ClassificationFigure",
    "ConfusionMatrix",
    "EpochProgress",
    "FigureCallback",
    "FigureWarning",
    "GracefulStop",
    "LastCheckpoint",
    "LeanLoop",
    "LearningCurves",
    "NoTrainingStepError",
    "PlainHyperparameters",
    "ReliabilityDiagram",
    "RocAndPrecisionRecall",
    "RunRecord",
    "StepSeeding",
    "ValueGuard",
    "WorstImages",
    "describe_optimizer",
]
