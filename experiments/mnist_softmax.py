"""One linear layer reads MNIST.

TO BE MEASURED
"""

from __future__ import annotations

from datamodules import MNISTDataModule
from experiments.claims import Claim
from experiments.runner import Experiment, launch, run
from zoo import SoftmaxClassifier

EXPERIMENT = Experiment(
    name="mnist_softmax",
    doc=__doc__,
    model=SoftmaxClassifier,
    data=MNISTDataModule,
    defaults={
        "trainer.max_epochs": 10,
        "model.optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.003, "weight_decay": 0.01}},
        "model.scheduler": {"class_path": "zoo.optim.OneCycle"},
        "data.batch_size": 256,
    },
    claims=[Claim("test/accuracy", 0.924, 0.88, "published for one linear layer, LeCun et al. 1998", dataset="MNIST")],
)


def main(args: list[str] | None = None) -> dict[str, float]:
    """Run with the options in ``args`` (``None``: the defaults) and return the test metrics."""
    return run(EXPERIMENT, args)


if __name__ == "__main__":
    launch(main)
