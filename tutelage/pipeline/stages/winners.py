"""Choose the winners of a search: the best of each slice of cost, measured until the family is full or none is left."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.bench.latency.sessions import Correction
from tutelage.pipeline.context import Context
from tutelage.pipeline.device import Device
from tutelage.pipeline.objectives import INT8, LATENCY, SCORED, latency_name
from tutelage.records import Arch, Budget, InfeasibleBudgetError, NotAvailableError
from tutelage.search.encoding import Floats
from tutelage.search.family import Family, Slice, Slicing, choose_family, slice_numbers, slices_of, surely_better
from tutelage.search.result import SearchResult
from tutelage.search.spaces.space import Space

from .finalists import ARENA_BYTES, ENERGY, FIGURES, FILE_BYTES, Measured
from .seeds import seed_names

# Of each slice that has no winner yet so many architectures are measured together, twice as many each further round.
FIRST_FINALISTS = 2
MAX_ROUNDS = 6
# Where so many of the feasible architectures are as good as the best of them, error does not distinguish them.
SATURATED = 0.5

Measure = Callable[[Sequence[Arch]], Measured]


@dataclass(frozen=True)
class Winner:
    """An architecture that kept every budget when it was measured again, with its validation figures.

    Latencies are by device. `measured_ms` is without the host's drift, the quantity that `predicted_ms` predicts and
    budgets bound; `p50_ms` is the raw median of the same samples. A device out of reach is in neither.
    """

    name: str
    arch: Arch
    error: float  # as scored: the figure of the search's objective
    measured_ms: dict[str, float]
    p50_ms: dict[str, float]
    predicted_ms: dict[str, float]
    drift: dict[str, float | None]  # of the device since its profile was made; None: unknown
    expected: float | None = None  # its true value given all that was scored, by which it was chosen
    expected_std: float = 0.0
    slice: Slice | None = None  # of the cost that the winners are spread over
    seed_name: str = ""  # what it is, where the search started from it: the smallest subnet, a preset
    flattered: bool = False  # its error is too low beside those of other subnets
    energy_mj: dict[str, float] = field(default_factory=dict)  # by device, where the recipe bounds it
    file_bytes: dict[str, int] = field(default_factory=dict)  # of the file for the search's target, and its arena
    arena_bytes: dict[str, int] = field(default_factory=dict)

    @property
    def interval(self) -> tuple[float, float]:
        """Give the 95 % interval of the expected value."""
        middle = self.error if self.expected is None else self.expected
        return middle - 1.96 * self.expected_std, middle + 1.96 * self.expected_std

    def to_dict(self) -> dict[str, Any]:
        own = {**vars(self), "arch": self.arch.to_dict(), "slice": vars(self.slice) if self.slice else None}
        return {**own, "interval": self.interval}


@dataclass(frozen=True)
class ChosenWinners:
    """The winners, cheapest first; how many were measured for them and broke a budget; and what is to be said."""

    winners: tuple[Winner, ...]
    rows: tuple[int, ...]  # of the result, one a winner
    finalists: int
    broke: int
    slices: tuple[Slice, ...]
    notes: tuple[str, ...]
    corrections: Mapping[str, Correction] = field(default_factory=dict)  # of the latency models, by device


def slicing_of(ctx: Context, devices: Sequence[Device], objectives: Sequence[str]) -> Slicing:
    """Say what the winners are spread over: the device with several budgets, else the first latency, else cost."""
    limited = next((device for device in devices if len(device.budgets_ms) > 1), None)
    if limited is not None:
        return Slicing(cost=latency_name(limited), number=len(limited.budgets_ms), limits=limited.budgets_ms)
    number = ctx.recipe.num_winners
    costs = [name for name in objectives if name.split("@")[0] not in SCORED]
    latencies = [name for name in costs if name.startswith(LATENCY)]
    return Slicing(cost=next(iter([*latencies, *costs]), ""), number=number)


def choose_winners(
    result: SearchResult,
    space: Space,
    devices: Sequence[Device],
    budget: Budget,
    slicing: Slicing,
    measure: Measure,
    flattered: Collection[Arch] = (),
) -> ChosenWinners:
    """Choose by the posterior of the search, measure what is chosen, and go on with the next where a budget breaks.

    What is measured corrects the latency models by which the next ones are chosen. `flattered` are architectures whose
    inherited error is too low beside the others'.
    """
    candidates = _Candidates(result, devices, budget, slicing, flattered)
    for turn in range(MAX_ROUNDS):
        family = candidates.family()
        missing = candidates.to_measure(family, FIRST_FINALISTS * 2**turn)
        if turn and not missing:
            break
        if not candidates.add(missing, measure([candidates.archs[row] for row in missing])):
            break  # out of reach, or planned: nothing is known of them
        candidates.correct()
    family = candidates.family()
    rows = [row for row in family.members.values() if candidates.verified(row)]
    if not rows:
        raise InfeasibleBudgetError(candidates.all_broke())
    seeds = seed_names(space)
    numbers = {row: number for number, row in family.members.items()}
    winners = [candidates.winner(row, family.slices[numbers[row]], seeds) for row in rows]
    notes = [
        *candidates.vacant(family), *candidates.beaten(rows), *candidates.seeded(winners), *candidates.saturated()
    ]  # fmt: skip
    return ChosenWinners(
        tuple(winners), tuple(rows), len(candidates.finalists), len(candidates.broke), family.slices, tuple(notes),
        candidates.corrections,
    )  # fmt: skip


class _Candidates:
    """The evaluated architectures while winners are chosen: their posterior, and what was measured of them so far."""

    def __init__(
        self,
        result: SearchResult,
        devices: Sequence[Device],
        budget: Budget,
        slicing: Slicing,
        flattered: Collection[Arch],
    ) -> None:
        self.result, self.devices, self.budget, self.slicing = result, devices, budget, slicing
        self.archs = [row.arch for row in result.evaluated]
        self.flattered = np.array([arch in flattered for arch in self.archs], dtype=np.bool_)
        self.searched = np.array([row.feasible for row in result.evaluated], dtype=np.bool_)
        self.feasible = self.searched
        self.scored = next(name for name, cheap in result.cheap.items() if not cheap)
        sign = 1.0 if result.objectives[self.scored] == "min" else -1.0
        known = [row.posterior.get(self.scored, row.measured[self.scored]) for row in result.evaluated]
        self.error: Floats = sign * np.array(known)
        self.std = np.array([row.posterior.get(f"{self.scored}_std", 0.0) for row in result.evaluated])
        self.predicted = {device.name: device.model.predict(self.archs)[0] for device in devices}
        self.device = next((device for device in devices if latency_name(device) == slicing.cost), None)
        # Slices are of the figure that the search held to its bounds, the upper end of a predicted latency.
        self.held = np.array([row.value(slicing.cost) if slicing.cost else 1.0 for row in result.evaluated])
        self.cost = self.held.copy() if self.device is None else self.predicted[self.device.name].copy()
        self.slices = slices_of(self.held, self.feasible, slicing)
        self.measured: Measured = {}
        self.corrections: dict[str, Correction] = {}
        self.finalists: list[int] = []
        self.broke: set[int] = set()

    def family(self) -> Family:
        """Choose with what is known so far."""
        return choose_family(self.slices, self._slice_numbers(), self.cost, self.error, self.std, self.flattered)

    def to_measure(self, family: Family, number: int) -> list[int]:
        """Give the members that were not measured, and the next best of their slices, `number` of each in all."""
        numbers = self._slice_numbers()
        order = np.argsort(self.error, kind="stable")
        wanted: list[int] = []
        for slice_number, row in family.members.items():
            if row in self.finalists:
                continue
            spare = [int(i) for i in order if numbers[i] == slice_number and i != row and i not in self.finalists]
            wanted += [row, *spare[: number - 1]]
        return wanted

    def add(self, rows: Sequence[int], measured: Measured) -> bool:
        """Take measurements and find what breaks a budget by them; give whether anything was measured."""
        self.finalists += rows
        for name, values in measured.items():
            self.measured.setdefault(name, {}).update(values)
        for row in rows:
            times = self.figures(row, "anchored_ms")
            if any(times[name] > bound for name, bound in self.budget.latency_ms.items() if name in times):
                self.broke.add(row)
            if self._breaks(row):
                self.broke.add(row)
            if self.device is not None and self.device.name in times:
                self.cost[row] = times[self.device.name]
                if self.slicing.limits:  # slower than its slice allows: it stands for a slice of a larger budget
                    self.held[row] = max(self.held[row], self.cost[row])
        return any(measured.values())

    def correct(self) -> None:
        """Multiply each device's predictions by the factor that its measured finalists show.

        Architectures come within a budget by that, or leave it; where none of them is left and no finalist kept it, the
        search's own order goes on.
        """
        for device in self.devices:
            times = {row: ms for row in self.finalists if (ms := self.figures(row, "anchored_ms").get(device.name))}
            if times:
                archs = [self.archs[row] for row in times]
                self.corrections[device.name] = device.model.correction(archs, list(times.values()))
        measured = np.isin(np.arange(len(self.archs)), self.finalists)
        keeps = np.ones(len(self.archs), dtype=np.bool_)
        for name, bound in self.result.bounds.items():
            values = np.array([row.value(name) for row in self.result.evaluated])
            keeps &= values * self._factor(name) <= bound
        any_left = bool((keeps & ~measured).any()) or len(self.broke) < len(self.finalists)
        self.feasible = (keeps if any_left else self.searched) | measured
        if self.device is not None:
            factor = self._factor(self.slicing.cost)
            self.held = factor * np.array([row.value(self.slicing.cost) for row in self.result.evaluated])
            self.cost = np.where(measured, self.cost, factor * self.predicted[self.device.name])
            if self.slicing.limits:
                self.held = np.where(measured, np.maximum(self.held, self.cost), self.held)
            self.slices = slices_of(self.held, self._allowed(), self.slicing)

    def _factor(self, name: str) -> float:
        """Give the factor of an objective or bound: 1 for all but latencies of a device that was measured."""
        device = next((one for one in self.devices if latency_name(one) == name), None)
        found = self.corrections.get(device.name) if device is not None else None
        return 1.0 if found is None else found.factor

    def _allowed(self) -> NDArray[np.bool_]:
        return self.feasible & ~np.isin(np.arange(len(self.archs)), list(self.broke))

    def _bounds(self) -> list[tuple[str, float]]:
        """List the bounds besides latency that measuring shows to be kept: energy, and the bytes of the file."""
        size = self.budget.int8_file_bytes or self.budget.size_bytes
        ram = self.budget.int8_ram_bytes or self.budget.ram_bytes
        bounds = {ENERGY: self.budget.energy_mj, FILE_BYTES: size, ARENA_BYTES: ram}
        return [(figure, bound) for figure, bound in bounds.items() if bound is not None]

    def _figures_of_bound(self, row: int, figure: str) -> dict[str, Any]:
        """Give a figure by device; bytes only of the target's file, else of files of the precision that is deployed."""
        found = self.figures(row, figure)
        if figure != FILE_BYTES:
            return found
        if targets := self.of_target(row, figure):
            return targets
        int8 = self.budget.int8_file_bytes is not None
        deployed = [one.name for one in self.devices if (one.profile.precision == INT8) == int8]
        return {name: value for name, value in found.items() if name in deployed}

    def of_target(self, row: int, figure: str) -> dict[str, Any]:
        """Give a figure of the file for the search's target, by the target's name; empty where it has none."""
        timed = [device.name for device in self.devices]
        return {name: value for name, value in self.figures(row, figure).items() if name not in timed}

    def _breaks(self, row: int) -> bool:
        """Say whether a row's energy or file is beyond its bound. Raises where the counter has gone meanwhile."""
        for figure, bound in self._bounds():
            for name, value in self._figures_of_bound(row, figure).items():
                if value is None:
                    raise NotAvailableError(f"device {name} gave no {figure} of a finalist: leave the budget on it out")
                if value > bound:
                    return True
        return False

    def verified(self, row: int) -> bool:
        """Say whether a member was measured wherever it can be."""
        return row in self.finalists or not (self.measured or any(device.reachable for device in self.devices))

    def figures(self, row: int, name: str) -> dict[str, Any]:
        """Give one figure of a row's measurements by device; empty where it was not measured."""
        arch = self.archs[row].id
        found = {device: values[arch] for device, values in self.measured.items() if arch in values}
        return {device: figures[name] for device, figures in found.items() if name in figures}

    def winner(self, row: int, part: Slice, seeds: dict[Arch, str]) -> Winner:
        """Describe a member that kept its budgets; `seeds` names the architectures that the search started from."""
        arch = self.archs[row]
        p50, times, drift = (self.figures(row, figure) for figure in FIGURES)
        evaluated = self.result.evaluated[row]
        return Winner(
            arch.short_name,
            arch,
            evaluated.measured[self.scored],
            times,
            p50,
            {name: float(values[row]) for name, values in self.predicted.items()},
            drift,
            expected=evaluated.posterior.get(self.scored),
            expected_std=float(self.std[row]),
            slice=part if self.slicing.cost else None,
            seed_name=seeds.get(arch, "one of the first") if evaluated.initial else "",
            flattered=bool(self.flattered[row]),
            energy_mj=self.figures(row, ENERGY),
            file_bytes=self.of_target(row, FILE_BYTES),
            arena_bytes=self.of_target(row, ARENA_BYTES),
        )

    def all_broke(self) -> str:
        """Say which budgets the finalists broke, and the least that any of them has."""
        said = times = [f"{name} {bound:.3g} ms" for name, bound in self.budget.latency_ms.items()]
        for figure, bound in self._bounds():
            values = [value for row in self.finalists for value in self._figures_of_bound(row, figure).values()]
            if values:
                kind, unit = (".4g", "mJ") if figure == ENERGY else (",.0f", "bytes")
                said = [*said, f"{figure} {bound:{kind}} {unit}, the least is {min(values):{kind}} {unit}"]
        which = "the latency" if said == times else "a"
        again = ", or measure the device again with `tutelage device check`" if times else ""
        broken = f"all {len(self.broke)} finalists break {which} budget when measured again"
        return f"{broken} ({', '.join(said)}): raise it{again}"

    def vacant(self, family: Family) -> list[str]:
        """Say why a slice has no winner."""
        lines = []
        for number, vacancy in family.vacancies.items():
            part = family.slices[number]
            other = self.archs[vacancy.row].short_name
            reason = {
                "empty": "every architecture of it broke the budget"
                if any(self._was_in(row, part) for row in self.broke)
                else "no architecture of it was evaluated",
                "same": f"what it has is no different from {other} beyond the noise, in {self.scored} and in cost",
                "same_cost": f"what it has costs no more than {other}, which each step of the supernet trained",
                "dominated": f"what it has is surely less accurate than {other}, which costs no more",
            }[vacancy.reason]
            lines.append(f"No winner for {self.slicing.cost} {words_of(part)}: {reason}.")
        unverified = [row for row in family.members.values() if not self.verified(row)]
        if unverified:
            lines.append(
                f"{len(unverified)} of the slices have no winner after {MAX_ROUNDS} rounds of measuring "
                f"({len(self.finalists)} finalists): raise the budget."
            )
        if not self.slicing.limits and 1 < len(family.slices) < self.slicing.number:
            lines.append(f"{len(family.slices)} slices were made, {self.slicing.number} were wanted.")
        if self.slicing.number > 1 and len(family.slices) == 1:
            lines.append(f"One winner: all architectures within the bounds cost the same {self.slicing.cost}.")
        return lines

    def beaten(self, rows: Sequence[int]) -> list[str]:
        """Name the winners that a flattered one, which costs no more, surely beats by inherited error."""
        lines = []
        for other in (row for row in rows if self.flattered[row]):
            worse = [
                self.archs[row].short_name
                for row in rows
                if self.cost[row] >= self.cost[other]
                and surely_better(self.error[other], self.error[row], self.std[other], self.std[row])
            ]
            if worse:
                lines.append(
                    f"{', '.join(worse)}: surely less accurate with inherited weights than "
                    f"{self.archs[other].short_name}, which each step of the supernet trained; training decides."
                )
        return lines

    def seeded(self, winners: Sequence[Winner]) -> list[str]:
        """Say which winners the search did not find."""
        found = {True: "each step of the supernet trained it, too", False: "it found no better one in its slice"}
        return [
            f"{winner.name} is {winner.seed_name}, from which the search started; {found[winner.flattered]}."
            for winner in winners
            if winner.seed_name
        ]

    def saturated(self) -> list[str]:
        """Say where the error of most architectures is within the noise of the best one's."""
        rows = np.flatnonzero(self.feasible)
        rows = rows[~self.flattered[rows]] if len(rows) > 1 else rows
        best = rows[np.argmin(self.error[rows])]
        alike = [
            row for row in rows if not surely_better(self.error[best], self.error[row], self.std[best], self.std[row])
        ]
        if self.scored != "error" or len(rows) < 10 or len(alike) <= SATURATED * len(rows):
            return []
        return [
            f"{len(alike)} of {len(rows)} architectures are within the noise of the least error, which does not "
            "distinguish them: more validation images would, or search.objectives with loss or auc in place of error."
        ]

    def _slice_numbers(self) -> NDArray[np.int64]:
        """Say which slice each architecture is in; -1 where it breaks a bound, as predicted or as measured."""
        return slice_numbers(self.held, self._allowed(), self.slices)

    def _was_in(self, row: int, part: Slice) -> bool:
        return bool(part.low <= self.held[row] <= part.high)


def words_of(part: Slice) -> str:
    """Write a slice as a range."""
    return f"up to {part.high:.3g}" if part.low == 0 else f"{part.low:.3g} to {part.high:.3g}"
