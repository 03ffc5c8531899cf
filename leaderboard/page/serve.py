"""Serve the page on this machine, read-only, and let it refresh itself while a run goes on (`make_server`).

The server on 127.0.0.1 knows three names and no files: `/`, `/version`, `/rows.csv`. It opens the store for reading.
The page is made once for each state of the store. That of a large board, which takes seconds, is made before the server
answers and then beside it: readers get the page of before until the new one is there.
"""

from __future__ import annotations

import logging
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tutelage.leaderboard.export import pieces
from tutelage.leaderboard.store import Store
from tutelage.leaderboard.store.page import MOST_ROWS
from tutelage.leaderboard.store.ranking import export_parts
from tutelage.records import InputError

from .build import page_text
from .choose import chosen
from .verdicts import Decide, decide, decided_ids

log = logging.getLogger(__name__)

LOCAL = "127.0.0.1"
_LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")


def make_server(
    place: str | Path,
    *,
    port: int = 0,
    title: str = "Tutelage leaderboard",
    decide: Decide = decide,
    limit: int = MOST_ROWS,
) -> ThreadingHTTPServer:
    """Bind to a port of 127.0.0.1 (0: any free one); the caller runs `serve_forever()` and `server_close()`.

    decide: gives the verdicts that each page shows; by default without paired tests. limit: rows of the page.
    """
    store = Store(place, read_only=True)
    pages = _Pages(store, title, decide, limit)

    class Handler(_Handler):
        pass

    Handler.store, Handler.pages = store, pages
    try:
        server = ThreadingHTTPServer((LOCAL, port), Handler)
    except OSError as error:
        raise InputError(f"port {port} of {LOCAL} cannot be used ({error.strerror}): choose another --port") from error
    try:
        pages.current()
    except BaseException:
        server.server_close()
        raise
    return server


class _Pages:
    """The page of the newest state of a store that it was made for."""

    def __init__(self, store: Store, title: str, decide: Decide, limit: int) -> None:
        self._store, self._title, self._decide, self._limit = store, title, decide, limit
        self._lock = threading.Lock()
        self._made = ("", "")
        self._making: threading.Thread | None = None

    def current(self) -> tuple[str, str]:
        """Give the version and the text of the page: of a large board the one of before, until the new one is made."""
        with self._lock:
            version = f"rows-{self._store.version()}"  # rows are only ever added, newer ones of the same id, too
            if version == self._made[0]:
                return self._made
            if not self._made[0] or self._store.count() <= self._limit:
                self._made = self._make(version)
            elif self._making is None or not self._making.is_alive():
                self._making = threading.Thread(target=self._make_beside, args=(version,), daemon=True)
                self._making.start()
            return self._made

    def _make_beside(self, version: str) -> None:
        try:
            made = self._make(version)
        except InputError as error:
            log.warning("%s", error)
            return
        with self._lock:
            self._made = made

    def _make(self, version: str) -> tuple[str, str]:
        # The version is older than the reading: a row that comes in meanwhile makes the page load once more.
        shown = chosen(self._store, limit=self._limit)
        verdicts = self._decide(self._store.rows(ids=decided_ids(shown.rows)))
        return version, page_text(
            shown.rows, self._title, live=version, details=self._store.details, verdicts=verdicts, note=shown.note
        )


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD. A path is looked up among three names and never reaches the disk."""

    store: Store
    pages: _Pages
    server_version = "tutelage"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        # Another site's page may point a name of its own at 127.0.0.1 (DNS rebinding): only our names are answered.
        name = self.headers.get("Host", "").rsplit(":", 1)[0]
        if name not in _LOCAL_NAMES:
            self._send(HTTPStatus.FORBIDDEN, "text/plain", "this server answers on 127.0.0.1 alone\n", with_body)
            return
        path = urlsplit(self.path).path
        try:
            if path in ("/", "/index.html"):
                self._send(HTTPStatus.OK, "text/html", self.pages.current()[1], with_body)
            elif path == "/version":
                self._send(HTTPStatus.OK, "text/plain", self.pages.current()[0], with_body)
            elif path == "/rows.csv":
                texts = pieces(export_parts(self.store), "csv")
                self._head(HTTPStatus.OK, "text/csv")
                for text in texts if with_body else ():
                    self.wfile.write(text.encode())
            else:
                self._send(HTTPStatus.NOT_FOUND, "text/plain", "there is / and /rows.csv\n", with_body)
        except InputError as error:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", f"{error}\n", with_body)

    def _send(self, status: HTTPStatus, kind: str, text: str, with_body: bool) -> None:
        body = text.encode()
        self._head(status, kind, len(body))
        if with_body:
            self.wfile.write(body)

    def _head(self, status: HTTPStatus, kind: str, size: int | None = None) -> None:
        """Send the head; without a size the end of the connection is the end of the text."""
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        if size is not None:
            self.send_header("Content-Length", str(size))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        log.debug("%s %s", self.address_string(), format % arguments)
