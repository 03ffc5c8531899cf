"""Rows as files other programs read: CSV, JSON, Markdown, Parquet, LaTeX.

Enters: rows. Leaves: a frame with the columns of the design in their order, then ours. What was not measured is empty.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.files import whole_file
from tutelage.leaderboard.store.schema import GAINS, gains_of
from tutelage.leaderboard.terminal.gained import GAIN_COLUMNS, gain_words, is_absent
from tutelage.records import InputError, Row

from . import pareto
from .figures import with_details
from .ties import LATENCY_BOUNDS

if TYPE_CHECKING:
    import pandas as pd

# The order that `tutelage leaderboard export` promises; further columns come after.
COLUMNS = (
    *("row_id", "model", "role", "arch", "teacher", "recipe", "dataset", "split", "scheme", "runtime", "device"),
    *("batch", "threads", "accuracy", "accuracy_lo", "accuracy_hi", "auc", "auc_lo", "auc_hi", "params", "macs"),
    *("size_bytes", "latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "peak_rss_bytes", "energy_mj", "on_front"),
    *("seed", "created"),
)
EXTRA_COLUMNS = ("source", "measurement", "twin", "parent", *GAINS, *LATENCY_BOUNDS, "details")
WHOLE_COLUMNS = ("batch", "threads", "params", "macs", "size_bytes", "peak_rss_bytes")
FIGURE_COLUMNS = (
    *("accuracy", "accuracy_lo", "accuracy_hi", "auc", "auc_lo", "auc_hi"),
    *("latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "energy_mj"),
    *GAINS,
    *LATENCY_BOUNDS,
)
# What people read in a document: the name above the column, and how a figure is written.
_PRINTED = ("model", "role", "teacher", "scheme", "device", "accuracy", "auc", "params", "macs", "size_bytes")
PRINTED_COLUMNS = (*_PRINTED, "latency_p50_ms", "energy_mj", "gain", "on_front")


def frame(rows: Sequence[Row] | pd.DataFrame) -> pd.DataFrame:
    """Put rows into a frame in the promised order, `on_front` among them; `arch` and `details` are JSON text."""
    found = rows if not isinstance(rows, Sequence) else typed_frame(columns_of(rows))
    found = found.assign(on_front=pareto.on_front(found))
    return found[[name for name in (*COLUMNS, *EXTRA_COLUMNS) if name in found]]


def typed_frame(columns: Mapping[str, list[Any]]) -> pd.DataFrame:
    """Build a frame whose counts stay whole numbers beside empty cells."""
    import pandas as pd

    typed: dict[str, Any] = {}
    for name, values in columns.items():
        if name in WHOLE_COLUMNS:
            typed[name] = pd.array(values, dtype="Int64")
        elif name in FIGURE_COLUMNS:
            typed[name] = pd.Series(values, dtype="float64")
        elif name == "seed":
            typed[name] = pd.Series(values, dtype="int64")
        else:
            typed[name] = pd.Series([value or "" for value in values], dtype=object)
    return pd.DataFrame(typed)


def export(rows: Sequence[Row] | pd.DataFrame, path: Path | None, format: str) -> str:
    """Write rows as `csv`, `json`, `md`, `parquet` or `tex`; return the text (of parquet: the path), print nothing."""
    if format not in FORMATS:
        raise InputError(f"no format {format!r}: choose among {', '.join(FORMATS)}")
    found = with_details(frame(rows))
    if format == "parquet":
        if path is None:
            raise InputError("parquet is binary: name a file to write it to")
        _guard(path, lambda aside: found.to_parquet(aside, index=False))
        return str(path)
    text = _WRITERS[format](found)
    if path is not None:
        _guard(path, lambda aside: aside.write_text(text, encoding="utf-8", newline=""))
    return text


def plain(value: float, column: str) -> str:
    """Write one figure for people, in the unit of `HEADINGS`; an absent one is empty."""
    if is_absent(value):
        return ""
    if column in _SCALES:
        return _short(value / _SCALES[column])
    if column.startswith(("accuracy", "auc")):
        return f"{value:.3f}"
    return _short(value) if isinstance(value, float) else str(value)


HEADINGS = {
    **{"row_id": "id", "model": "model", "role": "role", "arch": "architecture", "teacher": "teacher"},
    **{"accuracy": "accuracy", "auc": "AUC", "params": "params (M)", "macs": "MACs (M)", "size_bytes": "size (MB)"},
    **{"latency_p50_ms": "p50 (ms)", "latency_p90_ms": "p90 (ms)", "latency_p99_ms": "p99 (ms)"},
    **{"peak_rss_bytes": "peak memory (MB)", "energy_mj": "energy (mJ)", "on_front": "front"},
    "gain": "gain over twin",
}
_SCALES = {"params": 1e6, "macs": 1e6, "size_bytes": 1e6, "peak_rss_bytes": 1e6}


def _short(value: float) -> str:
    """Write three significant digits without an exponent: 0.0231, 4.57, 23.1, 1,230."""
    if value == 0:
        return "0"
    value = float(f"{value:.3g}")
    digits = max(0, 2 - len(str(int(abs(value)))) + 1) if abs(value) >= 1 else 3 + _leading_zeros(abs(value))
    return f"{value:,.{digits}f}"


def _leading_zeros(value: float) -> int:
    zeros = 0
    while value < 0.1 and zeros < 9:
        value *= 10
        zeros += 1
    return zeros


def columns_of(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Turn records into columns as `Store.columns` gives them."""
    computed = ("row_id", "arch", "on_front", "details", *GAINS, *LATENCY_BOUNDS)
    names = [name for name in (*COLUMNS, *EXTRA_COLUMNS) if name not in computed]
    gains = [gains_of(row.details) for row in rows]
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in names}
    columns |= {name: [gain[name] for gain in gains] for name in GAINS}
    columns |= {name: [_known(row.details.get(name)) for row in rows] for name in LATENCY_BOUNDS}
    columns["row_id"] = [row.key for row in rows]
    columns["arch"] = ["" if row.arch is None else json.dumps(row.arch.to_dict()) for row in rows]
    columns["details"] = [json.dumps(row.details, ensure_ascii=False, default=str) for row in rows]
    return columns


