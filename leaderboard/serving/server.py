"""Serve the page, read-only, and let it refresh itself while a run goes on (`make_server`).

The server knows a few names, and the files of rows that `find` gives (`handler.py`, `downloads.py`). It opens the store
for reading. The page is made once for each state of the store. That of a large board, which takes seconds, is made
before the server answers and then beside it: readers get the page of before until the new one is there. On any address
but this machine's it asks who reads (`access.py`), and it bounds what one client may take (`limits.py`).
"""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
from collections.abc import Callable, Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tutelage.leaderboard.page.bodies import Details
from tutelage.leaderboard.page.verdicts import Decide, decide
from tutelage.leaderboard.store import Store
from tutelage.leaderboard.store.page import MOST_ROWS
from tutelage.records import InputError

from .access import LOOPBACK, Access, Gate
from .connection import TooLargeError
from .downloads import Find, Make, nothing
from .events import Events
from .handler import Board, Handler
from .limits import Limits, Rate, Room, client_of
from .pages import Pages

log = logging.getLogger(__name__)

LOCAL = "127.0.0.1"


def make_server(
    place: str | Path,
    *,
    host: str = LOCAL,
    port: int = 0,
    access: Access | None = None,
    limits: Limits | None = None,
    title: str = "Tutelage leaderboard",
    decide: Decide = decide,
    limit: int = MOST_ROWS,
    state: Callable[[], Mapping[str, Any]] = dict,
    detailed: Callable[[Details], Details] = lambda details: details,
    find: Find = nothing,
    make: Make | None = None,
) -> ThreadingHTTPServer:
    """Bind to a port (0: any free one); the caller runs `serve_forever()` and `server_close()`.

    access: who may read; by default whoever is on this machine, and InputError for a host that others reach. decide:
    gives the verdicts that each page shows; by default without paired tests. limit: rows of the page. state: says
    what a run is doing (`live.state_of`), under `learning` the epochs of its trainings; empty where none is.
    detailed: adds to the details that a store gives what pages of rows show of artifacts.
    find: gives the files of rows. make: makes a bundle that it does not have; None: the server makes nothing.
    """
    access, limits = access or Access(), limits or Limits()
    access.check(host)
    store = Store(place, read_only=True)
    pages = Pages(store, title, decide, limit, detailed(store.details))
    board = Board(
        store=store,
        pages=pages,
        events=Events(lambda: pages.current()[0], state),
        gate=Gate(access),
        limits=limits,
        requests=Rate(limits.requests_a_minute),
        failures=Rate(limits.failures_a_minute),
        exports=Room(limits.exports, limits.exports),
        followers=Room(limits.followers, limits.followers_each),
        downloads=Room(limits.downloads, limits.downloads_each),
        find=find,
        make=make,
    )
    try:
        server = _Server(board, host, port)
    except OSError as error:
        raise InputError(_unusable(host, port, error)) from error
    try:
        board.pages.current()
    except BaseException:
        server.server_close()
        raise
    return server


def _unusable(host: str, port: int, error: OSError) -> str:
    reason = error.strerror or str(error)
    if isinstance(error, socket.gaierror) or (host not in LOOPBACK and "assign" in reason.lower()):
        return f"--host {host} is no address of this machine ({reason}): 0.0.0.0 is all of them"
    return f"port {port} of {host} cannot be used ({reason}): choose another --port"


class _Server(ThreadingHTTPServer):
    """One thread a connection, and so many at most; a client that gets none is answered 503 at once."""

    request_queue_size = 64

    def __init__(self, board: Board, host: str, port: int) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        self._gate, self._limits = board.gate, board.limits
        self._room = Room(board.limits.connections, board.limits.connections_each)

        class Bound(Handler):
            pass

        Bound.board = board
        super().__init__((host, port), Bound)
        board.gate.cookie += f"_{self.server_port}"

    def server_bind(self) -> None:
        # http.server's asks a name server for the name of the address, and nothing needs it.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, or with 503 where the limit of connections is reached."""
        most = self._limits.connections if self._gate.is_proxy(client_address[0]) else None
        if not self._room.enter(client_of(client_address[0]), most_each=most):
            with contextlib.suppress(OSError):
                request.setblocking(False)
                request.send(b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 10\r\nContent-Length: 0\r\n\r\n")
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._room.leave(client_of(client_address[0]))
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.leave(client_of(client_address[0]))

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError | TooLargeError):  # the client went away, or was disconnected
            log.debug("%s: %s", client_address[0], error)
        else:
            log.error("a request of %s failed", client_address[0], exc_info=True)
