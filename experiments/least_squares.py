"""Closed-form least squares, which what was learnt by gradient descent is held against; in 64 bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from datamodules import InMemoryDataModule, PolynomialDataModule, Split
from datamodules.base import Standardize
from datamodules.padded import dense
from experiments.claims import Claim
from zoo import Task

LEAST_SQUARES_CLAIMS = (
    Claim("test/mse", lambda limit: max(1.05 * limit, 1e-6), "noise_variance", "the variance of the noise", mode="min"),
    Claim("weight_error", 1e-3, mode="min"),
    Claim("bias_error", 1e-3, mode="min"),
)
POLYNOMIAL_CLAIMS = (
    LEAST_SQUARES_CLAIMS[0],
    Claim("prediction_error", 1e-2, mode="min"),
)


def linear_errors(task: Task, data: InMemoryDataModule) -> dict[str, float]:
    """By how much weight and bias of a ``zoo.networks.Linear`` differ from least squares on the training split.

    Returns:
        ``weight_error``, the largest over the weights, and ``bias_error``.
    """
    features, targets = _arrays(_as_seen(data.splits.train, data))
    design = np.column_stack([features, np.ones(len(features))])
    solution = np.linalg.lstsq(design, targets, rcond=None)[0]
    weight, bias = (parameter.detach().double().cpu().numpy() for parameter in task.network.parameters())
    return {
        "weight_error": float(np.abs(weight.T - solution[:-1]).max()),
        "bias_error": float(np.abs(bias - solution[-1]).max()),
    }


def polynomial_error(task: Task, data: PolynomialDataModule) -> dict[str, float]:
    """By how much predictions on the test split differ from those of polynomial least squares on the training split.

    Returns:
        ``prediction_error``, the largest difference, over the standard deviation of the training targets.
    """
    features, targets = _arrays(data.splits.train)
    # A basis that is well conditioned on the domain; the solution is that of plain powers.
    solution = np.polynomial.Legendre.fit(features[:, 0], targets[:, 0], data.degree, domain=[data.low, data.high])
    test = data.splits.test
    expected = solution(dense(test.features)[:, 0].double().numpy())
    with torch.no_grad():
        predicted = task.eval()(dense(_as_seen(test, data).features).to(task.device))[:, 0].double().cpu().numpy()
    return {"prediction_error": float(np.abs(predicted - expected).max() / targets.std())}


def _as_seen(split: Split, data: InMemoryDataModule) -> Split:
    """A split as the network sees it: the splits themselves are unscaled."""
    if data.mean is None or data.std is None:
        return split
    return Split(Standardize(data.mean, data.std)(dense(split.features)), split.targets)


def _arrays(split: Split) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return dense(split.features).double().cpu().numpy(), dense(split.targets).double().cpu().numpy()
