"""Files that are whole or absent, whatever ends the process: written aside, synced to disk, then renamed.

`whole_file` is the one way to write a file that a later run reads; `sync_tree` makes a folder that others filled last.
This module imports nothing of the package, so that every package may use it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to instead; leaving the block syncs it and gives it its name, an error removes it.

    It has the same name in a folder of its own beside `path`: libraries read the format from the name, and what a kill
    leaves there is not listed among the files of a kind. Raises OSError.
    """
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        aside = Path(folder, path.name)
        yield aside
        sync(aside)
        aside.replace(path)
    sync(path.parent)  # the name, too, survives a power failure


def write_text(path: Path, text: str, *, newline: str | None = None) -> None:
    """Write UTF-8 text, whole or not at all."""
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8", newline=newline)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1))


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Sync every file and folder below `folder`, each folder after what it holds, and `folder` itself last.

    Links are not followed: their targets belong to others.
    """
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(root, name)
            if path.is_file() and not path.is_symlink():
                sync(path)
        sync(Path(root))
