"""Devices that run a program which speaks the device protocol (docs/device-protocol.md) on its input and output.

`ProgramBoard` starts it by a command, once for every worker of a session; `ProgramRunner` brings it the models and
asks for times.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tutelage.bench.converters.conversion import parts
from tutelage.bench.protocol.lines import LineProcess, WorkerError
from tutelage.bench.protocol.worker import ModelFile
from tutelage.bench.runtimes.entry import Runtime
from tutelage.bench.runtimes.registry import find_runtime
from tutelage.bench.runtimes.runner import START_SECONDS, warm_up
from tutelage.files import model_digest
from tutelage.records import DeviceProfile, DeviceState, TurnReport

from .anchors import runtime_anchors

PROTOCOL = 1
COPY_SECONDS = 300.0
_DIGITS = 16  # of a model's digest, in the names of files there
_NS = 1e-6  # of a nanosecond, in milliseconds
_NO_COUNTER = 'the program reads no energy counter (its reply to hello has no "energy":true, docs/device-protocol.md)'


class ProgramBoard:
    """A device behind a program: `argv` starts it, on this machine or through ssh, adb, docker, a serial line."""

    def __init__(self, argv: Sequence[str], device: DeviceProfile) -> None:
        self._argv, self._device = list(argv), device

    def start(self, models: Sequence[ModelFile]) -> ProgramRunner:
        """Start the program once more, for these models."""
        return ProgramRunner(self._argv, self._device, models)

    def anchors(self, folder: Path) -> list[ModelFile]:
        """Give the anchor nets as files of the device's runtime."""
        return runtime_anchors(find_runtime(self._device.runtime), folder)


class ProgramRunner:
    """One running program and the models it holds."""

    def __init__(self, argv: Sequence[str], device: DeviceProfile, models: Sequence[ModelFile]) -> None:
        self.version, self.cpu, self.processor, self.power_state, self.system = "", "", "", "", ""
        self.rss: int | None = None
        self.turn_seconds = 1e-3
        self._device, self._models = device, list(models)
        self._peak: int | None = None
        self._there: set[str] = set()
        self._meter: dict[str, str] = {"missing": _NO_COUNTER}
        try:
            self._line = LineProcess(argv, what=f"the program {argv[0]}")
        except OSError as error:
            raise WorkerError(f"cannot start {argv[0]}: {error.strerror}") from error

    def greet(self, timeout: float = START_SECONDS) -> None:
        """Say hello, and check that the program is one for the profile's runtime, precision and cores."""
        device = self._device
        cores = list(device.cores)
        begun = time.monotonic()
        hello = {"do": "hello", "protocol": PROTOCOL, "threads": device.threads, "precision": device.precision}
        reply = self._exchange({**hello, "cores": cores}, timeout)
        if reply.get("protocol") != PROTOCOL:
            raise WorkerError(
                f"the program speaks protocol {reply.get('protocol')!r}, not {PROTOCOL}: see docs/device-protocol.md"
            )
        runtime = find_runtime(device.runtime)
        if reply.get("runtime") != runtime.name:
            raise WorkerError(
                f"the program runs {reply.get('runtime')!r}, device {device.name} is of runtime {runtime.name}: give "
                "--runtime as the program says it"
            )
        precisions = [str(one) for one in reply.get("precisions", ["fp32"])]
        if device.precision not in precisions:
            raise WorkerError(f"the program does not compute in {device.precision}, only {', '.join(precisions)}")
        if cores and reply.get("cores") != cores:
            raise WorkerError(f"the program does not pin to cores {cores}: leave --cores out and pin it by its command")
        self._formats = self._checked_formats(reply, runtime)
        self._meter = meter_of(reply)
        self.version = str(reply.get("runtime_version", ""))
        self.cpu = self.processor = str(reply.get("processor", ""))
        self.system = str(reply.get("system", ""))
        state = self._state()
        self.power_state = power_state_of(state)
        self.turn_seconds = max(1e-3, (time.monotonic() - begun) / 2)

    def ask(self, request: dict[str, Any], timeout: float = 60.0) -> dict[str, Any]:
        """Fulfil a request of a session, see `runner.py`."""
        what = request["do"]
        if what == "state":
            return self._state().to_dict()
        if what == "memory":
            self._state()
            return {"rss": None, "peak": self._peak}
        if what == "meter":
            return dict(self._meter)
        if what == "idle":
            return self._idle(request["seconds"], timeout)
        index = request["model"]
        if what == "load":
            return self._load(index, timeout)
        if what == "copy":  # every session starts the program anew, which has the weights at other addresses
            return {"copies": 1}
        if what == "warm":
            return warm_up(lambda runs: self._run(index, 0, runs, timeout)["ms"], request["seconds"])
        if what == "time":
            return self._run(index, request.get("settle", 1), request["repeats"], timeout)
        if what == "energy":  # of the settling inferences, too, as our runner counts them
            return self._energy(index, request["settle"] + request["repeats"], timeout)
        raise ValueError(f"unknown request {what}")

    def rest(self) -> None:
        """Nothing: the protocol says that a program waits for its next line without taking time."""

    def dismiss(self) -> None:
        """Say goodbye and end its input."""
        if self._line.process.poll() is None and self._line.process.stdin and not self._line.process.stdin.closed:
            with contextlib.suppress(WorkerError):  # it ended by itself: stop() waits for it either way
                self._line.send({"do": "bye"}, timeout=1)
        self._line.dismiss()

    def stop(self) -> None:
        """End the program."""
        self.dismiss()
        self._line.stop()

    def _exchange(self, request: dict[str, Any], timeout: float, data: bytes = b"") -> dict[str, Any]:
        self._line.send(request, data, timeout)
        return self._line.receive(timeout)

    def _checked_formats(self, hello: dict[str, Any], runtime: Runtime) -> list[str]:
        formats = hello.get("formats")
        if not isinstance(formats, list) or not set(formats) & set(runtime.suffixes):
            raise WorkerError(
                f"the program loads {formats!r}, and {runtime.name} models are {' or '.join(runtime.suffixes)} files"
            )
        return [str(one) for one in formats]

    def _load(self, index: int, timeout: float) -> dict[str, Any]:
        model = self._models[index]
        path = Path(model.path)
        if path.suffix not in self._formats:
            raise WorkerError(f"the program loads {', '.join(self._formats)}, not {path.name}")
        stem = model_digest(path)[:_DIGITS]
        for part in parts(path):
            self._put(part, stem + part.suffix)
        request = {"do": "load", "model": index, "name": stem + path.suffix, "shape": list(model.shape)}
        begun = time.monotonic()
        reply = self._exchange(request, timeout)
        took_ms = (time.monotonic() - begun) * 1000
        load_ns = reply.get("load_ns")
        return {
            "load_ms": load_ns * _NS if isinstance(load_ns, int | float) else took_ms,
            "effective": str(reply.get("precision", self._device.precision)),
        }

    def _put(self, part: Path, name: str) -> None:
        """Bring a file there, once; the program says how much of it arrived."""
        if name in self._there:
            return
        data = part.read_bytes()
        kept = self._exchange({"do": "put", "name": name, "bytes": len(data)}, COPY_SECONDS, data).get("bytes")
        if kept != len(data):
            raise WorkerError(f"the program kept {kept!r} of {len(data)} bytes of {part.name}: is its disk full?")
        self._there.add(name)

    def _run(self, index: int, settle: int, runs: int, timeout: float) -> dict[str, Any]:
        reply = self._exchange({"do": "run", "model": index, "settle": settle, "runs": runs}, timeout)
        return self._times(reply, runs)

    def _times(self, reply: dict[str, Any], runs: int) -> dict[str, Any]:
        """Check the times of a reply to `run`."""
        if "ns" not in reply:  # it cannot time single inferences
            return summary({**reply, "runs": reply.get("runs", runs)})
        samples = reply["ns"]
        if not isinstance(samples, list) or len(samples) != runs or not all(_is_time(one) for one in samples):
            raise WorkerError(f"the program gave no list of {runs} positive nanoseconds: {str(samples)[:80]}")
        return {"ms": [one * _NS for one in samples]}

    def _idle(self, seconds: float, timeout: float) -> dict[str, float]:
        reply = self._exchange({"do": "idle", "ms": round(1000 * seconds)}, timeout)
        if not _is_time(reply.get("ns")):
            raise WorkerError(f"the program gave no ns of its idle time: {str(reply)[:80]}")
        return {"mj": _millijoules(reply), "seconds": reply["ns"] / 1e9}

    def _energy(self, index: int, runs: int, timeout: float) -> dict[str, float]:
        """Let it run for a while; the time that its energy is of is the sum of the inferences' own."""
        reply = self._exchange({"do": "run", "model": index, "settle": 0, "runs": runs}, timeout)
        times = self._times(reply, runs)
        total_ms = times["report"]["mean_ms"] * times["runs"] if "report" in times else sum(times["ms"])
        return {"mj": _millijoules(reply), "seconds": total_ms / 1000}

    def _state(self) -> DeviceState:
        reply = self._exchange({"do": "state"}, 60.0)
        peak = reply.pop("peak_bytes", None)
        self._peak = int(peak) if isinstance(peak, int | float) else None
        try:
            return DeviceState.from_dict(reply)
        except ValidationError as error:
            first = error.errors()[0]
            raise WorkerError(f"the program's state has {first['loc'][0]!s}: {first['msg']}") from error


