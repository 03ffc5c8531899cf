"""What the readers of containers raise for a damaged file, as an InputError of one line (`guarded`)."""

from __future__ import annotations

import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from tutelage.records import InputError

_DAMAGE = (
    OSError, EOFError, ValueError, LookupError, RuntimeError, OverflowError, MemoryError, struct.error, zlib.error,
    zipfile.BadZipFile, tarfile.TarError,
)  # fmt: skip


@contextmanager
def guarded(what: str, *more: type[Exception]) -> Iterator[None]:
    """Turn what a reader raises for damage, and `more`, into an InputError: `what`, a colon and the reason."""
    caught: tuple[type[Exception], ...] = (*_DAMAGE, *more)
    try:
        yield
    except InputError:
        raise
    except caught as error:
        reason = str(getattr(error, "strerror", None) or error).splitlines() or [""]
        raise InputError(f"{what}: {reason[0] or type(error).__name__}") from None
