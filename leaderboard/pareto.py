"""Pareto fronts, exact hypervolume, and why a row is not on the front.

Enters: rows (records, a frame, or columns as `Store.columns` gives them). Leaves: a verdict a row. Rows of different
data sets, splits, devices, batches or threads are never compared, and imported rows never with measured ones; an empty
figure never wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tutelage.records import InputError, Row

if TYPE_CHECKING:
    import pandas as pd

    Rows = Sequence[Row] | pd.DataFrame | Mapping[str, Sequence[Any]]

Direction = Literal["min", "max"]
Verdict = Literal["sure", "maybe", "no"]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

DIRECTIONS: dict[str, Direction] = {
    **{"accuracy": "max", "auc": "max"},
    **{"latency_p50_ms": "min", "latency_p90_ms": "min", "latency_p99_ms": "min", "size_bytes": "min"},
    **{"params": "min", "macs": "min", "peak_rss_bytes": "min", "energy_mj": "min"},
}
# Who may be compared with whom. The runtime belongs to the device profile, so it needs no place of its own.
GROUP = ("dataset", "split", "device", "batch", "threads", "source")
# What `on_front` means where nobody says otherwise; of the two qualities a group uses the first that any row has.
QUALITY = ("auc", "accuracy")
COSTS = ("latency_p50_ms", "size_bytes")


@dataclass(frozen=True)
class Dominance:
    """Why a row is not on the front: the row that beats it, and by how much on each objective (positive is better)."""

    by: int
    gains: dict[str, float]


def parse_objectives(text: str) -> dict[str, Direction]:
    """Read `latency_p50_ms,auc` or, with directions of one's own, `seed:max`."""
    return directions([part.strip() for part in text.split(",") if part.strip()])


def directions(objectives: Sequence[str] | Mapping[str, Direction]) -> dict[str, Direction]:
    """Give each objective its direction, or raise InputError for a column that has none."""
    if isinstance(objectives, Mapping):
        return dict(objectives)
    found: dict[str, Direction] = {}
    for objective in objectives:
        name, _, way = objective.partition(":")
        if name not in DIRECTIONS or way not in ("", "min", "max"):
            raise InputError(
                f"{objective!r} is not an objective: choose among {', '.join(DIRECTIONS)} (or NAME:min|max)"
            )
        found[name] = DIRECTIONS[name] if not way else ("min" if way == "min" else "max")
    if not found:
        raise InputError("a front needs at least one objective, e.g. latency_p50_ms,auc")
    return found


def front(
    rows: Rows,
    objectives: Sequence[str] | Mapping[str, Direction],
    *,
    epsilon: Mapping[str, float] | None = None,
) -> list[bool]:
    """Say for each row whether it is on the front of its group.

    `epsilon` names differences, in the objective's unit, that do not count: a row leaves the front only when another
    is no worse on all objectives and better by more than epsilon on one. Equal rows are on the front together.
    """
    ways = directions(objectives)
    margin = np.array([(epsilon or {}).get(name, 0.0) for name in ways])
    costs = _costs(rows, ways)
    flags = np.zeros(len(costs), dtype=bool)
    for members in _groups(rows):
        flags[members] = _undominated(costs[members], margin)
    return [bool(flag) for flag in flags]


def on_front(rows: Rows) -> list[bool]:
    """Mark the default front of each group: AUC (else accuracy), median latency and size on disk.

    An objective that no row of a group has (a data set without devices) is left out of that group's front.
    """
    names = (*QUALITY, *COSTS)
    costs = _costs(rows, directions(names))
    flags = np.zeros(len(costs), dtype=bool)
    for members in _groups(rows):
        known = _some(~np.isnan(costs[members]).T)
        quality = next((place for place, name in enumerate(QUALITY) if known[place]), None)
        if quality is None:
            continue
        chosen = [quality, *(place for place in range(len(QUALITY), len(names)) if known[place])]
        flags[members] = _undominated(costs[members][:, chosen], np.zeros(len(chosen)))
    return [bool(flag) for flag in flags]


