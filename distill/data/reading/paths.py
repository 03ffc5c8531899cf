"""Find the files that a table lists: relative to it or to a root, absolute, of another system, without a suffix."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage.distill.data.containers.paths import folder_at, is_file

# Tried in this order where a table names files without one (`ISIC_0024306`, RSNA's ids).
_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".tif", ".tiff", ".bmp", ".webp", ".dicom", ".PNG", ".JPG", ".DCM")

# Rows that are tried before a table is taken to be of another place; the first may all be missing.
_TRIED = 50


@dataclass(frozen=True)
class _Shift:
    """How listed paths lie on this disk: below `base`, without their first `drop` folders."""

    base: Path
    drop: int

    def apply(self, parts: Sequence[str]) -> Path:
        return self.base.joinpath(*parts[min(self.drop, len(parts) - 1) :])


def resolve_paths(texts: Sequence[str], root: Path, *, look_above: bool) -> tuple[list[Path], tuple[str, ...]]:
    """Give the file of every listed path, there or not, and notes on how paths were read.

    A path is taken as it is (absolute, or relative to `root`). Where that names nothing, the table may come from
    another place: the path is read below `root` without its first folders (a moved data set, `D:\\data\\...`), or, with
    `look_above`, below one of the two folders above. A name without a suffix takes the one of the file that is there.
    The first of the listed paths that is found so decides for all.
    """
    parts = [_parts(text) for text in texts]
    paths = [_as_it_is(text, below, root) for text, below in zip(texts, parts, strict=True)]
    absent = [index for index, path in enumerate(paths) if not is_file(path)]
    if not absent:
        return paths, ()
    bases = [root, *list(root.resolve().parents)[:2]] if look_above else [root]
    shift = _find_shift([parts[index] for index in absent[:_TRIED]], bases)
    if shift is None:
        return paths, ()
    found: list[int] = []
    for index in absent:
        there = _there(shift.apply(parts[index]))
        if there is not None:
            paths[index] = there
            found.append(index)
    first = found[0]
    return paths, (f"{len(found)} listed paths are read elsewhere: {texts[first].strip()!r} as {paths[first]}",)


def _as_it_is(text: str, parts: Sequence[str], root: Path) -> Path:
    plain = text.strip()
    return root.joinpath(*parts) if "\\" in plain and not plain.startswith("/") else root / plain


def _parts(text: str) -> list[str]:
    """Split a path of any system into its folders and name, without drive and root."""
    plain = re.sub(r"^(file://|[A-Za-z]:)", "", text.strip().replace("\\", "/"))
    return [part for part in plain.split("/") if part not in ("", ".")] or [""]


def _find_shift(listed: Sequence[Sequence[str]], bases: Sequence[Path]) -> _Shift | None:
    """Find where a listed path lies: the nearest base and the fewest folders dropped."""
    for parts in listed:
        for base in bases:
            for drop in range(len(parts)):
                shift = _Shift(base, drop)
                if _there(shift.apply(parts)) is not None:
                    return shift
    return None


def _there(path: Path) -> Path | None:
    """Give the file of a path, with a suffix where it has none of its own; None where there is none.

    A zip or tar of a folder's name stands for the folder.
    """
    if is_file(path):
        return path
    if not path.name:
        return None
    for folder in dict.fromkeys((path.parent, folder_at(path.parent))):
        if folder is not None:
            whole = (folder / (path.name + suffix) for suffix in ("", *_SUFFIXES))
            if (found := next(filter(is_file, whole), None)) is not None:
                return found
    return None
