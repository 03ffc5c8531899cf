"""A run on disk: stages that are done once, files that are complete or absent, and one writer at a time.

`Workspace.stage` gives a finished stage's result, or does the work and then files it; `Workspace.locked` keeps other
processes out; `Workspace.start_over` makes a recipe do its stages again and keeps what older rows refer to.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, TYPE_CHECKING, Any

from tutelage.files import sync, sync_tree, write_json
from tutelage.records import InputError, content_id, utc_now

from .keys.filed import FiledInputs, FiledResult

if TYPE_CHECKING:
    from .keys.stage_inputs import (  # imports torch, which a verb that only reads need not wait for
        Foreseen,
        StageInputs,
    )

log = logging.getLogger(__name__)

# Raised by one when a workspace of an older layout can no longer be read.
LAYOUT_VERSION = 1

# Of the message that another process holds the lock: who started the command in a process of its own finds it there.
IN_USE = "is in use by another command"

# What a stage leaves under this name, file or folder, is for its own use after a kill, and goes when it is done.
CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class Stage:
    """A finished stage: title, key (hash of name and inputs, and the attempt), folder and JSON result."""

    name: str
    key: str
    folder: Path
    result: dict[str, Any]
    made_by: dict[str, str] = field(default_factory=dict)  # versions of tutelage and Python; empty: not filed


class Workspace:
    """A folder that holds the artifacts and the leaderboard of its runs.

    attempt: how often the recipe at work was started over (`for_recipe`). A stage of attempt n lies in `KEY-n`; the
    folders of earlier attempts stay, because rows of the leaderboard refer to the files in them.
    """

    def __init__(self, path: Path, *, unopened: bool = False) -> None:
        """Open a workspace, which makes its folder; `unopened` only says where it is, to be looked into."""
        self.path = path.expanduser().absolute()
        self.attempt = 0
        self._held = _Lock(self.path / ".lock")
        if not unopened:
            _open_folder(self.path)
            _check_layout(self.path / "workspace.json")

    @property
    def store(self) -> str | Path:
        """Where the leaderboard is: `leaderboard.db` here, or the server that TUTELAGE_STORE names by URL."""
        return shared_store() or self.path / "leaderboard.db"

    def for_recipe(self, name: str) -> Workspace:
        """Give this workspace, its lock included, as a recipe sees it: without what was done before it started over."""
        seen = copy(self)
        marker = self._marker(name)
        seen.attempt = _attempt(marker) if marker.is_file() else 0
        return seen

    def start_over(self, name: str) -> None:
        """Make the stages of a recipe be done again from now on, and forget what is only cached.

        Nothing that a row refers to is removed, and other recipes keep their stages. A run that is stopped afterwards
        goes on in the new attempt.
        """
        with self.locked():
            marker = self._marker(name)
            marker.parent.mkdir(exist_ok=True)
            write_json(marker, {"attempt": self._last_attempt() + 1, "started": utc_now()})
            cache = self.path / "cache"
            if cache.is_dir():  # renamed first: a half-removed cache must not be taken for a whole one
                cache.rename(Path(mkdtemp(prefix=".removed.", dir=self.path), "cache"))
            for removed in self.path.glob(".removed.*"):
                shutil.rmtree(removed, ignore_errors=True)

    def stage(
        self,
        name: str,
        inputs: dict[str, Any],
        work: Callable[[Path], dict[str, Any]],
        *,
        title: str = "",
        recipe: dict[str, Any] | None = None,
        made_by: dict[str, str] | None = None,
    ) -> Stage:
        """Give the stage of this name and these inputs, doing `work(folder)` only if it was never finished.

        `work` may leave a `CHECKPOINT` in the folder and find it there after a kill; only its returned result, filed
        when all its files are on the disk, makes the stage count as done, and the checkpoint is removed. `title` (what
        it is of) and `recipe` are filed beside the inputs and are not in the key. made_by: versions of tutelage and
        Python, where they are not these.
        """
        key, title = stage_key(name, inputs), title or name
        with self.locked():
            folder = self._folder(key)
            if (found := self._done(title, folder)) is not None:
                log.debug("%s: done before (%s)", title, folder.name)
                return found
            self._begin(folder, name, inputs, title, recipe)
            return self._end(folder, name, title, work(folder), made_by)

    def _end(
        self, folder: Path, name: str, title: str, result: dict[str, Any], made_by: dict[str, str] | None = None
    ) -> Stage:
        """File a stage's result when all its files are on the disk, which makes it count as done."""
        sync_tree(folder)
        for parent in (folder.parent, self.path):  # their entries, too: the folder may be new
            sync(parent)
        made_by = made_by or {"tutelage": version("tutelage"), "python": platform.python_version()}
        filed = {"stage": name, "finished": utc_now(), "result": result, "made_by": made_by}
        write_json(folder / FiledResult.FILE, filed)
        self._journal("done", title, folder.name)
        remove_checkpoint(folder)
        return Stage(title, folder.name, folder, json.loads(json.dumps(result)), made_by)

    def _begin(
        self, folder: Path, name: str, inputs: dict[str, Any], title: str, recipe: dict[str, Any] | None
    ) -> None:
        """Make a stage's folder and file what it is computed from."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FiledInputs.FILE, {"stage": name, "title": title, "inputs": inputs, "recipe": recipe})
        self._journal("start", title, folder.name)

    def run(
        self, inputs: StageInputs, work: Callable[[Path], dict[str, Any]], recipe: dict[str, Any] | None = None
    ) -> Stage:
        """Give the stage of typed inputs, doing `work(folder)` only if it was never finished."""
        return self.stage(inputs.stage, inputs.key_values(), work, title=inputs.title, recipe=recipe)

    def look_ahead(self, stages: Callable[[], Sequence[Foreseen]]) -> None:
        """Take what lists the stages that could be done now: of use only where several are done at once."""

    def lost(self, key: str) -> str:
        """Say why a stage has no result and the run goes on without it; empty: it has one, or is still to be done."""
        return ""

    def find(self, inputs: StageInputs) -> tuple[str, Stage | None]:
        """Give the name that a stage's folder has or will have, and the stage where it is done."""
        folder = self._folder(stage_key(inputs.stage, inputs.key_values()))
        return folder.name, self._done(inputs.title, folder)

    def versions(self, key: str) -> dict[str, str]:
        """Give the versions that computed a stage: of its libraries, of tutelage and of Python; none where unknown."""
        folder = self.path / "artifacts" / key
        if not (folder / FiledResult.FILE).is_file():
            return {}
        return {**FiledInputs.read(folder).versions, **FiledResult.read(folder).made_by}

    def accelerator(self, key: str) -> str:
        """Say what a stage was computed on; empty where it is not known, and for stages that train nothing."""
        folder = self.path / "artifacts" / key
        filed = FiledResult.read(folder) if (folder / FiledResult.FILE).is_file() else None
        return "" if filed is None else str(filed.result.get("accelerator", ""))

    def _done(self, title: str, folder: Path) -> Stage | None:
        if not (folder / FiledResult.FILE).is_file():
            return None
        filed = FiledResult.read(folder)
        return Stage(title, folder.name, folder, filed.result, filed.made_by)

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
        """Keep other writers out of this workspace; the lock ends with the process, however that ends.

        It is reentrant. Raises InputError where another process has it.
        """
        with self._held:
            yield

    def _folder(self, key: str) -> Path:
        """Choose a stage's folder: of the attempts that count, the first that is done, else this recipe's own.

        The first, not the newest: another recipe that has the same stage and starts over must not change this one.
        """
        artifacts = self.path / "artifacts"
        known = {int(path.name.partition("-")[2]): path for path in artifacts.glob(f"{key}-*")} | {0: artifacts / key}
        for attempt in sorted(known):
            if attempt >= self.attempt and (known[attempt] / FiledResult.FILE).is_file():
                return known[attempt]
        return artifacts / (f"{key}-{self.attempt}" if self.attempt else key)

    def _marker(self, recipe: str) -> Path:
        return self.path / "attempts" / f"{content_id(recipe)}.json"

    def _last_attempt(self) -> int:
        return max(map(_attempt, self.path.glob("attempts/*.json")), default=0)

    def _journal(self, event: str, name: str, key: str) -> None:
        line = json.dumps({"event": event, "stage": name, "key": key, "time": utc_now()})
        path = self.path / "journal.jsonl"
        torn = path.is_file() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        with path.open("a") as handle:
            handle.write(("\n" if torn else "") + line + "\n")


