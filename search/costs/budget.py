"""Whether any architecture keeps a budget, proven, and the nearest budget that one keeps. No torch.

`check_feasible` raises InfeasibleBudgetError. Counted costs are sums (the peak: a maximum) over parts of the network
that share at most a width, so folding the parts' Pareto fronts of cost vectors gives the exact front of whole
architectures: a budget is feasible exactly when a point of it lies within the bounds. RAM is a peak and a sum, folded
apart and added at the end. Given costs, such as a latency model's, are any function of the genes and are searched by
descent.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.records import InfeasibleBudgetError, InputError
from tutelage.search.spaces.space import Genes, Space

from .counts import CostTable, cost_tables, count_genes

Floats = NDArray[np.float64]
Cost = Callable[[Genes], Mapping[str, Floats]]  # genes (n, num_genes) -> each named cost (n,)

# Where a counted cost stands in a table's sums, and what one unit there is worth in the cost's own unit.
_SUMS: dict[str, tuple[int, int]] = {
    "params": (0, 1),
    "size_bytes": (0, 4),
    "macs": (1, 1),
    "activations": (2, 1),
    "int8_bytes": (3, 1),
    "ram_bytes": (4, 1),
    "int8_ram_bytes": (5, 1),
    "int8_file_bytes": (6, 1),
}
# What one element of the peak is worth; RAM is its peak and what persists, a sum.
_PEAKS = {"peak_activation_bytes": 4, "ram_bytes": 4, "int8_ram_bytes": 1}
COUNTED = (*_SUMS, "peak_activation_bytes")
_OPTIONS = {  # of `tutelage search`
    **{"macs": "--max-macs", "params": "--max-params", "ram_bytes": "--max-ram", "int8_ram_bytes": "--max-ram"},
    **{"size_bytes": "--max-size", "int8_file_bytes": "--max-size"},
}
_DESCENT_STARTS = 16


@dataclass(frozen=True)
class Term:
    """A counted cost, or one of the two whose sum it is: the largest of the parts' (`peak`), or their sum."""

    name: str
    peak: bool


def terms_of(names: Sequence[str]) -> list[Term]:
    """List the terms of counted costs, in their order."""
    kinds = [(name, kind) for name in names for kind in (True, False)]
    return [Term(name, peak) for name, peak in kinds if name in (_PEAKS if peak else _SUMS)]


def collapsed(costs: Floats, names: Sequence[str]) -> Floats:
    """Add up the terms of each cost: (..., terms) to (..., names)."""
    terms = terms_of(names)
    columns = [costs[..., [term.name == name for term in terms]].sum(axis=-1) for name in names]
    return np.stack(columns, axis=-1) if columns else costs


@dataclass(frozen=True)
class Part:
    """All choices for one part of the network: `rows` (m, num_genes) with zeros elsewhere, `costs` (m, terms).

    `state_in` and `state_out` (m,) are the widths shared with the part before and after (0 where there is one width).
    """

    columns: tuple[int, ...]
    rows: Genes
    costs: Floats
    state_in: NDArray[np.int64]
    state_out: NDArray[np.int64]

    def keep(self, some: NDArray[np.intp]) -> Part:
        """Take some of the choices, by number."""
        return Part(self.columns, self.rows[some], self.costs[some], self.state_in[some], self.state_out[some])


def check_feasible(
    space: Space,
    bounds: Mapping[str, float],
    num_classes: int = 1000,
    in_channels: int = 3,
    cost: Cost | None = None,
) -> None:
    """Raise InfeasibleBudgetError unless some architecture keeps all bounds at once.

    Counted costs are proven. A given cost is searched by descent from many starts; the message says "smallest found".
    """
    check_bounds(bounds, cost, space)
    if not bounds:
        return
    names = [name for name in bounds if name in COUNTED]
    if names:
        fronts = [front_at(space, r, names, num_classes, in_channels) for r in space.resolutions]
        _raise_unless_within(space, np.concatenate(fronts), {name: bounds[name] for name in names})
    for name in [name for name in bounds if name not in COUNTED]:
        least = _descend(space, name, bounds, num_classes, in_channels, cost)
        if least > bounds[name]:
            rest = {other: bounds[other] for other in names}
            raise InfeasibleBudgetError(_message(space, name, bounds[name], least, rest, "smallest found"))


