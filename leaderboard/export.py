"""Rows as files other programs read: CSV, JSON, Markdown, Parquet, LaTeX.

`frame` puts rows into a frame with the columns that `tutelage leaderboard export` promises, in their order, and then
all others; `export` writes it. What was not measured is empty.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.files import whole_file
from tutelage.records import InputError, Row

from . import pareto
from .columns import COLUMNS, GROUP, Column, column, known

if TYPE_CHECKING:
    import pandas as pd

    # Gives the rows of an export some at a time, from the first on each time it is called: a frame, or where `PLAIN`
    # holds the format, columns as lists, which is several times as quick to write.
    Parts = Callable[[], Iterator[pd.DataFrame | Mapping[str, Sequence[Any]]]]

# The order that `tutelage leaderboard export` promises; further columns come after.
PROMISED = (
    *("row_id", "model", "role", "arch", "teacher", "recipe", "dataset", "split", "scheme", "runtime", "device"),
    *("batch", "threads", "accuracy", "accuracy_lo", "accuracy_hi", "auc", "auc_lo", "auc_hi", "params", "macs"),
    *("size_bytes", "latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "peak_rss_bytes", "energy_mj", "on_front"),
    *("seed", "created"),
)

# A text that begins so is a formula to a spreadsheet, in some languages also with the wide signs of East Asian scripts.
_BEGINS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
_FORMULA = re.compile(f"'*[{re.escape(_BEGINS)}]")
_MAY_BE_ONE = frozenset(f"'{_BEGINS}")


def names_in_order() -> tuple[str, ...]:
    """Name every column of an export: the promised ones, the row's others, those of its details, the details."""
    others = [one for one in known() if one.name not in (*PROMISED, "details")]
    fields = [one.name for one in others if not one.at]
    return (*PROMISED, *fields, *(one.name for one in others if one.at), "details")


def frame(rows: Sequence[Row] | pd.DataFrame) -> pd.DataFrame:
    """Put rows into a frame in the promised order, `on_front` among them; `arch` and `details` are JSON text."""
    found = rows if not isinstance(rows, Sequence) else typed_frame(columns_of(rows))
    if "on_front" not in found:  # a store says it of rows that are not all there
        found = found.assign(on_front=pareto.on_front(found))
    return found[[name for name in names_in_order() if name in found]]


def typed_frame(
    columns: Mapping[str, list[Any]], *, keys: tuple[Sequence[str], Mapping[str, tuple[Any, ...]]] | None = None
) -> pd.DataFrame:
    """Build a frame whose counts stay whole numbers beside empty cells.

    keys: for each row the hash of what it is compared by, and the values of `columns.GROUP` by hash. These columns are
    made of it: texts as pandas categories, which are quicker to group and to encode.
    """
    import pandas as pd

    typed: dict[str, Any] = {}
    for name, values in columns.items():
        one = COLUMNS[name]
        if not one.is_number:
            typed[name] = pd.Series([value or "" for value in values], dtype=object)
        elif name == "seed":
            typed[name] = pd.Series(values, dtype="int64")
        elif one.is_whole:
            typed[name] = pd.array(values, dtype="Int64")
        else:
            typed[name] = pd.Series(values, dtype="float64")
    if keys is not None:
        groups, hashes = pd.factorize(np.array(keys[0], dtype=object))
        for place, name in enumerate(GROUP):
            said = [keys[1][one][place] for one in hashes]
            if COLUMNS[name].is_number:
                typed[name] = pd.array(said, dtype="Int64").take(groups)
            else:
                codes, texts = pd.factorize(np.array(said, dtype=object))
                typed[name] = pd.Categorical.from_codes(codes[groups], pd.Index(texts))
    return pd.DataFrame(typed)


def export(rows: Sequence[Row] | pd.DataFrame, path: Path | None, format: str) -> str:
    """Write rows as `csv`, `json`, `md`, `parquet` or `tex`; return the text (of parquet: the path), print nothing."""
    found = frame(rows)
    if path is not None and format == "parquet":
        write(lambda: iter([found]), path, format)
        return str(path)
    text = "".join(pieces(lambda: iter([found]), format))
    if path is not None:
        _guard(path, lambda aside: aside.write_text(text, encoding="utf-8", newline=""))
    return text


