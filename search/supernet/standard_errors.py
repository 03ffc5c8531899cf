"""Standard errors of the figures of a network: how far another draw of as many images would move each of them.

They are of one network. Networks that are compared on the same images differ by less: the bound is on the safe side.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def error_std(error: float, number: int) -> float:
    """Give the binomial standard error of a fraction of `number` images.

    One image right and one wrong are added, so that no error in few images is not taken for certainty (Agresti & Coull
    1998, with z = sqrt 2).
    """
    fraction = (error * number + 1) / (number + 2)
    return math.sqrt(fraction * (1 - fraction) / number)


def loss_std(losses: NDArray[np.floating]) -> float:
    """Give the standard error of the mean of the losses of single images."""
    if len(losses) < 2:
        return math.nan
    return float(np.std(losses, ddof=1) / math.sqrt(len(losses)))


def auc_std(probabilities: NDArray[np.floating], truth: NDArray[np.bool_]) -> float:
    """Give the standard error of the mean one-against-rest AUC; both arguments are (n, classes). NaN where none exists.

    Of one class by its placements (DeLong et al. 1988), and not below what half an image of the smaller class would
    move; of the mean at most the mean of the classes', which it is where they vary together.
    """
    from scipy.stats import rankdata

    found = []
    for scores, positive in zip(probabilities.T, truth.T, strict=True):
        count, rest = int(positive.sum()), int((~positive).sum())
        if not count or not rest:
            continue
        ranks = rankdata(scores)
        above = (ranks[positive] - rankdata(scores[positive])) / rest  # of each positive: the negatives below it
        below = 1 - (ranks[~positive] - rankdata(scores[~positive])) / count
        variance = _variance(above) / count + _variance(below) / rest
        found.append(max(math.sqrt(variance), 0.5 / min(count, rest)))
    return float(np.mean(found)) if found else math.nan


def _variance(values: NDArray[np.floating]) -> float:
    return float(np.var(values, ddof=1)) if len(values) > 1 else 0.25
