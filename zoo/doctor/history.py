"""What was seen of a run: bounded, and of plain values, so that a checkpoint can hold it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from zoo.checkpointing import CheckpointError

WINDOW = 5
"""Looks over which a unit has to be silent to be called dead."""

MAX_LOOKS = 200
MAX_VALIDATIONS = 200
MAX_LAYERS = 100
MAX_UNITS = 1024
MAX_PARAMETERS = 2000


@dataclass
class Look:
    """What was seen at one optimizer step; ``None``, or nothing, where it could not be."""

    step: int
    """Optimizer steps taken before it."""
    epoch: int
    samples: int = 0
    loss: float | None = None
    """What the training step returned."""
    cross_entropy: float | None = None
    """Mean over the batch, in nats, without weights and smoothing."""
    accuracy: float | None = None
    labels: list[int] = field(default_factory=list)
    """Samples of each class."""
    predictions: list[int] = field(default_factory=list)
    """Samples taken for each class."""
    gradient_norm: float | None = None
    """Euclidean norm of all gradients, before clipping."""
    layer_norms: dict[str, float] = field(default_factory=dict)
    """The same of the parameters of each layer, in the order of the module's."""
    dead: dict[str, float] = field(default_factory=dict)
    """Share of the units behind each layer that were zero for every sample of the last :data:`WINDOW` looks."""
    learning_rates: list[float] = field(default_factory=list)
    """Of each parameter group."""
    peak: float | None = None
    """The largest value that came out of a ReLU."""
    peak_limit: float | None = None
    """The largest that its type can hold."""


@dataclass
class History:
    """What was seen of a run."""

    looks: list[Look] = field(default_factory=list)
    num_looks: int = 0
    """Looks taken in all; of those of a very long run not all are kept."""
    validations: list[tuple[int, float]] = field(default_factory=list)
    """Steps, and validation loss."""
    num_classes: int | None = None
    """Of the cross-entropy that is trained by, if it is one."""
    inputs: dict[str, float] = field(default_factory=dict)
    """Of the first batch: ``mean`` and ``std``, and ``feature``, which these are of, where features are columns."""
    has_input_norm: bool = False
    """Whether the first layer normalises what it gets."""
    unused: list[str] = field(default_factory=list)
    """Parameters that want a gradient and are in no optimizer."""
    without_gradient: list[str] = field(default_factory=list)
    """Parameters that had no gradient other than zero at any look."""
    with_gradient: list[str] = field(default_factory=list)
    last_fired: dict[str, list[int]] = field(default_factory=dict)
    """By layer, the number of the look at which each unit was last greater than zero; -1 is none."""
    is_automatic: bool = True
    """Whether one loss is minimised, by automatic optimization."""
    gradient_clip_val: float | None = None
    scales_gradients: bool = False
    """Whether steps whose gradients overflow are left out, as by a gradient scaler."""
    overfit: dict[str, Any] = field(default_factory=dict)
    """:class:`zoo.doctor.Overfit`, if it was tried."""
    notes: list[str] = field(default_factory=list)
    """What could not be measured, and why."""

    def add(self, look: Look) -> None:
        """Keep a look; of a run that has many, only every second one of those before it."""
        self.looks.append(look)
        self.num_looks += 1
        if len(self.looks) > MAX_LOOKS:
            self.looks = [*self.looks[:3], *self.looks[3:-1:2], self.looks[-1]]

    def add_validation(self, step: int, loss: float) -> None:
        """Keep a validation loss; likewise."""
        self.validations.append((step, loss))
        if len(self.validations) > MAX_VALIDATIONS:
            self.validations = [*self.validations[:-1:2], self.validations[-1]]

    def see_units(self, layer: str, fired: list[bool]) -> float:
        """Note which units were greater than zero at the look under way; return the share that is dead.

        Args:
            layer: whose units they are.
            fired: of each unit, whether any sample made it so.
        """
        if layer not in self.last_fired or len(self.last_fired[layer]) != min(len(fired), MAX_UNITS):
            self.last_fired[layer] = [-1] * min(len(fired), MAX_UNITS)
        last = self.last_fired[layer]
        for unit, value in enumerate(fired[:MAX_UNITS]):
            if value:
                last[unit] = self.num_looks
        return sum(look <= self.num_looks - WINDOW or look < 0 for look in last) / len(last)

    def see_gradients(self, norms: dict[str, float]) -> None:
        """Note which parameters have a gradient other than zero."""
        have, have_not = dict.fromkeys(self.with_gradient), dict.fromkeys(self.without_gradient)
        for name, norm in norms.items():
            if norm != 0.0:
                have_not.pop(name, None)
                have[name] = None
            elif name not in have:
                have_not[name] = None
        self.with_gradient, self.without_gradient = list(have)[:MAX_PARAMETERS], list(have_not)[:MAX_PARAMETERS]

    def note(self, text: str) -> None:
        """Say once what could not be measured."""
        if text not in self.notes:
            self.notes.append(text)

    def state_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, state: Any) -> History:
        """What :meth:`state_dict` gave.

        Raises:
            CheckpointError: it is something else.
        """
        try:
            history = cls(**state)
            history.looks = [Look(**look) for look in history.looks]  # type: ignore[arg-type]  # they are dicts here
            history.validations = [(int(step), float(loss)) for step, loss in history.validations]
            history.num_looks = int(history.num_looks)
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"the checkpoint's state of the TrainingDoctor is damaged, or of another version ({error}): "
                "go on without it"
            ) from error
        return history
