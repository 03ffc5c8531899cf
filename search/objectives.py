"""What a search optimises: objectives by name and direction, upper bounds, and the values that need no scoring.

A `Problem` gives for any genes their costs and whether they keep every bound. Cheap objectives (counts, a latency
model) can be computed for any arch; expensive ones (`error`) are evaluated for the archs that a strategy proposes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.records import Arch, InputError
from tutelage.search.costs.budget import Cost, check_feasible
from tutelage.search.costs.counts import count_genes
from tutelage.search.costs.listing import list_feasible
from tutelage.search.costs.sampling import FeasibleSampler
from tutelage.search.spaces.space import Genes, Space

from .encoding import Floats

Direction = Literal["min", "max"]

# Feasible sets of at most so many architectures are listed, so that their end is known and nothing is drawn in vain.
LISTED_AT_MOST = 10_000

COUNTS = (
    *("params", "macs", "activations", "peak_activation_bytes", "size_bytes", "int8_bytes"),
    *("ram_bytes", "int8_ram_bytes", "int8_file_bytes"),
)


@dataclass(frozen=True)
class Scores:
    """Scored values with the standard error of each, (n,) both: 0 where a value is exact, NaN where it is not known."""

    values: NDArray[np.floating]
    std_error: NDArray[np.floating]


# Gives one value an arch, with or without its standard error.
Score = Callable[[Sequence[Arch]], NDArray[np.floating] | Scores]
# Scores archs again, independently; is given how many evaluations each of them had before.
Again = Callable[[Sequence[Arch], Sequence[int]], NDArray[np.floating] | Scores]


@dataclass(frozen=True)
class Objective:
    """A figure to minimise or maximise. `fn` gives one value an arch; a count needs none, the search counts itself.

    A noisy score says its standard error (`Scores`); where an arch may be scored on further data, `again` does that, up
    to `most` evaluations of an arch in all, and the search scores its contenders again.
    """

    name: str
    direction: Direction = "min"
    fn: Score | None = None
    cheap: bool = True
    again: Again | None = None
    most: int = 1

    def __post_init__(self) -> None:
        if self.direction not in ("min", "max"):
            raise InputError(f"objective {self.name} has direction {self.direction!r}: write 'min' or 'max'")
        if self.fn is None and self.name not in COUNTS:
            raise InputError(f"objective {self.name} has no function and is no count: choose of {', '.join(COUNTS)}")
        if self.name in COUNTS and not self.cheap:
            raise InputError(f"objective {self.name} is a count, which is exact and free: give it as cheap")
        if (self.again is None) != (self.most == 1):
            raise InputError(
                f"objective {self.name} has most = {self.most} and {'no ' if self.again is None else ''}`again`: give "
                "both, or neither"
            )

    @property
    def sign(self) -> float:
        """Give the factor that turns the value into one to minimise."""
        return 1.0 if self.direction == "min" else -1.0

    def evaluate(self, archs: Sequence[Arch]) -> Floats:
        """Call `fn` and check what comes back: one finite number an arch."""
        return self.score(archs).values

    def score(self, archs: Sequence[Arch], before: Sequence[int] | None = None) -> Scored:
        """Call `fn`, or `again` where `before` says how many evaluations each arch had, and check what comes back."""
        if before is None:
            assert self.fn is not None
            given = self.fn(archs)
        else:
            assert self.again is not None
            given = self.again(archs, before)
        if not isinstance(given, Scores):
            given = Scores(np.asarray(given), np.full(len(archs), np.nan))
        values, std_error = (np.asarray(part, dtype=np.float64) for part in (given.values, given.std_error))
        for what, numbers in (("", values), ("standard errors of ", std_error)):
            if numbers.shape != (len(archs),):
                raise InputError(
                    f"objective {self.name} gave {what}shape {numbers.shape} for {len(archs)} archs: give one an arch"
                )
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise InputError(
                f"objective {self.name} is {values[bad[0]]} for {archs[bad[0]].to_dict()}: it must be finite"
            )
        wrong = np.flatnonzero((std_error < 0) | np.isinf(std_error))
        if len(wrong):
            raise InputError(
                f"objective {self.name} has the standard error {std_error[wrong[0]]} for "
                f"{archs[wrong[0]].to_dict()}: give 0 or more, NaN where it is not known"
            )
        return Scored(values, std_error)


class Scored(NamedTuple):
    """Checked values and standard errors (NaN: unknown), (n,) each."""

    values: Floats
    std_error: Floats


@dataclass(frozen=True)
class Problem:
    """A space, its objectives and the bounds: what every strategy is given."""

    space: Space
    objectives: tuple[Objective, ...]
    bounds: Mapping[str, float] = field(default_factory=dict)
    num_classes: int = 1000
    in_channels: int = 3

    def __post_init__(self) -> None:
        names = [objective.name for objective in self.objectives]
        if len(set(names)) < len(names):
            raise InputError(f"objectives {names} repeat a name: name each once (a device by latency_ms@DEVICE)")
        if not self.expensive:
            raise InputError(f"objectives {names} are all cheap: give one to be scored, e.g. error with cheap=False")
        known = [*COUNTS, *(objective.name for objective in self.objectives if objective.cheap)]
        for name, bound in self.bounds.items():
            if name not in known:
                raise InputError(f"bound on {name!r}: no such cheap objective or count, choose of {', '.join(known)}")
            if not (math.isfinite(bound) and bound > 0):
                raise InputError(f"bound {name} = {bound}: an upper bound is a positive finite number")
        for objective in self.objectives:
            if objective.name in self.bounds and objective.direction == "max":
                raise InputError(f"bound on {objective.name}: it is to be maximised, and bounds are upper bounds")

    @property
    def expensive(self) -> tuple[Objective, ...]:
        return tuple(objective for objective in self.objectives if not objective.cheap)

    @property
    def callables(self) -> tuple[Objective, ...]:
        """Cheap objectives that are not counts: latency models and what else a caller brings."""
        return tuple(objective for objective in self.objectives if objective.cheap and objective.name not in COUNTS)

    @cached_property
    def sampler(self) -> FeasibleSampler:
        """Draw from the archs that keep all bounds; prepared once, when first needed."""
        return FeasibleSampler(self.space, self.bounds, self.num_classes, self.in_channels, self.given_cost)

    @cached_property
    def listed(self) -> Genes | None:
        """List all archs that keep the bounds, (n, num_genes); None when they are many."""
        return list_feasible(
            self.space, self.bounds, LISTED_AT_MOST, self.num_classes, self.in_channels, self.given_cost
        )

    @property
    def given_cost(self) -> Cost | None:
        """Give the bounded costs that are callables as a function of genes; None where there are none."""
        bounded = [objective for objective in self.callables if objective.name in self.bounds]

        def cost(genes: Genes) -> dict[str, Floats]:
            archs = self.space.decode(genes)
            return {objective.name: objective.evaluate(archs) for objective in bounded}

        return cost if bounded else None

    def counts(self, genes: Genes) -> dict[str, Floats]:
        """Give every count of every genotype, (n,) each."""
        counted = count_genes(self.space, genes, num_classes=self.num_classes, in_channels=self.in_channels)
        return {name: np.asarray(getattr(counted, name), dtype=np.float64) for name in COUNTS}

    def cheap(self, genes: Genes, archs: Sequence[Arch] | None = None) -> dict[str, Floats]:
        """Give counts and cheap objectives of every genotype, (n,) each."""
        return {**self.counts(genes), **self.given(genes, archs)}

    def given(self, genes: Genes, archs: Sequence[Arch] | None = None) -> dict[str, Floats]:
        """Give the cheap objectives that are callables, (n,) each."""
        if not self.callables:
            return {}
        archs = self.space.decode(genes) if archs is None else archs
        return {objective.name: objective.evaluate(archs) for objective in self.callables}

    def feasible(self, cheap: Mapping[str, Floats]) -> NDArray[np.bool_]:
        """Say which genotypes keep every bound."""
        size = len(next(iter(cheap.values())))
        keeps = np.ones(size, dtype=np.bool_)
        for name, bound in self.bounds.items():
            keeps &= cheap[name] <= bound
        return keeps

    def check_bounds(self) -> None:
        """Raise InfeasibleBudgetError, naming the bound and the nearest feasible value, when no arch keeps the bounds.

        A few hundred small and random archs are tried first: one that keeps the bounds is the quickest proof. Only when
        none does, `budget.check_feasible` proves the bounds empty (or finds an arch that keeps them).
        """
        if not self.bounds:
            return
        smallest = self.space.encode([self.space.smallest()])
        some = self.space.random(200, np.random.default_rng(0))
        tried = np.concatenate([smallest, self.space.neighbours(smallest[0]), some])
        if not self.feasible(self.cheap(tried)).any():
            check_feasible(self.space, self.bounds, self.num_classes, self.in_channels, self.given_cost)

    def matrix(self, values: Mapping[str, Floats]) -> Floats:
        """Stack objectives as columns to minimise, (n, objectives)."""
        return np.stack([objective.sign * values[objective.name] for objective in self.objectives], axis=1)