def meter_of(hello: dict[str, Any]) -> dict[str, str]:
    """Give the reply to `meter` of a program: how it reads energy, or that it does not."""
    energy = hello.get("energy", False)
    if not isinstance(energy, bool):
        raise WorkerError(f"the program says energy {str(energy)[:40]!r} in its reply to hello: give true or false")
    if not energy:
        return {"missing": str(hello.get("energy_missing") or _NO_COUNTER)}
    return {"method": f"{hello.get('energy_method') or 'counter of the program'}, idle subtracted"}


def _millijoules(reply: dict[str, Any]) -> float:
    """Read the energy of a reply. Raises WorkerError where it has none."""
    value = reply.get("energy_uj")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
        raise WorkerError(f'the program said "energy":true and gives energy_uj {value!r}: microjoules, 0 or more')
    return value / 1000


def summary(reply: dict[str, Any]) -> dict[str, Any]:
    """Give the reply to `time` of a program that reports `mean_ns` of `runs` inferences, and maybe `min_ns`, ..."""
    names = ("mean", "median", "min", "max")
    values = {f"{name}_ms": reply[f"{name}_ns"] * _NS for name in names if _is_time(reply.get(f"{name}_ns"))}
    try:
        report = TurnReport(runs=reply["runs"], **values)
    except ValidationError as error:
        raise WorkerError(f"the program gave neither ns nor mean_ns: {str(reply)[:80]}") from error
    return reported(report)


def reported(report: TurnReport) -> dict[str, Any]:
    """Give the reply to `time` of a turn that is only known in sum: its median where there is one, else its mean."""
    typical = report.median_ms if report.median_ms is not None else report.mean_ms
    return {"ms": [typical], "runs": report.runs, "report": report.to_dict()}


def power_state_of(state: DeviceState) -> str:
    """Say what sets a device's clock, as `runner.power_state` says it of a host."""
    said = [f"governor {state.governor}"] if state.governor else []
    if state.on_battery:
        said.append("on battery")
    return ", ".join(said)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e15
