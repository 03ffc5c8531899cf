"""What this host is, how busy it is, and how many threads a process may take."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

from tutelage.bench.runtimes.runner import processor, quiet_cores
from tutelage.records import InputError

from .cgroup import cpu_quota

__all__ = [
    "available_cores", "busy_warning", "check_threads", "describe_host", "load_average", "others_busy", "processor",
    "quiet_cores", "thread_budget", "thread_environment",
]  # fmt: skip

# Instruction sets that decide how fast a quantized or bf16 network runs.
_TELLING_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "avx512_bf16",
    "asimddp",
    "i8mm",
    "sve",
)
# Above this fraction of busy cores (others' work, not ours) times are not to be trusted.
BUSY_SHARE = 0.25


def describe_host() -> dict[str, Any]:
    """Describe the machine as rows and `doctor` show it: processor, cores, telling flags, memory, system, load."""
    import psutil

    cpu = processor()
    return {
        "cpu_model": cpu,
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cores": available_cores(),
        "cores_installed": os.cpu_count() or 1,
        "cpu_quota": cpu_quota(),
        "cpu_flags": _cpu_flags(),
        "memory_bytes": int(psutil.virtual_memory().total),
        "load_1min": load_average(),
    }


def available_cores() -> int:
    """Count the cores this process may run on: by affinity, and by the container's CPU quota (at least 1)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else min(cores, max(1, int(quota)))


def check_threads(threads: int, *, device: str) -> None:
    """Refuse more threads than this process has cores: they would wait for each other, and no time would be steady."""
    cores = available_cores()
    if threads > cores:
        raise InputError(
            f"device {device}: {threads} threads, and this machine has {cores} core{'s' * (cores != 1)} for them: give "
            f"{'1' if cores == 1 else f'1 to {cores}'} threads"
        )


def thread_budget(num_workers: int = 1, cores: int | None = None) -> int:
    """Give the threads each of `num_workers` processes may take: never more in sum than there are cores, at least 1.

    OpenMP threads spin while they wait: two processes of two threads on two cores run up to 80 times slower than one.
    """
    return max(1, (cores or available_cores()) // max(1, num_workers))


def thread_environment(threads: int) -> dict[str, str]:
    """Give the environment that makes a child take `threads` threads, and keeps idle ones from spinning."""
    names = (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    )
    return {**dict.fromkeys(names, str(threads)), "OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}


def load_average() -> float | None:
    """Give the one-minute load average; `None` where the system has none."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def others_busy(seconds: float = 0.3) -> float:
    """Measure how many cores other processes keep busy now, in cores (0.0 is a quiet host); sleeps `seconds`.

    The load average reaches a minute back and counts our own work: this looks at the processor times instead.
    """
    import psutil

    ours, all_before = _own_seconds(), psutil.cpu_times()
    start = time.monotonic()
    time.sleep(seconds)
    passed, all_after = time.monotonic() - start, psutil.cpu_times()
    idle = {"idle", "iowait", "guest", "guest_nice"}  # guests are counted in user time already
    busy = sum(getattr(all_after, name) - getattr(all_before, name) for name in all_after._fields if name not in idle)
    return float(max(0.0, (busy - (_own_seconds() - ours)) / passed))


def busy_warning(seconds: float = 0.3) -> str | None:
    """Say in one line that others use the cores, or return `None` on a quiet host."""
    busy, cores = others_busy(seconds), available_cores()
    if busy <= BUSY_SHARE * cores:
        return None
    return f"the host is busy: other processes use {busy:.1f} of {cores} cores; times will be noisy and training slower"


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system


def _cpuinfo() -> dict[str, str]:
    """Read the first processor's entry of /proc/cpuinfo; empty on systems without it."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _cpu_flags() -> list[str]:
    info = _cpuinfo()
    present = set((info.get("flags") or info.get("Features") or "").split())
    return [flag for flag in _TELLING_FLAGS if flag in present]
