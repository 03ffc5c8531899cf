"""A device for adb's real server: it speaks the protocol between server and device (adb's protocol.txt) over TCP.

It runs commands with this machine's shell and keeps files in a folder: what a command or a copy says of
/data/local/tmp and /sys is below that folder, and `getprop` and `dumpsys` are scripts there.
"""

import contextlib
import errno
import os
import re
import socket
import struct
import subprocess
import threading
from pathlib import Path

CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = (int.from_bytes(name, "little") for name in (
    b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE"))  # fmt: skip
VERSION, MOST_BYTES = 0x01000001, 0x40000  # of this version on, checksums are not looked at
STDIN, STDOUT, STDERR, EXIT, END = 0, 1, 2, 3, 4  # packets of shell,v2
BANNER = b"device::ro.product.name=fake;ro.product.model=Fake;ro.product.device=fake;features=shell_v2,cmd,stat_v2"


class Adbd:
    """One device; `root` holds its files. `unauthorized`: it never accepts the computer's key."""

    def __init__(self, root: Path, *, unauthorized: bool = False) -> None:
        self.root, self.unauthorized = root, unauthorized
        self.free_bytes: int | None = None  # of its disk; None: enough
        self.commands: list[str] = []
        self.copied: list[str] = []
        self._lines: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._server.getsockname()[1]}"
        (root / "data/local/tmp").mkdir(parents=True, exist_ok=True)
        (root / "bin").mkdir(exist_ok=True)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Unplug it."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # else the one that waits in `accept` takes another connection
        self._server.close()
        for line in self._lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()

    def script(self, name: str, text: str) -> None:
        """Put a program on its path."""
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def here(self, text: str) -> str:
        """Name its paths as they are on this machine."""
        return re.sub(r"(?<![\w/])/(data/local/tmp|sys)\b", rf"{self.root}/\1", text)

    def _accept(self) -> None:
        while True:
            try:
                line, _ = self._server.accept()
            except OSError:
                return
            self._lines.append(line)
            threading.Thread(target=_Line(self, line).serve, daemon=True).start()


class _Line:
    """One connection to the server, and the streams that are open on it."""

    def __init__(self, device: Adbd, line: socket.socket) -> None:
        self.device, self._line = device, line
        self._sending = threading.Lock()
        self._streams: dict[int, _Stream] = {}

    def serve(self) -> None:
        try:
            while True:
                command, first, second, length, _, _ = struct.unpack("<6I", self._read(24))
                self._obey(command, first, second, self._read(length))
        except OSError:
            for stream in self._streams.values():
                stream.end()

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        head = struct.pack("<6I", command, first, second, len(data), 0, command ^ 0xFFFFFFFF)
        with self._sending:
            self._line.sendall(head + data)

    def _obey(self, command: int, first: int, second: int, data: bytes) -> None:
        if (command == CNXN and self.device.unauthorized) or (command == AUTH and first == 2):
            self.send(AUTH, 1, 0, bytes(20))
        elif command == CNXN:
            self.send(CNXN, VERSION, MOST_BYTES, BANNER)
        elif command == OPEN:
            stream = _Stream(self, len(self._streams) + 1, first)
            self._streams[stream.ours] = stream
            self.send(OKAY, stream.ours, first)
            threading.Thread(target=stream.run, args=(data.rstrip(b"\0").decode(),), daemon=True).start()
        elif command == WRTE:
            self._streams[second].receive(data)
            self.send(OKAY, second, first)
        elif command == OKAY:
            self._streams[second].may_send.release()
        elif command == CLSE and second in self._streams:
            self._streams[second].end()

    def _read(self, number: int) -> bytes:
        data = b""
        while len(data) < number:
            piece = self._line.recv(number - len(data))
            if not piece:
                raise ConnectionResetError
            data += piece
        return data


class _Stream:
    """One service that the server opened: a shell or a copy."""

    def __init__(self, line: _Line, ours: int, theirs: int) -> None:
        self._line, self.ours, self.theirs = line, ours, theirs
        self.may_send = threading.Semaphore(1)  # the next piece waits until the last one was taken
        self._arrived = threading.Condition()
        self._data, self._ended = b"", False

    def run(self, service: str) -> None:
        try:
            if service.startswith("shell,"):
                self._shell(service.partition(":")[2])
            elif service == "sync:":
                self._sync()
            self._line.send(CLSE, self.ours, self.theirs)
        except OSError:
            self.end()

    def receive(self, data: bytes) -> None:
        with self._arrived:
            self._data += data
            self._arrived.notify_all()

    def end(self) -> None:
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()
        self.may_send.release()

    def _write(self, data: bytes) -> None:
        for start in range(0, len(data), MOST_BYTES):
            self.may_send.acquire()
            if self._ended:
                raise ConnectionResetError
            self._line.send(WRTE, self.ours, self.theirs, data[start : start + MOST_BYTES])

    def _read(self, number: int) -> bytes:
        with self._arrived:
            self._arrived.wait_for(lambda: len(self._data) >= number or self._ended)
            if len(self._data) < number:
                raise ConnectionResetError
            piece, self._data = self._data[:number], self._data[number:]
        return piece

    def _shell(self, command: str) -> None:
        device = self._line.device
        device.commands.append(command)
        environment = {**os.environ, "PATH": f"{device.root / 'bin'}:{os.environ['PATH']}"}
        process = subprocess.Popen(
            ["sh", "-c", device.here(command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment, cwd=device.root,
        )  # fmt: skip
        assert process.stdin is not None
        threading.Thread(target=self._feed, args=(process.stdin,), daemon=True).start()
        readers = [
            threading.Thread(target=self._forward, args=(pipe, kind), daemon=True)
            for pipe, kind in ((process.stdout, STDOUT), (process.stderr, STDERR))
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        self._packet(EXIT, bytes([process.wait() & 0xFF]))

    def _feed(self, pipe) -> None:
        """Pass standard input on, until its end."""
        try:
            while True:
                kind, length = struct.unpack("<BI", self._read(5))
                data = self._read(length)
                if kind == END:
                    break
                if kind == STDIN:
                    pipe.write(data)
                    pipe.flush()
        except OSError:
            pass
        pipe.close()

    def _forward(self, pipe, kind: int) -> None:
        try:
            while data := os.read(pipe.fileno(), 1 << 15):
                self._packet(kind, data)
        except OSError:
            pass
        pipe.close()

    def _packet(self, kind: int, data: bytes) -> None:
        self._write(struct.pack("<BI", kind, len(data)) + data)

    def _sync(self) -> None:
        """Serve copies, as sync.txt says: a name, then pieces of data, then the time."""
        while True:
            name, length = struct.unpack("<4sI", self._read(8))
            path = self._read(length).decode() if name != b"QUIT" else ""
            if name == b"QUIT":
                return
            if name in (b"STAT", b"STA2", b"LST2"):
                self._write(name + bytes(12 if name == b"STAT" else 68))  # nothing of that name
            elif name == b"SEND":
                self._receive_file(path.rpartition(",")[0])
            else:
                raise ValueError(f"no request {name!r} here")

    def _receive_file(self, there: str) -> None:
        device, data = self._line.device, b""
        while True:
            name, length = struct.unpack("<4sI", self._read(8))
            if name == b"DONE":
                break
            data += self._read(length)
        if device.free_bytes is not None and len(data) > device.free_bytes:
            reason = f"couldn't write: {os.strerror(errno.ENOSPC)}".encode()
            self._write(b"FAIL" + struct.pack("<I", len(reason)) + reason)
            return
        Path(device.here(there)).write_bytes(data)
        device.copied.append(there)
        self._write(b"OKAY" + bytes(4))
