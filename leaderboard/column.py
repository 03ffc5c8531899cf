"""One column of the leaderboard (`Column`): what is known of it, and how its values are read and written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from tutelage.quantities import KINDS, three_digits, written_fraction
from tutelage.records import COMPARABLE, InputError, Row

from .gained import is_absent

Kind = Literal["text", "json", "flag", "plain", "pixels", "fraction", "count", "size", "latency", "energy"]
Group = Literal["row", "quality", "cost", "gain", "seeds", "explanation"]
Direction = Literal["min", "max"]

# Who may be compared with whom: rows of the same data and the same device, never imported ones with measured ones.
GROUP = COMPARABLE

# How people read the numbers of a kind: the unit, and what a value is divided by to be in it.
_SHOWN: Mapping[str, tuple[str, float]] = {
    **{"count": ("M", 1e6), "size": ("MB", 1e6), "latency": ("ms", 1.0), "energy": ("mJ", 1.0)},
    "pixels": ("px", 1.0),
}
# What a store says of rows that are not current; empty of all others.
OF_FORMER = ("superseded_by", "retracted")
# What stands in no field of a row and in no details.
COMPUTED = ("row_id", "on_front", "tags", *OF_FORMER)
# An integer of more digits may be beyond what a double holds.
MOST_DIGITS = 308


@dataclass(frozen=True)
class Column:
    """What is known of one column; only `name` and `help` must be given, and `at` where it is no field of a row."""

    name: str
    help: str  # one sentence for the table of columns and the page
    kind: Kind = "plain"  # of numbers: a name of `quantities.KINDS`, whose units a filter takes
    group: Group = "row"
    label: str = ""  # the heading, without unit; the name where it is empty
    short: str = ""  # the heading where there is little room; the label where it is empty
    at: tuple[str, ...] = ()  # paths in `details` ("seeds.auc_sd"); the first that holds a value counts
    unit: str = ""  # of a plain number; the other kinds have theirs
    better: Direction | None = None  # None: a figure of which neither more nor less is better
    is_whole: bool = False
    is_usual: bool = False  # shown where nobody chose columns
    priority: int | None = None  # a narrow terminal keeps the lowest; None: shown when asked for by name
    valid: Literal["any", "fraction", "positive"] = "any"  # what an imported figure must be
    at_most: str = ""  # the column that this one never exceeds
    is_of_device: bool = False  # means something on one and the same device only
    resolution: float = 0.0  # a difference that does not count, in the unit of the column
    tolerance: float = 0.0  # a difference that does not count, as a fraction of the larger value
    comparatives: tuple[str, str] | None = None  # words for less and more, e.g. faster and slower
    # What people read where it is made of other columns: their names, the words for their values, and what orders rows.
    made_of: tuple[str, ...] = ()
    words: Callable[[Sequence[Any]], str] | None = None
    ordered_by: tuple[str, ...] = ()
    is_searched: bool = True  # of a text of the row itself: a word of a filter without a column is looked for in it
    is_list: bool = False  # of a text: words, joined by blanks, each of which `=` finds
    former: tuple[str, ...] = ()  # names that it had: filters, links and imported files may still say them

    def __post_init__(self) -> None:
        if self.at and self.kind in ("json", "flag"):
            raise InputError(f"column {self.name!r}: a value of the details is a number or a text, not {self.kind}")
        if not self.at and self.name not in (*Row.model_fields, *COMPUTED):
            raise InputError(
                f"column {self.name!r}: a row has no such field: say where it stands in its details, "
                f'e.g. at=("{self.name}",)'
            )

    @property
    def is_number(self) -> bool:
        return self.kind in KINDS

    @property
    def is_text(self) -> bool:
        return self.kind == "text"

    @property
    def is_key(self) -> bool:
        """Say whether rows are comparable only where they agree in it."""
        return self.name in GROUP

    @property
    def stored_unit(self) -> str:
        """The unit of the stored value, e.g. B of a size in bytes."""
        return self.unit or {"size": "B", "latency": "ms", "energy": "mJ", "pixels": "px"}.get(self.kind, "")

    @property
    def shown_unit(self) -> str:
        """The unit that people read it in, e.g. MB of a size in bytes."""
        return self.unit or _SHOWN.get(self.kind, ("", 1.0))[0]

    @property
    def scale(self) -> float:
        """What a value is divided by to be in the unit that people read."""
        return _SHOWN.get(self.kind, ("", 1.0))[1]

    @property
    def name_for_people(self) -> str:
        return self.label or self.name.replace("_", " ")

    @property
    def heading(self) -> str:
        """The label with its unit: `latency p50 (ms)`."""
        return f"{self.name_for_people} ({self.shown_unit})" if self.shown_unit else self.name_for_people

    @property
    def short_heading(self) -> str:
        """The heading of a narrow table: `p50 (ms)`."""
        name = self.short or self.name_for_people
        return f"{name} ({self.shown_unit})" if self.shown_unit else name

    @cached_property
    def paths(self) -> tuple[tuple[str, ...], ...]:
        """The keys that lead to each place in the details."""
        return tuple(tuple(place.split(".")) for place in self.at)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that it answers to: its own, its former ones, and its paths in the details."""
        return tuple(dict.fromkeys((self.name, *self.former, *self.at)))

    def read(self, details: Mapping[str, Any]) -> Any:
        """Give the value that the details hold: a finite number or None; of a text column a text, "" where absent."""
        for path in self.paths:
            value: Any = details
            for key in path:
                value = value.get(key) if isinstance(value, Mapping) else None
            value = self.clean(value)
            if value not in (None, ""):
                return value
        return "" if self.is_text else None

    def clean(self, value: Any) -> Any:
        """Give a value of the column's type, or None for anything else: NaN, a truth value, a text for a number."""
        if self.is_text:
            return value if isinstance(value, str) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if isinstance(value, int) and len(str(abs(value))) > MOST_DIGITS:
            return None
        if not math.isfinite(value):
            return None
        return int(value) if self.is_whole and value == int(value) else float(value)

    def of(self, row: Row) -> Any:
        """Give a row's value; what the rows around it decide (`on_front`) is None, an absent text is empty."""
        if self.at:
            return self.read(row.details)
        if self.name in COMPUTED:
            return row.key if self.name == "row_id" else "" if self.is_text else None
        return getattr(row, self.name)

    def write(self, value: Any, low: Any = None, high: Any = None) -> str:
        """Write a value for people, in the unit of the heading; an absent one is empty.

        low, high: the ends of its interval, None or NaN where unknown; no digit is written that they do not carry.
        """
        if is_absent(value):
            return ""
        if self.kind == "flag":
            return "*" if value else ""
        if not self.is_number:
            return str(value)
        ends = [None if is_absent(end) else float(end) for end in (low, high)]
        if self.kind == "fraction":
            return written_fraction(value, *ends)
        if self.kind in ("plain", "pixels") and (isinstance(value, int) or self.is_whole):
            return str(int(value))
        return three_digits(float(value) / self.scale, *(None if end is None else end / self.scale for end in ends))
