"""EEEA (Termritthikun et al. 2021): the first genomes are redrawn until params <= beta, then NSGA-II.

beta is the bound on params where there is one, else the paper's 7 M; where the space has nothing that small, only the
bounds hold.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tutelage.records import InfeasibleBudgetError
from tutelage.search.objectives import Problem
from tutelage.search.spaces.space import Genes

from .draws import draw_feasible, fill_feasible, filled
from .nsga2 import children_of_survivors
from .strategy import History, Proposal, Strategy

_POPULATION = 40  # as published
_MAX_PARAMS = 7e6  # beta


def propose(problem: Problem, history: History, n: int, rng: np.random.Generator) -> Proposal:
    """Draw a first population below beta, then breed from the survivors."""
    if not history.started:
        small = _below_beta(problem, n, rng, history.genes)
        return Proposal(filled(problem, history.genes, small, n, rng))
    return Proposal(children_of_survivors(problem, history, n, rng, _POPULATION))


def _below_beta(problem: Problem, n: int, rng: np.random.Generator, evaluated: Genes) -> Genes:
    if "params" in problem.bounds:
        return draw_feasible(problem, n, rng, evaluated)
    small = replace(problem, bounds={**problem.bounds, "params": _MAX_PARAMS})
    try:
        return fill_feasible(small, n, rng, evaluated)
    except InfeasibleBudgetError:
        return evaluated[:0]


EEEA = Strategy(
    "eeea",
    "NSGA-II from a first population of few parameters (Termritthikun et al. 2021)",
    _POPULATION,
    _POPULATION,
    propose,
)
