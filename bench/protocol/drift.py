"""Take a host's drift out of interleaved times, at the pace at which it happens.

A host drifts within seconds, not from round to round only: other tenants of the shared cache and memory slow every
network that streams its weights, for some turns, by up to 30 %, while a model that fits the inner cache does not
notice. So the drift is read off the turns nearest in time, of models of the same kind.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Turns on each side whose median is the drift of a moment. On a shared 2-core host 3 to 5 halved the label noise of
# whole rounds (10 and more were worse).
_NEIGHBOURS = 5
_SWEEPS = 6


def typical_log_ms(log_ms: Floats, when: Ints) -> Floats:
    """Give each model's typical log time, `(models,)`, free of the drift that all models show at a time.

    `log_ms` and `when` are `(models, rounds)`; `when` orders the turns in time. As in Tukey's median polish the two
    effects take turns, but the drift of a turn is the median residual of its neighbours in time, itself left out, so
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
    """Take the rounds' common drift out of `log_ms (models, rounds)`: Tukey's two-way median polish.

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
    """Say how far each model's polished time differs between the first and the second half of the rounds, as a share.

    Both halves are read relative to their own anchors, as two separate measurements would be.
    """
    middle = log_ms.shape[1] // 2
    first, second = polish(log_ms[:, :middle]), polish(log_ms[:, middle:])
    num = len(log_ms) - num_anchors
    change = (second - second[num:].mean()) - (first - first[num:].mean())
    return np.asarray(np.abs(np.expm1(change[:num])))
