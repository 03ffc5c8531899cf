"""The address of a Ray cluster, of `--cluster` or RAY_ADDRESS.

`check_address` refuses one at which none can be, `join` joins the cluster there, and again where it was too busy.
"""

from __future__ import annotations

import logging
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tutelage.hub import first_line
from tutelage.records import InputError, NotAvailableError

_FORMS = "auto on a machine of it, HOST:6379, or ray://HOST:10001 from elsewhere"
_PATIENCE_S = 5.0
# A busy host may not start Ray's processes in the half minute that Ray waits for them.
STARTS = 3
# What Ray says of that: of this process's own start, and of the process that a head starts for each ray:// client,
# which may have died, or not have answered.
_TOO_SLOW = ("timed out", "initialization failure from server")

log = logging.getLogger(__name__)


def check_address(address: str, setting: str = "--cluster") -> None:
    """Refuse an address of no known form (InputError), and one at which nothing answers (NotAvailableError).

    Ray itself waits for minutes there.
    """
    if address == "auto":
        return
    found = re.fullmatch(r"(?:ray://)?(\[[0-9a-fA-F:]+\]|[\w.-]+):(\d{1,5})", address)
    if found is None or int(found[2]) > 65535:
        raise InputError(f"{setting} {address!r} is no address of a Ray cluster: give {_FORMS}")
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), timeout=_PATIENCE_S).close()
    except OSError as error:
        raise NotAvailableError(
            f"{setting} {address}: nothing answers there ({error.strerror or error}): start a cluster by "
            f"`ray start --head`, or give {_FORMS}"
        ) from None


def join(ray: Any, address: str, setting: str = "--cluster", **settings: Any) -> None:
    """Join a cluster, and again where it was too slow; raises what Ray raised at last, of no class of its own.

    settings: of `ray.init`. This process keeps its own way of ending.
    """
    for left in reversed(range(STARTS)):
        try:
            with signals_kept():
                ray.init(address=address, log_to_driver=False, logging_level="ERROR", **settings)
            return
        except Exception as error:
            ray.shutdown()
            if not left or not was_too_slow(error):
                raise
            log.warning("%s %s: %s; tried again", setting, address, first_line(error))


def was_too_slow(error: BaseException) -> bool:
    """Say whether Ray failed because something took too long to start: it raises no class of its own for that."""
    return any(words in str(error).lower() for words in _TOO_SLOW)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Keep this process's own way of ending: Ray puts its handler in the place of ours."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
