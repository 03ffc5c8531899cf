"""Remove a host's drift from interleaved times, over seconds and not only from round to round.

Other tenants of the shared cache and memory slow every network that streams its weights by up to 30 % for a few
timings, while a model that fits the inner cache is not slowed. So the drift at a moment is estimated from the timings
nearest to it, of models of the same kind (`typical_log_ms`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Timings before and after a moment whose median is its drift. On a 2-core host with other tenants,
# 3 to 5 halved the label noise of whole rounds (10 and more were worse).
_NEIGHBOURS = 5
_SWEEPS = 6
_QUARTERS = 4
# Between the fastest and the slowest quarter of a session. Phones fall by 20 % and more once they are hot.
THROTTLED = 0.10


def typical_log_ms(log_ms: Floats, when: Ints) -> Floats:
    """Give each model's typical log time, `(models,)`, free of the drift that all models show at a time.

    `log_ms` and `when` are `(models, rounds)`; `when` orders the timings. As in Tukey's median polish the two
    effects are fitted alternately, but the drift of a timing is the median residual of its neighbours, not itself, so
    that a model's own noise is never taken for drift.
    """
    order = np.argsort(when, axis=None)
    typical: Floats = np.median(log_ms, axis=1)
    for _ in range(_SWEEPS):
        residual = (log_ms - typical[:, None]).ravel()[order]
        drift = np.empty_like(residual)
        drift[order] = neighbour_medians(residual)
        typical = np.median(log_ms - drift.reshape(log_ms.shape), axis=1)
    return typical


def neighbour_medians(values: Floats) -> Floats:
    """Give the median of the values beside each one, itself left out; near the ends of those there are."""
    reach = min(_NEIGHBOURS, len(values) - 1)
    if reach < 1:
        return np.zeros_like(values)
    padded = np.pad(values, reach, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).copy()
    windows[:, reach] = np.nan
    return np.asarray(np.nanmedian(windows, axis=1))


def polish(log_ms: Floats, sweeps: int = 10) -> Floats:
    """Remove the rounds' common drift from `log_ms (models, rounds)`: Tukey's two-way median polish.

    Returns the models' effects `(models,)`, i.e. each model's typical log time in a typical round.
    """
    residual = log_ms.copy()
    models = np.zeros(len(residual))
    drift = np.zeros(residual.shape[1])
    for _ in range(sweeps):
        step = np.median(residual, axis=1)
        models, residual = models + step, residual - step[:, None]
        step = np.median(residual, axis=0)
        drift, residual = drift + step, residual - step
    return np.asarray(models + np.median(drift))


def halves_apart(log_ms: Floats, num_anchors: int) -> Floats:
    """Give the relative difference of each model's polished time between the first and second half of the rounds.

    Both halves are read relative to their own anchors, as two separate measurements would be.
    """
    middle = log_ms.shape[1] // 2
    first, second = polish(log_ms[:, :middle]), polish(log_ms[:, middle:])
    num = len(log_ms) - num_anchors
    change = (second - second[num:].mean()) - (first - first[num:].mean())
    return np.asarray(np.abs(np.expm1(change[:num])))


def effects_of(log_ms: Floats, when: Ints, must_be_steady: Sequence[bool], num_streaming: int) -> Floats:
    """Give each model's typical log time; nets and streaming anchors (the last rows) share one drift estimate, small
    blocks and tiny anchors have another.

    Contention for memory slows nets that stream their weights, but not models that fit the inner cache.
    """
    tiny = len(log_ms) - len(must_be_steady) - num_streaming
    nets = np.array([*must_be_steady, *[False] * tiny, *[True] * num_streaming])
    effects = np.empty(len(log_ms))
    for kind in (nets, ~nets):
        if kind.any():
            effects[kind] = typical_log_ms(log_ms[kind], when[kind])
    return effects


def slowdown(anchors_log_ms: Floats) -> float:
    """Give the relative difference between the fastest and the slowest quarter of a session, by its anchors.

    `anchors_log_ms` is `(anchors, rounds)`. A quarter's level is the median over its rounds of the anchors' mean, so
    that a few disturbed timings change nothing and a clock that fell for a quarter of the session shows in full.
    """
    rounds = anchors_log_ms.mean(axis=0)
    levels = [np.median(quarter) for quarter in np.array_split(rounds, _QUARTERS) if len(quarter)]
    return float(np.expm1(max(levels) - min(levels)))
