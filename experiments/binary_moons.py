"""Two half moons, told apart by a small network with GELU.

TO BE MEASURED
"""

from __future__ import annotations

from datamodules import MoonsDataModule
from experiments.claims import Claim
from experiments.runner import Experiment, launch, run
from zoo import BinaryMLPClassifier

EXPERIMENT = Experiment(
    name="binary_moons",
    doc=__doc__,
    model=BinaryMLPClassifier,
    data=MoonsDataModule,
    defaults={
        "trainer.max_epochs": 10,
        "trainer.precision": "32-true",
        "model.hidden": [64, 64],
        "model.activation": "gelu",
        "model.optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01, "weight_decay": 0.0}},
        "model.scheduler": {"class_path": "zoo.optim.OneCycle"},
        "data.num_samples": 20_000,
        "data.noise": 0.1,
        "data.batch_size": 100,
    },
    claims=[Claim("test/accuracy", 0.995, "bayes_accuracy", "the best possible")],
)


def main(args: list[str] | None = None) -> dict[str, float]:
    """Run with the options in ``args`` (``None``: the defaults) and return the test metrics."""
    return run(EXPERIMENT, args)


if __name__ == "__main__":
    launch(main)
