"""Two regularized hidden layers read MNIST: 98.87 % of the 10,000 test images, in 43 s.

Two layers of 800 with batch norm, GELU, dropout 0.3 (0.15 on the pixels), label smoothing 0.1, weight decay 0.3 on
the weights alone, clipped gradients; 24 epochs of one-cycle AdamW, no augmentation, the last of them.

Measured with ``python -m experiments.scoreboard --only mnist_regularized_mlp``, seeds 0 to 4, real MNIST: test accuracy
98.87 % +- 0.04 (lowest 98.82); 43.3 s +- 0.9 in all; Intel Xeon Processor, 2 threads; torch 2.15.0, lightning 2.6.6,
Python 3.11.7, bfloat16. Published for dropout: 98.75 % (Srivastava et al. 2014).
"""

from __future__ import annotations

from datamodules import MNISTDataModule
from experiments.claims import Claim
from experiments.runner import Experiment, launch, run
from zoo import RegularizedMLPClassifier

EXPERIMENT = Experiment(
    name="mnist_regularized_mlp",
    doc=__doc__,
    model=RegularizedMLPClassifier,
    data=MNISTDataModule,
    defaults={
        "trainer.max_epochs": 24,
        "model.hidden": [800, 800],
        "model.dropout": 0.3,
        "model.input_dropout": 0.15,
        "model.label_smoothing": 0.1,
        "model.optimizer": {
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": 0.004, "weight_decay": 0.3, "fused": True},
        },
        "model.scheduler": {"class_path": "zoo.optim.OneCycle"},
        "data.batch_size": 256,
    },
    select="last",
    claims=[Claim("test/accuracy", 0.988, 0.9875, "published for dropout, Srivastava et al. 2014", dataset="MNIST")],
    architecture="three-layer net, 2 x 800 hidden units, GELU, batch norm, dropout",
)


def main(args: list[str] | None = None) -> dict[str, float]:
    """Run with the options in ``args`` (``None``: the defaults) and return the test metrics."""
    return run(EXPERIMENT, args)


if __name__ == "__main__":
    launch(main)
