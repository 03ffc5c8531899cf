"""NNI's TPE tuner (Bergstra et al. 2011): genes are its hyper-parameters, objectives are summed by random weights.

TPE minimises one number; as in ParEGO (Knowles, IEEE TEC 2006, eq. 2) each proposal draws weights w and minimises
max(w f) + .05 sum(w f), f being the objectives scaled to [0, 1] over all that was scored. The tuner is built anew for
each proposal and given the whole history, so that it holds no state of its own. Of NNI's other tuners none takes a
history and a seed: Evolution and regularised evolution keep a population that no record fills.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import numpy as np

from tutelage.records import InputError
from tutelage.search.encoding import Floats
from tutelage.search.objectives import Problem
from tutelage.search.spaces.space import Genes

from .draws import fill_feasible, filled, pick_new
from .strategy import History, Proposal, Strategy

_SUM_WEIGHT = 0.05  # rho of ParEGO
_STARTUP = 20  # the tuner's own default: fewer are not enough to tell good from bad
_TRIES = 30  # suggestions for one proposal, of which the first that is new and keeps every bound is taken


def propose(problem: Problem, history: History, n: int, rng: np.random.Generator) -> Proposal:
    """Draw the first batch, then take the tuner's suggestions; draws make up for missing ones."""
    check_tuner()
    if not history.started:
        return Proposal(fill_feasible(problem, n, rng, history.genes))
    kept = history.feasible
    wished = suggest_by_tpe(problem, history.genes[kept], history.points[kept], n, rng)
    return Proposal(filled(problem, history.genes, wished, n, rng))


def check_tuner() -> None:
    """Raise InputError with the command that installs NNI, where it is not there."""
    with contextlib.suppress(ImportError):
        import nni  # noqa: F401

        return
    raise InputError("strategy nni-tpe needs nni, which is not installed; install it with: pip install tutelage[nni]")


def suggest_by_tpe(problem: Problem, genes: Genes, points: Floats, n: int, rng: np.random.Generator) -> Genes:
    """Give up to n new feasible genotypes; `genes` (scored, genes) are feasible, their `points` are minimised."""
    check_tuner()
    import nni
    from nni.algorithms.hpo.tpe_tuner import TpeTuner

    logging.getLogger("nni").setLevel(logging.ERROR)
    logging.getLogger("nni.tuner.tpe").setLevel(logging.ERROR)
    sizes = problem.space.num_choices
    choices = {str(i): {"_type": "randint", "_value": [0, int(size)]} for i, size in enumerate(sizes)}
    chosen = np.zeros((0, problem.space.num_genes), dtype=np.int64)
    for _ in range(n):
        tuner: Any = TpeTuner("minimize", seed=int(rng.integers(2**31)))
        tuner.update_search_space(choices)
        values = _scalarised(points, rng.dirichlet(np.ones(points.shape[1])))
        tuner.import_data(
            [
                {"parameter": {str(i): int(gene) for i, gene in enumerate(row)}, "value": float(value)}
                for row, value in zip(genes, values, strict=True)
            ]
        )
        wished = []
        with contextlib.suppress(nni.NoMoreTrialError):  # a small space: it has no combination left to suggest
            for trial in range(_TRIES):
                wished.append(tuner.generate_parameters(trial))
        columns = [str(i) for i in range(problem.space.num_genes)]
        rows = np.array([[one[i] for i in columns] for one in wished], dtype=np.int64).reshape(-1, len(columns))
        more = pick_new(problem, problem.space.canonical(rows), 1, np.concatenate([genes, chosen]))
        chosen = np.concatenate([chosen, more])
    return chosen


def _scalarised(points: Floats, weights: Floats) -> Floats:
    """Weight scaled objectives into one number a row, to be minimised."""
    spread = np.ptp(points, axis=0)
    scaled = (points - points.min(axis=0)) / np.where(spread > 0, spread, 1.0)
    weighted: Floats = weights * scaled
    total: Floats = weighted.max(axis=1) + _SUM_WEIGHT * weighted.sum(axis=1)
    return total


NNI_TPE = Strategy("nni-tpe", "NNI's TPE tuner (needs the extra nni)", _STARTUP, 10, propose, check_tuner, ("nni",))
