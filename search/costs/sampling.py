"""Draw random architectures that keep a budget. No torch.

Random means one thing throughout: `Space.random`, every gene (depth, kernel, expand ratio, width, resolution) uniform
over its choices, as the `ofa` package, LINAS and EEEA draw. Bounds condition that measure and never replace it: the
result is what redrawing until all bounds hold would give. (Uniform over distinct architectures is another measure: a
stage of depth 4 has 81 times the variants of one of depth 2, so 89 % of all stages would have depth 4, not a third.)

Where redrawing rarely succeeds, `FeasibleSampler` draws within the bounds on counted costs, which are sums over parts
of the network, directly.
Costs are rounded down to a grid, so that the architectures whose rounded costs fit are a superset of the feasible ones;
their probability is summed exactly, part by part from the last (dynamic programming), and one is drawn in proportion;
the few that break a true bound are drawn again. `list_feasible` gives them all where there are few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.records import InfeasibleBudgetError
from tutelage.search.spaces.space import Genes, Space

from .budget import COUNTED, Cost, Floats, Part, Term, check_bounds, check_feasible, costs_of, parts_at, terms_of

Ints = NDArray[np.int64]

# Plain draws that decide how to draw on: from this fraction of feasible ones on, redrawing costs less than the tables.
_NUM_PILOT, _REDRAW_FROM = 1000, 0.02
# Grid steps for one, two, three, four or more bounds: finer rejects less, and tables stay under some 65,000 cells.
_GRID_STEPS = (2048, 128, 40, 16)
_MAX_DRAWS = 2_000_000
_CHUNK_CELLS = 4_000_000


class FeasibleSampler:
    """Draw genotypes as `Space.random` does, given that they keep all bounds; prepared once, drawn from often.

    `cost` gives what is not counted here, e.g. latencies; bounds on those are kept by redrawing. Raises
    InfeasibleBudgetError when no architecture keeps the bounds.
    """

    def __init__(
        self,
        space: Space,
        bounds: Mapping[str, float],
        num_classes: int = 1000,
        in_channels: int = 3,
        cost: Cost | None = None,
    ) -> None:
        self.space, self.bounds, self.cost = space, dict(bounds), cost
        self._numbers = (num_classes, in_channels)
        self.num_draws = 0  # how many were drawn so far, rejected ones counted
        self._plans: list[_Plan] = []  # none: plain draws
        check_bounds(bounds, cost, space)
        if not bounds:
            return
        kept = self._feasible(space.random(_NUM_PILOT, np.random.default_rng(0))).mean()
        if not kept:
            check_feasible(space, bounds, num_classes, in_channels, cost)
        if kept < _REDRAW_FROM:
            summed = {name: bound for name, bound in bounds.items() if name in COUNTED}
            parts = (parts_at(space, r, list(summed), *self._numbers) for r in space.resolutions)
            plans = (_plan(space, group, summed) for group in parts if summed)
            self._plans = [plan for plan in plans if plan is not None]

    def draw(self, n: int, rng: np.random.Generator) -> Genes:
        """Draw n genotypes; raises InfeasibleBudgetError when 2,000,000 draws hold fewer that keep the bounds."""
        kept = self.draw_within(n, rng, _MAX_DRAWS)
        if len(kept) < n:
            bounds = " and ".join(f"{name} <= {bound:g}" for name, bound in self.bounds.items())
            raise InfeasibleBudgetError(
                f"only {len(kept)} of {n} wanted architectures of {self.space.name} met {bounds} "
                f"in {_MAX_DRAWS} draws: raise a bound"
            )
        return kept

    def draw_within(self, n: int, rng: np.random.Generator, max_draws: int) -> Genes:
        """Draw up to n genotypes that keep the bounds, and stop short of n after `max_draws` draws."""
        kept, drawn, num_kept = [self.space.random(0, rng)], 0, 0
        while num_kept < n and drawn < max_draws:
            per_kept = max(1.0, drawn / max(1, num_kept))
            want = int(min(20_000, max_draws - drawn, max(64, 1.2 * (n - num_kept) * per_kept)))
            fresh = self._candidates(want, rng)
            drawn += want
            kept.append(fresh[self._feasible(fresh)][: n - num_kept])
            num_kept += len(kept[-1])
        self.num_draws += drawn
        return np.concatenate(kept)

    def _candidates(self, n: int, rng: np.random.Generator) -> Genes:
        if not self._plans:
            return self.space.random(n, rng)
        totals = np.array([plan.total for plan in self._plans])
        numbers = rng.multinomial(n, totals / totals.sum())
        genes = [plan.draw(int(k), rng) for plan, k in zip(self._plans, numbers, strict=True) if k]
        return rng.permutation(np.concatenate(genes))

    def _feasible(self, genes: Genes) -> NDArray[np.bool_]:
        if not self.bounds or not len(genes):
            return np.ones(len(genes), dtype=np.bool_)
        costs = costs_of(self.space, genes, list(self.bounds), *self._numbers, self.cost)
        return np.asarray((costs <= np.array(list(self.bounds.values()))).all(axis=1))


@dataclass(frozen=True)
class _Entries:
    """Choices of a part that share states, grid steps and probability: `size[k]` of them from `order[start[k]]` on."""

    part: Part
    state_in: Ints
    state_out: Ints
    steps: Ints  # (entries, bounds)
    start: Ints
    size: Ints
    mass: Floats  # (entries,): how probable they are together
    order: Ints
    after: Floats  # (states, *grid): how probable it is that the later parts fit into what is left


@dataclass(frozen=True)
class _Plan:
    entries: tuple[_Entries, ...]
    grid: tuple[int, ...]
    total: float

    def draw(self, n: int, rng: np.random.Generator) -> Genes:
        """Draw n genotypes of those whose rounded costs fit the grid, in proportion to their probability."""
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


def _plan(space: Space, parts: list[Part], bounds: Mapping[str, float]) -> _Plan | None:
    """Sum, from the last part back, how probable architectures are that fit the grid; None when none does."""
    terms = terms_of(list(bounds))
    limits = [bounds[term.name] - _least_other(parts, terms, j) for j, term in enumerate(terms)]
    for j, term in enumerate(terms):
        if term.peak:  # a maximum is kept exactly when every part keeps it
            parts = [part.keep(np.flatnonzero(part.costs[:, j] <= limits[j])) for part in parts]
    if any(len(part.rows) == 0 for part in parts):
        return None
    summed = [j for j, term in enumerate(terms) if not term.peak]
    # A bound that the costliest choices keep says nothing.
    summed = [j for j in summed if sum(part.costs[:, j].max() for part in parts) > limits[j]]
    slack = {j: limits[j] - sum(part.costs[:, j].min() for part in parts) for j in summed}
    if any(value < 0 for value in slack.values()):
        return None
    most = _GRID_STEPS[min(len(summed), len(_GRID_STEPS)) - 1]
    exact = {j: slack[j] <= most for j in summed}  # whole numbers: a step of one is exact
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
        part = part.keep(fits)
        entries = _entries(part, steps[fits], after, _log_probability(space, part))
        plan.append(entries)
        after = _completions(entries, grid)
    total = float(after[(0, *(size - 1 for size in grid))])
    return _Plan(tuple(reversed(plan)), grid, total) if total > 0 else None


def _least_other(parts: Sequence[Part], terms: Sequence[Term], j: int) -> float:
    """Give the least that the other term of a cost is: its bound holds for their sum, and one of both is held here."""
    total = 0.0
    for i, term in enumerate(terms):
        if term.name == terms[j].name and i != j:
            least = [float(part.costs[:, i].min()) for part in parts]
            total += max(least) if term.peak else sum(least)
    return total


def _log_probability(space: Space, part: Part) -> Floats:
    """Give how probable each choice of a part is, up to a factor that is the same for all architectures.

    Depths, widths and the resolution are left out: they are always active, so any value of theirs is as probable.
    """
    owned = [column for column in part.columns if space.genes[column].slot is not None]
    logs: Floats = -(space.active(part.rows)[:, owned] * np.log(space.num_choices[owned])).sum(axis=1)
    return logs


def _entries(part: Part, steps: Ints, after: Floats, logs: Floats) -> _Entries:
    values, kind = np.unique(np.round(logs, 9), return_inverse=True)
    keys = np.column_stack([part.state_in, part.state_out, kind.reshape(-1), steps])
    unique, inverse, size = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(inverse.reshape(-1), kind="stable")
    start = np.concatenate([[0], np.cumsum(size)[:-1]]).astype(np.int64)
    mass = size * np.exp(values[unique[:, 2]])
    return _Entries(part, unique[:, 0], unique[:, 1], unique[:, 3:], start, size.astype(np.int64), mass, order, after)


def _completions(entries: _Entries, grid: tuple[int, ...]) -> Floats:
    """Sum the ways to finish from each state before this part with each rest of the budget, (states, *grid)."""
    counts = np.zeros((int(entries.state_in.max(initial=0)) + 1, *grid))
    for before, behind, steps, mass in zip(
        entries.state_in.tolist(),
        entries.state_out.tolist(),
        entries.steps.tolist(),
        entries.mass.tolist(),
        strict=True,
    ):
        into = tuple(slice(step, None) for step in steps)
        source = tuple(slice(None, width - step) for step, width in zip(steps, grid, strict=True))
        counts[(before, *into)] += mass * entries.after[(behind, *source)]
    return counts


def _choose(entries: _Entries, grid: tuple[int, ...], state: Ints, left: Ints, rng: np.random.Generator) -> Ints:
    """Pick an entry for each sample, in proportion to its probability times that of its completions."""
    strides = np.array([int(np.prod(grid[k + 1 :])) for k in range(len(grid))], dtype=np.int64)
    cells = int(np.prod(grid))
    flat = entries.after.reshape(-1)
    where, group = np.unique(np.column_stack([state, left]), axis=0, return_inverse=True)
    group = group.reshape(-1)
    chosen = np.zeros(len(state), dtype=np.int64)
    draws = rng.random(len(state))
    offsets = entries.state_out * cells - entries.steps @ strides
    chunk = max(1, _CHUNK_CELLS // len(entries.mass))
    for first in range(0, len(where), chunk):
        some = where[first : first + chunk]
        fits = some[:, :1] == entries.state_in
        for k in range(len(grid)):
            fits &= some[:, 1 + k, None] >= entries.steps[:, k]
        at = np.where(fits, (some[:, 1:] @ strides)[:, None] + offsets, 0)
        sums = np.cumsum(np.where(fits, entries.mass * flat[at], 0.0), axis=1)
        for member in np.flatnonzero((group >= first) & (group < first + chunk)).tolist():
            row = sums[group[member] - first]
            chosen[member] = np.searchsorted(row, draws[member] * row[-1], side="right")
    return chosen
