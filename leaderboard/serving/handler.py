"""Answer the requests of a served leaderboard (`Handler`): a path is looked up among a few names, never on the disk."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import socket
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from tutelage.leaderboard.export import pieces
from tutelage.leaderboard.store import Store
from tutelage.leaderboard.store.ranking import export_parts
from tutelage.records import InputError

from .access import LOOPBACK, Gate
from .connection import Incoming, Outgoing, TooLargeError
from .downloads import AbsentError, BusyError, Download, Find, Make, Wanted, figures_csv, wanted
from .events import Events
from .limits import Limits, Rate, Room, client_of
from .login import login_page, login_policy
from .pages import Pages

log = logging.getLogger(__name__)

# A client that was refused may send so much more, in pieces that come within so many seconds.
_DRAIN_PARTS, _DRAIN_SECONDS = 8, 0.5
_LOCAL_NAMES = (*LOOPBACK, "[::1]")
# What is read by GET. ROW is the whole id of a row; the page of a row is /#row=ROW, which no server sees.
ADDRESSES = (
    *("/", "/#row=ROW", "/rows.csv", "/rows/ROW/figures.csv", "/rows/ROW/model", "/rows/ROW/bundle"),
    *("/version", "/events"),
)
# Read of a file at once.
_FILE_BYTES = 1 << 18


@dataclass(frozen=True)
class Board:
    """What the handlers of all connections share."""

    store: Store
    pages: Pages
    events: Events
    gate: Gate
    limits: Limits
    requests: Rate
    failures: Rate
    exports: Room
    followers: Room
    downloads: Room
    find: Find
    make: Make | None


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of four names and of files of rows, and POST of `/login`; one request a connection."""

    board: Board
    wfile: Outgoing
    server_version = "tutelage"
    sys_version = ""
    default_request_version = "HTTP/1.0"  # an answer without its head is read as anything
    # What an answer needs to know of a request that could not be read.
    command, path, requestline, request_version = "", "", "", "HTTP/1.0"

    def setup(self) -> None:
        self.connection = self.request
        self.rfile = io.BufferedReader(Incoming(self.connection, self.board.limits))
        self.wfile = Outgoing(self.connection, self.board.limits)

    def handle(self) -> None:
        try:
            self.handle_one_request()
        except TooLargeError:
            self._say(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request is too large")
        self._drain()

    def _drain(self) -> None:
        """Read a little of what the client still sends: closed with bytes unread, a connection loses its answer."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_DRAIN_SECONDS)
            for _ in range(_DRAIN_PARTS):
                if not self.connection.recv(65_536):
                    break

    def do_GET(self) -> None:
        self._guarded()

    def do_HEAD(self) -> None:
        self._guarded()

    def do_POST(self) -> None:
        if self._is_named() and self._is_in_time():
            self._log_in()

    def _guarded(self) -> None:
        """Answer a client that may read and does not ask too often."""
        if not (self._is_named() and self._is_in_time()):
            return
        user = self._user()
        if user is None:
            return
        peer = self.client_address[0]
        if self.board.gate.is_proxy(peer) and not self._is_spent(f"user {user}"):
            return
        try:
            self._answer(self._asked)
        except InputError as error:
            log.warning("%s", error)  # it may name the server of the database: not the client's to know
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, "the leaderboard cannot be read now: see the server's messages")

    @property
    def _asked(self) -> str:
        """Give the path that is asked for, without its query; empty for an address that is none (`http://[`)."""
        try:
            return urlsplit(self.path).path
        except ValueError:
            return ""

    def _answer(self, path: str) -> None:
        if path in ("/", "/index.html"):
            self._send(HTTPStatus.OK, "text/html", self.board.pages.current()[1])
        elif path == "/version":
            self._send(HTTPStatus.OK, "text/plain", self.board.pages.current()[0])
        elif path == "/events":
            self._follow()
        elif path == "/rows.csv":
            self._export()
        elif (asked := wanted(path)) is not None:
            self._download(asked)
        else:
            self._say(HTTPStatus.NOT_FOUND, f"there is no such address; there are {', '.join(ADDRESSES)}")

    def _export(self) -> None:
        """Send all rows, some at a time; the end of the connection is the end of the text."""
        if self.command == "HEAD":
            self._head(HTTPStatus.OK, "text/csv")
            return
        if not self.board.exports.enter(""):
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, "others are exporting: try again", wait=10)
            return
        try:
            texts = pieces(export_parts(self.board.store, format="csv"), "csv")
            self._head(HTTPStatus.OK, "text/csv")
            for text in texts:
                self.wfile.write(text.encode())
        finally:
            self.board.exports.leave("")

    def _download(self, asked: Wanted) -> None:
        """Send a file of a row as it is read; a reader who asks for a part of it gets the whole."""
        client = client_of(self.client_address[0])
        if not self.board.downloads.enter(client, most_each=self._most_each(self.board.limits.downloads)):
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, "others are downloading: try again", wait=10)
            return
        try:
            if asked.what == "figures.csv":
                name, text = figures_csv(self.board.store, asked.row_id)
                self._send(HTTPStatus.OK, "text/csv", text, _as_file(name))
                return
            found = self._found(asked)
            with found.content:
                self._head(HTTPStatus.OK, found.kind, found.size, _as_file(found.name))
                while self.command != "HEAD" and (some := found.content.read(_FILE_BYTES)):
                    self.wfile.write(some)
        except AbsentError as error:
            self._say(HTTPStatus.NOT_FOUND, str(error))
        except BusyError as error:
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, str(error), wait=30)
        finally:
            self.board.downloads.leave(client)

    def _found(self, asked: Wanted) -> Download:
        """Find a file of a row; a bundle that is not here is made where the server does that."""
        try:
            return self.board.find(*asked)
        except AbsentError:
            if self.board.make is None or asked.what != "bundle" or self.command == "HEAD":
                raise
        self.board.make(asked.row_id)
        return self.board.find(*asked)

    def _most_each(self, all_of_them: int) -> int | None:
        """Let a proxy's address, which is that of many users, take all; of others None, the room's own bound."""
        return all_of_them if self.board.gate.is_proxy(self.client_address[0]) else None

    def _follow(self) -> None:
        """Send what changes while the client listens; a client that does not read it is disconnected."""
        client = client_of(self.client_address[0])
        if not self.board.followers.enter(client, most_each=self._most_each(self.board.limits.followers)):
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, "too many pages follow the board: load this one again", wait=30)
            return
        try:
            self._head(HTTPStatus.OK, "text/event-stream")
            for text in self.board.events.follow() if self.command != "HEAD" else ():
                self.wfile.restart()
                self.wfile.write(text.encode())
        finally:
            self.board.followers.leave(client)

    def _is_named(self) -> bool:
        """Refuse the page of another site that points a name of its own at 127.0.0.1 (DNS rebinding)."""
        name = self.headers.get("Host", "").rsplit(":", 1)[0]
        if not self.board.gate.access.is_open or name in _LOCAL_NAMES:
            return True
        self._say(HTTPStatus.FORBIDDEN, "this server answers on 127.0.0.1 alone")
        return False

    def _is_in_time(self) -> bool:
        peer = self.client_address[0]
        return self.board.gate.is_proxy(peer) or self._is_spent(client_of(peer))

    def _is_spent(self, client: str) -> bool:
        """Count a request; say False, and answer, where this client asked too often."""
        if wait := self.board.requests.spend(client):
            self._say(HTTPStatus.TOO_MANY_REQUESTS, "too many requests", wait=wait)
        return not wait

    def _user(self) -> str | None:
        """Give who asks; None, and an answer, where nobody says so."""
        board, peer = self.board, self.client_address[0]
        is_guess = board.gate.access.token != "" and "Authorization" in self.headers
        if is_guess and (wait := board.failures.wait(client_of(peer))):
            self._say(HTTPStatus.TOO_MANY_REQUESTS, "too many wrong tokens", wait=wait)
            return None
        user = board.gate.user(self.headers, peer)
        if user is None and is_guess:
            board.failures.spend(client_of(peer))
        if user is None:
            self._ask_for_token("")
        return user

    def _log_in(self) -> None:
        """Exchange the token of the form for a session's cookie."""
        board, peer = self.board, client_of(self.client_address[0])
        if self._asked != "/login" or not board.gate.access.token:
            self._say(HTTPStatus.NOT_IMPLEMENTED, "this server only reads")
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()) or "Transfer-Encoding" in self.headers:
            self._say(HTTPStatus.LENGTH_REQUIRED, "a login says how long it is")
            return
        if len(length) > 9 or int(length) > board.limits.body_bytes:
            self._say(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a login is not that long")
            return
        if wait := board.failures.wait(peer):
            self._ask_for_token(f"Too many wrong tokens: wait {math.ceil(wait)} seconds.", wait)
            return
        body = self.rfile.read(int(length)).decode("utf-8", "replace")
        given = parse_qs(body, max_num_fields=4).get("token", [""])[0].strip() if body.count("&") < 4 else ""
        if not board.gate.is_token(given):
            board.failures.spend(peer)
            self._ask_for_token("That is not the token.")
            return
        secure = "; Secure" if self.headers.get("X-Forwarded-Proto", "") == "https" else ""
        cookie = f"{board.gate.cookie}={board.gate.session()}; Path=/; HttpOnly; SameSite=Strict{secure}"
        self._head(HTTPStatus.SEE_OTHER, "text/plain", 0, {"Location": "/", "Set-Cookie": cookie})

    def _ask_for_token(self, problem: str, wait: float = 0) -> None:
        status = HTTPStatus.TOO_MANY_REQUESTS if wait else HTTPStatus.UNAUTHORIZED
        more = {"WWW-Authenticate": 'Bearer realm="tutelage"'} | ({"Retry-After": str(math.ceil(wait))} if wait else {})
        is_page = self._asked in ("/", "/index.html", "/login")
        if self.board.gate.access.token and is_page:
            more["Content-Security-Policy"] = login_policy()
            self._send(status, "text/html", login_page(problem), more)
        else:
            said = "the token" if self.board.gate.access.token else "the proxy's header"
            self._send(status, "text/plain", f"{said} is missing or wrong\n", more)

    def _say(self, status: HTTPStatus, text: str, wait: float = 0) -> None:
        self._send(status, "text/plain", f"{text}\n", {"Retry-After": str(math.ceil(wait))} if wait else {})

    def _send(self, status: HTTPStatus, kind: str, text: str | bytes, more: dict[str, str] | None = None) -> None:
        body = text if isinstance(text, bytes) else text.encode()
        self._head(status, kind, len(body), more)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: HTTPStatus, kind: str, size: int | None = None, more: dict[str, str] | None = None) -> None:
        """Send the head; without a size the end of the connection is the end of the text."""
        self.send_response(status)
        charset = "; charset=utf-8" if kind.startswith("text/") else ""
        headers = {"Content-Type": kind + charset} | ({} if size is None else {"Content-Length": str(size)})
        headers |= {"Cache-Control": "no-store", "Connection": "close", "X-Content-Type-Options": "nosniff"}
        headers |= {"X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"}
        headers |= {"Cross-Origin-Resource-Policy": "same-origin", "Content-Security-Policy": "frame-ancestors 'none'"}
        for name, value in (headers | (more or {})).items():
            self.send_header(name, value)
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no request in plain text that repeats nothing of it."""
        self._say(HTTPStatus(code), HTTPStatus(code).phrase.lower())

    def log_message(self, format: str, *arguments: object) -> None:
        """Log the path alone: a query may hold what is nobody's to know."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        log.debug("%s %r %r %s", self.client_address[0], self.command, self._asked[:200], int(code))


def _as_file(name: str) -> dict[str, str]:
    """Say that a browser keeps an answer, under a name that `downloads.safe_name` made."""
    return {"Content-Disposition": f'attachment; filename="{name}"', "Accept-Ranges": "none"}
