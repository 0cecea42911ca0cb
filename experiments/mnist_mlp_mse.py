"""One hidden layer of 300 reads MNIST, trained by the squared error on one-hot targets: 98.4 %, in 15 s.

The two-layer network of 784-300-10 in ``Regression``, 238,510 parameters: its ten outputs are fitted to one-hot
targets, and the largest is its answer. Ten epochs of one-cycle AdamW, no distortions, the best of them by validation
accuracy.
"""

from __future__ import annotations

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from datamodules import MNISTDataModule
from experiments.claims import Claim
from experiments.mnist_lenet_mse import OneHotAccuracy
from experiments.runner import Experiment, launch, run
from zoo import Regression
from zoo.networks import MLP


class OneHotMLPRegressor(Regression):
    """:class:`zoo.networks.MLP` as a regressor of one-hot targets.

    Args:
        in_features: numbers a sample; images are flattened.
        num_classes: number of classes.
        hidden: of ``MLP``.
        activation: of ``MLP``.
        norm: of ``MLP``.
        dropout: of ``MLP``.
        input_dropout: of ``MLP``.
        loss: of ``Regression``.
        optimizer: makes the optimizer.
        scheduler: makes the schedule.
    """

    def __init__(
        self,
        in_features: int = 784,
        num_classes: int = 10,
        hidden: tuple[int, ...] = (300,),
        activation: str = "relu",
        norm: str | None = None,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        loss: str = "mse",
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(
            network=MLP(in_features, hidden, num_classes, activation, norm, dropout, input_dropout),
            loss=loss,
            metrics={"accuracy": OneHotAccuracy(num_classes)},
            optimizer=optimizer,
            scheduler=scheduler,
        )


EXPERIMENT = Experiment(
    name="mnist_mlp_mse",
    doc=__doc__,
    model=OneHotMLPRegressor,
    data=MNISTDataModule,
    defaults={
        "trainer.max_epochs": 10,
        "model.optimizer": {
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": 0.003, "weight_decay": 0.05, "fused": True},
        },
        "model.scheduler": {"class_path": "zoo.optim.OneCycle"},
        "data.batch_size": 128,
        "data.one_hot": True,
    },
    claims=[
        Claim(
            "test/accuracy",
            0.98,
            0.953,
            "published for a two-layer net of 300 hidden units with MSE, LeCun et al. 1998",
            dataset="MNIST",
        )
    ],
)


def main(args: list[str] | None = None) -> dict[str, float]:
    """Run with the options in ``args`` (``None``: the defaults) and return the test metrics."""
    return run(EXPERIMENT, args)


if __name__ == "__main__":
    launch(main)
