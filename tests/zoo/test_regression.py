import functools
import math

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import nn
from torchmetrics import PearsonCorrCoef

from datamodules import BatchLoader, TensorDataModule
from zoo import LinearRegressor, LinearRegressorFromScratch, MLPRegressor, PolynomialRegressor, Regression, TargetError


def of_arrays(score):
    """Older releases of scikit-learn take no tensors."""
    return lambda *values, **settings: score(*map(np.asarray, values), **settings)


mean_absolute_error, mean_squared_error, r2_score = map(
    of_arrays, [metrics.mean_absolute_error, metrics.mean_squared_error, metrics.r2_score]
)


LBFGS = functools.partial(torch.optim.LBFGS, line_search_fn="strong_wolfe")
OUTPUTS = [[1.0, -2.0], [0.5, 4.0], [-3.0, 0.25]]
TARGETS = [[0.0, -2.5], [0.5, -1.0], [-2.9, 1.25]]


def on_values(**arguments):
    """A task whose inputs are its outputs."""
    return Regression(network=nn.Identity(), **arguments)


def validate(trainer, outputs, targets, **arguments):
    """The metrics over batches of 4 and what is left of them."""
    loader = BatchLoader(outputs, targets, batch_size=4)
    result = trainer.validate(on_values(**arguments), loader, verbose=False)[0]
    return {name.removeprefix("val/"): value for name, value in result.items()}


def plane(size=64, out_features=1):
    """Targets that are linear in three features, with their coefficients."""
    features = torch.randn(size, 3)
    weight, bias = torch.tensor([[2.0, -3.0, 0.5], [0.0, 1.0, -1.0]])[:out_features], torch.tensor([1.5, -4.0])
    return features, features @ weight.T + bias[:out_features], weight, bias[:out_features]


# ---------------------------------------------------------------------- the loss


def huber(residual, delta):
    return 0.5 * residual**2 if abs(residual) <= delta else delta * (abs(residual) - 0.5 * delta)


BY_HAND = {
    "mse": lambda residual, delta: residual**2,
    "l1": lambda residual, delta: abs(residual),
    "huber": huber,
}


@pytest.mark.parametrize("loss", BY_HAND)
@pytest.mark.parametrize("delta", [1.0, 0.1, 2.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_loss_is_that_by_hand(loss, delta, dtype):
    outputs, targets = torch.tensor(OUTPUTS, requires_grad=True), torch.tensor(TARGETS).to(dtype)
    residuals = [o - t for o, t in zip(outputs.flatten().tolist(), targets.flatten().tolist(), strict=True)]
    computed = on_values(loss=loss, huber_delta=delta).compute_loss(outputs, targets)
    assert computed.dtype == torch.float32
    assert computed.item() == pytest.approx(sum(BY_HAND[loss](r, delta) for r in residuals) / 6, rel=1e-6)
    computed.backward()  # whatever the targets' type
    assert torch.isfinite(outputs.grad).all()


@pytest.mark.parametrize("loss", BY_HAND)
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "32-true", "64-true"])
def test_every_loss_trains_at_any_precision(make_trainer, loss, precision):
    features, targets, *_ = plane()
    task = LinearRegressor(3, loss=loss, optimizer=functools.partial(torch.optim.SGD, lr=0.05))
    trainer = make_trainer(max_epochs=3, precision=precision)
    trainer.fit(task, TensorDataModule(features, targets, batch_size=4, seed=0))
    logged = trainer.callback_metrics
    assert all(torch.finfo(value.dtype).bits >= 32 for value in logged.values())
    assert logged["train/loss"] < logged["train/loss_epoch"] * 2
    assert logged["val/r2"] > 0.1


def test_one_batch_can_be_overfitted(make_trainer, list_logger):
    task = MLPRegressor(4, (32,), 2, optimizer=functools.partial(torch.optim.Adam, lr=1e-2))
    one = BatchLoader(torch.randn(8, 4), torch.randn(8, 2), batch_size=8)
    make_trainer(max_epochs=200, logger=list_logger, check_val_every_n_epoch=100).fit(task, one, one)
    assert list_logger.values("train/loss")[0] > 0.5
    assert list_logger.values("val/mse")[199] < 1e-3
    assert list_logger.values("val/r2")[199] > 0.999


# ---------------------------------------------------------------------- coefficients


