"""How much two figures must differ before one of them counts as better: resolutions, tolerances and intervals.

Fronts, standings and the page all take their ties from here (`RESOLUTIONS`, `TOLERANCES`, `span`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Half of the third digit, the last one that is printed: .00005 AUC is no difference on any test split here.
RESOLUTIONS: Mapping[str, float] = {"auc": 0.0005, "accuracy": 0.0005}
# A measurement stands when the two halves of its rounds agree within 5 % (MLPerf Mobile's rule), so measured figures
# that are nearer than that are not told apart.
TOLERANCES: Mapping[str, float] = dict.fromkeys(
    ("latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "peak_rss_bytes", "energy_mj"), 0.05
)
# Figures that may have an interval of their own, as `NAME_lo` and `NAME_hi`.
WITH_INTERVAL = ("auc", "accuracy", "latency_p50_ms")
# The interval of a latency stands in the details of its row.
LATENCY_BOUNDS = ("latency_p50_ms_lo", "latency_p50_ms_hi")


def span(name: str, values: Floats, low: Floats | None = None, high: Floats | None = None) -> tuple[Floats, Floats]:
    """Give the ends between which the true figures may lie; two figures whose spans meet are a tie.

    low, high: 95 % intervals, nan where unknown. A span is never narrower than the resolution or tolerance of its
    figure: without an interval two figures are a tie when they differ by no more than that. A count has no span.
    """
    if name in RESOLUTIONS:
        half = RESOLUTIONS[name] / 2
        least, most = values - half, values + half
    else:
        factor = math.sqrt(1 + TOLERANCES.get(name, 0.0))
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
