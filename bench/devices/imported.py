"""Device profiles from measurements that someone made elsewhere, or on this machine before.

Such a device is unreachable unless its host is given: it is predicted, and never measured on this machine in its place.
`measurements.py` reads the files, `plausible.py` refuses what no such device could have shown.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tutelage.bench.latency.model import LatencyModel
from tutelage.bench.latency.sessions import SessionNoise
from tutelage.bench.latency.transfer import choose_nets, transfer
from tutelage.bench.runtimes.registry import find_runtime
from tutelage.bench.runtimes.runner import processor
from tutelage.records import UNREACHABLE, DeviceProfile, InputError, utc_now

from . import ofa_table
from .measurements import Measured, read_measured, read_measurements
from .plausible import check_conditions, check_one_kind, check_throughput, check_units
from .profiles import check_name, make_checked, write_profile
from .table import table_path, write_table

__all__ = ["check_units", "import_profile", "read_measurements"]

log = logging.getLogger(__name__)

# How far sums of separately timed blocks are assumed to be from whole networks: a table does not say.
BLOCK_TABLE_NOISE = 0.1


def import_profile(
    name: str,
    path: Path,
    *,
    runtime: str,
    folder: Path,
    threads: int = 1,
    batch: int = 1,
    precision: str = "fp32",
    num_classes: int = 1000,
    in_channels: int = 3,
    space: str = "",
    host: str = UNREACHABLE,
    command: str = "",
    program: str = "",
    cores: Sequence[int] = (),
    column: str = "",
    where: Sequence[str] = (),
    nets: int | None = None,
    sources: Mapping[str, LatencyModel] | None = None,
) -> DeviceProfile:
    """Fit a latency model on a file of measurements, write the profile into `folder` and return it.

    `space` names the space of archs that do not say. `host`, `command`, `program` and `cores` say how the device is
    reached from here, see `DeviceProfile`; `local` means that this machine is the one that was measured. `column` and
    `where` choose among what the file holds.
    nets: use at most so many of its networks, chosen by design. sources: models of other devices, which are transferred
    from, unless that has the larger error on networks left out.
    Repeats of a network are merged. Raises InputError naming the line, or the figure that looks wrong, and the remedy.
    """
    check_name(name)
    measured = read_measured(path, space, column=column, where=where)
    if measured.is_block_table:
        num_classes, in_channels = ofa_table.CLASSES, ofa_table.CHANNELS
    asked = {"threads": threads, "batch": batch, "precision": precision}
    asked |= {"channels": in_channels, "classes": num_classes}
    check_conditions(measured.conditions, asked)
    check_throughput(measured.archs, measured.latency_ms, find_runtime(runtime), asked, num_classes, in_channels)
    check_one_kind(measured.archs, measured.latency_ms, num_classes, in_channels)
    used = measured
    if nets is not None:
        used = _chosen(measured, nets, num_classes, in_channels)
    archs, latency_ms = used.archs, used.latency_ms
    if sources is not None:
        model = _transferred(measured, used, sources, num_classes, in_channels)
    else:
        model = LatencyModel.fit(archs, latency_ms, num_classes=num_classes, in_channels=in_channels)
    if measured.is_block_table:
        log.warning(
            "%s holds times of blocks, not of networks: how far their sums are off was never measured; intervals "
            "assume %.0f %%, and `tutelage device check %s` measures it where the device can be reached",
            path.name, 100 * BLOCK_TABLE_NOISE, name,
        )  # fmt: skip
        model.widen(BLOCK_TABLE_NOISE)
    elif model.num_measurements > model.num_nets:
        log.warning(
            "%s holds %d repeats of %d networks: they are merged, one measurement differs by %.1f %% (standard "
            "deviation)", path.name, model.num_measurements, model.num_nets, 100 * model.repeat_noise,
        )  # fmt: skip
    if host != UNREACHABLE or command:  # whoever measures there again does so in another session
        model.session = SessionNoise()
    profile = make_checked(
        {
            "name": name,
            "runtime": runtime,
            "threads": threads,
            "batch": batch,
            "precision": precision,
            "host": "local" if command and host == UNREACHABLE else host,
            "command": command,
            "program": program,
            "cores": tuple(cores),
            "cpu_model": processor() if host == "local" else "",
            "latency_model": f"{name}.latency.json",
            "spaces": model.spaces,
            "resolutions": model.resolutions,
            "steadiness": None if math.isnan(model.label_noise) else round(model.label_noise, 5),
            "model_error": None if measured.is_block_table else round(model.error, 5),
            "session_noise": None if model.session is None else round(model.session.total, 5),
            "created": utc_now(),
        }
    )
    if not measured.is_block_table:
        write_table(table_path(folder, name), archs, latency_ms)
    write_profile(profile, folder, model)
    return profile


def _chosen(measured: Measured, nets: int, num_classes: int, in_channels: int) -> Measured:
    """Keep all measurements of at most `nets` networks, chosen by design."""
    places = choose_nets(measured.archs, nets, num_classes, in_channels)
    kept = {measured.archs[place] for place in places}
    rows = [place for place, arch in enumerate(measured.archs) if arch in kept]
    return replace(
        measured, archs=[measured.archs[i] for i in rows], latency_ms=[measured.latency_ms[i] for i in rows],
        conditions=[measured.conditions[i] for i in rows],
    )  # fmt: skip


def _transferred(
    measured: Measured, used: Measured, sources: Mapping[str, LatencyModel], num_classes: int, in_channels: int
) -> LatencyModel:
    """Fit on the measurements that are used, and say how well the model predicts the others of the file."""
    if measured.is_block_table:
        raise InputError("the file holds times of blocks, not of networks: leave out --transfer")
    found = transfer(used.archs, used.latency_ms, sources, num_classes=num_classes, in_channels=in_channels)
    log.warning("%s", found.summary())
    kept = set(used.archs)
    others = [place for place, arch in enumerate(measured.archs) if arch not in kept]
    if others:
        mean, low, high = found.model.predict([measured.archs[place] for place in others])
        true = np.array([measured.latency_ms[place] for place in others])
        log.warning(
            "on %d other measurements of the file the error is %.1f %%, and %.0f %% lie in their 90 %% interval",
            len(others), 100 * np.mean(np.abs(mean / true - 1)), 100 * np.mean((low <= true) & (true <= high)),
        )  # fmt: skip
    return found.model
