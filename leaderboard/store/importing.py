"""Other people's results: another workspace, CSV or JSON that we exported, timm's results.csv.

`import_file` adds the rows of a file, marked `imported` with the file they came from, and raw samples where there are
any; `read_file` reads them alone.
"""

from __future__ import annotations

import io
import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError

from tutelage.leaderboard.columns import COLUMNS, COMPUTED, OF_FORMER, Column, by_any_name, known
from tutelage.leaderboard.export import as_named
from tutelage.records import InputError, Measurement, Row, bounded_text, parsed_json

from .details import check_details, facts_said
from .engines import copied
from .rows import Store

# timm's results-*.csv: percentages, millions of parameters, G MACs. Its infer columns are images/s, which is no
# single-stream latency, so they stay in the details.
_TIMM = {"model", "top1", "param_count"}
# timm names its files after the test set: results-imagenet-real.csv.
_TIMM_PREFIX = "results-"
_MOST_MILLIONS = 1e6  # of parameters: a table beyond it counts parameters, not millions
_MOST_BILLIONS = 1e7  # of multiply-accumulates, likewise
_MAX_DEPTH = 50
_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 60


def read_file(path: Path) -> tuple[list[Row], list[Measurement]]:
    """Read a leaderboard.db, .json or .csv; raise InputError that names the line that cannot be used."""
    if not path.is_file():
        raise InputError(f"{path} is not a file: name a .csv, .json or leaderboard.db")
    if path.suffix in (".db", ".sqlite"):
        return _read_store(path)
    if path.suffix == ".json":
        found = [(f"{path}, row {place}", record) for place, record in enumerate(_json_records(path), 1)]
        return _to_rows(found, path), []
    if path.suffix == ".csv":
        records = _csv_records(path)
        if records and set(records[0][1]) >= _TIMM:
            _refuse_fractions(records, path)
            return [_from_timm(record, path, where) for where, record in records], []
        return _to_rows(records, path), []
    raise InputError(f"{path}: cannot import {path.suffix or 'a file without an ending'}: give .csv, .json or .db")


def import_file(store: Store, path: Path) -> int:
    """Add other people's results (CSV, JSON, timm's results.csv, a leaderboard.db); return how many rows were new."""
    return store.add(*read_file(path))


def mark_imported(row: Row, origin: str) -> Row:
    """Say of a row that it was not measured here, and where it came from; a mark from before is kept."""
    details = {"imported_from": origin, **row.details}
    return row.model_copy(update={"source": "imported", "details": details})


def _read_store(path: Path) -> tuple[list[Row], list[Measurement]]:
    with TemporaryDirectory() as folder:
        # A copy, so that a store of an older version is read, too, and left as it is.
        other = Store(copied(path, Path(folder, path.name)), backup=False)
        rows = [mark_imported(row, path.name) for row in other.rows()]
        for row in rows:
            check_details(row.details, f"{path}, model {row.model!r}")
        return rows, other.measurements(sorted({row.measurement for row in rows if row.measurement}))


def _json_records(path: Path) -> list[dict[str, Any]]:
    try:
        data = parsed_json(bounded_text(path))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not JSON ({error})") from error
    data = data.get("rows", data) if isinstance(data, dict) else data
    if not isinstance(data, list) or not all(isinstance(record, dict) for record in data):
        raise InputError(f"{path} does not hold a list of rows: see `tutelage leaderboard export --format json`")
    return data


