"""Every strategy on one small problem: what may be proposed, and that the default needs fewest to get far."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.stats import chisquare
from typer.testing import CliRunner

from tutelage import plugins
from tutelage.cli.app import app
from tutelage.dominance import hypervolume
from tutelage.pipeline.sections import SearchSection
from tutelage.records import Arch, InputError
from tutelage.search.costs.counts import count
from tutelage.search.loop import Objective, SearchResult, search
from tutelage.search.objectives import Problem
from tutelage.search.samplers import draws
from tutelage.search.samplers.default import _greedy, spread_sample
from tutelage.search.samplers.draws import draw_feasible, fill_feasible, new_rows
from tutelage.search.samplers.genetic import breed, rank_order, survive
from tutelage.search.samplers.strategies import STRATEGIES
from tutelage.search.spaces.space import SPACES, Space

OURS = [name for name in STRATEGIES if not name.startswith("nni")]  # those need their extra: tests/nni
Floats = NDArray[np.float64]
SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((64,))
TINY = Space(
    "ofa_mbv3_w1.0", SPACES["ofa_mbv3_w1.0"].family, (3,), (3, 4), (2,), SPACE.widths, 2, (64,)
)  # 2 ** 10 archs


def error(archs: Sequence[Arch]) -> Floats:
    return np.array([1 - sum(a.e) / 240 - sum(a.ks[:8]) / 470 + sum(a.ks[12:]) / 900 for a in archs])


THRIFTY = """
import numpy as np
from tutelage.search.samplers.draws import remaining
from tutelage.search.samplers.strategy import Proposal, Strategy

def propose(problem, history, n, rng):
    left = remaining(problem, history.genes)
    return Proposal(left[np.argsort(problem.counts(left)["macs"], kind="stable")[:n]])

THRIFTY = Strategy("thrifty", "the smallest architectures first", 5, 5, propose)
"""
GOALS = (Objective("error", "min", error, cheap=False), Objective("macs"))
NONE = np.zeros((0, SPACE.num_genes), dtype=np.int64)


def played(strategy: str, space: Space = SPACE, evaluations: int = 60, **bounds: float) -> SearchResult:
    reference = {"error": 1.0, "macs": 6e7}
    return search(space, GOALS, bounds, strategy=strategy, evaluations=evaluations, seed=0, reference=reference)


@pytest.mark.parametrize("strategy", [name for name in OURS if name != "linas"])
def test_it_proposes_new_feasible_archs_and_as_many_as_wanted(strategy: str) -> None:
    result = played(strategy, evaluations=55, macs=2.5e7)
    assert len({row.arch for row in result.evaluated}) == 55
    assert all(row.feasible and row.counted["macs"] <= 2.5e7 for row in result.evaluated)


NARROW = Space(
    "ofa_mbv3_w1.0", SPACES["ofa_mbv3_w1.0"].family, (3,), (3,), (2, 3), SPACE.widths, 2, (64,)
)  # 2 ** 5 archs


def least_macs(space: Space, n: int) -> float:
    """Give the bound that n archs of NARROW keep."""
    every = draw_feasible(Problem(space, GOALS), 100, np.random.default_rng(0), NONE)
    return float(np.sort(count(space.decode(every)).macs)[n - 1])


@pytest.mark.parametrize("strategy", OURS)
@pytest.mark.parametrize("num_feasible", [1, 2, 7, 25, 32])
def test_a_search_ends_when_every_feasible_arch_is_evaluated(strategy: str, num_feasible: int) -> None:
    """Also where a batch takes more than are left, and where the caller's own are some of them, named twice."""
    macs = least_macs(NARROW, num_feasible)
    result = played(strategy, NARROW, evaluations=100, macs=macs)
    assert len({row.arch for row in result.evaluated}) == len(result.evaluated) == num_feasible
    assert result.ended == f"the feasible set is exhausted after {num_feasible} architectures"
    twice = [NARROW.smallest(), NARROW.smallest(), NARROW.largest()]
    named = search(NARROW, GOALS, {"macs": macs}, strategy=strategy, evaluations=100, initial=twice)
    assert sum(row.feasible for row in named.evaluated) == len({row.arch for row in named.evaluated if row.feasible})
    assert sum(row.feasible for row in named.evaluated) == num_feasible
    assert played(strategy, NARROW, evaluations=num_feasible, macs=macs).ended == ""


