"""Profile a model file layer by layer, by the profiler of its runtime (`profile_layers`).

A layer is what the runtime runs as one piece: an operator, or several that it fused. Profilers slow an inference down
and count whole microseconds, so that the sum is no latency; `bench` measures that without one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.bench.runtimes.registry import RUNTIMES, find_runtime
from tutelage.records import DeviceProfile, InputError

# Inferences that are not counted, and those that are.
SETTLE, RUNS = 5, 50
# The quarter of the times at each end that is left out of a layer's mean: another process ran, or a counter jumped.
_TRIMMED = 4
_UNPROFILED = {
    "litert": "its Python package has no profiler; benchmark_model --enable_op_profiling=true prints one",
    "torch-compiled": "its kernels are no layers of the network; profile the file on runtime torch",
}


@dataclass(frozen=True)
class Layer:
    """One layer: its name in the model, its operator, the milliseconds an inference spends in it.

    `kernel` is what ran it (an implementation, a provider); `note` says what the user would not expect of it: that it
    was not quantized in an int8 model, or fell back to another device.
    """

    name: str
    operator: str
    ms: float
    kernel: str = ""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


# Runs `settle` and `runs` inferences of a model; gives each layer with the times of all counted ones, in ms.
Profiler = Callable[[str, tuple[int, ...], int, str], Sequence[tuple[Layer, Sequence[float]]]]


def profile_layers(model: Path, device: DeviceProfile, shape: tuple[int, int, int]) -> list[Layer]:
    """Give the layers of a model in the order in which they run, at the profile's batch, threads and precision.

    shape: (channels, height, width). Raises InputError for a device elsewhere and a runtime without a profiler.
    """
    runtime = find_runtime(device.runtime)
    if not device.local:
        where = device.command or device.host
        raise InputError(
            f"layers are profiled on this machine, and device {device.name} is {where}: leave out --layers"
        )
    if not runtime.profiler:
        able = ", ".join(name for name, one in RUNTIMES.items() if one.profiler)
        why = _UNPROFILED.get(runtime.name, "no profiler of it is known")
        raise InputError(f"runtime {runtime.name} has no times of layers ({why}); those that have: {able}")
    runtime.check(device.precision, model)
    module, _, name = runtime.profiler.partition(":")
    profiler: Profiler = getattr(importlib.import_module(module), name)
    found = profiler(str(model), (device.batch, *shape), device.threads, device.precision)
    return [Layer(**{**layer.to_dict(), "ms": typical_ms(times)}) for layer, times in found]


def typical_ms(times: Sequence[float]) -> float:
    """Give the mean of the middle half of the times: whole microseconds are averaged, outliers left out."""
    ordered: NDArray[np.float64] = np.sort(np.asarray(times, dtype=np.float64))
    cut = len(ordered) // _TRIMMED
    return float(ordered[cut : len(ordered) - cut].mean())


def images_of(shape: Sequence[int]) -> Any:
    """Give images of noise, as a measurement takes them."""
    return np.random.default_rng(0).standard_normal(tuple(shape), dtype=np.float32)
