"""The strategies: random, EEEA, NSGA-II, LINAS, NNI's TPE, and the default, all behind one ask/tell interface.

`ask(problem, history, n, rng)` gives n genotypes never evaluated before that keep every bound, or fewer where there are
no more; the history holds all that was evaluated. A strategy holds no state of its own, so a search that was
interrupted goes on from its record to the same end. First batches are drawn as `random` draws, but for the default's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tutelage.records import Arch, InfeasibleBudgetError
from tutelage.search.encoding import Floats
from tutelage.search.objectives import Problem
from tutelage.search.spaces.space import Genes

from .acquire import EXPLORE, guided_batch, spread_sample
from .genetic import breed, run_nsga2, survive
from .nni_tpe import check_tuner, suggest_by_tpe
from .pool import draw_feasible, fill_feasible, pick_new


@dataclass(frozen=True)
class History:
    """What was asked and answered, in order. `points` are the objectives to make small, NaN nowhere."""

    genes: Genes  # (n, num_genes)
    archs: tuple[Arch, ...]
    points: Floats  # (n, objectives)
    feasible: NDArray[np.bool_]  # (n,)
    batches: NDArray[np.int64]  # (n,) which ask each row came from
    reference: Floats  # (objectives,) where hypervolume is measured from


@dataclass(frozen=True)
class Asked:
    """Genotypes to score, with what a predictor thought of them (name -> (n,)), if one was asked."""

    genes: Genes
    predicted: Mapping[str, Floats] = field(default_factory=dict)


Ask = Callable[[Problem, History, int, np.random.Generator], Asked]


@dataclass(frozen=True)
class Strategy:
    """How many to ask at first (beside the caller's own), how many a batch, and whom."""

    first: int
    batch: int
    ask: Ask


def ask_random(problem: Problem, history: History, n: int, rng: np.random.Generator) -> Asked:
    """Draw every gene uniformly over its choices and redraw until all bounds hold: OFA's random search under bounds.

    Bounds do not change the measure, and nothing else than draws is asked. See `sample` for why not every architecture
    is equally likely.
    """
    return Asked(draw_feasible(problem, n, rng, history.genes))


def ask_nsga2(problem: Problem, history: History, n: int, rng: np.random.Generator) -> Asked:
    """NSGA-II (Deb et al. 2002) on the scored archs themselves: survivors of every batch so far are the parents."""
    if not _ours(history).any():
        return Asked(fill_feasible(problem, n, rng, history.genes))
    parents = survive(history.points, history.batches, history.feasible, NSGA2_POPULATION)
    children = breed(problem, history.genes[parents], history.points[parents], 4 * n, rng)
    return Asked(_filled(problem, history, children, n, rng))


def ask_eeea(problem: Problem, history: History, n: int, rng: np.random.Generator) -> Asked:
    """EEEA (Termritthikun et al. 2021): the first genomes are redrawn until params <= beta, then NSGA-II.

    beta is the bound on params where there is one, else the paper's 7 M; where the space has nothing that small, only
    the bounds hold.
    """
    if not _ours(history).any():
        return Asked(_filled(problem, history, _below_beta(problem, n, rng, history.genes), n, rng))
    parents = survive(history.points, history.batches, history.feasible, EEEA_POPULATION)
    children = breed(problem, history.genes[parents], history.points[parents], 4 * n, rng)
    return Asked(_filled(problem, history, children, n, rng))


def ask_linas(problem: Problem, history: History, n: int, rng: np.random.Generator) -> Asked:
    """LINAS (DyNAS-T, Cummings et al. 2022): NSGA-II on a predictor fitted on all scored so far, the best n are asked.

    The predictor is theirs: support vector regression on one-hot genes, one for each expensive objective.
    """
    if not _ours(history).any():
        return Asked(fill_feasible(problem, n, rng, history.genes))
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

    def guess(genes: Genes) -> dict[str, Floats]:
        shown = one_hot(genes)
        return {name: mid + spread * model.predict(shown) for name, (model, mid, spread) in models.items()}

    start = np.concatenate([history.genes[history.feasible], fill_feasible(problem, n, rng, history.genes)])
    visited = run_nsga2(problem, guess, start, rng, population=LINAS_POPULATION, generations=LINAS_GENERATIONS)
    return Asked(_filled(problem, history, visited.best_first(), n, rng))


def ask_tpe(problem: Problem, history: History, n: int, rng: np.random.Generator) -> Asked:
    """NNI's TPE tuner (Bergstra et al. 2011), told every scored arch; what it leaves open is drawn feasible."""
    check_tuner()
    if not _ours(history).any():
        return Asked(fill_feasible(problem, n, rng, history.genes))
    kept = history.feasible
    wished = suggest_by_tpe(problem, history.genes[kept], history.points[kept], n, rng)
    return Asked(_filled(problem, history, wished, n, rng))


def ask_guided(problem: Problem, history: History, n: int, rng: np.random.Generator) -> Asked:
    """Ours: a spread of sizes first, then batches of greatest expected hypervolume improvement."""
    if int(_ours(history).sum()) == 0:
        return Asked(_filled(problem, history, spread_sample(problem, 4 * n, rng), n, rng))
    genes, predicted = guided_batch(
        problem, history.genes, history.archs, history.points, history.feasible, history.reference, n, rng
    )
    if len(genes) == n:
        return Asked(genes, predicted)
    return Asked(np.concatenate([genes, fill_feasible(problem, n - len(genes), rng, _seen(history, genes))]))


# EEEA as published; LINAS takes 50 a batch, as the recorded runs of the public table did. NSGA-II holds as many but
# replaces ten at a time: at 200 evaluations three whole generations are too few to move a front.
NSGA2_POPULATION = 50
EEEA_POPULATION = 40
EEEA_MAX_PARAMS = 7e6
LINAS_POPULATION = 50
LINAS_GENERATIONS = 100
TPE_STARTUP = 20  # the tuner's own default: fewer are not enough to tell good from bad

STRATEGIES: dict[str, Strategy] = {
    "default": Strategy(EXPLORE, 10, ask_guided),
    "random": Strategy(50, 50, ask_random),
    "eeea": Strategy(EEEA_POPULATION, EEEA_POPULATION, ask_eeea),
    "nsga2": Strategy(NSGA2_POPULATION, 10, ask_nsga2),
    "linas": Strategy(LINAS_POPULATION, LINAS_POPULATION, ask_linas),
    "nni-tpe": Strategy(TPE_STARTUP, 10, ask_tpe),
}


def _below_beta(problem: Problem, n: int, rng: np.random.Generator, asked: Genes) -> Genes:
    if "params" in problem.bounds:
        return draw_feasible(problem, n, rng, asked)
    small = replace(problem, bounds={**problem.bounds, "params": EEEA_MAX_PARAMS})
    try:
        return fill_feasible(small, n, rng, asked)
    except InfeasibleBudgetError:
        return asked[:0]


def _ours(history: History) -> NDArray[np.bool_]:
    """Say which rows a strategy asked; batch 0 is the caller's."""
    own: NDArray[np.bool_] = history.batches > 0
    return own


def _seen(history: History, more: Genes) -> Genes:
    return np.concatenate([history.genes, more])


def _filled(problem: Problem, history: History, wished: Genes, n: int, rng: np.random.Generator) -> Genes:
    """Take the first n new feasible ones of the wished, and fill up with feasible draws."""
    chosen = pick_new(problem, wished, n, history.genes)
    if len(chosen) < n:
        more = fill_feasible(problem, n - len(chosen), rng, _seen(history, chosen))
        chosen = np.concatenate([chosen, more])
    return chosen
