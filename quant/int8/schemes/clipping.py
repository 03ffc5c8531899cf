"""Ranges of activations by their histograms: the extremes, a percentile, or the least divergence (KL)."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from .entry import Histogram, Scheme

NUM_LEVELS = 256  # levels of the candidate distribution in the KL search (Migacz, GTC 2017): those of uint8
PERCENTILE = 99.99


def minmax(held: Histogram) -> tuple[float, float]:
    """Clip nothing."""
    return held.low, held.high


MINMAX = Scheme(
    "minmax",
    "the extremes over all calibration images",
    (".onnx", ".xml", ".tflite", ".pte"),
    ranges=minmax,
    automatic=True,
    extremes=True,
)


def percentile(held: Histogram, percent: float = PERCENTILE) -> tuple[float, float]:
    """Leave half of what is beyond `percent` out at each end."""
    if not held.high > held.low:
        return held.low, held.high
    fraction = np.cumsum(held.counts) / held.counts.sum()
    tail = (1 - percent / 100) / 2
    width = (held.high - held.low) / len(held.counts)
    left = int(np.searchsorted(fraction, tail, side="right"))
    right = int(np.searchsorted(fraction, 1 - tail, side="left"))
    return held.low + left * width, held.low + (right + 1) * width


PERCENTILES = Scheme(
    "percentile", f"the range of {PERCENTILE:g} % of the values", (".onnx",), ranges=percentile, automatic=True
)


def entropy(held: Histogram) -> tuple[float, float]:
    """Clip the high end, and the low end in proportion, where KL(values || their 8-bit form) is least."""
    if not held.high > held.low:
        return held.low, held.high
    counts = held.counts.astype(np.float64)
    # A ReLU puts half its values on 0 exactly, which any grid holds without error: left in, that spike hides the
    # cost of cutting all the rest away.
    spike = int(counts.argmax())
    counts[spike] = counts[spike + 1] if spike + 1 < len(counts) else counts[spike - 1]
    if not counts.any():
        return held.low, held.high
    best, best_size = np.inf, len(counts)
    # The side with more mass is kept: cut from the right for (nearly) non-negative tensors, else from both.
    both = held.low < -0.05 * held.high
    for size in range(NUM_LEVELS, len(counts) + 1, 16):
        kept, start = _keep(counts, size, both, held.low, held.high)
        divergence = _divergence(counts, kept, start)
        if divergence < best:
            best, best_size = divergence, size
    kept, start = _keep(counts, best_size, both, held.low, held.high)
    width = (held.high - held.low) / len(counts)
    return held.low + start * width, held.low + (start + len(kept)) * width


ENTROPY = Scheme(
    "entropy", "the range whose 8-bit form diverges least from the values", (".onnx",), ranges=entropy, automatic=True
)


def _keep(
    counts: npt.NDArray[np.float64], size: int, both: bool, low: float, high: float
) -> tuple[npt.NDArray[np.float64], int]:
    """Give the `size` bins that are kept and the first one's index: around zero when values have both signs."""
    if not both:
        return counts[:size], 0
    zero = round(-low / (high - low) * len(counts)) if high > 0 else len(counts)
    start = min(max(0, round(zero * (1 - size / len(counts)))), len(counts) - size)
    return counts[start : start + size], start


def _divergence(counts: npt.NDArray[np.float64], kept: npt.NDArray[np.float64], start: int) -> float:
    """Give KL(p || q): p are the kept bins with what was cut added at their ends, q is p in NUM_LEVELS steps."""
    p = kept.copy()
    p[0] += counts[:start].sum()
    p[-1] += counts[start + len(kept) :].sum()
    level = _levels(len(kept))
    filled = kept > 0
    mass = np.bincount(level, weights=kept, minlength=NUM_LEVELS)
    places = np.bincount(level, weights=filled, minlength=NUM_LEVELS)
    q = np.where(filled, (mass / np.maximum(places, 1))[level], 0.0)
    p, q = p / p.sum(), q / max(q.sum(), 1.0)
    here = p > 0
    return float((p[here] * np.log(p[here] / np.maximum(q[here], 1e-10))).sum())


@functools.cache
def _levels(size: int) -> npt.NDArray[np.int64]:
    """Give the level `(size,)` of each of so many bins: the search asks for the same hundred sizes for every tensor."""
    edges = np.linspace(0, size, NUM_LEVELS + 1).astype(int)
    return np.repeat(np.arange(NUM_LEVELS), np.diff(edges))
