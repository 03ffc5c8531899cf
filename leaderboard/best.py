"""Which student is the best: the one rule that `run`, `search`, `bundle` and the page share (`choose`, `best_student`).

Validation data choose, the test split has no say. A distilled student competes only where it is surely better than the
same student trained on labels alone (its control). Among the files that are equivalent to the best that competes the
cheapest is taken, so that int8 is preferred to fp32 of the same quality. `advice` says where even the best is no better
than guessing, on the test images.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.records import DATA_KEY, DEFAULT_MARGIN, DEVICE_KEY, Comparison, Row, Verdict, verdict_of

from .pareto import QUALITY
from .ties import span

# Tests the first row less the second on the same images, one comparison a figure; empty where that is impossible.
PairTest = Callable[[Row, Row], Sequence[Comparison]]

# Two files of one architecture and scheme differ by some bytes of names and scales.
SIZE_TOLERANCE = 0.01
# How notes of rows begin whose training ended too early, see `distill.evaluation.convergence`.
_RISING = "validation still rising"
# In a row's details: what of its file is above the memory limits of its run, a sentence each.
OVER_BUDGET = "over_budget"


@dataclass(frozen=True)
class Candidate:
    """What the rule looks at; `latency_ms` are the ends between which the median may lie, None where unmeasured.

    `control` is the place among the candidates of a distilled student's control, None where that does not compete.
    """

    quality: float
    size_bytes: float | None
    latency_ms: tuple[float, float] | None
    is_distilled: bool = False
    control: int | None = None


def choose(
    candidates: Sequence[Candidate],
    is_equivalent: Callable[[int, int], bool | None],
    margin: float = DEFAULT_MARGIN,
    has_gained: Callable[[int, int], bool | None] = lambda place, control: None,
    among: Collection[int] | None = None,
) -> int:
    """Give the place of the best candidate; there must be one. `among`: places of those that a budget leaves.

    A candidate with a control competes where it has gained over it. Of those equivalent to the highest quality: the
    fewest bytes (1 % is a tie), then the lowest latency (spans that meet are a tie), then the control before the
    distilled. `is_equivalent(place, best)` and `has_gained(place, control)` are a paired test's verdicts, or None where
    there is no test: `margin` then bounds the difference. With no equivalent the best itself stays.
    """
    left = sorted(range(len(candidates)) if among is None else set(among))
    if not left:
        raise ValueError("no candidate to choose of")
    everyone = [place for place in left if _competes(candidates, place, has_gained, margin, left)]
    top = max(candidates[place].quality for place in everyone)
    best = _cheapest(candidates, [place for place in everyone if candidates[place].quality == top])[0]
    kept = []
    for place in everyone:
        verdict = True if place == best else is_equivalent(place, best)
        # Figures come in decimals: .964 and .954 are .01 apart, whatever the last bit says.
        near = top - candidates[place].quality <= margin + 1e-9
        if near if verdict is None else verdict:
            kept.append(place)
    return _cheapest(candidates, kept)[0]


def _competes(
    candidates: Sequence[Candidate],
    place: int,
    has_gained: Callable[[int, int], bool | None],
    margin: float,
    left: Collection[int],
) -> bool:
    control = candidates[place].control
    if control is None or control not in left:
        return True
    verdict = has_gained(place, control)
    if verdict is None:
        return candidates[place].quality - candidates[control].quality > margin + 1e-9
    return verdict


def verdict_among(test: Comparison, margin: float, times: int = 1) -> Verdict:
    """Give the verdict of a test that is one of `times` which were made together: p is adjusted (Bonferroni)."""
    p = None if test.p is None else min(1.0, times * test.p)
    return verdict_of(test.difference, test.low, test.high, p, margin)


def best_student(rows: Iterable[Row], test: PairTest | None = None, *, margin: float | None = None) -> Row | None:
    """Give the best deployable student, or None where there is none; `test` compares rows on validation images.

    `margin` is within what two files are equivalent; default: `margin_of` the rows that compete.

    Deployable is a student that was measured here and whose file is on record. Rows of other data than the newest, and
    of other devices than the first of those, do not compete: neither qualities nor latencies could be compared.
    """
    return next(iter(best_students(rows, test, margin=margin)), None)


def best_students(rows: Iterable[Row], test: PairTest | None = None, *, margin: float | None = None) -> list[Row]:
    """Give the best deployable student on each device, newest data first, then devices in the order of their rows."""
    chosen = []
    for known, candidates, tests in _contests(rows, test, margin):
        chosen.append(known[choose(candidates, tests.is_equivalent, tests.margin, tests.has_gained)])
    return chosen


@dataclass(frozen=True)
class Ballot:
    """All that the choice of a best student needs, so that it can be made again among those that a budget leaves.

    `rows` are ids, best validation `figure` first. `equal` holds a sign for each two of the first `num_tested`: 1 where
    a test says that they are equivalent, 0 where it does not, - where there is none. `gained` says of a distilled one
    whether it has gained over its control, None where it has none or was not tested.
    """

    rows: tuple[str, ...]
    figure: str
    margin: float
    candidates: tuple[Candidate, ...]
    num_tested: int
    equal: str
    gained: tuple[bool | None, ...]

    def choose(self, among: Collection[int] | None = None) -> int:
        """Give the place of the best of all, or of some places, by the same rule as `best_students`."""
        return choose(self.candidates, self._is_equivalent, self.margin, lambda place, _: self.gained[place], among)

    def _is_equivalent(self, place: int, best: int) -> bool | None:
        low, high = sorted((place, best))
        sign = self.equal[low * self.num_tested + high] if high < self.num_tested else "-"
        return None if sign == "-" else sign == "1"


def ballots(rows: Iterable[Row], test: PairTest | None = None, *, most_tested: int) -> list[Ballot]:
    """Give the candidates of each data set and device; of more than `most_tested` the first are tested in pairs."""
    found = []
    for known, candidates, tests in _contests(rows, test, None):
        size = min(len(known), most_tested)
        signs = ["-"] * (size * size)
        for low in range(size):
            for high in range(low + 1, size):
                verdict = tests.is_equivalent(high, low)
                signs[low * size + high] = "-" if verdict is None else str(int(verdict))
        pairs = [(place, one.control) for place, one in enumerate(candidates)]
        gained = tuple(None if control is None else tests.has_gained(place, control) for place, control in pairs)
        ids = tuple(row.key for row in known)
        found.append(Ballot(ids, tests.figure, tests.margin, tuple(candidates), size, "".join(signs), gained))
    return found


def _contests(
    rows: Iterable[Row], test: PairTest | None, margin: float | None
) -> Iterator[tuple[list[Row], list[Candidate], _Tests]]:
    """Give the students that compete on each data set and device, best validation figure first, and their tests."""
    for students in map(fitting, _grounds([row for row in rows if is_deployable(row)])):
        figure = quality_of(students)
        if figure is None:
            continue
        known = [row for row in students if validation(row, figure) is not None]
        known.sort(key=lambda row: -(validation(row, figure) or 0.0))
        controls = _controls(known)
        candidates = [_candidate(row, figure, control) for row, control in zip(known, controls, strict=True)]
        within = margin_of(known) if margin is None else margin
        yield known, candidates, _Tests(known, figure, test, within, controls)


def margin_of(rows: Iterable[Row]) -> float:
    """Give the margin of equivalence of rows that are compared: what their recipes say (`measure.margin`).

    Of recipes that differ the narrowest counts; rows that come without a recipe say nothing.
    """
    stated = []
    for row in rows:
        value: Any = row.details
        for name in ("how", "recipe", "measure", "margin"):
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, int | float) and 0 < value < 1:
            stated.append(float(value))
    return min(stated, default=DEFAULT_MARGIN)


def best_teacher(rows: Iterable[Row]) -> Row | None:
    """Give the teacher of the highest validation figure, as it was trained (fp32) where such a row is there."""
    teachers = [row for row in rows if row.role == "teacher" and row.source == "measured"]
    plain = [row for row in teachers if row.scheme == "fp32"] or teachers
    figure = quality_of(plain)
    return max(plain, key=lambda row: validation(row, figure) or 0.0) if figure else next(iter(plain), None)


def is_deployable(row: Row) -> bool:
    """Say whether a row is a student's that was measured here, with the file that a bundle would hold on record."""
    made = row.details.get("how")
    return row.role == "student" and row.source == "measured" and isinstance(made, dict) and bool(made.get("file"))


