"""Tasks: a network of any kind with its loss, metrics, optimizer and schedule."""

from zoo.tasks.base import TargetError, Task
from zoo.tasks.multiclass import ClassPrediction, MulticlassClassification
from zoo.tasks.training_loss import NonFiniteLossError

__all__ = ["ClassPrediction", "MulticlassClassification", "NonFiniteLossError", "TargetError", "Task"]