def check_bounds(bounds: Mapping[str, float], cost: Cost | None, space: Space) -> None:
    """Raise InputError for a bound that is no positive number or whose cost nobody gives."""
    given = list(cost(space.random(1, np.random.default_rng(0)))) if cost is not None else []
    for name, bound in bounds.items():
        if not (bound > 0 and math.isfinite(bound)):
            raise InputError(f"bound {name} = {bound} must be a positive finite number")
        if name not in COUNTED and name not in given:
            near = difflib.get_close_matches(name, [*COUNTED, *given], n=1)
            raise InputError(
                f"no cost {name!r} to bound: "
                + (f"did you mean {near[0]}?" if near else f"there are {', '.join([*COUNTED, *given])}")
            )


def costs_of(
    space: Space, genes: Genes, names: Sequence[str], num_classes: int, in_channels: int, cost: Cost | None
) -> Floats:
    """Evaluate the named costs, counted or given, (n, len(names))."""
    counted = any(name in COUNTED for name in names)
    counts = count_genes(space, genes, num_classes, in_channels) if counted else None
    given = cost(genes) if cost is not None and any(name not in COUNTED for name in names) else {}
    columns = [getattr(counts, name) if name in COUNTED else given[name] for name in names]
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def parts_at(space: Space, r: int, names: Sequence[str], num_classes: int, in_channels: int) -> list[Part]:
    """List every choice for every part at resolution r with its part of the named counted costs."""
    groups, terms = _grouped(space, r, num_classes, in_channels), terms_of(names)
    columns = [_columns_of(tables) for tables in groups]
    parts = []
    for i, tables in enumerate(groups):
        sizes = [int(space.num_choices[column]) for column in columns[i]]
        grid = np.indices(sizes).reshape(len(sizes), -1).T if sizes else np.zeros((1, 0), dtype=np.int64)
        rows = np.zeros((len(grid), space.num_genes), dtype=np.int64)
        rows[:, columns[i]] = grid
        rows[:, -1] = space.resolutions.index(r)
        rows = rows[(space.canonical(rows) == rows).all(axis=1)]
        costs = np.zeros((len(rows), len(terms)))
        for j, term in enumerate(terms):
            costs[:, j] = _counted_costs(rows, tables, term)
        before = rows[:, _shared(columns[i - 1], columns[i])] if i else rows[:, :0]
        after = rows[:, _shared(columns[i], columns[i + 1])] if i + 1 < len(groups) else rows[:, :0]
        parts.append(Part(tuple(columns[i]), rows, costs, before.sum(axis=1), after.sum(axis=1)))
    return parts


def front_at(space: Space, r: int, names: Sequence[str], num_classes: int, in_channels: int) -> Floats:
    """Give the exact Pareto front of the counted costs over all architectures at resolution r, (points, names)."""
    maximum = np.array([term.peak for term in terms_of(names)])
    fronts = {0: np.zeros((1, len(maximum)))}
    for part in parts_at(space, r, names, num_classes, in_channels):
        grown: dict[int, list[Floats]] = {}
        for state_in, state_out in np.unique(np.stack([part.state_in, part.state_out], axis=1), axis=0).tolist():
            own = _nondominated(part.costs[(part.state_in == state_in) & (part.state_out == state_out)])
            pairs = fronts[state_in][:, None, :], own[None, :, :]
            both = np.where(maximum, np.maximum(*pairs), pairs[0] + pairs[1])
            grown.setdefault(state_out, []).append(_nondominated(both.reshape(-1, len(maximum))))
        fronts = {state: _nondominated(np.concatenate(points)) for state, points in grown.items()}
    return _nondominated(collapsed(fronts[0], names))


def _grouped(space: Space, r: int, num_classes: int, in_channels: int) -> list[list[CostTable]]:
    tables = cost_tables(space, r, num_classes, in_channels)
    return [[table for table in tables if table.part == part] for part in range(tables[-1].part + 1)]


def _columns_of(tables: Sequence[CostTable]) -> list[int]:
    return sorted({column for table in tables for column in table.columns})


def _shared(before: Sequence[int], after: Sequence[int]) -> list[int]:
    shared = [column for column in after if column in before]
    assert len(shared) <= 1, "two parts of a network share more than a width"
    return shared


def _counted_costs(rows: Genes, tables: Sequence[CostTable], term: Term) -> Floats:
    columns = np.ascontiguousarray(rows.T)
    if term.peak:
        peaks = np.stack([table.peaks[table.rows(columns)] for table in tables]).astype(np.float64)
        return np.asarray(_PEAKS[term.name] * peaks.max(axis=0))
    place, unit = _SUMS[term.name]
    sums = np.stack([table.sums[table.rows(columns), place] for table in tables]).astype(np.float64)
    return np.asarray(unit * sums.sum(axis=0))


