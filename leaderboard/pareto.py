"""Pareto fronts, and which rows dominate another.

Rows are records, a frame, or columns as `Store.columns` gives them. Rows are compared where all of `columns.GROUP`
agrees: the data, the device, measured or imported; superseded and retracted rows are compared with none. An empty
figure never dominates. `front` and `on_front` go by the figures, `front_with_intervals` by what the figures may be;
ties (`ties.py`) never dominate.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tutelage.dominance import beaten, undominated
from tutelage.records import InputError, Row

from . import columns
from .columns import GROUP as GROUP
from .columns import Direction
from .ties import bar, resolutions, span, tolerances

if TYPE_CHECKING:
    import pandas as pd

    Rows = Sequence[Row] | pd.DataFrame | Mapping[str, Sequence[Any]]

Verdict = Literal["sure", "maybe", "no"]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Groups = Sequence[NDArray[np.intp]]

# What `on_front` means where nobody says otherwise; of the two qualities a group uses the first that any row has.
QUALITY = ("auc", "accuracy")
COSTS = ("latency_p50_ms", "size_bytes")


@dataclass(frozen=True)
class Dominance:
    """Why a row is not on the front: the row that dominates it, and its gain on each objective (positive is better)."""

    by: int
    gains: dict[str, float]


def parse_objectives(text: str) -> dict[str, Direction]:
    """Read `latency_p50_ms,auc` or, with directions of one's own, `params:max`."""
    return directions([part.strip() for part in text.split(",") if part.strip()])


def directions(objectives: Sequence[str] | Mapping[str, Direction]) -> dict[str, Direction]:
    """Give each objective its direction, or raise InputError for a column that has none."""
    if isinstance(objectives, Mapping):
        return dict(objectives)
    ways = columns.directions()
    found: dict[str, Direction] = {}
    for objective in objectives:
        name, _, way = objective.partition(":")
        usual = columns.direction(name)
        if usual is None or way not in ("", "min", "max"):
            near = difflib.get_close_matches(name, ways, n=1) if usual is None else []
            raise InputError(
                f"{objective!r} is not an objective{f', the nearest is {near[0]!r}' if near else ''}: choose among "
                f"{', '.join(ways)} (or NAME:min|max)"
            )
        if name in found:
            raise InputError(f"{name} is given twice: name each figure of a front once")
        found[name] = usual if not way else ("min" if way == "min" else "max")
    if not found:
        raise InputError("a front needs at least one objective, e.g. latency_p50_ms,auc")
    return found


def front(
    rows: Rows,
    objectives: Sequence[str] | Mapping[str, Direction],
    *,
    epsilon: Mapping[str, float] | None = None,
    tolerance: Mapping[str, float] | None = None,
    groups: Groups | None = None,
) -> list[bool]:
    """Say for each row whether it is on the front of its group, by the figures as they are.

    `epsilon` (differences in the objective's unit) and `tolerance` (fractions) are ties: a row leaves the front only
    when another is no worse on all objectives and better by more than a tie on one. That relation is transitive, so a
    dominated row that is added changes nothing. Without ties this is the exact front; equal rows are on it together.
    `groups` are the rows' places by group, where the caller has parted them already.
    """
    ways = directions(objectives)
    costs = costs_of(rows, ways)
    bars = bars_of(costs, ways, epsilon or {}, tolerance or {})
    flags = np.zeros(len(costs), dtype=bool)
    for members in _groups(rows) if groups is None else groups:
        flags[members] = undominated(costs[members], bars[members])
    return [bool(flag) for flag in flags]


def on_front(rows: Rows, chosen: Mapping[str, Sequence[str]] | None = None) -> list[bool]:
    """Mark the default front of each group: AUC (else accuracy), median latency and size on disk, ties allowed for.

    An objective that no row of a group has (a data set without devices) is left out of that group's front. chosen: the
    objectives of each group by its hash (`comparable`), where a store says which its other rows have.
    """
    names = (*QUALITY, *COSTS)
    ways = directions(names)
    costs = costs_of(rows, ways)
    bars = bars_of(costs, ways, resolutions(ways), tolerances())
    flags = np.zeros(len(costs), dtype=bool)
    for members in _groups(rows):
        if chosen is None or not isinstance(rows, Mapping):
            known = _some(~np.isnan(costs[members]).T)
            wanted = default_objectives([name for place, name in enumerate(names) if known[place]])
        else:
            wanted = tuple(chosen[rows["comparable"][members[0]]])
        places = [names.index(name) for name in wanted]
        if places:
            flags[members] = undominated(costs[members][:, places], bars[members][:, places])
    return [bool(flag) for flag in flags]


def default_objectives(known: Sequence[str]) -> tuple[str, ...]:
    """Give the objectives of the default front of a group that has these figures; none without a quality."""
    quality = next((name for name in QUALITY if name in known), None)
    return () if quality is None else (quality, *(name for name in COSTS if name in known))


