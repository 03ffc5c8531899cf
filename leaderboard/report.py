"""The page: one HTML file with table, charts and data inside, that loads nothing from anywhere.

Enters: rows. Leaves: a file. The parts lie beside this module (page.html, page.css, page*.js) and are joined here; the
data are columns of JSON in a script element that is never executed, so a name from a user is never markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.records import InputError, Row, utc_now

from .export import FIGURE_COLUMNS, WHOLE_COLUMNS, export, frame
from .terminal import show_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["build_page", "export", "page_text", "show_table"]

# The order matters: each file uses what those before it define.
_SCRIPTS = ("page_data.js", "page_chart.js", "page_table.js", "page_compare.js", "page.js")
_WORD_COLUMNS = (
    *("row_id", "model", "role", "teacher", "recipe", "dataset", "split", "scheme", "runtime", "device"),
    *("created", "source", "twin", "parent"),
)
# Six significant digits are beyond any measurement here and halve the file.
_DIGITS = 6


def build_page(rows: Sequence[Row] | pd.DataFrame, path: Path, title: str = "Tutelage leaderboard") -> None:
    """Write the page: whole or not at all. `rows` may be a store's frame, which is quicker for many."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(page_text(rows, title), encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}): name another file") from error
    finally:
        aside.unlink(missing_ok=True)


def page_text(rows: Sequence[Row] | pd.DataFrame, title: str, *, live: str = "") -> str:
    """Put the page together; `live` is the version a server of the page answers with, empty for a file."""
    folder = files(__package__)
    style = (folder / "page.css").read_text(encoding="utf-8")
    script = "(() => {\n" + "\n".join((folder / name).read_text(encoding="utf-8") for name in _SCRIPTS) + "})();\n"
    # Only this very script and style may run, and nothing may be fetched (a served page may ask its server).
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_digest(script)}'",
            f"style-src '{_digest(style)}'",
            "img-src data:",
            "connect-src 'self'" if live else "connect-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    parts = {
        "@CSP@": policy,
        "@TITLE@": escape(title),
        "@FRONT@": _FRONT,
        "@STYLE@": style,
        "@SCRIPT@": script,
        "@DATA@": _embeddable(_data(frame(rows), live)),
    }
    text = (folder / "page.html").read_text(encoding="utf-8")
    # One pass from left to right: a title that reads @DATA@ stays a title.
    pieces: list[str] = []
    while "@" in text:
        before, _, text = text.partition("@")
        name, _, rest = text.partition("@")
        known = parts.get(f"@{name}@")
        pieces += [before, "@" if known is None else known]
        text = text if known is None else rest
    return "".join([*pieces, text])


_FRONT = "no comparable row is at least as good in AUC (else accuracy), median latency and size, and better in one"


def _data(found: pd.DataFrame, live: str) -> str:
    """Write the frame as columns of JSON. `details` are JSON texts already, so they are joined and not parsed."""
    head = {"count": len(found), "made": utc_now(), "live": live, "front": _FRONT}
    columns = {
        "words": {name: _coded(found[name]) for name in _WORD_COLUMNS},
        "figures": {name: _numbers(found[name]) for name in (*WHOLE_COLUMNS, *FIGURE_COLUMNS, "seed")},
        "archs": _coded(found["arch"]),
        "on_front": found["on_front"].astype(int).tolist(),
    }
    text = json.dumps(head | columns, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    details = ",".join(text or "null" for text in found["details"])
    return f'{text[:-1]},"details":[{details}]}}'


def _coded(column: pd.Series[Any]) -> dict[str, list[Any]]:
    """Write a text once and a code a row."""
    import pandas as pd

    codes, texts = pd.factorize(column)
    return {"texts": [str(text) for text in texts], "codes": codes.tolist()}


def _numbers(column: pd.Series[Any]) -> list[float | int | None]:
    """List a column with `null` for what is empty, rounded to the digits that mean something."""
    if str(column.dtype) in ("Int64", "int64"):
        return [None if value is None else int(value) for value in column.astype(object).where(column.notna(), None)]
    return [None if not math.isfinite(value) else float(f"{value:.{_DIGITS}g}") for value in column.tolist()]


def _embeddable(text: str) -> str:
    """Keep JSON from ending the script element, or from opening a comment in it: `<` is written as an escape."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
