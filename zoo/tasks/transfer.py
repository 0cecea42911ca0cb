"""What a task takes over from another: weights that were trained before, of which a part may be kept as it is."""

from __future__ import annotations

from os import PathLike
from typing import Any, ClassVar, TypeVar

from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

from zoo.checkpointing import CheckpointError
from zoo.networks.heads import trunk_of

AnyTask = TypeVar("AnyTask", bound="TransferLearning")

FROZEN_KEY = "frozen"
"""Where a checkpoint says which part of the network was not trained."""

TRUNK = "trunk"


class TransferLearning(LightningModule):
    """A task whose network may begin with the weights of another, and whose trunk may be kept from learning.

    The head is the network's last layer, the trunk what comes before, see :mod:`zoo.networks.heads`.
    """

    not_hyperparameters: ClassVar[tuple[str, ...]] = ()

    network: nn.Module
    _frozen: str | None = None

    @classmethod
    def from_pretrained(
        cls: type[AnyTask], source: str | PathLike[str], *, freeze: str | None = None, **arguments: Any
    ) -> AnyTask:
        """A model to be trained further that begins with the weights of another.

        Given new outputs (``num_classes=5``, or whatever else says what the outputs of the class are:
        ``out_features``, ``horizon``, ``alphabet``) it keeps the trunk and gets a new head, freshly initialised from
        torch's generator, also where there are as many as before: they are others. Without, the head is kept, too.

        Args:
            source: a name out of :func:`zoo.list_pretrained`, a directory that :func:`zoo.pretrained.save_pretrained`
                wrote, or a checkpoint. Nothing is downloaded.
            freeze: ``"trunk"`` keeps the trunk as it is, see :meth:`freeze_trunk`; ``None`` trains all of the network.
            **arguments: of the class, ``optimizer`` and ``scheduler`` among them; they win over those of ``source``.

        Raises:
            CheckpointError: there is no such source, it cannot be read, or holds a model of another class.
            TypeError: the class takes no such argument.
            ValueError: a value out of range, or one with which the weights do not fit the network.
        """
        from zoo.pretrained.fine_tuning import from_pretrained

        return from_pretrained(cls, source, freeze, arguments)

    @property
    def frozen(self) -> str | None:
        """Which part of the network is kept as it is: ``"trunk"``, or ``None``."""
        return self._frozen

    def freeze_trunk(self) -> None:
        """Keep the trunk as it is: no parameter of it is trained, no running statistic of a norm moves.

        Call it before the fit. It is kept in checkpoints and comes back with them; ``unfreeze()`` ends it. Dropout goes
        on as in any training.

        Raises:
            ValueError: the network has no trunk.
        """
        for module in trunk_of(self.network):
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
        self._frozen = TRUNK
        self._hold_statistics()

    def unfreeze(self: AnyTask) -> AnyTask:
        self._frozen = None
        return super().unfreeze()

    def train(self: AnyTask, mode: bool = True) -> AnyTask:
        super().train(mode)
        if mode:
            self._hold_statistics()
        return self

    def _hold_statistics(self) -> None:
        for module in self._with_statistics():
            module.training = False  # not eval(), which would reach what is in it

    def _with_statistics(self) -> list[nn.Module]:
        if self._frozen is None:
            return []
        # Whatever has buffers keeps account in them of what it sees in training.
        return [part for part in trunk_of(self.network) if any(True for _ in part.buffers(recurse=False))]

    # Between these two Lightning looks for modules in evaluation mode, and warns of what is meant to be there.

    def on_fit_start(self) -> None:
        for module in self._with_statistics():
            module.training = self.training

    def on_train_start(self) -> None:
        self._hold_statistics()

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._frozen is not None:
            checkpoint[FROZEN_KEY] = self._frozen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint.get(FROZEN_KEY)
        if saved not in (None, TRUNK):
            raise CheckpointError(f"the checkpoint cannot be used: it froze {saved!r:.100}, and only 'trunk' can be")
        if saved == TRUNK:
            self.freeze_trunk()
        elif self._frozen and self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING:
            raise CheckpointError(
                f"the run to resume trained all of the network, and here the {self._frozen} is frozen: call unfreeze() "
                "first, or begin a new run"
            )
