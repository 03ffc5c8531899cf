"""Fields of stages' inputs that came later: with a `Former` value they are in no key, and what was filed before counts.

A field that is added to the inputs of a stage would change its key, and a workspace would be computed anew although
nothing else is computed. `as_before` leaves it out where it says what versions without it did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


class Former:
    """Marks a field (`Annotated[int, Former(1)]`) by the values that stand for what was done before there was one."""

    def __init__(self, *values: Any) -> None:
        self.values = values


def as_before(model: BaseModel, dumped: Mapping[str, Any]) -> dict[str, Any]:
    """Give the JSON-able values `dumped` of a model without the fields, its parts' included, that are as before."""
    left = {}
    for name, value in dumped.items():
        own = getattr(model, name, None)
        field = type(model).model_fields.get(name)
        marks = [] if field is None else [mark for mark in field.metadata if isinstance(mark, Former)]
        if not any(own in mark.values for mark in marks):
            left[name] = _within(own, value)
    return left


def _within(own: Any, dumped: Any) -> Any:
    if isinstance(own, BaseModel) and isinstance(dumped, Mapping):
        return as_before(own, dumped)
    if isinstance(own, list | tuple) and isinstance(dumped, list):
        return [_within(one, value) for one, value in zip(own, dumped, strict=True)]
    return dumped