def front_with_intervals(rows: Rows, objectives: Sequence[str] | Mapping[str, Direction]) -> list[Verdict]:
    """Say whether a row is on the front for sure, maybe or not, given its intervals (`auc_lo`, `auc_hi` ...).

    `sure`: no row at its best beats this row at its worst. `no`: some row at its worst beats this row at its best.
    An objective without an interval is taken as it is.
    """
    ways = directions(objectives)
    point = _costs(rows, ways)
    low, high = (_bound(rows, ways, point, end) for end in ("_lo", "_hi"))
    best, worst = np.minimum(low, high), np.maximum(low, high)
    verdicts = np.full(len(point), "no", dtype=object)
    for members in _groups(rows):
        known = members[~_some(np.isnan(point[members]))]
        # What beats anything has a row of its own front that beats it too, so only fronts are asked. Rows of the first
        # one beat themselves at their worst and might hide others: they are asked again, one by one.
        at_best = np.flatnonzero(_undominated(best[known], np.zeros(len(ways))))
        at_worst = np.flatnonzero(_undominated(worst[known], np.zeros(len(ways))))
        unsure = _beaten_by_any(best[known][at_best], worst[known])
        for place in at_best:
            others = np.delete(best[known], place, axis=0)
            unsure[place] = bool(_dominates(others, worst[known[place]]).any())
        out = _beaten_by_any(worst[known][at_worst], best[known])
        verdicts[known] = np.where(out, "no", np.where(unsure, "maybe", "sure"))
    return list(verdicts)


def parse_ties(text: str, objectives: Sequence[str] | Mapping[str, Direction]) -> dict[str, float]:
    """Read the differences that do not count: `0.005` (for each quality), or `auc=0.005,latency_p50_ms=0.1ms`."""
    from .filters import number

    ways = directions(objectives)
    found: dict[str, float] = {}
    for part in (part.strip() for part in text.split(",") if part.strip()):
        name, sign, value = part.partition("=")
        names = [name.strip()] if sign else [one for one in ways if one in QUALITY]
        size = number(value.strip() if sign else part)
        if size is None or size < 0 or not names or not set(names) <= set(ways):
            raise InputError(
                f"--ties {part!r}: write e.g. 0.005 or auc=0.005,latency_p50_ms=0.1ms, of {', '.join(ways)}"
            )
        found |= dict.fromkeys(names, size)
    return found


def dominated_by(rows: Rows, place: int, objectives: Sequence[str] | Mapping[str, Direction]) -> list[Dominance]:
    """List the rows that beat the one at `place`, those on the front first; empty for a row on the front."""
    ways = directions(objectives)
    costs = _costs(rows, ways)
    members = next(group for group in _groups(rows) if place in group)
    if np.isnan(costs[place]).any():
        return []
    flags = _undominated(costs[members], np.zeros(len(ways)))
    beats = _dominates(costs[members], costs[place])
    order = sorted(np.flatnonzero(beats), key=lambda index: (not flags[index], tuple(costs[members[index]])))
    return [
        Dominance(int(members[index]), dict(zip(ways, (costs[place] - costs[members[index]]).tolist(), strict=True)))
        for index in order
    ]


def hypervolume(
    rows: Rows | Floats,
    objectives: Sequence[str] | Mapping[str, Direction],
    reference: Mapping[str, float],
) -> float:
    """Measure exactly (pymoo) what the rows dominate, up to a reference point in the objectives' units.

    `rows` may be an array (points, objectives) in the order of `objectives`. Rows with an empty figure add nothing.
    """
    from pymoo.indicators.hv import HV

    ways = directions(objectives)
    signs = np.array([1.0 if way == "min" else -1.0 for way in ways.values()])
    costs = rows * signs if isinstance(rows, np.ndarray) else _costs(rows, ways)
    point = np.array([reference[name] for name in ways]) * signs
    costs = costs[~np.isnan(costs).any(axis=1)]
    costs = costs[(costs < point).all(axis=1)]
    return float(HV(ref_point=point)(costs)) if len(costs) else 0.0


