"""`Arch`, one architecture of a space, in the field's JSON and in canonical form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Self

from pydantic import Field, model_validator

from .record import Record

# numpy's numbers are registered as real ones; so typed, a comparison is not narrowed to what `Real` promises.
_ANY_NUMBER: Any = Real

# The slots of Once for All's spaces and of ours, by the beginning of their names: for each stage the blocks that are
# always there and how many more its depth may add. ProxylessNAS ends with one block of fixed depth.
SLOTS: dict[str, tuple[tuple[int, int], ...]] = {
    "ofa_mbv3": ((0, 4),) * 5,
    "ofa_proxyless": (*((0, 4),) * 5, (1, 0)),
    "ofa_resnet50": ((2, 2), (2, 2), (4, 2), (2, 2)),
    "mbconv_small": ((1, 3),) * 4,
    "mbconv_micro": ((1, 2),) * 5,
    "resnet_small": ((1, 3),) * 3,
    "resnet18": ((1, 2),) * 4,
}
# ResNet50D's d[0] is no stage's: it keeps the stem's residual block at 2 and leaves it out below.
_RESNET = "ofa_resnet50"
_RESNET_STEM_DEPTH = 2


class Arch(Record):
    """One architecture of a space, in the field's JSON (OFA, DyNAS-T, HELP) and in canonical form.

    `ks`, `e`, `d` are per slot, per slot and per stage; `r` is the input size in pixels; `w` (ResNet50D only) holds
    the width choices by index. Slots of blocks beyond a stage's depth are inactive: they are set to 0, so two archs
    that differ only in filler are equal. Compact lists (one entry an active block) are accepted and spread out. Slots
    are known here for the spaces of this package; lists of another space stay as given, with one entry a slot.
    """

    space: str
    ks: tuple[int, ...] = ()
    e: tuple[float, ...] = ()
    d: tuple[int, ...]
    r: int = Field(gt=0)
    w: tuple[int, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _canonical(cls, data: Any) -> Any:
        if not isinstance(data, Mapping | Arch):
            raise ValueError(f"an architecture is a mapping of space, ks, e, d and r, not {data!r}")
        data = dict(data)
        for key in ("ks", "e", "d", "w"):
            values = data.get(key)
            if values is not None and not _are_numbers(values):
                raise ValueError(f"{key} is a list of numbers, not {values!r}")
        depth = [int(value) for value in data.get("d") or ()]
        slots = next((s for start, s in SLOTS.items() if str(data.get("space", "")).startswith(start)), None)
        if slots is None:
            return data
        if slots is SLOTS[_RESNET]:
            data["d"] = depth = _resnet_depths(depth)
            depth = depth[1:]
        active = _active_slots(depth, slots)
        for key in ("ks", "e"):
            if data.get(key):
                data[key] = _spread(key, data[key], active)
        return data

    @model_validator(mode="after")
    def _plain_numbers(self) -> Self:
        for value in (*self.ks, *self.e):
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"ks and e must be finite and not negative, got {value}")
        return self

    @property
    def short_name(self) -> str:
        """Name it in rows and tables: the first word of its space and the beginning of its id, e.g. ofa-3a99f3."""
        return f"{self.space.partition('_')[0]}-{self.id[:6]}"

    def to_dict(self) -> dict[str, Any]:
        """Give the field's JSON: whole expand ratios are written as integers, absent lists are left out."""
        data: dict[str, Any] = {"space": self.space, "d": list(self.d), "r": self.r}
        if self.ks:
            data["ks"] = list(self.ks)
        if self.e:
            data["e"] = [int(value) if value == int(value) else value for value in self.e]
        if self.w:
            data["w"] = list(self.w)
        return data

    def replace(self, **changes: Any) -> Arch:
        """Return the same architecture with some fields changed, e.g. `arch.replace(r=64)`."""
        return Arch.model_validate({**self.to_dict(), **changes})

    def __hash__(self) -> int:
        return hash((self.space, self.ks, self.e, self.d, self.r, self.w))


def _are_numbers(values: Any) -> bool:
    """Say whether this is a list of numbers of the size that genes have."""
    return isinstance(values, list | tuple) and all(
        isinstance(value, _ANY_NUMBER) and not isinstance(value, bool) and -1e9 < value < 1e9 for value in values
    )


def _resnet_depths(depth: Sequence[int]) -> list[int]:
    """Check the length of a ResNet50D arch's `d`, and write its stem as the one value or the other."""
    if len(depth) != len(SLOTS[_RESNET]) + 1:
        raise ValueError(f"d of an ofa_resnet50 arch has 5 entries (stem, 4 stages), got {len(depth)}: {list(depth)}")
    return [_RESNET_STEM_DEPTH if depth[0] == _RESNET_STEM_DEPTH else 0, *depth[1:]]


def _active_slots(depth: Sequence[int], slots: Sequence[tuple[int, int]]) -> list[bool]:
    """Say which slots hold an active block; fixed stages come last. The space refuses a `d` of another length."""
    elastic = [stage for stage in slots if stage[1]]
    stages = [(elastic[min(i, len(elastic) - 1)], more) for i, more in enumerate(depth)]
    stages += [(stage, 0) for stage in slots if not stage[1]]
    return [i < base + more for (base, extra), more in stages for i in range(base + extra)]


def _spread(key: str, values: Sequence[float], active: Sequence[bool]) -> list[float]:
    """Mask filler of a full list, or spread a compact list over the active slots."""
    if len(values) == len(active):
        return [value if on else 0 for value, on in zip(values, active, strict=True)]
    if len(values) == sum(active):
        compact = iter(values)
        return [next(compact) if on else 0 for on in active]
    raise ValueError(
        f"{key} has {len(values)} entries; this depth takes {len(active)} (one a slot) or {sum(active)} (one a block)"
    )
