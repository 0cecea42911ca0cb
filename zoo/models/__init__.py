"""The leaves: a network in a task, with plain hyperparameters and good defaults.

Every leaf comes back with ``Leaf.load_from_checkpoint(path)`` and no other argument. Arguments that all of them take:

- ``init``: initialisation by name, see :func:`zoo.networks.initialize`; ``None`` is torch's own.
- ``weights``: a local checkpoint or state dict whose weights the network begins with, see
  :func:`zoo.checkpointing.load_weights`; no hyperparameter, so that the model's own checkpoint does not need the file.
- ``optimizer``: makes the optimizer from parameters; ``None`` is AdamW with torch's defaults.
- ``scheduler``: makes the schedule from the optimizer; ``None`` keeps the rate constant.
"""

from zoo.models.ensembles import EnsembleClassifier
from zoo.models.features import (
    BinaryMLPClassifier,
    DropoutMLPClassifier,
    MLPClassifier,
    PerceptronClassifier,
    RegularizedMLPClassifier,
    SoftmaxClassifier,
)
from zoo.models.images import (
    CNNClassifier,
    LeNet5Classifier,
    StridedCNNClassifier,
    VGGClassifier,
)
from zoo.models.regression import (
    LeNet5Regressor,
    LinearRegressor,
    LinearRegressorFromScratch,
    MLPRegressor,
    OneHotMLPRegressor,
    PolynomialRegressor,
)
from zoo.models.sequences import (
    CRNNTranscriber,
    LSTMClassifier,
    LSTMForecaster,
    RNNClassifier,
)

__all__ = [
    "BinaryMLPClassifier",
    "CNNClassifier",
    "CRNNTranscriber",
    "DropoutMLPClassifier",
    "EnsembleClassifier",
    "LSTMClassifier",
    "LSTMForecaster",
    "LeNet5Classifier",
    "LeNet5Regressor",
    "LinearRegressor",
    "LinearRegressorFromScratch",
    "MLPClassifier",
    "MLPRegressor",
    "OneHotMLPRegressor",
    "PerceptronClassifier",
    "PolynomialRegressor",
    "RNNClassifier",
    "RegularizedMLPClassifier",
    "SoftmaxClassifier",
    "StridedCNNClassifier",
    "VGGClassifier",
]

# A checkpoint names its class by where users find it, wherever in this package it is written.
for _leaf in (
    LinearRegressor,
    LinearRegressorFromScratch,
    PolynomialRegressor,
    MLPRegressor,
    PerceptronClassifier,
    BinaryMLPClassifier,
    SoftmaxClassifier,
    MLPClassifier,
    RegularizedMLPClassifier,
    DropoutMLPClassifier,
    CNNClassifier,
    VGGClassifier,
    StridedCNNClassifier,
    LeNet5Classifier,
    LeNet5Regressor,
    OneHotMLPRegressor,
    RNNClassifier,
    LSTMClassifier,
    EnsembleClassifier,
    LSTMForecaster,
    CRNNTranscriber,
):
    _leaf.__module__ = __name__
del _leaf
