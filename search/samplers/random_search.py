"""Random search: every gene uniform over its choices, redrawn until all bounds hold, as OFA's under bounds.

Bounds do not change the measure, and nothing but draws is proposed. `costs/sampling.py` says why architectures are not
equally likely.
"""

from __future__ import annotations

import numpy as np

from tutelage.search.objectives import Problem

from .draws import draw_feasible
from .strategy import History, Proposal, Strategy


def propose(problem: Problem, history: History, n: int, rng: np.random.Generator) -> Proposal:
    """Draw n new architectures that keep every bound."""
    return Proposal(draw_feasible(problem, n, rng, history.genes))


RANDOM = Strategy("random", "every gene uniform over its choices, redrawn until all bounds hold", 50, 50, propose)
