"""The leaderboard in a terminal: only the columns that fit, the front marked, figures with units."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.leaderboard import pareto
from tutelage.leaderboard.columns import COLUMNS, OF_FORMER, column, known, with_interval
from tutelage.leaderboard.export import columns_of, for_people
from tutelage.leaderboard.names import brief_teacher, data_names, device_names
from tutelage.leaderboard.store.page import SHARED, Page
from tutelage.records import Arch, InputError, Measurement, Row

from . import lines

if TYPE_CHECKING:
    from rich.console import Console

    Columns = Mapping[str, Sequence[Any]]

# Longer names are cut in the middle, where model names differ least.
_NAME_WIDTH = 34
# Below so many columns names are cut shorter, never so short that two of them look the same.
_NARROW, _NARROW_NAME, _NARROW_TEACHER = 100, 18, 15
_ID_WIDTH = 8


def show_table(
    rows: Sequence[Row] | Columns,
    console: Console,
    *,
    objectives: Sequence[str] | None = None,
    ties: str = "",
    limit: int = 200,
    title: str = "",
    names: Sequence[str] = (),
    more: Callable[[list[str]], Columns] | None = None,
    page: Page | None = None,
) -> None:
    """Print rows, best first, with `*` before those on the front.

    `page`: what is known of rows that are not there, where `rows` are one page of them, in order and marked.

    `names` are the columns to show beside the model, whether they fit or not; without them those are shown that fit.
    With `more`, `rows` need hold only `columns_to_rank`: it gives `needed_columns` of the rows that are printed.

    `objectives` choose another front, and each row says whether its intervals make it `sure` or `maybe` on it. A row
    that only a tie keeps on the front is a `tie`; `ties` (`pareto.parse_ties`) replace the usual ones (`ties.py`).
    """
    from rich.text import Text

    found = rows if isinstance(rows, Mapping) else columns_of(rows)
    if not len(found["dataset"]):
        console.print("The leaderboard holds no such row.")
        return
    order, marks = ranked(found, objectives, ties) if page is None else (list(range(len(page.marks))), page.marks)
    order = order[:limit]
    marked = [marks[place].startswith("*") for place in order]
    shown = _shown(found, order, needed_columns(names), more)
    shown["on_front"] = [marks[place] for place in order]
    former = {name: [found[name][place] for place in order] for name in OF_FORMER if name in found}
    former["superseded_by"] = [row_id[:_ID_WIDTH] for row_id in former.get("superseded_by", ())]
    former = {name: [_cut(printable(text)) for text in texts] for name, texts in former.items() if any(texts)}
    chosen = [column(name).name for name in names]
    cells = {name: _cells(shown, name) for name in (chosen or _by_priority())}
    cells.setdefault("on_front", shown["on_front"])
    cells.setdefault("model", _cells(shown, "model"))
    # What is not comparable has another name in the table, too.
    keys = {name: [found[name][place] for place in order] for name in pareto.GROUP}
    for name, named in (("dataset", data_names(keys)), ("device", device_names(keys))):
        if name in cells:
            cells[name] = [_cut(printable(text)) for text in named]
    cells |= former
    if former:
        cells["row_id"] = _cells(shown, "row_id")
    ways = pareto.directions(objectives) if objectives else ()
    always = _in_order(["on_front", "model", *chosen, *(("row_id", *former) if former else ())])
    cells |= _brief(shown, console.width)
    # The id is what `show ROW` and `compare` take; teacher and scheme where nothing else tells two rows apart; and what
    # an overall front is of, before the second of two qualities.
    quality = next((name for name in pareto.QUALITY if name in cells and any(cells[name])), "")
    sorted_by = (page.sort,) if page is not None and page.sort else ()
    wanted = ("on_front", "model", "row_id", *sorted_by, *former, *ways, *_telling(cells, keys), quality, *pareto.COSTS)
    shown_names = always if chosen else _fitting(cells, console.width, wanted)
    has_all = {name for name in wanted if any(cells.get(name, ()))} <= set(shown_names)
    if not chosen and not has_all and console.width < _NARROW:
        cells["model"] = cut_apart([printable(text) for text in shown["model"]], _NARROW_NAME)
        shown_names = _fitting(cells, console.width, wanted)
    lines.print_lines({name: cells[name] for name in shown_names}, marked, console, title)
    console.print(Text(_footer(page or _whole(found), len(order), shown_names, objectives, ties), style="dim"))


def ranked(found: Columns, objectives: Sequence[str] | None, ties: str) -> tuple[list[int], list[str]]:
    """Give the places of rows, best first, and of each row by its place its mark: `*` on the front, how sure, a tie."""
    return _order(found), pareto.marks(found, objectives, ties)


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
        table.add_row(Text(name, style="bold"), Text(printable(written)))
    for name, value in _flat(row.details):
        table.add_row(Text(name, style="dim"), Text(printable(value)))
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
    ways = pareto.directions(objectives) if objectives else {}
    bounds = [f"{name}{end}" for name in with_interval(ways) for end in ("_lo", "_hi")]
    names = ("row_id", "comparable", *pareto.GROUP, "runtime", "scheme", *pareto.QUALITY, *pareto.COSTS, *ways, *bounds)
    return tuple(dict.fromkeys(names))


def needed_columns(names: Sequence[str] = ()) -> tuple[str, ...]:
    """Name what a store must be read for to show these columns, or those that a table may show of itself.

    Without the long texts a store is read much faster.
    """
    shown = [
        column(name)
        for name in (*(names or _by_priority()), "model", "row_id", "teacher", *pareto.directions(pareto.QUALITY))
    ]
    read = [name for one in shown for name in (one.made_of or (one.name,)) if name != "on_front"]
    bounds = [f"{name}{end}" for name in with_interval(read) for end in ("_lo", "_hi")]
    return tuple(dict.fromkeys([*read, *bounds]))


def _by_priority() -> list[str]:
    """Name what a terminal may show, most wanted first: a narrow one drops columns from the end."""
    ranked = [(one.priority, one.name) for one in known() if one.priority is not None]
    return [name for _, name in sorted(ranked)]


def _in_order(names: Sequence[str]) -> list[str]:
    """List columns that a user named, each once; one that does not fit a table is an error."""
    for name in names:
        if COLUMNS[name].kind == "json":
            raise InputError(f"column {name!r} does not fit a table: `tutelage leaderboard show ROW` prints it")
    return list(dict.fromkeys(names))


def _shown(
    found: Columns, order: Sequence[int], names: Sequence[str], more: Callable[[list[str]], Columns] | None
) -> dict[str, list[Any]]:
    if more is None:
        return {name: [found[name][place] for place in order] for name in names}
    ids = [found["row_id"][place] for place in order]
    read = more(ids)
    places = {row_id: place for place, row_id in enumerate(read["row_id"])}
    return {name: [read[name][places[row_id]] for row_id in ids] for name in names}


def _order(found: Columns) -> list[int]:
    """Keep comparable rows together; inside, best AUC (else accuracy) first, rows without either last."""
    names = ("dataset", "device", *(name for name in pareto.GROUP if name not in ("dataset", "device")))
    grounds = found["comparable"] if "comparable" in found else list(zip(*(found[name] for name in names), strict=True))
    first = {ground: place for place, ground in reversed(list(enumerate(grounds)))}
    ordered = sorted(first, key=lambda ground: [str(found[name][first[ground]]) for name in names])
    rank = {ground: place for place, ground in enumerate(ordered)}
    auc = pareto.figures(found, "auc")
    quality = np.where(np.isnan(auc), pareto.figures(found, "accuracy"), auc)
    order: list[int] = np.lexsort((-quality, np.array([rank[ground] for ground in grounds]))).tolist()
    return order


def _cells(columns: Columns, name: str) -> list[str]:
    """Write the cells of a column; identifiers and names are cut."""
    if name == "on_front":
        return list(columns[name])
    written = for_people(COLUMNS[name], columns)
    if name == "row_id":
        return [text[:_ID_WIDTH] for text in written]
    return [_cut(printable(text)) for text in written] if COLUMNS[name].is_text else written


def printable(text: str) -> str:
    """Keep a name from steering the terminal: control characters are shown, not sent."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _cut(text: str, width: int = _NAME_WIDTH) -> str:
    if len(text) <= width:
        return text
    tail = width // 2 - 1
    return f"{text[: width - tail - 2]}..{text[-tail:]}"