@pytest.mark.parametrize("out_features", [1, 2])
@pytest.mark.parametrize("leaf", [LinearRegressor, LinearRegressorFromScratch])
def test_known_coefficients_are_recovered(make_trainer, leaf, out_features):
    features, targets, weight, bias = plane(out_features=out_features)
    given = {} if leaf is LinearRegressorFromScratch else {"optimizer": functools.partial(torch.optim.SGD, lr=0.1)}
    task = leaf(3, out_features, **given)
    trainer = make_trainer(max_epochs=40)
    data = TensorDataModule(features, targets, batch_size=8, seed=0)
    trainer.fit(task, data)
    torch.testing.assert_close(task.network.linear.weight.detach(), weight, atol=1e-3, rtol=0)
    torch.testing.assert_close(task.network.linear.bias.detach(), bias, atol=1e-3, rtol=0)
    assert trainer.test(task, data, verbose=False)[0]["test/r2"] > 0.99999


def test_the_coefficients_of_a_polynomial_are_recovered(make_trainer):
    inputs = torch.linspace(-2.0, 3.0, 50)[:, None]
    targets = 0.5 - 2.0 * inputs + 0.25 * inputs**3
    task = PolynomialRegressor(degree=4, domain=(-2.0, 3.0), optimizer=LBFGS)
    loader = BatchLoader(inputs, targets, batch_size=50)
    make_trainer(max_epochs=5).fit(task, loader, loader)
    constants, powers = task.network.coefficients()
    assert constants.tolist() == pytest.approx([0.5], abs=1e-3)
    assert powers.flatten().tolist() == pytest.approx([-2.0, 0.0, 0.25, 0.0], abs=1e-3)


def test_l1_and_huber_are_not_pulled_by_an_outlier(make_trainer):
    features, targets, weight, _ = plane()
    targets[7] += 1000.0
    loader, off = BatchLoader(features, targets, batch_size=64), {}
    for loss in BY_HAND:
        task = LinearRegressor(3, loss=loss, optimizer=functools.partial(LBFGS, max_iter=100))
        make_trainer(max_epochs=10).fit(task, loader, loader)
        off[loss] = (task.network.linear.weight - weight).abs().max().item()
    assert off["mse"] > 1.0
    assert off["huber"] < 0.1
    assert off["l1"] < 0.1


# ---------------------------------------------------------------------- metrics


@pytest.mark.parametrize("shape", [(41,), (41, 1), (41, 3), (2, 2), (9, 2, 2)])
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-4, 0.0), (1e6, 0.0), (1.0, 1e5), (1e-6, 3e-6)])
def test_the_metrics_are_those_of_scikit_learn(make_trainer, shape, scale, offset):
    # A mean of 1e5 spreads would leave nothing of R² in 32 bits; below 1e-4 torchmetrics' own is always 1.
    targets = torch.randn(shape) * scale + offset
    outputs = targets + 0.5 * torch.randn(shape) * scale
    flat = [values.reshape(len(values), -1).double().numpy() for values in (targets, outputs)]
    assert validate(make_trainer(), outputs, targets) == pytest.approx(
        {
            "loss": mean_squared_error(*flat),
            "mse": mean_squared_error(*flat),
            "mae": mean_absolute_error(*flat),
            "r2": r2_score(*flat),
        },
        rel=1e-4,
    )


@pytest.mark.parametrize("loss", BY_HAND)
def test_the_metrics_do_not_depend_on_the_loss(make_trainer, loss):
    result = validate(make_trainer(), torch.tensor(OUTPUTS), torch.tensor(TARGETS), loss=loss)
    assert (result["mse"], result["mae"], result["r2"]) == pytest.approx(
        (mean_squared_error(TARGETS, OUTPUTS), mean_absolute_error(TARGETS, OUTPUTS), r2_score(TARGETS, OUTPUTS))
    )


def test_a_single_sample_has_no_r2(make_trainer):
    result = validate(make_trainer(), torch.ones(1, 1), torch.zeros(1, 1))
    assert math.isnan(result.pop("r2"))
    assert result == {"loss": 1.0, "mse": 1.0, "mae": 1.0}


@pytest.mark.parametrize("value", [0.0, 0.1, 12345.678, -1e-20])
def test_targets_that_are_all_alike_are_hit_or_missed(make_trainer, value):
    targets = torch.full((11, 1), value)
    assert validate(make_trainer(), targets, targets)["r2"] == 1.0
    assert validate(make_trainer(), targets + 1.0, targets)["r2"] == 0.0
    half = torch.cat([targets, torch.arange(11.0)[:, None]], dim=1)
    assert validate(make_trainer(), half, half)["r2"] == 1.0


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_many_errors_are_added_up_without_rounding(make_trainer, precision):
    targets = torch.randn(1003, 1).bfloat16().float()
    outputs = (targets + torch.randn(1003, 1)).bfloat16().float()
    loader = BatchLoader(outputs, targets, batch_size=10)
    result = make_trainer(precision=precision).validate(on_values(), loader, verbose=False)[0]
    assert result["val/mse"] == pytest.approx(mean_squared_error(targets, outputs), rel=1e-4)
    assert result["val/mae"] == pytest.approx(mean_absolute_error(targets, outputs), rel=1e-4)
    assert result["val/r2"] == pytest.approx(r2_score(targets, outputs), abs=1e-4)


