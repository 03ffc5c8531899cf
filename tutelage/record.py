"""`Record`, the base of every type that the packages exchange, and `content_id`, an id from its content."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

# 16 hex digits of SHA-256 are 64 bits, so a million records collide with odds below 1e-7.
ID_DIGITS = 16


def content_id(value: Any) -> str:
    """Hash a JSON-able value: SHA-256 of its canonical JSON, the first 16 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]


class Record(BaseModel):
    """Base of all records: frozen, refuses unknown fields, and has an id computed from its content."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,), defer_build=True)

    @property
    def id(self) -> str:
        return content_id(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        return cls.model_validate(data)
