"""Architectures that keep a budget, each equally likely. No torch.

Enters: a space, upper bounds, a generator. Leaves: genes. Costs are rounded down to a grid, so the architectures whose
rounded costs fit are a superset of the feasible ones; they are counted exactly, part by part from the last (dynamic
programming), and drawn in proportion to the counts; the few that break a true bound are drawn again. Rejection from
a uniform superset is uniform. EEEA's redraw rule stands beside it, as published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.records import InfeasibleBudgetError, InputError

from .budget import COUNTED, Cost, Floats, Part, check_feasible, costs_of, opaque_costs, parts_at
from .counts import count_genes
from .space import Genes, Space

__all__ = ["FeasibleSampler", "check_feasible", "eeea_initial", "sample_feasible"]

Ints = NDArray[np.int64]

# Grid steps for one, two, three, four or more bounds: finer rejects less, and tables stay under some 65,000 cells.
_GRID_STEPS = (2048, 128, 40, 16)
_MAX_DRAWS = 2_000_000
_CHUNK_CELLS = 4_000_000
# Redraws of EEEA's rule before it is called hopeless.
_MAX_REDRAWS = 1_000_000


def sample_feasible(
    space: Space,
    bounds: Mapping[str, float],
    n: int,
    rng: np.random.Generator,
    num_classes: int = 1000,
    in_channels: int = 3,
    cost: Cost | None = None,
) -> Genes:
    """Draw n genotypes (with replacement), uniform over the distinct architectures that keep all bounds.

    `cost` gives what is not counted here, e.g. latencies. Raises InfeasibleBudgetError when no architecture fits.
    """
    return FeasibleSampler(space, bounds, num_classes, in_channels, cost).draw(n, rng)


def eeea_initial(
    space: Space,
    n: int,
    rng: np.random.Generator,
    max_params: float,
    num_classes: int = 1000,
    in_channels: int = 3,
) -> Genes:
    """Draw EEEA's initial population: each random genome is redrawn until its params < max_params (there: 7 M)."""
    check_feasible(space, {"params": np.nextafter(max_params, 0)}, num_classes, in_channels)
    kept = space.random(0, rng)
    drawn = 0
    while len(kept) < n:
        if drawn >= _MAX_REDRAWS:
            raise InputError(
                f"EEEA's redraw rule found {len(kept)} of {n} archs under {max_params:g} params in {drawn} draws: "
                "raise --max-params or use the default strategy, which draws feasible archs directly"
            )
        genes = space.random(max(n, 256), rng)
        drawn += len(genes)
        kept = np.concatenate([kept, genes[count_genes(space, genes, num_classes, in_channels).params < max_params]])
    return kept[:n]


class FeasibleSampler:
    """Counts once, draws often."""

    def __init__(
        self,
        space: Space,
        bounds: Mapping[str, float],
        num_classes: int = 1000,
        in_channels: int = 3,
        cost: Cost | None = None,
    ) -> None:
        check_feasible(space, bounds, num_classes, in_channels, cost)
        self.space, self.bounds, self.cost = space, dict(bounds), cost
        self._numbers = (num_classes, in_channels)
        opaque = opaque_costs(space, bounds, cost)
        summed = {name: bound for name, bound in bounds.items() if name not in opaque}
        parts = (parts_at(space, r, list(summed), *self._numbers, cost) for r in space.resolutions)
        self._plans = [plan for plan in (_plan(group, summed) for group in parts) if plan is not None]
        self.num_draws = 0  # how many were drawn so far, rejected ones counted

    def draw(self, n: int, rng: np.random.Generator) -> Genes:
        """Draw n genotypes, uniform over the feasible architectures."""
        totals = np.array([plan.total for plan in self._plans])
        kept, drawn = [np.zeros((0, self.space.num_genes), dtype=np.int64)], 0
        missing = n
        while missing > 0:
            if drawn >= _MAX_DRAWS:
                raise InfeasibleBudgetError(
                    f"only {n - missing} of {n} wanted architectures of {self.space.name} met {self._told()} "
                    f"in {drawn} draws: raise a bound"
                )
            want = int(min(20_000, max(64, 1.2 * missing * max(1.0, drawn / max(1, n - missing)))))
            numbers = rng.multinomial(want, totals / totals.sum())
            genes = [plan.draw(int(k), rng) for plan, k in zip(self._plans, numbers, strict=True) if k]
            fresh = rng.permutation(np.concatenate(genes))
            drawn += want
            kept.append(fresh[self._feasible(fresh)][:missing])
            missing -= len(kept[-1])
        self.num_draws += drawn
        return np.concatenate(kept)

    def _feasible(self, genes: Genes) -> NDArray[np.bool_]:
        if not self.bounds:
            return np.ones(len(genes), dtype=np.bool_)
        costs = costs_of(self.space, genes, list(self.bounds), *self._numbers, self.cost)
        return np.asarray((costs <= np.array(list(self.bounds.values()))).all(axis=1))

    def _told(self) -> str:
        return " and ".join(f"{name} <= {bound:g}" for name, bound in self.bounds.items())


@dataclass(frozen=True)
class _Entries:
    """Choices of a part that share states and grid steps: `size[k]` of them from `order[start[k]]` on."""

    part: Part
    state_in: Ints
    state_out: Ints
    steps: Ints  # (entries, bounds)
    start: Ints
    size: Ints
    order: Ints
    after: Floats  # (states, *grid): how many completions by the later parts fit into what is left


