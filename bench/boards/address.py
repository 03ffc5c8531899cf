"""The address of a Ray cluster, of `--cluster` or RAY_ADDRESS: `check_address` refuses one at which none can be."""

from __future__ import annotations

import re
import socket

from tutelage.records import InputError, NotAvailableError

_FORMS = "auto on a machine of it, HOST:6379, or ray://HOST:10001 from elsewhere"
_PATIENCE_S = 5.0


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
