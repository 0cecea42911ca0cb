"""What a trained model reads in pictures: ``python -m experiments.predict --checkpoint PATH picture.png folder``.

For the classifiers of MNIST. Pictures may be PNG, JPEG, BMP, GIF (the first frame), WebP or TIFF, of any size, in
colour or grey, dark on light or light on dark; each is brought into MNIST's form and standardised as the model's
training data were. Of a folder the pictures directly in it are read, by name; what else is in it is counted and passed
over. One that cannot be read is named, the others are read all the same, and the exit code is 1.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datamodules import DataError
from datamodules.digit_images import DigitImage, as_mnist
from datamodules.image_files import read_image
from experiments.cli_errors import OneLineParser, answered
from experiments.console import quiet
from experiments.digit_reader import DigitReader, best, load_reader
from experiments.runner import launch
from experiments.terminal import one_line, printable

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
_BATCH = 64
_DIGITS = ("MNIST", "EMNIST", "KMNIST", "digits")
_SEVERAL = "several glyphs, read as one"


@dataclass(frozen=True)
class Reading:
    """What was read in one picture.

    Args:
        path: of the picture.
        image: what the model saw; ``None`` if the picture could not be read.
        top: the most probable classes and their probabilities, the best one first.
        error: why it could not be read.
    """

    path: Path
    image: DigitImage | None = None
    top: Sequence[tuple[int, float]] = ()
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        if self.image is None:
            return {"image": str(self.path), "error": self.error}
        top = [{"class": label, "probability": probability} for label, probability in self.top]
        about = {"polarity": self.image.polarity, "glyphs": self.image.glyphs}
        return {"image": str(self.path), **top[0], "top": top, **about}

    def line(self) -> str:
        """For the screen."""
        assert self.image is not None
        (label, probability), *_ = self.top
        top = ", ".join(f"{one} {100 * share:.2f} %" for one, share in self.top)
        note = f"  ({_SEVERAL})" if self.image.glyphs > 1 else ""
        return (
            f"{label:<5}  {100 * probability:>9.2f} %  {top:<33}  {self.image.polarity}  {printable(self.path)}{note}"
        )


def predict(args: Sequence[str]) -> list[Reading]:
    """Print what a command line asks for, and return it.

    Raises:
        SystemExit: with code 1 where a picture could not be read, 2 for a command line that cannot be used.
        CheckpointError: see there.
    """
    given = _parser().parse_args(list(args))
    with quiet(), answered():
        reader = load_reader(given.checkpoint, given.model)
        if reader.dataset not in _DIGITS:
            _complain(
                "note", f"the model was trained on {reader.dataset}, whose pictures are not centred as these will be"
            )
        paths, passed_over = _pictures(given.pictures)
        if not paths:
            _complain("error", f"there is no picture in {', '.join(given.pictures)}")
        elif not given.json:
            dataset = printable(reader.dataset)[:100]
            print(f"model  {type(reader.task).__name__} of {printable(reader.source)}, trained on {dataset}")
            print(f"class  probability  {'top three':<33}  {'picture is':13}  picture")
        readings = []
        for reading in read(reader, paths):
            readings.append(reading)
            if reading.error is not None:
                _complain("error", reading.error)
            elif not given.json:
                print(reading.line(), flush=True)
        if given.json:
            print(json.dumps(_document(reader, readings, passed_over), indent=2))
        elif passed_over:
            print(f"passed over {passed_over} other file{'s' if passed_over > 1 else ''} and folders in folders")
    if not readings or any(reading.error is not None for reading in readings):
        raise SystemExit(1)
    return readings


def read(reader: DigitReader, paths: Sequence[Path | Reading]) -> Iterator[Reading]:
    """What a model reads in pictures, in their order; a :class:`Reading` among them is passed on as it is."""
    for start in range(0, len(paths), _BATCH):
        prepared = [_prepared(path) if isinstance(path, Path) else path for path in paths[start : start + _BATCH]]
        pixels = [reading.image.pixels for reading in prepared if reading.image is not None]
        probabilities = iter(reader.probabilities(torch.stack(pixels)) if pixels else ())
        for reading in prepared:
            if reading.image is None:
                yield reading
            else:
                yield Reading(reading.path, reading.image, best(next(probabilities)))


def _prepared(path: Path) -> Reading:
    try:
        picture = read_image(path)
    except DataError as error:
        return Reading(path, error=str(error))
    try:
        return Reading(path, as_mnist(picture))
    except DataError as error:
        return Reading(path, error=f"{path} is blank: {error}")


def _pictures(arguments: Sequence[str]) -> tuple[list[Path | Reading], int]:
    """The pictures that arguments name, each once, and how many other files and folders there are in folders."""
    found: dict[str, Path | Reading] = {}
    passed_over = 0
    for path in map(Path, arguments):
        try:
            children = sorted(path.iterdir()) if path.is_dir() else None
        except OSError as error:
            found[_key(path)] = Reading(path, error=f"{path} cannot be read: {error.strerror}")
            continue
        wanted = [path] if children is None else [child for child in children if _is_picture(child)]
        passed_over += 0 if children is None else len(children) - len(wanted)
        for each in wanted:
            found.setdefault(_key(each), each)
    return list(found.values()), passed_over


def _key(path: Path) -> str:
    """The same for all ways to write a path; two links to one file are two pictures."""
    return os.path.normpath(path.absolute())


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.is_dir()


def _document(reader: DigitReader, readings: Sequence[Reading], passed_over: int) -> dict[str, Any]:
    return {
        "checkpoint": reader.source,
        "model": type(reader.task).__name__,
        "dataset": reader.dataset,
        "temperature": reader.task.temperature,
        "images": [reading.as_json() for reading in readings],
        "passed_over": passed_over,
    }


def _complain(kind: str, message: str) -> None:
    print(f"{kind}: {one_line(message)}", file=sys.stderr, flush=True)


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m experiments.predict",
        description="What a trained classifier of MNIST reads in pictures.",
        allow_abbrev=False,
    )
    parser.add_argument("--checkpoint", required=True, help="a local file, or the name of pretrained weights")
    parser.add_argument("--model", help="the model's class, if it is not of the zoo: module.Class, whose code is run")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    parser.add_argument("pictures", nargs="+", metavar="picture", help="PNG, JPEG, BMP, GIF, WebP or TIFF, or a folder")
    return parser


if __name__ == "__main__":
    launch(predict)
