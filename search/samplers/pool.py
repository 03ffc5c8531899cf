"""Feasible architectures that were not evaluated before: drawn at random, picked, or all that are left."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from tutelage.search.costs.budget import check_feasible
from tutelage.search.objectives import Problem
from tutelage.search.spaces.space import Genes

logger = logging.getLogger(__name__)

# Draws of one batch before a strategy stops: `random`, which takes nothing but draws, and the others, which may breed.
RANDOM_DRAWS = 200_000
_FILL_DRAWS = 20_000
_MUTANT_ROUNDS = 40


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


def remaining(problem: Problem, asked: Genes) -> Genes | None:
    """List all feasible archs that are not in `asked`; None where the feasible ones are too many to list."""
    if problem.listed is None:
        return None
    return problem.listed[new_rows(problem.listed, asked)]


def pick_new(problem: Problem, genes: Genes, n: int, asked: Genes) -> Genes:
    """Give the first n rows that are new and keep every bound."""
    fresh = genes[new_rows(genes, asked)]
    if not len(fresh):
        return fresh
    return fresh[problem.feasible(problem.cheap(fresh))][:n]


def draw_feasible(
    problem: Problem, n: int, rng: np.random.Generator, asked: Genes, max_draws: int = RANDOM_DRAWS
) -> Genes:
    """Draw n new archs, each gene uniform over its choices, redrawn until all bounds hold and the arch is new.

    This is `Space.random` conditioned on the bounds, whatever they are. Fewer come back when the feasible archs run
    out, or when `max_draws` draws held no more (bounds on costs that are no sums over parts are kept by redrawing).
    """
    left = remaining(problem, asked)
    if left is not None:  # the largest log p + Gumbel noise first is drawing without replacement
        order = np.argsort(-(problem.space.log_probability(left) + rng.gumbel(size=len(left))), kind="stable")
        return left[order[:n]]
    found = np.zeros((0, problem.space.num_genes), dtype=np.int64)
    before = problem.sampler.num_draws
    while len(found) < n and problem.sampler.num_draws - before < max_draws:
        rest = max_draws - (problem.sampler.num_draws - before)
        drawn = problem.sampler.draw_within(2 * (n - len(found)), rng, rest)
        seen = np.concatenate([asked, found])
        found = np.concatenate([found, drawn[new_rows(drawn, seen)][: n - len(found)]])
    return found


def fill_feasible(problem: Problem, n: int, rng: np.random.Generator, asked: Genes) -> Genes:
    """Give n new archs as `draw_feasible` does; where draws find too few, mutants of feasible ones make up the number.

    For strategies that need a start or some variety, not a sample: mutants are not distributed as draws are.
    """
    found = draw_feasible(problem, n, rng, asked, _FILL_DRAWS)
    if len(found) == n or problem.listed is not None:
        return found
    logger.info("%d of %d draws keep the bounds: the rest are mutants of feasible architectures", len(found), n)
    smallest = problem.space.encode([problem.space.smallest()])
    known = asked[problem.feasible(problem.cheap(asked))] if len(asked) else asked
    for _ in range(_MUTANT_ROUNDS):
        if len(found) >= n:
            break
        parents = np.concatenate([found, known, smallest])
        mutants = problem.space.mutate(parents[rng.integers(0, len(parents), 4 * n)], rng, 0.2)
        more = pick_new(problem, mutants, n - len(found), np.concatenate([asked, found]))
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
    check_feasible(problem.space, problem.bounds, problem.num_classes, problem.in_channels, problem.given_cost)
