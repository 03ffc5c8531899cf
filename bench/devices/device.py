"""Make a device profile by measuring: fit a latency model and write both; check that a profile still holds.

`make_profile` exports archs and blocks by callables and leaves `NAME.yaml`, `NAME.latency.json` and
`NAME.measurements.csv` in a folder; `profiles.py` and `table.py` read them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tutelage.bench.latency.calibrate import ExportArch, ExportBlock, block_table_specs, calibrate, measure_nets
from tutelage.bench.latency.model import LatencyModel
from tutelage.bench.latency.transfer import covering, transfer
from tutelage.bench.protocol.host import check_threads
from tutelage.bench.protocol.measure import TOLERANCE, Progress
from tutelage.bench.protocol.remote import check_reachable, launcher_of
from tutelage.bench.protocol.worker import Board, start_workers, stop_workers
from tutelage.bench.runtimes.registry import find_runtime
from tutelage.records import DeviceProfile, InputError, utc_now
from tutelage.search.spaces.space import Space

from .profiles import (
    check_name,
    find_profile,
    list_profiles,
    load_latency_model,
    make_checked,
    profile_folders,
    read_profile,
    remove_profile,
    user_folder,
    write_profile,
)
from .table import table_path, write_table

__all__ = [
    "DeviceCheck", "block_table_specs", "check_profile", "find_profile", "list_profiles", "load_latency_model",
    "make_profile", "profile_folders", "read_profile", "remove_profile", "user_folder", "write_profile",
]  # fmt: skip

log = logging.getLogger(__name__)

# Exporting many resolutions' blocks would take longer than the measurement is worth.
MAX_RESOLUTIONS = 4
# Beyond so many nets the time is better spent on measuring these again.
MAX_NETS = 20


def make_profile(
    name: str,
    runtime: str,
    *,
    threads: int = 1,
    batch: int = 1,
    precision: str = "fp32",
    space: Space,
    resolutions: Sequence[int],
    num_classes: int,
    in_channels: int,
    export: ExportArch,
    export_block: ExportBlock | None,
    folder: Path,
    minutes: float = 3.0,
    num_nets: int = 8,
    small_error: float = 0.02,
    seed: int = 0,
    progress: Progress | None = None,
    ssh: str = "",
    command: str = "",
    program: str = "",
    cores: Sequence[int] = (),
    tolerance: float = TOLERANCE,
    kept: Path | None = None,
    sources: Mapping[str, LatencyModel] | None = None,
) -> DeviceProfile:
    """Measure a device, fit its latency model and write both into `folder`; returns the profile.

    `export(arch, path)` and `export_block(spec, path)` write a model file whose suffix says the format. Without
    `export_block` the model is fitted on counts only and needs more nets. `minutes` bounds the sessions: nets are
    added and measured again until the model's error is at most `small_error`, or the time is over.
    The device is this machine, or `ssh`: USER@HOST or adb:SERIAL, or reached by `command`; see `DeviceProfile`.
    Files that had to be converted for the runtime are kept in the folder `kept`.
    sources: models of other devices; then `num_nets` nets are measured and no more, and the model is transferred from
    these, unless that has the larger error on nets left out.
    Raises InputError for what cannot be run, UnsteadyDeviceError for a device that is not steady.
    """
    check_name(name)
    found = find_runtime(runtime)
    found.check(precision, here=not (ssh or command))
    if found.caveat:
        log.warning("runtime %s: %s; compare its times with others of the device", runtime, found.caveat)
    sides = tuple(sorted(set(resolutions)))
    if not 1 <= len(sides) <= MAX_RESOLUTIONS:
        raise InputError(f"a profile covers 1 to {MAX_RESOLUTIONS} resolutions, got {list(sides)}")
    profile = make_checked(
        {"name": name, "runtime": runtime, "threads": threads, "batch": batch, "precision": precision,
         "host": ssh or "local", "command": command, "program": program, "cores": tuple(cores)}
    )  # fmt: skip
    if sources is not None:
        here = space.with_resolutions(sides)
        covering(sources, [here.smallest().replace(r=side) for side in sides])
    if profile.local:
        check_threads(threads, device=name)
    _reach(profile)
    calibration = calibrate(
        profile, space.with_resolutions(sides), num_classes=num_classes, in_channels=in_channels, export=export,
        export_block=export_block, minutes=minutes, num_nets=num_nets,
        max_nets=max(num_nets, MAX_NETS) if sources is None else num_nets,
        small_error=small_error, tolerance=tolerance, typical_nets=sources is not None, kept=kept, seed=seed,
        progress=progress,
    )  # fmt: skip
    model, first = calibration.model, next(iter(calibration.timed.measurements.values()))
    if sources is not None:
        outcome = transfer(
            calibration.nets, calibration.net_ms, sources, num_classes=num_classes, in_channels=in_channels
        )
        log.warning("%s", outcome.summary())
        outcome.model.anchor_ms = model.anchor_ms
        model = outcome.model
    profile = DeviceProfile.from_dict(
        {
            **profile.to_dict(),
            "runtime_version": first.runtime_version,
            "effective_precision": first.effective_precision,
            "cpu_model": calibration.timed.cpu_model,
            "latency_model": f"{name}.latency.json",
            "spaces": (space.name,),
            "resolutions": sides,
            "steadiness": round(calibration.unsteadiness, 5),
            "model_error": round(model.error, 5),
            "created": utc_now(),
        }
    )
    write_table(table_path(folder, name), calibration.nets, calibration.net_ms)
    write_profile(profile, folder, model)
    return profile


def _reach(profile: DeviceProfile) -> None:
    """Refuse a device that cannot be reached, or has no such runtime, before minutes go into exporting for it."""
    with launcher_of(profile) as reached:
        if isinstance(reached, Board):  # what it says of itself may not fit the profile
            stop_workers(
                start_workers(
                    [(profile.runtime, [])], threads=profile.threads, precision=profile.precision, launcher=reached
                )
            )


@dataclass(frozen=True)
class DeviceCheck:
    """What measuring a device again showed: the drift of its scale, and how far the model's predictions are off."""

    profile: DeviceProfile
    drift: float | None  # anchors now over anchors then, minus 1; None: no anchors were measured then
    error: float  # mean relative error of the predictions on freshly measured nets, at the scale of then if it is known
    covered: float  # fraction of fresh nets inside their 90 % interval
    holds: bool


def check_profile(
    profile: DeviceProfile,
    folder: Path,
    *,
    space: Space,
    export: ExportArch,
    num_nets: int = 6,
    seed: int = 1,
    progress: Progress | None = None,
    max_drift: float = 0.15,
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
    holds = steady and error <= max(0.05, 3 * (profile.model_error or 0.0))
    return DeviceCheck(profile, drift, error, covered, holds)
