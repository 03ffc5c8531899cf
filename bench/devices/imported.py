"""Device profiles from measurements that someone made elsewhere: a CSV or JSON file of architectures and milliseconds.

Such a device is unreachable unless its host is given: it is predicted, and never measured on this machine in its place.

CSV: a header, a column `arch` with the field's JSON (`ks`, `e`, `d`, `r`, `space`) and a column `ms` (or `latency_ms`).
JSON: a list of objects with the same two keys; the arch may be an object, or its keys may stand beside `ms`.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from tutelage.bench.latency.model import LatencyModel, check_latencies
from tutelage.bench.runtimes.runner import processor
from tutelage.records import UNREACHABLE, Arch, DeviceProfile, InputError, bounded_text, parsed_json, utc_now
from tutelage.search.costs.counts import count
from tutelage.search.spaces.space import find_space

from .profiles import check_name, make_checked, write_profile

_ARCH_KEYS = ("space", "ks", "e", "d", "r", "w")
_MS_KEYS = ("ms", "latency_ms")
# MACs a second that small networks reach on anything from a microcontroller to a data-centre GPU; outside, the file's
# times are in another unit (seconds or microseconds read as milliseconds are off by 1000).
_SLOWEST, _FASTEST = 5e7, 1e13


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
) -> DeviceProfile:
    """Fit a latency model on a file of measurements, write the profile into `folder` and return it.

    `space` names the space of archs that do not say. `host` or `command` say how the device is reached from here;
    `local` means that this machine is the one that was measured. Raises InputError naming the line and the remedy.
    """
    check_name(name)
    archs, latency_ms = read_measurements(path, space)
    check_units(archs, latency_ms, batch, num_classes, in_channels)
    model = LatencyModel.fit(archs, latency_ms, num_classes=num_classes, in_channels=in_channels)
    profile = make_checked(
        {
            "name": name,
            "runtime": runtime,
            "threads": threads,
            "batch": batch,
            "precision": precision,
            "host": "local" if command and host == UNREACHABLE else host,
            "command": command,
            "cpu_model": processor() if host == "local" else "",
            "latency_model": f"{name}.latency.json",
            "spaces": model.spaces,
            "resolutions": model.resolutions,
            "model_error": round(model.error, 5),
            "created": utc_now(),
        }
    )
    write_profile(profile, folder, model)
    return profile


def read_measurements(path: Path, space: str = "") -> tuple[list[Arch], list[float]]:
    """Read archs and milliseconds from a CSV or JSON file."""
    try:
        text = bounded_text(path, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read measurements {path}: {error}") from error
    rows = _json_rows(path, text) if text.lstrip()[:1] in ("[", "{") else _csv_rows(path, text)
    archs, latency_ms = [], []
    for number, row in enumerate(rows, 1):
        where = f"{path}, measurement {number}"
        archs.append(_arch(where, row, space))
        latency_ms.append(_milliseconds(where, row))
    check_latencies(latency_ms, len(archs))
    return archs, latency_ms


def check_units(
    archs: Sequence[Arch], latency_ms: Sequence[float], batch: int, num_classes: int, in_channels: int
) -> None:
    """Refuse times that no hardware could have: they are in another unit."""
    macs = count(archs, num_classes, in_channels).macs
    rate = float(np.median(np.asarray(macs, dtype=np.float64) * batch / (np.asarray(latency_ms) / 1000)))
    if _SLOWEST <= rate <= _FASTEST:
        return
    unit = "seconds" if rate > _FASTEST else "microseconds"
    raise InputError(
        f"median latency {float(np.median(latency_ms)):g} ms would be {rate:.1e} MACs a second: "
        f"the times look like {unit}; give milliseconds"
    )


def _json_rows(path: Path, text: str) -> list[dict[str, Any]]:
    try:
        rows = parsed_json(text)
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if isinstance(rows, dict):
        rows = rows.get("measurements", [rows])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f'{path}: give a list of objects {{"arch": {{...}}, "ms": 1.5}}')
    return rows


def _csv_rows(path: Path, text: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text))
    header = reader.fieldnames or []
    if "arch" not in header or not set(_MS_KEYS) & set(header):
        raise InputError(f"{path}: the header is {', '.join(header) or 'empty'}; it must have the columns arch and ms")
    return list(reader)


def _arch(where: str, row: dict[str, Any], space: str) -> Arch:
    given = row.get("arch", {key: row[key] for key in _ARCH_KEYS if key in row})
    try:
        data = parsed_json(given) if isinstance(given, str) else dict(given)
        if space:
            data.setdefault("space", space)
        arch = Arch.from_dict({key: value for key, value in data.items() if key in _ARCH_KEYS})
        return find_space(arch.space).with_resolutions((arch.r,)).masked(arch)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{where}: arch {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: arch is not the field's JSON ({error})") from error


def _milliseconds(where: str, row: dict[str, Any]) -> float:
    given = next((row[key] for key in _MS_KEYS if key in row), None)
    try:
        value = float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: ms is {given!r}: give a number of milliseconds") from error
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{where}: ms is {given!r}: give positive finite milliseconds, or leave the line out")
    return value
