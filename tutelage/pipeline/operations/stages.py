"""What a workspace holds: its stages with their sizes and what refers to them (`list_stages`), and `prune`."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tutelage.pipeline.keys.filed import FiledInputs, FiledResult
from tutelage.pipeline.workspace import Workspace, shared_store

from .board import open_store

_HASH = re.compile(r"\b[0-9a-f]{64}\b")


@dataclass(frozen=True)
class StageEntry:
    """One stage on disk. `rows` are ids of the leaderboard's rows that need its files, `stages` keys of stages."""

    key: str
    stage: str
    title: str
    finished: str  # when; empty: it was not finished
    size_bytes: int
    rows: tuple[str, ...]
    stages: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def referred(self) -> bool:
        return bool(self.rows or self.stages)


def list_stages(path: Path) -> list[StageEntry]:
    """List the stages of a workspace, oldest first, each with what refers to its files.

    A row refers to the stages of its network, its file, its predictions and its measurement; a stage to those that
    wrote the files it was computed from. A file that two stages link counts where it is listed first.
    """
    folders = [one for one in (path / "artifacts").glob("*") if one.is_dir()]
    results = {one: FiledResult.find(one) for one in folders}
    inputs = {one: FiledInputs.find(one) for one in folders}
    finished = {one: "" if result is None else result.finished for one, result in results.items()}
    folders.sort(key=lambda one: (finished[one], one.name))
    rows = _rows(path)
    owners = {sha: one.name for one in folders for sha in _written(one.name, results[one])}
    users: dict[str, set[str]] = {one.name: set() for one in folders}
    for one in folders:
        for sha in _read(inputs[one]):
            owner = owners.get(sha)
            if owner is not None and owner != one.name:
                users[owner].add(one.name)
    seen: set[tuple[int, int]] = set()
    return [
        StageEntry(
            key=one.name,
            stage="unknown" if filed is None else filed.stage,
            title="unknown" if filed is None else filed.title or filed.stage,
            finished=finished[one],
            size_bytes=_size(one, seen),
            rows=tuple(sorted({*rows.get(one.name, ()), *_of_files(rows, results[one])})),
            stages=tuple(sorted(users[one.name])),
        )
        for one in folders
        for filed in (inputs[one],)
    ]


def prune(workspace: Workspace, *, dry_run: bool) -> list[StageEntry]:
    """Remove the stages that no row needs, nor any stage that a row needs; give those (that would be) removed.

    What was not finished is removed too: a run that was stopped in it begins that stage anew. Raises InputError, and
    removes nothing, where it cannot be read what a stage that is needed was computed from.
    """
    with workspace.locked():
        unused = unneeded_stages(workspace.path)
        for one in () if dry_run else unused:
            remove_stage(workspace.path / "artifacts" / one.key)
        return unused


def unneeded_stages(path: Path) -> list[StageEntry]:
    """Give the stages that no row needs, nor any stage that a row needs; raises InputError as `prune` does."""
    entries = list_stages(path)
    known = {one.key: one for one in entries}
    needed: set[str] = set()
    waiting = [one.key for one in entries if one.rows]
    sources: dict[str, list[str]] = {}
    for one in entries:
        for user in one.stages:
            sources.setdefault(user, []).append(one.key)
    while waiting:
        key = waiting.pop()
        if key not in needed and key in known:
            FiledInputs.read(path / "artifacts" / key)
            needed.add(key)
            waiting += sources.get(key, [])
    return [one for one in entries if one.key not in needed]


def remove_stage(folder: Path) -> None:
    """Remove a stage; its result first, so that a half-removed folder is never taken for a finished stage."""
    (folder / FiledResult.FILE).unlink(missing_ok=True)
    shutil.rmtree(folder)


def _rows(path: Path) -> dict[str, set[str]]:
    """Give the ids of the rows by what their details name: the key of a stage, and the hash of the row's file.

    Rows of the workspace's own leaderboard count where a team's is set, too: they were filed before it was.
    """
    own, found = path / "leaderboard.db", dict[str, set[str]]()
    for place in dict.fromkeys([*([own] if own.is_file() else ()), *filter(None, [shared_store()])]):
        for row in open_store(place).rows(every=True):
            keys = re.findall(r"artifacts/([0-9a-f]{16}(?:-\d+)?)/", json.dumps(row.details))
            made = row.details.get("how") or {}
            for name in (*keys, (made.get("file") or {}).get("sha256") or ""):
                found.setdefault(name, set()).add(row.key)
    return found


def _of_files(rows: Mapping[str, set[str]], filed: FiledResult | None) -> set[str]:
    """Give the rows whose files a stage measured: its result is by their hashes."""
    measured = [] if filed is None else [name for name in filed.result if _HASH.fullmatch(name)]
    return {row for sha in measured for row in rows.get(sha, ())}


def _read(filed: FiledInputs | None) -> set[str]:
    """List the hashes of files that a stage was computed from."""
    return set() if filed is None else set(_HASH.findall(json.dumps(filed.inputs)))


def _written(key: str, filed: FiledResult | None) -> set[str]:
    """List the hashes of files that a stage wrote: those that its result says lie in its folder."""
    found, waiting = set[str](), [None if filed is None else filed.result]
    while waiting:
        value: Any = waiting.pop()
        if isinstance(value, dict):
            if str(value.get("path", "")).startswith(f"artifacts/{key}/"):
                found.add(str(value.get("sha256")))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return found


def _size(folder: Path, seen: set[tuple[int, int]]) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # a run may be writing there
                status = os.lstat(os.path.join(root, name))
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    total += status.st_size
    return total
