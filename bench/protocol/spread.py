"""Confidence interval of a median latency from the samples of one measurement."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tutelage.records import Measurement

# A measurement has at least this many rounds (measure.MIN_ROUNDS), so a block holds whole rounds and blocks are nearly
# independent, which neighbouring samples of one round are not.
NUM_BLOCKS = 8
# The 97.5 % point of Student's t with NUM_BLOCKS - 1 degrees of freedom.
_T = 2.3646


def median_interval(samples_ms: Sequence[float]) -> tuple[float, float] | None:
    """Give the 95 % interval of the median latency by batch means: samples in their order, split into eight blocks.

    The medians of the blocks vary as rounds do, drift of the host included; a bootstrap of single samples would treat
    those of one round as independent. None for fewer than two samples a block.
    Source: Law, Simulation Modeling and Analysis, 5th ed., section 9.5.3 (nonoverlapping batch means).
    """
    if len(samples_ms) < 2 * NUM_BLOCKS:
        return None
    samples = np.asarray(samples_ms, dtype=np.float64)
    medians = np.array([np.median(block) for block in np.array_split(samples, NUM_BLOCKS)])
    half = _T * float(medians.std(ddof=1)) / math.sqrt(NUM_BLOCKS)
    middle = float(np.median(samples))
    return max(middle - half, float(samples.min())), middle + half


def latency_bounds(measurement: Measurement | None) -> dict[str, float]:
    """Give the interval of the median latency under the names that a row's details use; empty where it is unknown."""
    interval = None if measurement is None else median_interval(measurement.samples_ms)
    return {} if interval is None else {"latency_p50_ms_lo": interval[0], "latency_p50_ms_hi": interval[1]}
