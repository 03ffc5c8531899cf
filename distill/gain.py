"""What the teacher was worth: the same student with and without one, on the same test images, over seeds.

Enters: probabilities of both twins, one array a seed, labels and groups. Leaves: differences with intervals and p
values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tutelage.records import InputError, Record

from .evaluate import predict_classes
from .statistics import PairedTest, delong, holm, interval, mcnemar, resample_weights, weighted_auc

# Below this p, corrected for the number of comparisons, a difference is called one.
_LEVEL = 0.05


Threshold = float | Sequence[float] | None


class Gain(Record):
    """First minus second, means over seeds; intervals are 95 % of a bootstrap over groups and seeds.

    `auc_p` and `accuracy_p` are two-sided: DeLong and exact McNemar where there is one seed, no shared group and two
    classes (McNemar: any number), else the bootstrap's own. `None` is undefined.
    """

    num_seeds: int
    accuracy: float
    accuracy_lo: float | None
    accuracy_hi: float | None
    accuracy_p: float | None
    auc: float | None
    auc_lo: float | None
    auc_hi: float | None
    auc_p: float | None

    @property
    def verdict(self) -> str:
        """Say it as a column does: `gained +.012 AUC (+.003..+.021, p .008)`, `lost ...`, or `gained nothing (...)`."""
        name, value, low, high, p = "AUC", self.auc, self.auc_lo, self.auc_hi, self.auc_p
        if value is None:
            name, value, low, high, p = "accuracy", self.accuracy, self.accuracy_lo, self.accuracy_hi, self.accuracy_p
        if low is None or high is None or p is None:
            return f"{name} {value:+.3f}, not tested"
        figures = f"{value:+.3f} {name} ({low:+.3f}..{high:+.3f}, p {p:.2g})"
        if p >= _LEVEL:
            return f"gained nothing: {figures}"
        return f"{'gained' if value > 0 else 'lost'} {figures}"


def measure_gain(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    labels: np.ndarray,
    groups: np.ndarray | Sequence[str] | None = None,
    *,
    first_thresholds: Sequence[Threshold] = (),
    second_thresholds: Sequence[Threshold] = (),
    multi_label: bool = False,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Gain:
    """Compare twins seed by seed: `first[i]` and `second[i]` `(n, classes)` share everything but the teacher.

    Thresholds are each twin's own, from validation: one for two classes, one a label for several.
    Resamples draw groups of images and seeds together.
    """
    if len(first) != len(second) or not first:
        raise InputError(f"twins come in pairs: got {len(first)} with and {len(second)} without a teacher")
    rng = np.random.default_rng(seed)
    num = len(labels)
    names = None if groups is None else np.asarray(groups)
    weights = resample_weights(names, num, bootstrap, rng)
    drawn = rng.integers(0, len(first), size=(bootstrap, len(first)))
    whole = np.ones((1, num), np.float32)
    sides = []
    for probs, thresholds in ((first, first_thresholds), (second, second_thresholds)):
        cuts: list[Threshold] = list(thresholds) or [None] * len(probs)
        right = [_right(p, labels, cut, multi_label) for p, cut in zip(probs, cuts, strict=True)]
        sides.append((probs, right))
    both = np.concatenate([whole, weights])
    accuracy = np.stack([_share(a, both) - _share(b, both) for a, b in zip(sides[0][1], sides[1][1], strict=True)])
    areas = np.stack([_macro(a, labels, both, multi_label) - _macro(b, labels, both, multi_label)
                      for a, b in zip(first, second, strict=True)])  # fmt: skip
    alone = len(first) == 1 and (names is None or len(np.unique(names)) == num)
    accuracy_p = auc_p = math.nan
    if alone and not multi_label:
        accuracy_p = mcnemar(sides[0][1][0][:, 0] > 0.5, sides[1][1][0][:, 0] > 0.5).p
        if first[0].shape[1] == 2:
            auc_p = delong(first[0][:, 1], second[0][:, 1], labels == 1).p
    figures: dict[str, float | None] = {}
    for name, values, p in (("accuracy", accuracy, accuracy_p), ("auc", areas, auc_p)):
        spread = np.take_along_axis(values[:, 1:], drawn.T, axis=0).mean(0)
        low, high = interval(spread)
        figures |= {name: _known(float(values[:, 0].mean())), f"{name}_lo": _known(low), f"{name}_hi": _known(high)}
        figures[f"{name}_p"] = _known(p if math.isfinite(p) else _bootstrap_p(spread))
    accuracy_value = figures.pop("accuracy")
    assert accuracy_value is not None, "an accuracy is defined for any image"
    return Gain(num_seeds=len(first), accuracy=accuracy_value, **figures)


def label_gains(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> list[PairedTest]:
    """Compare the AUC of each of several labels `(n, labels)` by DeLong, p values Holm-corrected over the labels.

    DeLong takes images as independent: where a patient has several, the overall gain's bootstrap is the one to trust.
    """
    tests = []
    for k in range(labels.shape[1]):
        known = np.isfinite(labels[:, k])
        tests.append(delong(first[known, k], second[known, k], labels[known, k] > 0.5))
    adjusted = holm([test.p for test in tests])
    return [replace(test, p=p) for test, p in zip(tests, adjusted, strict=True)]


def correct(gains: Sequence[Gain]) -> list[Gain]:
    """Correct the p values of several comparisons made together (Holm), AUC and accuracy each on their own."""
    corrected = list(gains)
    for name in ("auc_p", "accuracy_p"):
        values = [getattr(gain, name) for gain in gains]
        adjusted = holm([math.nan if value is None else value for value in values])
        corrected = [
            gain.model_copy(update={name: _known(value)}) for gain, value in zip(corrected, adjusted, strict=True)
        ]
    return corrected


def _right(probs: np.ndarray, labels: np.ndarray, threshold: Threshold, multi_label: bool) -> np.ndarray:
    """Give 1 for right, 0 for wrong, nan for unknown: `(n, 1)`, or `(n, labels)`."""
    if not multi_label:
        assert threshold is None or isinstance(threshold, float), "one threshold for two classes"
        return np.asarray(predict_classes(probs, threshold) == labels, np.float64)[:, None]
    answers = probs >= np.asarray(0.5 if threshold is None else threshold)
    return np.where(np.isfinite(labels), answers == (labels > 0.5), np.nan).astype(np.float64)


def _share(right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Give the weighted share of right answers, one a row of weights."""
    hits, known = np.nansum(right, axis=1), np.isfinite(right).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((weights @ hits) / (weights @ known))


def _macro(probs: np.ndarray, labels: np.ndarray, weights: np.ndarray, multi_label: bool) -> np.ndarray:
    """Give the AUC (two classes) or its mean over the classes where it is defined, one a row of weights."""
    classes = range(probs.shape[1]) if multi_label or probs.shape[1] > 2 else [1]
    areas = []
    for k in classes:
        known = np.isfinite(labels[:, k]) if multi_label else np.ones(len(labels), bool)
        member = (labels[:, k] > 0.5) if multi_label else labels == k
        areas.append(weighted_auc(probs[known, k], member[known], weights[:, known]))
    stacked = np.stack(areas)
    defined = np.isfinite(stacked)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(defined, stacked, 0).sum(0) / defined.sum(0))


def _bootstrap_p(spread: np.ndarray) -> float:
    """Give the two-sided p of no difference from bootstrap differences; never 0 (one count is added)."""
    known = spread[np.isfinite(spread)]
    if len(known) == 0:
        return math.nan
    tail = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(known) + 1))


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
