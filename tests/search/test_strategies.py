"""Every strategy on one small problem: what may be asked, and that the default needs fewest to get far."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tutelage.records import Arch
from tutelage.search.acquire import _greedy, spread_sample
from tutelage.search.evolve import Objective, SearchResult, search
from tutelage.search.genetic import rank_order, survive
from tutelage.search.objectives import Problem
from tutelage.search.pool import draw_feasible, new_rows
from tutelage.search.result import hypervolume
from tutelage.search.space import SPACES, Space
from tutelage.search.strategies import STRATEGIES

OURS = [name for name in STRATEGIES if not name.startswith("nni")]  # those need their extra: tests/nni
Floats = NDArray[np.float64]
SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((64,))
TINY = Space("ofa_mbv3_w1.0", "mbv3", (3,), (3, 4), (2,), SPACE.widths, 2, (64,))  # 2 ** 10 archs


def error(archs: Sequence[Arch]) -> Floats:
    return np.array([1 - sum(a.e) / 240 - sum(a.ks[:8]) / 470 + sum(a.ks[12:]) / 900 for a in archs])


def played(strategy: str, space: Space = SPACE, evaluations: int = 60, **bounds: float) -> SearchResult:
    goals = [Objective("error", "min", error, cheap=False), Objective("macs")]
    reference = {"error": 1.0, "macs": 6e7}
    return search(space, goals, bounds, strategy=strategy, evaluations=evaluations, seed=0, reference=reference)


@pytest.mark.parametrize("strategy", [name for name in OURS if name != "linas"])
def test_it_asks_new_feasible_archs_and_as_many_as_told(strategy: str) -> None:
    result = played(strategy, evaluations=55, macs=2.5e7)
    assert len({row.arch for row in result.asked}) == 55
    assert all(row.feasible and row.counted["macs"] <= 2.5e7 for row in result.asked)


def test_a_space_that_runs_out_ends_the_search() -> None:
    narrow = Space("ofa_mbv3_w1.0", "mbv3", (3,), (3,), (2, 3), SPACE.widths, 2, (64,))  # 2 ** 5 archs
    result = played("random", narrow, evaluations=100)
    assert len(result.asked) == narrow.size() == 32


@pytest.mark.slow
def test_the_default_finds_more_than_the_others_for_the_same_number() -> None:
    reached = {name: played(name, evaluations=100).hypervolume[-1][1] for name in OURS}
    assert reached["default"] == max(reached.values())
    assert reached["linas"] > reached["random"]


def test_feasible_draws_survive_a_bound_that_nearly_nothing_meets() -> None:
    def rare(archs: Sequence[Arch]) -> Floats:
        return np.array([float(sum(arch.d) + sum(arch.ks)) for arch in archs])

    goals = (Objective("error", "min", error, cheap=False), Objective("latency_ms@x", "min", rare))
    problem = Problem(SPACE, goals, {"latency_ms@x": 46.0})  # the least is 40: two or three steps away from it
    drawn = draw_feasible(problem, 12, np.random.default_rng(0), np.zeros((0, SPACE.num_genes), dtype=np.int64))
    assert len(drawn) == 12
    assert problem.feasible(problem.cheap(drawn)).all()


def test_new_rows_against_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    rows, asked = rng.integers(0, 2, (50, 4)), rng.integers(0, 2, (5, 4))
    seen = [tuple(row) for row in asked]
    expected = []
    for i, row in enumerate(rows):
        if tuple(row) not in seen:
            seen.append(tuple(row))
            expected.append(i)
    assert new_rows(rows, asked).tolist() == expected


def test_survivors_are_the_first_ranks() -> None:
    points = np.array([[0.0, 3.0], [3.0, 0.0], [1.0, 1.0], [4.0, 4.0], [5.0, 5.0]])
    batches = np.array([1, 1, 2, 2, 2])
    kept = survive(points, batches, np.ones(5, dtype=bool), 3)
    assert sorted(kept.tolist()) == [0, 1, 2]
    assert rank_order(points).tolist()[-2:] == [3, 4]


def test_spread_reaches_both_ends() -> None:
    problem = Problem(SPACE, (Objective("error", "min", error, cheap=False), Objective("macs")))
    rng = np.random.default_rng(0)
    spread = problem.counts(spread_sample(problem, 60, rng))["macs"]
    plain = problem.counts(SPACE.random(60, rng))["macs"]
    assert np.ptp(spread) > 1.3 * np.ptp(plain)


def test_greedy_takes_what_adds_most_hypervolume_then_not_its_twin() -> None:
    candidates = np.array([[0.5, 0.5], [0.5, 0.5], [0.1, 0.9], [0.95, 0.95]])
    draws = np.repeat(candidates[None], 4, axis=0)
    seen = np.zeros((0, 2))
    chosen = _greedy(draws, seen, np.ones(2), 2, np.random.default_rng(0))
    exact = [hypervolume(candidates[[i]], np.ones(2)) for i in range(4)]
    assert chosen[0] == int(np.argmax(exact)) == 0
    assert chosen[1] == 2  # its twin would add nothing


def test_tiny_space_is_exhausted_by_the_default_without_repeats() -> None:
    result = played("default", TINY, evaluations=40)
    assert len({row.arch for row in result.asked}) == 40
