"""The regression of a transferred latency model: what other devices' models predict is its prior (`log_fit`).

In logs a new device is taken to be like one of the sources, or like their mean, but for a factor; how far its slopes on
the sources may lie from that, how much of the counts' own it may have beside, and the noise, are unknown. They are
averaged over a grid by their evidence, so that nothing is tuned: ten networks settle a factor, and more of them let
the counts speak. Noise is Student's t, as in `evidence.py`.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from .evidence import FOLDS, TAIL, Floats

# Standard deviations: of the slopes around the device that the new one is like, of all counts together (in log
# latency: 0.1 is 10 %), of a network's noise. From what does not matter to what ten networks would see.
_SLOPES = (0.01, 0.03, 0.1, 0.3)
_COUNTS = (0.0, 0.01, 0.03, 0.1)
_NOISES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
_SWEEPS = 5


def log_fit(
    design: Floats, target: Floats, num_sources: int, label_noise: Floats | None = None
) -> tuple[Floats, Floats, float]:
    """Fit log latencies: returns weights, covariance and the noise's standard deviation, averaged over the grid.

    `design` is `(nets, 1 + num_sources + counts)`: ones, the sources' log predictions about their means, and counts of
    about unit variance. label_noise: each label's known standard error.
    """
    grid = list(itertools.product(range(_num_centres(num_sources)), _SLOPES, _COUNTS, _NOISES))
    centre = np.array([_centre(which, num_sources, design.shape[1], float(target.mean())) for which, *_ in grid])
    width = np.array([_widths(slope, counts, num_sources, design.shape[1]) for _, slope, counts, _ in grid])
    noise = np.array([one[-1] for one in grid])
    known = np.zeros(len(target)) if label_noise is None else label_noise
    residual = target - centre @ design.T  # (grid, nets)
    trust = np.ones_like(residual)
    for _ in range(_SWEEPS):
        *_, step = _posterior(design, residual, width, noise[:, None] ** 2 / trust + known**2)
        scores = (target - (centre + width * step) @ design.T) ** 2 / (noise[:, None] ** 2 + known**2)
        trust = (TAIL + 1) / (TAIL + scores)
    variance = noise[:, None] ** 2 / trust + known**2
    precision, pull, step = _posterior(design, residual, width, variance)
    misfit = (residual**2 / variance).sum(axis=1) - (pull * step).sum(axis=1)
    volume = np.linalg.slogdet(precision)[1] + np.log(variance).sum(axis=1)
    tails = ((TAIL / 2 - 1) * np.log(trust) - TAIL / 2 * trust).sum(axis=1)
    evidence = tails - 0.5 * (misfit + volume)
    share = np.exp(evidence - evidence.max())
    share /= share.sum()
    weights = centre + width * step
    mean = share @ weights
    apart = weights - mean
    inner = np.linalg.inv(precision) * width[:, :, None] * width[:, None]
    covariance = np.einsum("g,gij->ij", share, inner) + (share[:, None] * apart).T @ apart
    return mean, covariance, float(np.sqrt(share @ noise**2))


def _posterior(design: Floats, residual: Floats, width: Floats, variance: Floats) -> tuple[Floats, Floats, Floats]:
    """Give precision, right side and solution, in widths of the prior, for each point of the grid."""
    scaled = (design.T[None] / variance[:, None]) @ design
    precision = np.eye(design.shape[1]) + width[:, :, None] * scaled * width[:, None]
    pull = width * ((residual / variance) @ design)
    step = np.linalg.solve(precision, pull[..., None])[..., 0]
    return precision, pull, np.asarray(step, dtype=np.float64)


def log_held_out(
    design: Floats,
    target: Floats,
    num_sources: int,
    architectures: NDArray[np.int64],
    label_noise: Floats,
) -> tuple[Floats, Floats]:
    """Predict each net by a fit on others: relative errors, and errors of the logs in predicted deviations."""
    errors, scores = np.empty(len(target)), np.empty(len(target))
    fold = architectures % FOLDS
    for out in range(fold.max() + 1):
        rest, left = fold != out, fold == out
        weights, covariance, noise = log_fit(design[rest], target[rest], num_sources, label_noise[rest])
        apart = design[left] @ weights - target[left]
        variance = np.einsum("ij,jk,ik->i", design[left], covariance, design[left]) + noise**2
        errors[left], scores[left] = np.abs(np.expm1(apart)), np.abs(apart) / np.sqrt(variance)
    return errors, scores


def _num_centres(num_sources: int) -> int:
    return num_sources + (num_sources > 1)


def _centre(which: int, num_sources: int, num: int, level: float) -> Floats:
    """Give the weights of a device that is like source `which`, or like the mean of all, at this level."""
    weights = np.zeros(num)
    weights[0] = level
    weights[1 : 1 + num_sources] = 1 / num_sources if which == num_sources else 0.0
    if which < num_sources:
        weights[1 + which] = 1.0
    return weights


def _widths(slope: float, counts: float, num_sources: int, num: int) -> Floats:
    """Give the prior standard deviation of each weight: the level is free within a factor of e."""
    others = num - 1 - num_sources
    return np.array([1.0, *[slope] * num_sources, *[counts / max(1, others) ** 0.5] * others])
