"""`BenchmarkProgram`: how a runtime's own benchmark program is called and read, one constant a program in this folder.

A runtime's entry names its program (`Runtime.program`), and `program_of` finds it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tutelage.bench.runtimes.entry import Runtime
from tutelage.bench.runtimes.registry import RUNTIMES
from tutelage.records import InputError, TurnReport


@dataclass(frozen=True)
class Turn:
    """One start of a program: it loads the model, runs `settle` inferences that do not count, then `runs` that do."""

    model: str  # the file on the device
    shape: tuple[int, ...]  # of its input: (batch, channels, height, width)
    threads: int
    settle: int
    runs: int
    result: str  # a file on the device that the program may write


@dataclass(frozen=True)
class Reported:
    """What a program reported of a turn: every inference's time, or a summary of them; None: it does not say."""

    samples_ms: tuple[float, ...] = ()
    report: TurnReport | None = None
    load_ms: float | None = None
    peak_bytes: int | None = None


class TimedLayer(NamedTuple):
    """A layer's mean time in an inference, as `bench.layers.profile.Layer`."""

    name: str
    operator: str
    ms: float
    kernel: str
    note: str = ""


@dataclass(frozen=True)
class ProfilesLayers:
    """How a program is asked for the times of layers: words beside its others, and how it prints them.

    `parse` is told whether the model is an int8 one, and raises ValueError where the times are missing.
    """

    arguments: tuple[str, ...]
    parse: Callable[[str, bool], list[TimedLayer]]


@dataclass(frozen=True)
class BenchmarkProgram:
    """A runtime's benchmark program.

    `arguments` gives the words after its name. `parse` reads what it printed (standard output and standard error
    together, then the result file) and raises ValueError where the times are missing.
    """

    name: str  # of the file, as the runtime's own instructions call it
    precisions: tuple[str, ...]  # that it computes in; the file may hold int8
    arguments: Callable[[Turn], list[str]]
    parse: Callable[[str, Turn], Reported]
    reads: str  # suffix of the one file of a model that it opens
    writes_result: bool = False
    layers: ProfilesLayers | None = None  # None: it times no layers


def program_of(runtime: Runtime) -> BenchmarkProgram:
    """Give the benchmark program of a runtime. Raises InputError, which names those that have one."""
    if not runtime.program:
        known = ", ".join(name for name, one in RUNTIMES.items() if one.program)
        raise InputError(
            f"{runtime.name} has no benchmark program, which a device reached by adb runs: take {known}, or write one "
            "that speaks the device protocol and give it with --command"
        )
    module, _, name = runtime.program.partition(":")
    found: BenchmarkProgram = getattr(importlib.import_module(module), name)
    return found
