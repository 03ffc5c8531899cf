"""The columns of the leaderboard: one entry each, from which store, filters, exports, tables, plots and page follow.

`COLUMNS` is the registry: the built-in columns in the order in which people read them, then those that other packages
add (entry points `tutelage.columns`). `column` looks one up by its name or a former name. A column is either a field of
`records.Row` or a value of its `details`; the latter needs its entry here and nothing else. Of test sets that recipes
name, `COLUMNS` gives `accuracy@NAME` and `auc@NAME` when they are asked for (`of_test_set`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from tutelage.corruptions import CORRUPTIONS, MOST_SHIFT_SETS, SHIFT_SET
from tutelage.plugins import Registry
from tutelage.records import InputError

from .column import COMPUTED as COMPUTED
from .column import GROUP as GROUP
from .column import OF_FORMER as OF_FORMER
from .column import Column as Column
from .column import Direction as Direction
from .column import Kind
from .gained import GAIN_COLUMNS, gain_words

_OF_TEST_SET = re.compile(rf"(accuracy|auc)@({SHIFT_SET})(_lo|_hi)?")


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


_FIGURES = {"auc": "AUC", "accuracy": "Accuracy"}

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
             resolution=0.0005) for name, what in _FIGURES.items()),
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


@lru_cache(maxsize=1024)
def of_test_set(name: str) -> Column | None:
    """Give the column of a figure on a test set that a recipe names, `accuracy@NAME`; None for another name."""
    found = _OF_TEST_SET.fullmatch(name)
    if found is None:
        return None
    figure, set_name, end = found[1], found[2], found[3] or ""
    label, at = f"{_FIGURES[figure]} on {set_name}", (f"shift.sets.{set_name}.{figure}{end}",)
    if end:
        which = "Lower" if end == "_lo" else "Upper"
        return Column(name, f"{which} end of the 95 % interval of the {label}.", "fraction", "quality", at=at)
    help = f"{_FIGURES[figure]} on the test set {set_name} of the recipe (`measure.shift_sets`)."
    return Column(name, help, "fraction", "quality", label, at=at, better="max", valid="fraction", resolution=0.0005)


def columns_of_test_sets(details: Mapping[str, Any]) -> list[Column]:
    """Give the columns of the test sets that a row's details hold figures of, with the ends of their intervals."""
    shift = details.get("shift")
    sets = shift.get("sets") if isinstance(shift, Mapping) else None
    names = [name for name in sets if re.fullmatch(SHIFT_SET, name)] if isinstance(sets, Mapping) else []
    return [
        COLUMNS[f"{figure}@{name}{end}"]
        for name in names[:MOST_SHIFT_SETS]
        for figure in _FIGURES
        for end in ("", "_lo", "_hi")
    ]


class _Columns(Registry[Column]):
    """The registry, and beside what it lists the columns of test sets."""

    def __getitem__(self, name: str) -> Column:
        return of_test_set(name) or super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        return (isinstance(name, str) and of_test_set(name) is not None) or super().__contains__(name)


COLUMNS: Registry[Column] = _Columns("columns", "column", Column, BUILTIN)
# Values of the details that the store's table holds as well, since its version 3.
GAINS = tuple(one.name for one in BUILTIN if one.group == "gain" and one.kind == "fraction")
# All of those: fronts by intervals need the latency's bounds of every row, without its details.
HELD = (*GAINS, "latency_p50_ms_lo", "latency_p50_ms_hi")
HELD_TEXTS = ("user", "project")


def known() -> tuple[Column, ...]:
    """Give all columns: the built-in ones and those of plug-ins, `details` last."""
    return (*(one for name, one in COLUMNS.listed.items() if name != "details"), COLUMNS.listed["details"])


def column(name: str) -> Column:
    """Give a column by its name, a former name or its path in the details; InputError names the nearest."""
    found = COLUMNS.listed.get(name) or of_test_set(name) or by_any_name().get(name)
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


def direction(name: str) -> Direction | None:
    """Say which way a figure is better; None for what can be no objective."""
    one = COLUMNS.get(name)
    return one.better if one is not None and one.group in ("quality", "cost") else None


def qualities() -> tuple[str, ...]:
    """Name the figures of which more is better that a front may have: AUC first."""
    return tuple(name for name, way in directions().items() if way == "max")


def costs() -> tuple[str, ...]:
    """Name the figures of which less is better that a front may have."""
    return tuple(name for name, way in directions().items() if way == "min")


def with_interval(names: Iterable[str]) -> list[str]:
    """Give those of some columns whose interval is known too, as `NAME_lo` and `NAME_hi`."""
    return [name for name in names if f"{name}_lo" in COLUMNS and f"{name}_hi" in COLUMNS]
