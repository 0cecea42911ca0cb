"""A small CNN reads MNIST: 99.38 % of the 10,000 test images right after 3 epochs, 18 s on two CPU cores.

Two 5x5 convolutions with batch norm, pooling and one hidden layer, 80,250 parameters; one-cycle AdamW, batches of 256
shifted by up to a pixel, the best of three epochs by validation.

Measured with ``for s in 0 1 2 3 4; do python -m experiments.mnist_cnn --seed_everything $s; done``: test accuracy
99.38 % +- 0.03 (mean and standard deviation over the five seeds; lowest 99.36), 18.0 s +- 0.4 in all, of which 12.2 s
are training; AMD EPYC with native bfloat16, 2 cores; torch 2.15, lightning 2.6.6, Python 3.11.
"""

from __future__ import annotations

from datamodules import MNISTDataModule
from experiments.runner import Experiment, launch, run
from zoo import CNNClassifier

EXPERIMENT = Experiment(
    name="mnist_cnn",
    doc=__doc__,
    model=CNNClassifier,
    data=MNISTDataModule,
    defaults={
        "trainer.max_epochs": 3,
        "model.optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01, "weight_decay": 1e-4}},
        "model.scheduler": {"class_path": "zoo.optim.OneCycle"},
        "data.batch_size": 256,
        "data.augment": "shift",
    },
)


def main(args: list[str] | None = None) -> dict[str, float]:
    """Run with the options in ``args`` (``None``: the defaults) and return the test metrics."""
    return run(EXPERIMENT, args)


if __name__ == "__main__":
    launch(main)
