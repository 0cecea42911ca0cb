"""Hyperparameters that no checkpoint could bring back, refused while nothing is lost yet."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from zoo.checkpointing import CheckpointError, first_unsafe
from zoo.wording import with_article


class PlainHyperparameters(Callback):
    """Refuses, before the first step, hyperparameters that could be saved but never be loaded safely.

    A module, a partial, an enum, a path or a NumPy scalar among what ``save_hyperparameters`` keeps makes a checkpoint
    that nothing can read with ``weights_only=True``. Both the module's and the data module's are looked at. Tasks of
    the zoo refuse such values when they are made.

    Raises:
        CheckpointError: names the class, the hyperparameter and its type.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning, absent from its class
        for owner in (pl_module, data):
            found = None if owner is None else first_unsafe(dict(owner.hparams))
            if found is not None:
                name, kind = found
                raise CheckpointError(
                    f"{type(owner).__name__}: hyperparameter {name} is {with_article(kind)}, which a checkpoint cannot "
                    "bring back safely: pass a plain value, or leave it out with save_hyperparameters(ignore=[...])"
                )
