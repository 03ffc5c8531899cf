"""Phones and boards behind adb: a runtime's own benchmark program is pushed there and started for every turn.

Every start loads the model anew, so nothing runs there between turns, and each turn has its weights elsewhere in
memory.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.bench.programs.entry import BenchmarkProgram, Reported, TimedLayer, Turn, program_of
from tutelage.bench.protocol.lines import WorkerError
from tutelage.bench.protocol.worker import ModelFile
from tutelage.bench.runtimes.entry import Runtime
from tutelage.bench.runtimes.graph import holds_int8
from tutelage.bench.runtimes.registry import find_runtime
from tutelage.bench.runtimes.runner import START_SECONDS, warm_up
from tutelage.files import home_folder, sha256_of
from tutelage.records import DeviceProfile, InputError

from .adb import PREFIX, Adb
from .anchors import runtime_anchors
from .android import FACTS, STATE, Facts, check_abi, fastest_cores, read_facts, read_state
from .program import power_state_of, reported

HOME = "/data/local/tmp"  # where adb's user may write and run programs; instructions of runtimes push them there
FOLDER = f"{HOME}/tutelage"
PROFILE_SECONDS = 600.0
_DIGITS = 16


@dataclass(frozen=True)
class _Placed:
    """The benchmark program as it lies on the device."""

    program: BenchmarkProgram
    path: str
    version: str


class Phone:
    """A device behind adb, reached and checked, with the benchmark program on it. Raises InputError."""

    def __init__(self, device: DeviceProfile) -> None:
        self.device, self.runtime = device, find_runtime(device.runtime)
        program = checked_program(self.runtime, device)
        self.adb = Adb(device.host.removeprefix(PREFIX))
        self.facts: Facts = read_facts(self.adb.shell(FACTS).text)
        self.mask = self._mask()
        self.power_state = power_state_of(read_state(self.adb.shell(STATE).text))
        listed = self.adb.shell(f"mkdir -p {FOLDER} && ls {FOLDER}")
        if listed.code:
            raise InputError(f"cannot make {FOLDER} on device {self.adb.serial}: {listed.text.strip()}")
        self._there = set(listed.text.split())
        self.placed = self._place(program)
        if device.runtime_version and device.runtime_version != self.placed.version:
            raise InputError(
                f"device {device.name} was measured with {device.runtime_version}, this is {self.placed.version}: give "
                f"that program back, or add the device under another name"
            )

    def start(self, models: Sequence[ModelFile]) -> PhoneRunner:
        """Give what runs these models there; nothing is started before the first turn."""
        return PhoneRunner(self, models)

    def anchors(self, folder: Path) -> list[ModelFile]:
        """Give the anchor nets as files of the device's runtime."""
        return runtime_anchors(self.runtime, folder)

    def put(self, path: Path) -> str:
        """Bring a file there under its content's hash, once; returns its path there."""
        name = f"{sha256_of(path)[:_DIGITS]}{path.suffix}"
        if name not in self._there:
            self.adb.push(path, f"{FOLDER}/{name}")
            self._there.add(name)
        return f"{FOLDER}/{name}"

    def run(self, turn: Turn, seconds: float) -> Reported:
        """Start the program once, pinned. Raises WorkerError where it fails or its report cannot be read."""
        program = self.placed.program
        try:
            return program.parse(self._printed(turn, (), seconds), turn)
        except ValueError as error:  # pydantic's for a number out of range, too
            reason = str(error).splitlines()[0]
            raise WorkerError(f"what {program.name} printed cannot be read: {reason}") from error

    def layers(self, path: Path, shape: tuple[int, ...], settle: int, runs: int) -> list[TimedLayer]:
        """Have the program profile a model, in one start. Raises WorkerError as `run`."""
        program, profiles = self.placed.program, self.placed.program.layers
        assert profiles is not None, "asked of a program that times layers"
        check_shape(self.runtime, path, shape)
        int8 = effective_precision(self.runtime, path, self.device.precision) == "int8"
        model = self.put(path.with_suffix(program.reads))
        turn = Turn(model, shape, self.device.threads, settle, runs, f"{FOLDER}/result.csv")
        printed = self._printed(turn, profiles.arguments, PROFILE_SECONDS)
        try:
            return profiles.parse(printed, int8)
        except ValueError as error:
            raise WorkerError(f"what {program.name} printed cannot be read: {error}") from error

    def _printed(self, turn: Turn, more: Sequence[str], seconds: float) -> str:
        """Start the program and give what it printed."""
        program = self.placed.program
        words = [*(["taskset", self.mask] if self.mask else []), self.placed.path, *program.arguments(turn), *more]
        command = f"cd {FOLDER} && {shlex.join(words)}"
        if program.writes_result:
            result = shlex.quote(turn.result)
            command = f"rm -f {result}; {command}; code=$?; echo; cat {result} 2>/dev/null; rm -f {result}; exit $code"
        done = self.adb.shell(command, seconds)
        if done.code:
            last = (done.text.strip().splitlines() or [f"exit code {done.code}"])[-1].strip()
            raise WorkerError(f"{program.name} ended with exit code {done.code} on {self.adb.serial}: {last}")
        return done.text

    def _mask(self) -> str:
        """Give the cores as taskset takes them, in hexadecimal."""
        cores = self.device.cores or fastest_cores(self.facts, self.device.threads)
        missing = sorted(set(cores) - set(self.facts.max_khz))
        if missing:
            have = ", ".join(map(str, sorted(self.facts.max_khz)))
            raise InputError(f"device {self.adb.serial} has no core {missing[0]}: it has {have}")
        if not self.facts.can_pin:
            if self.device.cores:
                raise InputError(f"device {self.adb.serial} has no taskset, so --cores has no effect: leave it out")
            return ""
        return f"{sum(1 << core for core in cores):x}"

    def _place(self, program: BenchmarkProgram) -> _Placed:
        """Bring the program there: the one given, one of the user's folder, or what lies on the device already."""
        local = find_program(program, self.device, self.facts)
        if local is not None:
            check_abi(local.read_bytes()[:64], str(local), self.facts)
            path = self.put(local)
            self.adb.shell(f"chmod 755 {path}")
            return _Placed(program, path, f"{program.name} {sha256_of(local)[:8]}")
        path = f"{HOME}/{program.name}"
        found = self.adb.shell(f"sha256sum {path}")
        if found.code:
            raise InputError(
                f"no {program.name} for device {self.device.name}: give its file with --benchmark-program, put it into "
                f"{_folder_of(self.facts)}, or push it to {path}; docs/devices.md says where it comes from"
            )
        return _Placed(program, path, f"{program.name} {found.text.split()[0][:8]}")


