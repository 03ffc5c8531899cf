"""What the page knows of the rows: columns and what is known of each, fronts, names, verdicts, and details that fit.

`embedded` gives the text of the page's data element; from `_PACK_BYTES` on it is gzip in base64, which browsers unpack.
All that a whole group of rows decides is computed here; the page's script computes what a reader's filter leaves.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.corruptions import MOST_SHIFT_SETS
from tutelage.leaderboard import names, pareto
from tutelage.leaderboard.best import Ballot
from tutelage.leaderboard.columns import COLUMNS, OF_FORMER, Column, columns_of_test_sets, costs, known, qualities
from tutelage.leaderboard.export import for_people, frame
from tutelage.leaderboard.filters import grammar
from tutelage.leaderboard.names import data_names, device_names
from tutelage.records import DATA_KEY, DEVICE_KEY, SLOTS, Comparison, Row, utc_now

from .bodies import Details, bodies_of, halts_of
from .verdicts import Verdicts

if TYPE_CHECKING:
    import pandas as pd

FRONT = COLUMNS["on_front"].help
# Six significant digits are beyond any measurement here and halve the file.
_DIGITS = 6
_MOST_SET_COLUMNS = 6 * MOST_SHIFT_SETS  # of all rows: anybody may name sets in an imported one
_VERDICTS = {"no": 1, "maybe": 2, "sure": 3}
# Below this the data are plain text that a person can read in the file.
_PACK_BYTES = 2_000_000


def embedded(
    rows: Sequence[Row] | pd.DataFrame, live: str, details: Details | None, verdicts: Verdicts | None = None
) -> tuple[str, bool]:
    """Give the text of the data element and whether it is packed."""
    found = frame(rows)
    bodies = bodies_of(found, details)
    sets = _of_test_sets(bodies, len(found))
    found, every = found.assign(**sets), (*known(), *(COLUMNS[name] for name in sets))
    numbers = {one.name: _numbers(found[one.name]) for one in every if one.is_number and one.name in found}
    figures = {name: values for name, values in numbers.items() if values is not None}
    others = _unregistered(bodies, len(found))
    language = grammar()
    language["kinds"] |= {name: "plain" for name in others if name not in language["kinds"]}
    language["kinds"] |= {name: COLUMNS[name].kind for name in sets}
    written = [one for one in known() if one.words is not None and one.name in found]
    texts = [one for one in known() if one.is_text and one.name in found and one.name in page_columns()]
    shown = [name for name in _qualities(sets) if name in pareto.QUALITY or name in figures]
    filled = {*figures, *shown, *costs(), "on_front", *(one.name for one in written)}
    filled |= {one.name for one in texts if (found[one.name] != "").any()}
    head = {
        **{"count": len(found), "made": utc_now(), "version": _version(), "live": live},
        **{"front": FRONT, "grammar": language},
        "columns": {one.name: _about(one) for one in every if one.name in filled} | _about_others(others),
        "usual": [one.name for one in known() if one.is_usual and _varies(found, one)],
        "group": list(pareto.GROUP),
        **{"qualities": shown, "costs": [*pareto.COSTS, *(one for one in costs() if one not in pareto.COSTS)]},
        "words": {one.name: _coded(found[one.name]) for one in texts},
        "written": {one.name: _coded(_series(for_people(one, found))) for one in written},
        "figures": {**figures, **others},
        "archs": _coded(found["arch"]),
        # How many blocks each stage may have, by the beginning of a space's name.
        "slots": {start: [always + more for always, more in stages] for start, stages in SLOTS.items()},
        "halts": halts_of(found, bodies, details),
        "flags": {"on_front": found["on_front"].astype(int).tolist()},
        **_named(found, sets),
        **_decided(found, verdicts or Verdicts()),
    }
    parts = [*_written(head), f',"detailed":{len(bodies)},"details":{{']
    parts += [f'{"," * (n > 0)}"{place}":{body}' for n, (place, body) in enumerate(bodies.items())]
    parts.append("}}")
    if sum(map(len, parts)) < _PACK_BYTES:
        return _embeddable("".join(parts)), False
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=3, mtime=0) as file:
        for part in parts:
            file.write(part.encode())
    return base64.b64encode(packed.getbuffer()).decode(), True


def _written(head: Mapping[str, Any]) -> Iterator[str]:
    """Write an object as JSON, open at its end, each column by itself: all at once they take several times as much."""
    for n, (name, value) in enumerate(head.items()):
        yield f"{',' if n else '{'}{_dumped(name)}:"
        if not isinstance(value, dict) or not value:
            yield _dumped(value)
            continue
        for k, (inner, column) in enumerate(value.items()):
            yield f"{',' if k else '{'}{_dumped(str(inner))}:{_dumped(column)}"
        yield "}"


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _version() -> str:
    """Give the version of this package; empty where it runs from a folder that was not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tutelage")
    except PackageNotFoundError:
        return ""


