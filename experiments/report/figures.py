"""The figures of a run: PNG files directly in ``figures/``, nothing that a link points to or that is no picture."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datamodules import DataError
from datamodules.atomic import read_bounded
from datamodules.image_files import parse_image

FOLDER = "figures"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LARGEST, _LARGEST_TOGETHER = 16 * 2**20, 64 * 2**20  # bytes; a page holds them all
_MOST = 100
_ACRONYMS = {"auroc", "cnn", "ctc", "ece", "lr", "lstm", "mse", "pr", "rnn", "roc"}
# What comes first, by a part of the name; the others follow by alphabet.
_ORDER = (
    *("learning_curve", "curves", "loss", "accuracy", "confusion", "confused", "worst", "misclassified"),
    *("reliability", "calibration", "roc", "precision_recall", "boundary", "fit", "forecast", "alignment"),
    *("sample", "filter", "weight", "gradient", "doctor"),
)


@dataclass(frozen=True)
class FigureFile:
    """A picture.

    Args:
        name: of the file, without its ending.
        png: its bytes.
        size: width and height in pixels, as it is shown.
    """

    name: str
    png: bytes
    size: tuple[int, int]

    @property
    def caption(self) -> str:
        """The name in words, such as ``"ROC and precision recall"``."""
        words = self.name.replace("_", " ").replace("-", " ").split()
        text = " ".join(word.upper() if word.lower() in _ACRONYMS else word for word in words) or self.name
        return text[0].upper() + text[1:]

    @property
    def is_learning_curves(self) -> bool:
        """Whether it shows what can be drawn from ``metrics.csv``, too."""
        return "learning_curve" in self.name.lower()


def order(name: str) -> tuple[int, str]:
    """A key to sort names of figures by."""
    lower = name.lower()
    rank = next((rank for rank, part in enumerate(_ORDER) if part in lower), len(_ORDER))
    return rank, lower


def read_figures(run: Path) -> tuple[list[FigureFile], list[str]]:
    """The figures of a run in a sensible order, and a line for each that cannot be shown."""
    folder = run / FOLDER
    found: list[FigureFile] = []
    problems: list[str] = []
    if folder.is_symlink():
        return [], [f"{folder} is a link, and not followed"]
    try:
        names = sorted(_names(folder), key=lambda name: order(name.rpartition(".")[0]))
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"{folder} cannot be read: {error.strerror or error}"]
    room = _LARGEST_TOGETHER
    for name in names[:_MOST]:
        try:
            found.append(_read(folder / name, min(room, _LARGEST)))
            room -= len(found[-1].png)
        except (OSError, DataError) as error:
            problems.append(str(error))
    if len(names) > _MOST:
        problems.append(f"{folder} holds {len(names)} figures, of which the first {_MOST} are shown")
    return found, problems


def _names(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.lower().endswith(".png") and not entry.name.startswith("."):
                yield entry.name


def _read(path: Path, limit: int) -> FigureFile:
    if path.is_symlink():
        raise DataError(f"{path} is a link, and not followed")
    try:
        png = read_bounded(path, limit)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if not png.startswith(_SIGNATURE):
        raise DataError(f"{path} is no PNG file")
    height, width = parse_image(png, str(path)).shape  # decoded to the end: browsers show what there is of half a one
    return FigureFile(path.name[: -len(".png")], png, (width, height))
