"""A modular model zoo in PyTorch Lightning: networks, tasks, and ready models."""

from zoo.models import (
    BinaryMLPClassifier,
    CNNClassifier,
    LeNet5Classifier,
    LinearRegressor,
    LinearRegressorFromScratch,
    MLPClassifier,
    MLPRegressor,
    PerceptronClassifier,
    PolynomialRegressor,
    RegularizedMLPClassifier,
    SoftmaxClassifier,
)
from zoo.tasks import (
    BinaryClassification,
    BinaryPrediction,
    ClassPrediction,
    GradientDescentRegression,
    MulticlassClassification,
    NonFiniteLossError,
    Regression,
    TargetError,
    Task,
)
from zoo.version import __version__

__all__ = [
    "BinaryClassification",
    "BinaryMLPClassifier",
    "BinaryPrediction",
    "CNNClassifier",
    "ClassPrediction",
    "GradientDescentRegression",
    "LeNet5Classifier",
    "LinearRegressor",
    "LinearRegressorFromScratch",
    "MLPClassifier",
    "MLPRegressor",
    "MulticlassClassification",
    "NonFiniteLossError",
    "PerceptronClassifier",
    "PolynomialRegressor",
    "Regression",
    "RegularizedMLPClassifier",
    "SoftmaxClassifier",
    "TargetError",
    "Task",
    "__version__",
]