def page_columns() -> tuple[str, ...]:
    """Name what a store's frame must hold for the page; details are read of single rows."""
    unread = ("on_front", "details", "measurement", *OF_FORMER)
    return tuple(one.name for one in known() if one.name not in unread)


def _about(one: Column) -> dict[str, Any]:
    """Say what the script must know of a column: how it is written, which way is better, what it is for."""
    about = {
        "label": one.name_for_people,
        "heading": one.heading if one.shown_unit else None,
        "help": one.help,
        "group": one.group,
        "better": {"max": 1, "min": -1, None: 0}[one.better],
        "unit": one.shown_unit,
        "stored": one.stored_unit,
        "scale": one.scale if one.scale != 1 else 0,
        "digits": 3 if one.kind == "fraction" else None,
        "whole": one.is_number and one.is_whole and one.kind in ("plain", "pixels"),
        **{"number": one.is_number, "flag": one.kind == "flag", "usual": one.is_usual, "device": one.is_of_device},
        **{"less": one.comparatives, "ordered": one.ordered_by},
        **{"resolution": one.resolution, "tolerance": one.tolerance},
    }
    return {name: value for name, value in about.items() if value not in (None, 0, "", False, (), [])}


def _of_test_sets(bodies: Mapping[int, str], size: int) -> dict[str, Any]:
    """Read the figures on further test sets, of the rows whose details are here, as columns."""
    found: dict[str, list[float | None]] = {}
    for place, body in bodies.items():
        details = json.loads(body) if '"sets":' in body else {}
        for one in columns_of_test_sets(details):
            if one.name in found or len(found) < _MOST_SET_COLUMNS:
                found.setdefault(one.name, [None] * size)[place] = one.read(details)
    return {name: [np.nan if value is None else value for value in values] for name, values in found.items()}


def _qualities(sets: Iterable[str]) -> list[str]:
    return [*qualities(), *(name for name in sets if COLUMNS[name].better)]


def _unregistered(bodies: Mapping[int, str], size: int) -> dict[str, list[Any]]:
    """Find numbers that details hold and no column names: they can be chosen and compared on the page all the same."""
    found: dict[str, list[Any]] = {}
    registered = {key for one in known() for path in one.paths for key in path[:1]}
    for place, body in bodies.items():
        for name, value in json.loads(body).items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and name not in registered and name not in COLUMNS:
                found.setdefault(name, [None] * size)[place] = value
    return found


def _about_others(others: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"label": name.replace("_", " "), "number": True} for name in others}


def _varies(found: pd.DataFrame, one: Column) -> bool:
    """Say whether a column is worth a place: what rows are grouped by is not where all are of one group."""
    return one.name not in pareto.GROUP or found[one.name].nunique() > 1


def _named(found: pd.DataFrame, sets: Iterable[str]) -> dict[str, Any]:
    """Give what rows are called and drawn as, where they stand, and the fronts of every quality and cost of a group."""
    rows = found[["model", "teacher", "scheme", "role", "source", "arch"]].itertuples(index=False, name=None)
    spaces = _spaces(found["arch"])
    called = [
        (
            names.title(model, teacher, scheme),
            names.short_title(model, teacher, scheme),
            names.brief_teacher(teacher),
            names.kind_of(role, teacher, source),
            names.family_of(model, spaces.get(arch, "")),
        )
        for model, teacher, scheme, role, source, arch in rows
    ]
    columns = dict(zip(("title", "short", "teacher", "kind", "family"), zip(*called, strict=True), strict=False))
    places, rigs = _key_names(found, DATA_KEY, data_names), _key_names(found, (*DATA_KEY, *DEVICE_KEY), device_names)
    named = {name: _series(values) for name, values in columns.items()} | {"place": places, "rig": rigs}
    return {
        "kinds": names.KINDS,
        "names": {name: _coded(values) for name, values in named.items()},
        "fronts": _fronts(found, places, rigs, sets),
    }


def _spaces(archs: pd.Series[Any]) -> dict[str, str]:
    """Give the search space of each architecture, by its JSON."""
    return {text: str(json.loads(text).get("space", "")) for text in archs.unique() if text}


