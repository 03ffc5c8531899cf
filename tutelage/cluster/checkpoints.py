"""Checkpoints that travel: a training or search whose machine dies goes on elsewhere from what it left in the share.

`travelling` fetches a newer checkpoint before a stage begins and stores new ones while it goes on, at most one in so
many seconds; `forget` removes them when the stage is done.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tutelage.files import sha256_of
from tutelage.leaderboard.team.shared_files import SharedFiles
from tutelage.pipeline.workspace import CHECKPOINT
from tutelage.records import InputError, content_id

log = logging.getLogger(__name__)

# How often a checkpoint is stored, in seconds, where a training leaves new ones faster.
EVERY_S = 60.0
_LIST = "files.json"
_LOOK_S = 1.0
_END_S = 60.0
# How often a checkpoint that changes while it is read is asked for.
_TRIES = 5


@dataclass(frozen=True)
class _End:
    """How far the end of a stage is, for the thread that stores its checkpoints."""

    over: threading.Event = field(default_factory=threading.Event)  # no other checkpoint is begun
    done: threading.Event = field(default_factory=threading.Event)  # it has its result: none is needed any more
    late: threading.Event = field(default_factory=threading.Event)  # nobody waits, and what is here may be forgotten


@contextmanager
def travelling(share: SharedFiles, origin: str, folder: Path, every_s: float = EVERY_S) -> Iterator[str]:
    """Keep the checkpoint of a stage's folder in the share while the block goes on; gives the name of one taken there.

    What fails is said and left.
    """
    place, end, taken = _place(share, origin, folder.name), _End(), ""
    try:
        taken = _fetch(place, folder)
    except (InputError, OSError, ValueError, LookupError) as error:
        log.warning("no checkpoint is taken from the share, it begins anew: %s", error)
    storing = threading.Thread(target=_store_all, args=(place, folder, every_s, end), daemon=True)
    storing.start()
    try:
        yield taken
        end.done.set()  # where it fails, the next attempt wants what is being stored
    finally:
        end.over.set()
        storing.join(_END_S)
        if end.done.is_set():
            end.late.set()


def forget(share: SharedFiles, origin: str, key: str) -> None:
    """Remove what a stage that is done has in the share."""
    _remove(_place(share, origin, key))


def _remove(place: SharedFiles) -> None:
    try:
        place.remove()
    except (InputError, OSError) as error:
        log.warning("a checkpoint stays in the share: %s", error)


def _place(share: SharedFiles, origin: str, key: str) -> SharedFiles:
    return share.within(f"checkpoints/{content_id(origin)}-{key}")


def _fetch(place: SharedFiles, folder: Path) -> str:
    """Take the checkpoint of the share, unless the one that is here is as new; gives its name, empty for none.

    A worker that was given up for lost may still replace it: what it dropped while it was read is asked for anew.
    """
    failed: tuple[str, InputError] | None = None
    for _ in range(_TRIES):
        text = place.read_text(_LIST)
        if text is None:
            return ""
        if failed is not None and text == failed[0]:
            break
        try:
            return _take(place, json.loads(text), folder)
        except InputError as error:
            failed = text, error
    assert failed is not None
    raise failed[1]


def _take(place: SharedFiles, stored: dict[str, Any], folder: Path) -> str:
    """Copy a listed checkpoint here, unless the one that is here is as new; gives its name, empty for none."""
    newest = _newest(folder)
    if newest is not None:
        if stored["name"] and newest.name >= stored["name"]:
            return ""
        if not stored["name"] and newest.stat().st_mtime >= stored["time"]:
            return ""
    target = folder / CHECKPOINT / stored["name"] if stored["name"] else folder / CHECKPOINT
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=_scratch(folder)) as aside:
        for name, sha256 in stored["files"].items():
            place.get(sha256, Path(aside, "of", name), f"{name} of a checkpoint")
        if target.is_dir():
            shutil.rmtree(target)
        Path(aside, "of" if stored["name"] else f"of/{CHECKPOINT}").replace(target)
    return stored["name"] or CHECKPOINT


def _store_all(place: SharedFiles, folder: Path, every_s: float, end: _End) -> None:
    """Store each new checkpoint until the stage is over; what comes too late for `forget` is removed here."""
    last, stored, known = -every_s, "", dict[str, str]()
    while not end.over.wait(min(_LOOK_S, every_s or _LOOK_S / 10)):
        try:
            newest = _newest(folder)
            if newest is None or time.monotonic() - last < every_s:
                continue
            version = f"{newest.name} {newest.stat().st_mtime_ns}"
        except FileNotFoundError:  # the stage has just dropped it for a newer one
            continue
        if version == stored:
            continue
        try:
            known = _store(place, folder, newest, known, end.done)
        except (InputError, OSError, ValueError) as error:
            log.warning("a checkpoint could not be stored in the share: %s", error)
        else:
            stored = version
        last = time.monotonic()
    if end.late.is_set():
        _remove(place)


def _store(
    place: SharedFiles, folder: Path, newest: Path, before: dict[str, str], done: threading.Event
) -> dict[str, str]:
    """Store one checkpoint whole, then drop the files of the one before; gives its files by hash.

    When the stage is done it stores no more, and lists nothing.
    """
    with TemporaryDirectory(dir=_scratch(folder)) as aside:
        copied = _copied(newest, Path(aside))
        if newest != _newest(folder):
            raise FileNotFoundError(f"{newest.name} was replaced while it was read")
        files = {str(path.relative_to(aside)): sha256_of(path) for path in copied}
        written = max(path.stat().st_mtime for path in copied)
        for path in copied:
            if done.is_set():
                return before
            place.put(path, files[str(path.relative_to(aside))])
    if done.is_set():
        return before
    name = "" if newest.name == CHECKPOINT else newest.name  # the stage may have dropped it meanwhile
    place.write_text(_LIST, json.dumps({"name": name, "time": written, "files": files}))
    for sha256 in set(before.values()) - set(files.values()):
        place.remove(sha256)
    return files


def _copied(source: Path, folder: Path) -> list[Path]:
    """Copy a file or the files of a folder, by links where that can be: the stage may drop its own."""
    paths = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    copies = []
    for path in paths:
        copy = folder / (path.name if path == source else path.relative_to(source))
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, copy)
        except FileNotFoundError:
            raise
        except OSError:  # a file system without links
            shutil.copyfile(path, copy)
        copies.append(copy)
    return copies


def _scratch(folder: Path) -> Path:
    """Give a folder on the same disk that no stage reads."""
    scratch = folder.parent.parent / "cache" / "checkpoints"
    scratch.mkdir(parents=True, exist_ok=True)
    return scratch


def _newest(folder: Path) -> Path | None:
    """Give the newest whole checkpoint: a folder an epoch; of a supernet or a search one file."""
    place = folder / CHECKPOINT
    if place.is_file():
        return place
    whole = [path for path in place.glob("epoch-*") if path.suffix != ".part"]
    return max(whole, default=None)
