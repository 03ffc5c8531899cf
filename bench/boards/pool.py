"""Boards of a Ray cluster: a profile with `host: ray:NAME` is timed where the resource `device:NAME` is offered.

Whoever plugs a board in runs `ray start --address=HEAD --resources='{"device:NAME": 1}'` on it; or on the machine
that its cable ends at, with the command that reaches it in TUTELAGE_BOARD. `open_board` waits for a free one and
holds it for a session; `pools` says who is up and who waits. A board that leaves in the middle is a LostDeviceError:
the session can be held again on another.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from tutelage.bench.boards.address import check_address, join
from tutelage.bench.boards.shelf import NAMESPACE, Pool, pools, resource
from tutelage.bench.devices.turns import exclusively
from tutelage.bench.protocol.lines import LOST_EXIT, LostDeviceError
from tutelage.hub import first_line
from tutelage.records import DeviceProfile, InputError, NotAvailableError

log = logging.getLogger(__name__)

POOL = "ray:"  # of a profile's `host`, before the pool's name
# Of a machine that a board's cable ends at: a launcher with {runner}, or a program that speaks the device protocol.
BOARD_VARIABLE = "TUTELAGE_BOARD"
# How long a session waits while no board of its pool is up, in seconds; of a pool that was never seen: is it a slip?
WAIT_VARIABLE, _WAIT_S, _UNSEEN_S = "TUTELAGE_BOARD_WAIT", 600.0, 20.0
MOST_BOARDS = 3
_LOOK_S, _SAY_S = 1.0, 60.0
_GIVEN_S = 3.0  # how long a free board takes to be ours
# How long a program may take to end once its input has ended, before it is killed; and what the reply to that may take.
_END_S, _REPLY_S = 30.0, 10.0
_BYTES = 1 << 20

_seen: set[str] = set()  # pools of which this process saw a board


def pool_of(device: DeviceProfile) -> str:
    """Give the pool of a profile's boards. Raises InputError for `ray:` alone."""
    pool = device.host.removeprefix(POOL).strip()
    if not pool:
        raise InputError(f"device {device.name}: host is {device.host!r}: give the name of the pool after it, ray:NAME")
    return pool


def patience_s(device: DeviceProfile) -> float:
    """Give how long a session waits while no board of the pool is up: less where nobody ever saw one. InputError."""
    text = os.environ.get(WAIT_VARIABLE, "").strip()
    if not text:
        return _WAIT_S if device.runtime_version or pool_of(device) in _seen else _UNSEEN_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(f"{WAIT_VARIABLE} is {text!r}: give the seconds to wait for a board, e.g. 600")
    return seconds


class _Board:
    """One session on one board, in a process of the machine that has it."""

    def __init__(self, device: DeviceProfile) -> None:
        self.command = os.environ.get(BOARD_VARIABLE, "").strip()
        self._folder = tempfile.TemporaryDirectory(prefix="tutelage-board-")
        self._processes: list[tuple[subprocess.Popen[bytes], Any]] = []
        self._lock, self._over = threading.Lock(), False
        here = DeviceProfile(name=device.name, runtime=device.runtime, command=self.command)
        self._turn = contextlib.ExitStack()
        self._turn.enter_context(exclusively(here))  # whoever times here without Ray is waited for, too

    def reached(self) -> tuple[str, str, str]:
        """Say which machine this is, by what command it reaches the board (empty: it is the board), and its folder."""
        return socket.gethostname(), self.command, self._folder.name

    def put(self, name: str, content: bytes) -> str:
        """Keep a file for the session; gives its path."""
        path = Path(self._folder.name, name)
        path.write_bytes(content)
        return str(path)

    def start(self, argv: Sequence[str]) -> int:
        """Start what holds models on the board; gives its number. An empty name stands for this machine's Python."""
        words = [argv[0] or sys.executable, *argv[1:]]
        with self._lock:
            if self._over:
                raise RuntimeError("the session on this board is over: nothing is started any more")
            errors = tempfile.TemporaryFile()  # noqa: SIM115 - ends with this process
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
            self._processes.append((subprocess.Popen(words, bufsize=0, **pipes), errors))
            return len(self._processes) - 1

    def write(self, number: int, data: bytes) -> bool:
        """Write to a process; says whether it still reads. No bytes: its input ends."""
        stdin = self._processes[number][0].stdin
        assert stdin is not None
        try:
            if not data:
                stdin.close()
            left = memoryview(data)
            while left:
                left = left[stdin.write(left) :]
        except (OSError, ValueError):
            return False
        return True

    def read(self, number: int) -> bytes:
        """Read what a process says, as much as there is; nothing at its end."""
        stdout = self._processes[number][0].stdout
        assert stdout is not None
        return os.read(stdout.fileno(), _BYTES)

    def end(self, number: int) -> tuple[int, str]:
        """End a process; gives its exit code and its last words."""
        process, errors = self._processes[number]
        code = _end(process, 2)
        errors.seek(0)
        return code, errors.read()[-2000:].decode(errors="replace")

    def end_all(self, seconds: float) -> None:
        """End every process, by the end of its input; what still runs after so many seconds is killed."""
        with self._lock:
            self._over = True
        for number in range(len(self._processes)):
            self.write(number, b"")
        deadline = time.monotonic() + seconds
        for process, _ in self._processes:
            _end(process, max(0.0, deadline - time.monotonic()))


