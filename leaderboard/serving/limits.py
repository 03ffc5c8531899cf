"""What one client may ask of the server (`Limits`), how often (`Rate`), and how many may ask at once (`Room`)."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

# Clients of which a rate remembers what they asked; the one that was silent longest is forgotten first.
_MOST_CLIENTS = 4_096


@dataclass(frozen=True)
class Limits:
    """Bounds on connections, sizes, times and rates; a client is an address, or a user whom a proxy names."""

    connections: int = 64  # at once, one thread each
    connections_each: int = 16  # of one address; a proxy's address has all of them
    head_bytes: int = 16_384  # of a request: its first line and its headers
    body_bytes: int = 4_096  # of the only request that has one, the login
    request_seconds: float = 10.0  # in which a request must have come whole, however its bytes trickle in
    answer_seconds: float = 30.0  # in which the beginning of an answer must be taken,
    bytes_a_second: int = 20_000  # and the speed at which the rest must be
    requests_a_minute: int = 300  # of one client, which may ask as many at once
    failures_a_minute: int = 6  # wrong tokens of one address
    exports: int = 2  # of all rows, at once
    downloads: int = 8  # of files of rows, at once
    downloads_each: int = 4  # of one address
    followers: int = 40  # readers whose page follows the board, at once; each takes one of the connections
    followers_each: int = 8  # of one address


class Rate:
    """At most so many events a minute of each client, as many at once (a token bucket)."""

    def __init__(self, a_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = float(a_minute), clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, client: str) -> float:
        """Give the seconds until this client may go on, 0 where it may now; nothing is counted."""
        with self._lock:
            return self._wait(self._now(client))

    def spend(self, client: str) -> float:
        """Count one event of a client and give 0, or the seconds until it may go on, without counting."""
        with self._lock:
            left = self._now(client)
            if not (wait := self._wait(left)):
                self._left[client] = (left - 1, self._clock())
                self._left.move_to_end(client)
                if len(self._left) > _MOST_CLIENTS:
                    self._left.popitem(last=False)
            return wait

    def _now(self, client: str) -> float:
        now = self._clock()
        left, since = self._left.get(client, (self._most, now))
        return min(self._most, left + (now - since) * self._most / 60)

    def _wait(self, left: float) -> float:
        return 0.0 if left >= 1 else (1 - left) * 60 / self._most


class Room:
    """At most so many at once, and so many of one client."""

    def __init__(self, most: int, most_each: int) -> None:
        self._most, self._most_each = most, most_each
        self._inside: Counter[str] = Counter()
        self._lock = threading.Lock()

    def enter(self, client: str, *, most_each: int | None = None) -> bool:
        """Let a client in, and say whether there was room; who was let in must `leave`."""
        with self._lock:
            most_each = self._most_each if most_each is None else most_each
            if self._inside.total() >= self._most or self._inside[client] >= most_each:
                return False
            self._inside[client] += 1
            return True

    def leave(self, client: str) -> None:
        with self._lock:
            self._inside[client] -= 1
            if not self._inside[client]:
                del self._inside[client]


def client_of(address: str) -> str:
    """Give the client that an address belongs to: of IPv6 the network of 64 bits, which is one subscriber's."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
    return str(parsed)
