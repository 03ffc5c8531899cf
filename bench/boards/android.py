"""What an Android device (or any with a shell and /sys) says of itself: processor, cores, and its present state."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tutelage.bench.runtimes.state import FILES, state_of
from tutelage.records import DeviceState, InputError

# Android's Temperature.ThrottlingStatus; from "moderate" on it says that clocks are held down.
STATUSES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_THROTTLED = STATUSES.index("moderate")
_TEMPERATURE = re.compile(r"mValue=(-?[\d.]+), mType=(\d+)")
_PROCESSOR_TYPES = {"0", "3"}  # the processor's zones, and the skin's; others are the battery's, the modem's, ...
_MARK = "== "
MAX_CORES = 1024
# One call for all: each takes a tenth of a second over USB.
FACTS = """
echo '== machine'; uname -m
echo '== kernel'; uname -sr
for p in ro.product.cpu.abilist ro.soc.manufacturer ro.soc.model ro.product.manufacturer ro.product.model \\
  ro.build.version.release ro.build.id; do
  echo "== $p"; getprop $p 2>/dev/null; done
echo '== cpuinfo'; grep -E '^(model name|Hardware|Model)' /proc/cpuinfo | head -n 1
echo '== allowed'; grep Cpus_allowed_list /proc/self/status
echo '== taskset'; command -v taskset
echo '== clocks'; grep . /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq 2>/dev/null; true
"""
STATE = (
    "cd /sys && grep -H . "
    + " ".join(FILES)
    + " 2>/dev/null; echo '== battery'; dumpsys battery 2>/dev/null; echo '== thermal'; dumpsys thermalservice "
    "2>/dev/null; true"
)


@dataclass(frozen=True)
class Facts:
    """What a device is: its processor's name, the program formats (ABIs) it runs, and its cores with their clocks."""

    processor: str
    abis: tuple[str, ...]
    max_khz: dict[int, int]  # by core that may be used; 0 where the clock is not known
    can_pin: bool
    system: str = ""


def read_facts(printed: str) -> Facts:
    """Read what the script `FACTS` printed."""
    parts = _sections(printed)
    machine = parts.get("machine", "").strip()
    listed = tuple(one for one in parts.get("ro.product.cpu.abilist", "").strip().split(",") if one)
    soc = f"{parts.get('ro.soc.manufacturer', '').strip()} {parts.get('ro.soc.model', '').strip()}".strip()
    maker, model = (parts.get(f"ro.product.{name}", "").strip() for name in ("manufacturer", "model"))
    name = soc or parts.get("cpuinfo", "").partition(":")[2].strip() or machine
    product = f"{maker} {model}".strip()
    clocks = {int(core): int(khz) for core, khz in re.findall(r"/cpu(\d+)/cpufreq/\w+:(\d+)", parts.get("clocks", ""))}
    release, build = (parts.get(f"ro.build.{name}", "").strip() for name in ("version.release", "id"))
    android = f"Android {release} {build}".strip() if release else ""
    allowed = core_list(parts.get("allowed", "").partition(":")[2].strip()) or sorted(clocks)
    return Facts(
        processor=f"{name} ({product})" if product else name,
        abis=listed or _ABIS_OF.get(machine, (machine,)),
        max_khz={core: clocks.get(core, 0) for core in allowed},
        can_pin=bool(parts.get("taskset", "").strip()),
        system=", ".join(filter(None, [android, parts.get("kernel", "").strip()])),
    )


def read_state(printed: str) -> DeviceState:
    """Read what the script `STATE` printed: /sys, then Android's battery and thermal services where it has them."""
    first, _, _ = printed.partition(_MARK)
    parts = _sections(printed)
    files = dict(line.split(":", 1) for line in first.splitlines() if ":" in line)
    state: dict[str, Any] = {**state_of(files), **_battery(parts.get("battery", ""))}
    state.update(_thermal(parts.get("thermal", "")))
    return DeviceState.from_dict(state)


def fastest_cores(facts: Facts, num: int) -> tuple[int, ...]:
    """Choose the `num` cores of the highest clock; of equal ones the last, as systems put interrupts on the first."""
    order = sorted(facts.max_khz, key=lambda core: (facts.max_khz[core], core), reverse=True)
    if num > len(order):
        raise InputError(f"{num} threads and {len(order)} cores: give --threads 1 to {len(order)}")
    return tuple(sorted(order[:num]))


def check_abi(program: bytes, name: str, facts: Facts) -> None:
    """Refuse a program (the first bytes of its file) for another processor, as its ELF header says it."""
    if program[:4] != b"\x7fELF":  # a script
        return
    found = _ABI_OF_ELF.get(int.from_bytes(program[18:20], "little"), "of an unknown processor")
    if found not in facts.abis:
        raise InputError(
            f"{name} is a program for {found}, the device ({facts.processor}) runs {', '.join(facts.abis)}: take the "
            f"one for {facts.abis[0]}"
        )


def _battery(text: str) -> dict[str, Any]:
    values = dict(re.findall(r"^\s*([A-Za-z ]+): (\S+)\s*$", text, re.M))
    powered = [values[key] == "true" for key in values if key.endswith(" powered")]
    found: dict[str, Any] = {}
    if powered:
        found["on_battery"] = not any(powered)
    if values.get("status", "").isdigit():
        found["charging"] = values["status"] == "2"  # BatteryManager.BATTERY_STATUS_CHARGING
    level, scale = values.get("level", ""), values.get("scale", "100")
    if level.isdigit() and scale.isdigit() and 0 <= int(level) <= int(scale):
        found["battery_percent"] = 100.0 * int(level) / int(scale)
    return found


def _thermal(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    status = re.search(r"^Thermal Status: (\d+)", text, re.M)
    if status and int(status[1]) < len(STATUSES):
        found["thermal_status"] = STATUSES[int(status[1])]
        found["throttled"] = int(status[1]) >= _THROTTLED
    # What stands above are values of some time ago.
    _, _, current = text.partition("Current temperatures from HAL:")
    current = current.partition("Current cooling devices")[0]
    degrees = [float(value) for value, kind in _TEMPERATURE.findall(current) if kind in _PROCESSOR_TYPES]
    degrees = [value for value in degrees if 1 <= value <= 150]
    if degrees:
        found["temperature_c"] = max(degrees)
    return found


def _sections(printed: str) -> Mapping[str, str]:
    """Split at lines `== NAME`."""
    pieces = re.split(rf"^{_MARK}(.+)$", printed, flags=re.M)
    return {name.strip(): text for name, text in zip(pieces[1::2], pieces[2::2], strict=True)}


def core_list(text: str) -> list[int]:
    """Read `0-3,7`, each core once. Raises ValueError for what is none."""
    cores: dict[int, None] = {}
    for piece in filter(None, text.split(",")):
        low, dash, high = piece.partition("-")
        first, last = int(low), int(high if dash else low)
        if not 0 <= first <= last < MAX_CORES:
            raise ValueError(f"{piece} is no range of cores")
        cores |= dict.fromkeys(range(first, last + 1))
    return list(cores)


_ABIS_OF = {
    "aarch64": ("arm64-v8a",), "armv7l": ("armeabi-v7a",), "armv8l": ("armeabi-v7a",), "x86_64": ("x86_64", "x86"),
    "i686": ("x86",), "riscv64": ("riscv64",),
}  # fmt: skip
_ABI_OF_ELF = {183: "arm64-v8a", 40: "armeabi-v7a", 62: "x86_64", 3: "x86", 243: "riscv64"}
