"""Read labels as files have them: words, codes of any numbering, 0/1 columns, one-hot rows; refuse what is no class.

`read_classes` reads one value an image, `read_columns` one column a label. What is read otherwise than it is written is
in the notes of the `Labels`; what cannot be a class raises InputError that names its place.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.records import InputError

from .ids import is_blank

UNKNOWN = ("refuse", "drop", "ignore", "zeros")
UNKNOWN_HELP = (
    "what a label that is not known (blank, NaN, -1) does: refuse (default), drop the image, or of multi-label columns "
    "ignore (left out of loss and metrics) or zeros"
)
MULTI_LABEL_HELP = "true: rows with exactly one 1 are multi-label all the same (default: one class an image)"

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

# Rows without exactly one 1, as a fraction, up to which columns look like one-hot classes with slips.
_FEW_EXCEPTIONS = 0.1

_LABEL_TYPES = (str, int, float, list, type(None))

_WHOLE = re.compile(r"([+-]?\d{1,100})(\.0*)?")
_JOINTS = re.compile(r"[;,/+&]")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")

# What a row's place is called in a message, by its index.
Place = Callable[[int], str]


@dataclass(frozen=True)
class Labels:
    """Labels of the rows at `kept`: int64 `(n,)` of classes, or float32 `(n, L)` of 0, 1 and NaN (not known).

    `codes` are the numbers that the classes had where those are not 0 to n - 1.
    """

    values: NDArray[np.int64] | NDArray[np.float32]
    class_names: tuple[str, ...]
    kept: NDArray[np.int64]
    notes: tuple[str, ...] = ()
    codes: tuple[int, ...] = ()

    @property
    def multi_label(self) -> bool:
        return self.values.ndim == 2

    def take(self, chosen: NDArray[Any]) -> Labels:
        """Give the labels at `chosen` (indices, in that order)."""
        return replace(self, values=self.values[chosen], kept=self.kept[chosen])


def unknown_policy(value: Any) -> str:
    """Check the option `unknown`."""
    if value not in UNKNOWN:
        raise InputError(f"unknown {value!r} is not one of {', '.join(UNKNOWN)}")
    return str(value)


def read_classes(
    words: Sequence[str] | NDArray[Any],
    place: Place,
    what: str,
    unknown: str = "refuse",
    names: Sequence[str] | None = None,
) -> Labels:
    """Read one label an image: words or whole numbers, not both. `what` names the column or array in messages.

    `names` are those of the codes 0, 1, ...: a class without an image keeps its place.

    `1`, `1.0` and ` 1` are one class; classes of numbers are in numeric order. -1 is a class only where there is one
    other number (-1 and 1); else, as blanks and NaN, it is a label that is not known.
    """
    if unknown in ("ignore", "zeros"):
        raise InputError(f"unknown {unknown!r} is for multi-label columns: {what} holds one class an image; say drop")
    column = np.asarray(words)
    distinct, first, inverse = np.unique(column, return_index=True, return_inverse=True)
    texts = [plain_word(str(value)) for value in distinct.tolist()]
    numbers = [_number(text) for text in texts]
    blank = [is_blank(text) for text in texts]
    values = {number for number in numbers if number is not None}
    if -1.0 in values and len(values) > 2:
        blank = [gap or number == -1.0 for gap, number in zip(blank, numbers, strict=True)]
    gaps = [index for index, gap in enumerate(blank) if gap]
    if gaps and unknown == "refuse":
        index = int(min(first[gaps]))
        shown = texts[int(inverse[index])]
        raise InputError(f"{place(index)}: label {shown!r} is missing or NaN, or not known: give one, or remove the "
                         "row, or set the option unknown to drop")  # fmt: skip
    called, codes, notes = _name_classes(texts, numbers, blank, first, place, what)
    order = sorted(set(called) - {""}, key=lambda name: (int(name) if codes else 0, name))
    at = {name: number for number, name in enumerate(order)}
    class_of = np.array([at.get(name, -1) for name in called], dtype=np.int64)[inverse.reshape(-1)]
    kept = np.flatnonzero(class_of >= 0).astype(np.int64)
    if len(kept) < len(class_of):
        notes.append(f"{len(class_of) - len(kept)} images whose label is not known are left out")
    if len(order) < 2:
        raise InputError(f"{what} holds one class only ({', '.join(order) or 'none'}): needs two")
    labels = Labels(class_of[kept], tuple(order), kept, tuple(notes), codes)
    if names is not None:
        return _with_names(labels, names, what)
    if codes == tuple(range(len(codes))):
        return labels
    shown = ", ".join(map(str, codes[:8])) + (", ..." if len(codes) > 8 else "")
    note = f"{what} holds the codes {shown}: read as {len(codes)} classes of those names"
    return replace(labels, notes=(note, *notes))


def _with_names(labels: Labels, names: Sequence[str], what: str) -> Labels:
    """Give labels the names of their codes, or the places of their words among the names."""
    known = {name: number for number, name in enumerate(names)}
    places = labels.codes or tuple(known.get(name, -1) for name in labels.class_names)
    for place, name in zip(places, labels.class_names, strict=True):
        if not 0 <= place < len(names):
            raise InputError(f"{what} holds the label {name}, and there are names for 0 to {len(names) - 1}: "
                             f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}")  # fmt: skip
    values = np.array(places, dtype=np.int64)[labels.values]
    return replace(labels, values=values, class_names=tuple(names), codes=())


def read_listed(
    values: Sequence[Any], names: Sequence[str] | None, place: Place, what: str, unknown: str = "refuse"
) -> Labels:
    """Read what typed files (parquet, JSON) hold for each image: a class, or a list of labels (multi-label).

    `names` are those of the codes 0, 1, ... where the file says them; None and -1 are then labels that are not known.
    """
    odd = next((row for row, value in enumerate(values) if not isinstance(value, _LABEL_TYPES)), None)
    if odd is not None:
        raise InputError(f"{place(odd)}: {what} holds {type(values[odd]).__name__}, and labels are numbers, words or "
                         "lists of them")  # fmt: skip
    if any(isinstance(value, list) for value in values):
        return _read_lists(values, names, place, what, unknown)
    words = ["" if value is None or (names is not None and value == -1) else str(value) for value in values]
    return read_classes(words, place, what, unknown, names)


def _read_lists(values: Sequence[Any], names: Sequence[str] | None, place: Place, what: str, unknown: str) -> Labels:
    """Read lists of labels as 0/1 columns; an image with no list, or with a gap in it, is one that is not known.

    Lists that are 0/1 vectors, one number a label, are read as columns.
    """
    for row, value in enumerate(values):
        odd = [one for one in value if not isinstance(one, str | int | float | None)] if isinstance(value, list) else []
        if odd:
            raise InputError(f"{place(row)}: {what} holds lists of {type(odd[0]).__name__}, and labels are numbers or "
                             "words")  # fmt: skip
    if width := _vector_width([value for value in values if isinstance(value, list)]):
        return _read_vectors(values, width, names, place, what, unknown)
    lists = [value if isinstance(value, list) and None not in value else None for value in values]
    words = [None if found is None else [_listed_word(one, row, place, what) for one in found]
             for row, found in enumerate(lists)]  # fmt: skip
    if names is None:
        distinct = {word for found in words if found is not None for word in found}
        class_names = tuple(sorted(distinct - {"-1"}, key=lambda word: (_number(word) or 0, word)))
        column = {name: number for number, name in enumerate(class_names)}
    else:
        class_names = tuple(names)
        column = {str(number): number for number in range(len(names))} | {
            name: number for number, name in enumerate(names) if not name.isdecimal()
        }
    if not class_names:
        raise InputError(f"{what} holds no label: every list is empty")
    columns = np.zeros((len(values), len(class_names)), dtype=np.float32)
    for row, found in enumerate(words):
        if found is None or "-1" in found:
            columns[row] = np.nan
            continue
        for word in found:
            if word not in column:
                raise InputError(f"{place(row)}: label {word} has no name: {what} has names for 0 to "
                                 f"{len(class_names) - 1}")  # fmt: skip
            columns[row, column[word]] = 1
    gaps, kept, notes = np.isnan(columns), np.arange(len(columns)), list[str]()
    if gaps.any():
        if unknown == "refuse":
            row = int(np.argwhere(gaps)[0][0])
            raise InputError(f"{place(row)}: {what} holds {values[row]!r}, which is not known: give labels, or set the "
                             "option unknown to drop, ignore or zeros")  # fmt: skip
        columns, kept, notes = _treat_unknown(columns, gaps, (columns, class_names, place), unknown)
    return Labels(columns, class_names, kept, tuple(notes))


def _vector_width(lists: Sequence[list[Any]]) -> int:
    """Give the length of lists that are 0/1 vectors (-1, None and NaN not known), 0 where they list labels.

    All have one length and hold nothing else: as lists of labels they would name 0 or 1 again and again. Lists of one
    number each, and lists that all are `[0, 1]`, are labels.
    """
    widths = {len(found) for found in lists}
    if len(widths) != 1 or min(widths) < 2 or all(found == [0, 1] for found in lists):
        return 0
    vectors = all(one is None or one != one or one in (-1, 0, 1) for found in lists for one in found)
    return widths.pop() if vectors else 0


def _read_vectors(
    values: Sequence[Any], width: int, names: Sequence[str] | None, place: Place, what: str, unknown: str
) -> Labels:
    """Read 0/1 vectors as columns, one a label."""
    if names is not None and len(names) != width:
        raise InputError(f"{what} holds vectors of {width} numbers 0 and 1, and there are {len(names)} names")
    called = [f"label {number}" for number in range(width)] if names is None else names
    cells = [["" if one is None else str(float(one)) for one in value] if isinstance(value, list) else [""] * width
             for value in values]  # fmt: skip
    return read_columns(cells, called, place, what, unknown)


def _listed_word(value: Any, row: int, place: Place, what: str) -> str:
    """Write one label of a list, a whole number as such; a fraction is none."""
    if isinstance(value, float) and not value.is_integer():
        raise InputError(f"{place(row)}: {what} holds {value} in a list: labels are whole numbers or words; are they "
                         "scores?")  # fmt: skip
    return str(int(value)) if isinstance(value, float) else str(value)


def _name_classes(
    texts: Sequence[str],
    numbers: Sequence[int | float | None],
    blank: Sequence[bool],
    first: NDArray[Any],
    place: Place,
    what: str,
) -> tuple[list[str], tuple[int, ...], list[str]]:
    """Give each distinct value its class ("" where not known), the codes where classes are numbers, and notes."""
    known = [index for index, gap in enumerate(blank) if not gap]
    for index in known:
        if _DECIMAL_COMMA.fullmatch(texts[index]):
            raise InputError(f"{place(int(first[index]))}: label {texts[index]} may be a fraction or two labels: write "
                             "numbers with a decimal point, or join labels by |")  # fmt: skip
    numeric = [index for index in known if numbers[index] is not None]
    words = [index for index in known if numbers[index] is None]
    if numeric and words:
        few = min(words, numeric, key=len)
        index = int(min(first[few]))
        other = texts[(numeric if few is words else words)[0]]
        odd = next(texts[i] for i in few if first[i] == index)
        raise InputError(f"{place(index)}: label {odd!r} stands among labels such as {other!r}: name all classes by "
                         "numbers, or all by words")  # fmt: skip
    names = ["" if gap else text for text, gap in zip(texts, blank, strict=True)]
    if not numeric:
        return names, (), notes_on_names(sorted({name for name in names if name}))
    for index in numeric:
        number = numbers[index]
        assert number is not None
        if isinstance(number, float) and not number.is_integer():
            raise InputError(f"{place(int(first[index]))}: label {texts[index]} is a fraction: classes are whole "
                             f"numbers or words; is {what} a score?")  # fmt: skip
        names[index] = str(int(number))
    codes = tuple(sorted({int(name) for name in names if name}))
    return names, codes, []


def _number(text: str) -> int | float | None:
    """Read a number, a whole one exactly: codes of 17 digits and more differ in what a float rounds away."""
    if whole := _WHOLE.fullmatch(text):
        return int(whole[1])
    return float(text) if _NUMBER.fullmatch(text) else None


def plain_word(text: str) -> str:
    """Write a label without blanks around it and in one Unicode form: `é` of one sign and of two (macOS) are one."""
    return unicodedata.normalize("NFC", text.strip())


def notes_on_names(names: Sequence[str]) -> list[str]:
    """Note classes that differ in case or blanks only (they may be one), and those that look like several labels."""
    spelled: dict[str, list[str]] = {}
    for name in names:
        spelled.setdefault(re.sub(r"[\s_-]+", " ", name).lower(), []).append(name)
    notes = [f"classes {' and '.join(map(repr, same))} may be one: they differ in case, blanks or dashes only"
             for same in spelled.values() if len(same) > 1]  # fmt: skip
    for name in names:
        parts = [part.strip() for part in _JOINTS.split(name)]
        if len(parts) > 1 and all(part in names for part in parts):
            return [*notes, f"class {name!r} may be the labels {' and '.join(map(repr, parts))}: join labels of one "
                            "image by |"]  # fmt: skip
    return notes


def read_columns(
    cells: Sequence[Sequence[str]] | NDArray[Any],
    names: Sequence[str],
    place: Place,
    what: str,
    unknown: str = "refuse",
    multi_label: bool | None = None,
) -> Labels:
    """Read 0/1 columns `(n, L)`, one a label. Rows with exactly one 1 each are one class an image (one-hot).

    Blank, NaN and -1 are labels that are not known, which `unknown` treats. `multi_label` True keeps one-hot rows as
    labels of their own.
    """
    table: NDArray[Any] = np.asarray(cells)
    num_columns = len(names)
    distinct, first, inverse = np.unique(table, return_index=True, return_inverse=True)
    values = np.array([_zero_or_one(str(value).strip()) for value in distinct.tolist()])
    for index in np.flatnonzero(values < 0):
        row, column = divmod(int(first[index]), num_columns)
        shown = str(distinct[index]).strip()
        fraction = "; a fraction is no label" if _NUMBER.fullmatch(shown) and not float(shown).is_integer() else ""
        raise InputError(f"{place(row)}: {names[column]} is {shown!r}: labels must be 0 or 1{fraction}")
    columns = values[inverse.reshape(-1)].reshape(table.shape).astype(np.float32)
    gaps = np.isnan(columns)
    kept, notes = np.arange(len(columns)), list[str]()
    if gaps.any():
        columns, kept, notes = _treat_unknown(columns, gaps, (table, names, place), unknown)
    labels = Labels(columns, tuple(names), kept, tuple(notes))
    one_hot = num_columns > 1 and len(columns) > 0 and not np.isnan(columns).any() and (columns.sum(1) == 1).all()
    if multi_label or not one_hot:
        if multi_label is False:
            raise InputError(f"multi_label is false, and not every row of {what} has exactly one 1")
        return labels if multi_label else _with_few_exceptions(labels, place, what)
    note = f"{what}: each row has exactly one 1 (one-hot): read as one of {num_columns} classes an image"
    return replace(labels, values=columns.argmax(axis=1).astype(np.int64), notes=(*notes, note))


def _with_few_exceptions(labels: Labels, place: Place, what: str) -> Labels:
    """Note the first of a few rows without exactly one 1: one slip makes classes that exclude each other labels."""
    odd = np.flatnonzero(np.nansum(labels.values, axis=1) != 1)
    if labels.values.shape[1] < 2 or not 0 < len(odd) <= _FEW_EXCEPTIONS * len(labels.values):
        return labels
    row = int(labels.kept[odd[0]])
    note = (f"{what}: all rows but {len(odd)} (first {place(row)}) have exactly one 1: read as multi-label; correct "
            "them if the classes exclude each other, or set the option multi_label to true")  # fmt: skip
    return replace(labels, notes=(*labels.notes, note))


def _treat_unknown(
    columns: NDArray[np.float32],
    gaps: NDArray[np.bool_],
    source: tuple[NDArray[Any], Sequence[str], Place],
    unknown: str,
) -> tuple[NDArray[np.float32], NDArray[np.int64], list[str]]:
    """Refuse labels that are not known, drop their images, keep them as NaN or take them for 0."""
    table, names, place = source
    row, column = map(int, np.argwhere(gaps)[0])
    if unknown == "refuse":
        raise InputError(f"{place(row)}: {names[column]} is {str(table[row, column]).strip()!r}: labels must be 0 or "
                         "1; set the option unknown to drop, ignore or zeros where it is not known")  # fmt: skip
    rows = gaps.any(axis=1)
    if unknown == "drop":
        note = f"{int(rows.sum())} images with a label that is not known are left out"
        return columns[~rows], np.flatnonzero(~rows).astype(np.int64), [note]
    note = f"{int(gaps.sum())} labels of {int(rows.sum())} images are not known: {unknown}"
    filled = columns if unknown == "ignore" else np.nan_to_num(columns).astype(np.float32)
    return filled, np.arange(len(columns)), [note]


def _zero_or_one(text: str) -> float:
    """Give 0, 1, NaN for what is not known, -1 for anything else."""
    if is_blank(text):
        return float("nan")
    if text.lower() in ("true", "false"):
        return float(text.lower() == "true")
    if not _NUMBER.fullmatch(text):
        return -1.0
    return {0.0: 0.0, 1.0: 1.0, -1.0: float("nan")}.get(float(text), -1.0)
