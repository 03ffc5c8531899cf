"""Choose decision thresholds on validation data: one for two classes, or one for each label (multi-label).

`choose_threshold` and `choose_thresholds` take probabilities and labels of the validation split; the thresholds stay
fixed on every other split.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from tutelage.records import InputError

# Bootstrap resamples whose best thresholds are averaged: the error of the mean is below a tenth of their spread.
_NUM_RESAMPLES = 200
# Probabilities are clipped this far from 0 and 1 before log-odds are taken: float32 softmax rounds there.
_EDGE = 1e-7


def choose_threshold(probs: np.ndarray | Tensor, labels: np.ndarray | Tensor, *, seed: int = 0) -> float:
    """Choose the threshold on the second class's probability that separates two classes best; .5 if one is absent.

    Best is Youden's J (Cancer 1950), sensitivity + specificity - 1: unlike accuracy it does not depend on the class
    fractions of this split, which differ between hospitals. On a few hundred well separated images one or two of them
    decide the threshold, so it is computed on bootstrap resamples and averaged in log-odds (bagging, Breiman 1996).
    `probs` `(n, 2)` and `labels` `(n,)` must be validation data: a threshold chosen on test is biased.
    """
    scores, truth = _numpy(probs).astype(np.float64), _numpy(labels)
    if scores.ndim != 2 or scores.shape[1] != 2:
        raise InputError(f"a threshold is for two classes, got probabilities of shape {scores.shape}")
    second, positive = scores[:, 1], truth == 1
    if positive.all() or not positive.any():
        return 0.5
    rng = np.random.default_rng(seed)
    cuts: list[float] = []
    while len(cuts) < _NUM_RESAMPLES:
        drawn = rng.integers(0, len(second), len(second))
        if 0 < positive[drawn].sum() < len(drawn):
            cuts.append(youden_log_odds(second[drawn], positive[drawn]))
    return 1 / (1 + math.exp(-float(np.mean(cuts))))


def youden_log_odds(second: np.ndarray, positive: np.ndarray) -> float:
    """Give the threshold with the largest J, in log-odds; of equals, the middle of the widest gap between scores.

    `second` `(n,)` are probabilities of the positive class and `positive` `(n,)` booleans of which some are true and
    some false.
    """
    order = np.argsort(second, kind="stable")
    level = np.clip(second[order], _EDGE, 1 - _EDGE)
    is_positive = positive[order]
    odds = np.log(level / (1 - level))
    # Threshold i lies between images i and i + 1: the first i + 1 are predicted negative.
    specificity = np.cumsum(~is_positive)[:-1] / (~is_positive).sum()
    sensitivity = 1 - np.cumsum(is_positive)[:-1] / is_positive.sum()
    gap = np.diff(odds)
    worth = np.where(gap > 0, specificity + sensitivity, -1.0)  # no threshold separates two equal scores
    best = np.flatnonzero(worth >= worth.max() - 1e-12)
    widest = best[gap[best].argmax()]
    return float((odds[widest] + odds[widest + 1]) / 2)


def choose_thresholds(probs: np.ndarray | Tensor, labels: np.ndarray | Tensor, by: str = "f1") -> tuple[float, ...]:
    """Choose one threshold a label by F1 or Youden's J on validation data; .5 where a label has no positive."""
    if by not in ("f1", "youden"):
        raise InputError(f"thresholds are chosen by f1 or youden, not {by!r}")
    scores, truth = _numpy(probs).astype(np.float64), _numpy(labels)
    cuts = []
    for k in range(scores.shape[1]):
        known = np.isfinite(truth[:, k])
        order = np.argsort(-scores[known, k], kind="stable")
        levels, positive = scores[known, k][order], truth[known, k][order] > 0.5
        total = int(positive.sum())
        if total == 0 or total == len(positive):
            cuts.append(0.5)
            continue
        hits, alarms = np.cumsum(positive), np.cumsum(~positive)
        f1 = 2 * hits / (hits + alarms + total)
        value = f1 if by == "f1" else hits / total - alarms / (len(positive) - total)
        value = np.where(np.r_[np.diff(levels) != 0, True], value, -1.0)
        best = int(value.argmax())
        below = levels[best + 1] if best + 1 < len(levels) else levels[best]
        cuts.append(float((levels[best] + below) / 2))
    return tuple(cuts)


def _numpy(values: np.ndarray | Tensor) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
