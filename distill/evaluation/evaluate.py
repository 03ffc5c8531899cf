"""Evaluate a classifier: accuracy, AUC and their 95 % intervals, thresholds from validation data, calibration error.

`evaluate` takes probabilities `(n, classes)`, labels and groups; an undefined figure of an `Evaluation` is `None`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.records import InputError, Record

from .statistics import auc, average_precision, interval, resample_groups, weighted_auc
from .thresholds import choose_threshold, choose_thresholds

__all__ = [
    "ClassFigures",
    "Evaluation",
    "choose_threshold",
    "choose_thresholds",
    "evaluate",
    "predict_logits",
    "probabilities",
]

_NUM_BINS = 15  # equal-width bins of the expected calibration error (Guo et al., ICML 2017)


class ClassFigures(Record):
    """What is known of one class against the rest; `None` where it is undefined."""

    num: int
    auc: float | None
    average_precision: float | None
    sensitivity: float | None
    specificity: float | None
    precision: float | None
    f1: float | None


class Evaluation(Record):
    """Figures of one model on one split. Intervals are 95 % bootstrap percentiles over groups.

    `auc` and `f1` are those of the second class for two classes, else means over the classes where they are defined.
    Multi-label: `accuracy` is the mean over labels of the fraction of correct predictions, and `confusion` is empty.
    """

    num_images: int
    num_groups: int
    accuracy: float
    accuracy_lo: float | None
    accuracy_hi: float | None
    auc: float | None
    auc_lo: float | None
    auc_hi: float | None
    balanced_accuracy: float | None
    average_precision: float | None
    sensitivity: float | None
    specificity: float | None
    f1: float | None
    brier: float
    ece: float
    confusion: tuple[tuple[int, ...], ...]  # rows: true class, columns: predicted
    per_class: tuple[ClassFigures, ...]
    threshold: tuple[float, ...] = ()


def evaluate(
    probs: np.ndarray | Tensor,
    labels: np.ndarray | Tensor,
    groups: np.ndarray | Sequence[str] | None = None,
    *,
    threshold: float | Sequence[float] | None = None,
    multi_label: bool = False,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Score probabilities `(n, classes)` against labels `(n,)`, or `(n, labels)` where nan is unknown.

    `threshold` is chosen on validation data: for two classes the second class is predicted at or above it;
    multi-label needs one for each label (default .5). `bootstrap=0` gives no intervals.
    """
    scores = _numpy(probs).astype(np.float64)
    truth = _numpy(labels)
    _check(scores, truth, multi_label)
    num, classes = scores.shape
    cuts = _thresholds(threshold, classes, multi_label)
    if multi_label:
        predicted = scores >= np.asarray(cuts)
        known = np.isfinite(truth)
        member = np.where(known, truth, 0) > 0.5
        right = (predicted == member) & known
    else:
        chosen = predict_classes(scores, cuts[0] if cuts else None)
        member = np.arange(classes) == truth[:, None]
        predicted = np.arange(classes) == chosen[:, None]
        known = np.ones_like(member)
        right = (chosen == truth)[:, None]
    per_class = tuple(_class_figures(scores[:, k], member[:, k], predicted[:, k], known[:, k]) for k in range(classes))
    counted = known if multi_label else np.ones((num, 1), bool)
    scored = [1] if classes == 2 and not multi_label else list(range(classes))
    group_names = None if groups is None else np.asarray(groups)
    accuracy_range, auc_range = (math.nan, math.nan), (math.nan, math.nan)
    if bootstrap > 0:
        weights, index = resample_groups(group_names, num, bootstrap, np.random.default_rng(seed))
        hits, of = (weights @ np.bincount(index, weights=one.sum(1)) for one in (right, counted))
        with np.errstate(invalid="ignore", divide="ignore"):
            accuracy_range = interval(hits / of)
        areas = [
            weighted_auc(scores[known[:, k], k], member[known[:, k], k], weights, index[known[:, k]]) for k in scored
        ]
        auc_range = interval(_nan_mean(np.stack(areas)))
    chosen_classes = [per_class[k] for k in scored]
    return Evaluation(
        num_images=num,
        num_groups=num if group_names is None else len(np.unique(group_names)),
        accuracy=float(right.sum() / max(counted.sum(), 1)),
        accuracy_lo=_or_none(accuracy_range[0]),
        accuracy_hi=_or_none(accuracy_range[1]),
        auc=_mean(figures.auc for figures in chosen_classes),
        auc_lo=_or_none(auc_range[0]),
        auc_hi=_or_none(auc_range[1]),
        balanced_accuracy=_balanced(per_class, multi_label),
        average_precision=_mean(figures.average_precision for figures in chosen_classes),
        sensitivity=_mean(figures.sensitivity for figures in chosen_classes),
        specificity=_mean(figures.specificity for figures in chosen_classes),
        f1=_mean(figures.f1 for figures in chosen_classes),
        brier=_brier(scores, member, known, multi_label),
        ece=_calibration_error(scores, member, known, multi_label),
        confusion=() if multi_label else _confusion(truth, chosen, classes),
        per_class=per_class,
        threshold=cuts,
    )


