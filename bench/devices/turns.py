"""One session at a time on a device: `exclusively` makes those of other processes and workspaces on this host wait."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import shlex
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tutelage.records import DeviceProfile, InputError

log = logging.getLogger(__name__)

# Containers that share one processor or board name a folder here that all of them see.
LOCKS_VARIABLE = "TUTELAGE_LOCKS"
# Between two looks at a device that is in use, and between two lines that say so.
_LOOK_S, _SAY_S = 0.2, 60.0
_HOLDER_BYTES = 200
_ADB = "adb:"  # of a profile's `host`, before the serial
_SSH_WITH_VALUE = "BbcDEeFIiJLlmOoPpQRSWw"  # ssh's options that take a word of their own

_held: set[tuple[Path, int]] = set()  # by this process's threads


@contextmanager
def exclusively(device: DeviceProfile) -> Iterator[None]:
    """Hold what the device runs on, waiting for whoever times there; a thread that holds it may take it again.

    Profiles that run on this machine share one lock, and so do those of one phone or board. The lock ends with the
    process, however that ends. Raises InputError where no lock can be made.
    """
    path = lock_path(device)
    mine = path, threading.get_ident()
    if mine in _held:
        yield
        return
    with _open(path) as handle:
        _wait(handle, device)
        _write_holder(handle, device)
        _held.add(mine)
        try:
            yield
        finally:
            _held.remove(mine)
            # Closing alone leaves it locked while a child process that was started meanwhile has the file open, too.
            fcntl.flock(handle, fcntl.LOCK_UN)


def lock_path(device: DeviceProfile) -> Path:
    """Give the file whose lock stands for what the device runs on."""
    if device.local:
        name = "this-machine"
    else:
        board = board_of(device)
        readable = re.sub(r"[^A-Za-z0-9]+", "-", board).strip("-")[:30]
        name = f"{readable}-{hashlib.sha256(board.encode()).hexdigest()[:12]}"
    return _folder() / f"tutelage-{name}.lock"


def board_of(device: DeviceProfile) -> str:
    """Name what a device elsewhere runs on: a host of ssh whoever logs in there, a serial of adb, else its command.

    Commands that go there by ssh or adb name it, too, whatever they start. Aliases of one host are not seen through.
    """
    if not device.command:
        return device.host if device.host.startswith(_ADB) else _ssh_host(device.host)
    words = shlex.split(device.command)
    if words and Path(words[0]).name == "ssh":
        rest = iter(words[1:])
        for word in rest:
            if not word.startswith("-"):
                return _ssh_host(word)
            if len(word) == 2 and word[1] in _SSH_WITH_VALUE:
                next(rest, None)
    if words and Path(words[0]).name == "adb" and "-s" in words[1:-1]:
        return _ADB + words[words.index("-s") + 1]
    return device.command


def _ssh_host(destination: str) -> str:
    """Give the host of USER@HOST or ssh://USER@HOST:PORT."""
    return destination.removeprefix("ssh://").rpartition("@")[2].lower()


def _folder() -> Path:
    named = os.environ.get(LOCKS_VARIABLE, "").strip()
    # Not TMPDIR: a session's own folder would keep it from seeing the others.
    return Path(named) if named else Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())


def _open(path: Path) -> IO[bytes]:
    """Open the lock's file, that of another user too; nobody removes it, so that all lock the same one."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        try:
            # Linux refuses O_CREAT on another user's file in a sticky folder.
            return os.fdopen(os.open(path, flags), "r+b")
        except FileNotFoundError:
            pass
        try:
            number = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
            os.fchmod(number, 0o666)  # whatever the umask says: other users wait, too
        except FileExistsError:  # another process was first
            number = os.open(path, flags)
        return os.fdopen(number, "r+b")
    except OSError as error:
        raise InputError(
            f"cannot lock the device by {path} ({error.strerror}): set {LOCKS_VARIABLE} to a folder that may be written"
        ) from error


def _wait(handle: IO[bytes], device: DeviceProfile) -> None:
    said = -_SAY_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        except OSError as error:
            raise InputError(
                f"{handle.name} lies on a file system without locks ({error.strerror}): set {LOCKS_VARIABLE} to a "
                "folder on a local disk"
            ) from error
        if time.monotonic() - said >= _SAY_S:
            said = time.monotonic()
            log.warning("device %s: waiting for %s", device.name, _holder(handle))
        time.sleep(_LOOK_S)


def _write_holder(handle: IO[bytes], device: DeviceProfile) -> None:
    handle.seek(0)
    handle.truncate()
    handle.write(f"process {os.getpid()}, which times on device {device.name}".encode()[:_HOLDER_BYTES])
    handle.flush()


def _holder(handle: IO[bytes]) -> str:
    """Say who holds the lock, in the words that it left there."""
    handle.seek(0)
    said = handle.read(_HOLDER_BYTES).decode(errors="replace")
    return said if said.isprintable() and said else "another process that times there"
