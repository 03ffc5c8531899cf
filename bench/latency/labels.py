"""The labels of a latency model: which times it can be fitted on, and repeats of one network as one label.

Left apart, repeats of a network stand on both sides of a cross-validation, whose error is then only their noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tutelage.records import Arch, InputError

Floats = NDArray[np.float64]

MIN_NETS = 5
# Standard error of a median of many values, in standard errors of their mean (normal noise): sqrt(pi / 2).
_MEDIAN_LOSS = math.sqrt(math.pi / 2)


@dataclass(frozen=True)
class Merged:
    """Distinct networks `(nets)` in order of appearance, each with the median of its times in ms."""

    archs: list[Arch]
    latency_ms: Floats
    label_noise: Floats  # relative standard error of each label by the spread of repeats; 0 where nothing was repeated
    repeat_noise: float  # relative standard deviation of one measurement, pooled over the networks; nan: no repeats
    num_measurements: int


def merge_repeats(archs: Sequence[Arch], latency_ms: ArrayLike) -> Merged:
    """Merge the times of equal archs: their median, which one slow repeat does not move, and its standard error.

    The spread is pooled over all networks: two or three repeats of one say little about its own.
    """
    times: dict[Arch, list[float]] = {}
    for arch, value in zip(archs, np.asarray(latency_ms, dtype=np.float64).tolist(), strict=True):
        times.setdefault(arch, []).append(value)
    label = np.array([float(np.median(values)) for values in times.values()])
    counts = np.array([len(values) for values in times.values()])
    freedom = int((counts - 1).sum())
    if freedom == 0:
        return Merged(list(times), label, np.zeros(len(label)), math.nan, len(archs))
    logs = [np.log(values) for values in times.values()]
    spread = math.sqrt(sum(float(((values - values.mean()) ** 2).sum()) for values in logs) / freedom)
    # The mean of one or two values is their median.
    loss = np.where(counts > 2, _MEDIAN_LOSS, 1.0)
    return Merged(list(times), label, spread * loss / np.sqrt(counts), spread, len(archs))


def number_architectures(archs: Sequence[Arch]) -> NDArray[np.int64]:
    """Number the architectures, whatever their resolution, in order of appearance. Raises InputError for too few."""
    numbers: dict[Arch, int] = {}
    found = np.array([numbers.setdefault(arch.replace(r=1), len(numbers)) for arch in archs])
    if len(numbers) < MIN_NETS:
        raise InputError(
            f"{len(numbers)} architectures at {len({arch.r for arch in archs})} resolutions are too few for a latency "
            f"model: measure at least {MIN_NETS} different ones"
        )
    return found


def check_latencies(latency_ms: ArrayLike, num_archs: int) -> Floats:
    """Refuse latencies no model can be fitted on; returns them as an array in ms."""
    latency = np.asarray(latency_ms, dtype=np.float64)
    if latency.shape != (num_archs,):
        raise InputError(f"{latency.size} latencies for {num_archs} archs: give one a net")
    if num_archs < MIN_NETS:
        raise InputError(f"{num_archs} measured nets are too few for a latency model: measure at least {MIN_NETS}")
    bad = np.flatnonzero(~(np.isfinite(latency) & (latency > 0)))
    if len(bad):
        raise InputError(f"latency of net {bad[0]} is {latency[bad[0]]} ms: give positive finite milliseconds")
    if np.ptp(latency) < 1e-9 * latency.max():
        raise InputError(f"all {num_archs} latencies are {latency[0]:g} ms: nothing can be learned from equal times")
    # Nets of one space differ by some ten times at most: a factor near 1000 is another unit.
    middle = float(np.median(latency))
    odd = np.flatnonzero((latency > 100 * middle) | (latency < middle / 100))
    if len(odd):
        raise InputError(
            f"latency of net {odd[0]} is {latency[odd[0]]:g} ms where the median is {middle:g} ms: mixed units? give ms"
        )
    return latency
