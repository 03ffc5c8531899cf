"""The regression of the latency model: Bayesian ridge in groups of features, Student's t noise, and held-out errors.

`robust_fit` finds the hyperparameters of the highest evidence and the weights; `held_out` repeats it without each net.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

COVERAGE = 0.90
# Log-normal priors: of a group's width (e^-2.5 = 8 % of the mean latency, within a factor 20), of the relative noise.
_LOG_WIDTH, _LOG_WIDTH_SD = -2.5, 3.0
_LOG_NOISE, _LOG_NOISE_SD = -4.0, 1.5
# Degrees of freedom of the noise: slow outliers are common on devices, and one must not bend the fit.
TAIL = 4.0
_ROBUST_SWEEPS = 4
# Leave-one-out up to so many nets, tenfold cross-validation for more.
FOLDS = 10


def column_groups(groups: Sequence[str]) -> NDArray[np.int64]:
    """Number the groups of the columns in order of appearance; the intercept comes first with -1."""
    names = list(dict.fromkeys(groups))
    return np.array([-1, *(names.index(group) for group in groups)])


def precisions(widths: Floats, width_of: NDArray[np.int64]) -> Floats:
    """Give each weight's prior precision: 1 for the intercept (latency is relative to its mean), 1/width^2 else."""
    size = np.bincount(width_of[1:])
    share = widths[width_of[1:]] ** 2 / size[width_of[1:]]
    return np.concatenate([[1.0], 1.0 / share])


def robust_fit(
    design: Floats, target: Floats, width_of: NDArray[np.int64], label_noise: Floats | None = None
) -> tuple[Floats, Floats, float]:
    """Alternate hyperparameters and weights under Student's t noise; returns weights, covariance, relative noise.

    `label_noise` is each label's known relative standard error; the noise that is found comes on top of it.
    """
    trust, log_parameters = np.ones(len(target)), None
    for _ in range(_ROBUST_SWEEPS):
        log_parameters = most_evident(design, target, trust, width_of, log_parameters, label_noise)
        noise = float(np.exp(log_parameters[-1]))
        precision = precisions(np.exp(log_parameters[:-1]), width_of)
        weights, covariance, trust = solve(design, target, noise, precision, trust, label_noise)
    return weights, covariance, noise


def most_evident(
    design: Floats,
    target: Floats,
    trust: Floats,
    width_of: NDArray[np.int64],
    start: Floats | None,
    label_noise: Floats | None = None,
) -> Floats:
    """Find the logs of the groups' prior widths and of the relative noise of the highest evidence.

    Type-II maximum a posteriori, searched from `start` (the sweep before) where there is one.
    """
    from scipy.optimize import minimize

    num_groups = int(width_of.max()) + 1
    known_variance = label_variance(target, label_noise)

    def cost(log_parameters: Floats) -> tuple[float, Floats]:
        """Give minus the log evidence with its priors, but for constants, and its gradient."""
        log_widths, log_noise = log_parameters[:-1], log_parameters[-1]
        precision = precisions(np.exp(log_widths), width_of)
        own = (np.exp(log_noise) * target) ** 2 / trust
        noise = own + known_variance
        covariance = np.linalg.inv(design.T @ (design / noise[:, None]) + np.diag(precision))
        weights = covariance @ (design.T @ (target / noise))
        misfit = float(((target - design @ weights) ** 2 / noise).sum() + precision @ weights**2)
        log_volume = -float(np.linalg.slogdet(covariance)[1] + np.log(precision).sum() - np.log(noise).sum())
        offset = np.append((log_widths - _LOG_WIDTH) / _LOG_WIDTH_SD, (log_noise - _LOG_NOISE) / _LOG_NOISE_SD)
        # Weights minimise the misfit, so only what stands in it directly changes it to first order.
        known = precision * (weights**2 + np.diag(covariance))
        slope = offset / np.append(np.full(num_groups, _LOG_WIDTH_SD), _LOG_NOISE_SD)
        slope[:-1] += np.bincount(width_of[1:], 1 - known[1:], num_groups)
        seen = np.einsum("ij,jk,ik->i", design, covariance, design) / noise
        slope[-1] += float((own / noise) @ (1 - seen - (target - design @ weights) ** 2 / noise))
        return 0.5 * (misfit + log_volume + float(offset @ offset)), slope

    if start is None:
        start = np.array([_LOG_WIDTH] * num_groups + [_LOG_NOISE + 1])
    bounds = [(-9.0, 3.0)] * num_groups + [(-7.0, 0.0)]
    found = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200})
    return np.asarray(found.x, dtype=np.float64)


def label_variance(target: Floats, label_noise: Floats | None) -> Floats:
    """Give the variance that labels have by the spread of their repeats, 0 where there were none."""
    return np.zeros(len(target)) if label_noise is None else (label_noise * target) ** 2


def solve(
    design: Floats,
    target: Floats,
    noise: float,
    precision: Floats,
    trust: Floats,
    label_noise: Floats | None = None,
) -> tuple[Floats, Floats, Floats]:
    """Fit the weights under Student's t noise, relative to the target; returns weights, covariance and trusts.

    Student's t is a mixture of Gaussians: a net's trust is the expected precision of its own (the E step of EM).
    """
    known = label_variance(target, label_noise)
    variance = (noise * target) ** 2 / trust + known
    covariance = np.asarray(np.linalg.inv(design.T @ (design / variance[:, None]) + np.diag(precision)))
    weights = covariance @ (design.T @ (target / variance))
    scores = (target - design @ weights) / np.sqrt((noise * target) ** 2 + known)
    return weights, covariance, (TAIL + 1) / (TAIL + scores**2)


def held_out(
    design: Floats,
    target: Floats,
    width_of: NDArray[np.int64],
    architectures: NDArray[np.int64] | None = None,
    label_noise: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Predict each net by a fit on others, hyperparameters included: relative errors, errors in predicted deviations.

    Nets of one number in `architectures` are held out together. Only the centres and scales of the features, which do
    not depend on latency, are those of all nets.
    """
    errors, scores = np.empty(len(target)), np.empty(len(target))
    # Nets come in order of choice, the extremes first: spread them.
    fold = (np.arange(len(target)) if architectures is None else architectures) % FOLDS
    known = np.zeros(len(target)) if label_noise is None else label_noise
    for out in range(fold.max() + 1):
        rest, left = fold != out, fold == out
        weights, covariance, noise = robust_fit(design[rest], target[rest], width_of, known[rest])
        mean = np.maximum(design[left] @ weights, 1e-6)
        variance = np.einsum("ij,jk,ik->i", design[left], covariance, design[left]) + (noise * mean) ** 2
        errors[left] = np.abs(target[left] - mean) / target[left]
        scores[left] = np.abs(target[left] - mean) / np.sqrt(variance)
    return errors, scores


def stretch(scores: Floats) -> float:
    """Give the interval's half-width in deviations: the conformal quantile of held-out scores.

    Of fewer than nine nets there is none at 90 %; the largest score stands for it.
    """
    rank = min(len(scores), math.ceil((len(scores) + 1) * COVERAGE))
    return float(np.sort(scores)[rank - 1])


def quantile(coverage: float) -> float:
    """Give the half-width of a central interval of the noise's own distribution, Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(TAIL, (1 + coverage) / 2))
