"""Say whether the validation figure of a training was still rising when it ended: `still_rising`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What rises by less, half a point of AUC or accuracy, is of no use to anybody.
LEAST_RISE = 0.005
# Standard errors that the rise of the last third must exceed: flat curves of four epochs and more are then taken for
# rising in at most 5 % of trainings, of ten and more in 2 %, see the simulation in the tests.
SURE = 3.0
# A line through fewer points says nothing.
_LEAST_EPOCHS = 3
# The standard deviation of a second difference of independent values is sqrt(6) times theirs.
_SECOND_DIFFERENCE = math.sqrt(6.0)


def still_rising(history: Sequence[Mapping[str, Any]], *, stopped_early: bool = False) -> str:
    """Say in a sentence that validation was still rising; empty where it was not, or where one epoch says nothing.

    history: one record an epoch with `val_auc` (None where it is undefined) and `val_accuracy`. A line through the last
    third of the epochs must rise by more than the noise from epoch to epoch. So must the mean of the last twentieth
    over that of the twentieth before it (at least two epochs each): a schedule that lowers the learning rate lets
    validation rise while it does, and what counts is whether that has come to its end. Of two or three epochs the last
    must be the best, by more than half a point.
    """
    if stopped_early or len(history) < 2:
        return ""
    name, values = _figure(history)
    number = len(values)
    window = max(_LEAST_EPOCHS, math.ceil(number / 3))
    if number <= _LEAST_EPOCHS:
        rises, window = values[-1] - np.max(values[:-1]) > LEAST_RISE, number
    else:
        noise = _noise(values)
        rises = _rises(values[-window:], noise) and _ends_rising(values, noise)
    if not rises:
        return ""
    return (
        f"validation still rising when training ended: {name} {values[-window]:.3f} to {values[-1]:.3f} in the last "
        f"{window} of {number} epochs"
    )


def _figure(history: Sequence[Mapping[str, Any]]) -> tuple[str, NDArray[np.float64]]:
    """Give the figure by which the best epoch is chosen: AUC where every epoch has it, else accuracy."""
    aucs = [record["val_auc"] for record in history]
    if None not in aucs:
        return "AUC", np.array(aucs, dtype=np.float64)
    return "accuracy", np.array([record["val_accuracy"] for record in history], dtype=np.float64)


def _noise(values: NDArray[np.float64]) -> float:
    """Estimate the noise of one epoch from second differences, which a straight rise leaves at 0; the later half."""
    later = values[-max(_LEAST_EPOCHS + 1, len(values) // 2 + 2) :]
    return float(np.sqrt(np.mean(np.diff(later, 2) ** 2))) / _SECOND_DIFFERENCE


def _rises(values: NDArray[np.float64], noise: float) -> bool:
    """Say whether a line through the values rises by more than its noise, and by more than `LEAST_RISE`."""
    places = np.arange(len(values)) - (len(values) - 1) / 2
    spread = float(np.sum(places**2))
    steps = len(values) - 1
    rise = float(places @ values) / spread * steps
    return rise > max(LEAST_RISE, SURE * noise / math.sqrt(spread) * steps)


def _ends_rising(values: NDArray[np.float64], noise: float) -> bool:
    """Say whether the last epochs are better than those before them, by half of `LEAST_RISE` and the noise of both."""
    size = max(2, len(values) // 20)
    rise = float(np.mean(values[-size:]) - np.mean(values[-2 * size : -size]))
    return rise > max(LEAST_RISE / 2, noise * math.sqrt(2 / size))
