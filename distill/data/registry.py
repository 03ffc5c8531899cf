"""The registry of data sets, and `load_dataset`, which reads one by its name.

Every module of `sets` declares its own data sets; installed packages add theirs by entry points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tutelage.plugins import Registry, modules_of
from tutelage.records import InputError

from .assemble import assemble
from .containers.hub import is_hub_name
from .dataset import SPLITS, Dataset, DatasetEntry, Listing, Request, without_collector
from .sets.phantom import phantom

__all__ = ["DATASETS", "SPLITS", "Dataset", "Request", "load_dataset", "phantom"]

MAX_SIZE = 1024

DATASETS = Registry("datasets", "data set", DatasetEntry, modules_of("tutelage.distill.data.sets", DatasetEntry))


def split_hub_name(name: str, path: Path | None) -> tuple[str, Path | None]:
    """Give the data set and the path that a name stands for: `hf:owner/name` is data set parquet at that path."""
    if not is_hub_name(name):
        return name, path
    if path is not None:
        raise InputError(f"{name!r} and path {str(path)!r} say where the images lie: leave path out")
    return "parquet", Path(name)


def load_dataset(
    name: str,
    *,
    path: Path | None = None,
    size: int,
    channels: int = 1,
    seed: int = 0,
    val_fraction: float = 0.15,
    test_fraction: float = 0.2,
    cache: Path | None = None,
    limit: int | None = None,
    whole_test: bool = False,
    skip_bad: bool = False,
    leaky: bool = False,
    fold: int | None = None,
    folds: int = 5,
    options: Mapping[str, Any] | None = None,
    workers: int = 1,
) -> Dataset:
    """Load a set by its name in `DATASETS` (or `hf:owner/name[@revision][:config]`), resized to `size` pixels.

    `val_fraction` and `test_fraction` are of all images, where the set has no split of its own; `fold` of `folds`
    takes the place of `test_fraction`. `cache` is a folder for decoded images. `limit` keeps about that many images,
    classes by their fraction, and with `whole_test` all of the set's own test split besides. `leaky` splits by image.
    `options` are the data set's own. `workers` processes decode.
    Raises InputError, one line, for anything in the data or the request that cannot be used.
    """
    request = request_for(
        name,
        path=path,
        size=size,
        channels=channels,
        seed=seed,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        cache=cache,
        limit=limit,
        whole_test=whole_test,
        skip_bad=skip_bad,
        leaky=leaky,
        fold=fold,
        folds=folds,
        options=options,
        workers=workers,
    )
    return complete(open_images(request), request)


def request_for(
    name: str,
    *,
    path: Path | None = None,
    size: int,
    channels: int = 1,
    cache: Path | None = None,
    options: Mapping[str, Any] | None = None,
    **others: Any,
) -> Request:
    """Make the request of `load_dataset`'s arguments. Raises InputError for what the data set does not take."""
    name, path = split_hub_name(name, path)
    entry = DATASETS.find(name)
    if not 8 <= size <= MAX_SIZE:
        raise InputError(f"size must be 8 to {MAX_SIZE} pixels, got {size}")
    if channels not in (1, 3):
        raise InputError(f"channels must be 1 or 3, got {channels}")
    request = Request(
        name=name,
        path=Path(path) if path is not None else None,
        size=size,
        channels=channels,
        cache=Path(cache) if cache is not None else None,
        options=dict(options or {}),
        **others,
    )
    entry.check_request(request.path, request.options)
    return replace(request, title=entry.title_of(request))


def open_images(request: Request) -> Listing | Dataset:
    """List the files of a data set, of which none is decoded yet, or load a set of arrays."""
    entry = DATASETS.find(request.name)
    if entry.load_arrays is not None:
        return entry.load_arrays(request)
    assert entry.list_files is not None, "the entry has either"
    with without_collector():
        return entry.list_files(request)


def complete(found: Listing | Dataset, request: Request) -> Dataset:
    """Make the data set of what `open_images` gave: files are decoded."""
    return found if isinstance(found, Dataset) else assemble(found, request)