def _brief(shown: Columns, width: int) -> dict[str, list[str]]:
    """Write models and teachers so that two of them never look the same."""
    teachers = [printable(text) for text in shown["teacher"]]
    return {
        "model": cut_apart([printable(text) for text in shown["model"]], _NAME_WIDTH),
        "teacher": brief_teachers(teachers, _NARROW_TEACHER if width < _NARROW else _NAME_WIDTH),
    }


def cut_apart(texts: Sequence[str], width: int) -> list[str]:
    """Cut texts in the middle to a width, or to the least above it at which two that differ still look different."""
    different = set(texts)
    longest = max(map(len, different), default=0)
    for wide in range(width, max(longest, width) + 1):
        cut = {text: _cut(text, wide) for text in different}
        if len(set(cut.values())) == len(different):
            break
    return [cut[text] for text in texts]


def brief_teachers(texts: Sequence[str], width: int) -> list[str]:
    """Write each row's teachers with every one of them named: `dense..21+deit_..y`, two that differ never alike."""
    parts = {text: brief_teacher(text).split(" + ") for text in set(texts)}
    if len({tuple(named) for named in parts.values()}) < len(parts):  # they differ in patch size or resolution alone
        parts = {text: text.split("+") for text in parts}
    names = sorted({name for named in parts.values() for name in named})
    brief: dict[str, str] = {}
    for each in range(width, 4, -1):
        cut = dict(zip(names, cut_apart(names, each), strict=True))
        brief = {text: "+".join(cut[name] for name in named) for text, named in parts.items()}
        if all(len(one) <= width for one in brief.values()):
            break
    return [brief[text] for text in texts]


