"""Put the labels of a panel where they cover neither a mark nor each other.

Enters: axes that were drawn once, whose annotations sit on their points. Leaves: each annotation moved beside its
point, joined to it by a hairline where it had to go further; one that finds no place is left out, not laid over.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

# Where a label may go, nearest first: (right, up) in points from its mark to the label's near corner or edge.
_NEAR = 5.0
_DISTANCES = (1.0, 2.2, 3.6, 5.2, 7.5)
_DIRECTIONS = ((1, -1), (1, 1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))
# Half the width of a mark in points; a label keeps this far from every mark.
_MARK = 3.2


def place_labels(panel: Axes) -> None:
    """Move every annotation of a panel to a free place, those with the fewest neighbours first."""
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

    labels = [child for child in panel.get_children() if isinstance(child, Annotation)]
    if not labels:
        return
    figure = panel.figure
    pixels = figure.dpi / 72
    inside = panel.get_window_extent()
    lines = [np.asarray(line.get_xydata()) for line in panel.lines]
    marks = np.concatenate([panel.transData.transform(line) for line in lines if len(line)])
    taken = [
        Bbox.from_extents(x - _MARK * pixels, y - _MARK * pixels, x + _MARK * pixels, y + _MARK * pixels)
        for x, y in marks
    ]
    spots = {label: panel.transData.transform(label.xy) for label in labels}
    crowd = {label: float(np.sort(np.hypot(*(marks - spots[label]).T))[:6].sum()) for label in labels}
    for label in sorted(labels, key=lambda label: crowd[label]):
        size = label.get_window_extent()
        for far, (right, up) in product(_DISTANCES, _DIRECTIONS):
            reach = _NEAR * far * pixels / (1.4 if right and up else 1.0)
            left = spots[label][0] + right * reach - size.width * (1 - right) / 2
            low = spots[label][1] + up * reach - size.height * (1 - up) / 2
            box = Bbox.from_bounds(left, low, size.width, size.height)
            fits = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
            if fits and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                _move(panel, label, box.x0, box.y0, far > _DISTANCES[1])
                break
        else:
            label.set_visible(False)


def _move(panel: Axes, label: Annotation, left: float, low: float, joined: bool) -> None:
    x, y = panel.transData.transform(label.xy)
    points = 72 / panel.figure.dpi
    replaced = panel.annotate(
        label.get_text(),
        label.xy,
        xytext=((left - x) * points, (low - y) * points),
        textcoords="offset points",
        fontsize=label.get_fontsize(),
        color=label.get_color(),
        zorder=label.get_zorder(),
        arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.5, "shrinkB": 2} if joined else None,
    )
    replaced.set_in_layout(False)
    label.remove()