def _csv_records(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Read the rows of a CSV by the names of its head, each with the file and line it ends on."""
    import csv

    records: list[tuple[str, dict[str, Any]]] = []
    try:
        reader = csv.reader(io.StringIO(bounded_text(path, encoding="utf-8-sig")))
        head = next(reader, [])
        for name in head:
            if not name or head.count(name) > 1:
                raise InputError(f"{path}: the head names a column {name!r} {head.count(name)} times: name each once")
        for cells in reader:
            if cells and len(cells) != len(head):
                raise InputError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells, and the head has {len(head)}; quote a cell "
                    "that holds a comma"
                )
            if cells:
                records.append((f"{path}, line {reader.line_num}", dict(zip(head, map(as_named, cells), strict=True))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file in UTF-8 ({error})") from error
    return records


def _to_rows(records: Sequence[tuple[str, Mapping[str, Any]]], path: Path) -> list[Row]:
    """Read our exported rows, each with its place; those that the file says are not current are left out."""
    current = [one for one in records if all(one[1].get(name) in (None, "") for name in OF_FORMER)]
    return [_to_row(record, path, where) for where, record in current]


def _to_row(record: Mapping[str, Any], path: Path, where: str) -> Row:
    """Read one of our exported rows; empty cells are figures that were not measured."""
    columns = by_any_name()
    values = {
        columns[name].name if name in columns else name: value
        for name, value in record.items()
        if value not in (None, "") and name not in COMPUTED
    }
    for name in ("arch", "details"):
        if isinstance(values.get(name), str):
            values[name] = _json_cell(values[name], name, where)
    values.pop("measurement", None)  # its raw samples did not come along
    details = values.pop("details", {})
    if not isinstance(details, dict):
        raise InputError(f"{where}: details is {_brief.repr(details)}: give a JSON object, or leave it empty")
    values |= {name: _figure(columns[name], value, where) for name, value in values.items() if _is_figure(name)}
    _refuse_odd_figures(values, where)
    inside = {name: values.pop(name) for name in sorted(set(values) - set(Row.model_fields))}
    for name, value in inside.items():
        if name in columns and columns[name].read(details) not in (None, ""):
            continue  # what the details say is more exact
        details = _placed(details, columns[name].paths[0] if name in columns else (name,), value)
    details = _storable(details, where)
    check_details(details, where)
    values = {**{name: said for name, said in facts_said(details, {}).items() if said not in ("", None)}, **values}
    values = {name: value if isinstance(value, float) else _storable(value, where) for name, value in values.items()}
    try:
        return mark_imported(Row.model_validate({**values, "details": details}), path.name)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "row"
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: {field}: {message} (got {_brief.repr(first.get('input'))})") from error


def _json_cell(text: str, name: str, where: str) -> Any:
    try:
        return parsed_json(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: {name} is not JSON: {text[:60]!r}") from error


def _is_figure(name: str) -> bool:
    return name in COLUMNS and COLUMNS[name].is_number


def _placed(details: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Put a column's value where it stands in the details; what stands there already is kept."""
    first, *rest = path
    there = details.get(first)
    if not rest:
        return {first: value, **details}
    if there is None or isinstance(there, dict):
        return {**details, first: _placed(there or {}, rest, value)}
    return details


def _figure(column: Column, value: Any, where: str) -> float | int:
    """Read one figure; a whole number where a column counts."""
    figure = _number(column.name, value, where)
    if not column.is_whole:
        return figure
    if not figure.is_integer() or abs(figure) >= 2**63:
        raise InputError(f"{where}: {column.name} is {_brief.repr(value)}: give a whole number below 2^63")
    return int(value) if isinstance(value, int) else int(figure)


def _number(name: str, value: Any, where: str) -> float:
    """Read a finite number, or text that is one."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(
            f"{where}: {name} is {_brief.repr(value)}: give a finite number, or leave it empty if it was not measured"
        )
    return number


def _storable(value: Any, where: str, depth: int = 0) -> Any:
    """Give what a database and JSON can hold: NaN in details becomes null, NUL and half characters are refused."""
    if depth > _MAX_DEPTH:
        raise InputError(f"{where}: details are nested more than {_MAX_DEPTH} deep")
    if isinstance(value, dict):
        return {_storable(str(name), where): _storable(one, where, depth + 1) for name, one in value.items()}
    if isinstance(value, list):
        return [_storable(one, where, depth + 1) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str) and ("\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value)):
        raise InputError(f"{where}: {_brief.repr(value)} holds a NUL or half a character: write plain text")
    return value


def _refuse_odd_figures(values: Mapping[str, Any], where: str) -> None:
    """Refuse what no measurement gives: a fraction outside 0 to 1, a cost of zero, bounds in the wrong order."""
    for one in known():
        if one.name not in values:
            continue
        figure = values[one.name]
        if (one.valid == "fraction" and not 0 <= figure <= 1) or (one.valid == "positive" and not figure > 0):
            raise InputError(f"{where}: {one.name} is {figure!r}: leave it empty if it was not measured")
        above = one.at_most
        while above and above not in values:
            above = COLUMNS[above].at_most
        if above and figure > values[above]:
            raise InputError(f"{where}: {one.name} is {figure!r} and {above} is {values[above]!r}: they are swapped")


def _refuse_fractions(records: Sequence[tuple[str, Mapping[str, Any]]], path: Path) -> None:
    """Refuse a table whose units are not timm's: top1 is a percentage there, param_count is in millions."""
    if all(0 <= _number("top1", record["top1"], where) <= 1 for where, record in records):
        raise InputError(f"{path}: every top1 is at most 1: timm's results give percentages, e.g. 69.8")


def _from_timm(record: Mapping[str, Any], path: Path, where: str) -> Row:
    """Read a line of timm's results: one ImageNet-like test set, no device."""
    if not record["model"]:
        raise InputError(f"{where}: model is empty: name the network")
    accuracy = _number("top1", record["top1"], where) / 100
    millions = _number("param_count", str(record["param_count"]).replace(",", ""), where)
    if abs(millions) > _MOST_MILLIONS:
        raise InputError(f"{where}: param_count is {record['param_count']!r}: give millions of parameters, e.g. 11.69")
    gmacs = record.get("gmacs") or record.get("infer_gmacs")
    figures = {"accuracy": accuracy, "params": round(millions * 1e6)}
    if gmacs:
        billions = _number("gmacs", gmacs, where)
        if abs(billions) > _MOST_BILLIONS:
            raise InputError(f"{where}: gmacs is {gmacs!r}: give billions of multiply-accumulates, e.g. 4.1")
        figures["macs"] = round(billions * 1e9)
    _refuse_odd_figures(figures, where)
    kept = {name: value for name, value in record.items() if value not in (None, "")}
    values = {
        "model": str(record["model"]),
        "role": "baseline",
        "dataset": path.stem.removeprefix(_TIMM_PREFIX),
        **figures,
        "details": {"timm": kept},
    }
    return mark_imported(Row.model_validate(_storable(values, where)), path.name)