def fitting(rows: Sequence[Row]) -> list[Row]:
    """Leave out the rows whose files are above the memory limits of their run, unless all are."""
    return [row for row in rows if not row.details.get(OVER_BUDGET)] or list(rows)


def quality_of(rows: Sequence[Row]) -> str | None:
    """Name the figure that chooses: AUC where every row has it on validation, else accuracy; None for neither."""
    whole = [name for name in QUALITY if rows and all(validation(row, name) is not None for row in rows)]
    some = [name for name in QUALITY if any(validation(row, name) is not None for row in rows)]
    return next(iter([*whole, *some]), None)


def validation(row: Row, figure: str) -> float | None:
    """Give a row's figure on the validation split."""
    figures = row.details.get("validation")
    value = figures.get(figure) if isinstance(figures, dict) else None
    return float(value) if isinstance(value, int | float) else None


def _grounds(rows: Sequence[Row]) -> list[list[Row]]:
    """Group rows that were evaluated on the same images and measured on the same device, newest data first."""
    newest: dict[tuple[Any, ...], str] = {}
    grounds: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        data, device = (tuple(getattr(row, name) for name in key) for key in (DATA_KEY, DEVICE_KEY))
        newest[data] = max(newest.get(data, ""), row.created)
        grounds.setdefault((data, device), []).append(row)
    return [grounds[key] for key in sorted(grounds, key=lambda key: newest[key[0]], reverse=True)]


