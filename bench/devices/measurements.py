"""Read measurements that others made: `read_measurements` gives architectures and milliseconds from their files.

CSV (comma, semicolon or tab), JSON, JSON lines and npz. An architecture stands in one column (`arch`, `config`,
`subnet`, DyNAS-T's `Sub-network`) as JSON or as Python prints a dict, or as `ks`, `e`, `d`, `r` in columns or arrays of
their own (HELP). A column of times says its unit in its name (`ms`, `latency_us`, `Latency (s)`) or its values do
(`12.3 ms`, nn-Meter's `12.3 +- 0.2`); without one they are milliseconds. docs/devices.md lists what is read.
"""

from __future__ import annotations

import ast
import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tutelage.bench.latency.labels import check_latencies
from tutelage.records import Arch, InputError, bounded_text, npz_arrays, parsed_json
from tutelage.search.spaces.space import find_space

from .ofa_table import is_ofa_table, read_ofa_table

_EXAMPLES = {"r": "the resolution in pixels, e.g. 'r': 64", "d": "the depths of its stages, e.g. 'd': [2, 3, 4, 2, 2]"}
_ARCH_KEYS = ("space", "ks", "e", "d", "r", "w")
_ARCH_COLUMNS = ("arch", "architecture", "config", "sub-network", "subnet", "subnetwork")
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".pk")
# Milliseconds in one of each unit.
_UNITS = {
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1.0),
    **dict.fromkeys(("us", "usec", "µs", "μs", "microsecond", "microseconds"), 1e-3),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1e3),
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds"), 1e-6),
}
_TIMES = ("latency", "latencies", "lat", "time", "runtime", "duration", "inference")
# "12.3", "12.3 ms", "12.3 +- 0.2" (the spread that nn-Meter prints is not used).
_VALUE = re.compile(r"([-+]?[\d.,]+(?:e[-+]?\d+)?|[-+]?inf|nan)\s*([a-zµμ]*)(?:\s*(?:\+-|\+/-|±).*)?", re.IGNORECASE)
# A spread, a logarithm, a quotient or a count is no time, whatever unit stands beside it.
_NO_TIMES = frozenset((
    "std", "stdev", "stddev", "sd", "deviation", "var", "variance", "sem", "ci", "err", "error", "log", "ln", "log2",
    "log10", "normalized", "normalised", "norm", "scaled", "relative", "ratio", "rank", "score", "fps", "throughput",
    "cycles", "ticks", "count", "samples",
))  # fmt: skip
_UNIT_COLUMNS = ("unit", "units", "time_unit", "latency_unit")
# Images in a time are no times: read as such, the slowest network would be the fastest.
_RATE = re.compile(r"throughput|\bfps\b|(/|\bper)[\s_]*(ms|s|sec|second)\b")
# A thousand and more, or a decimal comma with three digits behind it.
_DECIMAL = re.compile(r"^\s*([-+]?\d+),(\d+)(?=\D*$)")
_AMBIGUOUS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")
_MAX_ARRAY_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Measured:
    """What a file holds: one arch and one time a measurement, with the columns that say how each was taken."""

    archs: list[Arch]
    latency_ms: list[float]
    conditions: list[dict[str, str]]  # of each measurement, by column, e.g. {"device": "pixel4", "num_threads": "4"}
    is_block_table: bool = False  # times are sums of separately timed blocks: no whole network was measured


def read_measurements(
    path: Path, space: str = "", *, column: str = "", where: Sequence[str] = ()
) -> tuple[list[Arch], list[float]]:
    """Read archs and milliseconds from a file; see `read_file_of_measurements`."""
    found = read_measured(path, space, column=column, where=where)
    return found.archs, found.latency_ms


