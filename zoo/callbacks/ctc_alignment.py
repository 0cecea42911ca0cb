"""What a network trained with CTC reads where."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from zoo.callbacks.figure_of_test import FigureOfTest, Kept, outputs_of
from zoo.figures.sequences import ReadLine, ctc_alignment

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class CTCAlignment(FigureOfTest):
    """Draws ``ctc_alignment.png`` when a test has ended: lines, the probabilities of every step, and the greedy path.

    For images ``(batch, channels, height, width)``, with their widths ``(batch,)`` where these differ; targets that are
    labels ``(batch, longest)`` and lengths ``(batch,)``; and a module that gives logits ``(batch, steps, labels)``, of
    which label 0 is the blank and label ``i`` the ``i``-th character of ``module.alphabet``. How many steps of a sample
    are valid, ``(batch,)``, is ``module.steps_of(inputs, outputs)``, where ``inputs`` are as they come in a batch; all
    are, where there is no such method. Of anything else nothing is drawn.

    The path is the greedy one whatever the module decodes by.

    Args:
        title: see :class:`FigureCallback`, as for ``directory``.
        directory: see there.
        max_samples: lines that are shown.

    Raises:
        ValueError: ``max_samples`` below 1.
    """

    figure_name = "ctc_alignment"

    def __init__(self, title: str | None = None, directory: str | Path | None = None, max_samples: int = 3) -> None:
        super().__init__(title, directory, max_samples)

    def fits(self, kept: Kept) -> bool:
        return kept.inputs[0].ndim == 4 and len(kept.targets) == 2 and kept.targets[0].ndim == 2

    def draw(self, trainer: Trainer, module: LightningModule, kept: list[Kept]) -> Figure | None:
        alphabet = getattr(module, "alphabet", None)
        if not isinstance(alphabet, str) or not alphabet:
            return None
        lines: list[ReadLine] = []
        for part in kept:
            logits = outputs_of(trainer, module, *part.inputs)
            if logits is None or logits.ndim != 3 or logits.shape[2] != 1 + len(alphabet):
                return None
            lines += _lines(part, logits, _steps(module, part, logits), alphabet)
        return ctc_alignment(self.title_of(trainer, "CTC alignment"), lines, alphabet) if lines else None


def _steps(module: Any, kept: Kept, logits: Tensor) -> list[int]:
    steps_of = getattr(module, "steps_of", None)
    if steps_of is None or len(kept.inputs) == 1:
        return [logits.shape[1]] * len(logits)
    steps: list[int] = steps_of((kept.inputs, kept.targets), logits).tolist()
    return steps


def _lines(kept: Kept, logits: Tensor, steps: list[int], alphabet: str) -> list[ReadLine]:
    """Of each sample that has a step and a column."""
    images = kept.inputs[0].cpu().double().mean(dim=1)
    labels, lengths = (part.tolist() for part in kept.targets)
    probabilities = logits.softmax(dim=2)
    padded, count = images.shape[2], logits.shape[1]
    # Halvings leave out what is odd, so that the columns are but a few more than the steps stand for.
    columns = float(padded // count) if padded >= count > 0 else padded / max(1, count)
    widths = [padded] * len(images) if len(kept.inputs) == 1 else kept.inputs[1].tolist()
    return [
        ReadLine(
            images[index, :, :width].numpy(),
            probabilities[index, : steps[index]].numpy(),
            columns,
            "".join(alphabet[label - 1] for label in labels[index][: lengths[index]] if 0 < label <= len(alphabet)),
        )
        for index, width in enumerate(widths)
        if width > 0 and steps[index] > 0 and not probabilities[index, : steps[index]].isnan().any()
    ]
