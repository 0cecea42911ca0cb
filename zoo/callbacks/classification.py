"""The figures of a classifier's test."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer
from torchmetrics.functional.classification import multiclass_confusion_matrix

from zoo.callbacks.figure import FigureCallback
from zoo.callbacks.predictions import PredictionRecorder, Predictions
from zoo.figures.calibration import reliability_diagram
from zoo.figures.confusion import class_labels, confusion_matrix, most_confused
from zoo.figures.misclassified import as_pictures, worst_images
from zoo.figures.publish import log_table
from zoo.figures.ranking import roc_and_precision_recall


class ClassificationFigure(FigureCallback):
    """Draws at the end of a test, of all its samples; for any module that classifies.

    A batch is ``(inputs, targets)``, targets are class indices ``(batch,)`` or one-hot, and ``forward`` gives logits
    ``(batch, classes)``, or one logit ``(batch,)`` or ``(batch, 1)`` a sample for two classes. (Log-probabilities are
    logits, too.) A module with a method ``metric_inputs(outputs, targets)``, as every :class:`zoo.Task`, says by itself
    what the probabilities and classes are.

    The outputs are those of the test step, of all such callbacks in a trainer seen by the first, and of all processes
    together; they take four bytes a sample and class until the test ends.

    Args:
        title: see :class:`FigureCallback`.
        directory: see there.
        class_names: by class; ``None`` are their numbers.
    """

    #: Whether the worst inputs are wanted.
    with_inputs: ClassVar[bool] = False

    def __init__(
        self,
        title: str | None = None,
        directory: str | Path | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(title, directory)
        self.class_names = class_names
        self._recorder: PredictionRecorder | None = None
        self._predictions: Predictions | None = None

    @abstractmethod
    def draw(self, trainer: Trainer, predictions: Predictions) -> None:
        """Draw and publish; called in the first process alone."""

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._forget()
        figures = _all_of(trainer)
        if figures[0] is self:
            self._recorder = PredictionRecorder(pl_module, with_inputs=any(each.with_inputs for each in figures))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._recorder is not None:
            self._recorder.add(trainer, batch)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._recorder is not None:
            self._predictions = self._recorder.finish(trainer)
        predictions = _all_of(trainer)[0]._predictions
        if predictions is not None and trainer.is_global_zero:
            self.draw(trainer, predictions)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._forget()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._forget()

    def _forget(self) -> None:
        if self._recorder is not None:
            self._recorder.close()
        self._recorder = self._predictions = None


def _all_of(trainer: Trainer) -> list[ClassificationFigure]:
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning's connector
    return [callback for callback in callbacks if isinstance(callback, ClassificationFigure)]


class ConfusionMatrix(ClassificationFigure):
    """Draws ``confusion_matrix.png`` and ``most_confused.png``, the most frequent confusions."""

    def draw(self, trainer: Trainer, predictions: Predictions) -> None:
        counts = multiclass_confusion_matrix(
            predictions.classes, predictions.targets, predictions.num_classes, validate_args=False
        ).numpy()
        title = self.title_of(trainer, "confusion matrix")
        self.publish(trainer, "confusion_matrix", confusion_matrix(counts, title, self.class_names))
        title = self.title_of(trainer, "most frequent confusions")
        self.publish(trainer, "most_confused", most_confused(counts, title, self.class_names))


class WorstImages(ClassificationFigure):
    """Draws ``worst_images.png``: the misclassified images whose prediction was the surest.

    W&B gets them as a table, too: image, truth, prediction, confidence. For inputs ``(batch, channels, height, width)``
    or ``(batch, height, width)``.
    """

    with_inputs = True

    def draw(self, trainer: Trainer, predictions: Predictions) -> None:
        worst = predictions.worst
        if worst is None:
            raise ValueError(
                "only inputs that are one tensor, of the same shape in every batch, can be shown as images"
            )
        names = class_labels(predictions.num_classes, self.class_names)
        truths, guesses = ([names[index] for index in column.tolist()] for column in (worst.targets, worst.predictions))
        confidences, images = worst.confidences.tolist(), worst.inputs.numpy()
        wrong, total = int((predictions.classes != predictions.targets).sum()), len(predictions.targets)
        remark = f"the {len(images)} surest of {wrong:,} misclassified among {total:,} samples"
        figure = worst_images(
            images,
            truths,
            guesses,
            confidences,
            self.title_of(trainer, "worst misclassified images"),
            remark if wrong else f"none of {total:,} samples is misclassified",
        )
        self.publish(trainer, "worst_images", figure)
        if wrong:
            rows = zip(as_pictures(images), truths, guesses, confidences, strict=True)
            columns = ["image", "truth", "prediction", "confidence"]
            log_table(trainer.loggers, "misclassified", columns, [list(row) for row in rows], trainer.global_step)


class ReliabilityDiagram(ClassificationFigure):
    """Draws ``reliability.png``: how far the probabilities can be believed, with the expected calibration error.

    Of more than two classes it is the probability of the predicted class, of two that of the second.
    """

    def draw(self, trainer: Trainer, predictions: Predictions) -> None:
        title = self.title_of(trainer, "reliability diagram")
        probabilities, targets = predictions.probabilities, predictions.targets
        if predictions.num_classes == 2:
            name = class_labels(2, self.class_names)[1]
            figure = reliability_diagram(
                probabilities[:, 1].numpy(),
                targets.numpy(),
                title,
                xlabel=f"probability of class {name}",
                ylabel=f"share of class {name}",
            )
        else:
            right = predictions.classes == targets
            figure = reliability_diagram(probabilities.max(dim=1).values.numpy(), right.numpy(), title)
        self.publish(trainer, "reliability", figure)


class RocAndPrecisionRecall(ClassificationFigure):
    """Draws ``roc_pr.png``: the ROC and the precision-recall curve of each class against all others."""

    def draw(self, trainer: Trainer, predictions: Predictions) -> None:
        title = self.title_of(trainer, "ROC and precision-recall curves")
        figure = roc_and_precision_recall(
            predictions.probabilities.numpy(), predictions.targets.numpy(), title, self.class_names
        )
        self.publish(trainer, "roc_pr", figure)