def _known(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _to_csv(found: pd.DataFrame) -> str:
    return str(found.drop(columns="details", errors="ignore").to_csv(index=False, lineterminator="\n"))


def _to_json(found: pd.DataFrame) -> str:
    import pandas as pd

    records = found.astype(object).where(pd.notna(found), None).to_dict("records")
    for record in records:
        record["arch"] = json.loads(record["arch"]) if record["arch"] else None
        record["details"] = finite(json.loads(record["details"])) if record["details"] else {}
    return json.dumps(records, indent=1, ensure_ascii=False, default=_plain_number, allow_nan=False) + "\n"


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


def _printed(found: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Choose the columns for people, leaving out those that are empty everywhere, and write their cells."""
    gains = [gain_words(values) for values in found[list(GAIN_COLUMNS)].itertuples(index=False, name=None)]
    found = found.assign(gain=gains)
    names = [name for name in PRINTED_COLUMNS if any(str(value) not in ("", "nan", "<NA>") for value in found[name])]
    rows = found[names].itertuples(index=False, name=None)
    cells = [[_cell(value, name) for name, value in zip(names, row, strict=True)] for row in rows]
    return names, cells


def _cell(value: Any, name: str) -> str:
    if name == "on_front":
        return "*" if value else ""
    return value if isinstance(value, str) else plain(value, name)


def _to_markdown(found: pd.DataFrame) -> str:
    names, cells = _printed(found)
    lines = ["| " + " | ".join(HEADINGS.get(name, name) for name in names) + " |"]
    lines.append("|" + "|".join("---" if name in _WORDS else "---:" for name in names) + "|")
    lines += ["| " + " | ".join(_markdown_text(cell) for cell in row) + " |" for row in cells]
    return "\n".join(lines) + "\n"


_WORDS = ("model", "role", "teacher", "scheme", "device", "gain", "on_front")


def _markdown_text(cell: str) -> str:
    """Keep a name from becoming markup: escape what Markdown and HTML would read."""
    for sign in "\\`*_[]|":
        cell = cell.replace(sign, "\\" + sign)
    return cell.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", " ").replace("\n", " ")


def _to_latex(found: pd.DataFrame) -> str:
    """Write a booktabs table (needs `\\usepackage{booktabs}`)."""
    names, cells = _printed(found)
    kinds = "".join("l" if name in _WORDS else "r" for name in names)
    head = " & ".join(_latex_text(HEADINGS.get(name, name)) for name in names)
    body = "\n".join(" & ".join(_latex_text(cell) for cell in row) + r" \\" for row in cells)
    return f"\\begin{{tabular}}{{{kinds}}}\n\\toprule\n{head} \\\\\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"


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