@pytest.mark.parametrize("strategy", ["random", "eeea", "nsga2"])
def test_a_whole_space_ends_too_where_a_bound_leaves_a_handful(strategy: str) -> None:
    smallest = float(count([SPACE.smallest()]).macs[0])
    result = played(strategy, SPACE, evaluations=100, macs=1.005 * smallest)
    assert 1 < len(result.evaluated) < 100
    assert all(row.feasible for row in result.evaluated)
    assert "is exhausted" in result.ended


def test_parents_without_a_neighbour_have_no_children() -> None:
    """pymoo gives None where every child would be a parent again."""
    every = draw_feasible(Problem(NARROW, GOALS), 32, np.random.default_rng(0), NONE)
    points = np.arange(64, dtype=np.float64).reshape(32, 2)
    assert breed(Problem(NARROW, GOALS), every, points, 8, np.random.default_rng(0)).shape == (0, NARROW.num_genes)


def test_as_many_are_scored_as_were_asked_for_even_of_the_callers_own() -> None:
    own = [SPACE.smallest(), SPACE.largest(), *SPACE.decode(SPACE.random(2, np.random.default_rng(0)))]
    result = search(SPACE, GOALS, strategy="random", evaluations=3, initial=own)
    assert [row.arch for row in result.evaluated] == own[:3]


def test_eeea_starts_below_beta_and_a_bound_on_params_is_beta() -> None:
    small = SPACES["ofa_mbv3_w1.2"].with_resolutions((64,))
    started = played("eeea", small, evaluations=40)
    assert max(row.counted["params"] for row in started.evaluated) <= 7e6
    least = float(count([small.smallest()]).params[0])
    only = played("eeea", small, evaluations=40, params=least)
    assert {row.counted["params"] for row in only.evaluated} == {least}


def test_of_a_listed_set_the_first_is_a_plain_draw_and_the_second_one_of_the_rest() -> None:
    """Without replacement: P(i, then j) = p_i p_j / (1 - p_i)."""
    space = Space("ofa_mbv3_w1.0", SPACES["ofa_mbv3_w1.0"].family, (3,), (3, 4, 6), (2, 3), SPACE.widths, 2, (64,))
    near = space.decode(space.neighbours(space.encode([space.smallest()])[0]))
    problem = Problem(space, GOALS, {"macs": float(np.sort(count(near).macs)[9])})
    assert problem.listed is not None
    p = np.exp(space.log_probability(problem.listed))
    p /= p.sum()
    assert len(p) < 80 < 200 * p.max() / p.min()
    expected = p[:, None] * p / (1 - p[:, None])
    np.fill_diagonal(expected, 0)
    place = {row.tobytes(): i for i, row in enumerate(problem.listed)}
    rng, seen = np.random.default_rng(1), np.zeros_like(expected)
    for _ in range(2000):
        first, second = draw_feasible(problem, 2, rng, NONE)
        seen[place[first.tobytes()], place[second.tobytes()]] += 1
    for axis in (0, 1):
        assert chisquare(seen.sum(axis), 2000 * expected.sum(axis)).pvalue > 1e-4


def kernel_cost(archs: Sequence[Arch]) -> Floats:
    """A latency that is no sum over parts: deep, wide kernels cost most."""
    return np.array([(sum(a.ks) * sum(a.d)) ** 0.5 for a in archs])


