"""Keep the memory of freed tensors in the process while a network trains or is evaluated: `keep_freed_memory`.

glibc gives every large block back to the kernel when it is freed, and the next tensor of the same size pays for the
page faults again. On virtual machines the faults cost several times what a ReLU over the tensor does.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# Parameters of mallopt(3), from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_KEPT = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 * 2**20, _MMAP_MAX: 0}
# Where glibc's own rule ends once a block of 32 MiB was freed; the number of mmapped blocks is its default.
_GIVEN_BACK = {_TRIM_THRESHOLD: 64 * 2**20, _TOP_PAD: 128 * 2**10, _MMAP_MAX: 65536}
_MMAP_THRESHOLD, _LARGEST_THRESHOLD = -3, 32 * 2**20

_lock = threading.Lock()
_users = 0


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Reuse freed memory inside instead of giving it back to the kernel; give it back at the end.

    The process holds what it needed at most until then. May be nested, and used in several threads: the last one out
    gives back. Changes nothing where the C library is not glibc, and less for blocks over 64 MiB of a thread other than
    the first, or of any thread in which an allocation has failed: glibc serves these from arenas of limited size.
    """
    global _users
    library = _glibc()
    if library is None:
        yield
        return
    with _lock:
        _users += 1
        _set(library, _KEPT)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _set(library, {**_GIVEN_BACK, _MMAP_THRESHOLD: _LARGEST_THRESHOLD})
                library.malloc_trim(0)


def _set(library: ctypes.CDLL, values: dict[int, int]) -> None:
    for parameter, value in values.items():
        library.mallopt(parameter, value)


@cache
def _glibc() -> ctypes.CDLL | None:
    """Give the C library of this process where it is glibc."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 (raises where it is another library)
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no library of the process
        return None
    return library