def marks(
    rows: Rows,
    objectives: Sequence[str] | None = None,
    ties: str = "",
    chosen: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """Give the mark of each row: `*` on the front; of objectives of one's own also how sure that is, or a tie.

    A quality without an interval leaves it unsaid how sure.

    ties, chosen: see `parse_ties` and `on_front`.
    """
    if not objectives:
        return ["*" if flag else "" for flag in on_front(rows, chosen)]
    ways = directions(objectives)
    epsilon, tolerance = ties_of(ties, ways)
    near = front(rows, ways, epsilon=epsilon, tolerance=tolerance)
    words = {"sure": " sure", "maybe": " maybe", "no": ""}
    if without_interval(ways):  # how sure it is cannot be said
        words = dict.fromkeys(words, "")
    return [
        f"{'*' if flag else ' '}{' tie' if tie and not flag else words[verdict]}".rstrip()
        for flag, tie, verdict in zip(front(rows, ways), near, front_with_intervals(rows, ways), strict=True)
    ]


def without_interval(names: Iterable[str]) -> list[str]:
    """Give the qualities among some columns of which a row holds no interval."""
    unknown = set(names) - set(columns.with_interval(names))
    return [name for name in names if name in unknown and columns.COLUMNS[name].group == "quality"]


def ties_of(
    text: str, objectives: Sequence[str] | Mapping[str, Direction]
) -> tuple[dict[str, float], dict[str, float]]:
    """Give the differences and the fractions that do not count: the usual ones but for those that a text names."""
    own = parse_ties(text, objectives) if text else {}
    usual = {name: size for name, size in tolerances().items() if name not in own}
    return {**resolutions(objectives), **own}, usual


def front_with_intervals(
    rows: Rows, objectives: Sequence[str] | Mapping[str, Direction], *, groups: Groups | None = None
) -> list[Verdict]:
    """Say whether a row is on the front for sure, maybe or not, given what its figures may be (`ties.span`).

    `sure`: no row at its best dominates this row at its worst. `no`: some row at its worst dominates this row at its
    best. Qualities and the median latency have intervals (`auc_lo`, `latency_p50_ms_hi` ...); counts are exact.
    """
    ways = directions(objectives)
    point = costs_of(rows, ways)
    best, worst = spans_of(rows, ways)
    verdicts = np.full(len(point), "no", dtype=object)
    for members in _groups(rows) if groups is None else groups:
        known = members[~_some(np.isnan(point[members]))]
        # What dominates anything has a row of its own front that dominates it too, so only fronts are compared. Rows of
        # the first one dominate themselves at their worst: beside the others of it, what only they dominate counts.
        at_best, at_worst = undominated(best[known], best[known]), undominated(worst[known], worst[known])
        others = ~at_best
        others[others] = undominated(best[known][others], best[known][others])
        points = np.concatenate([np.flatnonzero(at_best), np.flatnonzero(others)])
        unsure, own = ~at_best, np.arange(int(at_best.sum()))
        unsure[at_best] = beaten(best[known][points], worst[known][at_best], worst[known][at_best], own)
        out = beaten(worst[known][at_worst], best[known], best[known])
        verdicts[known] = np.where(out, "no", np.where(unsure, "maybe", "sure"))
    return list(verdicts)


def parse_ties(text: str, objectives: Sequence[str] | Mapping[str, Direction]) -> dict[str, float]:
    """Read the differences that do not count: `0.005` (for each quality), or `auc=0.005,latency_p50_ms=0.1ms`."""
    from .filters import number

    ways = directions(objectives)
    found: dict[str, float] = {}
    for part in (part.strip() for part in text.split(",") if part.strip()):
        name, sign, value = part.partition("=")
        names = [name.strip()] if sign else [one for one in ways if one in QUALITY]
        known = bool(names) and set(names) <= set(ways)
        size = number(value.strip() if sign else part, names[0]) if known else None  # in the units of its column
        if size is None or not 0 <= size < (1 if names[0] in QUALITY else math.inf):
            raise InputError(
                f"--ties {part!r}: write e.g. 0.005 or auc=0.005,latency_p50_ms=0.1ms, of {', '.join(ways)}"
            )
        if twice := set(names) & set(found):
            raise InputError(f"--ties {text!r}: {twice.pop()} is given twice: name each figure once")
        found |= dict.fromkeys(names, size)
    return found


def dominated_by(rows: Rows, place: int, objectives: Sequence[str] | Mapping[str, Direction]) -> list[Dominance]:
    """List the rows that dominate the one at `place`, those on the front first; ties do not dominate (`on_front`)."""
    ways = directions(objectives)
    costs = costs_of(rows, ways)
    bars = bars_of(costs, ways, resolutions(ways), tolerances())
    members = next(group for group in _groups(rows) if place in group)
    if np.isnan(costs[place]).any():
        return []
    flags = undominated(costs[members], bars[members])
    beats = _every(costs[members] <= costs[place]) & _some(costs[members] < bars[place])
    order = sorted(np.flatnonzero(beats), key=lambda index: (not flags[index], tuple(costs[members[index]])))
    return [
        Dominance(int(members[index]), dict(zip(ways, (costs[place] - costs[members[index]]).tolist(), strict=True)))
        for index in order
    ]


def figures(rows: Rows, name: str) -> Floats:
    """Give one column as floats, NaN where it is empty."""
    if isinstance(rows, Sequence):
        one = columns.column(name)
        return np.array([one.of(row) for row in rows], dtype=np.float64)
    if isinstance(rows, Mapping):
        return np.array(rows[name] if name in rows else [None] * len(rows["dataset"]), dtype=np.float64)
    if name not in rows:
        return np.full(len(rows), np.nan)
    return rows[name].to_numpy(dtype=np.float64, na_value=np.nan)


def costs_of(rows: Rows, ways: Mapping[str, Direction]) -> Floats:
    """Stack the objectives (rows, objectives), all turned so that less is better."""
    return np.stack([figures(rows, name) * (1.0 if way == "min" else -1.0) for name, way in ways.items()], axis=1)


def bars_of(
    costs: Floats, ways: Mapping[str, Direction], epsilon: Mapping[str, float], tolerance: Mapping[str, float]
) -> Floats:
    """Give what a cost must be below to be better by more than a tie `(rows, objectives)`."""
    columns = []
    for place, (name, way) in enumerate(ways.items()):
        sign = 1.0 if way == "min" else -1.0
        passed = bar(
            costs[:, place] * sign,
            higher_is_better=way == "max",
            epsilon=epsilon.get(name, 0.0),
            tolerance=tolerance.get(name, 0.0),
        )
        columns.append(passed * sign)
    return np.stack(columns, axis=1)


def spans_of(rows: Rows, ways: Mapping[str, Direction]) -> tuple[Floats, Floats]:
    """Give the costs at their best and at their worst `(rows, objectives)`."""
    best, worst = [], []
    bounded = columns.with_interval(ways)
    for name, way in ways.items():
        ends = [figures(rows, f"{name}{end}") if name in bounded else None for end in ("_lo", "_hi")]
        low, high = span(name, figures(rows, name), *ends)
        best.append(low if way == "min" else -high)
        worst.append(high if way == "min" else -low)
    return np.stack(best, axis=1), np.stack(worst, axis=1)


def _groups(rows: Rows) -> list[NDArray[np.intp]]:
    """Split the places of the current rows into groups that may be compared."""
    if isinstance(rows, Sequence | Mapping):
        if isinstance(rows, Sequence):
            columns: list[Sequence[Any]] = [[getattr(row, name) for row in rows] for name in GROUP]
        elif "comparable" in rows:  # the store's hash of these columns
            columns = [rows["comparable"]]
        else:
            columns = [rows[name] for name in GROUP]
        return parted(columns, _former(rows))
    numbers, _ = numbered(rows, GROUP)
    places = np.argsort(numbers, kind="stable")
    places = places[~np.isin(places, list(former))] if (former := _former(rows)) else places
    return np.split(places, np.flatnonzero(np.diff(numbers[places])) + 1) if len(places) else []


def numbered(rows: pd.DataFrame, names: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Give each row of a frame a number, equal where columns agree in all, and the first place of each number."""
    import pandas as pd

    mixed = np.zeros(len(rows), dtype=np.int64)
    first = np.zeros(min(1, len(rows)), dtype=np.intp)
    for name in names:
        codes, texts = pd.factorize(rows[name])  # -1: empty
        if len(texts) > 1 or (codes < 0).any():
            mixed = mixed * (len(texts) + 1) + codes
            _, first, mixed = np.unique(mixed, return_index=True, return_inverse=True)
    return mixed.astype(np.intp), first


def parted(columns: Sequence[Sequence[Any]], without: Set[int] = frozenset()) -> list[NDArray[np.intp]]:
    """Give the places at which all columns agree, a group each, without some places."""
    members: dict[tuple[object, ...], list[int]] = {}
    for place, group in enumerate(zip(*columns, strict=True)):
        if place not in without:
            members.setdefault(group, []).append(place)
    return [np.array(places, dtype=np.intp) for places in members.values()]


def _former(rows: Rows) -> set[int]:
    """Give the places of superseded and retracted rows; only a store's columns say which are."""
    if isinstance(rows, Sequence):
        return set()
    said = [rows[name] for name in columns.OF_FORMER if name in rows]
    return {place for column in said for place, why in enumerate(column) if why}


def _every(flags: Flags) -> Flags:
    found: Flags = np.logical_and.reduce(flags, axis=1)
    return found


def _some(flags: Flags) -> Flags:
    found: Flags = np.logical_or.reduce(flags, axis=1)
    return found
