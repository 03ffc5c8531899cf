"""What a workspace holds: its stages with their sizes and what refers to them (`list_stages`), and `prune`."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tutelage.leaderboard.store import Store
from tutelage.pipeline.workspace import Workspace, shared_store

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

    A row refers to the stages of its network, its file and its predictions; a stage to those whose files it was
    computed from. A file that two stages link counts where it is listed first.
    """
    folders = sorted((path / "artifacts").glob("*"), key=lambda one: (_finished(one), one.name))
    folders = [one for one in folders if one.is_dir()]
    rows = _rows(path)
    owners = {sha: one.name for one in folders for sha in _hashes(_result(one))}
    users: dict[str, set[str]] = {one.name: set() for one in folders}
    for one in folders:
        for sha in _hashes(_read(one / "inputs.json").get("inputs")):
            owner = owners.get(sha)
            if owner is not None and owner != one.name:
                users[owner].add(one.name)
    seen: set[tuple[int, int]] = set()
    return [
        StageEntry(
            key=one.name,
            stage=str(_read(one / "inputs.json").get("stage", "unknown")),
            title=str(_read(one / "inputs.json").get("title") or _read(one / "inputs.json").get("stage", "unknown")),
            finished=_finished(one),
            size_bytes=_size(one, seen),
            rows=tuple(sorted(rows.get(one.name, ()))),
            stages=tuple(sorted(users[one.name])),
        )
        for one in folders
    ]


def prune(workspace: Workspace, *, dry_run: bool) -> list[StageEntry]:
    """Remove the stages that no row needs, nor any stage that a row needs; give those (that would be) removed.

    What was not finished is removed too: a run that was stopped in it begins that stage anew.
    """
    with workspace.locked():
        entries = list_stages(workspace.path)
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
                needed.add(key)
                waiting += sources.get(key, [])
        unused = [one for one in entries if one.key not in needed]
        for one in () if dry_run else unused:
            _remove(workspace.path / "artifacts" / one.key)
        return unused


def _remove(folder: Path) -> None:
    """Remove a stage; its result first, so that a half-removed folder is never taken for a finished stage."""
    (folder / "done.json").unlink(missing_ok=True)
    shutil.rmtree(folder)


def _rows(path: Path) -> dict[str, set[str]]:
    """Give the ids of the rows whose details name files of a stage, by the stage's key."""
    store = shared_store() or path / "leaderboard.db"
    if isinstance(store, Path) and not store.is_file():
        return {}
    found: dict[str, set[str]] = {}
    for row in Store(store, read_only=True).rows(every=True):
        for key in re.findall(r"artifacts/([0-9a-f]{16}(?:-\d+)?)/", json.dumps(row.details)):
            found.setdefault(key, set()).add(row.key)
    return found


def _hashes(value: Any) -> set[str]:
    return set(_HASH.findall(json.dumps(value)))


def _result(folder: Path) -> Any:
    return _read(folder / "done.json").get("result")


def _finished(folder: Path) -> str:
    return str(_read(folder / "done.json").get("finished", ""))


def _size(folder: Path, seen: set[tuple[int, int]]) -> int:
    total = 0
    for file in _files(folder):
        status = file.lstat()
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            total += status.st_size
    return total


def _files(folder: Path) -> Iterable[Path]:
    return (file for file in folder.rglob("*") if file.is_file())


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}
