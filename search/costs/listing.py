"""List every architecture that keeps a budget, where there are few enough, so that a search knows when it is at an end.

`list_feasible` grows architectures part by part (see `budget.parts_at`) and drops a beginning as soon as its cost and
the least cost of what must follow exceed a bound.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tutelage.search.spaces.space import Genes, Space

from .budget import COUNTED, Cost, Floats, Part, collapsed, costs_of, parts_at, terms_of

# Combinations weighed at once: 2 million doubles are 16 MB a bound.
_CHUNK_CELLS = 2_000_000
# Plain draws that show a set to be large, and how improbable it must be that they show so wrongly.
_NUM_PILOT, _SURELY = 200, 1e-4
# Slack of the bounds while sums are partial, for rounding; complete architectures are checked exactly.
_ROUNDING = 1e-9


def list_feasible(
    space: Space,
    bounds: Mapping[str, float],
    limit: int,
    num_classes: int = 1000,
    in_channels: int = 3,
    cost: Cost | None = None,
) -> Genes | None:
    """Give all architectures within the bounds, (n, num_genes), or None when there are more than `limit`.

    None is also the result when only given costs could narrow the space down to `limit` architectures.
    """
    if bounds and _surely_more(space, bounds, limit, num_classes, in_channels, cost):
        return None
    summed = {name: bound for name, bound in bounds.items() if name in COUNTED}
    if space.size() > limit and not summed:
        return None
    listed = np.zeros((0, space.num_genes), dtype=np.int64)
    for r in space.resolutions:
        parts = parts_at(space, r, list(summed), num_classes, in_channels)
        more = _combine(space, parts, summed, limit - len(listed))
        if more is None:
            return None
        listed = np.concatenate([listed, more])
    if not bounds or not len(listed):
        return listed
    costs = costs_of(space, listed, list(bounds), num_classes, in_channels, cost)
    return np.asarray(listed[(costs <= np.array(list(bounds.values()))).all(axis=1)])


def _surely_more(
    space: Space, bounds: Mapping[str, float], limit: int, num_classes: int, in_channels: int, cost: Cost | None
) -> bool:
    """Say whether a plain draw keeps the bounds that would hardly have hit any set of `limit` architectures.

    No architecture is more probable than the shallowest, so so many together are hit once in 1 / (limit p) draws.
    """
    most = float(space.log_probability(space.encode([space.smallest()]))[0])
    if limit * _NUM_PILOT * np.exp(most) > _SURELY:
        return False
    plain = space.random(_NUM_PILOT, np.random.default_rng(0))
    costs = costs_of(space, plain, list(bounds), num_classes, in_channels, cost)
    return bool((costs <= np.array(list(bounds.values()))).all(axis=1).any())


def _combine(space: Space, parts: list[Part], bounds: Mapping[str, float], limit: int) -> Genes | None:
    """Join the parts' choices into whole architectures within the bounds; None when there are more than `limit`."""
    peak = np.array([term.peak for term in terms_of(list(bounds))], dtype=np.bool_)
    allowed = np.array(list(bounds.values())) * (1 + _ROUNDING)
    rest = [np.zeros(len(peak))]
    for part in reversed(parts[1:]):
        rest.append(_joined(rest[-1], part.costs.min(axis=0), peak))
    genes = np.zeros((1, space.num_genes), dtype=np.int64)
    costs, state = np.zeros((1, len(peak))), np.zeros(1, dtype=np.int64)
    for part, least in zip(parts, reversed(rest), strict=True):
        pairs: list[NDArray[np.intp]] = []
        step, num = max(1, _CHUNK_CELLS // len(part.rows)), 0
        for first in range(0, len(genes), step):
            some = slice(first, first + step)
            totals = _joined(_joined(costs[some, None], part.costs[None], peak), least, peak)
            fits = (collapsed(totals, list(bounds)) <= allowed).all(axis=2) & (state[some, None] == part.state_in)
            pairs.append(np.argwhere(fits) + np.array([first, 0]))
            num += len(pairs[-1])
            if num > limit:
                return None
        if not num:
            return genes[:0]
        before, choice = np.concatenate(pairs).T
        columns = [*part.columns, -1]
        genes = genes[before]
        genes[:, columns] = part.rows[choice][:, columns]
        costs, state = _joined(costs[before], part.costs[choice], peak), part.state_out[choice]
    return genes


def _joined(a: Floats, b: Floats, peak: NDArray[np.bool_]) -> Floats:
    """Add terms of costs (..., terms) of two parts; of a peak take the larger."""
    return np.where(peak, np.maximum(a, b), a + b)
