"""Energy counters of the machine that runs the models: RAPL, NVML, and the power sensor INA3221 of Jetson boards.

It is copied beside the runner to other hosts, so that each machine reads its own. `find_meter` gives the meter or says
what is missing (`NoMeter`); `metered` gives what a stretch of work took. A counter counts the whole package, card or
board, other processes included, so only a busy stretch of many inferences says something about a model.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple  # noqa: UP035 - other hosts may have Python 3.8

# A container sees little of the machine's /sys: where TUTELAGE_SYS says, the whole of it may be mounted.
SYS_VARIABLE = "TUTELAGE_SYS"
# Reads one counter in microjoules, and the value after which it starts again from 0 (0: never).
Counter = Tuple[Callable[[], int], int]  # noqa: UP006
# The sensor gives the mean of some milliseconds; a reading takes half a millisecond of its bus.
SAMPLE_SECONDS = 0.02
NEVER_ON_JETSON, NEVER_ON_GPU = "never run on a Jetson yet", "never run on a GPU yet"


@dataclass(frozen=True)
class EnergyMeter:
    """The counters of one host, read together, and how they are read, as rows say it."""

    counters: Tuple[Counter, ...] = ()  # noqa: UP006
    method: str = ""
    power_mw: Optional[Callable[[], float]] = None  # noqa: UP045 - a sensor that is sampled, in place of counters
    caveat: str = ""

    def read(self) -> List[int]:  # noqa: UP006
        """Read every counter, in microjoules since some moment of its own."""
        return [read() for read, _ in self.counters]

    def millijoules(self, before: Sequence[int], after: Sequence[int]) -> float:
        """Give the energy between two readings; a counter may have started again from 0 once between them."""
        passed = 0
        for start, end, (_, limit) in zip(before, after, self.counters):  # noqa: B905 - Python 3.8
            passed += end - start if end >= start else end - start + limit + 1
        return passed / 1000


@dataclass(frozen=True)
class NoMeter:
    """Why there is no meter: the file, the right or the package that is missing, and the remedy."""

    reason: str


def metered(meter: EnergyMeter, work: Callable[[], Any]) -> Tuple[float, float, Any]:  # noqa: UP006
    """Do some work. Gives the energy that the machine took meanwhile in millijoules, the seconds, and the result."""
    if meter.power_mw is not None:
        return _sampled(meter.power_mw, work)
    before, begun = meter.read(), time.monotonic()
    result = work()
    after, seconds = meter.read(), time.monotonic() - begun
    return meter.millijoules(before, after), seconds, result


def find_meter(runtime: str = "", root: Optional[Path] = None) -> EnergyMeter | NoMeter:  # noqa: UP045
    """Find the energy meter for models of a runtime: a board's sensor, else the GPU for CUDA, else the processor's.

    `root` stands for /sys; by default TUTELAGE_SYS, where that is set. Counters that this user may not read (they are
    root's on most systems) are as good as absent.
    """
    root = root or Path(os.environ.get(SYS_VARIABLE) or "/sys")
    board = _ina3221(root / "bus" / "i2c" / "drivers")
    if isinstance(board, EnergyMeter):
        return board
    other = _nvml() if "cuda" in runtime.split("-") else _rapl(root / "class" / "powercap")
    return board if board is not None and isinstance(other, NoMeter) else other


def _rapl(root: Path) -> EnergyMeter | NoMeter:
    """Read the processor packages' counters ourselves: zeus polls them in a process that disturbs what is timed.

    Only whole packages are summed (`intel-rapl:0`), not their parts (`intel-rapl:0:0`), which they contain.
    """
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
            f"`--security-opt systempaths=unconfined`, or with `-v /sys:/host/sys:ro -e {SYS_VARIABLE}=/host/sys`"
        )
    return f"{zone} cannot be read ({error})"


def _reader(path: Path) -> Callable[[], int]:
    return lambda: int(path.read_text())


def _ina3221(drivers: Path) -> EnergyMeter | NoMeter | None:
    """Read the rail that feeds a Jetson board (VDD_IN, POM_5V_IN); None where there is no such sensor.

    Newer kernels give a rail's millivolts and milliamperes (`hwmon`), NVIDIA's older ones its milliwatts (`iio`).
    """
    labels = [
        path
        for driver in ("ina3221", "ina3221x")
        for pattern in ("*/hwmon/hwmon*/in*_label", "*/hwmon*/in*_label", "*/iio*/rail_name_*")
        for path in sorted((drivers / driver).glob(pattern))
    ]
    if not labels:
        return None
    rails = []
    for label in labels:
        try:
            rail = label.read_text().strip()
            rails.append(rail)
            if not rail.upper().endswith("_IN"):
                continue
            power = _power_of(label)
            power()
        except (OSError, ValueError) as error:
            return NoMeter(_fault(error, label.parent))
        return EnergyMeter((), f"INA3221 {rail}, sampled, idle subtracted", power, NEVER_ON_JETSON)
    return NoMeter(
        f"{labels[0].parent} has the rails {', '.join(rails)}, none of which feeds the whole board (*_IN): their sum "
        "would leave parts out"
    )


def _power_of(label: Path) -> Callable[[], float]:
    """Give what reads the milliwatts of the rail that a file names."""
    folder = label.parent
    if label.name.startswith("rail_name_"):
        power = folder / f"in_power{label.name[len('rail_name_') :]}_input"
        return lambda: float(power.read_text())
    number = label.name[len("in") : -len("_label")]
    volts, amperes = folder / f"in{number}_input", folder / f"curr{number}_input"
    return lambda: float(volts.read_text()) * float(amperes.read_text()) / 1000


def _sampled(power_mw: Callable[[], float], work: Callable[[], Any]) -> Tuple[float, float, Any]:  # noqa: UP006
    """Sum up sampled power by trapezoids while some work is done, as `metered`."""
    samples = [(time.monotonic(), power_mw())]
    done = threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_SECONDS):
            samples.append((time.monotonic(), power_mw()))

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        result = work()
    finally:
        done.set()
        sampler.join()
    samples.append((time.monotonic(), power_mw()))
    pairs = zip(samples, samples[1:])  # noqa: B905, RUF007 - Python 3.8
    energy = sum((end - start) * (first + last) / 2 for (start, first), (end, last) in pairs)
    return energy, samples[-1][0] - samples[0][0], result


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
    return EnergyMeter(((read, 0),), f"NVML GPU {first}, idle subtracted", caveat=NEVER_ON_GPU)


def _orders_may_differ(pynvml: Any) -> bool:
    """Say whether CUDA may number the cards otherwise than NVML does: the fastest first, not by their slots."""
    if os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return False
    cards = (pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount()))
    return len({pynvml.nvmlDeviceGetName(card) for card in cards}) > 1
