"""Architectures against devices: one figure in every cell, or why there is none (`matrices`, `to_csv`).

A line is an architecture and folds its files: fp32 and int8, teachers, seeds, roles. Its cell is the best of them.
terminal/matrix.py prints it; page/page_matrix.js builds the same of the rows that a reader's filter leaves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tutelage.leaderboard import pareto
from tutelage.leaderboard.columns import Column, column, with_interval
from tutelage.leaderboard.export import csv_text, inert
from tutelage.leaderboard.gained import is_absent
from tutelage.leaderboard.names import data_names, device_names, title
from tutelage.records import STATES, InputError

if TYPE_CHECKING:
    from tutelage.leaderboard.store import Store

# In the order in which one of several reasons is given for a cell whose files have no figure.
State = Literal["measured", "imported", "failed", "pending", "predicted", "absent", "never"]
_REASONS: tuple[State, ...] = ("failed", "pending", "predicted", "absent")
NEVER = "never run on this device"
PENDING = "its run goes on, or was stopped before"
MOST_ROWS = 200_000


@dataclass(frozen=True)
class Cell:
    """A figure with the ends of its interval and the row that has it, or the reason why there is none."""

    state: State
    value: float | None = None
    ends: tuple[float | None, float | None] = (None, None)
    reason: str = ""
    row_id: str = ""


@dataclass(frozen=True)
class Line:
    """An architecture, or with `of` one of its files; a cell for each device."""

    name: str
    cells: tuple[Cell, ...]
    num_files: int
    of: str = ""


@dataclass(frozen=True)
class Matrix:
    """The lines of one data set, best figure first; devices with the most rows first, as (name, runtime)."""

    place: str
    figure: Column
    devices: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]


def halted(details: Mapping[str, Any]) -> tuple[State, str]:
    """Say what a row's details give as the reason for figures that it lacks; "absent" where they give none."""
    if isinstance(failed := details.get("failed"), str) and failed:
        return "failed", failed
    if details.get("state") in STATES[:-1]:
        return "pending", PENDING
    if isinstance(said := details.get("latency"), str) and said:
        predicted = details.get("predicted_ms")
        guess = f"{predicted[1]:.3g} ms " if isinstance(predicted, list) and len(predicted) == 3 else ""
        return "predicted", f"{guess}{said}"
    return "absent", ""


def matrices(store: Store, figure: str, filter: str = "", *, is_open: bool = False) -> list[Matrix]:
    """Read the matrix of each data set among the rows that a filter keeps; is_open: with a line for each file."""
    one = column(figure)
    if not one.is_number or one.group not in ("quality", "cost"):
        raise InputError(f"{figure!r} is no quality and no cost: name a figure such as latency_p50_ms, auc, energy_mj")
    if (size := store.count(filter)) > MOST_ROWS:
        raise InputError(f"{size:,} rows are too many for one table, at most {MOST_ROWS:,}: choose some by --filter")
    bounds = [f"{name}{end}" for name in with_interval([one.name]) for end in ("_lo", "_hi")]
    names = ("row_id", "model", "teacher", "scheme", "role", "seed", "recipe", "arch", "parent", one.name, *bounds)
    found = store.columns(filter, tuple(dict.fromkeys((*pareto.GROUP, *names))))
    return matrices_of(found, one, store.details, is_open=is_open)


def matrices_of(
    found: Mapping[str, Sequence[Any]],
    figure: Column,
    details: Callable[[list[str]], Mapping[str, str]],
    *,
    is_open: bool = False,
) -> list[Matrix]:
    """Build the matrices of columns as `Store.columns` gives them; `details` gives those of rows without the figure."""
    import json

    values = found[figure.name]
    lacking = [place for place, value in enumerate(values) if is_absent(value)]
    texts = details([found["row_id"][place] for place in lacking])
    why = {place: halted(json.loads(texts.get(found["row_id"][place]) or "{}")) for place in lacking}
    places, rigs = data_names(found), device_names(found)
    by_place: dict[str, list[int]] = {}
    for number, place in enumerate(places):
        by_place.setdefault(place, []).append(number)
    built = []
    for place, rows in by_place.items():
        counts = Counter(rigs[row] for row in rows)
        order = sorted(counts, key=lambda rig: (-counts[rig], rig))
        first = {rigs[row]: row for row in reversed(rows)}
        devices = tuple((rig or "no device", _runtime(found, first[rig])) for rig in order)
        lines = _lines(found, figure, why, rows, [rigs[row] for row in rows], order, is_open)
        built.append(Matrix(place, figure, devices, tuple(lines)))
    return built


def _runtime(found: Mapping[str, Sequence[Any]], row: int) -> str:
    return " ".join(filter(None, (found["runtime"][row], found["runtime_version"][row])))


