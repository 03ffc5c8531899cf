"""Paths that may lead into a container: `images.zip/normal/1.png`, `shard.tar/0001.jpg`, `train.parquet/img/17`.

These functions take the place of `Path`'s own wherever data sets look for files: a zip or tar counts as a folder, and
a path below it as what it holds.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path

from tutelage.records import InputError

from .packed import SUFFIXES, TABLES, is_archive, members_of
from .rows import SUFFIX as PARQUET
from .rows import rows_of

# Where a path may enter a container; `x.csv.zip` is a table, no archive of files.
_SUFFIXES = (*SUFFIXES, PARQUET)
_CONTAINERS = re.compile("(" + "|".join(re.escape(suffix) for suffix in _SUFFIXES) + ")(?=/|$)", re.IGNORECASE)

Identity = tuple[int, int, str]


def container_of(path: Path) -> tuple[Path, str] | None:
    """Give the container that a path is or leads into, and the name inside ("" for itself); None without one."""
    text = os.fspath(path)
    if not any(map(text.lower().__contains__, _SUFFIXES)):  # a listing asks for 100,000 paths, several times
        return None
    for found in _CONTAINERS.finditer(text):
        above, inner = text[: found.end()], text[found.end() + 1 :]
        if (
            (inner or not above.lower().endswith(PARQUET))
            and not above.lower().endswith(TABLES)
            and os.path.isfile(above)
        ):
            return Path(above), inner
    return None


def is_file(path: Path) -> bool:
    """Tell whether a file is there, in the file system or in a container; a name that no file can have is not."""
    found = container_of(path)
    if found is None or not found[1]:
        return os.path.isfile(path)  # Path's own raises for 5,000 characters
    file, inner = found
    return inner in members_of(file).sizes if is_archive(file) else True


def is_dir(path: Path) -> bool:
    """Tell whether a folder is there; a zip or tar is one."""
    found = container_of(path)
    if found is None:
        return path.is_dir()
    return is_archive(found[0]) and found[1] in members_of(found[0]).folders


def children(path: Path) -> list[Path]:
    """List what a folder holds, sorted."""
    found = container_of(path)
    if found is None:
        return sorted(path.iterdir(), key=attrgetter("name"))
    folders, files = members_of(found[0]).folders[found[1]]
    return sorted(path / name for name in (*folders, *files))


def tree(root: Path, refuse: Callable[[OSError], None]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk a folder as `os.walk` does, links followed; of an archive in the same way."""
    found = container_of(root)
    if found is None:
        yield from os.walk(root, followlinks=True, onerror=refuse)
        return
    folders, files = members_of(found[0]).folders.get(found[1], ([], []))
    remaining = list(folders)
    yield str(root), remaining, list(files)
    for name in remaining:
        yield from tree(root / name, refuse)


def glob(root: Path, pattern: str) -> list[Path]:
    """Find what matches a pattern without `**` below a folder, sorted; archives on the way count as folders."""
    places = [root]
    for part in pattern.split("/"):
        found = (one for place in places if is_dir(place) for one in children(place))
        places = [one for one in found if fnmatch.fnmatchcase(one.name, part)]
    return sorted(places)


def read_bytes(path: Path) -> bytes:
    """Read a file; InputError where it is not there, no regular file, damaged or of no byte."""
    found = container_of(path)
    if found is not None and found[1]:
        content = _read_inside(path, *found)
    else:
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise InputError(f"{path} is no regular file (a folder, pipe or device)")
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    if not content:
        raise InputError(f"{path} is empty (0 bytes)")
    return content


def _read_inside(path: Path, file: Path, inner: str) -> bytes:
    if is_archive(file):
        members = members_of(file)
        if inner not in members.sizes:
            raise InputError(f"cannot read {path}: no such file in {file.name}")
        return members.read(inner)
    column, _, row = inner.rpartition("/")
    content = rows_of(file, column).read(int(row))
    if content is None:
        raise InputError(f"{path} holds no image (null)")
    return content


def read_start(path: Path, most: int) -> bytes:
    """Read the first bytes of a file; none where it cannot be read or is a pipe, which would be waited for."""
    found = container_of(path)
    try:
        if found is not None and found[1]:
            if is_archive(found[0]):
                return members_of(found[0]).read(found[1], most)
            return _read_inside(path, *found)[:most]
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(most)
    except (OSError, InputError):
        return b""


def state_of(path: Path) -> tuple[int, int]:
    """Give the size in bytes and the time of change (ns) of a file, or of the container that holds it."""
    found = container_of(path)
    state = (path if found is None else found[0]).stat()
    return state.st_size, state.st_mtime_ns


def identity(folder: Path) -> Identity:
    """Tell one folder from another, however a path leads to it: device, number, name inside a container."""
    found = container_of(folder)
    state = (folder if found is None else found[0]).stat()
    return state.st_dev, state.st_ino, "" if found is None else found[1]


def folder_at(path: Path) -> Path | None:
    """Give the folder of a path, or the archive that stands for it: `0.zip` for `0/`, its top or its folder `0`."""
    if is_dir(path):
        return path
    for suffix in SUFFIXES:
        archive = path.with_name(path.name + suffix)
        if path.name and archive.is_file():
            inner = archive / path.name
            return inner if is_dir(inner) else archive
    return None


def top_of(path: Path, named: Callable[[str], bool]) -> Path:
    """Give the folder of an archive that holds the data: below folders that stand alone and are not `named`."""
    while container_of(path) is not None and is_dir(path):
        below = [one for one in children(path) if not one.name.startswith((".", "__"))]
        if len(below) != 1 or not is_dir(below[0]) or named(below[0].name):
            return path
        path = below[0]
    return path
