"""Energy counters of this host: RAPL through Linux's powercap tree, and NVML for NVIDIA GPUs; none where it has none.

A counter counts the whole package or card, its idle power and other processes included, so only a busy stretch
of many inferences says something about a model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
# Reads one counter in microjoules, and the value after which it starts again from 0 (0: never).
Counter = tuple[Callable[[], int], int]


@dataclass(frozen=True)
class EnergyMeter:
    """The counters of one host, read together."""

    counters: tuple[Counter, ...]

    def read(self) -> list[int]:
        """Read every counter, in microjoules since some moment of its own."""
        return [read() for read, _ in self.counters]

    def millijoules(self, before: Sequence[int], after: Sequence[int]) -> float:
        """Give the energy between two readings; a counter may have started again from 0 once between them."""
        passed = 0
        for start, end, (_, limit) in zip(before, after, self.counters, strict=True):
            passed += end - start if end >= start else end - start + limit + 1
        return passed / 1000


def find_meter(runtime: str = "", root: Path = POWERCAP) -> EnergyMeter | None:
    """Find the energy meter for models of a runtime: the GPU for CUDA, else the processor packages; None if neither.

    Only whole packages are summed (`intel-rapl:0`), not their parts (`intel-rapl:0:0`), which they contain. Counters
    that this user may not read (they are root's on most systems) are as good as absent.
    """
    if "cuda" in runtime.split("-"):
        return _nvml()
    counters = []
    for zone in sorted(root.glob("*-rapl:*")):
        if zone.name.count(":") != 1:
            continue
        try:
            if not (zone / "name").read_text().strip().startswith("package"):
                continue  # psys counts the packages again
            limit = int((zone / "max_energy_range_uj").read_text())
            int((zone / "energy_uj").read_text())
        except (OSError, ValueError):
            continue
        counters.append((_reader(zone / "energy_uj"), limit))
    return EnergyMeter(tuple(counters)) if counters else None


def _reader(path: Path) -> Callable[[], int]:
    return lambda: int(path.read_text())


def first_visible(environment: Mapping[str, str] | None = None) -> int | str:
    """Give what CUDA's device 0 is for NVML: a number, or the UUID that CUDA_VISIBLE_DEVICES names."""
    said = (os.environ if environment is None else environment).get("CUDA_VISIBLE_DEVICES", "")
    first = said.split(",")[0].strip()
    return first if first.startswith(("GPU-", "MIG-")) else int(first) if first.isdigit() else 0


def _nvml() -> EnergyMeter | None:
    """Read the counter of CUDA's first device by NVML (`pip install tutelage[energy]`), which CUDA's driver brings.

    CUDA numbers the cards that CUDA_VISIBLE_DEVICES names, NVML all of them. Where cards of several kinds may be
    numbered in different orders, there is no meter: the counter could be another card's.
    """
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        first = first_visible()
        if isinstance(first, int) and _orders_may_differ(pynvml):
            return None
        card = (
            pynvml.nvmlDeviceGetHandleByUUID(first)
            if isinstance(first, str)
            else pynvml.nvmlDeviceGetHandleByIndex(first)
        )
        pynvml.nvmlDeviceGetTotalEnergyConsumption(card)  # millijoules; older cards have no counter
    except pynvml.NVMLError:
        return None
    return EnergyMeter(((lambda: 1000 * int(pynvml.nvmlDeviceGetTotalEnergyConsumption(card)), 0),))


def _orders_may_differ(pynvml: Any) -> bool:
    """Say whether CUDA may number the cards otherwise than NVML does: the fastest first, not by their slots."""
    if os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return False
    cards = (pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount()))
    return len({pynvml.nvmlDeviceGetName(card) for card in cards}) > 1
