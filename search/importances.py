"""How much each parameter of a space decided the figure that a search scored (`parameter_importances`).

Permutation importance (Breiman, Random Forests, 2001, section 10) of a forest of trees on held-out trials: by how much
its R2 falls when one parameter's values are shuffled. A parameter is the mean kernel, the mean expand ratio or the
depth of one stage, a width, or the resolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.records import Arch
from tutelage.search.spaces.space import find_space

Floats = NDArray[np.float64]

# Fewer trials say nothing about some twenty parameters.
LEAST_TRIALS = 20
_NUM_FOLDS, _NUM_TREES, _NUM_SHUFFLES = 4, 40, 4


def parameter_importances(archs: Sequence[Arch], values: Sequence[float], *, seed: int = 0) -> dict[str, float]:
    """Give the fall of R2 of each parameter that varies, largest first; parameters that decide nothing are at 0.

    archs are of one space, values what was scored of each. Empty where there are fewer than LEAST_TRIALS finite values,
    where none varies, or where the forest explains nothing of held-out trials (R2 not above 0).
    """
    figures = np.asarray(values, dtype=np.float64)
    kept = np.flatnonzero(np.isfinite(figures))
    if len(kept) < LEAST_TRIALS or np.ptp(figures[kept]) == 0:
        return {}
    genes, names = _parameters([archs[int(place)] for place in kept])
    if not names:
        return {}
    score, falls = _held_out(genes, figures[kept], np.random.default_rng(seed))
    if score <= 0:
        return {}
    found = {name: round(max(0.0, float(fall)), 4) for name, fall in zip(names, falls, strict=True)}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _parameters(archs: Sequence[Arch]) -> tuple[Floats, list[str]]:
    """Give the parameters that vary (archs, parameters) and their names.

    Kernels and expand ratios of a stage are means over its blocks: genes of blocks that a depth leaves out are 0, and
    would say the depth again.
    """
    slots = [stage.num_slots for stage in find_space(archs[0].space).family.stages]
    parts: dict[str, Floats] = {"resolution": np.array([arch.r for arch in archs], dtype=np.float64)}
    for stage, end in enumerate(np.cumsum(slots)):
        for word, genes in (("kernels", [arch.ks for arch in archs]), ("expand ratios", [arch.e for arch in archs])):
            if len(genes[0]) == sum(slots):
                some = np.array(genes, dtype=np.float64)[:, end - slots[stage] : end]
                parts[f"{word} of stage {stage + 1}"] = some.sum(axis=1) / np.maximum(1, (some > 0).sum(axis=1))
    for word, genes in (("depth", [arch.d for arch in archs]), ("width", [arch.w for arch in archs])):
        for place, column in enumerate(np.array(genes, dtype=np.float64).T):
            parts[f"{word} {place + 1}" if len(genes[0]) != len(slots) else f"{word} of stage {place + 1}"] = column
    varied = {name: part for name, part in parts.items() if np.ptp(part) > 0}
    return np.array(list(varied.values()), dtype=np.float64).reshape(len(varied), len(archs)).T, list(varied)


def _held_out(genes: Floats, figures: Floats, rng: np.random.Generator) -> tuple[float, Floats]:
    """Give the mean R2 of the folds that the forest did not see, and its mean fall by parameter."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.metrics import r2_score
    from sklearn.model_selection import KFold

    number = genes.shape[1]
    scores: list[float] = []
    falls = np.zeros(number)
    for train, test in KFold(_NUM_FOLDS, shuffle=True, random_state=int(rng.integers(2**31))).split(genes):
        forest = RandomForestRegressor(_NUM_TREES, min_samples_leaf=2, random_state=int(rng.integers(2**31)))
        forest.fit(genes[train], figures[train])
        # As shuffled, a copy a parameter and time, and once as they are; one prediction is much quicker than many.
        copies = np.repeat(genes[test][None], 1 + number * _NUM_SHUFFLES, axis=0)
        for place in range(number * _NUM_SHUFFLES):
            copies[1 + place, :, place % number] = rng.permutation(genes[test][:, place % number])
        guesses = forest.predict(copies.reshape(-1, number)).reshape(len(copies), -1)
        found = np.array([r2_score(figures[test], guess) for guess in guesses])
        scores.append(found[0])
        falls += (found[0] - found[1:]).reshape(_NUM_SHUFFLES, number).mean(axis=0) / _NUM_FOLDS
    return float(np.mean(scores)), falls
