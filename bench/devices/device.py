"""Make a device profile by measuring: fit a latency model and write both.

`make_profile` exports archs and blocks by callables and leaves `NAME.yaml`, `NAME.latency.json` and
`NAME.measurements.csv` in a folder; `profiles.py` and `table.py` read them, `check.py` measures again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from tutelage.bench.latency.calibrate import ExportArch, ExportBlock, block_table_specs, calibrate
from tutelage.bench.latency.model import LatencyModel
from tutelage.bench.latency.transfer import covering, transfer
from tutelage.bench.protocol.host import check_threads
from tutelage.bench.protocol.measure import TOLERANCE, Progress
from tutelage.bench.protocol.remote import launcher_of
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
    "block_table_specs", "find_profile", "list_profiles", "load_latency_model",
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
        outcome.model.anchor_ms, outcome.model.session = model.anchor_ms, model.session
        model = outcome.model
    profile = DeviceProfile.from_dict(
        {
            **profile.to_dict(),
            "runtime_version": first.runtime_version,
            "effective_precision": first.effective_precision,
            "cpu_model": calibration.timed.cpu_model,
            "processor": first.processor,
            "system": calibration.timed.system,
            "latency_model": f"{name}.latency.json",
            "spaces": (space.name,),
            "resolutions": sides,
            "steadiness": round(calibration.unsteadiness, 5),
            "model_error": round(model.error, 5),
            "session_noise": None if model.session is None else round(model.session.total, 5),
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
