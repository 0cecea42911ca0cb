"""Five overlapping normal distributions in 20 dimensions, told apart almost as well as can be.

TO BE MEASURED
"""

from __future__ import annotations

from datamodules import GaussianBlobsDataModule
from experiments.claims import Claim
from experiments.runner import Experiment, launch, run
from zoo import RegularizedMLPClassifier

EXPERIMENT = Experiment(
    name="multiclass_blobs",
    doc=__doc__,
    model=RegularizedMLPClassifier,
    data=GaussianBlobsDataModule,
    defaults={
        "trainer.max_epochs": 10,
        "trainer.precision": "32-true",
        "model.hidden": [64, 64],
        "model.activation": "gelu",
        "model.norm": "batch",
        "model.dropout": 0.3,
        "model.gradient_clip_val": 1.0,
        "model.optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01, "weight_decay": 0.01}},
        "model.scheduler": {"class_path": "zoo.optim.OneCycle"},
        "data.num_samples": 50_000,
        "data.num_features": 20,
        "data.num_classes": 5,
        "data.separation": 4.0,
        "data.batch_size": 250,
    },
    links={"data.num_features": "model.in_features", "data.num_classes": "model.num_classes"},
    claims=[Claim("test/accuracy", lambda limit: limit - 0.01, "bayes_accuracy", "the best possible")],
)


def main(args: list[str] | None = None) -> dict[str, float]:
    """Run with the options in ``args`` (``None``: the defaults) and return the test metrics."""
    return run(EXPERIMENT, args)


if __name__ == "__main__":
    launch(main)
