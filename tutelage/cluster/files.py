"""Files between machines that share no folder, by content hash: `Sender` packs, `receive` and `placed` unpack.

A file goes through Ray's store of objects, or through a folder that all machines reach (a path, or a URL of fsspec). A
machine keeps what it was sent in `files/` of its cache and does not fetch it again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from pydantic import BaseModel

from tutelage.files import files_of_a_model, sha256_of, whole_file
from tutelage.leaderboard.team.shared_files import SharedFiles
from tutelage.pipeline.keys.filed import FiledInputs, FiledResult
from tutelage.pipeline.keys.stage_inputs import FileInput
from tutelage.pipeline.workspace import CHECKPOINT
from tutelage.records import InputError, content_id

# Where a machine of a cluster keeps what it was sent and what it computed.
CACHE_VARIABLE = "TUTELAGE_CLUSTER_CACHE"
# Files from outside the workspace: pretrained weights, latency models.
_OUTSIDE = "given"


@dataclass(frozen=True)
class Sent:
    """A file on its way: its place in a workspace or stage folder, its hash, and where its bytes are.

    content: the bytes (uint8), a reference to them in Ray's store, or the path or URL of the shared copy.
    """

    place: str
    sha256: str
    content: Any


def machine_cache() -> Path:
    """Give the folder of this machine's cache."""
    named = os.environ.get(CACHE_VARIABLE, "").strip()
    return Path(named) if named else Path.home() / ".cache" / "tutelage" / "cluster"


def own_workspace(origin: str) -> Path:
    """Give the folder that stands on this machine for the workspace of a run elsewhere."""
    return machine_cache() / "workspaces" / content_id(origin)


def open_share(url: str) -> SharedFiles:
    """Open a folder or fsspec URL that all machines reach. Raises InputError."""
    return SharedFiles(url, "--share", "the run that put it there sends it again")


class Sender:
    """What a run sends to workers: each file once, whichever stages read it."""

    def __init__(self, ray: Any, workspace: Path, share: SharedFiles | None) -> None:
        self._ray, self._workspace, self._share = ray, workspace, share
        self._stored: dict[str, Any] = {}  # references keep what they name in Ray's store

    def pack(self, inputs: BaseModel) -> tuple[Sent, ...]:
        """Send the files that a stage reads."""
        packed: dict[str, Sent] = {}
        for file in files_in(inputs):
            source = self._workspace / file.path
            if not source.is_file():  # the stage says what is missing
                continue
            folder = Path(placed_path(file)).parent
            for part in files_of_a_model(source):
                name = part.resolve().relative_to(source.parent.resolve()) if part != source else Path(source.name)
                place = str(folder / name)
                if place not in packed:
                    packed[place] = self._send(place, part)
        return tuple(packed.values())

    def _send(self, place: str, path: Path) -> Sent:
        digest = sha256_of(path)
        if self._share is not None:
            self._share.put(path, digest)
            return Sent(place, digest, self._share.url)
        if digest not in self._stored:
            self._stored[digest] = self._ray.put(np.frombuffer(path.read_bytes(), dtype=np.uint8))
        return Sent(place, digest, self._stored[digest])


def receive(files: tuple[Sent, ...], folder: Path) -> None:
    """Put files at their places in a folder, from this machine's cache where they were sent before."""
    for file in files:
        kept = machine_cache() / "files" / file.sha256
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(kept) as aside:
                _fetch(file, aside)
        target = folder / file.place
        with suppress(FileNotFoundError):
            if os.path.samefile(target, kept):
                continue
        target.parent.mkdir(parents=True, exist_ok=True)
        # Replaced, never removed first: another worker of this machine may be about to read it.
        with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as beside:
            aside = Path(beside, target.name)
            try:
                os.link(kept, aside)
            except OSError:  # a file system without links
                shutil.copyfile(kept, aside)
            aside.replace(target)


def _fetch(file: Sent, path: Path) -> None:
    content = file.content
    if isinstance(content, str):
        try:
            open_share(content).get(file.sha256, path, file.place)
        except InputError as error:  # no fault of the recipe: the task is tried again
            raise OSError(str(error)) from error
        return
    if not isinstance(content, np.ndarray):
        import ray

        content = ray.get(content)
    path.write_bytes(memoryview(content))
    found = sha256_of(path)
    if found != file.sha256:
        raise OSError(f"{file.place} arrived with another content ({found[:12]}, {file.sha256[:12]} was sent)")


def unpack(files: tuple[Sent, ...], folder: Path) -> None:
    """Put what a worker made into a stage's folder here."""
    for file in files:
        target = folder / file.place
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as aside:
            _fetch(file, aside)


def pack_made(folder: Path, share: str | None) -> tuple[Sent, ...]:
    """Send what a stage left in its folder, but for what is only of use to it after a kill."""
    kept, made = open_share(share) if share is not None else None, []
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if not path.is_file() or place.parts[0] in (CHECKPOINT, FiledInputs.FILE, FiledResult.FILE):
            continue
        digest = sha256_of(path)
        if kept is not None:
            kept.put(path, digest)
        content = np.frombuffer(path.read_bytes(), dtype=np.uint8) if kept is None else share
        made.append(Sent(str(place), digest, content))
    return tuple(made)


def files_in(value: object) -> Iterator[FileInput]:
    """List the files that the inputs of a stage name."""
    if isinstance(value, FileInput):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from files_in(getattr(value, name))
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from files_in(one)
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from files_in(one)


def placed(value: Any) -> Any:
    """Give inputs whose files lie where another machine has put them; what names none stays the same object."""
    if isinstance(value, FileInput):
        return value.model_copy(update={"path": placed_path(value)})
    if isinstance(value, BaseModel):
        changed = {name: getattr(value, name) for name in type(value).model_fields}
        changed = {name: new for name, old in changed.items() if (new := placed(old)) is not old}
        return value.model_copy(update=changed) if changed else value
    if isinstance(value, Mapping):
        moved = {key: placed(one) for key, one in value.items()}
        return moved if any(moved[key] is not value[key] for key in moved) else value
    if isinstance(value, (tuple, list)):
        items = [placed(one) for one in value]
        return type(value)(items) if any(a is not b for a, b in zip(items, value, strict=True)) else value
    return value


def placed_path(file: FileInput) -> str:
    """Give a file's place in a worker's workspace: its own, or, from outside of the workspace, one by its hash."""
    path = Path(file.path)
    return str(Path(_OUTSIDE, file.sha256, path.name)) if path.is_absolute() else file.path
