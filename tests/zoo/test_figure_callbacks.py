"""Callbacks that draw, in anyone's trainer."""

import contextlib
import warnings

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from zoo import BinaryClassification, MulticlassClassification
from zoo.callbacks import (
    ClassificationFigure,
    ConfusionMatrix,
    FigureCallback,
    FigureWarning,
    LastCheckpoint,
    LearningCurves,
    ReliabilityDiagram,
    RocAndPrecisionRecall,
    StepSeeding,
    WorstImages,
)
from zoo.callbacks.learning_curves import MetricHistory
from zoo.checkpointing import read_checkpoint
from zoo.metrics_csv import MetricsCSV, read_csv

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")

TEST_FIGURES = (ConfusionMatrix, WorstImages, ReliabilityDiagram, RocAndPrecisionRecall)
NAMES = {"confusion_matrix", "most_confused", "worst_images", "reliability", "roc_pr"}


class Users(LightningModule):
    """A module of somebody's own; its test step calls itself, or only its network."""

    def __init__(self, *, calls_itself=True, classes=3):
        super().__init__()
        torch.manual_seed(3)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(16, classes))
        self.calls_itself = calls_itself
        self.forwards = 0

    def forward(self, images):
        self.forwards += 1
        return self.network(images)

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def test_step(self, batch, batch_idx):
        outputs = self(batch[0]) if self.calls_itself else self.network(batch[0])
        self.log("test_loss", nn.functional.cross_entropy(outputs.reshape(len(outputs), -1), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Seen(ClassificationFigure):
    """Keeps what it would draw."""

    with_inputs = True
    predictions = None

    def draw(self, trainer, predictions):
        self.predictions = predictions


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(22, 1, 4, 4, generator=generator), torch.arange(22) % 3


@pytest.fixture
def loader(images):
    return DataLoader(TensorDataset(*images), batch_size=8)


@pytest.mark.parametrize("kind", ["none", "csv", "tensorboard"])
def test_anyones_module_has_all_figures_with_any_logger(make_trainer, tmp_path, loader, kind):
    loggers = {"none": lambda: False, "csv": lambda: CSVLogger(tmp_path, "c", "v"), "tensorboard": lambda: board}
    board = TensorBoardLogger(tmp_path, "t", "v")
    callbacks = [LearningCurves("mine"), *(make("mine") for make in TEST_FIGURES)]
    trainer = make_trainer(max_epochs=2, logger=loggers[kind](), callbacks=callbacks)
    before = list(trainer.loggers)
    module = Users()
    trainer.fit(module, loader, loader)
    trainer.test(module, loader, verbose=False)
    folder = tmp_path / {"none": ".", "csv": "c/v", "tensorboard": "t/v"}[kind] / "figures"
    assert {file.stem for file in folder.iterdir()} == NAMES | {"learning_curves"}
    for file in folder.iterdir():
        with Image.open(file) as picture:
            assert len(picture.convert("L").getcolors()) > 10  # not blank
    assert trainer.loggers == before
    assert sum(callback.seconds for callback in callbacks) > 0
    assert {file.name for callback in callbacks for file in callback.files} == {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("calls_itself", [True, False])
def test_all_figures_share_the_outputs_of_the_one_test(make_trainer, loader, images, calls_itself):
    module = Users(calls_itself=calls_itself)
    first, second = Seen(), Seen()
    trainer = make_trainer(callbacks=[first, second])
    trainer.test(module, loader, verbose=False)
    assert module.forwards == 3  # one a batch: where the module was not called itself, it is called once
    assert first.predictions is second.predictions
    with torch.no_grad():
        probabilities = module.eval()(images[0]).softmax(1)
    torch.testing.assert_close(first.predictions.probabilities, probabilities)
    wrong = (probabilities.argmax(1) != images[1]).nonzero().squeeze(1)
    order = wrong[probabilities[wrong].max(1).values.argsort(descending=True)]
    worst = first.predictions.worst
    torch.testing.assert_close(worst.inputs, images[0][order])
    assert worst.targets.tolist() == images[1][order].tolist()
    assert first._predictions is None  # nothing of it stays
    assert not module._forward_hooks


def test_no_more_than_thirty_two_inputs_are_kept(make_trainer):
    features, labels = torch.randn(300, 1, 4, 4), torch.zeros(300, dtype=torch.int64)
    module, seen = Users(), Seen()
    loader = DataLoader(TensorDataset(features, labels), batch_size=25)
    make_trainer(callbacks=[seen]).test(module, loader, verbose=False)
    found = seen.predictions
    wrong = found.classes != 0
    assert wrong.sum() > 32
    surest = found.probabilities[wrong].max(1).values.sort(descending=True).values[:32]
    torch.testing.assert_close(seen.predictions.worst.confidences, surest)


def test_a_tasks_classes_are_those_of_its_metrics(make_trainer, make_data):
    seen, task = Seen(), MulticlassClassification(nn.Linear(4, 3), num_classes=3)
    [metrics] = make_trainer(callbacks=[seen]).test(task, make_data(), verbose=False)
    right = (seen.predictions.classes == seen.predictions.targets).float().mean()
    assert right.item() == pytest.approx(metrics["test/accuracy"])


def test_two_classes_by_one_logit_keep_the_tasks_threshold(make_trainer):
    network = nn.Linear(1, 1)
    nn.init.ones_(network.weight)
    nn.init.zeros_(network.bias)
    features = torch.tensor([[-2.0], [0.5], [3.0]])
    loader = DataLoader(TensorDataset(features, torch.tensor([0, 0, 1])), batch_size=2)
    seen = Seen()
    make_trainer(callbacks=[seen]).test(BinaryClassification(network, threshold=0.7), loader, verbose=False)
    torch.testing.assert_close(seen.predictions.probabilities[:, 1], features[:, 0].sigmoid())
    assert seen.predictions.classes.tolist() == [0, 0, 1]


@pytest.mark.parametrize("kind", ["sequence", "regression", "labels"])
def test_what_is_no_classification_costs_a_warning_that_names_the_figure(make_trainer, kind, images):
    module = Users(classes=2 if kind == "labels" else 3)
    features, targets = images
    if kind == "sequence":
        module.forward = lambda batch: module.network(batch)[:, None]
    elif kind == "regression":
        targets, module.test_step = torch.randn(22, 5), lambda batch, batch_idx: module(batch[0])
    elif kind == "labels":  # a label beyond the classes, which only the figures look at
        module.test_step = lambda batch, batch_idx: module(batch[0])
    loader = DataLoader(TensorDataset(features, targets), batch_size=8)
    trainer = make_trainer(callbacks=[ConfusionMatrix(), WorstImages()])
    if kind == "sequence":
        module.test_step = lambda batch, batch_idx: module(batch[0])
    with pytest.warns(FigureWarning, match="ConfusionMatrix failed"):
        trainer.test(module, loader, verbose=False)


@pytest.mark.parametrize("kind", ["features", "sizes"])
def test_inputs_that_cannot_be_shown_cost_the_pictures_alone(make_trainer, tmp_path, kind):
    module = Users()
    module.network = nn.Sequential(nn.Flatten(), nn.LazyLinear(3)) if kind == "features" else Pooled()
    shapes = [(4, 16), (4, 16)] if kind == "features" else [(4, 1, 4, 4), (4, 1, 5, 6)]
    batches = [(torch.randn(shape), torch.tensor([0, 1, 2, 0])) for shape in shapes]
    module(batches[0][0])
    trainer = make_trainer(callbacks=[ConfusionMatrix(), WorstImages()])
    with pytest.warns(FigureWarning, match=r"WorstImages failed \(ValueError: .*images") as caught:
        trainer.test(module, DataLoader(batches, batch_size=None), verbose=False)
    assert len([each for each in caught if each.category is FigureWarning]) == 1
    assert (tmp_path / "figures" / "confusion_matrix.png").is_file()


class Pooled(nn.Module):
    """For images of any size."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 3)

    def forward(self, images):
        return self.layer(images.mean(dim=(2, 3)))


def test_a_trial_run_draws_nothing(make_trainer, tmp_path, loader):
    trainer = make_trainer(fast_dev_run=True, callbacks=[LearningCurves(), ConfusionMatrix()])
    trainer.fit(Users(), loader, loader)
    trainer.test(trainer.lightning_module, loader, verbose=False)
    assert not (tmp_path / "figures").exists()


class Broken(FigureCallback):
    def on_test_end(self, trainer, pl_module):
        raise KeyError("weird data")


def test_a_figure_that_fails_is_a_warning_and_the_others_are_drawn(make_trainer, tmp_path, loader):
    trainer = make_trainer(callbacks=[Broken(), ConfusionMatrix()])
    with pytest.warns(FigureWarning, match=r"Broken failed \(KeyError: 'weird data'\)"):
        [metrics] = trainer.test(Users(), loader, verbose=False)
    assert metrics["test_loss"] > 0
    assert (tmp_path / "figures" / "confusion_matrix.png").is_file()


def test_a_directory_that_cannot_be_made_costs_one_warning_a_callback(make_trainer, tmp_path, loader):
    (tmp_path / "figures").write_text("a file in the way")
    callbacks = [LearningCurves(), ConfusionMatrix()]
    trainer = make_trainer(max_epochs=1, callbacks=callbacks)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FigureWarning)
        module = Users()
        trainer.fit(module, loader, loader)
        trainer.test(module, loader, verbose=False)
    said = [str(each.message) for each in caught if each.category is FigureWarning]
    assert [line.partition(" ")[0] for line in said] == ["LearningCurves", "ConfusionMatrix"]
    assert all("figures" in line for line in said)
    assert [callback.files for callback in callbacks] == [[], []]


def test_nothing_is_done_in_a_training_step():
    batch_hooks = ("on_train_batch_start", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
    for kind in (LearningCurves, *TEST_FIGURES):
        for hook in (*batch_hooks, "on_before_zero_grad", "on_train_batch_end", "on_validation_batch_end"):
            assert getattr(kind, hook) is getattr(StepSeeding.__mro__[1], hook)  # Lightning's, which does nothing


# ------------------------------------------------------------------ learning curves


def history_of(trainer):
    [curves] = [callback for callback in trainer.callbacks if isinstance(callback, LearningCurves)]
    return {name: list(zip(kept["steps"], kept["values"], strict=True)) for name, kept in curves.history.series.items()}


def test_the_history_is_what_the_loggers_got(make_trainer, make_data, list_logger):
    task = MulticlassClassification(nn.Linear(4, 3), num_classes=3)
    trainer = make_trainer(max_epochs=3, logger=list_logger, callbacks=[LearningCurves()])
    trainer.fit(task, make_data())
    trainer.test(task, make_data(), verbose=False)
    history = history_of(trainer)
    names = {name for _, metrics in list_logger.calls for name in metrics} - {"epoch"}
    assert history.keys() == {name for name in names if not name.startswith("test/")}
    for name, values in history.items():
        assert dict(values) == list_logger.values(name)
    assert len(history["train/loss"]) == 9


@pytest.mark.parametrize("tracked", [True, False])
def test_a_resumed_run_draws_all_of_its_history(make_trainer, make_data, tmp_path, tracked):
    def fit(epochs, folder, path=None):
        torch.manual_seed(0)
        loggers = [MetricsCSV(tmp_path / folder)] if tracked else False
        callbacks = [LearningCurves(directory=tmp_path), LastCheckpoint(tmp_path / folder), StepSeeding(0)]
        trainer = make_trainer(max_epochs=epochs, logger=loggers, callbacks=callbacks, enable_checkpointing=True)
        task = MulticlassClassification(nn.Linear(4, 3), num_classes=3)
        trainer.fit(task, make_data(), ckpt_path=path, weights_only=True)
        return history_of(trainer)

    whole = fit(3, "whole")
    fit(2, "part")
    assert fit(3, "part", tmp_path / "part" / "last.ckpt") == whole
    if tracked:
        rows = read_csv(tmp_path / "whole" / "metrics.csv")[1]
        assert [value for _, value in whole["val/loss"]] == [float(row["val/loss"]) for row in rows if row["val/loss"]]
        saved = read_checkpoint(tmp_path / "whole" / "last.ckpt")
        assert saved["learning_curves"]["val/loss"]["values"] == [value for _, value in whole["val/loss"]]


def test_a_run_that_did_not_draw_before_has_its_history_from_the_file(make_trainer, make_data, tmp_path):
    def fit(epochs, path, *callbacks):
        torch.manual_seed(0)
        keep = None if path is None else 10  # as a run record would say: three steps, a validation and an epoch, twice
        logger = MetricsCSV(tmp_path, keep)
        last = LastCheckpoint(tmp_path)
        callbacks = [*callbacks, last]
        trainer = make_trainer(max_epochs=epochs, logger=logger, callbacks=callbacks, enable_checkpointing=True)
        task = MulticlassClassification(nn.Linear(4, 3), num_classes=3)
        trainer.fit(task, make_data(), ckpt_path=path, weights_only=True)
        return trainer

    fit(2, None)
    history = history_of(fit(3, tmp_path / "last.ckpt", LearningCurves()))
    rows = read_csv(tmp_path / "metrics.csv")[1]
    for name, values in history.items():
        assert [value for _, value in values] == [float(row[name]) for row in rows if row.get(name)]
    assert [step for step, _ in history["val/loss"]] == [2, 5, 8]


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_damaged_history_in_a_checkpoint_costs_a_warning(make_trainer, make_data, tmp_path):
    def make(epochs):
        callbacks = [LearningCurves(), ModelCheckpoint(tmp_path / str(epochs), save_last=True)]
        return make_trainer(max_epochs=epochs, callbacks=callbacks, enable_checkpointing=True)

    task = MulticlassClassification(nn.Linear(4, 3), num_classes=3)
    trainer = make(1)
    trainer.fit(task, make_data())
    path = tmp_path / "damaged.ckpt"
    checkpoint = read_checkpoint(tmp_path / "1" / "last.ckpt")
    checkpoint["learning_curves"] = {"train/loss": 7}
    torch.save(checkpoint, path)
    again = make(2)
    with pytest.warns(FigureWarning, match="LearningCurves failed"):
        again.fit(task, make_data(), ckpt_path=path, weights_only=True)
    assert len(history_of(again)["train/loss"]) == 3  # of the second epoch


def test_memory_is_bounded_and_the_whole_run_kept():
    history = MetricHistory()
    for step in range(100_000):
        history.add({"train/loss": float(step), "epoch": 1, "test/loss": 2.0, "name": "x"}, step)
    [(name, kept)] = history.series.items()
    assert name == "train/loss"
    assert 500 <= len(kept["steps"]) <= 1000
    assert kept["steps"] == [int(value) for value in kept["values"]]
    assert {later - earlier for earlier, later in zip(kept["steps"], kept["steps"][1:], strict=False)} == {128}
    again = MetricHistory()
    again.load(history.series)
    for each in (history, again):
        each.add({"train/loss": 0.0}, 100_000)
    assert again.series == history.series


def test_a_fit_that_ends_early_gives_the_loggers_back(make_trainer, loader):
    class Bad(Users):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("bad")

    trainer = make_trainer(max_epochs=1, callbacks=[LearningCurves()])
    with contextlib.suppress(RuntimeError):
        trainer.fit(Bad(), loader, loader)
    assert trainer.loggers == []
