"""Paired tests of files on the same test images, by group of images (patients, series), cheap for many pairs.

`file_figures` is computed once a file, `compare_files` tests a pair by a subtraction, `correct` adjusts many (Holm).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tutelage.records import DEFAULT_MARGIN, Comparison, InputError

from .statistics import PairedTest, holm, midranks

FIGURES = ("auc", "accuracy")


@dataclass(frozen=True)
class Figure:
    """A figure of a file, and what each group of images adds to its error: `components` `(groups,)`; nan if undefined.

    Components are DeLong's structural components summed by group (Obuchowski 1997), so that the variance of a figure
    is the sum of their squares, and that of any combination of figures on the same images the sum of squares of the
    combined components: comparing two files costs a subtraction. `resolution` is the standard error that one image
    makes, used where the components say that there is none. `freedom` is how many degrees of freedom that variance has
    at most: of an AUC one less than the groups that hold the rarer class, whose spread makes nearly all of it.
    """

    value: float
    components: NDArray[np.float64]
    resolution: float
    freedom: float = math.inf


@dataclass(frozen=True)
class FileFigures:
    """AUC and accuracy of one file (or means over the seeds of one network) on one set of images.

    `images` identifies labels and groups: only figures of the same images may be paired.
    """

    auc: Figure
    accuracy: Figure
    num_groups: int
    images: str


def file_figures(
    probs: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray | Sequence[str] | None = None,
    *,
    threshold: float | Sequence[float] | None = None,
    multi_label: bool = False,
) -> FileFigures:
    """Compute AUC and accuracy of probabilities `(n, classes)` with their components, by group.

    Labels are `(n,)`, or `(n, labels)` with nan where unknown; AUC is the mean over classes (two: the second's) that
    have both kinds of images. Without groups, images are independent, and the variance of an AUC is DeLong's (1988).
    """
    probs, labels = np.asarray(probs, np.float64), np.asarray(labels)
    if len(probs) != len(labels) or len(probs) == 0 or (groups is not None and len(groups) != len(probs)):
        raise InputError(f"probabilities {probs.shape}, labels {labels.shape} and groups do not belong together")
    named = np.arange(len(labels)) if groups is None else np.asarray(groups)
    index = np.unique(named, return_inverse=True)[1].ravel()
    images = hashlib.sha256(np.ascontiguousarray(labels, np.float64).tobytes() + index.astype(np.int64).tobytes())
    right = _right(probs, labels, threshold, multi_label)
    classes = range(probs.shape[1]) if multi_label or probs.shape[1] > 2 else [1]
    areas = []
    for k in classes:
        known = np.isfinite(labels[:, k]) if multi_label else np.ones(len(labels), bool)
        member = (labels[:, k] > 0.5) if multi_label else labels == k
        areas.append(_area(probs[known, k], member[known], index[known], int(index.max()) + 1))
    return FileFigures(
        auc=mean_figure([area for area in areas if math.isfinite(area.value)] or areas[:1]),
        accuracy=_accuracy(right, index),
        num_groups=int(index.max()) + 1,
        images=images.hexdigest(),
    )


def figure_of_label(scores: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> Figure:
    """Give the AUC of one label `(n,)`, nan where unknown; `components` are by group, all groups of the images."""
    known = np.isfinite(labels)
    index = np.unique(np.arange(len(labels)) if groups is None else groups, return_inverse=True)[1].ravel()
    return _area(np.asarray(scores, np.float64)[known], labels[known] > 0.5, index[known], int(index.max()) + 1)


def mean_figure(figures: Sequence[Figure]) -> Figure:
    """Average figures of the same images: components average as values do.

    Degrees of freedom are a harmonic mean, weighted by variance: those of the label that makes most of the error.
    """
    variances = np.array([np.square(figure.components).sum() for figure in figures])
    freedoms = np.array([figure.freedom for figure in figures])
    freedom = float(freedoms.min())
    if freedom > 0 and variances.sum() > 0 and (lost := float((variances / freedoms).sum())) > 0:
        freedom = float(variances.sum()) / lost
    return Figure(
        float(np.mean([figure.value for figure in figures])),
        np.mean([figure.components for figure in figures], axis=0),
        max(figure.resolution for figure in figures),
        freedom,
    )


def mean_figures(files: Sequence[FileFigures]) -> FileFigures:
    """Average the files of one network, one a seed; raise InputError where they saw other images."""
    if len({one.images for one in files}) != 1:
        raise InputError("files can only be compared on the same test images, with the same labels and groups")
    return FileFigures(
        mean_figure([one.auc for one in files]),
        mean_figure([one.accuracy for one in files]),
        files[0].num_groups,
        files[0].images,
    )


def compare_files(
    first: FileFigures, second: FileFigures, *, margin: float = DEFAULT_MARGIN, num_seeds: int = 1
) -> dict[str, Comparison]:
    """Test whether two files differ, `auc` and `accuracy`, first minus second; groups of images are what is random.

    For means over seeds (`mean_figures`) it speaks of those very files, too. Correct many of them with `correct`.
    """
    mean_figures([first, second])
    return {
        name: compare_figures(name, getattr(first, name), getattr(second, name), margin=margin, num_seeds=num_seeds)
        for name in FIGURES
    }


def compare_figures(name: str, first: Figure, second: Figure, *, margin: float, num_seeds: int = 1) -> Comparison:
    """Test whether two files differ in one figure of the same images, first minus second."""
    less = subtract(first, second)
    test = t_test(less.value, *group_variance(less))
    num_groups = len(less.components)
    return comparison("file", name, test, margin=margin, num_seeds=num_seeds, num_groups=num_groups)


def subtract(first: Figure, second: Figure) -> Figure:
    """Give the difference of two figures of the same images, with its components."""
    return Figure(
        first.value - second.value,
        first.components - second.components,
        max(first.resolution, second.resolution),
        min(first.freedom, second.freedom),
    )


def comparison(
    claim: Literal["file", "teacher"],
    figure: str,
    test: PairedTest,
    *,
    margin: float,
    num_seeds: int,
    num_groups: int,
) -> Comparison:
    """File a test as a record; what is undefined becomes None."""
    names = ("difference", "low", "high", "p")
    values = {name: getattr(test, name) for name in names}
    return Comparison.model_validate(
        {
            "claim": claim, "figure": figure, "margin": margin, "num_seeds": num_seeds, "num_groups": num_groups,
            **{name: value if math.isfinite(value) else None for name, value in values.items()},
        }
    )  # fmt: skip


def correct(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Adjust the p values of comparisons that were made together by Holm (1979), each claim and figure on its own."""
    corrected = list(comparisons)
    for kind in {(one.claim, one.figure) for one in comparisons}:
        places = [i for i, one in enumerate(comparisons) if (one.claim, one.figure) == kind]
        assert all(comparisons[i].num_comparisons == 1 for i in places), "p values are corrected once"
        adjusted = holm([math.nan if (p := comparisons[i].p) is None else p for i in places])
        for i, p in zip(places, adjusted, strict=True):
            more = {"p": None if math.isnan(p) else p, "num_comparisons": len(places)}
            corrected[i] = comparisons[i].model_copy(update=more)
    return corrected


def group_variance(figure: Figure) -> tuple[float, float]:
    """Give the variance of a figure that its components by group make, and its degrees of freedom.

    Where all groups agree, no spread was seen: the variance is then that of one image, not 0. It is nan where there is
    one group, or one that holds the rarer class.
    """
    freedom = min(len(figure.components) - 1.0, figure.freedom)
    if not freedom > 0:
        return math.nan, math.nan
    variance = float(np.square(figure.components).sum())
    return figure.resolution**2 if variance < 1e-18 else variance, freedom


def t_test(difference: float, variance: float, freedom: float) -> PairedTest:
    """Test a difference of known standard error by Student's t: its 95 % interval and two-sided p, nan if undefined."""
    from scipy.stats import t

    if not (math.isfinite(difference) and variance > 0):
        return PairedTest(difference, math.nan, math.nan, math.nan)
    standard_error = math.sqrt(variance)
    half = float(t.ppf(0.975, freedom)) * standard_error
    p = 2 * float(t.sf(abs(difference) / standard_error, freedom))
    return PairedTest(difference, difference - half, difference + half, p)


def _right(
    probs: np.ndarray, labels: np.ndarray, threshold: float | Sequence[float] | None, multi_label: bool
) -> NDArray[np.float64]:
    """Give 1 for a right prediction, 0 for a wrong one, nan for an unknown label: `(n, 1)` or `(n, labels)`."""
    if multi_label:
        predicted = probs >= np.asarray(0.5 if threshold is None else threshold)
        return np.where(np.isfinite(labels), predicted == (labels > 0.5), np.nan)
    if threshold is None or probs.shape[1] != 2:
        chosen = probs.argmax(1)
    else:
        chosen = (probs[:, 1] >= np.ravel(threshold)[0]).astype(np.int64)
    return np.asarray(chosen == labels, np.float64)[:, None]


def _accuracy(right: NDArray[np.float64], index: np.ndarray) -> Figure:
    known = np.isfinite(right).sum(1)
    total = int(known.sum())
    num_groups = int(index.max()) + 1
    if total == 0:
        return Figure(math.nan, np.full(num_groups, math.nan), math.nan)
    value = float(np.nansum(right) / total)
    parts = np.bincount(index, weights=(np.nansum(right, axis=1) - value * known) / total, minlength=num_groups)
    return Figure(value, np.asarray(parts * math.sqrt(num_groups / max(num_groups - 1, 1)), np.float64), 1 / len(right))


def _area(scores: np.ndarray, positive: np.ndarray, index: np.ndarray, num_groups: int) -> Figure:
    """Give an AUC with its structural components by group, by midranks (Sun and Xu 2014)."""
    num_pos, num_neg = int(positive.sum()), int((~positive).sum())
    if num_pos == 0 or num_neg == 0:
        return Figure(math.nan, np.full(num_groups, math.nan), math.nan)
    together = midranks(scores)
    by_pos = (together[positive] - midranks(scores[positive])) / num_neg
    by_neg = 1 - (together[~positive] - midranks(scores[~positive])) / num_pos
    value = float(by_pos.mean())
    parts = np.zeros(num_groups)
    rarest = math.inf
    for values, places, num in ((by_pos, index[positive], num_pos), (by_neg, index[~positive], num_neg)):
        # The groups that hold this class: Obuchowski's factor, DeLong's n / (n - 1).
        held = int(np.count_nonzero(np.bincount(places)))
        factor = math.sqrt(held / (held - 1)) if held > 1 else 1.0
        parts += factor * np.bincount(places, weights=(values - value) / num, minlength=num_groups)
        rarest = min(rarest, held)
    # The least that a sample can show: one image of the rarer class that moves past half of the other.
    return Figure(value, parts, 0.5 / rarest, rarest - 1.0)