def _end(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Wait for a process, and kill it after so many seconds; gives its exit code."""
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


@dataclass(frozen=True)
class HeldBoard:
    """A board that is held for a session: `command` reaches it from its machine; empty: it is that machine."""

    command: str
    folder: str
    start: Any  # takes the words of a command there, gives those of one here that stands for it
    put: Any  # takes a name and bytes, gives the path there


def load_ray() -> Any:
    """Import Ray without its usage statistics, which it would send by default. Raises NotAvailableError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a task without a GPU keeps the variables it has
    try:
        import ray
    except ImportError:
        raise NotAvailableError("workers, clusters and pools of boards need Ray: pip install tutelage[ray]") from None
    return ray


@contextlib.contextmanager
def joined() -> Iterator[Any]:
    """Give Ray, joined to the cluster that RAY_ADDRESS names or that this machine is part of, unless it is already."""
    ray = load_ray()
    if ray.is_initialized():
        yield ray
        return
    address = os.environ.get("RAY_ADDRESS", "").strip() or "auto"
    check_address(address, "RAY_ADDRESS")
    try:
        join(ray, address, "RAY_ADDRESS", namespace=NAMESPACE)
    except Exception as error:  # Ray raises no class of its own
        raise NotAvailableError(
            f"no Ray cluster answers at {address} ({first_line(error)}): set RAY_ADDRESS to its head, or run this on "
            "one of its machines"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def open_board(device: DeviceProfile) -> Iterator[HeldBoard]:
    """Wait for a board of the profile's pool and hold it. Raises NotAvailableError where none is up for long."""
    patience_s(device)  # a wrong one is said before a cluster is joined
    with joined() as ray, tempfile.TemporaryDirectory(prefix="tutelage-pump-") as scratch:
        board, (host, command, folder) = _hold(ray, device)
        try:
            log.info("device %s: timed on %s", device.name, host)
            what = f"the board of {device.name} on {host}"
            bridge = _Bridge(ray, board, Path(scratch), what)

            def put(name: str, content: bytes) -> str:
                try:
                    return str(ray.get(board.put.remote(name, content)))
                except ray.exceptions.RayTaskError as error:
                    raise NotAvailableError(f"device {device.name}: {what} keeps no file: {error.cause}") from error
                except ray.exceptions.RayError:
                    lost = LostDeviceError(f"{what} left")
                    raise NotAvailableError(f"device {device.name}: {lost}") from lost

            with bridge:
                yield HeldBoard(command, folder, bridge.start, put)
        finally:
            _give_back(ray, board)


def _give_back(ray: Any, board: Any) -> None:
    """Give a board back, not before what the session started there has ended: the next one would be timed beside it."""
    try:
        with contextlib.suppress(ray.exceptions.RayError):  # the board left, or does not answer in time
            ray.get(board.end_all.remote(_END_S), timeout=_END_S + _REPLY_S)
    finally:
        ray.kill(board)


Held = TypeVar("Held")


def on_boards(device: DeviceProfile, session: Callable[[], Held]) -> Held:
    """Hold a session, and again where a pool's board left in its middle, at most on `MOST_BOARDS`."""
    for left in reversed(range(MOST_BOARDS)):
        try:
            return session()
        except NotAvailableError as error:
            if not left or not device.host.startswith(POOL) or not isinstance(error.__cause__, LostDeviceError):
                raise
            log.warning("device %s: %s; the session is held again on another board", device.name, error)
    raise AssertionError("the last session returned or raised")


def _hold(ray: Any, device: DeviceProfile) -> tuple[Any, tuple[str, str, str]]:
    """Ask for a board until one is ours; Ray may give one that left, which it finds out seconds later."""
    pool = pool_of(device)
    for left in reversed(range(MOST_BOARDS)):
        board = ray.remote(_Board).options(
            num_cpus=0, resources={resource(pool): 1}, max_concurrency=64, namespace=NAMESPACE,
            name=f"{pool}/{uuid4().hex}", max_restarts=0, max_task_retries=0,
        ).remote(device)  # fmt: skip
        try:
            return board, _wait(ray, board, device)
        except BaseException as error:
            ray.kill(board)
            if not isinstance(error, ray.exceptions.RayError):
                raise
            if not left:
                raise NotAvailableError(
                    f"device {device.name}: {MOST_BOARDS} boards of the pool {pool} left before the session began "
                    f"({first_line(error)})"
                ) from error
    raise AssertionError("the last board was held or raised")


def _wait(ray: Any, board: Any, device: DeviceProfile) -> tuple[str, str, str]:
    """Wait until the board is ours; say how many there are and wait before us. Raises RayError where it left."""
    pool, begun, said, up = pool_of(device), time.monotonic(), -_SAY_S, True
    reply = board.reached.remote()
    seen = begun
    while True:
        done, _ = ray.wait([reply], timeout=_LOOK_S)
        now = time.monotonic()
        if done:
            found: tuple[str, str, str] = ray.get(reply)
            _seen.add(pool)
            pools(ray)  # which are up is noted for later looks
            return found
        known = pools(ray)
        state = known.get(pool, Pool(pool))
        if state.up:
            seen = now
            _seen.add(pool)
        patience = patience_s(device)
        none = f"device {device.name}: no board of the pool {pool} is up"
        if now - seen > patience:
            others = ", ".join(one.name for one in known.values() if one.up)
            others = f"; pools that are up: {others}" if others else ""
            raise NotAvailableError(
                f"{none}, and none came in {patience:g} s ({WAIT_VARIABLE} sets how long): {_plug_in(pool)}{others}"
            )
        if bool(state.up) != up:  # the last one left, or the first one came
            up, said = bool(state.up), -_SAY_S
        if now - said < _SAY_S or (up and now - begun < _GIVEN_S):
            continue
        said = now
        if up:
            words = f"waiting for a board of the pool {pool}: {state.up} up, {state.waiting} waiting"
            log.warning("device %s: %s", device.name, words)
        else:
            left = patience - (now - seen)
            log.warning("%s: waiting up to %.0f s for one (%s): %s", none, left, WAIT_VARIABLE, _plug_in(pool))


def _plug_in(pool: str) -> str:
    """Say how a board comes into a pool."""
    return (
        f"run `ray start --address=HEAD --resources='{{\"{resource(pool)}\": 1}}'` on it, or on the machine that its "
        "cable ends at"
    )


class _Bridge:
    """Lets a command here stand for a process on the board: `pump.py` connects, and threads carry the bytes."""

    def __init__(self, ray: Any, board: Any, scratch: Path, what: str) -> None:
        self._ray, self._board, self._scratch, self._what = ray, board, scratch, what
        self._listeners: list[socket.socket] = []

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        for one in self._listeners:
            one.close()

    def start(self, argv: Sequence[str]) -> list[str]:
        """Give the command here that starts `argv` there, as often as it is started."""
        path = self._scratch / str(len(self._listeners))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(16)
        self._listeners.append(listener)
        threading.Thread(target=self._accept, args=(listener, list(argv)), daemon=True).start()
        return [sys.executable, "-I", str(Path(__file__).with_name("pump.py")), str(path)]

    def _accept(self, listener: socket.socket, argv: list[str]) -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._carry, args=(line, argv), daemon=True).start()

    def _carry(self, line: socket.socket, argv: list[str]) -> None:
        with line, line.makefile("rb", buffering=0) as coming:
            name = b""
            while not name.endswith(b"\n"):
                name += coming.read(1) or b"\n"
            end = self._scratch / f"end-{name.decode().strip()}"
            try:
                number = self._ray.get(self._board.start.remote(argv))
                sending = threading.Thread(target=self._send, args=(line, number), daemon=True)
                sending.start()
                with contextlib.suppress(OSError):
                    while chunk := self._ray.get(self._board.read.remote(number)):
                        line.sendall(chunk)
                code, said = self._ray.get(self._board.end.remote(number))
            except self._ray.exceptions.RayTaskError as error:
                code, said = 1, str(error.cause)
            except self._ray.exceptions.RayError:
                code, said = LOST_EXIT, f"{self._what} left"
            with contextlib.suppress(OSError):  # the session is over
                end.write_text(f"{code % 256}\n{said}")
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)  # closing alone does not end it while the other thread reads

    def _send(self, line: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError, self._ray.exceptions.RayError):
            while chunk := line.recv(_BYTES):
                if not self._ray.get(self._board.write.remote(number, chunk)):
                    return
            self._ray.get(self._board.write.remote(number, b""))
