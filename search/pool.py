"""Feasible genotypes that were not asked before. Enters: a problem and the genes asked so far. Leaves: new genes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tutelage.records import InfeasibleBudgetError

from .objectives import Problem
from .sample import check_feasible, sample_feasible
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

    Fewer come back only when the feasible archs run out. When the bounds of cheap callables (latency) reject nearly
    all, the rest are mutants of the feasible ones found. Raises InfeasibleBudgetError when nothing meets the bounds.
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
            drawn = sample_feasible(
                problem.space,
                problem.counted_bounds,
                2 * n,
                rng,
                num_classes=problem.num_classes,
                in_channels=problem.in_channels,
            )
        else:
            drawn = problem.space.random(2 * n, rng)
        more = pick_new(problem, drawn, n - len(found), np.concatenate([asked, found]))
        found = np.concatenate([found, more])
    return found


def check_bounds(problem: Problem) -> None:
    """Raise InfeasibleBudgetError, naming the bound and the nearest feasible value, when no arch keeps the bounds.

    Counts are proven by `sample.check_feasible`. A bound on a callable is refused when neither the space's smallest
    arch, nor any of its one-step neighbours, nor 2,000 feasible draws keep it: a search, not a proof.
    """
    if problem.counted_bounds:
        check_feasible(problem.space, problem.counted_bounds, problem.num_classes, problem.in_channels)
    others = {name: bound for name, bound in problem.bounds.items() if name not in problem.counted_bounds}
    if not others:
        return
    rng = np.random.default_rng(0)
    smallest = problem.space.encode([problem.space.smallest()])
    tried = np.concatenate([smallest, problem.space.neighbours(smallest[0]), problem.space.random(500, rng)])
    for _ in range(4):
        cheap = problem.cheap(tried)
        if problem.feasible(cheap).any():
            return
        excess = np.max([cheap[name] / bound for name, bound in problem.bounds.items()], axis=0)
        best = tried[np.argsort(excess, kind="stable")[:50]]
        tried = np.concatenate([best, problem.space.mutate(best[rng.integers(0, len(best), 500)], rng, 0.1)])
    cheap = problem.cheap(tried)
    excess = np.max([cheap[name] / bound for name, bound in problem.bounds.items()], axis=0)
    nearest = int(np.argmin(excess))
    worst = max(problem.bounds, key=lambda name: float(cheap[name][nearest]) / problem.bounds[name])
    raise InfeasibleBudgetError(
        f"no arch of {problem.space.name} found keeps {worst} <= {problem.bounds[worst]:g} with the other bounds: "
        f"the nearest feasible value is {float(cheap[worst][nearest]):.4g}"
    )
