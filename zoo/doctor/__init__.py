"""What a training looks like from inside, and what is wrong with it, in words.

:class:`zoo.callbacks.TrainingDoctor` looks at a run now and then and keeps a :class:`History`; :func:`diagnose` says
what looks wrong in one. :func:`overfit` tries a model on a single batch, with or without a trainer.
"""

from zoo.doctor.diagnosis import diagnose
from zoo.doctor.findings import Finding
from zoo.doctor.history import History, Look
from zoo.doctor.overfitting import Overfit, OverfitError, overfit
from zoo.doctor.watch import TrainingWatch

__all__ = ["Finding", "History", "Look", "Overfit", "OverfitError", "TrainingWatch", "diagnose", "overfit"]
