import copy
import random
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from matplotlib.collections import PathCollection
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from datamodules import (
    DigitStringsDataModule,
    LinearDataModule,
    MNISTDataModule,
    PolynomialDataModule,
    SineDataModule,
    TensorDataModule,
    XORDataModule,
)
from zoo import (
    BinaryMLPClassifier,
    CNNClassifier,
    CRNNTranscriber,
    LinearRegressor,
    LSTMForecaster,
    MLPClassifier,
    MulticlassClassification,
    PerceptronClassifier,
    Regression,
    SoftmaxClassifier,
)
from zoo.callbacks import (
    CTCAlignment,
    DecisionBoundary,
    FirstLayerFilters,
    ForecastExamples,
    LeanLoop,
    RegressionFit,
    SampleGrid,
    WeightImages,
)

ALL = [CTCAlignment, DecisionBoundary, FirstLayerFilters, ForecastExamples, RegressionFit, SampleGrid, WeightImages]
DRAWING_TESTS = [CTCAlignment, DecisionBoundary, ForecastExamples, RegressionFit]


def line(axes, label):
    [found] = [each for each in axes.lines if each.get_label() == label]
    return found


def keeping(callback):
    """The callback, and the figures by name that it would publish."""
    figures = {}
    callback.publish = lambda trainer, name, figure: figures.update({name: figure})
    return callback, figures


@pytest.fixture
def tested(make_trainer):
    """The figures that callbacks make of a test."""

    def run(module, callback, data=None, **arguments):
        settings = {name: arguments.pop(name) for name in list(arguments) if name not in {"dataloaders"}}
        callback, figures = keeping(callback)
        make_trainer(callbacks=[callback], **settings).test(module, datamodule=data, verbose=False, **arguments)
        return figures

    return run


