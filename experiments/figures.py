"""Which figures a run draws: one place, by the kind of task and data."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningDataModule

from datamodules import DigitStringsDataModule, MNISTDataModule, SineDataModule
from zoo import BinaryClassification, MulticlassClassification, Regression, SequenceTranscription, Task
from zoo.callbacks import (
    ConfusionMatrix,
    CTCAlignment,
    DecisionBoundary,
    FirstLayerFilters,
    ForecastExamples,
    LearningCurves,
    RegressionFit,
    ReliabilityDiagram,
    RocAndPrecisionRecall,
    SampleGrid,
    WeightImages,
    WorstImages,
)


def figures_for(title: str, task: Task, data: LightningDataModule) -> list[Callback]:
    """The callbacks that draw what there is to see of a task on its data.

    Args:
        title: that all begin with, the experiment's name.
        task: the model.
        data: not set up yet.
    """
    figures: list[Callback] = [LearningCurves(title)]
    if isinstance(task, BinaryClassification | MulticlassClassification):
        figures += [ConfusionMatrix(title), ReliabilityDiagram(title), RocAndPrecisionRecall(title)]
    elif isinstance(data, MNISTDataModule):  # classes by regression
        figures += [ConfusionMatrix(title)]
    if isinstance(task, BinaryClassification | MulticlassClassification) and getattr(data, "num_features", None) == 2:
        figures += [DecisionBoundary(title)]
    if isinstance(task, Regression) and not isinstance(data, MNISTDataModule):
        figures += [RegressionFit(title)]
    if isinstance(data, SineDataModule):
        figures += [ForecastExamples(title)]
    if isinstance(data, MNISTDataModule | DigitStringsDataModule):
        figures += [SampleGrid(title), FirstLayerFilters(title)]
    if isinstance(data, MNISTDataModule):
        figures += [WorstImages(title), WeightImages(title)]
    if isinstance(task, SequenceTranscription):
        figures += [CTCAlignment(title)]
    return figures
