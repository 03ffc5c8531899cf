"""The members of a zip or tar: their names, sizes and bytes. Nothing is unpacked to disk.

Links, and names that lead out of the archive (`..`, absolute ones), are left out and counted.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath

from tutelage.records import InputError

from .damage import guarded

SUFFIXES = (".zip", ".tar")
TABLES = (".csv.zip", ".tsv.zip")  # one packed table, not an archive of files
_WHOLE = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")

# A picture of 178 megapixels, the most that is decoded, has some 700 MB uncompressed; a larger member is no picture.
MAX_MEMBER_BYTES = 2**30

# PadChest has 54 zips; an index of 3,000 members takes about a megabyte.
_MOST_OPEN = 64


@dataclass(frozen=True)
class Members:
    """The files of an archive: `sizes` in bytes by name, and what each folder ("" is the top) holds.

    `left_out` counts links and names that lead outside.
    """

    file: Path
    sizes: Mapping[str, int]
    take: Callable[[str, int], bytes]
    left_out: Mapping[str, int] = field(default_factory=dict)
    folders: Mapping[str, tuple[list[str], list[str]]] = field(default_factory=dict)

    def read(self, name: str, most: int = MAX_MEMBER_BYTES) -> bytes:
        """Read a member, or its first `most` bytes; InputError names it where it is damaged or too large."""
        where = f"{self.file}/{name}"
        if most == MAX_MEMBER_BYTES and self.sizes[name] > MAX_MEMBER_BYTES:
            raise InputError(f"{where} holds {self.sizes[name]} bytes, and at most {MAX_MEMBER_BYTES} are read")
        with guarded(f"{where} is damaged"):
            return self.take(name, most)

    def notes(self) -> list[str]:
        """Say what was left out."""
        return [f"{number} members of {self.file.name} are left out: {what}" for what, number in self.left_out.items()]


def is_archive(path: Path) -> bool:
    """Tell an archive of files by its suffix; one that cannot be read in place is an InputError with the remedy."""
    name = path.name.lower()
    return name.endswith(SUFFIXES) and not name.endswith(TABLES)


def refuse_compressed(path: Path) -> None:
    """Refuse an archive that is compressed as a whole: to read one member, all before it must be decompressed."""
    if path.name.lower().endswith(_WHOLE):
        raise InputError(f"{path} is compressed as a whole and cannot be read in place: unpack it (tar xf, 7z x), or "
                         "pack the files as .zip or .tar")  # fmt: skip


def members_of(file: Path) -> Members:
    """Give the members of a zip or tar, kept while the file is the same; InputError where it is damaged."""
    kind = "zip" if file.suffix.lower() == ".zip" else "tar"
    with guarded(f"{file} is damaged or not a {kind} archive"):
        state = file.stat()
        return _indexed(str(file), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=_MOST_OPEN)
def _indexed(file: str, _size: int, _modified: int) -> Members:
    path = Path(file)
    return _zip(path) if path.suffix.lower() == ".zip" else _tar(path)


def _zip(file: Path) -> Members:
    archive = zipfile.ZipFile(file)  # stays open while the index is kept: reading is safe from several threads
    infos: dict[str, zipfile.ZipInfo] = {}
    left_out: Counter[str] = Counter()
    for info in archive.infolist():
        if info.is_dir():
            continue
        if info.flag_bits & 1:
            raise InputError(f"{file} is encrypted: unpack it with its password and give the folder")
        if stat.S_ISLNK(info.external_attr >> 16):
            left_out["links"] += 1
        elif (name := _inner(info.filename)) is None:
            left_out["names that lead outside"] += 1
        else:
            infos[name] = info

    def take(name: str, most: int) -> bytes:
        with archive.open(infos[name]) as member:
            content = member.read(most + 1)
        if len(content) > MAX_MEMBER_BYTES:  # the directory says less than the data hold
            raise ValueError(f"it unpacks to more than {MAX_MEMBER_BYTES} bytes")
        return content[:most]

    sizes = {name: info.file_size for name, info in infos.items()}
    return Members(file, sizes, take, dict(left_out), _tree(sizes))


def _tar(file: Path) -> Members:
    places: dict[str, tuple[int, int]] = {}
    left_out: Counter[str] = Counter()
    with tarfile.open(file, "r:") as archive:
        while (member := archive.next()) is not None:
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                left_out["links, devices or sparse files"] += 1
            elif (name := _inner(member.name)) is None:
                left_out["names that lead outside"] += 1
            else:
                places[name] = (member.offset_data, member.size)
        end = archive.offset
    with file.open("rb") as stream:
        stream.seek(end)
        if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile takes a broken header for the end
            raise ValueError(f"no header at byte {end}: a part of it is missing or overwritten")

    def take(name: str, most: int) -> bytes:
        offset, size = places[name]
        with file.open("rb") as stream:
            stream.seek(offset)
            content = stream.read(min(size, most))
        if len(content) < min(size, most):
            raise ValueError("the file ends inside it")
        return content

    sizes = {name: size for name, (_, size) in places.items()}
    return Members(file, sizes, take, dict(left_out), _tree(sizes))


def _inner(name: str) -> str | None:
    """Write a member's name with forward slashes and without `./`; None where it leads out of the archive."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
        return None
    return path.as_posix()


def _tree(names: Iterable[str]) -> dict[str, tuple[list[str], list[str]]]:
    """Give each folder's subfolders and files, sorted."""
    folders: dict[str, tuple[set[str], list[str]]] = {"": (set(), [])}
    for name in names:
        *parents, last = name.split("/")
        above = ""
        for part in parents:
            folders[above][0].add(part)
            above = f"{above}/{part}" if above else part
            folders.setdefault(above, (set(), []))
        folders[above][1].append(last)
    return {name: (sorted(inner), sorted(files)) for name, (inner, files) in folders.items()}
