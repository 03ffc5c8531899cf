"""Start, query and stop one runner process (`Worker`). It is local by default; `argv` may reach another host.

A worker handles one request at a time and sleeps between them; on Linux it is also stopped (SIGSTOP), here by this
process and elsewhere by a keeper (`runner.keep`), so that no thread pool of an idle runtime takes time from the one
that is measured. All runners of a session are pinned to the same cores of their host.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tutelage.bench.runtimes.registry import adapter_files
from tutelage.bench.runtimes.runner import START_SECONDS
from tutelage.records import InputError

from .host import available_cores, quiet_cores, thread_environment

RUNNER = Path(__file__).parents[1] / "runtimes" / "runner.py"
# A remote runner ends itself after so long without a request; loading the models of a session takes minutes.
IDLE_SECONDS = 1800.0


@dataclass(frozen=True)
class ModelFile:
    """A model a worker holds: its file (or a numpy anchor's width), its input `(batch, channels, height, width)`."""

    path: str
    shape: tuple[int, ...]


class WorkerError(RuntimeError):
    """A worker died, hung or could not fulfil a request; the message holds its last line of standard error."""


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
    ) -> None:
        """Start it. With `choose_cores` it returns that many quiet cores of its host and ends, see `choose_cores`."""
        local = argv is None
        adapter = adapter_files(runtime)[0] if runtime else Path()  # none where cores are chosen
        environment = thread_environment(threads)
        self.version, self.rss, self.pid = "", None, 0
        self.cpu, self.processor, self.power_state = "", "", ""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop()
        self._unread = b""
        self._stops = local and hasattr(signal, "SIGSTOP") and sys.platform.startswith("linux")
        self._stopped = False
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(RUNNER)] if argv is None else list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **environment} if local else None,
        )
        self._send(
            {
                "runtime": runtime,
                # Here by its path; elsewhere it lies beside the runner.
                "adapter": str(adapter) if local else adapter.name,
                "threads": threads,
                "precision": precision,
                "cores": list(cores) if cores else None,
                "choose_cores": choose_cores,
                "environment": environment,  # neither ssh nor docker pass on what this process has
                "keeper": not local and choose_cores is None,
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

        `version`, `rss` (bytes, before any model), `pid`, `cpu`, `processor` (the GPU where that runs the models) and
        `power_state`, what sets its clock.
        """
        reply = self._receive(timeout)
        self.version, self.rss, self.pid = reply["version"], reply["rss"], reply["pid"]
        self.cpu, self.processor, self.power_state = reply["cpu"], reply["processor"], reply["power_state"]

    def ask(self, request: dict[str, Any], timeout: float = 60.0) -> dict[str, Any]:
        """Send one request and wait for its reply. Raises WorkerError if it fails, dies or takes too long."""
        self.wake()
        # The runner's own watchdog fires first, so that a remote process ends too and not only the local pipe.
        self._send({**request, "limit": timeout})
        reply = self._receive(timeout + 5)
        self.rest()
        return reply

    def chosen_cores(self, timeout: float = START_SECONDS) -> list[int] | None:
        """Wait for the cores that it was started to choose; `None` where that host cannot pin."""
        cores: list[int] | None = self._receive(timeout)["cores"]
        return cores

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
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()

    def stop(self) -> None:
        """End the process, kindly first: a compiled network's has children of its own. Safe to call twice."""
        self.dismiss()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise WorkerError(f"the runner ended: {self._last_words()}") from error

    def _receive(self, timeout: float) -> dict[str, Any]:
        """Read one line within the time, without spinning."""
        assert self._process.stdout is not None
        end = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                left = end - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise WorkerError(f"the runner did not reply within {timeout:.0f} s: {self._last_words()}")
                chunk = os.read(self._process.stdout.fileno(), 1 << 16)
                if not chunk:
                    raise WorkerError(f"the runner ended: {self._last_words()}")
                self._unread += chunk
        line, self._unread = self._unread.split(b"\n", 1)
        try:
            reply: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise WorkerError(f"the runner said no JSON: {line[:200].decode(errors='replace')}") from error
        if "error" in reply:
            raise WorkerError(str(reply["error"]).strip().splitlines()[0])
        return reply

    def _last_words(self) -> str:
        """Describe how the process ended and the last line it wrote to standard error."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=0.5)
        code = self._process.poll()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        end = "still running" if code is None else _exit_reason(code)
        return f"{end}; {lines[-1]}" if lines else end


# Gives the command line of a worker that holds these models, and the models as that host sees them.
Launcher = Callable[[Sequence[ModelFile]], tuple[list[str] | None, list[ModelFile]]]


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
    launcher: Launcher = launch_local,
    at_once: int | None = None,
) -> list[Worker]:
    """Start one worker a group `(runtime, models)`, `at_once` together; on a failure those started are stopped.

    By default two; here as many as there are cores, since a process that imports torch is busy for seconds.
    """
    workers: list[Worker] = []
    at_once = at_once or max(2, available_cores() if launcher is launch_local else 2)
    try:
        cores = choose_cores(threads, launcher)
        for start in range(0, len(groups), at_once):
            for runtime, models in groups[start : start + at_once]:
                argv, seen = launcher(models)
                kind = "fp32" if runtime == "anchor" else precision
                workers.append(Worker(runtime, seen, threads=threads, precision=kind, cores=cores, argv=argv))
            for worker in workers[start:]:
                worker.greet()
                worker.rest()
    except WorkerError as error:
        stop_workers(workers)
        raise InputError(f"cannot start the runner: {error}") from error
    except BaseException:
        stop_workers(workers)
        raise
    return workers


def stop_workers(workers: Sequence[Worker]) -> None:
    """End all at once: a runtime may take a quarter of a second to release its model."""
    for worker in workers:
        worker.dismiss()
    for worker in workers:
        worker.stop()


def _exit_reason(code: int) -> str:
    """Say how a process ended: by a signal (negative), by exit code, or because ssh (255) lost the line."""
    if code == -signal.SIGALRM:
        return "stopped by its watchdog: it hung"
    if code == -signal.SIGKILL:
        return "killed (out of memory?)"
    if code == 255:
        return "exit code 255 (ssh: connection lost or refused)"
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