def figures(rows: Rows, name: str) -> Floats:
    """Give one column as floats, NaN where it is empty."""
    if isinstance(rows, Sequence):
        return np.array([getattr(row, name, None) for row in rows], dtype=np.float64)
    if isinstance(rows, Mapping):
        return np.array(rows[name] if name in rows else [None] * len(rows["dataset"]), dtype=np.float64)
    return rows[name].to_numpy(dtype=np.float64, na_value=np.nan)


def _costs(rows: Rows, ways: Mapping[str, Direction]) -> Floats:
    """Stack the objectives (rows, objectives), all turned so that less is better."""
    return np.stack([figures(rows, name) * (1.0 if way == "min" else -1.0) for name, way in ways.items()], axis=1)


def _bound(rows: Rows, ways: Mapping[str, Direction], point: Floats, end: str) -> Floats:
    bound = point.copy()
    for place, (name, way) in enumerate(ways.items()):
        if name in QUALITY:
            found = figures(rows, name + end) * (1.0 if way == "min" else -1.0)
            bound[:, place] = np.where(np.isnan(found), point[:, place], found)
    return bound


def _groups(rows: Rows) -> list[NDArray[np.intp]]:
    """Split the rows' places into groups that may be compared."""
    if isinstance(rows, Sequence | Mapping):
        if isinstance(rows, Sequence):
            columns: list[Sequence[Any]] = [[getattr(row, name) for row in rows] for name in GROUP]
        else:
            columns = [rows[name] for name in GROUP]
        members: dict[tuple[object, ...], list[int]] = {}
        for place, group in enumerate(zip(*columns, strict=True)):
            members.setdefault(group, []).append(place)
        return [np.array(places, dtype=np.intp) for places in members.values()]
    if rows.empty:
        return []
    return [np.asarray(places) for places in rows.groupby(list(GROUP), dropna=False, sort=False).indices.values()]


def _dominates(costs: Floats, point: Floats) -> Flags:
    """Say which of `costs` (rows, objectives) are no worse than `point` on all and better on one. NaN never is."""
    beats: Flags = _every(costs <= point) & _some(costs < point)
    return beats


def _beaten_by_any(points: Floats, costs: Floats) -> Flags:
    """Say which of `costs` (rows, objectives) at least one of `points` beats."""
    beaten: Flags = np.zeros(len(costs), dtype=np.bool_)
    for point in points:
        beaten |= _is_beaten(costs, point)
    return beaten


def _undominated(costs: Floats, margin: Floats) -> Flags:
    """Flag the rows that none beats, in O(rows x front).

    Sorted by the first objective, then the others, only an earlier row can beat a later one, and by transitivity one on
    the exact front does; so each front row, in turn, strikes out what it beats. The margin is applied in a second pass
    against the exact front: what beats by more than epsilon has a front row that does at least as well.
    """
    flags: Flags = ~_some(np.isnan(costs))
    alive = np.flatnonzero(flags)
    alive = alive[np.lexsort(costs[alive].T[::-1])]
    exact: list[int] = []
    while len(alive):
        first = int(alive[0])
        equal = _every(costs[alive] == costs[first])
        exact.extend(alive[equal].tolist())
        alive = alive[~equal & ~_is_beaten(costs[alive], costs[first])]
    if not margin.any():
        flags = np.zeros(len(costs), dtype=np.bool_)
        flags[exact] = True
        return flags
    for place in exact:
        flags = flags & ~_is_beaten(costs, costs[place], margin)
    return flags


def _is_beaten(costs: Floats, point: Floats, margin: Floats | float = 0.0) -> Flags:
    """Say which of `costs` the point beats: it is no worse on all and better by more than the margin on one."""
    beaten: Flags = _every(point <= costs) & _some(point < costs - margin)
    return beaten


def _every(flags: Flags) -> Flags:
    found: Flags = np.logical_and.reduce(flags, axis=1)
    return found


def _some(flags: Flags) -> Flags:
    found: Flags = np.logical_or.reduce(flags, axis=1)
    return found
