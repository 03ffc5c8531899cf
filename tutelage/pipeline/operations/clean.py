"""What a workspace takes on the disk, by kind (`sizes`), and what nobody needs of it any more (`clean`)."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import yaml

from tutelage.distill.data.cache import alone
from tutelage.pipeline.keys.filed import FiledInputs, FiledResult
from tutelage.pipeline.sharing.fetched import FOLDER
from tutelage.pipeline.workspace import CHECKPOINT, Workspace, shared_store
from tutelage.records import Row

from .board import open_store
from .remembered import FILE as REMEMBERED
from .stages import remove_stage, unneeded_stages

_SOFT_TARGETS = "soft-targets"
_STAGE = re.compile(r"artifacts/([0-9a-f]{16}(?:-\d+)?)/")
# Stages that a run does after its last rows.
_AFTER_ROWS = ("bundle",)


@dataclass(frozen=True)
class Removable:
    """Something in a workspace that nobody needs: its path there, what it is, and its size."""

    path: str
    kind: str  # as in `sizes`
    what: str
    size_bytes: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Cleaned:
    """What was (or would be) removed, and why the rest of what no row needs is kept; empty: there is no rest."""

    removed: tuple[Removable, ...]
    kept: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {"removed": [one.to_dict() for one in self.removed], "kept": self.kept}


def sizes(path: Path) -> dict[str, int]:
    """Give the bytes of a workspace by kind, the largest first; a file that is linked twice counts once."""
    found: dict[str, int] = {}
    seen: set[tuple[int, int]] = set()
    for file in _files(path):
        parts = file.relative_to(path).parts
        with suppress(FileNotFoundError):  # a run may be writing there
            status = file.lstat()
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                found[_kind(parts)] = found.get(_kind(parts), 0) + status.st_size
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def clean(workspace: Workspace, *, dry_run: bool, caches: bool = False) -> Cleaned:
    """Remove what no row, bundle or unfinished run needs: old checkpoints, stages, images half decoded.

    While a run is unfinished only checkpoints of finished stages are removed: it may need the rest. caches: remove
    decoded images and soft targets as well, which the next run computes again. Bundles and pages stay. Raises
    InputError where another command uses the workspace.
    """
    with workspace.locked():
        path = workspace.path
        removable = [*_left_checkpoints(path), *_leftovers(path)]
        if kept := _unfinished(path):
            kept = f"{kept}: run it to its end, or `tutelage workspace prune` removes what its rows do not need"
        else:
            stages = [
                Removable(f"artifacts/{one.key}", "stages", f"{one.title}, which no row needs", one.size_bytes)
                for one in unneeded_stages(path)
            ]
            inside = {one.path for one in stages}
            removable = [one for one in removable if str(Path(one.path).parent) not in inside]
            removable += [*stages, *_caches(path, whole=caches)]
        for one in () if dry_run else removable:
            _remove(path, one)
        return Cleaned(tuple(removable), kept)


def _remove(workspace: Path, one: Removable) -> None:
    place = workspace / one.path
    if one.kind == "stages":
        remove_stage(place)
        return
    with ExitStack() as stack:
        if place.is_dir():
            try:
                stack.enter_context(alone(place))
            except BlockingIOError:  # another command decodes images there
                return
        # Renamed first: what is half removed must not be taken for whole.
        aside = Path(mkdtemp(prefix=".removed.", dir=workspace))
        place.rename(aside / place.name)
        shutil.rmtree(aside)


def _left_checkpoints(path: Path) -> Iterator[Removable]:
    """Find checkpoints of finished trainings: a process was killed before it removed them, or did not do so yet.

    Stages without a title are of the version before: a run takes trainings over from their checkpoints.
    """
    for folder in sorted((path / "artifacts").glob("*")):
        filed = FiledInputs.find(folder)
        if (folder / CHECKPOINT).exists() and filed is not None and filed.title and FiledResult.find(folder):
            what = f"checkpoint of {filed.title}, which is done"
            yield _removable(path, folder / CHECKPOINT, "checkpoints", what)


def _leftovers(path: Path) -> Iterator[Removable]:
    for place in sorted(path.glob(".removed.*")):
        yield _removable(path, place, "other", "what a command that was killed did not remove to its end")


def _caches(path: Path, *, whole: bool) -> Iterator[Removable]:
    """Find images that were decoded in part, or (`whole`) all that a run caches."""
    for place in sorted((path / "cache").glob("*")):
        if whole:
            kind = _kind(place.relative_to(path).parts)
            again = "are fetched again" if place.name == FOLDER else "a run computes again"
            yield _removable(path, place, kind, f"{place.name}, which {again}")
            continue
        for part in sorted(place.rglob(".partial-*")):  # further test sets lie one folder lower
            yield _removable(path, part, "decoded images", f"{part.parent.name}, decoded in part")


def _removable(workspace: Path, place: Path, kind: str, what: str) -> Removable:
    size = sum(file.lstat().st_size for file in ([place] if place.is_file() else _files(place)))
    return Removable(str(place.relative_to(workspace)), kind, what, size)


def _unfinished(path: Path) -> str:
    """Name a stage or recipe that a run may go on with; empty where all runs here came to their end.

    A run ends with complete rows, after all of its stages but those of bundles.
    """
    last: dict[str, str] = {}
    folders = [one for one in sorted((path / "artifacts").glob("*")) if one.is_dir()]
    for folder in folders:
        filed, result = FiledInputs.find(folder), FiledResult.find(folder)
        if result is None:
            title = "a stage" if filed is None else filed.title or filed.stage
            return f"{title} ({folder.name}) is not finished"
        if filed is not None and filed.recipe is not None and filed.stage not in _AFTER_ROWS:
            name = str(filed.recipe.get("name", ""))
            last[name] = max(last.get(name, ""), result.finished)
    complete: dict[str, str] = {}
    for row in _complete_rows(path, {one.name for one in folders}):
        complete[row.recipe] = max(complete.get(row.recipe, ""), row.created)
    with suppress(OSError, yaml.YAMLError, AttributeError):
        last.setdefault(str(yaml.safe_load((path / REMEMBERED).read_text()).get("name", "")), "")
    names = [name for name, finished in last.items() if name not in complete or complete[name] < finished]
    return f"a run of {names[0]} did not come to its end" if names else ""


def _complete_rows(path: Path, stages: set[str]) -> Iterator[Row]:
    """Give the rows of runs of this workspace to which nothing is added any more."""
    own = path / "leaderboard.db"
    for place in dict.fromkeys([*([own] if own.is_file() else ()), *filter(None, [shared_store()])]):
        for row in open_store(place).rows(every=True):
            here = set(_STAGE.findall(str(row.details.get("predictions", "")))) & stages
            if here and row.details.get("state") == "complete":
                yield row


def _kind(parts: tuple[str, ...]) -> str:
    """Say what a file of a workspace is, by the parts of its path there."""
    if parts[0] == "artifacts":
        return "checkpoints" if CHECKPOINT in parts[2:3] else "stages"
    if parts[0] == "cache" and len(parts) > 1:
        if parts[1] == FOLDER:
            return "fetched files"
        other = parts[1] == "converted" or len(parts) < 3
        return "soft targets" if parts[1] == _SOFT_TARGETS else "other" if other else "decoded images"
    named = {"bundles": "bundles", "runs": "pages and tables"}
    return named.get(parts[0], "leaderboard" if parts[0].startswith("leaderboard") else "other")


def _files(path: Path) -> Iterator[Path]:
    for root, _, names in os.walk(path):
        yield from (Path(root, name) for name in names)
