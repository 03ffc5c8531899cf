"""How far the times of another session lie from a latency model's, and the factor that corrects a model by a session.

A session differs from another one by a factor that all its networks share, as far as the anchor nets did not take it
out (`common`), and by each network's own (`own`: where its weights came to lie). No error on networks left out shows
them: all labels of a model are of the same sessions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .evidence import COVERAGE, TAIL, quantile

Floats = NDArray[np.float64]

# What is known before a session was seen, worth `FREEDOM` of them: relative standard deviations. Twenty networks
# measured twice were 1.6 and 3.0 % apart in the median, which is 2 % each (docs/measuring.md).
COMMON, OWN, FREEDOM = 0.03, 0.02, 4.0
_SWEEPS = 50


@dataclass(frozen=True)
class SessionNoise:
    """Relative standard deviations of a session's times about those that a model was fitted on."""

    common: float = COMMON
    own: float = OWN
    sessions: float = 0.0  # how many were seen beyond the first

    @property
    def total(self) -> float:
        """Give the deviation of one network's time in a later session."""
        return math.hypot(self.common, self.own)

    def half_width(self, coverage: float) -> float:
        """Give the half-width of the central interval of a later session's times, relative."""
        from scipy.special import ndtri

        return self.total * float(ndtri((1 + coverage) / 2))

    def seen(self, shift: float) -> SessionNoise:
        """Learn from one more session, all of whose times differed by the factor exp(shift)."""
        weight = FREEDOM + self.sessions
        common = math.sqrt((weight * self.common**2 + shift**2) / (weight + 1))
        return replace(self, common=common, sessions=self.sessions + 1)


@dataclass(frozen=True)
class Correction:
    """The factor between the times of a session and a model's predictions, with its 90 % interval."""

    factor: float
    low: float
    high: float
    num_nets: int
    apart: float  # mean relative error of the corrected predictions on the same networks

    def to_dict(self) -> dict[str, float | int]:
        """Give it as JSON-able values."""
        return {"factor": self.factor, "low": self.low, "high": self.high, "num_nets": self.num_nets}

    def summary(self) -> str:
        """Say it in words."""
        many = f"{self.num_nets} network{'s' * (self.num_nets != 1)}"
        return f"times {self.factor:.2f} by {many} measured now (90 % interval {self.low:.2f} to {self.high:.2f})"


def session_noise(log_ms: Sequence[Mapping[str, float]]) -> SessionNoise:
    """Estimate the noise from the log times of a calibration's sessions, by name of the network.

    Labels are means over these sessions; a later one is a single session more, whose distance from their mean counts.
    """
    noise = SessionNoise()
    if len(log_ms) < 2:
        return noise
    names = [name for name in log_ms[0] if all(name in session for session in log_ms)]
    table = np.array([[session[name] for session in log_ms] for name in names])  # (nets, sessions)
    shift = np.median(table - table.mean(axis=1, keepdims=True), axis=0)
    shift -= shift.mean()
    rest = table - table.mean(axis=1, keepdims=True) - shift
    freedom = len(log_ms) - 1
    own = (FREEDOM * OWN**2 + float((rest**2).sum())) / (FREEDOM + freedom * (len(names) - 1))
    common = (FREEDOM * COMMON**2 + float((shift**2).sum())) / (FREEDOM + freedom)
    apart = 1 + 1 / len(log_ms)
    return SessionNoise(math.sqrt(common * apart), math.sqrt(own * apart), float(freedom))


def correction_of(predicted_ms: ArrayLike, deviation: ArrayLike, measured_ms: ArrayLike, common: float) -> Correction:
    """Estimate a session's factor from some networks: predictions, their relative deviations, and times, `(nets,)`.

    The prior of the factor's log has the deviation `common`. Prior and errors are Student's t, so that a factor that
    all networks show is believed however large it is, and one slow network does not make one.
    """
    apart = np.log(np.asarray(measured_ms, dtype=np.float64) / np.asarray(predicted_ms, dtype=np.float64))
    variance = np.asarray(deviation, dtype=np.float64) ** 2
    shift = float(np.median(apart))
    for _ in range(_SWEEPS):
        weight = (TAIL + 1) / (TAIL * variance + (apart - shift) ** 2)
        prior = (TAIL + 1) / (TAIL * common**2 + shift**2)
        shift = float((weight @ apart) / (prior + weight.sum()))
    half = quantile(COVERAGE) / math.sqrt(prior + float(weight.sum()))
    return Correction(
        math.exp(shift), math.exp(shift - half), math.exp(shift + half), len(apart),
        float(np.abs(np.exp(shift - apart) - 1).mean()),
    )  # fmt: skip
