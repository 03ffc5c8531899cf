"""What a row is called and drawn as where it stands alone: in a chart, a card, a sentence (`title`, `kind_of`)."""

from __future__ import annotations

import re
from functools import lru_cache

# What a network is, and the words for it in a legend.
KINDS = {
    "teacher": "teacher",
    "baseline": "baseline",
    "distilled": "distilled student",
    "control": "control (no teacher)",
    "imported": "imported",
}


def kind_of(role: str, teacher: str, source: str) -> str:
    """Say which of `KINDS` a row is."""
    if source == "imported":
        return "imported"
    if role != "student":
        return role
    return "distilled" if teacher else "control"


def title(model: str, teacher: str, scheme: str, *, is_short: bool = False) -> str:
    """Name a row by model, teacher and scheme; where it is short, several teachers by their number."""
    distilled = f" ← {brief_teacher(teacher, is_short=is_short)}" if teacher and teacher not in model else ""
    return f"{model}{distilled}{' int8' if 'int8' in scheme and 'int8' not in model else ''}"


@lru_cache(maxsize=1024)
def brief_teacher(teacher: str, *, is_short: bool = True) -> str:
    """Name teachers without patch size and resolution; where it is short, several by their number."""
    names = re.split(r"\s*[+,&]\s*", teacher)
    if is_short and len(names) > 1:
        return f"{len(names)} teachers"
    return " + ".join(re.sub(r"_patch\d+.*$", "", name) for name in names)
