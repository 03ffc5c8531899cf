"""Which evaluated architectures are the most accurate, and which to score again: by the posterior, not the best draw.

The lowest of a hundred noisy errors is mostly lucky. `posteriors` gives each architecture's true score with its
uncertainty, `pick_again` the contenders whose further evaluation tells most about which of them is the best.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tutelage.search.samplers.strategy import History

from .encoding import Floats
from .objectives import Problem
from .predict import AccuracyPredictor

# Contenders are scored again with the last evaluations of a search whose scores are noisy. On the surrogate of the
# benchmark, with noise of .5 points, a tenth leaves the choice .095 points behind the best that was evaluated, a fifth
# .066 and .3 .097 (six seeds), and each tenth costs half a percent of the front's hypervolume.
AGAIN_FRACTION = 0.15
AGAIN_BATCH = 5
_DRAWS = 256
_CONTENDERS = 60  # whose joint posterior is drawn from


def posteriors(problem: Problem, history: History) -> dict[str, tuple[Floats, Floats]]:
    """Give mean and standard deviation of the true value of every evaluated arch, (n,) each, by scored objective.

    Exact scores are their own mean, with a deviation of 0. Where the noise of scores is not known, what a smooth
    function of the architecture does not explain is taken for noise.
    """
    found = {}
    for column, objective in enumerate(problem.objectives):
        if objective.cheap:
            continue
        signed, noise = history.points[:, column], history.std_error[:, column]
        if len(history.archs) < 2 or not noise.any():
            known = np.where(np.isnan(noise), 0.0, noise)
            found[objective.name] = objective.sign * signed, known
            continue
        mean, std = fitted(problem, history, column).posterior()
        found[objective.name] = objective.sign * mean, std
    return found


def fitted(problem: Problem, history: History, column: int) -> AccuracyPredictor:
    """Fit the predictor of one objective on all that was evaluated, with the noise of its scores where it is known."""
    noise = history.std_error[:, column]
    known = None if np.isnan(noise).any() else noise
    model = AccuracyPredictor(problem.num_classes, problem.in_channels)
    return model.fit(history.archs, history.points[:, column], known)


def can_score_again(problem: Problem) -> bool:
    """Say whether an objective can be scored on further data."""
    return any(objective.again is not None for objective in problem.expensive)


def pick_again(
    problem: Problem,
    history: History,
    counts: NDArray[np.int64],
    groups: NDArray[np.int64],
    number: int,
    rng: np.random.Generator,
) -> list[int]:
    """Pick up to `number` rows to score again: those most often the best of their group in draws of the posterior.

    counts: evaluations of each row so far; rows of an objective's `most` are left out. groups: a number a row, -1 of
    rows that can win nothing. A row that is certain, or certainly not the best, tells nothing: what is picked has the
    largest product of the odds to win and the uncertainty of the score.
    """
    column, objective = next((i, o) for i, o in enumerate(problem.objectives) if o.again is not None)
    rows = np.flatnonzero(groups >= 0)
    rows = rows[np.argsort(history.points[rows, column], kind="stable")]
    if not len(rows) or len(history.archs) < 2:
        return []
    model = fitted(problem, history, column)
    mean, std = model.posterior()
    near = [group_rows[np.argsort((mean - std)[group_rows], kind="stable")] for group_rows in _by_group(rows, groups)]
    most = max(2, _CONTENDERS // len(near))  # of each group
    contenders: NDArray[np.int64] = np.concatenate([group_rows[:most] for group_rows in near])
    draws = model.sample([], _DRAWS, rng, contenders)
    odds = np.zeros(len(contenders))
    for group in np.unique(groups[contenders]):
        mine = np.flatnonzero(groups[contenders] == group)
        best = mine[np.argmin(draws[:, mine], axis=1)]
        odds += np.bincount(best, minlength=len(contenders)) / _DRAWS
    worth = odds * std[contenders]
    worth[counts[contenders] >= objective.most] = 0.0
    order = np.argsort(-worth, kind="stable")[:number]
    return [int(contenders[i]) for i in order if worth[i] > 0]


def merged(values: Mapping[str, float], further: Mapping[str, float], before: int) -> dict[str, float]:
    """Average a further evaluation into the mean of `before` earlier ones.

    All weigh the same: weights by the standard errors would favour lucky ones, whose errors are low and so theirs too.
    """
    return {name: (before * value + further.get(name, value)) / (before + 1) for name, value in values.items()}


def merged_std_error(values: Mapping[str, float], further: Mapping[str, float], before: int) -> dict[str, float]:
    """Give the standard error of such a mean."""
    return {
        name: float(np.hypot(before * value, further[name]) / (before + 1)) if name in further else value
        for name, value in values.items()
    }


def _by_group(rows: NDArray[np.int64], groups: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [rows[groups[rows] == group] for group in np.unique(groups[rows])]
