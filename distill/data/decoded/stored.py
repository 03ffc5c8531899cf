"""Images in a .npy file, of which the ones that are asked for are read into memory: `open_stored`.

A memory map alone would do, but every page of it that was ever touched counts as memory of the process until the system
takes it back, and around an image that is read at random the system may map 2 MB.
"""

from __future__ import annotations

import math
import os
import weakref
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.records import InputError

# Bytes of one read: Linux reads at most 2 GiB at a time.
_READ_BYTES = 2**30
# A slice that is larger is a view of the map: who asks for so much does not want all of it in memory.
_SLICE_BYTES = 2**30


class StoredImages(np.memmap[Any, np.dtype[np.uint8]]):
    """Images uint8 `(n, h, w, c)` of a file: a read-only memory map, but for single images.

    `images[3]`, `images[10:20]`, `images[[5, 2]]` and `images[mask]` are arrays in memory, read from the file. All else
    (`images[:, 0]`, `images.mean()`) works on the map.
    """

    _file: int | None = None  # its descriptor; None: an array that was made of such images
    _places: NDArray[np.intp]  # 0 to n - 1: NumPy's own rules say what an index means

    def __getitem__(self, index: Any) -> Any:
        one = isinstance(index, int | np.integer) and not isinstance(index, bool)
        some = isinstance(index, list | np.ndarray) and np.ndim(index) == 1
        if self._file is not None and (one or some or isinstance(index, slice)):
            places = self._places[index]
            row_bytes = math.prod(self.shape[1:])
            if not isinstance(index, slice) or places.size * row_bytes <= _SLICE_BYTES:
                return self._read(places.reshape(-1), row_bytes).reshape((*places.shape, *self.shape[1:]))
        return self.view(np.memmap)[index]

    def __array_wrap__(self, array: Any, *_: Any) -> Any:
        return np.asarray(array)[()]

    def _read(self, places: NDArray[np.intp], row_bytes: int) -> NDArray[np.uint8]:
        """Read images from the file, neighbours at once."""
        assert self._file is not None
        found = np.empty((len(places), *self.shape[1:]), dtype=np.uint8)
        room = found.reshape(-1).data
        starts = (np.flatnonzero(np.diff(places) != 1) + 1).tolist()
        for start, stop in pairwise([0, *starts, len(places)] if len(places) else []):
            self._fill(room[start * row_bytes : stop * row_bytes], self.offset + int(places[start]) * row_bytes)
        return found

    def _fill(self, room: memoryview, place: int) -> None:
        assert self._file is not None
        while room:
            num = os.preadv(self._file, [room[:_READ_BYTES]], place)
            if not num:
                raise InputError(f"{self.filename} ends before its last image: remove it, and it is made again")
            room, place = room[num:], place + num


def open_stored(path: Path) -> StoredImages:
    """Open the images of a .npy file. Raises ValueError where it holds no images, or other bytes than its head says."""
    images: StoredImages = np.load(path, mmap_mode="r", allow_pickle=False).view(StoredImages)
    if images.dtype != np.uint8 or images.ndim != 4 or not images.flags.c_contiguous:
        raise ValueError(f"it holds {images.dtype} {images.shape}, not images")
    images._places = np.arange(len(images))
    images._file = os.open(path, os.O_RDONLY)
    weakref.finalize(images, os.close, images._file).atexit = False
    return images
