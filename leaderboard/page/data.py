"""What the page knows of the rows: columns of JSON, verdicts, and the details of single rows as far as they fit.

`embedded` gives the text of the page's data element; from `_PACK_BYTES` on it is gzip in base64, which browsers unpack.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.leaderboard.export import COLUMNS, EXTRA_COLUMNS, FIGURE_COLUMNS, WHOLE_COLUMNS, finite, frame
from tutelage.leaderboard.filters import GRAMMAR, TEXT_COLUMNS
from tutelage.leaderboard.terminal.gained import GAIN_COLUMNS, gain_verdict
from tutelage.leaderboard.ties import RESOLUTIONS, TOLERANCES
from tutelage.records import Comparison, Row, utc_now

from .verdicts import Verdicts

if TYPE_CHECKING:
    import pandas as pd

Details = Callable[[list[str]], Mapping[str, str]]

FRONT = (
    "no comparable row is at least as good in AUC (else accuracy), median latency and size, and better in one by more "
    "than a tie (.0005 of quality, 5 % of latency)"
)
# What a store's frame must hold for the page.
PAGE_COLUMNS = tuple(name for name in (*COLUMNS, *EXTRA_COLUMNS) if name not in ("on_front", "details", "measurement"))
# Six significant digits are beyond any measurement here and halve the file.
_DIGITS = 6
# What only `leaderboard show ROW --how` and the paired tests read; recipes hold paths of the machine they ran on.
_UNSHOWN = ("how", "predictions")
# Details stop at whichever comes first, rows on fronts before others: a phone opens the page, too.
_MOST_DETAILED = 2_000
_MOST_DETAIL_BYTES = 24_000_000
_CHUNK = 200
# Below this the data are plain text that a person can read in the file.
_PACK_BYTES = 2_000_000


def embedded(
    rows: Sequence[Row] | pd.DataFrame, live: str, details: Details | None, verdicts: Verdicts | None = None
) -> tuple[str, bool]:
    """Give the text of the data element and whether it is packed."""
    import pandas as pd

    found = frame(rows)
    bodies = _details(found, details)
    head = {"count": len(found), "made": utc_now(), "live": live, "front": FRONT, "grammar": GRAMMAR}
    numbers = {name: _numbers(found[name]) for name in (*WHOLE_COLUMNS, *FIGURE_COLUMNS, "seed")}
    columns: dict[str, Any] = {
        "words": {name: _coded(found[name]) for name in TEXT_COLUMNS},
        "figures": {name: values for name, values in numbers.items() if values is not None},
        "archs": _coded(found["arch"]),
        "on_front": found["on_front"].astype(int).tolist(),
        "ties": {"resolutions": dict(RESOLUTIONS), "tolerances": dict(TOLERANCES)},
        **_decided(found, verdicts or Verdicts()),
    }
    told = found[list(GAIN_COLUMNS)].itertuples(index=False, name=None)
    columns["words"]["gain_verdict"] = _coded(pd.Series([gain_verdict(values) for values in told], dtype=object))
    text = json.dumps(head | columns, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    inner = ",".join(f'"{place}":{body}' for place, body in bodies.items())
    text = f'{text[:-1]},"detailed":{len(bodies)},"details":{{{inner}}}}}'
    if len(text) < _PACK_BYTES:
        return _embeddable(text), False
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=3, mtime=0)).decode(), True


def _decided(found: pd.DataFrame, verdicts: Verdicts) -> dict[str, Any]:
    """Write verdicts by the rows' places: headlines, the tested file of each row (-1: none) and the tests of pairs."""
    ids = found["row_id"].tolist()
    places = {row_id: place for place, row_id in enumerate(ids)}
    headlines = [
        [places[one.student], places.get(one.teacher, -1)] for one in verdicts.headlines if one.student in places
    ]
    pairs = {
        f"{first},{second}": {one.figure: _test(one) for one in tests}
        for (first, second), tests in verdicts.pairs.items()
    }
    files = [verdicts.files.get(row_id, -1) for row_id in ids] if verdicts.files else []
    return {"headlines": headlines, "files": files, "pairs": pairs}


def _test(one: Comparison) -> list[Any]:
    numbers = (one.difference, one.low, one.high, one.p, one.margin)
    return [one.verdict, *(None if number is None else float(f"{number:.4g}") for number in numbers)]


def _details(found: pd.DataFrame, details: Details | None) -> dict[int, str]:
    """Give the details of rows by place, fronts first and then by quality, until one of the two limits is met."""
    if details is None and "details" not in found:
        return {}
    quality = found["auc"].fillna(found["accuracy"]).to_numpy(dtype=np.float64, na_value=-np.inf)
    order = np.lexsort((-quality, ~found["on_front"].to_numpy(dtype=bool)))[:_MOST_DETAILED]
    bodies: dict[int, str] = {}
    room = _MOST_DETAIL_BYTES
    for start in range(0, len(order), _CHUNK):
        places = order[start : start + _CHUNK].tolist()
        if details is None:
            texts = found["details"].iloc[places].tolist()
        else:
            ids = found["row_id"].iloc[places].tolist()
            by_id = details(ids)
            texts = [by_id.get(row_id, "") for row_id in ids]
        for place, text in zip(places, texts, strict=True):
            body = _shown(text)
            room -= len(body)
            if room < 0:
                return bodies
            if body != "{}":
                bodies[place] = body
    return bodies


def _shown(text: str) -> str:
    """Leave out what the page does not show, and what JSON cannot say (NaN)."""
    body = json.loads(text) if text else {}
    kept = {name: value for name, value in body.items() if name not in _UNSHOWN}
    if any(word in text for word in ("NaN", "Infinity")):
        kept = finite(kept)
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _coded(column: pd.Series[Any]) -> dict[str, Any]:
    """Write a text once and a code a row; no codes where all rows are the same, `null` where all differ in order."""
    import pandas as pd

    codes, texts = pd.factorize(column)
    written: list[int] | None = codes.tolist()
    if len(texts) == len(column):
        written = None
    elif len(texts) == 1:
        written = []
    return {"texts": [str(text) for text in texts], "codes": written}


def _numbers(column: pd.Series[Any]) -> list[Any] | None:
    """List a column with `null` for what is empty, rounded to the digits that mean something; None if all is empty."""
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    known = np.isfinite(values)
    if not known.any():
        return None
    if str(column.dtype).lower() == "int64":
        rounded = np.where(known, values, 0).astype(np.int64)
    else:
        rounded = values.copy()
        with np.errstate(divide="ignore"):
            size = np.where(known & (values != 0), np.floor(np.log10(np.abs(values))), 0)
        for power in np.unique(size[known]):  # rounding to decimals gives the float that is written shortest
            at = known & (size == power)
            rounded[at] = np.round(values[at], _DIGITS - 1 - int(power))
    listed: list[Any] = rounded.tolist()
    for place in np.flatnonzero(~known):
        listed[place] = None
    return listed


def _embeddable(text: str) -> str:
    """Keep JSON from ending the script element, or from opening a comment in it: `<` is written as an escape."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
