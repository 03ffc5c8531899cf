"""The columns of the leaderboard: one entry each, from which store, filters, exports, tables, plots and page follow.

`COLUMNS` is the registry: the built-in columns in the order in which people read them, then those that other packages
add (entry points `tutelage.columns`). `column` looks one up by its name or a former name. A column is either a field of
`records.Row` or a value of its `details`; the latter needs its entry here and nothing else.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from tutelage.corruptions import CORRUPTIONS
from tutelage.plugins import Registry
from tutelage.quantities import KINDS, three_digits, written_fraction
from tutelage.records import COMPARABLE, InputError, Row

from .gained import GAIN_COLUMNS, gain_words, is_absent

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


def _quality(name: str, label: str, priority: int, what: str) -> list[Column]:
    """A quality and the ends of its interval."""
    common: dict[str, Any] = {"kind": "fraction", "group": "quality", "valid": "fraction"}
    return [
        Column(name, f"{what} on the split of the row; over seeds, their mean.", label=label, better="max",
               is_usual=True, priority=priority, at_most=f"{name}_hi", resolution=0.0005, **common),
        Column(f"{name}_lo", f"Lower end of the 95 % interval of the {label}.", at_most=name, **common),
        Column(f"{name}_hi", f"Upper end of the 95 % interval of the {label}.", **common),
    ]  # fmt: skip


def _cost(name: str, help: str, kind: Kind, **more: Any) -> Column:
    return Column(name, help, kind, "cost", better="min", valid="positive", **more)


def _latency(percent: int, **more: Any) -> Column:
    help, name = f"{percent}th percentile of the single-stream latencies.", f"latency_p{percent}_ms"
    return _cost(name, help, "latency", label=f"latency p{percent}", short=f"p{percent}", is_of_device=True,
                 tolerance=0.05, **more)  # fmt: skip


def _gain_at(*names: str) -> tuple[str, ...]:
    """Where a gain stands in the details: the older of the two places is that of rows filed before the new name."""
    return tuple(f"{place}.{name}" for place in ("gain_over_control", "gain_over_twin") for name in names)


def _gain(quality: str, label: str, old_p: str) -> list[Column]:
    """What the teacher was worth: the difference to the same student trained without one, by a paired test."""
    common: dict[str, Any] = {"kind": "fraction", "group": "gain"}
    return [
        Column(f"gain_{quality}", f"{label} over the same student trained without a teacher.", at=_gain_at(quality),
               label=f"{label} gained by the teacher", better="max", **common),
        Column(f"gain_{quality}_lo", "Lower end of its 95 % interval.", at=_gain_at(f"{quality}_lo"), **common),
        Column(f"gain_{quality}_hi", "Upper end of its 95 % interval.", at=_gain_at(f"{quality}_hi"), **common),
        Column(f"gain_{quality}_p", "p value of its paired test.", at=_gain_at(f"{quality}_p", old_p),
               label=f"p of the {label} gained", **common),
    ]  # fmt: skip


def _of_seeds(name: str, what: str) -> Column:
    return Column(f"seeds_{name}", what, "fraction", "seeds", at=(f"seeds.{name}",))


def _second(name: str, what: str) -> Column:
    return Column(f"second_test_{name}", f"{what} on the second test set.", "fraction", "quality",
                  at=(f"second_test.{name}",))  # fmt: skip


def _explained(name: str, what: str, better: Direction | None = None, former: str = "") -> Column:
    return Column(f"explained_{name}", what, "fraction", "explanation", better=better,
                  at=tuple(f"explanation.{each}" for each in (name, former) if each),
                  former=(f"explained_{former}",) if former else (),
                  label=f"explanation: {name.replace('_', ' ')}")  # fmt: skip


# In the order in which a table for people shows them; files are written in the order of `export.COLUMNS`.
BUILTIN: tuple[Column, ...] = (
    Column("on_front", "Whether no comparable row is at least as good in AUC (else accuracy), median latency and size, "
           "and better in one by more than a tie.", "flag", label="overall front", is_usual=True, priority=0),
    Column("row_id", "Identifier of the row: a hash of what it is of.", "text", label="id", priority=6),
    Column("model", "Name of the network.", "text", is_usual=True, priority=1),
    Column("role", "teacher, student or baseline.", "text", is_usual=True, priority=15),
    Column("teacher", "Networks that it was distilled from, joined by +; empty: trained on labels only.", "text",
           is_usual=True, priority=6),
    Column("scheme", "Precision of the file: fp32, int8-ptq, int8-qat ...", "text", is_usual=True, priority=5),
    Column("dataset", "Data set that it was evaluated on.", "text", label="data set", priority=14),
    Column("manifest", "Hash of the data: files, labels, groups, splits. Empty: not known.", "text"),
    Column("split", "Split that it was evaluated on.", "text"),
    Column("fold", "Fold that was the test split; empty where the data were not split into folds.", is_whole=True),
    Column("image_size", "Resolution of the images as they were decoded; a network may take them resized.",
           "pixels", is_whole=True, label="image size", valid="positive"),
    Column("device", "Device profile that it was measured on.", "text", is_usual=True, priority=13),
    Column("runtime", "Runtime that ran it there.", "text", priority=19),
    Column("runtime_version", "Version of that runtime.", "text", label="runtime version"),
    Column("processor", "CPU or GPU that ran it.", "text"),
    # `fp32` alone asks for files of that scheme: int8 files on an fp32 profile are none.
    Column("precision", "Precision that the device computes fp32 files in; an int8 file is `scheme`.", "text",
           is_searched=False),
    Column("power_state", "What set the clock when measured: governor, turbo, battery. Empty: not known.", "text"),
    Column("batch", "Images in one run of the measurement.", is_whole=True, priority=21, valid="positive"),
    Column("threads", "Threads of the measurement.", is_whole=True, priority=22, valid="positive"),
    *_quality("auc", "AUC", 2, "Area under the ROC curve, mean over classes,"),
    *_quality("accuracy", "accuracy", 3, "Accuracy"),
    Column("gain", "Verdict on the gain over seeds and groups of images, in words.", "text", "gain",
           label="gain of teacher", at=_gain_at("verdict"), is_usual=True, priority=8,
           made_of=GAIN_COLUMNS, words=gain_words, ordered_by=("gain_auc", "gain_accuracy")),
    _cost("params", "Parameters.", "count", is_whole=True, is_usual=True, priority=10),
    _cost("macs", "Multiply-accumulate operations of one image.", "count", label="MACs", is_whole=True, is_usual=True,
          priority=11),
    _cost("size_bytes", "Size of the file.", "size", label="size", is_whole=True, is_usual=True, priority=7,
          comparatives=("smaller", "larger")),
    _latency(50, is_usual=True, priority=4, at_most="latency_p90_ms", comparatives=("faster", "slower")),
    _latency(90, priority=20, at_most="latency_p99_ms"),
    _latency(99, priority=16),
    _cost("peak_rss_bytes", "Peak resident memory of the measuring process.", "size", label="peak memory", short="RSS",
          is_whole=True, is_of_device=True, tolerance=0.05, priority=17),
    _cost("ram_estimated_bytes", "RAM that it would take on a microcontroller (TFLite Micro's arena), counted of its "
          "architecture and never measured.", "size", label="RAM (estimated)", is_whole=True,
          at=("ram_estimated_bytes",)),
    _cost("energy_mj", "Energy of one image.", "energy", label="energy", is_usual=True, is_of_device=True,
          tolerance=0.05, priority=18, comparatives=("less energy", "more energy")),
    Column("seed", "Seed of the run.", is_whole=True, priority=23),
    Column("created", "Time at which the row was filed, in UTC.", "text", priority=24),
    Column("arch", "Architecture of a search space, as JSON.", "json", label="architecture"),
    Column("recipe", "Recipe that made it.", "text"),
    Column("user", "Who ran it.", "text", at=("user",), priority=25),
    Column("project", "Project that it belongs to.", "text", at=("project",), priority=26),
    Column("tags", "What people tagged it with (`leaderboard tag`), joined by blanks; `tags=x` finds each of them.",
           "text", is_list=True, is_searched=False, priority=27),
    Column("start", "What its training began with: fresh, supernet (of its run), pruned, or weights by their name. "
           "Empty: not known.", "text", at=("start",)),
    Column("epochs", "Epochs of its training's schedule; 0: its weights are used as they are.", is_whole=True,
           at=("epochs",)),
    Column("accelerator", "Trained by: device, precision, compiler.", "text", at=("accelerator",), is_searched=False),
    Column("failed", "What refused or broke where there are no figures of it.", "text", at=("failed",)),
    Column("source", "measured, or imported from somebody else's file.", "text"),
    Column("measurement", "Identifier of the raw latencies.", "text"),
    Column("control", "Model that is the same student trained without a teacher.", "text", former=("twin",)),
    Column("parent", "fp32 model that this one was compressed from.", "text"),
    *_gain("auc", "AUC", "delong_p"),
    *_gain("accuracy", "accuracy", "mcnemar_p"),
    Column("gain_margin", "Margin of equivalence of the verdict: its recipe's.", "fraction", "gain",
           at=_gain_at("margin"), label="margin of the gain"),
    *(Column(f"latency_p50_ms_{end}", f"{which} end of the 95 % interval of the median latency.", "latency", "cost",
             at=(f"latency_p50_ms_{end}",), is_of_device=True) for end, which in (("lo", "Lower"), ("hi", "Upper"))),
    Column("gain_file", "Verdict on the gain of this file alone.", "text", "gain", at=_gain_at("file_verdict")),
    Column("gain_seeds", "Seeds that the verdict rests on.", group="gain", at=_gain_at("num_seeds")),
    _of_seeds("accuracy_mean", "Mean accuracy over seeds."),
    _of_seeds("accuracy_sd", "Standard deviation of the accuracy over seeds."),
    _of_seeds("auc_mean", "Mean AUC over seeds."),
    _of_seeds("auc_sd", "Standard deviation of the AUC over seeds."),
    _second("accuracy", "Accuracy"),
    _second("auc", "AUC"),
    _second("auc_lo", "Lower end of the interval of the AUC"),
    _second("auc_hi", "Upper end of the interval of the AUC"),
    *(Column(f"shift_{name}", f"{what} on corrupted test images, mean of all corruptions at severities 1, 3 and 5.",
             "fraction", "quality", f"{what} under shift", at=(f"shift.{name}",), better="max", valid="fraction",
             resolution=0.0005) for name, what in (("auc", "AUC"), ("accuracy", "Accuracy"))),
    *(Column(f"shift_{name}", f"Accuracy on test images {one.words}, mean of severities 1, 3 and 5.", "fraction",
             "quality", at=(f"shift.{name}.accuracy",), valid="fraction") for name, one in CORRUPTIONS.items()),
    Column("explained_method", "Method of the explanations.", "text", "explanation", at=("explanation.method",)),
    _explained("insertion_auc", "Mean confidence while the pixels that the map ranks first are put in; high: the map "
               "finds what the network uses.", "max"),
    _explained("deletion_auc", "Mean confidence while those pixels are taken out; low: the network needs them.", "min"),
    _explained("road", "How much more the confidence falls without the most than without the least important "
               "pixels, halved (ROAD).", "max"),
    _explained("sanity_spearman", "Rank correlation with the map of the same network with random weights; near 0: the "
               "map depends on what was learnt.", "min"),
    _explained("pointing", "How often the hottest point lies inside the mask (pointing game).", "max"),
    _explained("energy", "Fraction of the map's heat inside the mask; by chance it is the mask's fraction of the "
               "image.", "max"),
    _explained("mask_fraction", "Fraction of the image that the mask covers: what pointing and energy would be by "
               "chance.",
               former="mask_share"),
    _explained("teacher_spearman",
               "Rank correlation with the teacher's map; 1: student and teacher look at the same places.", "max"),
    _explained("teacher_iou",
               "Overlap (IoU) of the hottest parts of the student's and the teacher's maps.", "max"),
    _explained("fp32_spearman", "Rank correlation of an int8 file's map with its fp32 network's; 1: rounding changed "
               "nothing there.", "max"),
    _explained("fp32_iou",
               "Overlap (IoU) of the hottest parts of an int8 file's map and its fp32 network's.", "max"),
    Column("superseded_by", "Row of the later run of the same thing, which took the place of this one.", "text",
           label="superseded by"),
    Column("retracted", "Why the row was retracted.", "text"),
    Column("details", "Everything else that is known of the row, as JSON.", "json"),
)  # fmt: skip

COLUMNS: Registry[Column] = Registry("columns", "column", Column, BUILTIN)
# Values of the details that the store's table holds as well, since its version 3.
GAINS = tuple(one.name for one in BUILTIN if one.group == "gain" and one.kind == "fraction")
# All of those: fronts by intervals need the latency's bounds of every row, without its details.
HELD = (*GAINS, "latency_p50_ms_lo", "latency_p50_ms_hi")
HELD_TEXTS = ("user", "project")


def known() -> tuple[Column, ...]:
    """Give all columns: the built-in ones and those of plug-ins, `details` last."""
    every = tuple(COLUMNS.values())
    return (*(one for one in every if one.name != "details"), COLUMNS["details"])


def column(name: str) -> Column:
    """Give a column by its name, a former name or its path in the details; InputError names the nearest."""
    found = by_any_name().get(name)
    if found is None:
        (near,) = difflib.get_close_matches(name, [one.name for one in known()], n=1, cutoff=0.0)
        raise InputError(f"no column {name!r}, the nearest is {near!r}")
    return found


def by_any_name() -> dict[str, Column]:
    """Give the columns by every name that they answer to; a name of today goes before a former one."""
    every = known()
    return {name: one for one in every for name in one.names} | {one.name: one for one in every}


def directions() -> dict[str, Direction]:
    """Give what can be an objective, and which way it is better: qualities and costs."""
    return {one.name: one.better for one in known() if one.better and one.group in ("quality", "cost")}


def qualities() -> tuple[str, ...]:
    """Name the figures of which more is better that a front may have: AUC first."""
    return tuple(name for name, way in directions().items() if way == "max")


def costs() -> tuple[str, ...]:
    """Name the figures of which less is better that a front may have."""
    return tuple(name for name, way in directions().items() if way == "min")


def with_interval(names: Iterable[str]) -> list[str]:
    """Give those of some columns whose interval is known too, as `NAME_lo` and `NAME_hi`."""
    return [name for name in names if f"{name}_lo" in COLUMNS and f"{name}_hi" in COLUMNS]