def _key_names(
    found: pd.DataFrame, key: Sequence[str], name: Callable[[Mapping[str, Sequence[Any]]], list[str]]
) -> pd.Series[Any]:
    """Name the data or the device of each row, as categories: each different one is named once."""
    import pandas as pd

    numbers, first = pareto.numbered(found, key)
    named = name({column: _listed(found[column].iloc[first]) for column in key})
    codes, texts = pd.factorize(np.array(named, dtype=object))
    return pd.Series(pd.Categorical.from_codes(codes[numbers], pd.Index(texts)))


def _fronts(found: pd.DataFrame, places: pd.Series[Any], rigs: pd.Series[Any], sets: Iterable[str]) -> dict[str, str]:
    """Give, of each pair of quality and cost, one digit a row.

    0: a figure is missing, or the row is imported; 1: not on the front by the intervals, 2: maybe, 3: for sure; and 4
    more where the row is on the front by its figures.
    """
    import pandas as pd

    groups = pareto.parted([places.cat.codes.tolist(), rigs.cat.codes.tolist(), found["source"].tolist()])
    measured = (found["source"] == "measured").to_numpy()
    axes = {*_qualities(sets), *costs()}
    drawn = [name for name in (*(one.name for one in known()), *sets) if _is_drawn(name, found, axes)]
    values: dict[str, Any] = {name: found[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in drawn}
    fronts, figures = {}, pd.DataFrame(values)
    for quality in (name for name in _qualities(sets) if name in values):
        for cost in (name for name in costs() if name in values):
            pair = (quality, cost)
            verdicts = [_VERDICTS[verdict] for verdict in pareto.front_with_intervals(figures, pair, groups=groups)]
            is_on = pareto.front(figures, pair, groups=groups)
            codes = np.array(verdicts, np.int64) + 4 * np.array(is_on, np.int64)
            codes[~measured | np.isnan(values[quality]) | np.isnan(values[cost])] = 0
            fronts[f"{quality}|{cost}"] = (codes + ord("0")).astype(np.uint8).tobytes().decode()
    return fronts


def _is_drawn(name: str, found: pd.DataFrame, axes: Set[str]) -> bool:
    is_axis = name.removesuffix("_lo").removesuffix("_hi") in axes
    return is_axis and name in found and bool(found[name].notna().any())


def _listed(column: pd.Series[Any]) -> list[Any]:
    """List a column with None for what is empty; pandas' NA equals nothing, itself included."""
    if str(column.dtype).lower() != "int64":
        return list(column)
    values: list[Any] = column.to_numpy(dtype=np.float64, na_value=np.nan).tolist()
    return [None if value != value else value for value in values] if column.hasnans else values


def _series(values: Sequence[Any]) -> pd.Series[Any]:
    import pandas as pd

    return pd.Series(list(values), dtype=object)


def _decided(found: pd.DataFrame, verdicts: Verdicts) -> dict[str, Any]:
    """Write verdicts by the rows' places: headlines, the tested file of each row (-1: none) and the tests of pairs."""
    ids = found["row_id"].tolist()
    places = {row_id: place for place, row_id in enumerate(ids)}
    headlines = [
        [places[one.student], places.get(one.teacher, -1), one.warning]
        for one in verdicts.headlines
        if one.student in places
    ]
    pairs = {
        f"{first},{second}": {one.figure: _test(one) for one in tests}
        for (first, second), tests in verdicts.pairs.items()
    }
    files = [verdicts.files.get(row_id, -1) for row_id in ids] if verdicts.files else []
    ballots = [_ballot(one, places) for one in verdicts.ballots if set(one.rows) <= places.keys()]
    return {"headlines": headlines, "files": files, "pairs": pairs, "ballots": ballots}


def _ballot(ballot: Ballot, places: Mapping[str, int]) -> dict[str, Any]:
    """Write the candidates for the best student as lists; `equal` holds the tests of the first `tested`, row by row."""
    candidates = ballot.candidates
    ends = [one.latency_ms or (None, None) for one in candidates]
    return {
        "rows": [places[row_id] for row_id in ballot.rows],
        **{"figure": ballot.figure, "margin": ballot.margin, "tested": ballot.num_tested, "equal": ballot.equal},
        "quality": [one.quality for one in candidates],
        "size": [one.size_bytes for one in candidates],
        "low": [low for low, _ in ends],
        "high": [high for _, high in ends],
        "distilled": [int(one.is_distilled) for one in candidates],
        "control": [-1 if one.control is None else one.control for one in candidates],
        "gained": list(ballot.gained),
    }


def _test(one: Comparison) -> list[Any]:
    numbers = (one.difference, one.low, one.high, one.p, one.margin)
    return [one.verdict, *(None if number is None else float(f"{number:.4g}") for number in numbers)]


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