class PhoneRunner:
    """Some models on a phone: each `time` is one start of the benchmark program."""

    def __init__(self, phone: Phone, models: Sequence[ModelFile]) -> None:
        self._phone, self._models = phone, list(models)
        self._files: dict[int, str] = {}
        self._peak: int | None = None
        self.version = phone.placed.version
        self.rss: int | None = None
        self.cpu = self.processor = phone.facts.processor
        self.power_state, self.system = "", phone.facts.system
        self.turn_seconds = 1e-3

    def greet(self, timeout: float = START_SECONDS) -> None:
        """Say what sets the device's clock."""
        self.power_state = self._phone.power_state

    def ask(self, request: dict[str, Any], timeout: float = 60.0) -> dict[str, Any]:
        """Fulfil a request of a session, see `runner.py`."""
        what = request["do"]
        if what == "state":
            return read_state(self._phone.adb.shell(STATE, timeout).text).to_dict()
        if what == "memory":
            return {"rss": None, "peak": self._peak}
        if what == "meter":
            name = self._phone.placed.program.name
            return {"missing": f"{name} reports no energy, and no counter of a phone is read by adb"}
        index = request["model"]
        if what == "load":
            return self._load(index, timeout)
        if what == "copy":  # every start has the weights elsewhere
            return {"copies": 1}
        if what == "warm":
            return self._warm(index, request["seconds"], timeout)
        if what == "time":
            return self._run(index, request.get("settle", 1), request["repeats"], timeout)[0]
        raise ValueError(f"unknown request {what}")

    def rest(self) -> None:
        """Nothing: no program runs there between turns."""

    def dismiss(self) -> None:
        """Nothing: no program runs there between turns."""

    stop = dismiss

    def _load(self, index: int, timeout: float) -> dict[str, Any]:
        model, program = self._models[index], self._phone.placed.program
        path = Path(model.path)
        check_shape(self._phone.runtime, path, model.shape)
        self._files[index] = self._phone.put(path.with_suffix(program.reads))
        _, loaded = self._run(index, 1, 1, timeout)
        return {
            "load_ms": loaded.load_ms,
            "effective": effective_precision(self._phone.runtime, path, self._phone.device.precision),
        }

    def _warm(self, index: int, seconds: float, timeout: float) -> dict[str, Any]:
        begun = time.monotonic()
        starts: list[float] = []

        def times(runs: int) -> list[float]:
            starts.append(time.monotonic())
            found: list[float] = self._run(index, 1, runs, timeout)[0]["ms"]
            return found

        warm = warm_up(times, seconds)
        # Of a start: the program's, the model's loading, and the line.
        self.turn_seconds = max(1e-3, (time.monotonic() - begun) / len(starts))
        return warm

    def _run(self, index: int, settle: int, runs: int, timeout: float) -> tuple[dict[str, Any], Reported]:
        model = self._models[index]
        turn = Turn(self._files[index], model.shape, self._phone.device.threads, settle, runs, f"{FOLDER}/result.csv")
        found = self._phone.run(turn, timeout)
        self._peak = max(filter(None, (self._peak, found.peak_bytes)), default=None)
        if found.report is not None:
            return reported(found.report), found
        if not found.samples_ms or min(found.samples_ms) <= 0 or not np.isfinite(found.samples_ms).all():
            raise WorkerError(f"{self._phone.placed.program.name} gave times that are none: {found.samples_ms[:3]}")
        return {"ms": list(found.samples_ms)}, found