class Somebodys(LightningModule):
    """A module that owes nothing to this project: any network, called by ``forward``."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, *inputs):
        return self.network(*inputs)

    def training_step(self, batch, batch_idx):
        return self(batch[0]).square().mean()

    def test_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Batches:
    """A loader of these very batches."""

    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


def loader(*tensors, **settings):
    with warnings.catch_warnings():
        return DataLoader(TensorDataset(*tensors), **({"batch_size": 4} | settings))


# ---------------------------------------------------------------------- files


@pytest.mark.filterwarnings("ignore:The .* does not have many workers:UserWarning")
def test_every_callback_writes_its_picture_from_a_bare_trainer(make_trainer, tmp_path):
    images, labels = torch.rand(8, 1, 8, 8), torch.arange(8) % 3
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.LazyLinear(3))
    network(images)
    trainer = make_trainer(max_epochs=1, callbacks=[SampleGrid("mine"), FirstLayerFilters("mine", tmp_path / "else")])
    trainer.fit(Somebodys(network), loader(images, labels))
    trainer.test(trainer.lightning_module, loader(images, labels), verbose=False)
    for file in (tmp_path / "figures" / "samples.png", tmp_path / "else" / "first_layer_filters.png"):
        assert len(Image.open(file).convert("RGB").getcolors(100_000)) > 10


# ---------------------------------------------------------------------- boundaries


def test_the_boundary_of_a_perceptron_is_its_line(tested):
    task = PerceptronClassifier()
    with torch.no_grad():
        task.network.linear.weight.copy_(torch.tensor([[2.0, -1.0]]))
        task.network.linear.bias.fill_(-0.25)
    data = XORDataModule(200, noise=0.1, seed=0)
    axes = tested(task, DecisionBoundary("xor"), data)["decision_boundary"].axes[0]
    [contour] = [part for part in axes.collections if type(part).__name__ == "QuadContourSet"]
    vertices = np.concatenate([path.vertices for path in contour.get_paths()])
    np.testing.assert_allclose(vertices @ [2.0, -1.0], 0.25, atol=1e-5)
    x, y = data.splits.test.features.T
    right = ((2 * x - y - 0.25 > 0).long() == data.splits.test.targets).sum()
    assert axes.get_title() == f"accuracy {100 * right / 40:.2f} % of 40 test samples"


@pytest.mark.parametrize("leaf", [partial(BinaryMLPClassifier, threshold=0.3), partial(MLPClassifier, 2, 2)])
def test_standardized_features_are_drawn_in_their_own_units(tested, leaf):
    features = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)) * 50.0 + 1000.0
    data = TensorDataModule(features, torch.arange(60) % 2, batch_size=8, standardize=True, seed=0)
    axes = tested(leaf(hidden=[4]), DecisionBoundary(), data)["decision_boundary"].axes[0]
    drawn = np.concatenate([part.get_offsets() for part in axes.collections if isinstance(part, PathCollection)])
    for own in data.splits.test.features.numpy():
        assert np.isclose(drawn, own, rtol=1e-5).all(axis=1).any()
    low, high = axes.get_xlim()
    assert 800.0 < low < drawn[:, 0].min() < drawn[:, 0].max() < high < 1200.0


@pytest.mark.parametrize("classes", [1, 2, 3, 9])
@pytest.mark.parametrize("samples", [1, 6])
def test_any_number_of_logits_can_be_drawn(tested, classes, samples):
    features = torch.ones(samples, 2)  # all alike
    batches = loader(features, torch.zeros(samples, dtype=torch.int64))
    figures = tested(Somebodys(nn.Linear(2, classes)), DecisionBoundary(resolution=5), dataloaders=batches)
    assert list(figures) == ["decision_boundary"]


# ---------------------------------------------------------------------- regression


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("module", [LinearDataModule, partial(PolynomialDataModule, degree=3)])
def test_curve_truth_and_residuals_are_those_of_the_unscaled_data(tested, module, standardize):
    data = module(400, seed=3, standardize=standardize)
    task = LinearRegressor()
    above, below = tested(task, RegressionFit(), data)["regression_fit"].axes
    x, y = (part.double().numpy()[:, 0] for part in (data.splits.test.features, data.splits.test.targets))
    weight, bias = task.network.linear.weight.item(), task.network.linear.bias.item()
    mean, std = (data.mean.item(), data.std.item()) if standardize else (0.0, 1.0)

    def fitted(at):
        return (at - mean) / std * weight + bias

    np.testing.assert_allclose(below.collections[0].get_offsets(), np.stack([x, y - fitted(x)], axis=1), atol=1e-5)
    places, values = line(above, "fitted").get_xydata().T
    np.testing.assert_allclose([places[0], places[-1]], [x.min(), x.max()], atol=1e-5)
    np.testing.assert_allclose(values, fitted(places), atol=1e-5)
    truth = line(above, "true function").get_ydata()
    expected = data.coefficients if isinstance(data, PolynomialDataModule) else [data.bias, data.weight[0]]
    np.testing.assert_allclose(truth, np.polynomial.polynomial.polyval(places, expected), atol=1e-9)
    mse = np.square(y - fitted(x)).mean()
    assert above.get_title() == f"mean squared error {mse:.4g} of 80 test samples\n(variance of the noise: 0.25)"


def test_several_features_are_drawn_as_predicted_against_true(tested):
    data = LinearDataModule(100, num_features=3, seed=0)
    task = LinearRegressor(in_features=3)
    left, right = tested(task, RegressionFit(), data)["regression_fit"].axes
    with torch.no_grad():
        predicted = task(data.splits.test.features)[:, 0].numpy()
    true = data.splits.test.targets[:, 0].numpy()
    np.testing.assert_allclose(left.collections[0].get_offsets(), np.stack([true, predicted], axis=1), atol=1e-6)
    np.testing.assert_allclose(
        right.collections[0].get_offsets(), np.stack([predicted, true - predicted], axis=1), atol=1e-6
    )


def test_without_a_data_module_there_is_a_curve_but_no_truth(tested):
    batches = loader(torch.zeros(3, 1), torch.ones(3, 1))
    above, _ = tested(Somebodys(nn.Linear(1, 1)), RegressionFit(), dataloaders=batches)["regression_fit"].axes
    assert {each.get_label() for each in above.lines} == {"fitted"}


# ---------------------------------------------------------------------- series


@pytest.mark.parametrize("standardize", [False, True])
def test_forecasts_are_drawn_in_the_unit_of_the_targets(tested, standardize):
    data = SineDataModule(100, window=12, horizon=3, noise=0.1, standardize=standardize, eval_batch_size=4, seed=1)
    task = LSTMForecaster(horizon=3, hidden=4)
    figure = tested(task, ForecastExamples(max_samples=5), data)["forecasts"]
    axes = [part for part in figure.axes if part.lines]
    assert len(axes) == 5
    test = data.splits.test
    with torch.no_grad():
        inputs = (test.features - data.mean) / data.std if standardize else test.features
        predicted = task(inputs[:5])
    for index, each in enumerate(axes):
        series = np.concatenate([test.features[index, :, 0], test.targets[index]])
        np.testing.assert_allclose(line(each, "seen").get_ydata(), series[:12], atol=1e-5)
        np.testing.assert_allclose(line(each, "truth").get_ydata(), series[12:], atol=1e-5)
        np.testing.assert_allclose(line(each, "forecast").get_ydata(), predicted[index], atol=1e-5)
        without_noise = line(each, "without noise").get_ydata()
        assert 0.0 < np.abs(without_noise - series).max() < 0.5


# ---------------------------------------------------------------------- weights


def test_filters_are_the_weights_of_the_first_convolution(tested):
    task = CNNClassifier(channels=(5, 3), kernel_size=3)
    data = MNISTDataModule(dataset="digits", eval_batch_size=50)
    axes = tested(task, FirstLayerFilters(), data, limit_test_batches=1)["first_layer_filters"].axes
    weights = task.network.features[0].conv.weight.detach().numpy()
    drawn = np.stack([np.asarray(each.images[0].get_array()) for each in axes[:5]])
    np.testing.assert_array_equal(drawn, weights[:, 0].astype(float))


@pytest.mark.parametrize(("channels", "expected"), [(3, 70), (2, 70), (20, 70)])
def test_of_many_filters_and_channels_some_are_drawn(tested, channels, expected):
    network = nn.Sequential(nn.Conv2d(channels, expected, (3, 1)), nn.Flatten())
    batches = loader(torch.zeros(1, channels, 4, 4), torch.zeros(1))
    figure = tested(Somebodys(network), FirstLayerFilters(), dataloaders=batches)["first_layer_filters"]
    drawn = [np.asarray(each.images[0].get_array()).shape for each in figure.axes if each.images]
    assert drawn == [(3, 1, 3)] * 64 if channels == 3 else [(3, 1)] * 8 * min(channels, 8)
    assert "some of them" in figure.get_supxlabel()


def test_the_weights_of_a_linear_classifier_are_images(tested):
    task = SoftmaxClassifier()
    data = MNISTDataModule(dataset="digits", eval_batch_size=50)
    axes = tested(task, WeightImages(), data, limit_test_batches=1)["weight_images"].axes
    drawn = np.stack([np.asarray(each.images[0].get_array()) for each in axes[:10]])
    np.testing.assert_array_equal(drawn.reshape(10, 784), task.network.linear.weight.detach().double().numpy())
    assert axes[3].get_title() == "class 3"


# ---------------------------------------------------------------------- CTC


@pytest.fixture(scope="module")
def lines():
    return DigitStringsDataModule(
        dataset="digits", lines_per_epoch=8, val_lines=4, test_lines=4, batch_size=4, eval_batch_size=2, val_size=50
    )


def test_the_alignment_is_that_of_the_task(tested, lines):
    task = CRNNTranscriber(channels=(2, 2, 2), hidden=4)
    with torch.no_grad():
        task.network.recurrent.head.weight.mul_(30.0)  # something else than blanks
    figure = tested(task, CTCAlignment(max_samples=3), lines)["ctc_alignment"]
    above, below = figure.axes[0:6:2], figure.axes[1:6:2]
    images, labels = lines.splits.test.features, lines.splits.test.targets
    for index in range(3):
        width = int(images.lengths[index])
        image = (images.values[index : index + 1, :, :, :width] - lines.mean) / lines.std
        np.testing.assert_allclose(above[index].images[0].get_array(), image[0, 0], atol=1e-5)
        with torch.no_grad():
            log_probs = task(image).log_softmax(dim=2)
        np.testing.assert_allclose(below[index].images[0].get_array(), log_probs[0].exp().T, atol=1e-5)
        path = log_probs[0].argmax(dim=1)
        xs, ys = line(below[index], "greedy path").get_xydata().T
        np.testing.assert_array_equal(ys, path)
        np.testing.assert_array_equal(xs, 4 * np.arange(width // 4) + 2)
        [read] = task.predict_step(image).texts
        length = int(labels.lengths[index])
        truth = task.text(labels.values[index, :length].tolist())
        assert above[index].get_title(loc="left") == (
            f"truth “{truth}”, read “{read}”: {'right' if truth == read else 'wrong'}"
        )


def test_somebodys_transcriber_needs_an_alphabet_alone(tested):
    class Columns(nn.Module):
        def forward(self, images):
            return images.mean(dim=(1, 2))[:, :, None].expand(-1, -1, 3).contiguous()

    module = Somebodys(Columns())
    batch = (torch.rand(2, 3, 5, 6), (torch.tensor([[1, 2], [2, 0]]), torch.tensor([2, 0])))
    assert tested(module, CTCAlignment(), dataloaders=Batches(batch)) == {}
    module.alphabet = "xy"
    figure = tested(module, CTCAlignment(), dataloaders=Batches(batch))["ctc_alignment"]
    assert figure.axes[0].get_title(loc="left").startswith("truth “xy”, read ")
    assert figure.axes[2].get_title(loc="left").startswith("truth “”, read ")


# ---------------------------------------------------------------------- samples of the training


def test_the_first_training_batch_is_drawn_as_the_model_gets_it(make_trainer):
    data = MNISTDataModule(dataset="digits", batch_size=16, augment="affine", seed=0)
    callback, figures = keeping(SampleGrid(num_images=12))
    make_trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=0, callbacks=[callback]).fit(
        SoftmaxClassifier(), data
    )
    images, labels = next(iter(data.train_dataloader()))
    axes = figures["samples"].axes[:12]
    assert [each.get_title() for each in axes] == list(map(str, labels[:12].tolist()))
    for each, image in zip(axes, images, strict=False):
        np.testing.assert_array_equal(each.images[0].get_array(), image[0].double())


def test_lines_are_drawn_without_their_padding_and_with_their_text(make_trainer, lines):
    callback, figures = keeping(SampleGrid())
    task = CRNNTranscriber(channels=(2, 2, 2), hidden=4)
    make_trainer(max_epochs=1, limit_val_batches=0, callbacks=[callback]).fit(task, lines)
    loader = lines.train_dataloader()
    (_, widths), (labels, lengths) = next(iter(loader))
    for index, each in enumerate(figures["samples"].axes[:4]):
        assert each.images[0].get_array().shape == (28, int(widths[index]))
        assert each.get_title() == task.text(labels[index, : lengths[index]].tolist())


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.filterwarnings("ignore:The .* does not have many workers:UserWarning")
@pytest.mark.filterwarnings("ignore:You defined a `validation_step`:UserWarning")
@pytest.mark.parametrize("foreign", [False, True], ids=["own loader", "torch's loader"])
def test_a_run_is_the_same_to_the_bit_with_and_without_figures(make_trainer, tmp_path, foreign, lean):
    images, labels = torch.rand(24, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3

    def run(*figures):
        torch.manual_seed(5), random.seed(5), np.random.seed(5)  # noqa: NPY002  # the one that others draw from
        network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3))
        task = MulticlassClassification(network=network, num_classes=3)
        trainer = make_trainer(max_epochs=2, limit_val_batches=0, callbacks=[*figures, *([LeanLoop()] if lean else [])])
        own = TensorDataModule(images, labels, batch_size=4, augment=lambda x, g: x + torch.rand(1, generator=g))
        batches = {"train_dataloaders": loader(images, labels, shuffle=True)} if foreign else {"datamodule": own}
        trainer.fit(task, **batches)
        state = None if foreign else trainer.train_dataloader.state_dict()
        trainer.test(task, loader(images, labels), verbose=False)
        draws = torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
        return {name: value.clone() for name, value in task.state_dict().items()}, state, draws

    figures = [figure(directory=tmp_path) for figure in ALL]
    plain, drawn = run(), run(*figures)
    assert {file.name for file in tmp_path.glob("*.png")} == {"samples.png", "weight_images.png"}
    assert all(torch.equal(value, drawn[0][name]) for name, value in plain[0].items())
    assert plain[1] == drawn[1]
    assert torch.equal(plain[2][0], drawn[2][0])
    assert plain[2][1:] == drawn[2][1:]


def test_behind_the_first_batch_nothing_is_called(make_trainer, make_images):
    class Looks(SampleGrid):
        def on_train_batch_end(self, *args):
            hooks.append("on_train_batch_start" in vars(self))

    hooks = []
    callback, figures = keeping(Looks())
    task = SoftmaxClassifier()
    trainer = make_trainer(max_epochs=1, limit_val_batches=0, callbacks=[callback])
    trainer.fit(task, make_images())
    assert hooks == [False, False]
    assert list(figures) == ["samples"]
    trainer.fit_loop.max_epochs = 2
    trainer.fit(task, make_images())  # a second fit, a new picture
    assert hooks == [False] * 4


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        (torch.eye(3), ["0", "1", "2"]),
        (torch.rand(3, 4), [""] * 3),
        (torch.tensor([[0.5], [1.0], [-2.0]]), ["0.5", "1", "-2"]),
        (torch.tensor([True, False, True]), ["1", "0", "1"]),
    ],
)
@pytest.mark.filterwarnings("ignore:The .* does not have many workers:UserWarning")
def test_targets_of_other_kinds_are_named(make_trainer, targets, names):
    callback, figures = keeping(SampleGrid())
    images = torch.zeros(3, 3, 2, 5, dtype=torch.float32)
    images[0, 0, 0, 0] = torch.nan
    module = Somebodys(nn.Sequential(nn.Flatten(), nn.Linear(30, 1)))
    make_trainer(max_epochs=1, callbacks=[callback]).fit(module, loader(images, targets))
    assert [axes.get_title() for axes in figures["samples"].axes[:3]] == names


# ---------------------------------------------------------------------- what does not fit


ODD = {
    "three features": (torch.zeros(3, 3), torch.zeros(3, dtype=torch.int64)),
    "nothing to tell by": (torch.zeros(3, 2), torch.zeros(3, 2, 2, dtype=torch.int64)),
    "a dict": {"x": torch.zeros(3, 2), "y": torch.zeros(3)},
    "inputs alone": torch.zeros(2, 2),
    "three parts": (torch.zeros(3, 2), torch.zeros(3), torch.zeros(3)),
    "unequal lengths": (torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64)),
    "no samples": (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)),
    "strings": (["a", "b"], ["a", "b"]),
    "numbers": (torch.tensor(1.0), torch.tensor(1)),
    "complex": (torch.zeros(3, 2, dtype=torch.complex64), torch.zeros(3, dtype=torch.int64)),
    "broken": (torch.full((3, 2), torch.nan), torch.zeros(3, dtype=torch.int64)),
    "broken, to regress": (torch.full((3, 2), torch.nan), torch.zeros(3, 1)),
    "broken series": (torch.full((3, 2, 1), torch.nan), torch.zeros(3, 1)),
}


@pytest.mark.parametrize("batch", ODD.values(), ids=ODD)
def test_of_other_batches_nothing_is_drawn(make_trainer, batch):
    class Anything(Somebodys):
        def forward(self, *inputs):
            return inputs[0].new_zeros(len(inputs[0]), 1)

        def training_step(self, batch, batch_idx):
            return self.network.weight.sum()

    module, pairs = Anything(nn.Linear(2, 1)), [keeping(figure()) for figure in ALL]
    trainer = make_trainer(max_epochs=1, callbacks=[callback for callback, _ in pairs])
    trainer.fit(module, Batches(batch))
    trainer.test(module, Batches(batch), verbose=False)
    assert all(figures == {} for _, figures in pairs)


@pytest.mark.parametrize("outputs", ["a tuple", "NaN", "other shape", "fewer"])
@pytest.mark.parametrize("inputs", [(4, 2), (4, 1), (4, 5, 1), (4, 1, 6, 6)], ids=str)
def test_of_other_outputs_nothing_is_drawn(make_trainer, outputs, inputs):
    class Odd(Somebodys):
        alphabet = "ab"

        def forward(self, x):
            return {
                "a tuple": (x, x),
                "NaN": x.new_full((len(x), 1), torch.nan),
                "other shape": x.new_zeros(len(x), 7, 2, 2, 2),
                "fewer": x.new_zeros(1),
            }[outputs]

    labels = torch.zeros(4, 1) if len(inputs) != 4 else (torch.ones(4, 1, dtype=torch.int64), torch.ones(4).long())
    kinds = [labels, torch.zeros(4, dtype=torch.int64)]
    for targets in kinds:
        pairs = [keeping(figure()) for figure in DRAWING_TESTS]
        trainer = make_trainer(callbacks=[callback for callback, _ in pairs])
        trainer.test(Odd(nn.Linear(1, 1)), Batches((torch.zeros(inputs), targets)), verbose=False)
        assert all(figures == {} for _, figures in pairs)


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Conv1d(16, 2, 1), nn.Flatten(), nn.Linear(16, 2)),
        nn.Sequential(nn.Flatten(), nn.LazyLinear(2)),
        nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(5), nn.Linear(5, 2)),
    ],
    ids=["convolution", "lazy", "not of pixels"],
)
def test_of_weights_that_are_no_images_nothing_is_drawn(tested, network):
    class Untouched(Somebodys):
        def forward(self, *inputs):
            raise AssertionError

    batch = (torch.zeros(2, 1, 4, 4), torch.zeros(2))
    assert tested(Untouched(network), WeightImages(), dataloaders=Batches(batch)) == {}
    assert tested(Untouched(network), FirstLayerFilters(), dataloaders=Batches(batch)) == {}


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
def test_numbers_that_are_none_are_refused(value):
    for make in (
        *(partial(figure, max_samples=value) for figure in DRAWING_TESTS),
        partial(SampleGrid, num_images=value),
    ):
        with pytest.raises(ValueError, match="must be a whole number of at least 1, got"):
            make()
    with pytest.raises(ValueError, match="resolution must be a whole number of at least 2"):
        DecisionBoundary(resolution=value)


# ---------------------------------------------------------------------- what is left as it was


class Draws(nn.Module):
    """Draws a random number at each call, and notes its mode."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm, self.modes = nn.Linear(2, 1), nn.BatchNorm1d(2), []

    def forward(self, x):
        self.modes.append((self.training, self.norm.training, torch.is_grad_enabled()))
        return self.layer(self.norm(x)) + 0.0 * torch.rand(())


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed", "bf16-true"])
def test_modes_weights_precision_and_random_numbers_are_left_alone(make_trainer, precision):
    module = Somebodys(Draws())
    module.network.norm.eval()  # frozen, while the rest trains
    before = copy.deepcopy(module.state_dict())
    figures = [keeping(figure()) for figure in (DecisionBoundary, RegressionFit)]
    trainer = make_trainer(callbacks=[callback for callback, _ in figures], precision=precision)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    trainer.test(
        module,
        Batches((torch.randn(4, 2, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 0, 1]))),
        verbose=False,
    )
    assert torch.equal(torch.rand(2), expected)
    assert [list(each) for _, each in figures] == [["decision_boundary"], []]
    assert module.training
    assert module.network.training
    assert not module.network.norm.training
    assert set(module.network.modes) == {(False, False, False)}
    for name, value in module.state_dict().items():
        assert torch.equal(value.to(before[name].dtype), before[name].to(value.dtype).to(before[name].dtype))