@pytest.mark.parametrize("share", [0.05, 1.0])
def test_random_is_plain_draws_given_a_bound_on_a_callable(share: float) -> None:
    """The mean kernel sum at 5 % acceptance is that of rejection; a bound that never binds moves nothing."""
    plain = SPACE.random(20_000, np.random.default_rng(3))
    cost = kernel_cost(SPACE.decode(plain))
    bound = float(np.quantile(cost, share))
    kept = [sum(a.ks) for a in SPACE.decode(plain[cost <= bound])]
    goals = (*GOALS, Objective("latency_ms@x", "min", kernel_cost))
    drawn = draw_feasible(Problem(SPACE, goals, {"latency_ms@x": bound}), 400, np.random.default_rng(4), NONE)
    ours = [sum(a.ks) for a in SPACE.decode(drawn)]
    error = np.hypot(np.std(ours) / 400**0.5, np.std(kept) / len(kept) ** 0.5)
    assert abs(np.mean(ours) - np.mean(kept)) < 4 * error
    if share == 1.0:
        assert abs((drawn[:, :5] == 2).mean() - 1 / 3) < 0.042  # 2000 depths: four standard errors


def test_where_draws_find_too_few_random_stops_and_others_take_mutants(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cost of its own form, near its least: one plain draw in millions keeps the bound."""
    goals = (*GOALS, Objective("latency_ms@x", "min", kernel_cost))
    problem = Problem(SPACE, goals, {"latency_ms@x": 1.05 * float(kernel_cost([SPACE.smallest()])[0])})
    monkeypatch.setattr(draws, "_FILL_DRAWS", 500)
    assert len(draw_feasible(problem, 10, np.random.default_rng(0), NONE, 500)) < 10
    filled = fill_feasible(problem, 10, np.random.default_rng(0), NONE)
    assert len(np.unique(filled, axis=0)) == 10
    assert problem.feasible(problem.cheap(filled)).all()


@pytest.mark.slow
def test_the_default_finds_more_than_the_others_for_the_same_number() -> None:
    reached = {name: played(name, evaluations=100).hypervolume[-1][1] for name in OURS}
    assert reached["default"] == max(reached.values())
    assert reached["linas"] > reached["random"]


def test_draws_find_what_nearly_nothing_meets_where_the_cost_is_a_sum() -> None:
    def rare(archs: Sequence[Arch]) -> Floats:
        return np.array([float(sum(arch.d) + sum(arch.ks)) for arch in archs])

    goals = (*GOALS, Objective("latency_ms@x", "min", rare))
    space = replace(SPACE, depths=(2, 3), expands=(3, 4))
    problem = Problem(space, goals, {"latency_ms@x": 46.0})  # the least is 40: two or three steps away from it
    drawn = draw_feasible(problem, 6, np.random.default_rng(0), NONE)
    assert len(np.unique(drawn, axis=0)) == 6
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
    assert len({row.arch for row in result.evaluated}) == 40


def shown_help() -> str:
    """The help of `tutelage search`, its frame and line breaks taken off."""
    return " ".join(CliRunner().invoke(app, ["search", "--help"]).output.replace("│", " ").split())


def test_a_strategy_of_another_package_is_used_and_shown_in_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It proposes the smallest archs first; the recipe, the search and `--help` know it as they know their own."""
    (tmp_path / "thrifty_strategy.py").write_text(THRIFTY)
    info = tmp_path / "thrifty-2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thrifty\nVersion: 2.1\n")
    (info / "entry_points.txt").write_text("[tutelage.strategies]\nthrifty = thrifty_strategy:THRIFTY\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        plugins.forget()
        every = draw_feasible(Problem(TINY, GOALS), 1024, np.random.default_rng(0), NONE)
        result = played("thrifty", TINY, evaluations=12)
        assert [row.counted["macs"] for row in result.evaluated] == sorted(count(TINY.decode(every)).macs)[:12]
        assert SearchSection(strategy="thrifty").strategy == "thrifty"
        assert "thrifty (from thrifty 2.1): the smallest architectures first" in shown_help()
    sys.modules.pop("thrifty_strategy", None)
    plugins.forget()
    assert "thrifty" not in shown_help()
    with pytest.raises(ValidationError, match="unknown strategy 'thrifty'"):
        SearchSection(strategy="thrifty")


def test_help_and_messages_list_every_strategy() -> None:
    shown = shown_help()
    for name, entry in STRATEGIES.items():
        assert f"{name}: {entry.help}" in shown
    with pytest.raises(InputError, match=re.escape(f"known are {', '.join(STRATEGIES)}")):
        played("annealing")
