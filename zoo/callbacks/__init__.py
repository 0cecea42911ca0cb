"""Callbacks, each usable in anyone's ``Trainer``."""

from zoo.callbacks.classification import (
    ClassificationFigure,
    ConfusionMatrix,
    ReliabilityDiagram,
    RocAndPrecisionRecall,
    WorstImages,
)
from zoo.callbacks.ctc_alignment import CTCAlignment
from zoo.callbacks.decision_boundary import DecisionBoundary
from zoo.callbacks.figure import FigureCallback, FigureWarning
from zoo.callbacks.figure_of_test import FigureOfTest
from zoo.callbacks.forecast_examples import ForecastExamples
from zoo.callbacks.graceful_stop import GracefulStop
from zoo.callbacks.last_checkpoint import LastCheckpoint
from zoo.callbacks.lean_loop import LeanLoop
from zoo.callbacks.learning_curves import LearningCurves
from zoo.callbacks.plain_hyperparameters import PlainHyperparameters
from zoo.callbacks.progress import EpochProgress
from zoo.callbacks.regression_fit import RegressionFit
from zoo.callbacks.run_record import RunRecord, describe_optimizer
from zoo.callbacks.sample_grid import SampleGrid
from zoo.callbacks.seeding import StepSeeding
from zoo.callbacks.training_doctor import TrainingDoctor
from zoo.callbacks.value_guard import BatchSizeError, NoTrainingStepError, ValueGuard
from zoo.callbacks.weight_average import WEIGHT_AVERAGE_KEY, AverageKind, WeightAverage
from zoo.callbacks.weight_images import FirstLayerFilters, WeightImages

__all__ = [
    "WEIGHT_AVERAGE_KEY",
    "AverageKind",
    "BatchSizeError",
    "CTCAlignment",
    "ClassificationFigure",
    "ConfusionMatrix",
    "DecisionBoundary",
    "EpochProgress",
    "FigureCallback",
    "FigureOfTest",
    "FigureWarning",
    "FirstLayerFilters",
    "ForecastExamples",
    "GracefulStop",
    "LastCheckpoint",
    "LeanLoop",
    "LearningCurves",
    "NoTrainingStepError",
    "PlainHyperparameters",
    "RegressionFit",
    "ReliabilityDiagram",
    "RocAndPrecisionRecall",
    "RunRecord",
    "SampleGrid",
    "StepSeeding",
    "TrainingDoctor",
    "ValueGuard",
    "WeightAverage",
    "WeightImages",
    "WorstImages",
    "describe_optimizer",
]
