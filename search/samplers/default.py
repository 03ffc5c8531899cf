"""The default strategy: the batch of most expected hypervolume, by the accuracy predictor's own uncertainty.

Candidates are bred by NSGA-II on an optimistic prediction; then archs are picked one by one, each for the hypervolume
it adds on average over functions drawn from the joint posterior, given those picked before it: near twins add nothing,
so the batch is diverse. Where scores are noisy, the front that is to be improved is drawn with them, as in noisy
expected hypervolume improvement (Daulton et al. 2021): a lucky score promises nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.search.contenders import fitted
from tutelage.search.encoding import Floats
from tutelage.search.objectives import Problem
from tutelage.search.predict import AccuracyPredictor
from tutelage.search.spaces.space import Genes

from .draws import fill_feasible, filled, new_rows
from .genetic import rank_order, run_nsga2
from .strategy import History, Proposal, Strategy

# Archs of a first, space-filling batch: enough to fit the predictor, few enough to leave the budget to it.
_FIRST, _BATCH = 20, 10
_POPULATION = 60
_GENERATIONS = 20
_POOL = 500  # candidates compared together; their joint covariance is factored, (500, 500)
_DRAWS = 48
_DIRECTIONS = 96
_SEEN = 120  # evaluated archs whose true values are drawn with the pool's, where scores are noisy
_OPTIMISM = 0.5  # the pool is bred on mean - 0.5 std: what may be good is worth a look


def spread_sample(problem: Problem, n: int, rng: np.random.Generator) -> Genes:
    """Draw archs of every size: each arch leans to its least or largest choices by a degree of its own.

    Uniform genes crowd around the middle (MACs are a sum of many), and a front's ends are worth most hypervolume.
    """
    lean = rng.permutation(np.linspace(-1, 1, n))
    genes = rng.integers(0, problem.space.num_choices, size=(n, problem.space.num_genes))
    pulled = rng.random(genes.shape) < np.abs(lean)[:, None]
    ends = np.where(lean[:, None] < 0, 0, problem.space.num_choices - 1)
    return problem.space.canonical(np.where(pulled, ends, genes))


def propose(problem: Problem, history: History, n: int, rng: np.random.Generator) -> Proposal:
    """Spread the first batch over all sizes, then choose batches of greatest expected hypervolume improvement."""
    if not history.started:
        return Proposal(filled(problem, history.genes, spread_sample(problem, 4 * n, rng), n, rng))
    guided = guided_batch(problem, history, n, rng)
    missing = n - len(guided.genes)
    if not missing:
        return guided
    more = fill_feasible(problem, missing, rng, np.concatenate([history.genes, guided.genes]))
    return Proposal(np.concatenate([guided.genes, more]))


def guided_batch(problem: Problem, history: History, n: int, rng: np.random.Generator) -> Proposal:
    """Choose up to n new archs, with the predicted mean and `NAME_std` of each expensive objective."""
    genes, points, feasible = history.genes, history.points, history.feasible
    columns = [i for i, objective in enumerate(problem.objectives) if not objective.cheap]
    names = [problem.objectives[i].name for i in columns]
    models = {name: fitted(problem, history, i) for i, name in zip(columns, names, strict=True)}

    def predict(candidates: Genes) -> dict[str, Floats]:
        shown = problem.space.decode(candidates)
        return {name: mean - _OPTIMISM * std for name, (mean, std) in ((k, models[k].predict(shown)) for k in names)}

    start = np.concatenate([genes[feasible], fill_feasible(problem, _POPULATION // 2, rng, genes)])
    visited = run_nsga2(problem, predict, start, rng, population=_POPULATION, generations=_GENERATIONS)
    allowed = np.flatnonzero(visited.violation <= 0)
    allowed = allowed[new_rows(visited.genes[allowed], genes)]
    if not len(allowed):
        return Proposal(genes[:0])
    order = allowed[rank_order(visited.points[allowed])[:_POOL]]
    pool, values = visited.genes[order], visited.points[order]
    shown = problem.space.decode(pool)
    seen, rows = points[feasible], np.zeros(0, dtype=np.int64)
    if (history.std_error > 0).any():
        rows = _near_the_front(history, columns, models, names)
        seen = points[rows] if len(rows) else seen
    draws = np.repeat(np.concatenate([seen[: len(rows)], values])[None], _DRAWS, axis=0)
    for i, name in zip(columns, names, strict=True):
        draws[:, :, i] = models[name].sample(shown, _DRAWS, rng, rows)
    chosen = _greedy(draws[:, len(rows) :], draws[:, : len(rows)] if len(rows) else seen, history.reference, n, rng)
    predicted: dict[str, Floats] = {}
    for i, name in zip(columns, names, strict=True):
        mean, std = models[name].predict([shown[j] for j in chosen])
        predicted[name] = problem.objectives[i].sign * mean
        predicted[f"{name}_std"] = std
    return Proposal(pool[chosen], predicted)


def _near_the_front(
    history: History, columns: Sequence[int], models: Mapping[str, AccuracyPredictor], names: Sequence[str]
) -> NDArray[np.int64]:
    """Give the feasible rows whose true values may be on the front, best ranks by the posterior mean first."""
    likely = history.points.copy()
    for i, name in zip(columns, names, strict=True):
        likely[:, i] = models[name].posterior()[0]
    rows = np.flatnonzero(history.feasible)
    return rows[rank_order(likely[rows])[:_SEEN]] if len(rows) else rows


def _greedy(draws: Floats, seen: Floats, reference: Floats, n: int, rng: np.random.Generator) -> list[int]:
    """Pick n candidates one by one by expected hypervolume gain; draws (S, C, M), seen (n, M), or drawn too (S, n, M).

    Hypervolume is the mean over directions u of the positive unit sphere of max over points of
    min_i ((reference_i - y_i) / u_i)^M, up to a constant (Zhang & Golovin 2020, lemma 5): any number of objectives.
    """
    seen = seen if seen.ndim == 3 else seen[None]
    ideal = draws.min(axis=(0, 1))
    if seen.shape[1]:
        ideal = np.minimum(seen.min(axis=(0, 1)), ideal)
    span = np.where(reference > ideal, reference - ideal, 1.0)
    directions = np.abs(rng.standard_normal((_DIRECTIONS, draws.shape[2])))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)

    def reach(points: Floats) -> Floats:
        gaps = np.maximum((reference - points) / span, 0)
        lengths = gaps[..., None, 0] / directions[:, 0]
        for axis in range(1, points.shape[-1]):
            lengths = np.minimum(lengths, gaps[..., None, axis] / directions[:, axis])
        reached: Floats = lengths ** points.shape[-1]
        return reached

    promised = reach(draws)  # (S, C, U)
    best = np.zeros_like(promised[:, 0])
    if seen.shape[1]:
        best = np.maximum(best, reach(seen).max(axis=1))
    chosen: list[int] = []
    free = np.ones(draws.shape[1], dtype=np.bool_)
    for _ in range(min(n, draws.shape[1])):
        gain = np.maximum(promised - best[:, None], 0).mean(axis=(0, 2))
        pick = int(np.argmax(np.where(free, gain, -1.0)))
        chosen.append(pick)
        free[pick] = False
        best = np.maximum(best, promised[:, pick])
    return chosen


DEFAULT = Strategy(
    "default", "batches of most expected hypervolume, by a predictor's posterior", _FIRST, _BATCH, propose
)
