"""Find the files that rows name: in the workspace that made them, or fetched from the team's shared place.

`RowFiles.find` gives a file that is here, `RowFiles.fetch` brings one that is not, and `fetched_row` gives a row whose
files are all here. What is fetched lies in the workspace's cache under a name made of the hashes of its content.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from tutelage.files import sha256_of, whole_file
from tutelage.leaderboard.team.place import VARIABLE, open_place
from tutelage.leaderboard.team.shared_files import SharedFiles
from tutelage.records import InputError, Row, content_id

# Of a row's details: the SHA-256 of each of its files, by path in the workspace that made them, and never a place.
FIELD = "artifacts"
# Below the workspace's cache, so that `workspace clean --caches` removes it.
FOLDER = "shared"


class RowFiles:
    """The files of rows as a workspace sees them; with a place, what is not here is fetched from it."""

    def __init__(self, workspace: Path, place: SharedFiles | None = None) -> None:
        self.workspace, self.place = workspace, place

    def find(self, details: Mapping[str, Any], path: str) -> Path | None:
        """Give a file that a row's details name, of the content that they say, where it is here; None where it is not.

        A row that says no hash has its file at the path itself.
        """
        own = self.workspace.joinpath(*_checked(path))
        wanted = hashes_of(details).get(path)
        if wanted is None or (own.is_file() and hash_of(own) == wanted):
            return own if own.is_file() else None
        kept = self._kept(details, path)
        return kept if kept.is_file() else None

    def may_have(self, details: Mapping[str, Any], path: str) -> bool:
        """Say whether a file lies where `find` looks, without reading it."""
        places = [self.workspace.joinpath(*_checked(path))]
        if path in hashes_of(details):
            places.append(self._kept(details, path))
        return any(place.is_file() for place in places)

    def fetch(self, details: Mapping[str, Any], path: str, of: str) -> Path | None:
        """Give a file that is here, or bring it from the place; None where there is no place, or no hash to ask by.

        of: the row's id, for InputError where the place lacks the file or holds other bytes.
        """
        found = self.find(details, path)
        wanted = hashes_of(details).get(path)
        if found is not None or self.place is None or wanted is None:
            return found
        kept = self._kept(details, path)
        try:
            self.place.get(wanted, kept, f"{path} of row {of[:8]}")
        except OSError as error:
            raise InputError(
                f"{kept} cannot be written ({error.strerror or error}): choose another --workspace"
            ) from None
        return kept

    def _kept(self, details: Mapping[str, Any], path: str) -> Path:
        """Say where a fetched file lies: beside the others of its stage, in a folder named by what they hold."""
        parts = _checked(path)
        stage, inside = parts[:-1][:2], PurePosixPath(*parts[len(parts[:-1][:2]) :])
        together = {name: sha for name, sha in hashes_of(details).items() if _checked(name)[: len(stage)] == stage}
        return self.workspace / "cache" / FOLDER / content_id(together) / inside


def fetched_row(row: Row, workspace: Path, place: SharedFiles | None = None) -> Row:
    """Give a row whose files are all here, those that were not fetched from the place that `TUTELAGE_ARTIFACTS` names.

    Its details then name them where they lie. A row that says no hashes stays as it is. Raises InputError in one line
    where a file is neither here nor in the place.
    """
    files = RowFiles(workspace, place or open_place())
    moved = {}
    for path in hashes_of(row.details):
        if PurePosixPath(path).parts[:1] != ("artifacts",):
            continue
        found = files.fetch(row.details, path, row.key)
        if found is None:
            raise InputError(
                f"{path} of row {row.key[:8]} is not in {workspace}: set {VARIABLE} to the place that the team shares, "
                "or name the --workspace that made it"
            )
        if found != workspace / path:
            moved[path] = str(found.relative_to(workspace))
    if not moved:
        return row
    details = {name: value if name == FIELD else _renamed(value, moved) for name, value in row.details.items()}
    return row.model_copy(update={"details": details}).filed_as(row.key)


def fetch_device(row: Row, workspace: Path, into: Path) -> list[Path]:
    """Bring the profile of a row's device, and its latency model, into a folder of profiles, in place of a namesake's.

    Where there is no place to fetch them from, what is there stays.
    """
    files = RowFiles(workspace, open_place())
    brought = []
    for path, sha256 in hashes_of(row.details).items():
        parts = _checked(path)
        if len(parts) != 2 or parts[0] != "devices":
            continue
        to = into / parts[1]
        if to.is_file() and hash_of(to) == sha256:
            continue
        found = files.fetch(row.details, path, row.key)
        if found is not None:
            into.mkdir(parents=True, exist_ok=True)
            with whole_file(to) as aside:
                shutil.copyfile(found, aside)
            brought.append(to)
    return brought


def hashes_of(details: Mapping[str, Any]) -> dict[str, str]:
    """Read the hashes of a row's files, by path; of a row that says none, or none that can be read, nothing."""
    said = details.get(FIELD)
    if not isinstance(said, Mapping):
        return {}
    return {str(path): value for path, value in said.items() if isinstance(value, str)}


def hash_of(file: Path) -> str:
    """Hash a file, once for as long as it is not changed."""
    status = file.stat()
    return _hash(file, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=4096)
def _hash(file: Path, size: int, mtime_ns: int, inode: int) -> str:
    return sha256_of(file)


def _checked(path: str) -> tuple[str, ...]:
    """Give the parts of a path inside a workspace; a row of somebody's must not name one outside."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise InputError(f"a row names the file {path[:80]!r}, which is no path inside a workspace")
    return parts


def _renamed(value: Any, moved: Mapping[str, str]) -> Any:
    """Replace the paths that moved wherever they stand in a row's details."""
    if isinstance(value, str):
        return moved.get(value, value)
    if isinstance(value, dict):
        return {name: _renamed(one, moved) for name, one in value.items()}
    if isinstance(value, list):
        return [_renamed(one, moved) for one in value]
    return value