def _telling(cells: Mapping[str, Sequence[str]], keys: Mapping[str, Sequence[Any]]) -> list[str]:
    """Name which of teacher and scheme are needed so that no two rows of one data set and device look the same."""
    grounds = list(zip(*keys.values(), strict=True))
    telling: list[str] = []
    for name in ("teacher", "scheme"):
        others = [one for one in ("model", "teacher", "scheme") if one != name]
        if name in cells and all(one in cells for one in others):
            seen: dict[object, set[str]] = {}
            for place, ground in enumerate(grounds):
                other = (ground, *(cells[one][place] for one in others))
                seen.setdefault(other, set()).add(cells[name][place])
            telling += [name] if any(len(texts) > 1 for texts in seen.values()) else []
    return telling


def _fitting(cells: dict[str, list[str]], width: int, wanted: Sequence[str]) -> list[str]:
    """Choose columns, `wanted` first, while they fit; one that is the same everywhere waits until all others did."""
    from rich.cells import cell_len

    useful = [name for name in cells if any(cells[name])]
    varied = [name for name in useful if name in ("model", "on_front") or len(set(cells[name])) > 1 or len(useful) < 3]
    chosen: set[str] = set()
    left = width
    needs = {name: max(map(cell_len, (lines.heading(name), *cells[name]))) + lines.GAP for name in useful}
    for name in dict.fromkeys((*(name for name in wanted if name in useful), *varied, *useful)):
        waits = name not in varied and name not in wanted and not chosen.issuperset(varied)
        if (needs[name] <= left and not waits) or name == "model":
            chosen.add(name)
            left -= needs[name]
    places = {one.name: place for place, one in enumerate(known())}
    return sorted((name for name in cells if name in chosen), key=lambda name: places.get(name, len(places)))


def _whole(found: Columns) -> Page:
    """Say of rows that are all there what a store says of those that it keeps."""
    shared = {name: set(found[name]) for name in SHARED}
    same = {name: str(values.pop()) for name, values in shared.items() if len(values) == 1}
    return Page({}, [], len(found["dataset"]), {name: only for name, only in same.items() if only})


def _footer(page: Page, num_shown: int, names: list[str], objectives: Sequence[str] | None, ties: str) -> str:
    same = [f"{name} {printable(only)}" for name, only in page.shared.items() if name not in names]
    front = (
        f"front of {', '.join(objectives)}" if objectives else "overall front (AUC else accuracy, p50, size; ties stay)"
    )
    size, first = page.count, page.offset
    which = f"rows {first + 1} to {first + num_shown}" if first else f"{num_shown}"
    count = f"{size} row{'s' * (size != 1)}" if size == num_shown else f"{which} of {size} rows (--limit, --page)"
    parts = [count, *same, f"* on the {front} among rows of the same data and device"]
    if objectives:
        if not pareto.without_interval(pareto.directions(objectives)):
            parts.append("sure, maybe: by 95 % intervals of quality and latency")
        parts.append(f"tie: within {ties or '.0005 of quality or 5 % of a measured cost'} of a row that dominates it")
    return " · ".join(parts)
