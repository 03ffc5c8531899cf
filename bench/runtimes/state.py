"""The thermal state, clock and power supply of a Linux or Android host, from the small files of /sys.

It is copied beside the runner to other hosts. `read_state` reads this host; `state_of` reads what was collected
elsewhere, by path. The names are those of `tutelage.records.DeviceState`.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from typing import Any, Dict, List, Mapping, Optional  # noqa: UP035 - other hosts may have Python 3.8

# Below /sys, see Documentation/ABI of the Linux kernel: clocks are in kHz, temperatures in thousandths of a degree.
_CORES = "devices/system/cpu/cpu[0-9]*/cpufreq/"
FILES = (
    *(_CORES + name for name in ("scaling_governor", "scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq")),
    *("class/thermal/" + name for name in ("thermal_zone*/temp", "cooling_device*/type", "cooling_device*/cur_state")),
    *("class/power_supply/*/" + name for name in ("type", "online", "status", "capacity")),
)
# Cooling devices that slow the processor, by the start of their type: a fan is none.
_SLOWING = ("cpufreq", "thermal-cpufreq", "processor", "cpu-cluster")
# Sensors that are not there read as 0 or far out of any range.
_PLAUSIBLE_C = (1.0, 150.0)


def read_state(root: str = "/sys") -> Dict[str, Any]:  # noqa: UP006
    """Read the state of this host; what it does not say is left out."""
    files = {}
    for pattern in FILES:
        for path in glob.glob(os.path.join(root, pattern)):
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    files[os.path.relpath(path, root)] = file.read().strip()
            except OSError:  # a zone whose sensor is off
                continue
    return state_of(files)


def state_of(files: Mapping[str, str]) -> Dict[str, Any]:  # noqa: UP006
    """Give the state by contents of files, named by their path below /sys."""
    state: Dict[str, Any] = {}  # noqa: UP006
    governors = sorted(set(_contents(files, _CORES + "scaling_governor")))
    if governors:
        state["governor"] = "+".join(governors)
    for name, file in (
        ("frequency_mhz", "scaling_cur_freq"), ("limit_mhz", "scaling_max_freq"),
        ("max_frequency_mhz", "cpuinfo_max_freq"),
    ):  # fmt: skip
        clocks = sorted({khz / 1000 for khz in _numbers(_contents(files, _CORES + file)) if khz > 0})
        if clocks:
            state[name] = clocks
    degrees = [value / 1000 for value in _numbers(_contents(files, "class/thermal/thermal_zone*/temp"))]
    degrees = [value for value in degrees if _PLAUSIBLE_C[0] <= value <= _PLAUSIBLE_C[1]]
    if degrees:
        state["temperature_c"] = max(degrees)
    slowed = _slowed(files)
    if slowed is not None:
        state["throttled"] = slowed
    state.update(_power(files))
    return state


def _slowed(files: Mapping[str, str]) -> Optional[bool]:  # noqa: UP045
    """Say whether a cooling device holds the processor's clock down; None where there is none of that kind."""
    active = []
    for path, kind in files.items():
        is_type = path.startswith("class/thermal/cooling_device") and path.endswith("/type")
        if is_type and kind.lower().startswith(_SLOWING):
            active += _numbers([files.get(path[: -len("type")] + "cur_state", "")])
    return any(level > 0 for level in active) if active else None


def _power(files: Mapping[str, str]) -> Dict[str, Any]:  # noqa: UP006
    found: Dict[str, Any] = {}  # noqa: UP006
    mains = _contents(files, "class/power_supply/*/online")
    if mains:
        found["on_battery"] = "1" not in mains
    for path, kind in files.items():
        if not re.match(r"class/power_supply/[^/]*/type$", path) or kind.lower() != "battery":
            continue
        status = files.get(path[: -len("type")] + "status", "").lower()
        if status:
            found["charging"] = found.get("charging", False) or status == "charging"
        percent = [value for value in _numbers([files.get(path[: -len("type")] + "capacity", "")]) if 0 <= value <= 100]
        if percent:
            found["battery_percent"] = min(percent[0], found.get("battery_percent", 100.0))
    return found


def _contents(files: Mapping[str, str], pattern: str) -> List[str]:  # noqa: UP006
    return [text for path, text in sorted(files.items()) if text and fnmatch.fnmatchcase(path, pattern)]


def _numbers(texts: List[str]) -> List[float]:  # noqa: UP006
    numbers = []
    for text in texts:
        try:
            numbers.append(float(text))
        except ValueError:  # a driver's own words
            continue
    return numbers
