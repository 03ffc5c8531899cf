"""The leaderboard in a terminal: only the columns that fit, the front marked, figures with units.

Enters: rows and a rich console. Leaves: what was printed on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tutelage.records import Arch, Measurement, Row

from . import pareto
from .export import HEADINGS, frame, plain

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

# Most wanted first: a narrow terminal drops columns from the end of this list.
_WANTED = (
    *("on_front", "model", "auc", "accuracy", "latency_p50_ms", "scheme", "teacher", "size_bytes", "params"),
    *("macs", "row_id", "device", "dataset", "role", "latency_p99_ms", "peak_rss_bytes", "energy_mj", "runtime"),
    *("latency_p90_ms", "batch", "threads", "seed", "created"),
)
# As they stand on the screen, whichever of them fit.
_SHOWN = (
    *("on_front", "row_id", "model", "role", "teacher", "scheme", "dataset", "device", "runtime", "batch", "threads"),
    *("auc", "accuracy", "params", "macs", "size_bytes", "latency_p50_ms", "latency_p90_ms", "latency_p99_ms"),
    *("peak_rss_bytes", "energy_mj", "seed", "created"),
)
# What a store's frame must hold for `show_table`: without the long texts it is read twice as fast.
NEEDED_COLUMNS = (*(name for name in _WANTED if name != "on_front"), "split", "source")
_WORDS = ("row_id", "model", "role", "teacher", "scheme", "dataset", "device", "runtime", "created")
_HEADINGS = HEADINGS | {"on_front": "", "peak_rss_bytes": "RSS (MB)", "latency_p50_ms": "p50 (ms)"}
# Longer names are cut in the middle, where model names differ least.
_NAME_WIDTH = 34
_ID_WIDTH = 8
_GAP = 2


def show_table(
    rows: Sequence[Row] | pd.DataFrame,
    console: Console,
    *,
    objectives: Sequence[str] | None = None,
    limit: int = 200,
    title: str = "",
) -> None:
    """Print rows, best first, with `*` before those on the front; `objectives` choose another front."""
    from rich.table import Table
    from rich.text import Text

    if len(rows) == 0:
        console.print("The leaderboard holds no such row.")
        return
    found = rows if not isinstance(rows, Sequence) else frame(rows)
    flags = pareto.front(found, objectives) if objectives else pareto.on_front(found)
    found = found.assign(on_front=flags)
    shown = _sorted(found).head(limit)
    cells = {name: _cells(shown, name) for name in _WANTED if name in shown}
    names = _fitting(cells, console.width, console.encoding)
    table = Table(box=None, title=Text(title) if title else None, title_justify="left", pad_edge=False, padding=(0, 1))
    for name in names:
        right = name not in (*_WORDS, "on_front")
        table.add_column(_HEADINGS.get(name, name), justify="right" if right else "left", no_wrap=True)
    for place in range(len(shown)):
        marked = bool(cells["on_front"][place])
        # Text, not str: a model name with [brackets] is a name, not markup.
        table.add_row(*(Text(cells[name][place]) for name in names), style="bold green" if marked else "")
    console.print(table)
    console.print(Text(_footer(found, shown, names, objectives), style="dim"))


def show_row(row: Row, console: Console, *, measurement: Measurement | None = None) -> None:
    """Print everything known of one row: its figures, what made it (`details`), and how it was measured."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    for name in ("row_id", *type(row).model_fields):
        value = row.key if name == "row_id" else getattr(row, name)
        if value in (None, "", {}) or name in ("details", "measurement"):
            continue
        written = json.dumps(value.to_dict()) if isinstance(value, Arch) else str(value)
        table.add_row(Text(name, style="bold"), Text(_printable(written)))
    for name, value in _flat(row.details):
        table.add_row(Text(name, style="dim"), Text(_printable(value)))
    if measurement is not None:
        how = f"{len(measurement.samples_ms)} runs, {measurement.runtime} {measurement.runtime_version}"
        exact = measurement.effective_precision or measurement.precision
        spread = f"{min(measurement.samples_ms):.3g} to {max(measurement.samples_ms):.3g} ms, computed in {exact}"
        table.add_row(Text("measured", style="bold"), Text(f"{how}, {spread}"))
    console.print(table)


def _flat(details: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Name nested details by their path: `how.command`. Pictures are not for a terminal."""
    for name, value in details.items():
        path = f"{above}.{name}" if above else str(name)
        if isinstance(value, Mapping):
            yield from _flat(value, path)
        elif not (isinstance(value, str) and value.startswith("data:")):
            yield path, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _sorted(found: pd.DataFrame) -> pd.DataFrame:
    """Keep data sets and devices together; inside, best AUC (else accuracy) first."""
    quality = found["auc"].fillna(found["accuracy"])
    order = found.assign(_quality=quality)
    order = order.sort_values(["dataset", "device", "_quality"], ascending=[True, True, False], kind="stable")
    return order.drop(columns="_quality")


def _cells(shown: pd.DataFrame, name: str) -> list[str]:
    if name == "on_front":
        return ["*" if flag else "" for flag in shown[name]]
    if name == "row_id":
        return [str(value)[:_ID_WIDTH] for value in shown[name]]
    return [_cut(_printable(value)) if isinstance(value, str) else plain(value, name) for value in shown[name]]


def _printable(text: str) -> str:
    """Keep a name from steering the terminal: control characters are shown, not sent."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _cut(text: str) -> str:
    if len(text) <= _NAME_WIDTH:
        return text
    tail = _NAME_WIDTH // 2 - 1
    return f"{text[: _NAME_WIDTH - tail - 2]}..{text[-tail:]}"


def _fitting(cells: dict[str, list[str]], width: int, encoding: str) -> list[str]:
    """Choose columns in order of want while they fit; a column that is empty or the same everywhere waits."""
    from rich.cells import cell_len

    useful = [name for name in cells if any(cells[name])]
    varied = [name for name in useful if name in ("model", "on_front") or len(set(cells[name])) > 1 or len(useful) < 3]
    chosen: set[str] = set()
    left = width
    for name in (*varied, *(name for name in useful if name not in varied)):
        need = max(map(cell_len, (_HEADINGS.get(name, name), *cells[name]))) + _GAP
        if need <= left or name == "model":
            chosen.add(name)
            left -= need
    return [name for name in _SHOWN if name in chosen]


def _footer(found: pd.DataFrame, shown: pd.DataFrame, names: list[str], objectives: Sequence[str] | None) -> str:
    same: list[str] = []
    for name in ("dataset", "device", "runtime", "scheme"):
        values: list[Any] = found[name].unique().tolist()
        if name not in names and len(values) == 1 and values[0]:
            same.append(f"{name} {_printable(str(values[0]))}")
    what = ", ".join(objectives) if objectives else "AUC (else accuracy), p50, size"
    count = f"{len(found)} rows" if len(found) == len(shown) else f"{len(shown)} of {len(found)} rows (--limit)"
    return " · ".join([count, *same, f"* on the front of {what} within its data set and device"])
