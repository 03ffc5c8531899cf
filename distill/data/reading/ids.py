"""Patients, series and other ids as tables have them: one id however a join of tables wrote it, blank ids apart."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLANK = ("", "nan", "none", "null", "na", "n/a", "<na>", "nat", "?", "-", "unknown")


def is_blank(text: str) -> bool:
    """Tell a cell that says nothing: empty, NaN, None, NA, `?`, unknown."""
    return text.strip().lower() in BLANK


def canonical_id(text: str) -> str:
    """Write an id as one text: `100`, `100.0`, ` 100` and `0100` are one, as joins and spreadsheets rewrite numbers."""
    plain = unicodedata.normalize("NFKC", text).strip()
    number = re.fullmatch(r"\+?0*(\d+)(\.0*)?", plain)
    return number[1] if number else plain


def group_ids(texts: Sequence[str], names: Sequence[str], column: str) -> tuple[NDArray[np.str_], tuple[str, ...]]:
    """Give each image the group of its id, or one of its own (by its name) where the id is blank.

    A group is named as its id is first written. Notes say how many ids were blank and which were written in several
    ways; a number that was rounded to an exponent (`1.23457e+08`) may stand for several ids, which a note says too.
    """
    written: dict[str, dict[str, None]] = {}
    groups: list[str] = []
    num_blank = 0
    rounded: str | None = None
    for text, name in zip(texts, names, strict=True):
        if is_blank(text):
            num_blank += 1
            groups.append(f"(no {column}) {name}")
            continue
        spelled = written.setdefault(canonical_id(text), {})
        spelled.setdefault(text)
        groups.append(next(iter(spelled)).strip())
        if rounded is None and re.fullmatch(r"\d(\.\d+)?[eE]\+\d+", text.strip()):
            rounded = text.strip()
    notes = []
    if num_blank:
        notes.append(f"{num_blank} of {len(texts)} images have no {column}: each is a group of its own")
    several = [list(spelled) for spelled in written.values() if len(spelled) > 1]
    if several:
        example = " = ".join(repr(text) for text in several[0][:3])
        notes.append(f"{len(several)} ids of {column} are written in several ways, e.g. {example}: each is one group")
    if rounded is not None:
        notes.append(f"ids of {column} are rounded numbers, e.g. {rounded}: several may have become one")
    return np.array(groups, dtype=np.str_), tuple(notes)
