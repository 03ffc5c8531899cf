"""Put the labels of a panel where they cover no mark, no front and not each other (`place_labels`).

The axes are drawn once, with each annotation on its point. Each is then moved beside its point, joined to it by a
hairline where it had to go further or lies nearer to another labelled point; one for which there is no room is left
out, not drawn over something.
"""

from __future__ import annotations

from itertools import pairwise, product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

Points = NDArray[np.float64]
# How far from its mark a label may go, in points, and where: above the stair of a front (left, up) there is room.
_REACHES = (5.0, 9.0, 15.0, 22.0, 31.0, 42.0, 56.0)
_DIRECTIONS = ((-1, 1), (1, -1), (0, 1), (1, 0), (-1, 0), (0, -1), (1, 1), (-1, -1))
# Half the width of a mark in points, at least; a label keeps this far from every mark.
_MARK = 3.4
# A label this close needs no line to its mark.
_BESIDE = 9.0


def place_labels(panel: Axes, *, has_leaders: bool = True) -> None:
    """Move every annotation of a panel to a free place, from left to right.

    Without leaders one that has no place right beside its mark, nearer to it than to other labelled ones, is left out.
    """
    from matplotlib.text import Annotation

    labels = [child for child in panel.get_children() if isinstance(child, Annotation)]
    if not labels:
        return
    pixels = panel.figure.dpi / 72
    inside = panel.get_window_extent()
    around, fronts, limits = _obstacles(panel)
    taken = np.concatenate([around, _squares(fronts, pixels)])
    free_of_limits = np.concatenate([taken, _squares(limits, pixels)])
    names = np.empty((0, 4))
    leaders: list[Points] = []
    spots = np.array([panel.transData.transform(label.xy) for label in labels])
    for place in np.argsort(spots[:, 0], kind="stable"):
        label, spot = labels[place], spots[place]
        size = label.get_window_extent()
        away = around[~_overlap(around, _squares(spot[None], 2 * _MARK * pixels)[0])]
        # First a place off the limits whose line crosses no other mark; where there is none, one on a limit, then one
        # whose line crosses a mark.
        orders = product((False, True), (free_of_limits, taken), _REACHES, _DIRECTIONS)
        for may_cross, covered, reach, (right, up) in orders:
            left = spot[0] + right * reach * pixels - size.width * (1 - right) / 2
            low = spot[1] + up * reach * pixels - size.height * (1 - up) / 2
            box = np.array([left, low, left + size.width, low + size.height])
            fits = inside.x0 <= box[0] and box[2] <= inside.x1 and inside.y0 <= box[1] and box[3] <= inside.y1
            if not fits or _overlap(covered, box).any() or _overlap(names, box).any():
                continue
            leader = _leader(spot, box)
            if any(_crossed(box[None], other) for other in leaders):
                continue
            obstacles = names if may_cross else np.concatenate([names, away])
            joined = reach > _BESIDE or int(np.argmin(_distances(spots, box))) != place
            if joined and (not has_leaders or _crossed(obstacles, leader)):
                continue
            names = np.concatenate([names, box[None]])
            leaders += [leader] if joined else []
            _move(panel, label, box, leader[-1] if joined else None)
            break
        else:
            label.set_visible(False)


def _squares(spots: Points, half: float) -> Points:
    """Boxes (n, 4) of left, bottom, right, top around spots (n, 2)."""
    return np.concatenate([spots - half, spots + half], axis=1)


def _distances(spots: Points, box: Points) -> Points:
    """Give how far each of the spots (n, 2) is from the nearest point of a box."""
    found: Points = np.hypot(*(spots - np.clip(spots, box[:2], box[2:])).T)
    return found


def _overlap(boxes: Points, box: Points) -> NDArray[np.bool_]:
    """Say which of the boxes (n, 4) share more than an edge with one box."""
    apart = (boxes[:, 2] <= box[0]) | (box[2] <= boxes[:, 0]) | (boxes[:, 3] <= box[1]) | (box[3] <= boxes[:, 1])
    found: NDArray[np.bool_] = ~apart
    return found


def _crossed(boxes: Points, leader: Points) -> bool:
    """Say whether a line, as points (m, 2), passes through any of the boxes (n, 4)."""
    inside = (leader[:, None] > boxes[None, :, :2]) & (leader[:, None] < boxes[None, :, 2:])
    return bool(inside.all(axis=2).any())


def _obstacles(panel: Axes) -> tuple[Points, Points, Points]:
    """Give in pixels the boxes (n, 4) of the marks, and points (n, 2) along fronts and along limits, 3 pixels apart."""
    boxes, fronts, limits = [np.empty((0, 4))], [np.empty((0, 2))], [np.empty((0, 2))]
    pixels = panel.figure.dpi / 72
    for line in panel.lines:
        if not len(np.asarray(line.get_xdata())):
            continue
        corners = line.get_transform().transform(np.asarray(line.get_xydata()))
        if line.get_transform() is not panel.transData:  # `axvline`: across the panel, whatever the data
            limits.append(_along(corners))
        elif line.get_drawstyle() == "steps-post":
            fronts.append(_along(_stepped(corners)))
        else:
            boxes.append(_squares(corners, max(_MARK, line.get_markersize() / 2) * pixels))
    return np.concatenate(boxes), np.concatenate(fronts), np.concatenate(limits)


def _stepped(corners: Points) -> Points:
    """Put the corner between each two points of a stepped line, at the height of the first."""
    stops = np.repeat(corners, 2, axis=0)[:-1]
    stops[1::2, 0] = corners[1:, 0]
    return stops


def _along(corners: Points) -> Points:
    pieces = [np.linspace(a, b, max(2, int(np.hypot(*(b - a)) / 3))) for a, b in pairwise(corners)]
    return np.concatenate([corners, *pieces])


def _leader(spot: Points, box: Points) -> Points:
    """Points along the straight line from a mark to the nearest point of its label."""
    return np.linspace(spot, np.clip(spot, box[:2], box[2:]), 20)


def _move(panel: Axes, label: Annotation, box: Points, end: Points | None) -> None:
    """Put a label into a box, joined by a line from its point `end` to its mark where there is one."""
    points = 72 / panel.figure.dpi
    line = None
    if end is not None:
        line = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
        line["relpos"] = tuple((end - box[:2]) / (box[2:] - box[:2]))
    replaced = panel.annotate(
        label.get_text(),
        label.xy,
        xytext=tuple((box[:2] - panel.transData.transform(label.xy)) * points),
        textcoords="offset points",
        fontsize=label.get_fontsize(),
        color=label.get_color(),
        zorder=label.get_zorder(),
        arrowprops=line,
    )
    replaced.set_in_layout(False)
    label.remove()
