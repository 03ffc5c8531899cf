"""Energy counters of this host: RAPL through Linux's powercap tree, and NVML for NVIDIA GPUs.

`find_meter` gives the meter or says what is missing (`NoMeter`). A counter counts the whole package or card, other
processes included, so only a busy stretch of many inferences says something about a model; what the idle device takes
in the same time is subtracted (`net_millijoules`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
# Reads one counter in microjoules, and the value after which it starts again from 0 (0: never).
Counter = tuple[Callable[[], int], int]


@dataclass(frozen=True)
class EnergyMeter:
    """The counters of one host, read together, and how they are read, as rows say it."""

    counters: tuple[Counter, ...]
    method: str = ""

    def read(self) -> list[int]:
        """Read every counter, in microjoules since some moment of its own."""
        return [read() for read, _ in self.counters]

    def millijoules(self, before: Sequence[int], after: Sequence[int]) -> float:
        """Give the energy between two readings; a counter may have started again from 0 once between them."""
        passed = 0
        for start, end, (_, limit) in zip(before, after, self.counters, strict=True):
            passed += end - start if end >= start else end - start + limit + 1
        return passed / 1000


@dataclass(frozen=True)
class NoMeter:
    """Why there is no meter: the file, the right or the package that is missing, and the remedy."""

    reason: str


def idle_power(meter: EnergyMeter, seconds: float) -> float:
    """Measure what the device takes while nothing is asked of it, in milliwatts."""
    before, begun = meter.read(), time.monotonic()
    time.sleep(seconds)
    after, passed = meter.read(), time.monotonic() - begun
    return meter.millijoules(before, after) / passed


def net_millijoules(total_mj: float, seconds: float, idle_mw: float) -> float | None:
    """Take off what the idle device takes in the same time; None where nothing is left."""
    net = total_mj - idle_mw * seconds
    return net if net > 0 else None


def find_meter(runtime: str = "", root: Path = POWERCAP) -> EnergyMeter | NoMeter:
    """Find the energy meter for models of a runtime: the GPU for CUDA, else the processor packages.

    Only whole packages are summed (`intel-rapl:0`), not their parts (`intel-rapl:0:0`), which they contain. Counters
    that this user may not read (they are root's on most systems) are as good as absent.
    """
    if "cuda" in runtime.split("-"):
        return _nvml()
    if not root.is_dir():
        return NoMeter(f"{root} is missing: this kernel has no powercap, or the container does not see /sys")
    zones = sorted(zone for zone in root.glob("*-rapl:*") if zone.name.count(":") == 1)
    if not zones:
        return NoMeter(
            f"{root} holds no zone *-rapl:N: `modprobe intel_rapl_msr` on the machine itself; most virtual machines "
            "have no such counter"
        )
    counters, names, faults = [], [], []
    for zone in zones:
        try:
            name = (zone / "name").read_text().strip()
            if not name.startswith("package"):
                continue  # psys counts the packages again
            limit = int((zone / "max_energy_range_uj").read_text())
            int((zone / "energy_uj").read_text())
        except (OSError, ValueError) as error:
            faults.append(_fault(error, zone))
            continue
        counters.append((_reader(zone / "energy_uj"), limit))
        names.append(name)
    if counters and not faults:
        return EnergyMeter(tuple(counters), f"RAPL {'+'.join(names)} ({root.name}), idle subtracted")
    return NoMeter(faults[0] if faults else f"{root} has no zone of a processor package, only of its parts")


def _fault(error: Exception, zone: Path) -> str:
    """Say what is missing of one zone."""
    if isinstance(error, PermissionError):
        return f"{error.filename} may not be read by this user: `sudo chmod a+r {error.filename}`, or run as root"
    if isinstance(error, FileNotFoundError):
        return (
            f"{error.filename} is missing: docker hides it from containers, unless they are started with "
            "`--security-opt systempaths=unconfined`"
        )
    return f"{zone} cannot be read ({error})"


def _reader(path: Path) -> Callable[[], int]:
    return lambda: int(path.read_text())


def first_visible(environment: Mapping[str, str] | None = None) -> int | str:
    """Give what CUDA's device 0 is for NVML: a number, or the UUID that CUDA_VISIBLE_DEVICES names."""
    said = (os.environ if environment is None else environment).get("CUDA_VISIBLE_DEVICES", "")
    first = said.split(",")[0].strip()
    return first if first.startswith(("GPU-", "MIG-")) else int(first) if first.isdigit() else 0


def _nvml() -> EnergyMeter | NoMeter:
    """Read the counter of CUDA's first device by NVML (`pip install tutelage[energy]`), which CUDA's driver brings.

    CUDA numbers the cards that CUDA_VISIBLE_DEVICES names, NVML all of them. Where cards of several kinds may be
    numbered in different orders, there is no meter: the counter could be another card's.
    """
    try:
        import pynvml
    except ImportError:
        return NoMeter("the package nvidia-ml-py is not installed: `pip install 'tutelage[energy]'`")
    try:
        pynvml.nvmlInit()
        first = first_visible()
        if isinstance(first, int) and _orders_may_differ(pynvml):
            return NoMeter(
                "CUDA may number cards of several kinds otherwise than NVML: set CUDA_DEVICE_ORDER=PCI_BUS_ID"
            )
        card = (
            pynvml.nvmlDeviceGetHandleByUUID(first)
            if isinstance(first, str)
            else pynvml.nvmlDeviceGetHandleByIndex(first)
        )
        pynvml.nvmlDeviceGetTotalEnergyConsumption(card)  # millijoules; older cards have no counter
    except pynvml.NVMLError as error:
        return NoMeter(
            f"NVIDIA's library says {str(error) or type(error).__name__}: no driver, or a card without a counter"
        )
    read = lambda: 1000 * int(pynvml.nvmlDeviceGetTotalEnergyConsumption(card))  # noqa: E731
    return EnergyMeter(((read, 0),), f"NVML GPU {first}, idle subtracted")


def _orders_may_differ(pynvml: Any) -> bool:
    """Say whether CUDA may number the cards otherwise than NVML does: the fastest first, not by their slots."""
    if os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return False
    cards = (pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount()))
    return len({pynvml.nvmlDeviceGetName(card) for card in cards}) > 1
