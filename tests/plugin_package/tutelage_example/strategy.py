"""A search strategy: of many random architectures within the bounds, the smallest ones first."""

import numpy as np

from tutelage.search.objectives import Problem
from tutelage.search.samplers.draws import draw_feasible
from tutelage.search.samplers.strategy import History, Proposal, Strategy


def propose(problem: Problem, history: History, n: int, rng: np.random.Generator) -> Proposal:
    """Give n architectures that were never evaluated; `rng` is the search's own, so that a stopped one goes on."""
    drawn = draw_feasible(problem, 4 * n, rng, history.genes)
    return Proposal(drawn[np.argsort(drawn.sum(axis=1), kind="stable")[:n]])


SMALLEST = Strategy("smallest", "the smallest of four times as many random ones", 8, 8, propose)
