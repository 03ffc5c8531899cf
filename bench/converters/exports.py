"""Keep exported model files by their content, for all devices and workspaces of a user (`ExportCache`).

A file is named by what it is made of: the network, its input's shape, its format and the versions of the libraries that
write it. Several processes may use one folder: a file is written aside and renamed, and one that another process
removed meanwhile is made again.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tutelage.files import whole_file
from tutelage.records import NotAvailableError, content_id

from .litert import cache_folder

# Blocks and networks of a space are 0.1 to 30 MB each: about ten devices' worth.
MAX_BYTES = 2 << 30
# Raised by hand where our own code exports the same network as another file.
VERSION = 1
_WRITERS = ("torch", "onnx", "onnxscript", "onnxruntime", "executorch", "coremltools", "timm")
# What was used within this time stays, however much there is: another process may be reading it.
_IN_USE_SECONDS = 3600.0


@dataclass(frozen=True)
class ExportCache:
    """A folder of exported files; `prune` holds it to `max_bytes`, what was not used for longest going first."""

    folder: Path
    max_bytes: int = MAX_BYTES

    def fetch(self, key: str, path: Path, make: Callable[[Path], object]) -> None:
        """Bring the file of a key to `path`, its suffix the format; `make` writes it where it is not kept yet.

        key: says all that the file is made of, but for the versions of libraries.
        """
        kept = self.folder / f"{content_id([VERSION, key, _versions()])}{path.suffix}"
        with suppress(FileNotFoundError):  # not kept, or another process has just removed it
            os.utime(kept)
            shutil.copyfile(kept, path)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(kept) as aside:
            make(aside)
            shutil.copyfile(aside, path)

    def prune(self) -> int:
        """Remove what was not used for longest until the rest fits; gives how many files went."""
        models: dict[str, list[tuple[Path, os.stat_result]]] = {}
        newest = 0.0
        for file in self.folder.glob("*"):
            with suppress(FileNotFoundError):
                status = file.stat()
                if file.is_file():
                    models.setdefault(file.stem, []).append((file, status))
                    newest = max(newest, status.st_mtime)
        total = sum(status.st_size for files in models.values() for _, status in files)
        removed = 0
        for files in sorted(models.values(), key=_last_used):
            if total <= self.max_bytes or _last_used(files) > newest - _IN_USE_SECONDS:
                break
            # Weights last: a model is looked for by its other file (.param, .xml), which must not stand alone.
            for file, status in sorted(files, key=lambda one: one[0].suffix == ".bin"):
                file.unlink(missing_ok=True)
                total, removed = total - status.st_size, removed + 1
        return removed


def _last_used(files: list[tuple[Path, os.stat_result]]) -> float:
    return max(status.st_mtime for _, status in files)


def _versions() -> list[str]:
    found = []
    for name in _WRITERS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@contextmanager
def export_cache(workspace: Path, *, kept: bool = True) -> Iterator[ExportCache]:
    """Open the user's cache of exports, and hold it to its size at the end; not `kept`: a folder for this once.

    A user without a home has one in each workspace.
    """
    if not kept:
        with TemporaryDirectory(prefix="tutelage-exports-") as once:
            yield ExportCache(Path(once))
        return
    try:
        folder = cache_folder() / "exports"
    except NotAvailableError:
        folder = workspace / "cache" / "exports"
    cache = ExportCache(folder)
    try:
        yield cache
    finally:
        cache.prune()
