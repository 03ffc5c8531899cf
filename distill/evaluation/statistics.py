"""Statistics of classifiers on numpy scores and labels: weighted AUC for fast bootstraps, average precision, Holm.

An undefined number is nan here and `None` in an `Evaluation`; paired tests are in `paired` and `gain`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Elements of a resamples x images block: 32 MB of float64, so that a bootstrap of 25,000 images stays in cache reach.
_BLOCK = 4_000_000


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Give the area under the ROC curve, ties counted half; nan when one of the two classes is absent."""
    return float(weighted_auc(scores, positive, np.ones((1, len(scores))))[0])


def weighted_auc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Give one AUC for each row of `weights` `(resamples, images)`; nan where a class has no weight.

    The scores are sorted once: AUC = sum over score levels of w_pos (w_neg below + w_neg tied / 2) / (W_pos W_neg).
    """
    if len(scores) == 0:
        return np.full(len(weights), np.nan)
    order = np.argsort(scores, kind="stable")
    ordered, is_positive = scores[order], np.asarray(positive, bool)[order]
    starts = np.flatnonzero(np.r_[True, np.diff(ordered) != 0])
    areas = np.empty(len(weights))
    step = max(1, _BLOCK // len(scores))
    for low in range(0, len(weights), step):
        block = weights[low : low + step][:, order].astype(np.float64, copy=False)
        pos = np.add.reduceat(block * is_positive, starts, axis=1)
        neg = np.add.reduceat(block * ~is_positive, starts, axis=1)
        below = np.cumsum(neg, axis=1) - neg / 2
        pairs = pos.sum(1) * neg.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            areas[low : low + step] = np.where(pairs > 0, (pos * below).sum(1) / pairs, np.nan)
    return areas


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Give sum (R_k - R_(k-1)) P_k over score levels, as scikit-learn does; nan without a positive."""
    positive = np.asarray(positive, bool)
    if not positive.any():
        return math.nan
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(positive[order])
    ends = np.flatnonzero(np.r_[np.diff(ordered) != 0, True])
    precision, recall = hits[ends] / (ends + 1), hits[ends] / hits[-1]
    return float(np.sum(np.diff(np.r_[0.0, recall]) * precision))


def resample_weights(
    groups: np.ndarray | None, num_images: int, resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw how often each image counts in each bootstrap resample `(resamples, images)`: whole groups are drawn."""
    if groups is None:
        index, num_groups = np.arange(num_images), num_images
    else:
        names, index = np.unique(np.asarray(groups), return_inverse=True)
        num_groups = len(names)
    draws = rng.integers(0, num_groups, size=(resamples, num_groups))
    offsets = np.arange(resamples)[:, None] * num_groups
    counts = np.bincount((draws + offsets).ravel(), minlength=resamples * num_groups).reshape(resamples, num_groups)
    return counts.astype(np.float32)[:, index]


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Give the percentile interval; nan when more than half of the resamples were undefined."""
    known = values[np.isfinite(values)]
    if 2 * len(known) <= len(values):
        return math.nan, math.nan
    low, high = np.percentile(known, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


@dataclass(frozen=True)
class PairedTest:
    """A paired comparison, first minus second: the difference, its 95 % interval (nan if none) and a two-sided p."""

    difference: float
    low: float
    high: float
    p: float


def midranks(values: np.ndarray) -> np.ndarray:
    """Rank from 1, ties get the mean of their ranks."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[index], np.float64)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for the family-wise error (Holm 1979); nan stays nan and does not count."""
    known = [i for i, p in enumerate(p_values) if not math.isnan(p)]
    adjusted = [math.nan] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(sorted(known, key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(known) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted
