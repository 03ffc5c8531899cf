"""Check files that a verb is to write before it does any work: a result must not take the place of what it reads."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tutelage.records import InputError


def check_output(
    path: Path,
    option: str,
    *,
    suffixes: Sequence[str] = (),
    apart_from: Mapping[str, Path] | None = None,
    makes_folder: bool = False,
) -> Path:
    """Give the path back; raise InputError where no file could be written there when the work is done.

    That is a folder, another ending, a place that cannot be written, and a file that is read or written too.
    apart_from: what must not be overwritten, by the name that the error calls it. makes_folder: who writes it makes its
    folder, else that must be there.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"{option} {str(path)!r}: name a file that ends in {' or '.join(suffixes)}")
    if path.is_dir():
        raise InputError(f"{option} {str(path)!r} is a folder: name a file in it")
    if path.parent.exists() and not path.parent.is_dir():
        raise InputError(f"{option} {str(path)!r}: {path.parent} is a file, not a folder")
    for name, other in (apart_from or {}).items():
        if _same(path, other):
            raise InputError(f"{option} {str(path)!r} is {name}, which would be overwritten: name another file")
    if not makes_folder and not path.parent.exists():
        raise InputError(f"{option} {str(path)!r}: there is no folder {path.parent}: make it, or name another file")
    if not path.exists() or path.is_file():  # /dev/stdout is written to as it is
        _check_writable(path.parent, f"{option} {str(path)!r}", "name a file elsewhere")
    return path


def check_free(path: Path, option: str, *, replace: bool) -> Path:
    """Give the path back; raise InputError where a file is there that is to be kept."""
    if path.exists() and not replace:
        raise InputError(f"{option} {str(path)!r} exists: give --force to replace it, or name another file")
    return path


def check_folder(path: Path, option: str) -> Path:
    """Give the path back; raise InputError where no folder could be made or filled there."""
    for part in (path, *path.parents):
        if part.exists() and not part.is_dir():
            raise InputError(f"{option} {str(path)!r}: {part} is a file, not a folder")
    _check_writable(path, f"{option} {str(path)!r}", "name a folder elsewhere")
    return path


def check_new_folder(path: Path, option: str) -> Path:
    """Give the path back; raise InputError unless it is an empty folder or can become one."""
    check_folder(path, option)
    if path.exists() and any(path.iterdir()):
        raise InputError(f"{option} {str(path)!r} is not empty: name a new folder")
    return path


def _check_writable(folder: Path, what: str, remedy: str) -> None:
    """Write and remove a file in the folder, or where it would be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{what}: {folder} cannot be written ({error.strerror}): {remedy}") from None


def _same(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return path.samefile(other)
    return path.absolute() == other.absolute()
