"""Patients, series and other ids as tables have them: one id however a join of tables wrote it, blank ids apart."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from statistics import median

import numpy as np
from numpy.typing import NDArray

BLANK = ("", "nan", "none", "null", "na", "n/a", "<na>", "nat", "?", "-", "unknown")

# Each image of a patient asks for the same one.
_MOST_IDS = 2**17

# An id of so many times the images of a usual one, and of a quarter of all, may stand for "not known".
_OUTSIZED = 10


@lru_cache(_MOST_IDS)
def is_blank(text: str) -> bool:
    """Tell a cell that says nothing: empty, NaN, None, NA, `?`, unknown."""
    return text.strip().lower() in BLANK


@lru_cache(_MOST_IDS)
def canonical_id(text: str) -> str:
    """Write an id as one text: `100`, `100.0`, ` 100` and `0100` are one, as joins and spreadsheets rewrite numbers."""
    plain = unicodedata.normalize("NFKC", text).strip()
    number = re.fullmatch(r"\+?0*(\d+)(\.0*)?", plain)
    return number[1] if number else plain


def group_ids(texts: Sequence[str], names: Sequence[str], column: str) -> tuple[NDArray[np.str_], tuple[str, ...]]:
    """Give each image the group of its id, or one of its own (by its name) where the id is blank.

    A group is named as its id is first written. Notes say how many ids were blank and which were written in several
    ways; a number that was rounded to an exponent (`1.23457e+08`) may stand for several ids, which a note says too.
    -1 among numbers from 0 up is no id. Ids that differ in case only, and one that most images have, are noted.
    """
    written: dict[str, dict[str, None]] = {}
    groups: list[str] = []
    num_blank = 0
    rounded: str | None = None
    is_code = _has_code_for_none(texts)
    for text, name in zip(texts, names, strict=True):
        if is_blank(text) or (is_code and canonical_id(text) == "-1"):
            num_blank += 1
            groups.append(f"(no {column}) {name}")
            continue
        spelled = written.setdefault(canonical_id(text), {})
        spelled.setdefault(text)
        groups.append(next(iter(spelled)).strip())
        if rounded is None and "e" in text.lower() and re.fullmatch(r"\d(\.\d+)?[eE]\+\d+", text.strip()):
            rounded = text.strip()
    notes = []
    if num_blank:
        notes.append(f"{num_blank} of {len(texts)} images have no {column}: each is a group of its own")
    several = [list(spelled) for spelled in written.values() if len(spelled) > 1]
    if several:
        example = " = ".join(repr(text) for text in several[0][:3])
        notes.append(f"{len(several)} ids of {column} are written in several ways, e.g. {example}: each is one group")
    notes += _notes_on_ids(list(written), groups, column)
    if rounded is not None:
        notes.append(f"ids of {column} are rounded numbers, e.g. {rounded}: several may have become one")
    return np.array(groups, dtype=np.str_), tuple(notes)


def _has_code_for_none(texts: Sequence[str]) -> bool:
    """Say whether -1 stands for no id: all others are numbers from 0 up."""
    ids = {canonical_id(text) for text in set(texts) if not is_blank(text)}
    return "-1" in ids and len(ids) > 1 and all(one.isdecimal() for one in ids - {"-1"})


def _notes_on_ids(ids: Sequence[str], groups: Sequence[str], column: str) -> list[str]:
    """Note ids that may be one, and an id of most images that others have few of: it may stand for none."""
    notes = []
    folded: dict[str, list[str]] = {}
    for one in ids:
        folded.setdefault(one.casefold(), []).append(one)
    if alike := [same for same in folded.values() if len(same) > 1]:
        example = " and ".join(map(repr, alike[0][:3]))
        notes.append(f"{len(alike)} ids of {column} differ in case only, e.g. {example}: if they are one, write them "
                     "alike, or the images may stand in several splits")  # fmt: skip
    counts = Counter(groups).most_common()
    most, number = counts[0] if counts else ("", 0)
    others = [count for _, count in counts[1:]]
    if others and number >= _OUTSIZED * median(others) and number > len(groups) / 4:
        notes.append(f"{number} of {len(groups)} images have the {column} {most!r}: if it stands for none, leave it "
                     "blank")  # fmt: skip
    return notes
