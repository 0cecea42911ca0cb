"""Three hidden ReLU layers with dropout and max-norm read MNIST: 98.87 % of the 10,000 test images, in 122 s.

Three layers of 1,024 as in the paper, 2,913,290 parameters: dropout 0.3 (0.2 on the pixels), and the weights into a
hidden unit no longer than 1.5; labels smoothed by 0.1; no distortions; 40 epochs of one-cycle AdamW on 59,000 images,
the last of them: the options were chosen by validation on 5,000 and 10,000.

With the paper's dropout of 0.5, ``--model.dropout 0.5 --trainer.max_epochs 60``, it came to 98.75 % +- 0.07 under seeds
0 to 4; of 10,000 validation images 30 epochs read 98.76 % with 0.5, 98.79 % with 0.4, 98.85 % with 0.3 and 98.77 % with
0.2.

Measured with ``python -m experiments.scoreboard --only mnist_dropout_mlp``, seeds 0 to 4, real MNIST: test accuracy
98.87 % +- 0.05 (lowest 98.81); 121.5 s +- 1.7 in all; Intel Xeon Processor, 2 threads; torch 2.15.0, lightning 2.6.6,
Python 3.11.7, bfloat16. Published for three hidden layers with dropout: 98.75 % (Srivastava et al. 2014). Published for
three hidden layers with dropout and max-norm: 98.94 % (Srivastava et al. 2014).
"""

from __future__ import annotations

from datamodules import MNISTDataModule
from experiments.claims import Claim
from experiments.runner import Experiment, launch, run
from zoo import DropoutMLPClassifier

EXPERIMENT = Experiment(
    name="mnist_dropout_mlp",
    doc=__doc__,
    model=DropoutMLPClassifier,
    data=MNISTDataModule,
    defaults={
        "trainer.max_epochs": 40,
        "model.dropout": 0.3,
        "model.max_norm": 1.5,
        "model.label_smoothing": 0.1,
        "model.optimizer": {
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": 0.001, "weight_decay": 0.1, "fused": True},
        },
        "model.scheduler": {"class_path": "zoo.optim.OneCycle"},
        "data.batch_size": 256,
        "data.val_size": 1000,  # nothing is selected by it here
    },
    select="last",
    claims=[
        Claim(
            "test/accuracy",
            0.988,
            0.9875,
            "published for three hidden layers with dropout, Srivastava et al. 2014",
            dataset="MNIST",
        ),
        Claim(
            "test/accuracy",
            0.988,
            0.9894,
            "published for three hidden layers with dropout and max-norm, Srivastava et al. 2014",
            dataset="MNIST",
        ),
    ],
    architecture="three-layer ReLU net, 3 x 1,024 hidden units, dropout, max-norm",
)


def main(args: list[str] | None = None) -> dict[str, float]:
    """Run with the options in ``args`` (``None``: the defaults) and return the test metrics."""
    return run(EXPERIMENT, args)


if __name__ == "__main__":
    launch(main)
