"""The leaderboard in a terminal: only the columns that fit, the front marked, figures with units."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.leaderboard import pareto
from tutelage.leaderboard.export import HEADINGS, columns_of, plain
from tutelage.leaderboard.ties import RESOLUTIONS, TOLERANCES, WITH_INTERVAL
from tutelage.records import Arch, Measurement, Row

from .gained import GAIN_COLUMNS, gain_words

if TYPE_CHECKING:
    from rich.console import Console

    Columns = Mapping[str, Sequence[Any]]

# Most wanted first: a narrow terminal drops columns from the end of this list.
_WANTED = (
    *("on_front", "model", "auc", "accuracy", "latency_p50_ms", "scheme", "teacher", "size_bytes", "gain"),
    *(
        "params",
        "macs",
        "row_id",
        "device",
        "dataset",
        "role",
        "latency_p99_ms",
        "peak_rss_bytes",
        "energy_mj",
        "runtime",
    ),
    *("latency_p90_ms", "batch", "threads", "seed", "created"),
)
# As they stand on the screen, whichever of them fit.
_SHOWN = (
    *("on_front", "row_id", "model", "role", "teacher", "scheme", "dataset", "device", "runtime", "batch", "threads"),
    *("auc", "accuracy", "gain", "params", "macs", "size_bytes", "latency_p50_ms", "latency_p90_ms", "latency_p99_ms"),
    *("peak_rss_bytes", "energy_mj", "seed", "created"),
)
_BOUNDS = ("auc_lo", "auc_hi", "accuracy_lo", "accuracy_hi")
# What a store must be asked for to show it: without the long texts it is read much faster.
NEEDED_COLUMNS = (
    *(name for name in _WANTED if name not in ("on_front", "gain")),
    *GAIN_COLUMNS,
    *_BOUNDS,
    "split",
    "source",
)
_WORDS = (*("model", "role", "teacher", "scheme", "dataset", "device", "runtime", "created", "row_id"), "gain")
_HEADINGS = HEADINGS | {"on_front": "", "peak_rss_bytes": "RSS (MB)", "gain": "gain of teacher"}
# Longer names are cut in the middle, where model names differ least.
_NAME_WIDTH = 34
# Below so many columns teachers' names are cut shorter: rows that differ by their teacher alone must look different.
_NARROW, _SHORT_NAME = 100, 14
_ID_WIDTH = 8
_GAP = 2


def show_table(
    rows: Sequence[Row] | Columns,
    console: Console,
    *,
    objectives: Sequence[str] | None = None,
    ties: str = "",
    limit: int = 200,
    title: str = "",
    more: Callable[[list[str]], Columns] | None = None,
) -> None:
    """Print rows, best first, with `*` before those on the front.

    With `more`, `rows` need hold only `columns_to_rank`: it is asked for `NEEDED_COLUMNS` of the rows that are printed.

    `objectives` choose another front, and each row says whether its intervals make it `sure` or `maybe` on it. A row
    that only a tie keeps on the front is a `tie`; `ties` (`pareto.parse_ties`) replace the usual ones (`ties.py`).
    """
    from rich.table import Table
    from rich.text import Text

    found = rows if isinstance(rows, Mapping) else columns_of(rows)
    if not len(found["dataset"]):
        console.print("The leaderboard holds no such row.")
        return
    order, marks = ranked(found, objectives, ties)
    order = order[:limit]
    marked = [marks[place].startswith("*") for place in order]
    shown = _shown(found, order, more)
    shown["on_front"] = [marks[place] for place in order]
    shown["gain"] = [gain_words(values) for values in zip(*(shown[name] for name in GAIN_COLUMNS), strict=True)]
    cells = {name: _cells(shown[name], name) for name in _WANTED if name in shown}
    if console.width < _NARROW:
        cells["teacher"] = [_cut(text, _SHORT_NAME) for text in cells["teacher"]]
    asked = pareto.directions(objectives) if objectives else ()
    names = _fitting(cells, console.width, wanted=("on_front", *(("row_id", *asked) if objectives else ())))
    table = Table(box=None, title=Text(title) if title else None, title_justify="left", pad_edge=False, padding=(0, 1))
    for name in names:
        right = name not in (*_WORDS, "on_front")
        table.add_column(_HEADINGS.get(name, name), justify="right" if right else "left", no_wrap=True)
    for place, is_marked in enumerate(marked):
        # Text, not str: a model name with [brackets] is a name, not markup.
        table.add_row(*(Text(cells[name][place]) for name in names), style="bold green" if is_marked else "")
    console.print(table)
    console.print(Text(_footer(found, len(order), names, objectives, ties), style="dim"))


def ranked(found: Columns, objectives: Sequence[str] | None, ties: str) -> tuple[list[int], list[str]]:
    """Give the places of rows, best first, and of each row by its place its mark: `*` on the front, how sure, a tie."""
    return _order(found), _marks(found, objectives, ties)


def _marks(found: Columns, objectives: Sequence[str] | None, ties: str) -> list[str]:
    if not objectives:
        return ["*" if flag else "" for flag in pareto.on_front(found)]
    ways = pareto.directions(objectives)
    flags = pareto.front(found, ways)
    own = pareto.parse_ties(ties, ways) if ties else {}
    usual = {name: size for name, size in TOLERANCES.items() if name not in own}
    near = pareto.front(found, ways, epsilon={**RESOLUTIONS, **own}, tolerance=usual)
    verdicts = pareto.front_with_intervals(found, ways)
    words = {"sure": " sure", "maybe": " maybe", "no": ""}
    return [
        f"{'*' if flag else ' '}{' tie' if tie and not flag else words[verdict]}".rstrip()
        for flag, tie, verdict in zip(flags, near, verdicts, strict=True)
    ]


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


def columns_to_rank(objectives: Sequence[str] | None = None) -> tuple[str, ...]:
    """Name what must be known of every row to say which are printed, in which order, and which are on the front."""
    asked = pareto.directions(objectives) if objectives else {}
    bounds = [f"{name}{end}" for name in asked if name in WITH_INTERVAL for end in ("_lo", "_hi")]
    names = ("row_id", *pareto.GROUP, "runtime", "scheme", *pareto.QUALITY, *pareto.COSTS, *asked, *bounds)
    return tuple(dict.fromkeys(names))


def _shown(found: Columns, order: Sequence[int], more: Callable[[list[str]], Columns] | None) -> dict[str, list[Any]]:
    if more is None:
        return {name: [found[name][place] for place in order] for name in NEEDED_COLUMNS}
    ids = [found["row_id"][place] for place in order]
    asked = more(ids)
    places = {row_id: place for place, row_id in enumerate(asked["row_id"])}
    return {name: [asked[name][places[row_id]] for row_id in ids] for name in NEEDED_COLUMNS}


def _order(found: Columns) -> list[int]:
    """Keep data sets and devices together; inside, best AUC (else accuracy) first, rows without either last."""
    grounds = list(zip(found["dataset"], found["device"], strict=True))
    rank = {ground: place for place, ground in enumerate(sorted(set(grounds)))}
    auc = pareto.figures(found, "auc")
    quality = np.where(np.isnan(auc), pareto.figures(found, "accuracy"), auc)
    order: list[int] = np.lexsort((-quality, np.array([rank[ground] for ground in grounds]))).tolist()
    return order


def _cells(column: Sequence[Any], name: str) -> list[str]:
    if name == "row_id":
        return [str(value)[:_ID_WIDTH] for value in column]
    return [_cut(_printable(value)) if isinstance(value, str) else plain(value, name) for value in column]


def _printable(text: str) -> str:
    """Keep a name from steering the terminal: control characters are shown, not sent."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _cut(text: str, width: int = _NAME_WIDTH) -> str:
    if len(text) <= width:
        return text
    tail = width // 2 - 1
    return f"{text[: width - tail - 2]}..{text[-tail:]}"