def _lines(
    found: Mapping[str, Sequence[Any]], figure: Column, why: Mapping[int, tuple[State, str]], rows: Sequence[int],
    rigs: Sequence[str], order: Sequence[str], is_open: bool,
) -> list[Line]:  # fmt: skip
    folds: dict[str, dict[tuple[Any, ...], dict[str, list[int]]]] = {}
    for row, rig in zip(rows, rigs, strict=True):
        key = found["arch"][row] or found["parent"][row] or found["model"][row]
        file = tuple(found[name][row] for name in ("model", "teacher", "scheme", "role", "seed", "recipe"))
        folds.setdefault(key, {}).setdefault(file, {}).setdefault(rig, []).append(row)
    groups = []
    for files in folds.values():
        name = min((file[0] for file in files), key=lambda text: (len(text), text))
        cells = [[row for some in files.values() for row in some.get(rig, ())] for rig in order]
        line = Line(name, tuple(_cell(found, figure, why, some) for some in cells), len(files))
        inside = []
        if is_open and len(files) > 1:
            called = _called(list(files))
            inside = [
                Line(called[n], tuple(_cell(found, figure, why, some.get(rig, ())) for rig in order), 1, name)
                for n, some in enumerate(files.values())
            ]
        groups.append((line, sorted(inside, key=_rank(figure))))
    groups.sort(key=lambda group: _rank(figure)(group[0]))
    return [each for line, inside in groups for each in (line, *inside)]


def _called(files: Sequence[tuple[Any, ...]]) -> list[str]:
    """Name files by what tells them apart: role, seed and recipe only where they differ."""
    words = ("{}", "seed {}", "{}")
    telling = [place for place in range(3) if len({file[3 + place] for file in files}) > 1]
    return [
        " · ".join([title(*file[:3]), *(words[place].format(file[3 + place]) for place in telling)]) for file in files
    ]


def _rank(figure: Column) -> Callable[[Line], tuple[bool, float, str]]:
    sign = -1 if figure.better == "max" else 1

    def rank(line: Line) -> tuple[bool, float, str]:
        known = [sign * cell.value for cell in line.cells if cell.value is not None]
        return not known, min(known, default=0.0), line.name

    return rank


def _cell(
    found: Mapping[str, Sequence[Any]], figure: Column, why: Mapping[int, tuple[State, str]], rows: Sequence[int]
) -> Cell:
    """Give the best figure of some rows: measured here before imported; or the first reason of `_REASONS`."""
    sign = -1 if figure.better == "max" else 1
    known = [row for row in rows if not is_absent(found[figure.name][row])]
    if known:
        best = min(known, key=lambda row: (found["source"][row] == "imported", sign * found[figure.name][row], row))
        ends = tuple(found[f"{figure.name}{end}"][best] if with_interval([figure.name]) else None for end in _ENDS)
        state: State = "imported" if found["source"][best] == "imported" else "measured"
        value = float(found[figure.name][best])
        return Cell(state, value, (ends[0], ends[1]), row_id=found["row_id"][best])
    if not rows:
        return Cell("never", reason=NEVER)
    reasons = [(_reason(figure, found["source"][row], *why[row]), row) for row in rows]
    (state, reason), row = min(reasons, key=lambda one: (_REASONS.index(one[0][0]), one[1]))
    return Cell(state, reason=reason, row_id=found["row_id"][row])


_ENDS = ("_lo", "_hi")


def _reason(figure: Column, source: str, state: State, reason: str) -> tuple[State, str]:
    """Say why a row lacks this figure: that a latency is predicted is no reason to lack an accuracy."""
    if state == "predicted" and not figure.is_of_device:
        state, reason = "absent", ""
    if state == "absent":
        return state, "the imported file does not say" if source == "imported" else "not measured there"
    return state, reason


def to_csv(found: Sequence[Matrix]) -> str:
    """Write matrices as CSV: of each device the figure in its stored unit, and beside it the state with its reason."""
    heads = list(dict.fromkeys(device for matrix in found for device in matrix.devices))
    called = [" ".join(filter(None, head)) for head in heads]
    figure = found[0].figure if found else None
    name = "" if figure is None else f"{figure.name}{f' [{figure.stored_unit}]' if figure.stored_unit else ''}"
    parts = [part for head in called for part in (f"{head}: {name}", f"{head}: state")]
    lines: list[list[Any]] = [["dataset", "architecture", "file", "files", *map(inert, parts)]]
    for matrix in found:
        for line in matrix.lines:
            by_device = dict(zip(matrix.devices, line.cells, strict=True))
            cells = [by_device.get(head, Cell("never", reason=NEVER)) for head in heads]
            pairs = [part for cell in cells for part in (_number(matrix.figure, cell), _state(cell))]
            names = (matrix.place, line.of or line.name, line.name if line.of else "")
            lines.append([*map(inert, names), line.num_files, *pairs])
    return csv_text(lines)


def _number(figure: Column, cell: Cell) -> float | int | str:
    return "" if cell.value is None else int(cell.value) if figure.is_whole else cell.value


def _state(cell: Cell) -> str:
    return f"{cell.state}: {cell.reason}" if cell.reason and cell.state != "never" else cell.state


def as_records(found: Sequence[Matrix]) -> list[dict[str, Any]]:
    """Give one record a cell, for JSON."""
    return [
        {
            **{"dataset": matrix.place, "architecture": line.of or line.name, "file": line.name if line.of else None},
            **{"device": device, "runtime": runtime, "figure": matrix.figure.name, "value": cell.value},
            **{"state": cell.state, "reason": cell.reason, "row_id": cell.row_id or None},
        }
        for matrix in found
        for line in matrix.lines
        for (device, runtime), cell in zip(matrix.devices, line.cells, strict=True)
    ]
