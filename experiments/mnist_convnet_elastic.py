"""A small convolutional net with elastic distortions reads MNIST: 99.64 % of the 10,000 test images, in 204 s.

Like the network of Simard et al. (2003) on images of 29x29 two layers of 5x5 kernels with a stride of 2 and no pooling,
and a hidden layer of 100; with 32 and 96 maps (the paper's has 5 and 50) and batch norm behind them, ReLU, 318,966
parameters. Elastic distortions with a small affine one in the same resampling, labels smoothed by 0.05; 40 epochs of
one-cycle AdamW on 59,000 images, the last of them: the options were chosen by validation on 5,000
and 10,000.

Fewer maps are a little short: 16 and 64 in 30 epochs came to 99.58 % +- 0.04 under seeds 0 to 4. The paper's own
network of 132,540 parameters, ``--model.channels [5,50] --model.norm null``, came to 99.56 % in a trial of one seed and
40 epochs of ``--model.optimizer.lr 0.006``, on 55,000 images that were distorted more.

Measured with ``python -m experiments.scoreboard --only mnist_convnet_elastic``, seeds 0 to 4, real MNIST: test accuracy
99.64 % +- 0.02 (lowest 99.62); 203.9 s +- 7.5 in all; Intel Xeon Processor, 2 threads; torch 2.15.0, lightning 2.6.6,
Python 3.11.7, bfloat16. Published for a convolutional net with elastic distortions: 99.6 % (Simard et al. 2003).
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
        "trainer.max_epochs": 40,
        "model.channels": [32, 96],
        "model.norm": "batch",
        "model.label_smoothing": 0.05,
        "model.optimizer": {
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": 0.01, "weight_decay": 0.05, "fused": True},
        },
        "model.scheduler": {"class_path": "zoo.optim.OneCycle"},
        "data.batch_size": 128,
        "data.val_size": 1000,  # nothing is selected by it here
        "data.image_size": 29,
        "data.augment": "elastic_affine",
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
    architecture="CNN, two 5x5 convolutions with stride 2, one hidden layer, batch norm; elastic distortions",
)


def main(args: list[str] | None = None) -> dict[str, float]:
    """Run with the options in ``args`` (``None``: the defaults) and return the test metrics."""
    return run(EXPERIMENT, args)


if __name__ == "__main__":
    launch(main)
