"""Which figures a run draws: one place, by the kind of task and data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch import Callback, LightningDataModule

from datamodules import MNISTDataModule
from zoo import BinaryClassification, MulticlassClassification, Task
from zoo.callbacks import ConfusionMatrix, LearningCurves, ReliabilityDiagram, RocAndPrecisionRecall, WorstImages

if TYPE_CHECKING:
    from experiments.command_line import Experiment


def figures_for(experiment: Experiment, task: Task, data: LightningDataModule) -> list[Callback]:
    """The callbacks that draw what there is to see of a task on its data, titled with the experiment.

    Args:
        experiment: what is run.
        task: the model.
        data: not set up yet.
    """
    title = experiment.name
    figures: list[Callback] = [LearningCurves(title)]
    if isinstance(task, BinaryClassification | MulticlassClassification):
        figures += [ConfusionMatrix(title), ReliabilityDiagram(title), RocAndPrecisionRecall(title)]
    elif isinstance(data, MNISTDataModule):  # classes by regression
        figures += [ConfusionMatrix(title)]
    if isinstance(data, MNISTDataModule):
        figures += [WorstImages(title)]
    return figures