def pieces(parts: Parts, format: str) -> Iterator[str]:
    """Yield the text of an export, in pieces that are written one after the other; parquet is no text."""
    if format not in FORMATS:
        raise InputError(f"no format {format!r}: choose among {', '.join(FORMATS)}")
    if format == "parquet":
        raise InputError("parquet is binary: name a file to write it to")
    return _WRITERS[format](parts)


def write(parts: Parts, path: Path, format: str) -> None:
    """Write an export to a file, some rows at a time; whole or not at all."""
    if format == "parquet":
        _guard(path, lambda aside: _write_parquet(parts, aside))
        return
    text = pieces(parts, format)

    def written(aside: Path) -> None:
        with aside.open("w", encoding="utf-8", newline="") as file:
            file.writelines(text)

    _guard(path, written)


def _write_parquet(parts: Parts, path: Path) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    writer = None
    for part in parts():
        table = pa.Table.from_pandas(part, preserve_index=False)
        if writer is None:
            writer = ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def plain(value: Any, name: str) -> str:
    """Write one figure for people, in the unit of its column's heading; an absent one is empty."""
    return column(name).write(value)


def columns_of(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Turn records into columns as `Store.columns` gives them."""
    columns: dict[str, list[Any]] = {
        one.name: [one.of(row) for row in rows] for one in known() if one.name not in ("on_front", "arch", "details")
    }
    columns["arch"] = ["" if row.arch is None else json.dumps(row.arch.to_dict()) for row in rows]
    columns["details"] = [json.dumps(row.details, ensure_ascii=False, default=str) for row in rows]
    return columns


def _cells(found: pd.DataFrame | Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Give columns of plain values, in their order: None where a figure is absent, '' where a text is."""
    if isinstance(found, Mapping):
        return {name: _plain_cells(name, values) for name, values in found.items()}
    import pandas as pd

    plain = found.astype(object).where(pd.notna(found), None)
    return {str(name): plain[name].tolist() for name in plain}


def _plain_cells(name: str, values: Sequence[Any]) -> list[Any]:
    """Give the values of a column, which SQL has typed, as a frame holds them."""
    one = COLUMNS[name]
    if not one.is_number:
        return list(values) if one.kind == "flag" else [value or "" for value in values]
    return [None if value != value else value for value in values]  # PostgreSQL keeps NaN


def inert(text: str) -> str:
    """Write a text for a cell of a CSV so that no spreadsheet computes it: an apostrophe stands before a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def as_named(cell: str) -> str:
    """Read a cell that `inert` wrote."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell


def csv_text(lines: Iterable[Sequence[Any]]) -> str:
    """Write lines as CSV for programs and spreadsheets; cells of text must be `inert`."""
    text = io.StringIO()
    # Cells are quoted that hold a character of the line's end: of "\n" alone a carriage return would end a line, too.
    csv.writer(_Lines(text), lineterminator="\r\n").writerows(lines)
    return text.getvalue()


class _Lines:
    """Takes lines that end in CR LF, and writes them with LF."""

    def __init__(self, text: io.StringIO) -> None:
        self._text = text

    def write(self, line: str) -> None:
        self._text.write(f"{line[:-2]}\n")


def _to_csv(parts: Parts) -> Iterator[str]:
    begun = False
    for found in parts():
        columns = _cells(found)
        columns.pop("details", None)
        cells = [values if COLUMNS[name].is_number else _inert(values) for name, values in columns.items()]
        yield csv_text([*([] if begun else [list(columns)]), *zip(*cells, strict=True)])
        begun = True


def _inert(values: Sequence[Any]) -> list[Any]:
    return [inert(one) if isinstance(one, str) and one[:1] in _MAY_BE_ONE else one for one in values]


def _to_json(parts: Parts) -> Iterator[str]:
    """Write a line a row: text that is indented cannot be written by the encoder that is quick."""
    encoder = json.JSONEncoder(ensure_ascii=False, default=_plain_number, allow_nan=False)
    begun = False
    for found in parts():
        columns = _cells(found)
        columns["arch"] = [json.loads(text) if text else None for text in columns["arch"]]
        columns["details"] = [finite(json.loads(text)) if text else {} for text in columns["details"]]
        for values in zip(*columns.values(), strict=True):
            yield (",\n" if begun else "[\n") + encoder.encode(dict(zip(columns, values, strict=True)))
            begun = True
    yield "\n]\n" if begun else "[]\n"


def finite(value: Any) -> Any:
    """Write None for the numbers that JSON cannot say: NaN and infinity, which stand for what is undefined."""
    if isinstance(value, Mapping):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain_number(value: Any) -> Any:
    """Turn numpy's scalars into Python's."""
    return value.item()


def for_people(one: Column, columns: Mapping[str, Sequence[Any]] | pd.DataFrame) -> list[str]:
    """Write the cells of one column for people, rounded to what an interval beside it carries.

    A column made of others in words needs those beside it.
    """
    if one.words is None:
        ends = [f"{one.name}{end}" for end in ("_lo", "_hi")]
        if all(end in columns for end in ends):
            return [one.write(*cell) for cell in zip(*(columns[name] for name in (one.name, *ends)), strict=True)]
        return [one.write(value) for value in columns[one.name]]
    if isinstance(columns, Mapping):
        return [one.words(values) for values in zip(*(columns[name] for name in one.made_of), strict=True)]
    # Of 100,000 rows most have no such figure: what is written where all are absent is written once.
    parts = columns[list(one.made_of)]
    is_there = parts.notna().any(axis=1).to_numpy()
    written = [one.words([None] * len(one.made_of))] * len(columns)
    for place, values in zip(is_there.nonzero()[0], parts[is_there].itertuples(index=False, name=None), strict=True):
        written[place] = one.words(values)
    return written


def _printed(parts: Parts) -> tuple[list[Column], Iterator[list[list[str]]]]:
    """Choose the columns for people, leaving out those that are empty everywhere, and write the cells of each part."""
    usual = [one for one in known() if one.is_usual]
    filled = {one.name for found in parts() for one in usual if any(for_people(one, found))}
    chosen = [one for one in usual if one.name in filled]
    return chosen, ([for_people(one, found) for one in chosen] for found in parts())


def _to_markdown(parts: Parts) -> Iterator[str]:
    columns, cells = _printed(parts)
    yield "| " + " | ".join(one.short_heading for one in columns) + " |\n"
    yield "|" + "|".join("---:" if one.is_number else "---" for one in columns) + "|\n"
    for some in cells:
        yield "".join("| " + " | ".join(map(_markdown_text, row)) + " |\n" for row in zip(*some, strict=True))


def _markdown_text(cell: str) -> str:
    """Keep a name from becoming markup: escape what Markdown and HTML would read."""
    for sign in "\\`*_[]|":
        cell = cell.replace(sign, "\\" + sign)
    return cell.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", " ").replace("\n", " ")


def _to_latex(parts: Parts) -> Iterator[str]:
    """Write a booktabs table (needs `\\usepackage{booktabs}`)."""
    columns, cells = _printed(parts)
    kinds = "".join("r" if one.is_number else "l" for one in columns)
    head = " & ".join(_latex_text(one.short_heading) for one in columns)
    yield f"\\begin{{tabular}}{{{kinds}}}\n\\toprule\n{head} \\\\\n\\midrule\n"
    for some in cells:
        yield "".join(" & ".join(map(_latex_text, row)) + " \\\\\n" for row in zip(*some, strict=True))
    yield "\\bottomrule\n\\end{tabular}\n"


def _latex_text(cell: str) -> str:
    signs = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    signs |= {sign: "\\" + sign for sign in "&%$#_{}"}
    signs |= {"\n": " ", "\r": " ", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    return "".join(signs.get(sign, sign) for sign in cell)


def _guard(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all; a device (`/dev/stdout`) or a pipe takes the text as it comes."""
    try:
        if path.exists() and not path.is_file():
            write(path)
            return
        with whole_file(path) as aside:
            write(aside)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}): name another file") from error


_WRITERS = {"csv": _to_csv, "json": _to_json, "md": _to_markdown, "tex": _to_latex}
FORMATS = (*_WRITERS, "parquet")
# Those of which the parts are plain columns, and those that write the details.
PLAIN = ("csv", "json")
WITH_DETAILS = ("json", "parquet")