def _fitting(cells: dict[str, list[str]], width: int, wanted: Sequence[str]) -> list[str]:
    """Choose columns, `wanted` first, while they fit; one that is empty or the same everywhere waits."""
    from rich.cells import cell_len

    useful = [name for name in cells if any(cells[name])]
    varied = [name for name in useful if name in ("model", "on_front") or len(set(cells[name])) > 1 or len(useful) < 3]
    chosen: set[str] = set()
    left = width
    first = [name for name in wanted if name in useful]
    for name in dict.fromkeys((*first, *varied, *(name for name in useful if name not in varied))):
        need = max(map(cell_len, (_HEADINGS.get(name, name), *cells[name]))) + _GAP
        if need <= left or name == "model":
            chosen.add(name)
            left -= need
    return [name for name in _SHOWN if name in chosen]


def _footer(found: Columns, num_shown: int, names: list[str], objectives: Sequence[str] | None, ties: str) -> str:
    same: list[str] = []
    for name in ("dataset", "device", "runtime", "scheme"):
        values = set(found[name])
        only = values.pop() if len(values) == 1 else ""
        if name not in names and only:
            same.append(f"{name} {_printable(str(only))}")
    what = ", ".join(objectives) if objectives else "AUC (else accuracy), p50, size"
    size = len(found["dataset"])
    count = f"{size} rows" if size == num_shown else f"{num_shown} of {size} rows (--limit)"
    told = [count, *same, f"* on the front of {what} within its data set and device"]
    if objectives:
        told.append("sure, maybe: by 95 % intervals of quality and latency")
        told.append(f"tie: within {ties or '.0005 of quality or 5 % of a measured cost'} of a row that dominates it")
    return " · ".join(told)
