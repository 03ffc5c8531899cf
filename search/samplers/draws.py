"""Feasible architectures that were not evaluated before, for the strategies: drawn, picked, or all that are left."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from tutelage.search.objectives import Problem
from tutelage.search.spaces.space import Genes

logger = logging.getLogger(__name__)

# Draws of one batch before a strategy stops: `random`, which takes nothing but draws, and the others, which may breed.
RANDOM_DRAWS = 200_000
_FILL_DRAWS = 20_000
_MUTANT_ROUNDS = 40


def new_rows(genes: Genes, evaluated: Genes) -> NDArray[np.int64]:
    """List the rows that stand neither in `evaluated` nor earlier in `genes`, in order."""
    seen = {row.tobytes() for row in np.ascontiguousarray(evaluated, dtype=np.int64)}
    fresh = []
    for i, row in enumerate(np.ascontiguousarray(genes, dtype=np.int64)):
        key = row.tobytes()
        if key not in seen:
            seen.add(key)
            fresh.append(i)
    return np.array(fresh, dtype=np.int64)


def remaining(problem: Problem, evaluated: Genes) -> Genes | None:
    """List all feasible archs that are not in `evaluated`; None where the feasible ones are too many to list."""
    if problem.listed is None:
        return None
    return problem.listed[new_rows(problem.listed, evaluated)]


def pick_new(problem: Problem, genes: Genes, n: int, evaluated: Genes) -> Genes:
    """Give the first n rows that are new and keep every bound."""
    fresh = genes[new_rows(genes, evaluated)]
    if not len(fresh):
        return fresh
    return fresh[problem.feasible(problem.cheap(fresh))][:n]


def draw_feasible(
    problem: Problem, n: int, rng: np.random.Generator, evaluated: Genes, max_draws: int = RANDOM_DRAWS
) -> Genes:
    """Draw n new archs, each gene uniform over its choices, redrawn until all bounds hold and the arch is new.

    This is `Space.random` conditioned on the bounds, whatever they are. Fewer come back when the feasible archs run
    out, or when `max_draws` draws held no more (bounds on costs that are no sums over parts are kept by redrawing).
    """
    left = remaining(problem, evaluated)
    if left is not None:  # the largest log p + Gumbel noise first is drawing without replacement
        order = np.argsort(-(problem.space.log_probability(left) + rng.gumbel(size=len(left))), kind="stable")
        return left[order[:n]]
    kept = np.zeros((0, problem.space.num_genes), dtype=np.int64)
    before = problem.sampler.num_draws
    while len(kept) < n and problem.sampler.num_draws - before < max_draws:
        rest = max_draws - (problem.sampler.num_draws - before)
        drawn = problem.sampler.draw_within(2 * (n - len(kept)), rng, rest)
        seen = np.concatenate([evaluated, kept])
        kept = np.concatenate([kept, drawn[new_rows(drawn, seen)][: n - len(kept)]])
    return kept


def fill_feasible(problem: Problem, n: int, rng: np.random.Generator, evaluated: Genes) -> Genes:
    """Give n new archs as `draw_feasible` does; where draws keep too few, mutants of feasible ones make up the number.

    For strategies that need a start or some variety, not a sample: mutants are not distributed as draws are.
    """
    drawn = draw_feasible(problem, n, rng, evaluated, _FILL_DRAWS)
    if len(drawn) == n or problem.listed is not None:
        return drawn
    logger.info("%d of %d draws keep the bounds: the rest are mutants of feasible architectures", len(drawn), n)
    smallest = problem.space.encode([problem.space.smallest()])
    known = evaluated[problem.feasible(problem.cheap(evaluated))] if len(evaluated) else evaluated
    for _ in range(_MUTANT_ROUNDS):
        if len(drawn) >= n:
            break
        parents = np.concatenate([drawn, known, smallest])
        mutants = problem.space.mutate(parents[rng.integers(0, len(parents), 4 * n)], rng, 0.2)
        more = pick_new(problem, mutants, n - len(drawn), np.concatenate([evaluated, drawn]))
        drawn = np.concatenate([drawn, more])
    return drawn


def filled(problem: Problem, evaluated: Genes, wished: Genes, n: int, rng: np.random.Generator) -> Genes:
    """Take the first n new feasible ones of the wished, and fill up with feasible draws."""
    chosen = pick_new(problem, wished, n, evaluated)
    if len(chosen) < n:
        more = fill_feasible(problem, n - len(chosen), rng, np.concatenate([evaluated, chosen]))
        chosen = np.concatenate([chosen, more])
    return chosen