@dataclass(frozen=True)
class _Plan:
    entries: tuple[_Entries, ...]
    grid: tuple[int, ...]
    total: float

    def draw(self, n: int, rng: np.random.Generator) -> Genes:
        """Draw n genotypes, uniform over those whose rounded costs fit the grid."""
        genes = np.zeros((n, self.entries[0].part.rows.shape[1]), dtype=np.int64)
        state = np.zeros(n, dtype=np.int64)
        left = np.tile(np.array(self.grid, dtype=np.int64) - 1, (n, 1))
        for entries in self.entries:
            chosen = _choose(entries, self.grid, state, left, rng)
            inside = np.floor(rng.random(n) * entries.size[chosen]).astype(np.int64)
            rows = entries.part.rows[entries.order[entries.start[chosen] + inside]]
            columns = [*entries.part.columns, -1]
            genes[:, columns] = rows[:, columns]
            state, left = entries.state_out[chosen], left - entries.steps[chosen]
        return genes


def _plan(parts: list[Part], bounds: Mapping[str, float]) -> _Plan | None:
    """Count, from the last part back, how many architectures fit the grid; None when none does."""
    names = list(bounds)
    for j, name in enumerate(names):
        if name == "peak_activation_bytes":  # a maximum is kept exactly when every part keeps it
            parts = [part.keep(np.flatnonzero(part.costs[:, j] <= bounds[name])) for part in parts]
    if any(len(part.rows) == 0 for part in parts):
        return None
    summed = [j for j, name in enumerate(names) if name != "peak_activation_bytes"]
    # A bound that the costliest choices keep says nothing.
    summed = [j for j in summed if sum(part.costs[:, j].max() for part in parts) > bounds[names[j]]]
    slack = {j: bounds[names[j]] - sum(part.costs[:, j].min() for part in parts) for j in summed}
    if any(value < 0 for value in slack.values()):
        return None
    most = _GRID_STEPS[min(len(summed), len(_GRID_STEPS)) - 1]
    exact = {j: names[j] in COUNTED and slack[j] <= most for j in summed}  # whole numbers: a step of one is exact
    grid = tuple(int(slack[j]) + 1 if exact[j] else most + 1 for j in summed)
    after = np.ones((1, *grid))
    plan: list[_Entries] = []
    for part in reversed(parts):
        steps = np.zeros((len(part.rows), len(summed)), dtype=np.int64)
        for k, j in enumerate(summed):
            # The tiny factor keeps rounding from lifting a sum of steps over the grid.
            width = 1.0 if exact[j] else max(slack[j], 1e-300) / most * (1 + 1e-9)
            steps[:, k] = np.minimum(np.floor((part.costs[:, j] - part.costs[:, j].min()) / width), 2**31)
        fits = np.flatnonzero((steps < np.array(grid, dtype=np.int64)).all(axis=1))
        entries = _entries(part.keep(fits), steps[fits], after)
        plan.append(entries)
        after = _completions(entries, grid)
    total = float(after[(0, *(size - 1 for size in grid))])
    return _Plan(tuple(reversed(plan)), grid, total) if total > 0 else None


def _entries(part: Part, steps: Ints, after: Floats) -> _Entries:
    keys = np.column_stack([part.state_in, part.state_out, steps])
    unique, inverse, size = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(inverse.reshape(-1), kind="stable")
    start = np.concatenate([[0], np.cumsum(size)[:-1]]).astype(np.int64)
    return _Entries(part, unique[:, 0], unique[:, 1], unique[:, 2:], start, size.astype(np.int64), order, after)


def _completions(entries: _Entries, grid: tuple[int, ...]) -> Floats:
    """Count the ways to finish from each state before this part with each rest of the budget, (states, *grid)."""
    counts = np.zeros((int(entries.state_in.max(initial=0)) + 1, *grid))
    for before, behind, steps, size in zip(
        entries.state_in.tolist(),
        entries.state_out.tolist(),
        entries.steps.tolist(),
        entries.size.tolist(),
        strict=True,
    ):
        into = tuple(slice(step, None) for step in steps)
        source = tuple(slice(None, width - step) for step, width in zip(steps, grid, strict=True))
        counts[(before, *into)] += size * entries.after[(behind, *source)]
    return counts


def _choose(entries: _Entries, grid: tuple[int, ...], state: Ints, left: Ints, rng: np.random.Generator) -> Ints:
    """Pick an entry for each sample, in proportion to its choices times their completions."""
    strides = np.array([int(np.prod(grid[k + 1 :])) for k in range(len(grid))], dtype=np.int64)
    cells = int(np.prod(grid))
    flat = entries.after.reshape(-1)
    where, group = np.unique(np.column_stack([state, left]), axis=0, return_inverse=True)
    group = group.reshape(-1)
    chosen = np.zeros(len(state), dtype=np.int64)
    draws = rng.random(len(state))
    offsets = entries.state_out * cells - entries.steps @ strides
    chunk = max(1, _CHUNK_CELLS // len(entries.size))
    for first in range(0, len(where), chunk):
        some = where[first : first + chunk]
        fits = some[:, :1] == entries.state_in
        for k in range(len(grid)):
            fits &= some[:, 1 + k, None] >= entries.steps[:, k]
        at = np.where(fits, (some[:, 1:] @ strides)[:, None] + offsets, 0)
        sums = np.cumsum(np.where(fits, entries.size * flat[at], 0.0), axis=1)
        for member in np.flatnonzero((group >= first) & (group < first + chunk)).tolist():
            row = sums[group[member] - first]
            chosen[member] = np.searchsorted(row, draws[member] * row[-1], side="right")
    return chosen
