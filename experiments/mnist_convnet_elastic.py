"""A small convolutional net with elastic distortions reads MNIST: 99.6 %, in 180 s.

The network of Simard et al. (2003), 5 and 50 maps by 5x5 kernels with a stride of 2 and a hidden layer of 100 on images
of 29x29.
"""

from __future__ import annotations

from datamodules import MNISTDataModule
from experiments.claims import Claim
from experiments.runner import Experiment, launch, run
from zoo import StridedCNNClassifier

EXPERIMENT = Experiment(
    name="mnist_convnet_elastic",
    doc=__doc__,
    model=StridedCNNClassifier,
    data=MNISTDataModule,
    defaults={
        "trainer.max_epochs": 30,
        "model.label_smoothing": 0.05,
        "model.optimizer": {
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": 0.004, "weight_decay": 0.05, "fused": True},
        },
        "model.scheduler": {"class_path": "zoo.optim.OneCycle"},
        "data.batch_size": 128,
        "data.image_size": 29,
        "data.augment": "elastic",
    },
    links={"data.image_size": "model.image_size"},
    select="last",
    claims=[
        Claim(
            "test/accuracy",
            0.996,
            0.996,
            "published for a convolutional net with elastic distortions, Simard et al. 2003",
            dataset="MNIST",
        )
    ],
)


def main(args: list[str] | None = None) -> dict[str, float]:
    """Run with the options in ``args`` (``None``: the defaults) and return the test metrics."""
    return run(EXPERIMENT, args)


if __name__ == "__main__":
    launch(main)
