"""Serve the page on this machine, read-only, and let it refresh itself while a run goes on (`make_server`).

The server on 127.0.0.1 knows three names and no files: `/`, `/version`, `/rows.csv`. It opens the store for reading.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tutelage.leaderboard.export import export
from tutelage.leaderboard.store import Store
from tutelage.records import InputError

from .build import page_text
from .data import page_columns
from .verdicts import Decide, decide, decided_ids

log = logging.getLogger(__name__)

LOCAL = "127.0.0.1"
_LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")


def make_server(
    place: str | Path, *, port: int = 0, title: str = "Tutelage leaderboard", decide: Decide = decide
) -> ThreadingHTTPServer:
    """Bind to a port of 127.0.0.1 (0: any free one); the caller runs `serve_forever()` and `server_close()`.

    decide: gives the verdicts that each page shows; by default without paired tests.
    """
    store = Store(place, read_only=True)

    class Handler(_Handler):
        pass

    Handler.store, Handler.title, Handler.decide = store, title, staticmethod(decide)
    try:
        return ThreadingHTTPServer((LOCAL, port), Handler)
    except OSError as error:
        raise InputError(f"port {port} of {LOCAL} cannot be used ({error.strerror}): choose another --port") from error


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD. A path is looked up among three names and never reaches the disk."""

    store: Store
    title: str
    decide: Decide
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
                # The version first: a row that comes in meanwhile makes the page load once more, not once too few.
                version = self._version()
                found = self.store.frame(columns=page_columns(), categories=True)
                verdicts = self.decide(self.store.rows(ids=decided_ids(found)))
                page = page_text(found, self.title, live=version, details=self.store.details, verdicts=verdicts)
                self._send(HTTPStatus.OK, "text/html", page, with_body)
            elif path == "/version":
                self._send(HTTPStatus.OK, "text/plain", self._version(), with_body)
            elif path == "/rows.csv":
                self._send(HTTPStatus.OK, "text/csv", export(self.store.frame(), None, "csv"), with_body)
            else:
                self._send(HTTPStatus.NOT_FOUND, "text/plain", "there is / and /rows.csv\n", with_body)
        except InputError as error:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", f"{error}\n", with_body)

    def _version(self) -> str:
        """Name the state of an append-only store: rows are only ever added, newer ones of the same id, too."""
        return f"rows-{self.store.version()}"

    def _send(self, status: HTTPStatus, kind: str, text: str, with_body: bool) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        log.debug("%s %s", self.address_string(), format % arguments)
