"""The front door to image data: the registry of sets, `load_dataset`, and what else callers need by one import.

Enters: the name of a set and what is asked of it. Leaves: a `Dataset`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tutelage.distill.data.sets.chest import list_chestxray14, list_chexpert, list_padchest
from tutelage.distill.data.sets.covid import list_covid_qu_ex, list_sars_cov_2_ct
from tutelage.distill.data.sets.folders import list_cxr3, list_folder
from tutelage.distill.data.sets.lc25000 import list_lc25000
from tutelage.distill.data.sets.medmnist import load_medmnist
from tutelage.distill.data.sets.phantom import load_phantom, phantom
from tutelage.distill.data.sets.table import list_table
from tutelage.distill.data.sets.xray import list_xray
from tutelage.records import InputError

from .assemble import assemble
from .check import DataReport, check_path
from .dataset import SPLITS, Dataset, Listing, Request

__all__ = ["DATASETS", "SPLITS", "DataReport", "Dataset", "Request", "check_path", "load_dataset", "phantom"]

MAX_SIZE = 1024


def _files(list_files: Callable[[Request], Listing]) -> Callable[[Request], Dataset]:
    def load(request: Request) -> Dataset:
        return assemble(list_files(request), request)

    load.__doc__ = list_files.__doc__  # `tutelage data list` prints it
    return load


DATASETS: dict[str, Callable[[Request], Dataset]] = {
    "phantom": load_phantom,
    "medmnist": load_medmnist,
    "folder": _files(list_folder),
    "cxr3": _files(list_cxr3),
    "chestxray14": _files(list_chestxray14),
    "chexpert": _files(list_chexpert),
    "padchest": _files(list_padchest),
    "covid-qu-ex": _files(list_covid_qu_ex),
    "sars-cov-2-ct": _files(list_sars_cov_2_ct),
    "lc25000": _files(list_lc25000),
    "table": _files(list_table),
    "torchxrayvision": _files(list_xray),
}


def load_dataset(
    name: str,
    *,
    path: Path | None = None,
    size: int,
    channels: int = 1,
    seed: int = 0,
    val_share: float = 0.15,
    test_share: float = 0.2,
    cache: Path | None = None,
    limit: int | None = None,
    skip_bad: bool = False,
    leaky: bool = False,
    fold: int | None = None,
    folds: int = 5,
    options: Mapping[str, Any] | None = None,
    workers: int = 1,
) -> Dataset:
    """Load a set by its name in `DATASETS`, resized to `size` pixels.

    `val_share` and `test_share` are of all images and hold where the set has no split of its own; `fold` of `folds`
    takes the place of `test_share`. `cache` is a folder for decoded images. `limit` keeps about that many images,
    classes by their share. `leaky` splits by image. `options` are the family's own. `workers` processes decode.
    Raises InputError, one line, for anything in the data or the request that cannot be used.
    """
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f": did you mean {near[0]!r}?" if near else f": known are {', '.join(DATASETS)}"
        raise InputError(f"no data set {name!r}{hint}")
    if not 8 <= size <= MAX_SIZE:
        raise InputError(f"size must be 8 to {MAX_SIZE} pixels, got {size}")
    if channels not in (1, 3):
        raise InputError(f"channels must be 1 or 3, got {channels}")
    request = Request(
        name=name,
        path=Path(path) if path is not None else None,
        size=size,
        channels=channels,
        seed=seed,
        val_share=val_share,
        test_share=test_share,
        cache=Path(cache) if cache is not None else None,
        limit=limit,
        skip_bad=skip_bad,
        leaky=leaky,
        fold=fold,
        folds=folds,
        options=dict(options or {}),
        workers=workers,
    )
    return DATASETS[name](request)
