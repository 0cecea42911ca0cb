"""Looks at a training from inside, and says in words what looks wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from zoo.callbacks.figure import FigureCallback
from zoo.doctor import Finding, TrainingWatch, diagnose
from zoo.doctor.history import WINDOW


class TrainingDoctor(TrainingWatch, FigureCallback):
    """Looks at about fifty steps of a fit of any module, and says at its end what looks wrong, and what to do.

    It looks for (see :data:`zoo.doctor.diagnosis.CHECKS`) inputs that are not standardised; a loss at initialisation
    far from ln(classes); gradients that vanish or explode; units behind a ReLU that are zero for every sample;
    parameters without gradient, or in no optimizer; a learning rate of 0; values near overflow; a loss that does not
    fall, or stays at chance level; predictions of one class; a validation loss that rises while the training loss
    falls; and, with ``overfit_batch=True``, a model that cannot learn a single batch by heart. Each is a
    :class:`zoo.doctor.Finding`.

    :attr:`findings` are those of the moment. At the end of a fit, also of one that failed, they are printed, and
    figures are drawn: ``gradient_norms``, and ``dead_units`` where there are ReLUs. A run that is told to stop, and
    goes on later, says nothing yet.

    A look only reads: weights, random draws and what is logged are the same to the bit as without it. Steps between
    looks do nothing but count, wait for no device and have no hooks in the network. Units and cross-entropies are read
    off the graph of the loss, whatever modules or functions made it; of what ``torch.compile`` has compiled they are
    not measured. With accumulated gradients a look spans the batches of a step. Gradients are taken before clipping,
    without the scale of a gradient scaler. Of several processes only the first looks, at its own share of a batch;
    gradients that are sharded are not measured. Under manual optimization the loss is not judged. What could not be
    measured is among :attr:`notes`.

    The state in a checkpoint is bounded and made of plain values; a resumed run goes on with it.

    Args:
        title: see :class:`FigureCallback`.
        directory: likewise.
        looks: about how many steps to look at, at least 10.
        overfit_batch: before the first step, train a copy of the model on its batch, see :func:`zoo.doctor.overfit`; in
            a single process.
        overfit_steps: at most.
        val_loss: the name of the validation loss among what is logged; ``None`` finds ``val/loss``, ``val_loss`` and
            their like.
        draws: whether to draw figures.

    Raises:
        ValueError: a value out of range.
        CheckpointError: on resume, a state that is none.
    """

    def __init__(
        self,
        title: str | None = None,
        directory: str | Path | None = None,
        *,
        looks: int = 50,
        overfit_batch: bool = False,
        overfit_steps: int = 300,
        val_loss: str | None = None,
        draws: bool = True,
    ) -> None:
        FigureCallback.__init__(self, title, directory)
        TrainingWatch.__init__(self, looks, overfit_batch, overfit_steps, val_loss)
        self.draws = draws

    @property
    def findings(self) -> list[Finding]:
        """What looks wrong so far."""
        return diagnose(self.history)

    @property
    def notes(self) -> list[str]:
        """What could not be measured, and why."""
        return list(self.history.notes)

    def report(self, trainer: Trainer, findings: list[Finding]) -> None:
        """Say what was found, at the end of a fit; a subclass may say it elsewhere."""
        for finding in findings:
            print(f"doctor    {finding}", flush=True)
        if not findings and self.history.num_looks:
            print(f"doctor    nothing looks wrong in {self.history.num_looks} looks", flush=True)
        tried = self.history.overfit
        if tried and tried["is_overfitted"]:
            print(f"doctor    a batch of {tried['samples']} is overfitted in {tried['steps']} steps", flush=True)
        for note in self.notes:
            print(f"doctor    not measured: {note}", flush=True)

    # ------------------------------------------------------------------ the end

    # What happens at steps is in the base class, which no drawing wraps.

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_training:
            self._finish(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        is_training, self._is_training = self._is_training, False
        self._stop_looking()
        is_stopped = isinstance(exception, SIGTERMException | KeyboardInterrupt)
        if is_training and not is_stopped and self.findings:
            with contextlib.suppress(OSError):  # what went wrong first is what is to be heard of
                self._finish(trainer)

    def _finish(self, trainer: Trainer) -> None:
        self._is_training = False
        self.report(trainer, self.findings)
        if self.draws and self.history.looks and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by Lightning
            self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        from zoo.figures.training import dead_units, gradient_norms

        looks = self.history.looks
        steps = [look.step for look in looks]
        if any(look.gradient_norm is not None for look in looks):
            layers = _columns(look.layer_norms for look in looks)
            norms = [look.gradient_norm for look in looks]
            clip = self.history.gradient_clip_val
            figure = gradient_norms(steps, norms, layers, self.title_of(trainer, "gradient norms"), clip)
            self.publish(trainer, "gradient_norms", figure)
        if shares := _columns(look.dead for look in looks):
            figure = dead_units(steps, shares, self.title_of(trainer, "dead units"), WINDOW)
            self.publish(trainer, "dead_units", figure)


def _columns(rows: Iterable[dict[str, float]]) -> dict[str, list[float | None]]:
    """Rows of named values as columns, ``None`` where a row has no value of that name."""
    rows = list(rows)
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