def predict_classes(probs: np.ndarray, threshold: float | None = None) -> np.ndarray:
    """Predict the likeliest class `(n,)`; for two classes with a threshold, the second one at or above it."""
    if threshold is None or probs.shape[1] != 2:
        return np.asarray(probs.argmax(1))
    return np.asarray(probs[:, 1] >= threshold).astype(np.int64)


@torch.no_grad()
def predict_logits(model: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Give logits `(n, classes)`, float32 on the CPU, in eval mode; the model's mode is put back."""
    device = next((parameter.device for parameter in model.parameters()), images.device)
    was_training = model.training
    model.eval()
    try:
        parts = [model(part.to(device)).float().cpu() for part in torch.split(images, batch_size)]
    finally:
        model.train(was_training)
    return torch.cat(parts)


def probabilities(logits: Tensor, multi_label: bool = False) -> np.ndarray:
    """Convert logits to probabilities `(n, classes)`, float64."""
    logits = logits.double()
    return np.asarray((logits.sigmoid() if multi_label else logits.softmax(1)).numpy())


def _numpy(values: np.ndarray | Tensor) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _check(scores: np.ndarray, truth: np.ndarray, multi_label: bool) -> None:
    if scores.ndim != 2 or len(scores) != len(truth) or (multi_label and scores.shape != truth.shape):
        raise InputError(f"probabilities {scores.shape} and labels {truth.shape} do not belong together")
    if len(scores) == 0:
        raise InputError("there are no images to evaluate: the split is empty")
    if not np.isfinite(scores).all():
        raise InputError(f"probabilities of image {int(np.flatnonzero(~np.isfinite(scores).all(1))[0])} are not finite")
    if not multi_label and (truth.min() < 0 or truth.max() >= scores.shape[1]):
        raise InputError(f"label {truth.max()} has no column in probabilities of {scores.shape[1]} classes")


def _thresholds(given: float | Sequence[float] | None, classes: int, multi_label: bool) -> tuple[float, ...]:
    if given is None:
        return (0.5,) * classes if multi_label else ()
    cuts = (float(given),) if isinstance(given, int | float) else tuple(float(cut) for cut in given)
    if multi_label:
        cuts = cuts * classes if len(cuts) == 1 else cuts
        if len(cuts) != classes:
            raise InputError(f"{len(cuts)} thresholds for {classes} labels: give one each")
        return cuts
    return cuts if classes == 2 else ()


def _class_figures(scores: np.ndarray, member: np.ndarray, predicted: np.ndarray, known: np.ndarray) -> ClassFigures:
    scores, member, predicted = scores[known], member[known], predicted[known]
    hit, miss = int((member & predicted).sum()), int((member & ~predicted).sum())
    alarm, quiet = int((~member & predicted).sum()), int((~member & ~predicted).sum())
    return ClassFigures(
        num=hit + miss,
        auc=_or_none(auc(scores, member)),
        average_precision=_or_none(average_precision(scores, member)),
        sensitivity=_ratio(hit, hit + miss),
        specificity=_ratio(quiet, quiet + alarm),
        precision=_ratio(hit, hit + alarm),
        f1=_ratio(2 * hit, 2 * hit + miss + alarm),
    )


def _balanced(per_class: Sequence[ClassFigures], multi_label: bool) -> float | None:
    """Mean sensitivity over classes that have images; multi-label: the mean of (sensitivity + specificity) / 2."""
    if not multi_label:
        return _mean(figures.sensitivity for figures in per_class)
    return _mean(
        (f.sensitivity + f.specificity) / 2
        for f in per_class
        if f.sensitivity is not None and f.specificity is not None
    )


def _brier(scores: np.ndarray, member: np.ndarray, known: np.ndarray, multi_label: bool) -> float:
    """Mean squared error of probabilities: summed over classes (Brier 1950), or a mean over known labels."""
    squared = (scores - member) ** 2 * known
    return float(squared.sum() / (known.sum() if multi_label else len(scores)))


def _calibration_error(scores: np.ndarray, member: np.ndarray, known: np.ndarray, multi_label: bool) -> float:
    """|confidence - accuracy| over equal-width bins, weighted by their size; multi-label: over all outputs."""
    if multi_label:
        confidence = np.maximum(scores, 1 - scores)[known]
        right = ((scores >= 0.5) == member)[known]
    else:
        confidence = scores.max(1)
        right = member[np.arange(len(scores)), scores.argmax(1)]
    bins = np.minimum((confidence * _NUM_BINS).astype(int), _NUM_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=_NUM_BINS)
    return float(np.abs(gaps).sum() / max(len(confidence), 1))


def _confusion(truth: np.ndarray, chosen: np.ndarray, classes: int) -> tuple[tuple[int, ...], ...]:
    counts = np.bincount(truth.astype(int) * classes + chosen, minlength=classes * classes)
    return tuple(tuple(row) for row in counts.reshape(classes, classes).tolist())


def _nan_mean(areas: np.ndarray) -> np.ndarray:
    """Mean over classes `(classes, resamples)` of the defined ones; nan where none is."""
    known = np.isfinite(areas)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, areas, 0).sum(0) / known.sum(0))


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _mean(values: object) -> float | None:
    known = [value for value in values if value is not None]  # type: ignore[attr-defined]
    return float(sum(known) / len(known)) if known else None
