"""Which figures a run draws: one place, by the kind of task and data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch import Callback, LightningDataModule

from zoo import Task
from zoo.callbacks import LearningCurves

if TYPE_CHECKING:
    from experiments.command_line import Experiment


def figures_for(experiment: Experiment, task: Task, data: LightningDataModule) -> list[Callback]:
    """The callbacks that draw what there is to see of a task on its data, titled with the experiment.

    Args:
        experiment: what is run.
        task: the model.
        data: not set up yet.
    """
    return [LearningCurves(experiment.name)]
