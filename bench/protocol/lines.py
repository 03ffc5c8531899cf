"""A process that is asked by lines of JSON on its standard input and replies by lines on its standard output."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.records import InputError


class WorkerError(RuntimeError):
    """A worker died, hung or could not fulfil a request; the message holds its last line of standard error."""


class RefusedError(WorkerError):
    """The worker answered that it cannot do what was asked: it lives, and would answer so again."""


class ModelRefusedError(InputError):
    """The runtime raised an error on one of the models, whose name is `model`: the others may be measured without."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"cannot measure {model}: {reason}")
        self.model, self.reason = model, reason


class LostDeviceError(WorkerError):
    """The device went away in the middle of a session: what was asked may succeed when it is there again."""


# What stands for a process elsewhere ends with this exit code where the connection was lost (EX_TEMPFAIL).
LOST_EXIT = 75


class LineProcess:
    """A process and the lines that go between it and us. `what` names it in messages."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str] | None = None, what: str = "the runner"):
        self.what = what
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop()
        self._unread = b""
        self.process = subprocess.Popen(
            list(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment, bufsize=0
        )

    def send(self, message: Mapping[str, Any], data: bytes = b"", timeout: float = 60.0) -> None:
        """Write a message as one line without spaces, and the bytes that belong to it after that."""
        assert self.process.stdin is not None
        left = memoryview(json.dumps(message, separators=(",", ":")).encode() + b"\n" + data)
        pipe, end = self.process.stdin.fileno(), time.monotonic() + timeout
        os.set_blocking(pipe, False)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(pipe, selectors.EVENT_WRITE)
                while left:
                    remaining = end - time.monotonic()
                    if remaining <= 0 or not selector.select(remaining):
                        raise WorkerError(f"{self.what} took no input within {timeout:.0f} s: {self.last_words()}")
                    left = left[os.write(pipe, left[: 1 << 16]) :]
        except OSError as error:
            raise self._ended() from error

    def receive(self, timeout: float) -> dict[str, Any]:
        """Read one line within the time, without spinning. Raises WorkerError, with the process's own for an error."""
        assert self.process.stdout is not None
        end = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                left = end - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise WorkerError(f"{self.what} did not reply within {timeout:.0f} s: {self.last_words()}")
                chunk = os.read(self.process.stdout.fileno(), 1 << 16)
                if not chunk:
                    raise self._ended()
                self._unread += chunk
        line, self._unread = self._unread.split(b"\n", 1)
        try:
            reply = json.loads(line)
        except ValueError as error:
            raise WorkerError(f"{self.what} said no JSON: {line[:200].decode(errors='replace')}") from error
        if not isinstance(reply, dict):
            raise WorkerError(f"{self.what} said no JSON object: {line[:200].decode(errors='replace')}")
        if "error" in reply:
            raise RefusedError((str(reply["error"]).strip().splitlines() or ["no reason"])[0])
        return reply

    def _ended(self) -> WorkerError:
        words = self.last_words()
        kind = LostDeviceError if self.process.poll() == LOST_EXIT else WorkerError
        return kind(f"{self.what} ended: {words}")

    def last_words(self) -> str:
        """Describe how the process ended and the last line it wrote to standard error."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=0.5)
        code = self.process.poll()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        end = "still running" if code is None else _exit_reason(code)
        return f"{end}; {lines[-1]}" if lines else end

    def dismiss(self) -> None:
        """Let the process end by itself: its input ends."""
        with contextlib.suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()

    def stop(self) -> None:
        """End the process, kindly first: a compiled network's has children of its own. Safe to call twice."""
        self.dismiss()
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._errors.close()


def _exit_reason(code: int) -> str:
    """Say how a process ended: by a signal (negative), by exit code, or because ssh (255) lost the line."""
    if code == -signal.SIGALRM:
        return "stopped by its watchdog: it hung"
    if code == -signal.SIGKILL:
        return "killed (out of memory?)"
    if code == 255:
        return "exit code 255 (ssh: connection lost or refused)"
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
