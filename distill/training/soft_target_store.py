"""Store logits by (image, augmentation seed) in an append-only file that survives a killed process: `LogitStore`.

Keys are `(n, 2)` int64 and logits `(n, classes)` float32; every process reads the same bits, those that run now too.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from tutelage.files import write_json

logger = logging.getLogger(__name__)

# Records are indexed by a dict until there are this many, then by a sorted array, which is ten times smaller.
_MAX_FRESH = 65536


class LogitStore:
    """An append-only file of fixed-size records (image, seed, logits, checksum) and an index over it.

    A process that is killed leaves at most one torn record at the end: it is truncated under a lock before the next
    record is written. Several processes may append at once, and each finds what the others stored, so that none of them
    computes it again; a key stored twice has the same value.
    `inputs` is what the values depend on; a folder made with another `inputs` is rebuilt, and the log says so.
    """

    def __init__(self, folder: Path, inputs: dict[str, Any]) -> None:
        self.path = folder / "logits.bin"
        self._inputs = inputs
        self._kind: np.dtype[Any] | None = None
        self._mixed = np.empty(0, np.uint64)  # sorted
        self._records: np.ndarray = np.empty(0)
        self._fresh: dict[tuple[int, int], np.ndarray] = {}
        self._end = 0  # bytes of the file that the index covers
        folder.mkdir(parents=True, exist_ok=True)
        self._meta = folder / "meta.json"
        with self._deciding():
            if not self._meta.exists():
                self.path.unlink(missing_ok=True)  # records of unknown origin
                return
            stored = _read_meta(self._meta)
            if {key: stored.get(key) for key in inputs} != inputs:
                logger.warning("%s is a cache of another data set or version: rebuilt", folder)
                self.path.unlink(missing_ok=True)
                self._meta.unlink()
                return
        self._kind = _record(int(stored["classes"]))
        self._sort_in(self._read_on())

    def __len__(self) -> int:
        return len(self._mixed) + len(self._fresh)

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Say which `(n, 2)` keys are known, and give their values `(n, classes)` (anything where unknown).

        Where a key is unknown, what other processes stored since is read first.
        """
        found, values = self._find(keys)
        if found.all():
            return found, values
        records = self._read_on()
        if not len(records):
            return found, values
        self._remember(records["key"], records["logits"])
        return self._find(keys)

    def _find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = np.zeros(len(keys), bool)
        if self._kind is None:
            return found, np.zeros((len(keys), 0), np.float32)
        values = np.zeros((len(keys), *self._kind["logits"].shape), np.float32)
        if len(self._mixed):
            place = np.searchsorted(self._mixed, _mix(keys)).clip(max=len(self._mixed) - 1)
            # The real key is compared: two keys of one mixed value (odds 1e-6 in a million) cost a pass, not an error.
            records = self._records[place]
            found = (records["key"] == keys).all(1)
            values[found] = records["logits"][found]
        if self._fresh:
            for row in np.flatnonzero(~found):
                value = self._fresh.get((int(keys[row, 0]), int(keys[row, 1])))
                if value is not None:
                    found[row], values[row] = True, value
        return found, values

    def append(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Write records in one call under a lock, so that a reader sees whole ones only."""
        if self._kind is None:
            with self._deciding():
                if not self._meta.exists():
                    write_json(self._meta, {**self._inputs, "classes": values.shape[1]})
            self._kind = _record(values.shape[1])
        records = np.zeros(len(keys), self._kind)
        records["key"], records["logits"] = keys, values
        records["crc"] = _checksums(records)
        with self.path.open("ab") as file, _locked(file):
            size = os.fstat(file.fileno()).st_size
            torn = size % self._kind.itemsize
            if torn:
                file.truncate(size - torn)
            file.write(records.tobytes())
            file.flush()
        if size - torn == self._end:  # nobody else wrote in between
            self._end += records.nbytes
        self._remember(keys, values)

    def _remember(self, keys: np.ndarray, values: np.ndarray) -> None:
        self._fresh.update(zip(map(tuple, keys.tolist()), values, strict=True))
        if len(self._fresh) > _MAX_FRESH:
            self._sort_in(self._fresh_records())

    def _read_on(self) -> np.ndarray:
        """Give the whole records after those that the index covers, as this and other processes appended them."""
        if self._kind is None and self._meta.exists():
            self._kind = _record(int(_read_meta(self._meta)["classes"]))
        if self._kind is None or not self.path.exists():
            return np.empty(0, self._kind)
        with self.path.open("r+b") as file:
            if os.fstat(file.fileno()).st_size - self._end < self._kind.itemsize:
                return np.empty(0, self._kind)
            with _locked(file):  # nobody is in the middle of a record
                file.seek(self._end)
                records = np.fromfile(file, self._kind)
        self._end += records.nbytes
        good = records["crc"] == _checksums(records)
        if not good.all():
            logger.warning("%s: %d damaged records are computed again", self.path, int((~good).sum()))
        whole: np.ndarray = records[good]
        return whole

    @contextmanager
    def _deciding(self) -> Iterator[None]:
        """Keep other processes from deciding at the same time whether the folder's records are good."""
        with (self.path.parent / "lock").open("wb") as file, _locked(file):
            yield

    def _fresh_records(self) -> np.ndarray:
        assert self._kind is not None
        records = np.zeros(len(self._fresh), self._kind)
        records["key"], records["logits"] = list(self._fresh), list(self._fresh.values())
        return records

    def _sort_in(self, records: np.ndarray) -> None:
        both = np.concatenate([self._records, records]) if len(self._mixed) else records
        mixed, first = np.unique(_mix(both["key"]), return_index=True)
        self._mixed, self._records, self._fresh = mixed, both[first], {}


def _record(classes: int) -> np.dtype[Any]:
    return np.dtype([("key", "<i8", (2,)), ("logits", "<f4", (classes,)), ("crc", "<u4")])


def _checksums(records: np.ndarray) -> np.ndarray:
    body = np.frombuffer(records.tobytes(), np.uint8).reshape(len(records), records.itemsize)[:, :-4]
    return np.fromiter((zlib.crc32(row.tobytes()) for row in body), np.uint32, len(records))


def _mix(keys: np.ndarray) -> np.ndarray:
    """Mix two int64 into one uint64 (the finaliser of splitmix64 on each)."""
    mixed = np.zeros(len(keys), np.uint64)
    for column in range(2):
        x = (mixed ^ keys[:, column].astype(np.int64).view(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = x ^ (x >> np.uint64(31))
    return mixed


@contextmanager
def _locked(file: IO[bytes]) -> Iterator[None]:
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError):
        return {}
