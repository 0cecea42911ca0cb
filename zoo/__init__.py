"""A modular model zoo in PyTorch Lightning: networks, tasks, and ready models."""

from zoo.models import CNNClassifier, LeNet5Classifier
from zoo.tasks import ClassPrediction, MulticlassClassification, NonFiniteLossError, TargetError, Task
from zoo.version import __version__

__all__ = [
    "CNNClassifier",
    "ClassPrediction",
    "LeNet5Classifier",
    "MulticlassClassification",
    "NonFiniteLossError",
    "TargetError",
    "Task",
    "__version__",
]
