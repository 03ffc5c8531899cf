"""LINAS (DyNAS-T, Cummings et al. 2022): NSGA-II on a predictor fitted on all scored so far; the best n are proposed.

The predictor is theirs: support vector regression on one-hot genes, one for each expensive objective.
"""

from __future__ import annotations

import numpy as np

from tutelage.search.encoding import Floats
from tutelage.search.objectives import Problem
from tutelage.search.spaces.space import Genes

from .draws import fill_feasible, filled
from .genetic import run_nsga2
from .strategy import History, Proposal, Strategy

_POPULATION = 50  # a batch too, as in the recorded runs of the public table
_GENERATIONS = 100


def propose(problem: Problem, history: History, n: int, rng: np.random.Generator) -> Proposal:
    """Draw the first population, then run NSGA-II on the predictor."""
    if not history.started:
        return Proposal(fill_feasible(problem, n, rng, history.genes))
    from sklearn.svm import SVR

    codes = np.eye(int(problem.space.num_choices.max()) + 1)
    active = problem.space.active

    def one_hot(genes: Genes) -> Floats:
        shown: Floats = codes[np.where(active(genes), genes + 1, 0)].reshape(len(genes), -1)
        return shown

    models = {}
    for column, objective in enumerate(problem.objectives):
        if not objective.cheap:
            values = history.points[:, column]
            middle, spread = float(values.mean()), float(values.std()) or 1.0
            model = SVR(kernel="rbf", C=10.0, epsilon=0.05).fit(one_hot(history.genes), (values - middle) / spread)
            models[objective.name] = (model, middle, spread)

    def predict(genes: Genes) -> dict[str, Floats]:
        shown = one_hot(genes)
        return {name: mid + spread * model.predict(shown) for name, (model, mid, spread) in models.items()}

    start = np.concatenate([history.genes[history.feasible], fill_feasible(problem, n, rng, history.genes)])
    visited = run_nsga2(problem, predict, start, rng, population=_POPULATION, generations=_GENERATIONS)
    return Proposal(filled(problem, history.genes, visited.best_first(), n, rng))


LINAS = Strategy(
    "linas", "NSGA-II on a predictor of the score (Cummings et al. 2022)", _POPULATION, _POPULATION, propose
)
