"""Who may read a served leaderboard (`Access`), and how a request shows that it may (`Gate`).

On 127.0.0.1 everybody on the machine may. On any other address a request carries the team's token, as
`Authorization: Bearer TOKEN` or by a form that gives a session cookie, or it comes from a proxy that has asked who the
user is and says so in a header. The token is in no page, address, log or cookie.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http.cookies import CookieError, SimpleCookie

from tutelage.records import InputError

from .limits import client_of

LOOPBACK = ("127.0.0.1", "::1", "localhost")
# Characters of a token: of 64 letters and signs, 22 are 128 bits.
LEAST_TOKEN, MOST_TOKEN = 22, 200
MAKE_TOKEN = 'python -c "import secrets; print(secrets.token_urlsafe(32))" > token.txt'
_SESSION_SECONDS = 12 * 3600
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
# A proxy's header must not be one that browsers or every client sends.
_COMMON_HEADERS = ("host", "cookie", "authorization", "user-agent", "accept", "connection", "origin", "referer")
_MOST_USER = 200


@dataclass(frozen=True)
class Access:
    """Nothing set: open to this machine. proxies: addresses whose `proxy_header` is believed."""

    token: str = ""
    proxy_header: str = ""
    proxies: tuple[str, ...] = ("127.0.0.1", "::1")

    @property
    def is_open(self) -> bool:
        return not self.token and not self.proxy_header

    def check(self, host: str) -> None:
        """Raise InputError for a token or header that guards nothing, and for a host that is open to a network."""
        if self.token and (problem := _token_problem(self.token)):  # the token itself stays out of the message
            raise InputError(f"the token {problem}: make one by {MAKE_TOKEN}")
        if self.proxy_header and (
            not _HEADER.fullmatch(self.proxy_header) or self.proxy_header.lower() in _COMMON_HEADERS
        ):
            raise InputError(f"--proxy-header {self.proxy_header!r} is no header that only a proxy sets: X-Remote-User")
        if host not in LOOPBACK and self.is_open:
            raise InputError(
                f"--host {host} opens the leaderboard to a network: give --token-file (or TUTELAGE_TOKEN), or the "
                f"--proxy-header of a proxy that asks users who they are; a token: {MAKE_TOKEN}"
            )


def _token_problem(token: str) -> str:
    if len(token) < LEAST_TOKEN:
        return f"has {len(token)} characters, fewer than {LEAST_TOKEN}"
    if len(token) > MOST_TOKEN:
        return f"has {len(token)} characters, more than {MOST_TOKEN}"
    if not (token.isascii() and token.isprintable()) or " " in token:
        return "is not one word of ASCII letters, digits and signs"
    return ""


class Gate:
    """Tells requests that may read from those that may not."""

    def __init__(self, access: Access, clock: Callable[[], float] = time.time) -> None:
        self.access = access
        self._clock = clock
        self._proxies = {client_of(one) for one in access.proxies}
        self._key = secrets.token_bytes(32)  # sessions end with the server
        self.cookie = "tutelage_session"  # the server adds its port: browsers send cookies to all ports of a host

    def is_proxy(self, peer: str) -> bool:
        """Say whether an address is a proxy's, whose many users share it."""
        return bool(self.access.proxy_header) and client_of(peer) in self._proxies

    def user(self, headers: Message, peer: str) -> str | None:
        """Give the user of a request: a name that a proxy gave, `token` or `session`; None: it may not read."""
        if self.access.is_open:
            return "local"
        if self.is_proxy(peer):
            named = headers.get_all(self.access.proxy_header) or []
            if len(named) == 1 and named[0].strip():  # of two, one is the client's
                return str(named[0]).strip()[:_MOST_USER]
        if self.access.token:
            scheme, _, given = (headers.get("Authorization") or "").partition(" ")
            if scheme.lower() == "bearer" and self.is_token(given.strip()):
                return "token"
            if self._is_session(headers.get("Cookie") or ""):
                return "session"
        return None

    def is_token(self, given: str) -> bool:
        """Compare with the token, in a time that does not depend on how much of it is right."""
        digests = [hashlib.sha256(one.encode("utf-8", "replace")).digest() for one in (given, self.access.token)]
        return bool(self.access.token) and hmac.compare_digest(*digests)

    def session(self) -> str:
        """Make the value of a new session's cookie: when it ends, signed; it says nothing of the token."""
        ends = str(int(self._clock()) + _SESSION_SECONDS)
        return f"{ends}.{self._signed(ends)}"

    def _signed(self, ends: str) -> str:
        return hmac.new(self._key, ends.encode(), hashlib.sha256).hexdigest()

    def _is_session(self, cookies: str) -> bool:
        try:
            found = SimpleCookie(cookies).get(self.cookie)
        except CookieError:
            return False
        ends, _, signature = ("" if found is None else found.value).partition(".")
        if not ends.isdecimal() or len(ends) > 12 or not ends.isascii():
            return False
        is_ours = hmac.compare_digest(signature.encode(), self._signed(ends).encode())
        return is_ours and int(ends) > self._clock()