def remove_checkpoint(folder: Path) -> None:
    """Remove what a finished stage no longer needs: with an optimiser's moments it is several times its weights."""
    place = folder / CHECKPOINT
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


def stage_key(name: str, inputs: dict[str, Any]) -> str:
    """Hash what a stage is: its name and its inputs."""
    return content_id({"stage": name, "inputs": inputs, "layout": LAYOUT_VERSION})


def shared_store() -> str:
    """Give the URL of a team's PostgreSQL leaderboard, from TUTELAGE_STORE; empty where none is set."""
    url = os.environ.get("TUTELAGE_STORE", "").strip()
    if url and not url.startswith(("postgresql://", "postgresql+", "sqlite:///")):
        raise InputError("TUTELAGE_STORE is no postgresql:// URL: write postgresql://USER@HOST/NAME, or unset it")
    return url


class _Lock:
    """A lock on a file that its holder may take again, as often as it is given back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: IO[str] | None = None
        self._depth = 0

    def __enter__(self) -> None:
        if self._handle is None:
            handle = self.path.open("w")
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                handle.close()
                if not isinstance(error, BlockingIOError):
                    raise InputError(
                        f"workspace {self.path.parent} lies on a file system without locks ({error.strerror}), so two "
                        "commands could write it at once: choose a --workspace on a local disk"
                    ) from None
                raise InputError(
                    f"workspace {self.path.parent} {IN_USE}: wait for it, or choose another --workspace"
                ) from None
            self._handle = handle
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0 and self._handle is not None:
            # Closing alone leaves it locked while a child process that was started meanwhile has the file open, too.
            fcntl.flock(self._handle, fcntl.LOCK_UN)
            self._handle.close()
            self._handle = None


def _number(path: Path, name: str, remedy: str) -> int:
    """Read a whole number of a JSON file that was filed with it."""
    try:
        return int(json.loads(path.read_text())[name])
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise InputError(f"{path} cannot be read ({error}): {remedy}") from None


def _attempt(marker: Path) -> int:
    return _number(marker, "attempt", "delete it, and the stages of all attempts count again")


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
    layout = _number(path, "layout", "restore it, or choose another --workspace")
    if layout != LAYOUT_VERSION:
        raise InputError(
            f"workspace {path.parent} has layout {layout!r}, this version of tutelage reads {LAYOUT_VERSION}: "
            "choose another --workspace, or use the version that made it"
        )


def database(path: Path) -> str | Path:
    """Give the leaderboard of a workspace, or the team's server; refuse a workspace in which no run has made one."""
    if shared_store():
        return shared_store()
    file = path / "leaderboard.db"
    if not file.is_file():
        raise InputError(f"no leaderboard in {path}: `tutelage run demo` makes one, or name another --workspace")
    return file