def _controls(rows: Sequence[Row]) -> list[int | None]:
    """Give the place of each distilled student's control: the same network of the same recipe, in the same scheme."""

    def name(row: Row) -> tuple[str, ...]:
        return row.recipe, row.model, row.scheme

    alone = {name(row): place for place, row in enumerate(rows) if not row.teacher}
    return [alone.get(name(row)) if row.teacher else None for row in rows]


def _candidate(row: Row, figure: str, control: int | None) -> Candidate:
    latency = None
    if row.latency_p50_ms is not None:
        ends = [np.array([row.details.get(f"latency_p50_ms_{end}", np.nan)], np.float64) for end in ("lo", "hi")]
        low, high = span("latency_p50_ms", np.array([row.latency_p50_ms]), *ends)
        latency = (float(low[0]), float(high[0]))
    size = None if row.size_bytes is None else float(row.size_bytes)
    return Candidate(validation(row, figure) or 0.0, size, latency, bool(row.teacher), control)


@dataclass(frozen=True)
class _Tests:
    """The verdicts on pairs of rows; intervals are held to the margin of all that compete, not to the pair's own."""

    rows: Sequence[Row]
    figure: str
    test: PairTest | None
    margin: float
    controls: Sequence[int | None]

    def is_equivalent(self, place: int, best: int) -> bool | None:
        found = self._verdict(place, best)
        return None if found is None else found == "equivalent"

    def has_gained(self, place: int, control: int) -> bool | None:
        """Test against the control, p adjusted (Bonferroni) for the choices of teachers that are tested against it."""
        found = self._verdict(place, control, self.controls.count(control))
        return None if found is None else found == "gained"

    def _verdict(self, first: int, second: int, times: int = 1) -> Verdict | None:
        tests = self.test(self.rows[first], self.rows[second]) if self.test is not None else ()
        found = next((one for one in tests if one.figure == self.figure), None)
        return None if found is None else verdict_among(found, self.margin, times)


def _cheapest(candidates: Sequence[Candidate], places: Sequence[int]) -> list[int]:
    """Sort places of candidates that are as good as each other, the one to take first."""
    sizes = [candidates[place].size_bytes for place in places]
    fewest = min((size for size in sizes if size is not None), default=None)
    if fewest is not None:
        small = fewest * (1 + SIZE_TOLERANCE)
        places = [place for place, size in zip(places, sizes, strict=True) if size is not None and size <= small]
    known = [latency for place in places if (latency := candidates[place].latency_ms) is not None]
    if known:
        quickest = min(known, key=sum)
        places = [place for place in places if (latency := candidates[place].latency_ms) and latency[0] <= quickest[1]]
    return sorted(places, key=lambda place: (candidates[place].is_distilled, -candidates[place].quality, place))


def guessing(row: Row) -> str:
    """Say which test figure is no better than guessing, by its 95 % interval; empty where none is, or none is known.

    AUC: the interval reaches 0.5. Accuracy: it reaches the fraction of the largest class among the test images, which
    naming that class every time gets; only where an image has one label (multi-label rows have no confusion matrix).
    """
    if row.auc is not None and row.auc_lo is not None and row.auc_lo <= 0.5:
        return f"test AUC {_with_interval(row.auc, row.auc_lo, row.auc_hi)} reaches 0.5, that of guessing"
    largest = largest_class(row)
    if None not in (row.accuracy, row.accuracy_lo, largest) and (row.accuracy_lo or 0.0) <= (largest or 0.0):
        interval = _with_interval(row.accuracy, row.accuracy_lo, row.accuracy_hi)
        return f"test accuracy {interval} reaches {largest:.3f}, that of naming the largest class every time"
    return ""


def advice(row: Row) -> str:
    """Say in a line that a network is no better than guessing and what to do about it; empty where it is better."""
    figure = guessing(row)
    if not figure:
        return ""
    notes = [str(note) for note in row.details.get("notes") or ()]
    rising = next((note for note in notes if note.startswith(_RISING)), "")
    remedy = f"give it more epochs, {rising}" if rising else "give it more images or epochs"
    return f"{row.model} {row.scheme} is no better than guessing: {figure}; {remedy}"


def largest_class(row: Row) -> float | None:
    """Give the fraction of the test images that are of the largest class; None where the row does not say."""
    confusion = row.details.get("confusion")
    lines = confusion if isinstance(confusion, list | tuple) else ()
    # Imported rows hold what other programs wrote.
    counts = [sum(one for one in line if isinstance(one, int)) for line in lines if isinstance(line, list | tuple)]
    return max(counts) / sum(counts) if sum(counts) > 0 else None


def _with_interval(value: float | None, low: float | None, high: float | None) -> str:
    return " ".join([f"{value:.3f}", *([] if high is None else [f"[{low:.3f}, {high:.3f}]"])])
