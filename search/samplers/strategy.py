"""What a search strategy is: `propose(problem, history, n, rng)` gives architectures to score next.

A strategy holds no state of its own: the history holds all that was evaluated, so an interrupted search goes on from
its record to the same end. Each strategy has a file of its own beside this one; `strategies.py` is their registry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tutelage.records import Arch
from tutelage.search.encoding import Floats
from tutelage.search.objectives import Problem
from tutelage.search.spaces.space import Genes


@dataclass(frozen=True)
class History:
    """The architectures evaluated so far, in order. `points` are the objectives, signed to be minimised, never NaN.

    `std_error` is that of each point: 0 of costs and exact scores, NaN of scores whose noise is not known.
    """

    genes: Genes  # (n, num_genes)
    archs: tuple[Arch, ...]
    points: Floats  # (n, objectives)
    feasible: NDArray[np.bool_]  # (n,)
    batches: NDArray[np.int64]  # (n,) which batch each row came in; 0 is the caller's own
    reference: Floats  # (objectives,) where hypervolume is measured from
    std_error: Floats  # (n, objectives)

    @property
    def started(self) -> bool:
        """Say whether the strategy has proposed anything yet."""
        return bool((self.batches > 0).any())


@dataclass(frozen=True)
class Proposal:
    """Genotypes to score, with a predictor's values for them where the strategy has one (name -> (n,))."""

    genes: Genes
    predicted: Mapping[str, Floats] = field(default_factory=dict)


# Gives n feasible genotypes that were never evaluated, or fewer where there are no more.
Propose = Callable[[Problem, History, int, np.random.Generator], Proposal]


def _available() -> None:
    """Need nothing but the package itself."""


@dataclass(frozen=True)
class Strategy:
    """An entry of the registry: batches of `batch` after a first one of `first`; `help` is one line for `--help`.

    `check` raises InputError, with the remedy, where a library that the strategy needs is not installed.
    """

    name: str
    help: str
    first: int
    batch: int
    propose: Propose
    check: Callable[[], None] = _available
    distributions: tuple[str, ...] = ()  # that decide what it proposes, besides numpy, pymoo and scikit-learn
