"""NSGA-II (Deb et al. 2002) on the scored architectures themselves: survivors of all batches so far are the parents."""

from __future__ import annotations

import numpy as np

from tutelage.search.objectives import Problem

from .draws import fill_feasible, filled
from .genetic import breed, survive
from .strategy import History, Proposal, Strategy

# Ten are replaced at a time: at 200 evaluations three whole generations are too few to move a front.
_POPULATION, _BATCH = 50, 10


def propose(problem: Problem, history: History, n: int, rng: np.random.Generator) -> Proposal:
    """Draw the first population, then breed from the survivors."""
    if not history.started:
        return Proposal(fill_feasible(problem, n, rng, history.genes))
    return Proposal(children_of_survivors(problem, history, n, rng, _POPULATION))


def children_of_survivors(
    problem: Problem, history: History, n: int, rng: np.random.Generator, population: int
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Breed n new feasible children of the best `population`, (n, num_genes); draws make up for missing ones."""
    parents = survive(history.points, history.batches, history.feasible, population)
    children = breed(problem, history.genes[parents], history.points[parents], 4 * n, rng)
    return filled(problem, history.genes, children, n, rng)


NSGA2 = Strategy("nsga2", "NSGA-II on the scored architectures (Deb et al. 2002)", _POPULATION, _BATCH, propose)