def read_measured(path: Path, space: str = "", *, column: str = "", where: Sequence[str] = ()) -> Measured:
    """Read a file of measurements. Raises InputError naming the measurement and the remedy.

    space: of archs that do not say. column: which column of times, where a file has several. where: `COLUMN=VALUE`,
    the measurements that are kept, of a file that holds several devices.
    """
    path = Path(path)
    if path.suffix.lower() in _PICKLES:
        raise InputError(
            f"{path} is a pickle, which may run code when it is read: save its architectures and times as CSV, JSON or "
            "npz (arrays ks, e, d, r and one of times, as HELP's tables hold them)"
        )
    rows = _array_rows(path, column) if path.suffix.lower() == ".npz" else None
    if rows is None:
        text = _text(path)
        if path.suffix.lower() in (".yaml", ".yml") or is_ofa_table(text):
            archs, times = read_ofa_table(path, text, space)
            return Measured(archs, times, [{} for _ in archs], is_block_table=True)
        rows = _json_rows(path, text) if text.lstrip()[:1] in ("[", "{") else _csv_rows(path, text)
    numbered = _kept(path, list(enumerate(rows, 1)), where)
    if not numbered:
        raise InputError(f"{path} holds no measurement")
    name = _time_column(path, numbered[0][1], column)
    archs, latency_ms, conditions = [], [], []
    for number, row in numbered:
        place = f"{path}, measurement {number}"
        archs.append(_arch(place, row, space))
        latency_ms.append(_milliseconds(place, name, row.get(name), _unit_beside(place, name, row)))
        conditions.append(_conditions(row))
    check_latencies(latency_ms, len(archs))
    return Measured(archs, latency_ms, conditions)


def _text(path: Path) -> str:
    try:
        return bounded_text(path, encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read measurements {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"measurements {path} are not in UTF-8 ({error.reason}): save the file as UTF-8") from error


def _array_rows(path: Path, column: str) -> list[dict[str, Any]]:
    """Read an npz of arrays as HELP's tables: `ks`, `e` (nets, slots), `d` (nets, stages), `r` (nets,) and times."""
    try:
        arrays = npz_arrays(path, _MAX_ARRAY_BYTES)
    except (OSError, InputError) as error:
        raise InputError(f"{path} is not an npz of numbers ({error}): give arrays ks, e, d, r and one of ms") from error
    if missing := [name for name in ("d", "r") if name not in arrays]:
        raise InputError(
            f"{path} has the arrays {', '.join(arrays)}: array {missing[0]} of the architectures is missing"
        )
    num = len(arrays["r"])
    if wrong := [name for name, values in arrays.items() if values.ndim == 0 or len(values) != num]:
        raise InputError(f"{path}: array {wrong[0]} has not one entry for each of {num} networks")
    return [{name: values[i].tolist() for name, values in arrays.items()} for i in range(num)]


def _json_rows(path: Path, text: str) -> list[dict[str, Any]]:
    try:
        rows = parsed_json(text)
    except ValueError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        try:  # JSON lines: one object a line
            rows = [parsed_json(line) for line in lines]
        except ValueError:
            raise InputError(f"{path} is not JSON: {error}") from error
    if isinstance(rows, dict):
        if rows and all(isinstance(value, int | float) for value in rows.values()):
            rows = [{"arch": key, "ms": value} for key, value in rows.items()]  # {"{'ks': ...}": 12.3}
        else:
            rows = rows.get("measurements", _unfolded(rows))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f'{path}: give a list of objects {{"arch": {{...}}, "ms": 1.5}}')
    return rows


