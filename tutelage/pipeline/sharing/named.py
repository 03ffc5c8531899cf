"""Which files a row names, with their hashes, and their copies in the team's shared place (`with_hashes`, `share`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from tutelage.bench.devices.profiles import known_profile, profile_folders
from tutelage.files import files_of_a_model
from tutelage.leaderboard.store import Store
from tutelage.leaderboard.store.rewriting import extend_details
from tutelage.leaderboard.team.shared_files import SharedFiles
from tutelage.pipeline.curves import HISTORY
from tutelage.pipeline.keys.model_files import is_model
from tutelage.records import InputError, Row

from .fetched import FIELD, hash_of, hashes_of


def named_files(row: Row, workspace: Path) -> dict[str, Path]:
    """Give the files that a row names and that are here, by their paths in its workspace.

    Predictions, the model with what lies beside it, the weights with their learning curve, and the device's profile
    with its latency model, which `reproduce` needs.
    """
    made = row.details.get("how") or {}
    model = str((made.get("file") or {}).get("path") or "")
    weights = str(((made.get("network") or {}).get("weights") or {}).get("path") or "")
    paths = _predictions(row.details)
    if model and (workspace / model).is_file():
        folder = (workspace / model).parent
        beside = (file.resolve().relative_to(folder.resolve()) for file in model_files(workspace / model))
        paths += [str(PurePosixPath(model).parent / one.as_posix()) for one in beside]
    if weights:
        paths += [weights, str(PurePosixPath(weights).parent / HISTORY)]
    found = {path: workspace / path for path in paths} | dict(_profile(row.device, workspace))
    return {path: file for path, file in found.items() if file.is_file()}


def model_files(path: Path) -> list[Path]:
    """List the files of a model, read once for as long as it is not changed: an ONNX file is parsed for it."""
    status = path.stat()
    return _read_model_files(path, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=4096)
def _read_model_files(path: Path, size: int, mtime_ns: int, inode: int) -> list[Path]:
    return files_of_a_model(path)


def with_hashes(row: Row, workspace: Path) -> Row:
    """Give a row whose details hold the hashes of its files, by their paths in the workspace."""
    hashes = {path: hash_of(file) for path, file in sorted(named_files(row, workspace).items())}
    return row.model_copy(update={"details": {**row.details, FIELD: hashes}}) if hashes else row


def files_by_hash(row: Row, workspace: Path) -> dict[str, Path]:
    """Give those files of a row that are here with the content that the row says, by their hashes."""
    hashes, here = hashes_of(row.details), named_files(row, workspace)
    return {hashes[path]: file for path, file in here.items() if hashes.get(path) == hash_of(file)}


@dataclass(frozen=True)
class Shared:
    """What `share` did: files copied, rows all of whose files are there now, and rows with files that are not here."""

    copied: int
    whole: int
    elsewhere: int


def share(rows: Sequence[Row], workspace: Path, place: SharedFiles) -> Shared:
    """Copy the files of rows to a place, those that are here with the content that the rows say.

    What is there already is not copied again. A row that says no hashes counts for nothing.
    """
    sources: dict[str, Path] = {}
    whole = elsewhere = 0
    for row in rows:
        hashes, mine = hashes_of(row.details), files_by_hash(row, workspace)
        sources |= mine
        complete = set(hashes.values()) <= set(mine)
        whole, elsewhere = whole + (complete and bool(hashes)), elsewhere + (not complete)
    return Shared(sum(place.put(file, sha256) for sha256, file in sources.items()), whole, elsewhere)


def share_filed(store: Store, filter: str | None, workspace: Path, place: SharedFiles) -> Shared:
    """Share the files of the rows of a store that a filter keeps.

    Of rows that were filed before they carried hashes, and whose model is the file here, the hashes of the files as
    they lie here are filed first: a colleague's run of the same recipe has the same paths, and other bytes.
    """
    filed = store.rows(filter)
    rows = [with_hashes(row, workspace).filed_as(row.key) if _is_bare(row, workspace) else row for row in filed]
    shared = share(rows, workspace, place)
    said = {row.key: {FIELD: row.details[FIELD]} for before, row in zip(filed, rows, strict=True) if row != before}
    if said:
        with store.writing() as connection:
            extend_details(connection, said)
    return shared


def _is_bare(row: Row, workspace: Path) -> bool:
    """Say whether a row says no hashes and was made of the files here."""
    made = (row.details.get("how") or {}).get("file") or {}
    path, digest = made.get("path"), made.get("sha256")
    return not hashes_of(row.details) and bool(path and digest) and is_model(workspace / str(path), str(digest))


def _predictions(details: Mapping[str, Any]) -> list[str]:
    """List the predictions of a row's details, those of its other seeds, too."""
    seeds = details.get("seeds")
    files = seeds.get("files") or [] if isinstance(seeds, Mapping) else []
    named = [details.get("predictions"), *(one.get("predictions") for one in files)]
    return [path for path in dict.fromkeys(named) if isinstance(path, str) and path]


def _profile(device: str, workspace: Path) -> Iterator[tuple[str, Path]]:
    """Find the files of a device's profile; one that the package brings needs no copy."""
    try:
        known = known_profile(device, workspace) if device else None
    except InputError:
        return
    if known is None or known[1] == profile_folders(None)[-1]:
        return
    profile, folder = known
    for name in (f"{profile.name}.yaml", profile.latency_model):
        if name:
            yield f"devices/{name}", folder / name