def test_a_metric_of_ones_own_is_logged_beside_the_others(make_trainer):
    outputs, targets = torch.randn(10, 1), torch.randn(10, 1)
    result = validate(make_trainer(), outputs, targets, metrics={"pearson": PearsonCorrCoef()})
    assert set(result) == {"loss", "mse", "mae", "r2", "pearson"}
    assert result["pearson"] == pytest.approx(np.corrcoef(outputs[:, 0], targets[:, 0])[0, 1], rel=1e-4)


def test_predictions_are_the_values(make_trainer):
    task = LinearRegressor(3, 2)
    features, targets, *_ = plane(10, 2)
    predictions = make_trainer(precision="bf16-mixed").predict(task, BatchLoader(features, targets, batch_size=4))
    assert [values.shape for values in predictions] == [(4, 2), (4, 2), (2, 2)]
    assert {values.dtype for values in predictions} == {torch.float32}
    torch.testing.assert_close(torch.cat(predictions), task(features), atol=0.05, rtol=0.05)
    assert torch.equal(task.predict_step(features), task.predict_step((features, targets)))


# ---------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        ((4, 1), (4,), r"outputs, \(4, 1\), got \(4,\): reshape them with targets\.reshape\(-1, 1\) "),
        ((4,), (4, 1), r"outputs, \(4,\), got \(4, 1\): reshape them with targets\.reshape\(-1\) "),
        ((4, 1), (1, 4), r"outputs, \(4, 1\), got \(1, 4\): reshape"),
        ((3, 2), (2, 3), r"outputs, \(3, 2\), got \(2, 3\): reshape"),
        ((4, 2), (4, 1), r"outputs, \(4, 2\), got \(4, 1\) "),
        ((4, 2), (4,), r"outputs, \(4, 2\), got \(4,\) "),
        ((4, 1), (3, 1), r"outputs, \(4, 1\), got \(3, 1\) "),
        ((4, 1), (), r"outputs, \(4, 1\), got \(\) "),
    ],
)
@pytest.mark.parametrize("loss", BY_HAND)
def test_targets_that_would_be_broadcast_are_refused(outputs, targets, message, loss):
    with pytest.raises(TargetError, match=message):
        on_values(loss=loss).validation_step((torch.zeros(outputs), torch.zeros(targets)), 0)


def test_the_advice_about_the_shape_is_right():
    task, targets = on_values(), torch.arange(4.0)
    task.check_targets(torch.zeros(4, 1), targets.reshape(-1, 1))
    task.check_targets(torch.zeros(4), targets[:, None].reshape(-1))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool, torch.uint8, torch.complex64])
def test_targets_that_are_no_real_numbers_are_refused(dtype):
    message = f"targets must be floating-point numbers, got {str(dtype).removeprefix('torch.')}: convert them"
    with pytest.raises(TargetError, match=message):
        on_values().validation_step((torch.zeros(4, 1), torch.zeros(4, 1, dtype=dtype)), 0)


@pytest.mark.parametrize(
    "targets", [torch.arange(40) % 4, torch.arange(40)[:, None], np.arange(40, dtype=np.int16) % 4]
)
def test_integers_from_a_data_module_are_refused_in_training(make_trainer, targets):
    with pytest.raises(TargetError, match=r"got int64: convert them with targets\.float\(\)"):
        make_trainer(max_epochs=1).fit(LinearRegressor(3), TensorDataModule(torch.randn(40, 3), targets, batch_size=4))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"loss": "hubr"}, ValueError, "loss must be one of 'mse', 'huber', 'l1', got 'hubr'; did you mean 'huber'"),
        ({"loss": "MSE"}, ValueError, "loss must be one of 'mse', 'huber', 'l1', got 'MSE'"),
        ({"loss": None}, ValueError, "got None"),
        ({"loss": ["mse"]}, ValueError, "loss must be one of"),
        ({"loss": nn.MSELoss()}, ValueError, "loss must be one of"),
        ({"huber_delta": 0.0}, ValueError, "huber_delta must be a positive number, got 0.0"),
        ({"huber_delta": -1}, ValueError, "huber_delta must be a positive number, got -1"),
        ({"huber_delta": math.nan}, ValueError, "huber_delta must be a positive number, got nan"),
        ({"huber_delta": math.inf}, ValueError, "huber_delta must be a positive number, got inf"),
        ({"huber_delta": np.float64(1.0)}, TypeError, "hyperparameter 'huber_delta' holds a numpy.float64"),
        ({"network": "linear"}, TypeError, "network must be a torch.nn.Module, got str"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Regression(**({"network": nn.Linear(3, 1)} | arguments))
