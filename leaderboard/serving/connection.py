"""A client's connection within bounds: a request comes whole in time and size, an answer is taken at some speed.

`Incoming` and `Outgoing` take the place of the plain files of `http.server`, whose timeouts begin anew with every byte.
"""

from __future__ import annotations

import io
import socket
import time
from typing import Any

from .limits import Limits

_CHUNK = 65_536


class TooLargeError(Exception):
    """A request has more bytes than the server reads."""


class Incoming(io.RawIOBase):
    """The bytes of one request: TimeoutError after `request_seconds`, TooLargeError after its largest size."""

    def __init__(self, connection: socket.socket, limits: Limits) -> None:
        self._connection = connection
        self._left = limits.head_bytes + limits.body_bytes
        self._ends = time.monotonic() + limits.request_seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        seconds = self._ends - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the request did not come in time")
        if self._left <= 0:
            raise TooLargeError
        self._connection.settimeout(seconds)
        num = self._connection.recv_into(memoryview(buffer)[: self._left])
        self._left -= num
        return num


class Outgoing(io.BufferedIOBase):
    """The bytes of one answer: TimeoutError where the client takes them more slowly than the limits say."""

    def __init__(self, connection: socket.socket, limits: Limits) -> None:
        self._connection, self._limits = connection, limits
        self._sent = 0
        self._began: float | None = None  # making an answer is not the client's time

    def writable(self) -> bool:
        return True

    def restart(self) -> None:
        """Begin another part of a stream: what was waited for it is not the client's time."""
        self._began, self._sent = None, 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _CHUNK):
            part = view[start : start + _CHUNK]
            now = time.monotonic()
            self._began = now if self._began is None else self._began
            seconds = self._limits.answer_seconds + (self._sent + len(part)) / self._limits.bytes_a_second
            if (left := self._began + seconds - now) <= 0:
                raise TimeoutError("the answer was not taken in time")
            self._connection.settimeout(left)
            self._connection.sendall(part)
            self._sent += len(part)
        return len(view)
