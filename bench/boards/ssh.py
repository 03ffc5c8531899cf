"""Other hosts by ssh: commands there and files that go there, all over one connection (`connect`).

A first ssh logs in and stands as the master of the others (ControlMaster of OpenSSH), which then need no login of
their own. Where that is refused, by another client or by a server of one session a connection, each logs in itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from tutelage.records import InputError

CONNECT_SECONDS = 15
COPY_SECONDS = 300
_LOGIN_SECONDS = 60.0
# BatchMode: no prompts, as nobody may be there to reply; keep-alive messages detect a dead connection within 30 s.
SSH_OPTIONS = (
    "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}",
    "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3",
)  # fmt: skip
# Of a Unix socket's path, less what ssh adds to it while it makes the socket.
_MOST_CHARACTERS = 103 - 17
# What another login would say again, some of it after as long a wait.
_NO_LOGIN = re.compile(
    r"refused|timed out|Permission denied|verification failed|Could not resolve|No route|unreachable"
)


class Ssh:
    """A host and the client's command line that reaches it."""

    def __init__(self, client: Sequence[str], host: str) -> None:
        self.client, self.host = list(client), host

    def argv(self, command: str) -> list[str]:
        """Give the command line that runs a command there."""
        return [*self.client, "-T", self.host, command]

    def run(self, command: str, *, what: str, data: bytes = b"", seconds: float = 60) -> bytes:
        """Run a command there and give what it prints. Raises InputError, which says `what` it was for."""
        try:
            done = subprocess.run(self.argv(command), input=data, capture_output=True, timeout=seconds)
        except FileNotFoundError as error:
            raise InputError(f"no {self.client[0]} on this host: install an ssh client") from error
        except subprocess.TimeoutExpired as error:
            raise InputError(f"cannot {what} on {self.host}: no response within {seconds:.0f} s") from error
        if done.returncode != 0:
            said = _last(done.stderr) or f"exit code {done.returncode}"
            raise InputError(f"cannot {what} on {self.host}: {said}")
        return done.stdout

    def copy(self, path: Path, target: str) -> None:
        """Copy a file over ssh's own connection, and check that all of it arrived."""
        command = f"cat > {shlex.quote(target)} && wc -c < {shlex.quote(target)}"
        data = path.read_bytes()
        kept = self.run(command, what=f"copy {path.name}", data=data, seconds=COPY_SECONDS)
        if kept.strip() != str(len(data)).encode():
            found = kept.decode().strip() or "nothing"
            raise InputError(f"{self.host} kept {found} of {len(data)} bytes of {path.name}: is its disk full?")


@contextlib.contextmanager
def connect(client: Sequence[str], host: str) -> Iterator[Ssh]:
    """Log in once for all commands; a connection that the user shares by ssh's configuration is used as it is.

    Raises InputError where the host cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="tutelage-ssh-") as folder:
        control = Path(folder) / "c"
        if len(str(control)) > _MOST_CHARACTERS or _is_shared(client, host):
            yield Ssh(client, host)
            return
        with _master(client, host, control) as shared:
            yield Ssh([*client, "-o", "ControlMaster=no", "-o", f"ControlPath={control}"] if shared else client, host)


def _is_shared(client: Sequence[str], host: str) -> bool:
    """Say whether the user's own configuration has a connection to this host open."""
    try:
        return subprocess.run([*client, "-O", "check", host], capture_output=True, timeout=10).returncode == 0
    except FileNotFoundError as error:
        raise InputError(f"no {client[0]} on this host: install an ssh client") from error
    except subprocess.TimeoutExpired:
        return False


@contextlib.contextmanager
def _master(client: Sequence[str], host: str, control: Path) -> Iterator[bool]:
    """Hold a connection that others go over by the socket `control`; gives whether there is one.

    It lasts as long as its input, which ends with this process, however that ends.
    """
    options = ("-M", "-o", f"ControlPath={control}", "-o", "ControlPersist=no", "-o", "ClearAllForwardings=yes")
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [*client, *options, "-T", host, "echo; exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0,
        )  # fmt: skip
        try:
            yield _logged_in(process, errors, host) and control.exists()
        finally:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def _logged_in(process: subprocess.Popen[bytes], errors: IO[bytes], host: str) -> bool:
    """Wait for the first output from there; False where this client or server does not do it like this."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(_LOGIN_SECONDS):
            raise InputError(f"cannot connect to {host}: no response within {_LOGIN_SECONDS:.0f} s")
    if os.read(process.stdout.fileno(), 1 << 12):
        return True
    errors.seek(0)
    said = _last(errors.read())
    if _NO_LOGIN.search(said):
        raise InputError(f"cannot connect to {host}: {said}")
    return False


def _last(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
