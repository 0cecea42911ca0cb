"""One hidden layer reads MNIST.

TO BE MEASURED
"""

from __future__ import annotations

from datamodules import MNISTDataModule
from experiments.claims import Claim
from experiments.runner import Experiment, launch, run
from zoo import MLPClassifier

EXPERIMENT = Experiment(
    name="mnist_mlp",
    doc=__doc__,
    model=MLPClassifier,
    data=MNISTDataModule,
    defaults={
        "trainer.max_epochs": 10,
        "model.hidden": [800],
        "model.label_smoothing": 0.1,
        "model.optimizer": {
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": 0.002, "weight_decay": 0.05, "fused": True},
        },
        "model.scheduler": {"class_path": "zoo.optim.OneCycle"},
        "data.batch_size": 128,
    },
    claims=[
        Claim(
            "test/accuracy",
            0.984,
            0.984,
            "published for two layers without distortions, Simard et al. 2003",
            dataset="MNIST",
        )
    ],
)


def main(args: list[str] | None = None) -> dict[str, float]:
    """Run with the options in ``args`` (``None``: the defaults) and return the test metrics."""
    return run(EXPERIMENT, args)


if __name__ == "__main__":
    launch(main)
