"""Tasks: a network of any kind with its loss, metrics, optimizer and schedule."""

from zoo.tasks.base import TargetError, Task
from zoo.tasks.binary import BinaryClassification, BinaryPrediction
from zoo.tasks.ensemble import EnsembleClassification
from zoo.tasks.from_scratch import GradientDescentRegression
from zoo.tasks.multiclass import ClassPrediction, MulticlassClassification
from zoo.tasks.regression import Regression
from zoo.tasks.sequence import CTCOnCPUWarning, SequenceTranscription, Transcription
from zoo.values import NonFiniteLossError

__all__ = [
    "BinaryClassification",
    "BinaryPrediction",
    "CTCOnCPUWarning",
    "ClassPrediction",
    "EnsembleClassification",
    "GradientDescentRegression",
    "MulticlassClassification",
    "NonFiniteLossError",
    "Regression",
    "SequenceTranscription",
    "TargetError",
    "Task",
    "Transcription",
]