def checked_program(runtime: Runtime, device: DeviceProfile) -> BenchmarkProgram:
    """Give the benchmark program for a profile. Raises InputError for what it cannot do."""
    program = program_of(runtime)
    if device.precision not in program.precisions:
        raise InputError(
            f"{program.name} computes in {', '.join(program.precisions)}, not {device.precision}: give --precision "
            f"{program.precisions[0]}"
        )
    if device.batch != 1:
        raise InputError(f"{program.name} is called for one image at a time: give --batch 1, not {device.batch}")
    return program


def check_shape(runtime: Runtime, path: Path, shape: Sequence[int]) -> None:
    """Refuse a file whose own input is another than `shape`: benchmark programs run what the file says.

    What an ONNX file leaves open they take as 1. Raises WorkerError.
    """
    if path.suffix == ".onnx":
        import onnx

        sizes = onnx.load(path, load_external_data=False).graph.input[0].type.tensor_type.shape.dim
        own = [size.dim_value or 1 for size in sizes]
    elif runtime.read_shape is not None and runtime.installed():
        own = [size or 1 for size in runtime.read_shape(str(path))]
    else:  # ncnn's files leave the size to the caller
        own = [1, *shape[1:]]
    if own != list(shape):
        raise WorkerError(f"{path.name} runs inputs of {own} there, not {list(shape)}: fix them when it is exported")


def find_program(program: BenchmarkProgram, device: DeviceProfile, facts: Facts) -> Path | None:
    """Give the program's file here: the profile's, or that of the user's folder; None: it may lie on the device."""
    if device.program:
        path = Path(device.program).expanduser()
        if not path.is_file():
            raise InputError(f"no benchmark program at {path}: give the file of {program.name} for {facts.abis[0]}")
        return path
    path = _folder_of(facts) / program.name
    return path if path.is_file() else None


def effective_precision(runtime: Runtime, path: Path, requested: str) -> str:
    """Say what a file is computed in, as far as the file tells; LiteRT's tells only where LiteRT is installed here."""
    if path.suffix in (".onnx", ".param"):
        return "int8" if holds_int8(str(path)) else requested
    if path.suffix == ".tflite" and runtime.installed():
        from ai_edge_litert.interpreter import Interpreter

        return "int8" if holds_int8(str(path), Interpreter(model_path=str(path))) else requested
    return requested


def _folder_of(facts: Facts) -> Path:
    """Give where the user keeps benchmark programs for a kind of device: TUTELAGE_HOME/programs/ABI."""
    named, home = os.environ.get("TUTELAGE_HOME"), home_folder()
    root = Path(named) if named else (home or Path("~")) / ".config" / "tutelage"
    return root / "programs" / facts.abis[0]
