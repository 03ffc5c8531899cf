"""A run on disk: stages that are done once, files that are whole or absent, and one run at a time.

Enters: a folder. Leaves: `stage(...)`, which gives a finished stage's result or does the work and then files it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .records import InputError, content_id, utc_now

log = logging.getLogger(__name__)

# Raised by one when a workspace of an older layout can no longer be read.
LAYOUT_VERSION = 1
_DONE = "done.json"


@dataclass(frozen=True)
class Stage:
    """A finished stage: its key (hash of name and inputs), its folder and the small JSON result."""

    name: str
    key: str
    folder: Path
    result: dict[str, Any]


class Workspace:
    """A folder that holds the artifacts and the leaderboard of its runs."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        _open_folder(self.path)
        _check_layout(self.path / "workspace.json")

    @property
    def store(self) -> str | Path:
        """Where the leaderboard is: `leaderboard.db` here, or the server that TUTELAGE_STORE names by URL."""
        return shared_store() or self.path / "leaderboard.db"

    def stage(self, name: str, inputs: dict[str, Any], work: Callable[[Path], dict[str, Any]]) -> Stage:
        """Give the stage of this name and these inputs, doing `work(folder)` only if it was never finished.

        `work` may leave checkpoints in the folder and find them there after a kill; only its returned result, filed
        last and at once, makes the stage count as done.
        """
        key = content_id({"stage": name, "inputs": inputs, "layout": LAYOUT_VERSION})
        folder = self.path / "artifacts" / key
        done = folder / _DONE
        if done.is_file():
            log.debug("%s: done before (%s)", name, key)
            return Stage(name, key, folder, _read_json(done)["result"])
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "inputs.json", {"stage": name, "inputs": inputs})
        self._journal("start", name, key)
        result = work(folder)
        write_json(done, {"stage": name, "finished": utc_now(), "result": result})
        self._journal("done", name, key)
        return Stage(name, key, folder, json.loads(json.dumps(result)))

    def journal(self) -> list[dict[str, str]]:
        """List the stages that were started and finished, oldest first. A torn last line (a kill) is left out."""
        path = self.path / "journal.jsonl"
        events = []
        for line in path.read_text().splitlines() if path.is_file() else ():
            try:
                events.append(json.loads(line))
            except json.JSONDecodeError:
                log.warning("%s: skipped a torn line", path)
        return events

    def relative(self, path: Path) -> str:
        return str(path.relative_to(self.path))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second run out of this workspace; the lock ends with the process, however that ends."""
        with (self.path / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"workspace {self.path} is in use by another run: wait for it, or choose another --workspace"
                ) from None
            yield

    def _journal(self, event: str, name: str, key: str) -> None:
        line = json.dumps({"event": event, "stage": name, "key": key, "time": utc_now()})
        path = self.path / "journal.jsonl"
        torn = path.is_file() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        with path.open("a") as handle:
            handle.write(("\n" if torn else "") + line + "\n")


def shared_store() -> str:
    """Give the URL of a team's PostgreSQL leaderboard, from the environment; empty where none is set."""
    return os.environ.get("TUTELAGE_STORE", "")


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is whole or absent: aside, fsync, rename."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w") as handle:
        json.dump(value, handle, indent=1)
        handle.flush()
        os.fsync(handle.fileno())
    aside.replace(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): delete its folder and the stage is done again") from error
    return dict(data)


def _open_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe.{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"workspace {path} cannot be written ({error.strerror}): choose another --workspace"
        ) from error


def _check_layout(path: Path) -> None:
    if not path.is_file():
        write_json(path, {"layout": LAYOUT_VERSION, "created": utc_now()})
        return
    found = _read_json(path).get("layout")
    if found != LAYOUT_VERSION:
        raise InputError(
            f"workspace {path.parent} has layout {found!r}, this version of tutelage reads {LAYOUT_VERSION}: "
            "choose another --workspace, or use the version that made it"
        )
