"""A family of winners: a range of cost is divided into slices, and each gives its most accurate architecture.

`slices_of` divides, `choose_family` chooses. Two members always differ by more than the noise, in accuracy or in cost,
and none is surely less accurate than a cheaper one: where a slice has no such architecture the family is smaller, and
says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tutelage.records import InputError, Record

from .encoding import Floats

# Two errors differ where they are further apart than so many standard deviations of their difference (one-sided 95 %).
SIGMAS = 1.645
# Costs nearer than that are the same: files measured again differ by a few percent.
COST_MARGIN = 0.05


class Slicing(Record):
    """How a cost is divided: at `limits`, ascending upper bounds of the slices, else into `number` equal ratios."""

    cost: str = ""  # an objective or count; empty: there is one slice
    number: int = 1
    limits: tuple[float, ...] = ()


@dataclass(frozen=True)
class Slice:
    """A range of cost: above `low` (the first: from `low` on) and up to `high`."""

    low: float
    high: float


@dataclass(frozen=True)
class Vacancy:
    """Why a slice gave no winner: nothing was evaluated, nothing differs from `row`, or all is surely worse than it.

    `same_cost`: nothing costs more than `row`, whose error cannot be compared.
    """

    reason: Literal["empty", "same", "same_cost", "dominated"]
    row: int = -1


@dataclass(frozen=True)
class Family:
    """Rows chosen, by the number of their slice, and why the other slices have none."""

    slices: tuple[Slice, ...]
    members: dict[int, int] = field(default_factory=dict)
    vacancies: dict[int, Vacancy] = field(default_factory=dict)


def slices_of(cost: Floats, allowed: NDArray[np.bool_], slicing: Slicing) -> tuple[Slice, ...]:
    """Divide the range of the allowed costs (all positive), or take the limits; one slice where all cost the same."""
    if slicing.limits:
        if list(slicing.limits) != sorted(set(slicing.limits)):
            raise InputError(
                f"limits {list(slicing.limits)} of {slicing.cost}: give them in ascending order, each once"
            )
        return tuple(Slice(low, high) for low, high in zip((0.0, *slicing.limits[:-1]), slicing.limits, strict=True))
    if not allowed.any():
        return ()
    low, high = float(cost[allowed].min()), float(cost[allowed].max())
    if slicing.number == 1 or not 0 < low < high:
        return (Slice(low, high),)
    edges = [float(edge) for edge in np.geomspace(low, high, slicing.number + 1)]
    edges[0], edges[-1] = low, high  # exact, where powers are rounded
    return tuple(Slice(*pair) for pair in pairwise(edges))


def slice_numbers(cost: Floats, allowed: NDArray[np.bool_], slices: Sequence[Slice]) -> NDArray[np.int64]:
    """Say which slice each row is in; -1 where it is not allowed or beyond the last."""
    numbers = np.searchsorted([one.high for one in slices], cost, side="left")
    return np.where(allowed & (numbers < len(slices)), numbers, -1).astype(np.int64)


def choose_family(
    slices: Sequence[Slice],
    numbers: NDArray[np.int64],
    cost: Floats,
    error: Floats,
    std: Floats,
    flattered: NDArray[np.bool_] | None = None,
) -> Family:
    """Choose the row of least `error` of each slice, the most accurate slice first.

    numbers: the slice of each row, -1 of rows that cannot be chosen. `error` (to be minimised) and `std` are a
    posterior's. A row is passed over where it is not distinct from a chosen one, or where a chosen one costs no more
    and is surely more accurate. `flattered` rows have errors too low beside all others': they surely beat none,
    and are the one winner of a single slice only where there is no other.
    """
    sure = np.ones(len(error), dtype=np.bool_) if flattered is None else ~flattered
    order = np.lexsort((error, ~sure)) if len(slices) == 1 else np.argsort(error, kind="stable")
    ranked = [[int(row) for row in order if numbers[row] == number] for number in range(len(slices))]
    members: dict[int, int] = {}
    vacancies = {number: Vacancy("empty") for number, rows in enumerate(ranked) if not rows}
    for number in sorted((n for n, rows in enumerate(ranked) if rows), key=lambda n: (error[ranked[n][0]], n)):
        for row in ranked[number]:
            refused = _refused(row, list(members.values()), cost, error, std, sure)
            if refused is None:
                members[number] = row
                vacancies.pop(number, None)
                break
            vacancies.setdefault(number, refused)
    return Family(tuple(slices), dict(sorted(members.items())), dict(sorted(vacancies.items())))


def surely_better(better: float, worse: float, std: float, other: float) -> bool:
    """Say whether one error is below another by more than the noise of both."""
    return worse - better > SIGMAS * float(np.hypot(std, other))


def same_cost(one: float, other: float) -> bool:
    """Say whether two costs are nearer than measuring can distinguish."""
    return abs(one - other) <= COST_MARGIN * max(one, other)


def _refused(
    row: int, chosen: Sequence[int], cost: Floats, error: Floats, std: Floats, sure: NDArray[np.bool_]
) -> Vacancy | None:
    """Say why a row is no further member, or None; `chosen` have errors of at most the row's, slice by slice."""
    for other in chosen:
        surely = surely_better(error[other], error[row], std[other], std[row])
        better = sure[other] and surely
        alike = same_cost(cost[row], cost[other])
        if alike and not better and not surely_better(error[row], error[other], std[row], std[other]):
            return Vacancy("same_cost" if surely else "same", other)
        if better and (alike or cost[other] <= cost[row]):
            return Vacancy("dominated", other)
    return None
