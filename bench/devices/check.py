"""Measure a device again: whether its profile holds, what changed there since, and the scale anew (`reanchor`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tutelage.bench.latency.calibrate import ExportArch, measure_nets
from tutelage.bench.latency.model import LatencyModel
from tutelage.bench.latency.sessions import Correction, SessionNoise
from tutelage.bench.latency.transfer import choose_nets
from tutelage.bench.protocol.measure import Progress, TimedJobs
from tutelage.bench.protocol.remote import check_reachable
from tutelage.records import DeviceProfile, InputError, utc_now
from tutelage.search.spaces.space import Space

from .profiles import load_latency_model, write_profile

CHECK_NETS, ANCHOR_NETS = 6, 3
MAX_DRIFT = 0.15
# Predictions may be off by three times the model's own error, and by this much at the least.
_LEAST_ERROR = 0.05
# Typical networks for a new scale are chosen of so many random ones.
_POOL = 100


@dataclass(frozen=True)
class DeviceCheck:
    """What measuring a device again showed: the drift of its scale, and how far the model's predictions are off."""

    profile: DeviceProfile  # with a new scale, where that was asked for
    drift: float | None  # anchors now over anchors then, minus 1; None: no anchors were measured then
    error: float  # mean relative error of the predictions on freshly measured nets, at the scale of then if it is known
    covered: float  # fraction of fresh nets inside their 90 % interval
    holds: bool
    correction: Correction  # the factor that all nets share, beyond the drift of the anchors
    changes: tuple[str, ...] = ()  # what was another version when the profile was made, or re-anchored
    reanchored: bool = False


def check_profile(
    profile: DeviceProfile,
    folder: Path,
    *,
    space: Space,
    export: ExportArch,
    num_nets: int = CHECK_NETS,
    seed: int = 1,
    progress: Progress | None = None,
    max_drift: float = MAX_DRIFT,
    kept: Path | None = None,
) -> DeviceCheck:
    """Measure some other nets and compare with the predictions. The profile holds if the scale and the errors do.

    Errors may be three times the model's own (at least 5 %) before the profile is said not to hold. Where the model has
    no anchors, the drift is unknown and part of the errors.
    """
    check_reachable(profile)
    model = load_latency_model(profile, folder)
    rng = np.random.default_rng(seed)
    covered_space = space.with_resolutions(profile.resolutions)
    archs = covered_space.decode(covered_space.random(num_nets, rng))
    timed, measured = measure_nets(
        profile, archs, in_channels=model.in_channels, export=export, seed=seed, progress=progress,
        anchor_ms=model.anchor_ms, kept=kept,
    )  # fmt: skip
    mean, low, high = model.predict(archs)
    drift = timed.anchor_ms / model.anchor_ms - 1 if model.anchor_ms else None
    error = float(np.mean(np.abs(mean / measured - 1)))
    covered = float(np.mean((low <= measured) & (measured <= high)))
    steady = drift is None or abs(drift) <= max_drift
    return DeviceCheck(
        profile, drift, error, covered, steady and error <= _allowed_error(profile),
        model.correction(archs, measured), changes_since(profile, timed),
    )  # fmt: skip


def reanchor(
    profile: DeviceProfile,
    folder: Path,
    *,
    space: Space,
    export: ExportArch,
    num_nets: int = ANCHOR_NETS,
    seed: int = 1,
    progress: Progress | None = None,
    kept: Path | None = None,
) -> DeviceCheck:
    """Give the latency model today's scale from a few nets, and file it with what the device's versions are now.

    All of the model but one factor is kept. Raises InputError, and files nothing, where the nets are not one factor
    from their predictions: then the device has to be measured again.
    """
    check_reachable(profile)
    model = load_latency_model(profile, folder)
    covered_space = space.with_resolutions(profile.resolutions)
    pool = covered_space.decode(covered_space.random(_POOL, np.random.default_rng(seed)))
    archs = [pool[place] for place in choose_nets(pool, num_nets, model.num_classes, model.in_channels)]
    timed, measured = measure_nets(
        profile, archs, in_channels=model.in_channels, export=export, seed=seed, progress=progress,
        anchor_ms=model.anchor_ms, kept=kept,
    )  # fmt: skip
    correction = model.correction(archs, measured)
    drift = timed.anchor_ms / model.anchor_ms - 1 if model.anchor_ms else None
    mean, low, high = model.predict(archs)
    if correction.apart > _allowed_error(profile):
        ratios = ", ".join(f"{ratio:.2f}" for ratio in measured / mean)
        raise InputError(
            f"{num_nets} networks take {ratios} times what {profile.name} predicts, which no factor mends (they are "
            f"{correction.apart:.1%} from it, allowed {_allowed_error(profile):.1%}): `tutelage device remove "
            f"{profile.name}` and add it anew"
        )
    again = _rescaled(model, correction, drift, timed.anchor_ms)
    first = next(iter(timed.measurements.values()))
    known = {"runtime_version": first.runtime_version, "system": timed.system, "processor": first.processor}
    update = {**known, "effective_precision": first.effective_precision, "reanchored": utc_now()}
    assert again.session is not None
    filed = profile.model_copy(update={**update, "session_noise": round(again.session.total, 5)})
    write_profile(filed, folder, again)
    return DeviceCheck(
        filed, drift, correction.apart, float(np.mean((low <= measured) & (measured <= high))), True, correction,
        changes_since(profile, timed), reanchored=True,
    )  # fmt: skip


def changes_since(profile: DeviceProfile, timed: TimedJobs) -> tuple[str, ...]:
    """Name what differs from the profile: runtime, driver, operating system. What a profile does not say is left out.

    The driver of a GPU stands behind its name.
    """
    first = next(iter(timed.measurements.values()))
    pairs: Mapping[str, tuple[str, str]] = {
        profile.runtime: (profile.runtime_version, first.runtime_version),
        "system": (profile.system, timed.system),
        "processor": (profile.processor, first.processor),
        "precision": (profile.effective_precision, first.effective_precision),
    }
    return tuple(f"{what} was {then}, is {now}" for what, (then, now) in pairs.items() if then and now and then != now)


def _allowed_error(profile: DeviceProfile) -> float:
    return max(_LEAST_ERROR, 3 * (profile.model_error or 0.0))


def _rescaled(model: LatencyModel, correction: Correction, drift: float | None, anchor_ms: float) -> LatencyModel:
    """Put the model on the scale of now; what it was off by is one more session's distance."""
    again = model.rescaled(correction.factor * (1 + (drift or 0.0)), anchor_ms)
    session = model.session or SessionNoise()
    again.session = session if drift is None else session.seen(math.log(correction.factor))
    return again
