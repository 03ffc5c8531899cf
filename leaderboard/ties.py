"""How much two figures must differ before one of them counts as better: resolutions, tolerances and intervals.

Fronts, standings and the page all take their ties from here (`resolutions`, `tolerances`, `span`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from .columns import COLUMNS, known

Floats = NDArray[np.float64]


def resolutions(names: Iterable[str] = ()) -> dict[str, float]:
    """Give the differences that do not count, in the unit of each column that is listed, and of those named.

    Of a quality half of the third digit, the last one that is printed: .00005 AUC is no difference on any test split.
    """
    named = (COLUMNS[name] for name in names if name in COLUMNS)
    return {one.name: one.resolution for one in (*known(), *named) if one.resolution}


def tolerances() -> dict[str, float]:
    """Give the differences that do not count, as fractions of the larger figure.

    A measurement is kept when the two halves of its rounds agree within 5 % (MLPerf Mobile's rule), so measured figures
    that are nearer than that are a tie.
    """
    return {one.name: one.tolerance for one in known() if one.tolerance}


def span(name: str, values: Floats, low: Floats | None = None, high: Floats | None = None) -> tuple[Floats, Floats]:
    """Give the ends between which the true figures may lie; two figures whose spans meet are a tie.

    low, high: 95 % intervals, nan where unknown. A span is never narrower than the resolution or tolerance of its
    figure: without an interval two figures are a tie when they differ by no more than that. A count has no span.
    """
    one = COLUMNS.get(name)
    if one is not None and one.resolution:
        half = one.resolution / 2
        least, most = values - half, values + half
    else:
        factor = math.sqrt(1 + (one.tolerance if one is not None else 0.0))
        least, most = values / factor, values * factor
    if low is not None and high is not None:
        least, most = np.fmin(least, low), np.fmax(most, high)
    return np.where(np.isnan(values), np.nan, least), np.where(np.isnan(values), np.nan, most)


def bar(values: Floats, *, higher_is_better: bool, epsilon: float = 0.0, tolerance: float = 0.0) -> Floats:
    """Give what another figure must pass to be better than each of `values` by more than a tie.

    epsilon is a difference in the figure's unit, tolerance a fraction of the larger of the two figures.
    """
    if higher_is_better:
        return np.asarray(values * (1 + tolerance) + epsilon)
    return np.asarray(values / (1 + tolerance) - epsilon)
