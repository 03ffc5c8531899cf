"""Keys of recipes that were renamed: `FORMER_KEYS` is the one table for files, `--set` and stored rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# section.key as it was -> the key of that section as it is.
FORMER_KEYS: Mapping[str, str] = {
    "data.val_share": "val_fraction",
    "data.test_share": "test_fraction",
    "distill.taught_by": "teacher_mode",
}


def current_key(key: str) -> str:
    """Give today's name of a dotted key; one that was not renamed is given back."""
    section, _, _ = key.rpartition(".")
    return f"{section}.{FORMER_KEYS[key]}" if key in FORMER_KEYS else key


def with_current_keys(data: Any) -> Any:
    """Give a recipe's plain data with today's keys, a copy where one changes; `ValueError` where both names stand."""
    if not isinstance(data, Mapping):
        return data
    renamed = dict(data)
    for former, name in FORMER_KEYS.items():
        section, _, key = former.partition(".")
        values = renamed.get(section)
        if isinstance(values, Mapping) and key in values:
            if name in values:
                raise ValueError(f"{former} is the former name of {section}.{name}: give one of them")
            renamed[section] = {name if each == key else each: value for each, value in values.items()}
    return renamed
