"""Read the binary column of a parquet file by row, forward and in blocks: the memory does not grow with the file.

A row group may hold a whole shard, so it is never read as one. Rows that are asked for nearly in order, by several
threads too, are each decoded once; a row before the last blocks starts its row group again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .damage import guarded

SUFFIX = ".parquet"

# A footer may claim any number of rows; the largest shards of public image data sets hold some 100,000.
MAX_ROWS = 10_000_000

_BLOCK_BYTES = 4 * 2**20  # of images, about, in one block
_MOST_BLOCK_ROWS = 1024
_KEPT_BLOCKS = 8
_OPEN_FILES = 4  # threads work in one shard, or in two at its end
_BUFFER_BYTES = 2**20


def open_parquet(file: Path) -> Any:
    """Open a parquet file (`pyarrow.parquet.ParquetFile`); InputError where it is damaged or none."""
    import pyarrow.parquet as parquet

    with guarded_parquet(file):
        opened = parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        if opened.metadata.num_rows > MAX_ROWS:
            raise ValueError(f"it claims {opened.metadata.num_rows} rows, and at most {MAX_ROWS} are read")
        return opened


def guarded_parquet(file: Path) -> AbstractContextManager[None]:
    """Turn what pyarrow raises for a damaged file into an InputError that names it."""
    from pyarrow.lib import ArrowException

    return guarded(f"{file} is damaged or not a parquet file", ArrowException, TypeError)


class Rows:
    """The values of one column, plain binary or the `bytes` of a struct, by row."""

    def __init__(self, file: Path, column: str) -> None:
        self.file, self.column = file, column
        self._opened = open_parquet(file)
        metadata = self._opened.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self.starts = np.cumsum([0, *sizes])
        image_bytes = metadata.serialized_size
        with guarded_parquet(file):
            image_bytes = sum(self._column_bytes(group) for group in range(metadata.num_row_groups))
        mean = max(1, image_bytes // max(1, metadata.num_rows))
        self.block_rows = int(min(_MOST_BLOCK_ROWS, max(1, _BLOCK_BYTES // mean)))
        self._blocks: OrderedDict[int, Any] = OrderedDict()  # by number within the file: of row group and place in it
        self._ahead: Iterator[tuple[int, Any]] | None = None
        self._next = (-1, -1)  # row group and block that `_ahead` gives next
        self._lock = threading.Lock()

    def _column_bytes(self, group: int) -> int:
        columns = self._opened.metadata.row_group(group)
        found = [columns.column(place) for place in range(columns.num_columns)]
        return sum(one.total_uncompressed_size for one in found if one.path_in_schema.split(".")[0] == self.column)

    def read(self, row: int) -> bytes | None:
        """Give one row's bytes, None where it is null."""
        group = int(np.searchsorted(self.starts, row, side="right")) - 1
        block, place = divmod(row - int(self.starts[group]), self.block_rows)
        with self._lock, guarded_parquet(self.file):
            values = self._block(group, block)
            value = values[place].as_py()
        return bytes(value) if value is not None else None

    def _block(self, group: int, block: int) -> Any:
        key = int(self.starts[group]) + block
        if key in self._blocks:
            return self._blocks[key]
        if self._ahead is None or self._next[0] != group or self._next[1] > block:
            batches = self._opened.iter_batches(self.block_rows, row_groups=[group], columns=[self._leaf()])
            self._ahead, self._next = enumerate(batches), (group, 0)
        for number, batch in self._ahead:
            self._next = (group, number + 1)
            if number >= block - _KEPT_BLOCKS:
                self._keep(int(self.starts[group]) + number, _binary(batch.column(0)))
            if number == block:
                return self._blocks[key]
        raise ValueError(f"row group {group} ends before block {block}")

    def _keep(self, key: int, values: Any) -> None:
        self._blocks[key] = values
        while len(self._blocks) > _KEPT_BLOCKS:
            self._blocks.popitem(last=False)

    def _leaf(self) -> str:
        """Name what is read: of a struct the bytes alone."""
        from pyarrow import types

        kind = self._opened.schema_arrow.field(self.column).type
        return f"{self.column}.bytes" if types.is_struct(kind) else self.column


def _binary(values: Any) -> Any:
    from pyarrow import types

    return values.field("bytes") if types.is_struct(values.type) else values


def rows_of(file: Path, column: str) -> Rows:
    """Give the reader of a column; it is kept while the file is as it is."""
    state = file.stat()
    return _opened_rows(str(file), column, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=_OPEN_FILES)
def _opened_rows(file: str, column: str, _size: int, _modified: int) -> Rows:
    return Rows(Path(file), column)
