"""Which points dominate which, in O(n log n) for two objectives and O(n log² n) for three; less is better on each.

`undominated` gives the Pareto front of costs; `beaten` says which costs at least one of some points beats. Both allow
for ties: `bars` are what a cost must be below to be better by more than a tie. NaN is never better, nor on a front.
`hypervolume` is what points dominate, up to a reference.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Whole = NDArray[np.int64]

# Objectives for which points are sorted; beyond, every point is compared with every row.
_SORTED = 3
# Strong points that strike out most rows before the others are sorted, and how many rows they are chosen among.
_STRONG, _SAMPLE = 20, 2_000


def undominated(costs: Floats, bars: Floats) -> Flags:
    """Flag the rows (rows, objectives) that no row is no worse than on all objectives and below the bar of on one."""
    known: Flags = ~np.logical_or.reduce(np.isnan(costs), axis=1)
    places = np.flatnonzero(known)
    if costs.shape[1] > _SORTED:
        exact = _front_one_by_one(costs, places)
    else:
        exact = _struck(costs, costs, places, costs[places])
        exact = exact[_is_front(costs[exact])]
    if np.array_equal(bars, costs, equal_nan=True):
        flags: Flags = np.zeros(len(costs), dtype=np.bool_)
        flags[exact] = True
        return flags
    # What beats a row by more than a tie has a row of the exact front that does at least as well.
    known[places] = ~beaten(costs[exact], costs[places], bars[places])
    return known


def beaten(points: Floats, costs: Floats, bars: Floats, own: Whole | None = None) -> Flags:
    """Flag the rows of `costs` that a point is no worse than on all objectives and below the bar of on one.

    own: the place among the points of each row, which is not compared with itself.
    """
    flags: Flags = np.zeros(len(costs), dtype=np.bool_)
    if not len(points) or not len(costs):
        return flags
    if points.shape[1] > _SORTED:
        return _beaten_one_by_one(points, costs, bars, own)
    flags[np.logical_and.reduce(~np.isnan(costs), axis=1)] = True
    known = _struck(costs, bars, np.flatnonzero(flags), points, own)
    flags[known] = False
    values = np.sort(points, axis=0)
    ranks, passed, below = (np.empty(one.shape, dtype=np.int64) for one in (points, costs[known], costs[known]))
    for place, column in enumerate(values.T):  # NaN of a point ranks last, above what any row passes
        column = column[~np.isnan(column)]
        ranks[:, place] = np.where(np.isnan(points[:, place]), len(points), np.searchsorted(column, points[:, place]))
        passed[:, place] = np.searchsorted(column, costs[known, place], side="right")
        below[:, place] = np.minimum(passed[:, place], np.searchsorted(column, bars[known, place]))
    for place in range(points.shape[1]):
        limits = passed.copy()
        limits[:, place] = below[:, place]
        left = np.flatnonzero(~flags[known])
        mine = None if own is None else own[known[left]]
        flags[known[left]] = _any_below(ranks, limits[left], mine)
    return flags


def _struck(
    costs: Floats, bars: Floats, places: NDArray[np.intp], points: Floats, own: Whole | None = None
) -> NDArray[np.intp]:
    """Give those of the places at which a few strong points beat no row."""
    some = np.arange(0, len(points), 1 + len(points) // _SAMPLE)
    some = some[~np.logical_or.reduce(np.isnan(points[some]), axis=1)]
    if not len(some):
        return places
    ranks = np.argsort(np.argsort(points[some], axis=0), axis=0) / len(some)
    # Directions from one corner of the objectives to the others, the middle among them.
    weights = np.random.default_rng(0).dirichlet(np.ones(points.shape[1]), _STRONG)
    for place in dict.fromkeys(some[np.argmin(ranks @ weights.T, axis=0)].tolist()):
        found = _is_beaten(costs[places], bars[places], points[place])
        places = places[~found if own is None else ~found | (own[places] == place)]
    return places


def _is_front(costs: Floats) -> Flags:
    """Flag the rows that none dominates, of rows without NaN and at most three objectives; equal rows alike."""
    flags: Flags = np.zeros(len(costs), dtype=np.bool_)
    if len(costs):
        sorted_ = np.lexsort(costs.T[::-1])
        is_new = np.ones(len(costs), dtype=np.bool_)
        is_new[1:] = np.logical_or.reduce(costs[sorted_[1:]] != costs[sorted_[:-1]], axis=1)
        unique = costs[sorted_[is_new]]
        order = np.arange(len(unique), dtype=np.int64)
        ranks = np.stack([order, *(np.searchsorted(np.sort(column), column) for column in unique.T[1:])], axis=1)
        limits = ranks + 1
        limits[:, 0] = order  # only an earlier row can dominate one
        flags[sorted_] = ~_any_below(ranks, limits)[np.cumsum(is_new) - 1]
    return flags


def _any_below(ranks: Whole, limits: Whole, own: Whole | None = None) -> Flags:
    """Say for each row of limits whether a row of ranks (both at most three columns) is below it in every column.

    own: the row of ranks that is left out for each.
    """
    pad = (0, 3 - ranks.shape[1])
    ranks = np.pad(ranks, ((0, 0), pad))
    limits = np.pad(limits, ((0, 0), pad), constant_values=1)
    order = np.lexsort((ranks[:, 1], ranks[:, 0])) if pad[1] else np.argsort(ranks[:, 0], kind="stable")
    first, second, third = ranks[order].T
    count = np.searchsorted(first, limits[:, 0])
    # Of two objectives the third column says nothing: the least of the second among the first ones decides.
    if pad[1]:
        return _prefixes(second[None], order[None], np.zeros_like(count), count, limits[:, 1], own)
    flags: Flags = np.zeros(len(limits), dtype=np.bool_)
    depth = len(order).bit_length()
    span = max(len(order), int(limits.max(initial=0))) + 2
    missing = (1 << depth) - len(order)
    second, third = (np.pad(one, (0, missing), constant_values=span - 1) for one in (second, third))
    named = np.pad(order, (0, missing), constant_values=-1)
    # The first `count` points are a block for each bit of their number; each block is sorted by the second column.
    for bit in reversed(range(depth + 1)):
        asked = np.flatnonzero((count >> bit & 1).astype(np.bool_) & ~flags)
        if not len(asked):
            continue
        shape = (-1, 1 << bit)
        within = np.argsort(second.reshape(shape), axis=1, kind="stable")
        keys = np.take_along_axis(second.reshape(shape), within, axis=1)
        keys += span * np.arange(len(keys))[:, None]
        block = (count[asked] >> (bit + 1)) << 1
        least = np.searchsorted(keys.ravel(), span * block + limits[asked, 1]) - (block << bit)
        values, who = (np.take_along_axis(one.reshape(shape), within, axis=1) for one in (third, named))
        flags[asked] = _prefixes(values, who, block, least, limits[asked, 2], None if own is None else own[asked])
    return flags


def _prefixes(values: Whole, who: Whole, block: Whole, count: Whole, limit: Whole, own: Whole | None) -> Flags:
    """Say for each asked row whether one of the first `count` values of its block is below its limit, its own left out.

    values, who: (blocks, size), the values and which row each is of.
    """
    least = np.minimum.accumulate(values, axis=1)
    at = np.maximum(count - 1, 0)
    is_below = least[block, at] < limit
    if own is not None:
        # A value that is not the least so far, or the one that a new least took the place of, is the second.
        before = np.pad(least, ((0, 0), (1, 0)), constant_values=np.iinfo(np.int64).max)[:, :-1]
        is_new = values < before
        second = np.minimum.accumulate(np.where(is_new, before, values), axis=1)
        place = np.maximum.accumulate(np.where(is_new, np.arange(values.shape[1]), 0), axis=1)
        is_own = who[block, place[block, at]] == own
        is_below = np.where(is_own, second[block, at] < limit, is_below)
    found: Flags = (count > 0) & is_below
    return found


def _front_one_by_one(costs: Floats, places: NDArray[np.intp]) -> NDArray[np.intp]:
    """Give the places of the exact front in O(rows x front): each row of it, in turn, strikes out what it dominates."""
    alive = places[np.lexsort(costs[places].T[::-1])]
    exact: list[int] = []
    while len(alive):
        first = int(alive[0])
        equal = np.logical_and.reduce(costs[alive] == costs[first], axis=1)
        exact.extend(alive[equal].tolist())
        alive = alive[~equal & ~_is_beaten(costs[alive], costs[alive], costs[first])]
    return np.array(exact, dtype=np.intp)


def _beaten_one_by_one(points: Floats, costs: Floats, bars: Floats, own: Whole | None) -> Flags:
    flags: Flags = np.zeros(len(costs), dtype=np.bool_)
    for place, point in enumerate(points):
        found = _is_beaten(costs, bars, point)
        flags |= found if own is None else found & (own != place)
    return flags


def _is_beaten(costs: Floats, bars: Floats, point: Floats) -> Flags:
    found: Flags = np.logical_and.reduce(point <= costs, axis=1) & np.logical_or.reduce(point < bars, axis=1)
    return found


def hypervolume(points: Floats, reference: Floats) -> float:
    """Measure what the rows dominate up to the reference point, exactly (columns minimised)."""
    from pymoo.indicators.hv import HV

    inside = points[(points < reference).all(axis=1)]
    return float(HV(ref_point=reference)(inside)) if len(inside) else 0.0
