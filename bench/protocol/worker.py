"""Start, query and stop one runner process (`Worker`). It is local by default; `argv` may reach another host.

A worker handles one request at a time and sleeps between them; on Linux it is also stopped (SIGSTOP), here by this
process and elsewhere by a keeper (`runner.keep`), so that no thread pool of an idle runtime takes time from the one
that is measured. All runners of a session are pinned to the same cores of their host.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from tutelage.bench.runtimes.registry import adapter_files
from tutelage.bench.runtimes.runner import START_SECONDS
from tutelage.records import InputError, NotAvailableError

from .host import available_cores, quiet_cores, thread_environment
from .lines import LineProcess
from .lines import LostDeviceError as LostDeviceError
from .lines import WorkerError as WorkerError

RUNNER = Path(__file__).parents[1] / "runtimes" / "runner.py"
# A remote runner ends itself after so long without a request; loading the models of a session takes minutes.
IDLE_SECONDS = 1800.0


@dataclass(frozen=True)
class ModelFile:
    """A model a worker holds: its file (or a numpy anchor's width), its input `(batch, channels, height, width)`."""

    path: str
    shape: tuple[int, ...]


class Runner(Protocol):
    """What holds some models on a device and runs them: a `Worker`, or what a device without Python has instead.

    `ask` takes the requests of `runner.py`. A reply to `time` may hold `runs`, of how many inferences each of its `ms`
    is the mean, and `report`, a `TurnReport`, where a program says no more than that.
    """

    version: str
    rss: int | None
    cpu: str
    processor: str
    power_state: str
    system: str  # operating system; empty where the device does not say
    turn_seconds: float  # what a turn takes beside its inferences

    def greet(self) -> None:
        """Wait until it is ready; fills what it says of itself and of its device."""

    def ask(self, request: dict[str, Any], timeout: float = 60.0) -> dict[str, Any]:
        """Send one request and give its reply. Raises WorkerError."""
        ...

    def rest(self) -> None:
        """Let it take no processor time until the next request."""

    def dismiss(self) -> None:
        """Let it end by itself."""

    def stop(self) -> None:
        """End it. Safe to call twice."""


class Worker:
    """A running runner process. Use as a context manager, or `stop()` it: nothing is left behind."""

    def __init__(
        self,
        runtime: str,
        models: Sequence[ModelFile],
        *,
        threads: int,
        precision: str,
        cores: Sequence[int] | None = None,
        argv: Sequence[str] | None = None,
        choose_cores: int | None = None,
        only_meter: bool = False,
    ) -> None:
        """Start it. With `choose_cores` it returns that many quiet cores of its host and ends, see `choose_cores`.

        With `only_meter` it says which energy counter its host has, and ends, see `missing_meter`.
        """
        local = argv is None
        adapter = adapter_files(runtime)[0] if runtime else Path()  # none where cores are chosen
        environment = thread_environment(threads)
        self.version, self.pid = "", 0
        self.rss: int | None = None
        self.cpu, self.processor, self.power_state, self.system = "", "", "", ""
        self.turn_seconds = 1e-3
        self._stops = local and hasattr(signal, "SIGSTOP") and sys.platform.startswith("linux")
        self._stopped = False
        self._line = LineProcess(
            [sys.executable, "-I", str(RUNNER)] if argv is None else argv,
            {**os.environ, **environment} if local else None,
        )
        self._process = self._line.process
        self._line.send(
            {
                "runtime": runtime,
                # Here by its path; elsewhere it lies beside the runner.
                "adapter": str(adapter) if local else adapter.name,
                "threads": threads,
                "precision": precision,
                "cores": list(cores) if cores else None,
                "choose_cores": choose_cores,
                "environment": environment,  # neither ssh nor docker pass on what this process has
                "find_meter": only_meter,
                "keeper": not local and choose_cores is None and not only_meter,
                "models": [{"path": model.path, "shape": list(model.shape)} for model in models],
                "parent": os.getpid() if local else None,
                "idle": None if local else IDLE_SECONDS,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def greet(self, timeout: float = START_SECONDS) -> None:
        """Wait until the runtime is loaded; fills what the runner says of itself and of its host.

        `version`, `rss` (bytes, before any model), `pid`, `cpu`, `processor` (the GPU where that runs the models),
        `power_state`, what sets its clock, and `system`.
        """
        reply = self._line.receive(timeout)
        self.version, self.rss, self.pid = reply["version"], reply["rss"], reply["pid"]
        self.cpu, self.processor, self.power_state = reply["cpu"], reply["processor"], reply["power_state"]
        self.system = reply["system"]

    def ask(self, request: dict[str, Any], timeout: float = 60.0) -> dict[str, Any]:
        """Send one request and wait for its reply. Raises WorkerError if it fails, dies or takes too long."""
        self.wake()
        # The runner's own watchdog fires first, so that a remote process ends too and not only the local pipe.
        self._line.send({**request, "limit": timeout})
        reply = self._line.receive(timeout + 5)
        self.rest()
        return reply

    def chosen_cores(self, timeout: float = START_SECONDS) -> list[int] | None:
        """Wait for the cores that it was started to choose; `None` where that host cannot pin."""
        cores: list[int] | None = self._line.receive(timeout)["cores"]
        return cores

    def missing_meter(self, timeout: float = START_SECONDS) -> str:
        """Wait for what its host lacks of an energy counter; empty where it has one."""
        return str(self._line.receive(timeout).get("missing", ""))

    def wake(self) -> None:
        """Let a stopped local process go on."""
        if self._stopped:
            self._process.send_signal(signal.SIGCONT)
            self._stopped = False

    def rest(self) -> None:
        """Stop a local process until its next request."""
        if self._stops and not self._stopped and self._process.poll() is None:
            self._process.send_signal(signal.SIGSTOP)
            self._stopped = True

    def dismiss(self) -> None:
        """Let the process end by itself: its input ends."""
        self.wake()
        self._line.dismiss()

    def stop(self) -> None:
        """End the process, kindly first: a compiled network's has children of its own. Safe to call twice."""
        self.dismiss()
        self._line.stop()


@runtime_checkable
class Board(Protocol):
    """A device without Python, reached: it starts runners of its own kind, and says which anchors they can load."""

    def start(self, models: Sequence[ModelFile]) -> Runner:
        """Start a runner that holds these models; nothing else runs on the device."""
        ...

    def anchors(self, folder: Path) -> list[ModelFile]:
        """Give the anchor nets as files of the device's runtime, in the order of `anchors.anchor_names`."""
        ...


# Gives the command line of a worker that holds these models, and the models as that host sees them.
Launcher = Callable[[Sequence[ModelFile]], tuple[list[str] | None, list[ModelFile]]]


# A way to a device: what starts the Python runner there, or a board that runs programs of its own.
Reached = Launcher | Board


def launch_local(models: Sequence[ModelFile]) -> tuple[list[str] | None, list[ModelFile]]:
    """Start the runner with this Python on this host."""
    return None, list(models)


def choose_cores(num: int, launcher: Launcher) -> list[int] | None:
    """Choose the `num` least busy cores of the host that the launcher reaches; `None` where it cannot pin."""
    if launcher is launch_local:
        return quiet_cores(num)
    argv, _ = launcher([])
    with Worker("", [], threads=num, precision="fp32", argv=argv, choose_cores=num) as worker:
        return worker.chosen_cores()


def start_workers(
    groups: Sequence[tuple[str, Sequence[ModelFile]]],
    *,
    threads: int,
    precision: str,
    launcher: Reached = launch_local,
    at_once: int | None = None,
) -> list[Runner]:
    """Start one worker a group `(runtime, models)`, `at_once` together; on a failure those started are stopped.

    By default two; here as many as there are cores, since a process that imports torch is busy for seconds.
    """
    workers: list[Runner] = []
    at_once = at_once or max(2, available_cores() if launcher is launch_local else 2)
    try:
        cores = None if isinstance(launcher, Board) else choose_cores(threads, launcher)
        for start in range(0, len(groups), at_once):
            for runtime, models in groups[start : start + at_once]:
                if isinstance(launcher, Board):
                    workers.append(launcher.start(models))
                    continue
                argv, seen = launcher(models)
                own = "fp32" if runtime == "anchor" else precision
                workers.append(Worker(runtime, seen, threads=threads, precision=own, cores=cores, argv=argv))
            for worker in workers[start:]:
                worker.greet()
                worker.rest()
    except WorkerError as error:
        stop_workers(workers)
        kind = NotAvailableError if isinstance(error, LostDeviceError) else InputError
        raise kind(f"cannot start the runner: {error}") from error
    except BaseException:
        stop_workers(workers)
        raise
    return workers


def stop_workers(workers: Sequence[Runner]) -> None:
    """End all at once: a runtime may take a quarter of a second to release its model."""
    for worker in workers:
        worker.dismiss()
    for worker in workers:
        worker.stop()
