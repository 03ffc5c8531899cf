"""Statistics of classifiers on numpy scores and labels: weighted AUC for fast bootstraps, average precision, Holm.

An undefined number is nan here and `None` in an `Evaluation`; paired tests are in `paired` and `gain`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Elements of a score levels x resamples block: 64 MB of float64, and about three of them in memory.
_BLOCK = 8_000_000


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Give the area under the ROC curve, ties counted half; nan when one of the two classes is absent."""
    return float(weighted_auc(scores, positive, np.ones((1, len(scores))))[0])


def weighted_auc(
    scores: np.ndarray, positive: np.ndarray, weights: np.ndarray, index: np.ndarray | None = None
) -> np.ndarray:
    """Give one AUC for each row of `weights` `(resamples, groups)`; nan where a class has no weight.

    `index` `(images,)` is each image's group; None: each image has a weight of its own. Only the score levels of the
    rarer class are gone through: AUC = sum over them of w_own (w_other below + w_other tied / 2) / (W_pos W_neg), where
    the weight of each group comes in by a sparse product. Sums of whole numbers and halves are exact.
    """
    from scipy.sparse import csr_matrix

    positive, num_groups = np.asarray(positive, bool), weights.shape[1]
    index = np.arange(len(scores)) if index is None else index
    own = positive if 2 * np.count_nonzero(positive) <= len(positive) else ~positive
    levels = np.unique(scores[own])
    places = np.searchsorted(levels, scores[own])
    # An image of the other class is below the levels from `above` on; a tie counts half at its own level.
    above = [np.searchsorted(levels, scores[~own], side) for side in ("left", "right")]
    shape = (len(levels), num_groups)
    at_level = csr_matrix((np.ones(len(places)), (places, index[own])), shape)
    halves = (np.full(2 * len(above[0]), 0.5), (np.concatenate(above), np.tile(index[~own], 2)))
    between = csr_matrix(halves, (shape[0] + 1, num_groups))[:-1]
    totals = [np.bincount(index[chosen], minlength=num_groups).astype(np.float64) for chosen in (own, ~own)]
    areas = np.empty(len(weights))
    step = max(1, _BLOCK // max(1, len(levels)))
    for low in range(0, len(weights), step):
        block = np.ascontiguousarray(weights[low : low + step].T, dtype=np.float64)
        below = between @ block
        won = np.einsum("kb,kb->b", at_level @ block, np.cumsum(below, axis=0, out=below))
        pairs = (totals[0] @ block) * (totals[1] @ block)
        with np.errstate(invalid="ignore", divide="ignore"):
            areas[low : low + step] = np.where(pairs > 0, (won if own is positive else pairs - won) / pairs, np.nan)
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


def resample_groups(
    groups: np.ndarray | None, num_images: int, resamples: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw bootstrap resamples of whole groups; without groups each image is one.

    Gives how often each group is drawn, float64 `(resamples, groups)`, which lies in memory group by group, and each
    image's group `(images,)`.
    """
    if groups is None:
        index, num_groups = np.arange(num_images), num_images
    else:
        names, index = np.unique(np.asarray(groups), return_inverse=True)
        num_groups = len(names)
    draws = rng.integers(0, num_groups, size=(resamples, num_groups))
    offsets = np.arange(resamples)[:, None] * num_groups
    counts = np.bincount((draws + offsets).ravel(), minlength=resamples * num_groups).reshape(resamples, num_groups)
    return np.asfortranarray(counts, dtype=np.float64), index


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
