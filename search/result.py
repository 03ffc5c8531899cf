"""The result of a search: every evaluated arch with predicted, counted and measured values apart, front and finalists.

`SearchResult` is written as `search.json`; a truncated file or one of another kind is refused with one line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AliasChoices, Field, ValidationError

from tutelage.dominance import hypervolume
from tutelage.files import write_text
from tutelage.records import Arch, InputError, Record, bounded_text, parsed_json

from .encoding import Floats

FORMAT = "tutelage-search-1"


class Evaluated(Record):
    """One evaluated architecture. `predicted`: by models of any kind (latency, the score before scoring: `error`,
    `error_std`); `counted`: exact counts; `measured`: expensive objectives as scored, the mean where that was done more
    than once; `std_error`: of those, where it is known; `posterior`: their true values given all that was evaluated,
    and `NAME_std`, when the search is finished."""

    arch: Arch
    predicted: dict[str, float] = Field(default_factory=dict)
    counted: dict[str, float] = Field(default_factory=dict)
    measured: dict[str, float] = Field(default_factory=dict)
    feasible: bool = True
    initial: bool = False  # evaluated because the caller wanted it, bounds kept or not
    batch: int = 0
    std_error: dict[str, float] = Field(default_factory=dict)
    posterior: dict[str, float] = Field(default_factory=dict)
    again: tuple[int, ...] = ()  # the batches in which it was evaluated again

    @property
    def num_evaluations(self) -> int:
        return 1 + len(self.again)

    def value(self, name: str) -> float:
        """Give a figure by name: measured if it was, else counted, else predicted by a cheap model."""
        for values in (self.measured, self.counted, self.predicted):
            if name in values:
                return values[name]
        raise KeyError(name)


class SearchResult(Record):
    """A finished (or checkpointed) search. `front` and `finalists` are indices into `evaluated`.

    Files of older versions call that list `asked`, and so may scripts.
    """

    format: str = FORMAT
    space: str
    strategy: str
    seed: int
    evaluations: int
    objectives: dict[str, str]  # name -> "min" or "max", in order
    cheap: dict[str, bool]
    bounds: dict[str, float]
    settings: dict[str, Any] = Field(default_factory=dict)
    evaluated: tuple[Evaluated, ...] = Field((), validation_alias=AliasChoices("evaluated", "asked"))
    front: tuple[int, ...] = ()
    finalists: tuple[int, ...] = ()
    finalist_gains: tuple[float, ...] = ()  # fraction of the front's hypervolume each finalist added, in order
    reference: dict[str, float] = Field(default_factory=dict)  # the point hypervolume is measured from, natural units
    hypervolume: tuple[tuple[int, float], ...] = ()  # (evaluations so far, hypervolume), after every batch
    importances: dict[str, float] = Field(default_factory=dict)  # by parameter (`importances.py`), largest first
    ended: str = ""  # why fewer were scored than `evaluations`
    # Of a search with several evaluations going on: the numbers of evaluations, as asked, in the order of the replies.
    order: tuple[int, ...] = ()
    failed: dict[int, str] = Field(default_factory=dict)  # of these, the reasons by number: they have no row
    search_seconds: float = 0.0  # all but the scoring
    scoring_seconds: float = 0.0

    @property
    def asked(self) -> tuple[Evaluated, ...]:
        """Give `evaluated` by its older name."""
        return self.evaluated

    def to_json(self, path: Path | str) -> Path:
        """Write aside, flush, rename: a half-written file is never taken for a whole one."""
        path = Path(path)
        write_text(path, json.dumps(self.to_dict()))
        return path

    def to_dict(self) -> dict[str, Any]:
        unsaid = {name for name in ("order", "failed") if not getattr(self, name)}
        data = self.model_dump(mode="json", exclude={"evaluated", *unsaid})
        data["evaluated"] = [{**row.model_dump(mode="json"), "arch": row.arch.to_dict()} for row in self.evaluated]
        return data

    @classmethod
    def from_json(cls, path: Path | str) -> Self:
        """Read `search.json`; raises InputError naming the file when it is truncated or not one."""
        try:
            data = parsed_json(bounded_text(path))
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}): give the search.json of a search") from error
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{path} is cut off or no JSON ({error}): run the search again") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            kind = data.get("format") if isinstance(data, dict) else type(data).__name__
            raise InputError(f"{path} is not a {FORMAT} file (format {kind!r}): give the search.json of a search")
        try:
            result = cls.from_dict(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InputError(f"{path} is damaged at {where} ({first['msg']}): run the search again") from error
        if any(not 0 <= i < len(result.evaluated) for i in (*result.front, *result.finalists)):
            raise InputError(f"{path} names architectures it does not hold: run the search again")
        return result

    def matrix(self) -> Floats:
        """Stack objectives as columns to minimise, (evaluated, objectives)."""
        signs = {"min": 1.0, "max": -1.0}
        rows = [[signs[way] * row.value(name) for name, way in self.objectives.items()] for row in self.evaluated]
        return np.array(rows, dtype=np.float64).reshape(len(self.evaluated), len(self.objectives))


def non_dominated(points: Floats) -> NDArray[np.int64]:
    """List the rows no other row dominates (all columns minimised); of equal rows the first stays."""
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    if not len(points):
        return np.zeros(0, dtype=np.int64)
    _, first = np.unique(points, axis=0, return_index=True)
    kept = np.sort(first)
    best = NonDominatedSorting().do(points[kept], only_non_dominated_front=True)
    return np.asarray(np.sort(kept[best]), dtype=np.int64)


def choose_finalists(
    points: Floats, reference: Floats, number: int, first: Sequence[int] = ()
) -> tuple[list[int], list[float]]:
    """Pick rows one by one, each adding most hypervolume to those before it; gives rows and fractions of the whole.

    The rows `first` come before all others: the most accurate row may add little hypervolume. Hypervolume is
    submodular, so without them the greedy choice keeps at least 63 % of the best possible subset's. Columns are scaled
    by the reference's distance from the best value, so units do not matter.
    """
    if not len(points):
        return [], []
    ideal = points.min(axis=0)
    span = np.where(reference > ideal, reference - ideal, 1.0)
    scaled = (points - ideal) / span
    corner = np.ones(points.shape[1])
    whole = hypervolume(scaled, corner)
    chosen: list[int] = []
    gains: list[float] = []
    reached = 0.0
    for place in range(min(number, len(points))):
        rest = [i for i in range(len(points)) if i not in chosen]
        rest = list(first[place : place + 1]) or rest
        volumes = [hypervolume(scaled[[*chosen, i]], corner) for i in rest]
        best = int(np.argmax(volumes))
        chosen.append(rest[best])
        gains.append((volumes[best] - reached) / whole if whole > 0 else 0.0)
        reached = volumes[best]
    return chosen, gains


def reference_point(points: Floats, given: Sequence[float | None]) -> Floats:
    """Give the caller's reference where there is one, else the worst seen value and a tenth of the range beyond it."""
    worst, ideal = points.max(axis=0), points.min(axis=0)
    margin = np.where(worst > ideal, 0.1 * (worst - ideal), np.maximum(np.abs(worst) * 0.1, 1e-9))
    return np.array([own if own is not None else far for own, far in zip(given, worst + margin, strict=True)])


def same_search(left: SearchResult, right: SearchResult) -> str:
    """Name the first setting in which two searches differ; empty when they are the same search."""
    for name in ("space", "strategy", "seed", "evaluations", "objectives", "cheap", "bounds", "settings"):
        mine: Mapping[str, Any] | str | int = getattr(left, name)
        if mine != getattr(right, name):
            return name
    return ""