def test_nothing_is_kept_behind_a_test_or_one_that_broke_off(make_trainer):
    class Breaks(Somebodys):
        def test_step(self, batch, batch_idx):
            if batch_idx == self.last:
                raise RuntimeError("broken off")

    module, callback = Breaks(nn.Linear(2, 1)), DecisionBoundary(resolution=2)
    batches = Batches(*[(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))] * 3)
    callback, figures = keeping(callback)
    module.last = 1
    with pytest.raises(RuntimeError, match="broken off"):
        make_trainer(callbacks=[callback]).test(module, batches, verbose=False)
    assert callback._kept == []
    assert figures == {}
    module.last = None
    make_trainer(callbacks=[callback]).test(module, batches, verbose=False)
    assert figures["decision_boundary"].axes[0].get_title().endswith("of 12 test samples")
    assert callback._kept == []


def test_no_more_samples_are_kept_than_asked_for_and_of_the_first_loader_alone(make_trainer):
    callback, figures = keeping(DecisionBoundary(max_samples=6, resolution=2))
    module = Somebodys(nn.Linear(2, 1))
    module.test_step = lambda batch, batch_idx, dataloader_idx=0: None
    batch = (torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))
    one, three = Batches(batch), Batches(batch, batch, batch)
    make_trainer(callbacks=[callback]).test(module, [one, three], verbose=False)
    assert figures["decision_boundary"].axes[0].get_title().endswith("of 4 test samples")
    make_trainer(callbacks=[callback]).test(module, [three, one], verbose=False)
    assert figures["decision_boundary"].axes[0].get_title().endswith("of 6 test samples")


def test_regression_takes_padded_inputs(tested):
    class Last(nn.Module):
        def forward(self, values, lengths):
            return values[torch.arange(len(values)), lengths - 1]

    values, lengths = torch.arange(6.0).reshape(2, 3, 1), torch.tensor([2, 3])
    batch = ((values, lengths), torch.tensor([[1.5], [5.0]]))
    left, _ = tested(Somebodys(Last()), RegressionFit(), dataloaders=Batches(batch))["regression_fit"].axes
    np.testing.assert_array_equal(left.collections[0].get_offsets(), [[1.5, 1.0], [5.0, 5.0]])


def test_a_regression_of_pictures_is_predicted_against_true(tested):
    task = Regression(network=nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    batch = (torch.rand(3, 1, 2, 2), torch.rand(3, 2))
    left, _ = tested(task, RegressionFit(), dataloaders=Batches(batch))["regression_fit"].axes
    assert left.collections[0].get_offsets().shape == (6, 2)
