"""The page: one HTML file with table, charts and data inside, that loads nothing from anywhere (`build_page`).

The parts lie beside this module (page.html, page.css, page*.js) and are joined here; the data (`page_data`) stand in a
script element that is never executed, so a name from a user is never markup.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.files import write_text
from tutelage.leaderboard.export import export
from tutelage.leaderboard.terminal.table import show_table
from tutelage.records import InputError, Row

from .bodies import Details
from .data import FRONT, embedded
from .verdicts import Verdicts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["build_page", "export", "page_text", "show_table"]

# The order matters: each file uses what those before it define.
_SCRIPTS = (
    "page_filter.js",
    "page_data.js",
    "page_front.js",
    "page_best.js",
    "page_range.js",
    "page_marks.js",
    "page_budget.js",
    "page_gestures.js",
    "page_save.js",
    "page_chart.js",
    "page_views.js",
    "page_table.js",
    "page_headline.js",
    "page_compare.js",
    "page_details.js",
    "page_live.js",
    "page_curves.js",
    "page_row.js",
    "page_trials.js",
    "page_matrix.js",
    "page.js",
)


def build_page(
    rows: Sequence[Row] | pd.DataFrame,
    path: Path,
    title: str = "Tutelage leaderboard",
    *,
    details: Details | None = None,
    verdicts: Verdicts | None = None,
    note: str = "",
) -> None:
    """Write the page: whole or not at all.

    `rows` may be a store's frame of `data.page_columns()`, which is quicker for many; `details` (`Store.details`)
    then gives what the cards show of single rows. `verdicts` (`verdicts.decide`) are the best students and the
    paired tests: a page without them names no best student and says of every pair that it was not tested. `note` is a
    sentence above the table, e.g. which rows of a large board these are (`choose.chosen`).
    """
    try:
        write_text(path, page_text(rows, title, details=details, verdicts=verdicts, note=note))
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}): name another file") from error


def page_text(
    rows: Sequence[Row] | pd.DataFrame,
    title: str,
    *,
    live: str = "",
    details: Details | None = None,
    verdicts: Verdicts | None = None,
    note: str = "",
) -> str:
    """Put the page together; `live` is the version a server of the page answers with, empty for a file."""
    folder = files(__package__)
    style = (folder / "page.css").read_text(encoding="utf-8")
    script = (
        "(async () => {\n" + "\n".join((folder / name).read_text(encoding="utf-8") for name in _SCRIPTS) + "})();\n"
    )
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
    data, packed = embedded(rows, live, details, verdicts)
    parts = {
        "@PACKED@": "gzip" if packed else "",
        "@CSP@": policy,
        "@TITLE@": escape(title),
        "@NOTE@": f'<p class="notice" id="note">{escape(note)}</p>' if note else "",
        "@FRONT@": FRONT,
        "@STYLE@": style,
        "@SCRIPT@": script,
        "@DATA@": data,
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


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
