"""Float arrays that lie in a file without a name: `in_file`, and `give_back` for whoever goes through one in order.

Pages of the file that were touched count as memory of the process until they are given back.
"""

from __future__ import annotations

import math
import mmap
import os
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

_maps: WeakValueDictionary[int, mmap.mmap] = WeakValueDictionary()  # by address
_lock = Lock()  # of _maps, which threads add to while others go through it


def in_file(shape: tuple[int, ...], folder: Path) -> NDArray[np.float32]:
    """Give room for float32 in a file of a folder, gone with the array. Raises OSError where the disk is full."""
    num_bytes = 4 * math.prod(shape)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, num_bytes)  # a disk that is full is noticed here
        mapped = mmap.mmap(file.fileno(), num_bytes)
    array = np.frombuffer(mapped, dtype=np.float32).reshape(shape)
    with _lock:
        _maps[array.ctypes.data] = mapped
    return array


def give_back(array: NDArray[Any]) -> None:
    """Give back the pages of the file that an array lies in: what was written is kept there and read again when needed.

    Of an array in memory nothing happens.
    """
    address = array.ctypes.data
    with _lock:
        known = list(_maps.items())
    for start, mapped in known:
        if start <= address < start + len(mapped) and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)
