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

from tutelage.bench.boards.adb import PREFIX
from tutelage.bench.boards.phone import Phone, checked_program
from tutelage.bench.programs.entry import BenchmarkProgram, program_of
from tutelage.bench.protocol.lines import WorkerError
from tutelage.bench.protocol.remote import check_processor, check_reachable, launcher_of
from tutelage.bench.protocol.worker import Board, ModelFile, start_workers, stop_workers
from tutelage.bench.runtimes.registry import RUNTIMES, find_runtime
from tutelage.records import DeviceProfile, InputError

from . import profilers

# A far device that does not reply for so long hangs.
PROFILE_SECONDS = 600.0
# The quarter of the times at each end that is left out of a layer's mean: another process ran, or a counter jumped.
_TRIMMED = 4
_UNPROFILED = {
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


# Gives each layer of a model with the times of the inferences that count, in ms; of (path, shape, threads, precision).
Profiler = Callable[[str, tuple[int, ...], int, str], Sequence[tuple[profilers.Kernel, Sequence[float]]]]


def profile_layers(model: Path, device: DeviceProfile, shape: tuple[int, int, int]) -> list[Layer]:
    """Give the layers of a model in the order in which they run, at the profile's batch, threads and precision.

    shape: (channels, height, width). They are profiled where the model runs, here or elsewhere, by its runtime, on a
    phone by the runtime's benchmark program. Raises InputError where that has no times of layers.
    """
    check_profiled(device)
    runtime = find_runtime(device.runtime)
    sizes = (device.batch, *shape)
    if device.host.startswith(PREFIX):
        return _on_phone(model, device, sizes, checked_program(runtime, device))
    runtime.check(device.precision, model, here=device.local)
    module, _, name = runtime.profiler.partition(":")
    if not device.local:
        return _elsewhere(model, device, sizes, name)
    profiler: Profiler = getattr(importlib.import_module(module), name)
    try:
        found = profiler(str(model), sizes, device.threads, device.precision)
    except Exception as error:  # runtimes raise types of their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"cannot profile {model.name} on {device.name}: {reason}") from error
    return _layers(found)


def check_profiled(device: DeviceProfile) -> None:
    """Refuse a device out of reach, and one whose runtime or program has no times of layers."""
    check_reachable(device)
    runtime = find_runtime(device.runtime)
    if device.host.startswith(PREFIX):
        program = checked_program(runtime, device)
        if program.layers is None:
            able = ", ".join(name for name, one in RUNTIMES.items() if one.program and program_of(one).layers)
            raise InputError(
                f"{program.name} of device {device.name} prints no times of layers; that of these runtimes does: {able}"
            )
        return
    if not runtime.profiler:
        able = ", ".join(name for name, one in RUNTIMES.items() if one.profiler)
        why = _UNPROFILED.get(runtime.name, "no profiler of it is known")
        raise InputError(f"runtime {runtime.name} has no times of layers ({why}); those that have: {able}")
    if not device.local and runtime.profiler.partition(":")[0] != profilers.__name__:
        raise InputError(f"the profiler of runtime {runtime.name} runs on this machine only: leave out --layers")


def _layers(found: Sequence[tuple[profilers.Kernel, Sequence[float]]]) -> list[Layer]:
    return [Layer(one.name, one.operator, typical_ms(times), one.kernel, one.note) for one, times in found]


def _elsewhere(model: Path, device: DeviceProfile, shape: tuple[int, ...], function: str) -> list[Layer]:
    """Have a device's runner profile a model: the profilers are brought there as the model is."""
    with launcher_of(device) as reached:
        if isinstance(reached, Board):
            raise InputError(
                f"device {device.name} runs a program of its own, which times no layers: leave out --layers"
            )
        files = [ModelFile(str(model), shape), ModelFile(profilers.__file__, (1,))]
        workers = start_workers(
            [(device.runtime, files)], threads=device.threads, precision=device.precision, launcher=reached
        )
        try:
            check_processor(device, workers[0].cpu, "the machine reached for it")
            reply = workers[0].ask({"do": "layers", "model": 0, "profiler": 1, "function": function}, PROFILE_SECONDS)
        except WorkerError as error:
            raise InputError(f"cannot profile {model.name} on {device.name}: {error}") from error
        finally:
            stop_workers(workers)
    return _layers([(profilers.Kernel(*kernel), times) for kernel, times in reply["layers"]])


def _on_phone(model: Path, device: DeviceProfile, shape: tuple[int, ...], program: BenchmarkProgram) -> list[Layer]:
    """Have a phone's benchmark program profile a model; it prints means."""
    with launcher_of(device) as reached:
        assert isinstance(reached, Phone), "the host is behind adb"
        try:
            return [Layer(*one) for one in reached.layers(model, shape, profilers.SETTLE, profilers.RUNS)]
        except WorkerError as error:
            raise InputError(f"cannot profile {model.name} on {device.name}: {error}") from error


def typical_ms(times: Sequence[float]) -> float:
    """Give the mean of the middle half of the times: whole microseconds are averaged, outliers left out."""
    ordered: NDArray[np.float64] = np.sort(np.asarray(times, dtype=np.float64))
    cut = len(ordered) // _TRIMMED
    return float(ordered[cut : len(ordered) - cut].mean())
