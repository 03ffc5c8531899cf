"""The networks that a profile's latency model was fitted on: `NAME.measurements.csv` beside the profile.

With its table a model can be fitted again, by whoever doubts it, and serve the model of another device.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from tutelage.files import write_text
from tutelage.records import Arch, InputError

from .measurements import Measured, read_measured

_LISTS = ("ks", "e", "d", "w")


def table_path(folder: Path, name: str) -> Path:
    """Say where the table of a profile lies."""
    return Path(folder) / f"{name}.measurements.csv"


def write_table(path: Path, archs: Sequence[Arch], latency_ms: ArrayLike) -> None:
    """Write architectures and their milliseconds, a row each, as `--from-measurements` reads them; whole or not."""
    dicts = [arch.to_dict() for arch in archs]
    lists = [key for key in _LISTS if any(key in one for one in dicts)]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["space", "r", *lists, "ms"])
    for one, ms in zip(dicts, np.asarray(latency_ms, dtype=np.float64).tolist(), strict=True):
        # Brackets: a list of one number stays a list.
        cells = ["[" + " ".join(map(str, one.get(key, ()))) + "]" for key in lists]
        rows.writerow([one["space"], one["r"], *cells, f"{ms:.6g}"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text.getvalue())
    except OSError as error:
        raise InputError(f"cannot write measurements {path}: {error.strerror}; choose another workspace") from error


def read_table(folder: Path, name: str) -> Measured:
    """Read the table beside a profile. Raises InputError where there is none, or what it holds is none."""
    path = table_path(folder, name)
    if not path.is_file():
        raise InputError(
            f"device {name} has no {path.name}: the networks that its model was fitted on were not kept; add the "
            "device again"
        )
    return read_measured(path)
