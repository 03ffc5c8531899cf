"""Which part of a plane a plot of a front shows: where the front lives (`usual_range`), what lies outside at its edge.

The page's charts have the same rule (`page_range.js`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# So many times as far below the median as the best lies above it: a quantile and not the minimum decides, so that one
# network that failed does not squeeze all others into a line.
_OF_ALL, _OF_FRONT = 2.0, 3.0
# Of a quality: where half of all rows have the highest, those just below are shown as well.
_LEAST_SPAN = 0.03


def usual_range(qualities: Sequence[float], front: Sequence[float]) -> tuple[float, float]:
    """Give the lowest and the highest quality that a plot shows, without room at its edges."""
    top = max(qualities)
    low = min(_fence(qualities, _OF_ALL), _fence(front, _OF_FRONT) if front else top)
    return max(min(qualities), min(low, top - _LEAST_SPAN)), top


def _fence(values: Sequence[float], reach: float) -> float:
    middle = float(np.median(values))
    return max(min(values), middle - reach * (max(values) - middle))


def mark_below(panel: Axes, spots: Sequence[tuple[float, float]], low: float, high: float) -> None:
    """Set the range of an axis of qualities, with an arrowhead at its foot for each spot that lies below it."""
    room = 0.12 * max(high - low, 0.01)
    foot = max(0.0, low - room)
    panel.set_ylim(foot, high + room)
    across = [x for x, quality in spots if quality < foot]
    if not across:
        return
    at_foot = panel.get_xaxis_transform()  # data across, a fraction of the panel up
    panel.plot(
        across, [0.02] * len(across), transform=at_foot, marker="v", markersize=4, color="#444444", linestyle="none"
    )
    panel.text(
        0.99,
        0.03,
        f"{len(across)} below",
        transform=panel.transAxes,
        ha="right",
        va="bottom",
        fontsize=6,
        color="#444444",
    )