def _unfolded(tree: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the objects of a tree of them, as nn-Meter nests what it profiled: kernel, identifier, measurement."""
    for _ in range(3):
        if not tree or not all(isinstance(value, dict) and "ks" not in value for value in tree.values()):
            return [tree]
        inner = list(tree.values())
        if not all(isinstance(value, dict) for row in inner for value in row.values()):
            return inner
        tree = {f"{number} {key}": value for number, row in enumerate(inner) for key, value in row.items()}
    return [tree]


def _csv_rows(path: Path, text: str) -> list[dict[str, Any]]:
    first = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text.lstrip()), delimiter=delimiter)
    header = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = header
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise InputError(f"{path} has {header.count(twice[0])} columns {twice[0]!r}: rename all but one")
    has_arch = any(name.lower() in _ARCH_COLUMNS for name in header) or {"d", "r"} <= set(header)
    if not has_arch or not any(_unit(name) for name in header):
        raise InputError(
            f"{path}: the header is {', '.join(header) or 'empty'}; it must have the columns arch (or ks, e, d, r) and "
            "ms (or latency_ms, latency_us, ...)"
        )
    rows = []
    for number, row in enumerate(reader, 1):
        if None in row or None in row.values():
            raise InputError(f"{path}, measurement {number}: it has not the {len(header)} columns of the header")
        if delimiter == ";":  # who separates by semicolons writes a decimal comma
            row |= {name: _DECIMAL.sub(r"\1.\2", row[name]) for name in header if _unit(name) is not None}
        rows.append(dict(row))
    return rows


def _kept(path: Path, rows: list[tuple[int, dict[str, Any]]], where: Sequence[str]) -> list[tuple[int, dict[str, Any]]]:
    """Keep the measurements whose columns have the values asked for."""
    for clause in where:
        name, equals, value = clause.partition("=")
        if not equals or not name:
            raise InputError(f"--where {clause!r}: write COLUMN=VALUE")
        present = sorted({str(row[name]) for _, row in rows if name in row})
        if not present:
            raise InputError(f"--where {clause}: {path} has no column {name!r}: {', '.join(map(str, rows[0][1]))}")
        rows = [(number, row) for number, row in rows if str(row.get(name)) == value]
        if not rows:
            raise InputError(f"--where {clause}: no measurement of {path} has it; {name} is {', '.join(present[:10])}")
    return rows


def _unit(name: str) -> float | None:
    """Give the milliseconds in one unit of a column of times; None for a column of something else."""
    words = _words(name)
    is_time = any(word.rstrip("0123456789") in _TIMES for word in words)
    if _NO_TIMES.intersection(words) or (_RATE.search(name.lower()) and not is_time):  # `latency / ms` is a time
        return None
    unit = _named_unit(name)
    return 1.0 if unit is None and is_time and not _UNITS.keys() & set(words) else unit


def _named_unit(name: str) -> float | None:
    """Give the milliseconds in the one unit that a column's name says; a digit makes another word (`s7`, a phone)."""
    units = [_UNITS[word] for word in _words(name) if word in _UNITS]
    return units[0] if len(units) == 1 else None


def _words(name: str) -> list[str]:
    """Split a column's name: `latency_ms`, `Latency (ms)` and `latencyMs` are the same words."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    return [word for word in re.split(r"[^a-z0-9µμ]+", apart) if word]


def _unit_beside(where: str, name: str, row: dict[str, Any]) -> float | None:
    """Give the unit that a column of its own says. Raises InputError where it is none, or the name says another."""
    beside = next((column for column in row if str(column).strip().lower() in _UNIT_COLUMNS), None)
    text = "" if beside is None else str(row[beside] or "").strip().lower()
    if beside is None or not text:
        return None
    if text not in _UNITS:
        raise InputError(f"{where}: {beside} is {row[beside]!r}: give one of ms, us, s, ns")
    if _named_unit(name) not in (None, _UNITS[text]):
        raise InputError(f"{where}: {beside} is {row[beside]!r} and the column of times is {name!r}: correct one")
    return _UNITS[text]


def _time_column(path: Path, row: dict[str, Any], column: str) -> str:
    """Name the column of times. Raises InputError where there is none, or several and none was chosen."""
    found = [name for name in row if _unit(name) is not None and name.lower() not in _ARCH_COLUMNS]
    if column:
        if column not in row:
            raise InputError(f"--column {column}: {path} has {', '.join(map(str, row))}")
        return column
    if not found:
        raise InputError(
            f"{path} has the columns {', '.join(map(str, row))}: none is of times; name one ms or latency_ms (nothing "
            "is learned from tables of accuracy or of other costs)"
        )
    if len(found) > 1:
        raise InputError(
            f"{path} has {len(found)} columns of times, {', '.join(found[:10])}: choose with --column {found[0]}"
        )
    return found[0]


def _arch(where: str, row: dict[str, Any], space: str) -> Arch:
    name = next((name for name in row if str(name).lower() in _ARCH_COLUMNS), None)
    given = row[name] if name is not None else {key: _listed(row[key]) for key in _ARCH_KEYS if key in row}
    if not given:
        raise InputError(
            f"{where}: no architecture with ks, e, d and r (it has {', '.join(map(str, row))}): latencies of other "
            "networks, kernels or cells cannot be learned from"
        )
    try:
        data = _literal(given) if isinstance(given, str) else dict(given)
        if not isinstance(data, dict):
            raise ValueError("no mapping of ks, e, d and r")
        data = {key: value for key, value in data.items() if key in _ARCH_KEYS and value is not None}
        if isinstance(data.get("r"), list | tuple) and len(data["r"]) == 1:  # as OFA and DyNAS-T write it
            data["r"] = data["r"][0]
        if space:
            data.setdefault("space", space)
        arch = Arch.from_dict(data)
        return find_space(arch.space).with_resolutions((arch.r,)).masked(arch)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        if first["type"] == "missing" and field in _EXAMPLES:
            raise InputError(f"{where}: the architecture has no {field!r}: add {_EXAMPLES[field]}") from error
        raise InputError(f"{where}: arch {field}: {first['msg']}") from error
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise InputError(f"{where}: arch is not the field's JSON ({error})") from error


def _literal(text: str) -> Any:
    """Parse JSON, or a dict as Python prints one (OFA, DyNAS-T)."""
    try:
        return parsed_json(text)
    except ValueError as error:
        if not text.lstrip().startswith(("{", "[")):
            raise error
        return ast.literal_eval(text.strip())


def _listed(value: Any) -> Any:
    """Read a list that stands in a cell of its own: `[3, 5, 7]`, `3 5 7` or `3,5,7`."""
    if not isinstance(value, str) or re.fullmatch(r"[A-Za-z_].*", value.strip()):
        return value
    numbers = [float(part) for part in re.findall(r"[-+]?\d*\.?\d+", value)]
    whole = [int(number) if number == int(number) else number for number in numbers]
    return whole if len(whole) != 1 or value.strip().startswith("[") else whole[0]


def _milliseconds(where: str, name: str, given: Any, unit_beside: float | None) -> float:
    text = str(given).strip()
    match = _VALUE.fullmatch(text)
    try:
        if match is None or isinstance(given, bool):
            raise ValueError
        number, unit = match.group(1), match.group(2).lower()
        if unit and unit not in _UNITS:
            raise ValueError
        if _AMBIGUOUS.fullmatch(number):
            raise InputError(
                f"{where}: {name} {given!r} may be {number.replace(',', '')} or {number.replace(',', '.')}: write the "
                "numbers without separators of thousands, with a decimal point"
            )
        if "," in number and "." not in number and number.count(",") == 1:
            number = number.replace(",", ".")  # a decimal comma
        value = float(number) * (_UNITS[unit] if unit else unit_beside or _named_unit(name) or 1.0)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: {name} is {given!r}: give a number of milliseconds") from error
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{where}: {name} is {given!r}: give positive finite milliseconds, or leave the line out")
    return value


def _conditions(row: dict[str, Any]) -> dict[str, str]:
    """Give the columns of a row that say where and how it was taken."""
    texts = {str(name): "" if value is None else str(value).strip() for name, value in row.items()}
    return {name: text for name, text in texts.items() if text and condition_of(name)}


def condition_of(column: str) -> str:
    """Name what a column says of how a time was taken (`device`, `threads`, ...); "" for one that says nothing."""
    return CONDITIONS.get("_".join(column.lower().split()), "")


# Columns that say where and how a time was taken, by what people call them.
CONDITIONS = {
    **dict.fromkeys(("device", "hardware", "target", "platform", "gpu", "cpu", "board", "machine", "host"), "device"),
    **dict.fromkeys(("hostname", "node", "device_name", "device_id", "phone", "soc", "chip", "processor"), "device"),
    **dict.fromkeys(("threads", "num_threads", "thread", "nthreads"), "threads"),
    **dict.fromkeys(("batch", "batch_size", "batchsize", "bs"), "batch"),
    **dict.fromkeys(("precision", "dtype", "data_type", "quantization"), "precision"),
    **dict.fromkeys(("channels", "in_channels", "num_channels"), "channels"),
    **dict.fromkeys(("classes", "num_classes"), "classes"),
    **dict.fromkeys(("runtime", "backend", "framework", "engine"), "runtime"),
}
