"""Feasible genotypes that were not asked before. Enters: a problem and the genes asked so far. Leaves: new genes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .budget import check_feasible
from .objectives import Problem
from .space import Genes

# Rounds of drawing before a space is taken for exhausted (all feasible archs asked) or a latency bound for unmet.
_ROUNDS = 40


def new_rows(genes: Genes, asked: Genes) -> NDArray[np.int64]:
    """List the rows that stand neither in `asked` nor earlier in `genes`, in order."""
    seen = {row.tobytes() for row in np.ascontiguousarray(asked, dtype=np.int64)}
    fresh = []
    for i, row in enumerate(np.ascontiguousarray(genes, dtype=np.int64)):
        key = row.tobytes()
        if key not in seen:
            seen.add(key)
            fresh.append(i)
    return np.array(fresh, dtype=np.int64)


def pick_new(problem: Problem, genes: Genes, n: int, asked: Genes) -> Genes:
    """Give the first n rows that are new and keep every bound."""
    fresh = genes[new_rows(genes, asked)]
    if not len(fresh):
        return fresh
    return fresh[problem.feasible(problem.cheap(fresh))][:n]


def draw_feasible(problem: Problem, n: int, rng: np.random.Generator, asked: Genes) -> Genes:
    """Draw up to n new archs, uniform over those that keep the counted bounds and, by rejection, the others too.

    Without counted bounds each gene is uniform, as `ofa` draws. Fewer come back only when the feasible archs run out.
    When the bounds of cheap callables (latency) reject nearly all, the rest are mutants of the feasible ones found.
    Raises InfeasibleBudgetError when nothing meets the counted bounds.
    """
    found = np.zeros((0, problem.space.num_genes), dtype=np.int64)
    smallest = problem.space.encode([problem.space.smallest()])
    for attempt in range(_ROUNDS):
        if len(found) >= n:
            break
        if attempt % 2 and (len(found) or attempt > 2):
            parents = np.concatenate([found, smallest])
            drawn = problem.space.mutate(parents[rng.integers(0, len(parents), 4 * n)], rng, 0.2)
        elif problem.counted_bounds:
            drawn = problem.sampler.draw(2 * n, rng)
        else:
            drawn = problem.space.random(2 * n, rng)
        more = pick_new(problem, drawn, n - len(found), np.concatenate([asked, found]))
        found = np.concatenate([found, more])
    return found


def check_bounds(problem: Problem) -> None:
    """Raise InfeasibleBudgetError, naming the bound and the nearest feasible value, when no arch keeps the bounds.

    A few hundred small and random archs are tried first: one that keeps the bounds is the quickest proof. Only when
    none does, `budget.check_feasible` proves the bounds empty (or knows better).
    """
    if not problem.bounds:
        return
    smallest = problem.space.encode([problem.space.smallest()])
    some = problem.space.random(200, np.random.default_rng(0))
    tried = np.concatenate([smallest, problem.space.neighbours(smallest[0]), some])
    if problem.feasible(problem.cheap(tried)).any():
        return
    cost = problem.given if problem.callables else None
    check_feasible(problem.space, problem.bounds, problem.num_classes, problem.in_channels, cost)
