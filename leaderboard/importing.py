"""Other people's results: another workspace, CSV or JSON that we exported, timm's results.csv.

Enters: a file. Leaves: rows marked `imported`, with the file they came from; raw samples only where there are any.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError

from tutelage.records import InputError, Measurement, Row, bounded_text, parsed_json

from .engines import copied
from .filters import number
from .schema import GAINS
from .ties import LATENCY_BOUNDS

# timm's results-*.csv: percentages, millions of parameters, G MACs. Its infer columns are images/s, which is no
# single-stream latency, so they stay in the details.
_TIMM = {"model", "top1", "param_count"}
_COMPUTED = ("row_id", "on_front")
# timm names its files after the test set: results-imagenet-real.csv.
_TIMM_PREFIX = "results-"


def read_file(path: Path) -> tuple[list[Row], list[Measurement]]:
    """Read a leaderboard.db, .json or .csv; raise InputError that names the line that cannot be used."""
    if not path.is_file():
        raise InputError(f"{path} is not a file: name a .csv, .json or leaderboard.db")
    if path.suffix in (".db", ".sqlite"):
        return _read_store(path)
    if path.suffix == ".json":
        return [_to_row(record, path, place) for place, record in enumerate(_json_records(path), 1)], []
    if path.suffix == ".csv":
        records = _csv_records(path)
        if records and set(records[0]) >= _TIMM:
            return [_from_timm(record, path, line) for line, record in enumerate(records, 2)], []
        return [_to_row(record, path, line) for line, record in enumerate(records, 2)], []
    raise InputError(f"{path}: cannot import {path.suffix or 'a file without an ending'}: give .csv, .json or .db")


def mark_imported(row: Row, origin: str) -> Row:
    """Say of a row that it was not measured here, and where it came from; a mark from before is kept."""
    details = {"imported_from": origin, **row.details}
    return row.model_copy(update={"source": "imported", "details": details})


def _read_store(path: Path) -> tuple[list[Row], list[Measurement]]:
    from .store import Store

    with TemporaryDirectory() as folder:
        # A copy, so that a store of an older version is read, too, and left as it is.
        other = Store(copied(path, Path(folder, path.name)))
        rows = [mark_imported(row, path.name) for row in other.rows()]
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


def _csv_records(path: Path) -> list[dict[str, Any]]:
    import csv

    try:
        reader = csv.DictReader(io.StringIO(bounded_text(path, encoding="utf-8-sig")), restkey="")
        records = [dict(record) for record in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file in UTF-8 ({error})") from error
    for line, record in enumerate(records, 2):
        if "" in record or None in record.values():
            raise InputError(
                f"{path}, line {line}: it does not have the {len(reader.fieldnames or ())} cells of the head"
            )
    return records


def _to_row(record: Mapping[str, Any], path: Path, place: int) -> Row:
    """Read one of our exported rows; empty cells are figures that were not measured."""
    values = {name: value for name, value in record.items() if value not in (None, "") and name not in _COMPUTED}
    if isinstance(values.get("arch"), str):
        values["arch"] = _arch(values["arch"], path, place)
    values.pop("measurement", None)  # its raw samples did not come along
    gains = {name: values.pop(name) for name in GAINS if name in values}
    bounds = {name: number(str(values.pop(name))) for name in LATENCY_BOUNDS if name in values}
    unknown = sorted(set(values) - set(Row.model_fields))
    if unknown:
        values["details"] = {**values.get("details", {}), **{name: values.pop(name) for name in unknown}}
    details = values.setdefault("details", {})
    if gains and "gain_over_twin" not in details:
        told = {GAINS[name][0]: number(str(value)) for name, value in gains.items()}
        values["details"] = {**details, "gain_over_twin": told}
    values["details"] = {**bounds, **values["details"]}
    _refuse_odd_figures(values, path, place)
    try:
        return mark_imported(Row.model_validate(values), path.name)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "row"
        raise InputError(f"{path}, row {place}: {where}: {first['msg']} (got {first.get('input')!r})") from error


def _arch(text: str, path: Path, place: int) -> Any:
    try:
        return parsed_json(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, row {place}: arch is not JSON: {text[:60]!r}") from error


def _refuse_odd_figures(values: Mapping[str, Any], path: Path, place: int) -> None:
    """Refuse what no measurement gives: NaN, infinity, a share outside 0 to 1, a cost of zero or less."""
    for name in ("accuracy", "auc", "latency_p50_ms", "size_bytes", "params", "macs", "energy_mj"):
        try:
            figure = float(values.get(name, 0.5))
        except (TypeError, ValueError):
            continue  # pydantic names it
        top = 1 if name in ("accuracy", "auc") else math.inf
        if not (math.isfinite(figure) and 0 <= figure <= top) or (figure == 0 and top != 1):
            raise InputError(f"{path}, row {place}: {name} is {values[name]!r}: leave it empty if it was not measured")


def _from_timm(record: Mapping[str, Any], path: Path, line: int) -> Row:
    """Read a line of timm's results: one ImageNet-like test set, no device."""
    try:
        accuracy = float(record["top1"]) / 100
        params = round(float(str(record["param_count"]).replace(",", "")) * 1e6)
        gmacs = record.get("gmacs") or record.get("infer_gmacs")
        macs = round(float(gmacs) * 1e9) if gmacs else None
    except ValueError as error:
        raise InputError(f"{path}, line {line}: {error}") from error
    kept = {name: value for name, value in record.items() if value not in (None, "")}
    _refuse_odd_figures({"accuracy": accuracy, "params": params}, path, line)
    row = Row(
        model=str(record["model"]),
        role="baseline",
        dataset=path.stem.removeprefix(_TIMM_PREFIX),
        accuracy=accuracy,
        params=params,
        macs=macs,
        details={"timm": kept},
    )
    return mark_imported(row, path.name)
