"""The gain of distillation: one student trained with a teacher and without it (control), over several seeds.

Seeds and images' groups are both random, as readers and cases are in the multi-reader multi-case studies of radiology,
and are tested as there: `compare_trainings` for the difference, `over_seeds` for the figures of one network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tutelage.records import DEFAULT_MARGIN, Comparison, InputError

from .paired import (
    FIGURES,
    Figure,
    FileFigures,
    compare_figures,
    comparison,
    correct,
    figure_of_label,
    group_variance,
    mean_figure,
    mean_figures,
    subtract,
    t_test,
)
from .statistics import PairedTest


def compare_trainings(
    first: Sequence[FileFigures], second: Sequence[FileFigures], *, margin: float = DEFAULT_MARGIN
) -> dict[str, Comparison]:
    """Test the claim that training as in `first` helps, `auc` and `accuracy`: `first[i]` and `second[i]` have one seed.

    Raises InputError where they do not come in pairs or saw other images. One seed has no interval; fewer than
    MIN_SEEDS make no verdict but "inconclusive". Correct the p values of many with `correct`.
    """
    if len(first) != len(second) or not first:
        raise InputError(f"trainings come in pairs: got {len(first)} with and {len(second)} without the teacher")
    mean_figures([*first, *second])
    found = {}
    for name in FIGURES:
        pairs = [(getattr(a, name), getattr(b, name)) for a, b in zip(first, second, strict=True)]
        test = seeds_test([subtract(a, b) for a, b in pairs])
        found[name] = comparison(
            "teacher", name, test, margin=margin, num_seeds=len(pairs), num_groups=first[0].num_groups
        )
    return found


def over_seeds(files: Sequence[FileFigures]) -> dict[str, PairedTest]:
    """Give the mean over seeds of `auc` and `accuracy`, with a 95 % interval over seeds and groups, within 0 to 1.

    It speaks of the network as it is trained, where one file's interval speaks of that file.
    """
    mean_figures(files)
    found = {}
    for name in FIGURES:
        test = seeds_test([getattr(one, name) for one in files])
        found[name] = replace(test, low=_clipped(test.low), high=_clipped(test.high))
    return found


def seeds_test(figures: Sequence[Figure]) -> PairedTest:
    """Test whether the mean over seeds of a figure (or of a difference) is 0; one seed gives the value alone.

    Obuchowski and Rockette (1995) with seeds as readers: Var(mean) = s^2 / S + Cov, where s^2 is the variance of the S
    values and Cov, not below 0, the mean covariance of two seeds' values over the images, from their components by
    group. Degrees of freedom are Satterthwaite's, as Hillis (2007) has them for readers, with the figure's own for Cov.
    A claim about trainings to come is never surer than one about the files at hand: their variance is the least that
    is taken.
    """
    value = float(np.mean([figure.value for figure in figures]))
    num = len(figures)
    if num < 2 or not math.isfinite(value):
        return PairedTest(value, math.nan, math.nan, math.nan)
    components = np.stack([figure.components for figure in figures])
    at_hand, freedom = group_variance(mean_figure(figures))
    of_seeds = float(np.var([figure.value for figure in figures], ddof=1)) / num
    each, total = float(np.square(components).sum()), float(np.square(components.sum(0)).sum())
    of_groups = max(0.0, (total - each) / (num * (num - 1)))
    variance = of_seeds + of_groups
    if variance <= at_hand or math.isnan(at_hand):
        return t_test(value, at_hand, freedom)
    freedom = variance**2 / (of_seeds**2 / (num - 1) + of_groups**2 / freedom)
    return t_test(value, variance, freedom)


def compare_labels(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    margin: float = DEFAULT_MARGIN,
) -> list[Comparison]:
    """Test whether the files of `first` differ from those of `second` in the AUC of each label of `(n, labels)`.

    Each has one array of probabilities `(n, labels)` a seed, and its mean is compared; nan is an unknown label.
    p values are adjusted over the labels (Holm).
    """
    found = []
    for k in range(labels.shape[1]):
        a, b = (
            mean_figure([figure_of_label(probs[:, k], labels[:, k], groups) for probs in side])
            for side in (first, second)
        )
        found.append(compare_figures("auc", a, b, margin=margin, num_seeds=len(first)))
    return correct(found)


def _clipped(value: float) -> float:
    return value if math.isnan(value) else min(1.0, max(0.0, value))