def _nondominated(points: Floats) -> Floats:
    """Keep the points no other is at most equal to in every cost; one of equals."""
    points = np.unique(points, axis=0)  # sorted by the first cost, then the next
    if points.shape[1] == 1:
        return points[:1]
    kept = np.zeros((0, points.shape[1]))
    while len(points):
        best = points[:1]
        kept = np.concatenate([kept, best])
        points = points[~(points >= best).all(axis=1)]
    return kept


def _raise_unless_within(space: Space, front: Floats, bounds: Mapping[str, float]) -> None:
    limits = np.array(list(bounds.values()))
    if (front <= limits).all(axis=1).any():
        return
    for j, (name, bound) in enumerate(bounds.items()):
        if front[:, j].min() > bound:
            raise InfeasibleBudgetError(_message(space, name, bound, front[:, j].min(), {}, "smallest"))
    raises = []
    for j, (name, bound) in enumerate(bounds.items()):
        others = np.delete(front <= limits, j, axis=1).all(axis=1)
        if others.any():
            least = front[others, j].min()
            raises.append((least / bound, name, bound, least))
    if not raises:
        kept = " and ".join(f"{name} <= {_amount(name, bound)}" for name, bound in bounds.items())
        raise InfeasibleBudgetError(f"no architecture of {_where(space)} has {kept}: raise more than one of them")
    _, name, bound, least = min(raises)
    rest = {other: value for other, value in bounds.items() if other != name}
    raise InfeasibleBudgetError(_message(space, name, bound, least, rest, "smallest"))


def _descend(
    space: Space, name: str, bounds: Mapping[str, float], num_classes: int, in_channels: int, cost: Cost | None
) -> float:
    """Search the least value of a given cost over architectures that keep the counted bounds, by steepest descent."""
    counted = [other for other in bounds if other in COUNTED]
    limits = np.array([bounds[other] for other in counted])
    starts = space.random(_DESCENT_STARTS, np.random.default_rng(0))
    starts = np.concatenate([starts, space.encode([space.smallest()])])
    best = math.inf
    for start in starts:
        here, value = start, math.inf
        while True:
            near = np.concatenate([here[None], space.neighbours(here)])
            costs = costs_of(space, near, [*counted, name], num_classes, in_channels, cost)
            excess = np.maximum(costs[:, :-1] / limits - 1, 0).sum(axis=1) if counted else np.zeros(len(near))
            order = np.lexsort((costs[:, -1], excess))[0]
            least = costs[order, -1] if excess[order] == 0 else math.inf
            if order == 0 or (least >= value and excess[0] == 0):
                break
            here, value = near[order], least
        best = min(best, value, least)
    return best


def _message(space: Space, name: str, bound: float, least: float, rest: Mapping[str, float], how: str) -> str:
    kept = " and ".join(f"{other} <= {_amount(other, value)}" for other, value in rest.items())
    option = _OPTIONS.get(name, "--max-latency" if name.startswith("latency") else f"the bound on {name}")
    return (
        f"no architecture of {_where(space)} has {name} <= {_amount(name, bound)}"
        + (f" with {kept}" if kept else "")
        + f": the {how} has {_amount(name, least)}; "
        + f"raise {option} to at least {_amount(name, least).replace(' ', '')}"
    )


def _where(space: Space) -> str:
    sides = space.resolutions
    return f"{space.name} at r={sides[0]}" + ("" if len(sides) == 1 else f" to {sides[-1]}")


def _amount(name: str, value: float) -> str:
    """Write a value with its unit, rounded up at the fourth digit so that the written bound can be met."""
    unit, suffix = (1.0, "ms") if "latency" in name else (1.0, "")
    if name in COUNTED:
        unit = next((scale for scale in (1e9, 1e6, 1e3) if value >= scale), 1.0)
        suffix = {1e9: "G", 1e6: "M", 1e3: "k", 1.0: ""}[unit] + ("B" if name.endswith("bytes") else "")
    scaled = value / unit
    digits = max(0, 3 - math.floor(math.log10(scaled))) if scaled > 0 else 0
    rounded = math.ceil(round(scaled * 10**digits, 6)) / 10**digits
    return f"{rounded:.{digits}f}".rstrip("0").rstrip(".") + (f" {suffix}" if suffix else "")
