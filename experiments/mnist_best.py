"""Five convolutions read MNIST: 99.71 % of the 10,000 test images, with 278,890 parameters, in 367 s.

Five 3x3 convolutions in three stages, batch norm and global average pooling; images rotated, scaled, sheared and moved
a little; one-cycle AdamW, labels smoothed by 0.1, and the exponential moving average of the weights, as it is behind
the last step; 20 epochs on 59,000 images, the last of them. At the end of a one-cycle schedule the average is hardly
better than the weights themselves (28 and 28 errors in a trial with seed 0, 29 and 28 in another), halfway through the
run it is much better: 22 validation images wrong instead of 31. What follows was measured with torch's own dropout;
with ours one run, of seed 0, came to 99.73 % in 305 s.

Measured with ``python -m experiments.scoreboard --only mnist_best``, seeds 0 to 2, real MNIST: test accuracy
99.71 % +- 0.02 (lowest 99.70); 367.3 s +- 10.9 in all; Intel Xeon Processor, 2 threads; torch 2.15.0, lightning 2.6.6,
Python 3.11.7, bfloat16. Published for a six-layer MLP of 12 million weights with elastic distortions: 99.65 % (Ciresan
et al. 2010).
"""

from __future__ import annotations

from datamodules import MNISTDataModule
from experiments.claims import Claim
from experiments.runner import Experiment, launch, run
from zoo import VGGClassifier

EXPERIMENT = Experiment(
    name="mnist_best",
    doc=__doc__,
    model=VGGClassifier,
    data=MNISTDataModule,
    select="last",
    defaults={
        "trainer.max_epochs": 20,
        "model.dropout": 0.2,
        "model.label_smoothing": 0.1,
        "model.optimizer": {
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": 0.006, "weight_decay": 0.05, "fused": True},
        },
        "model.scheduler": {"class_path": "zoo.optim.OneCycle", "init_args": {"warmup": 0.2, "start_factor": 0.1}},
        "data.batch_size": 128,
        "data.val_size": 1000,  # nothing is selected by it here
        "data.augment": {
            "class_path": "datamodules.RandomAffine",
            "init_args": {"degrees": 15.0, "translate": 0.1, "scale": 0.15, "shear": 10.0},
        },
        "average": "ema",
        "average_decay": 0.998,
    },
    claims=[
        Claim(
            "test/accuracy",
            0.997,
            0.9965,
            "published for a six-layer MLP of 12 million weights with elastic distortions, Ciresan et al. 2010",
            dataset="MNIST",
        )
    ],
    architecture="CNN, five 3x3 convolutions, batch norm, global average pooling; rotated, scaled, sheared and shifted",
    seeds=3,
)


def main(args: list[str] | None = None) -> dict[str, float]:
    """Run with the options in ``args`` (``None``: the defaults) and return the test metrics."""
    return run(EXPERIMENT, args)


if __name__ == "__main__":
    launch(main)
