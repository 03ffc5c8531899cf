"""The search: bounds kept, nothing evaluated twice, resumed to the same end, several devices, honest records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tutelage.dominance import hypervolume
from tutelage.records import Arch, InfeasibleBudgetError, InputError
from tutelage.search.costs.counts import count
from tutelage.search.loop import Objective, SearchResult, search
from tutelage.search.result import choose_finalists, non_dominated
from tutelage.search.spaces.presets import PRESETS, place
from tutelage.search.spaces.space import SPACES

SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((64,))
HOST = "latency_ms@host"
PHONE = "latency_ms@phone"
Floats = NDArray[np.float64]


def error(archs: Sequence[Arch]) -> Floats:
    return np.array([1 - sum(a.e) / 240 - sum(a.ks) / 470 + 0.02 * np.sin(sum(a.ks[:8])) for a in archs])


def host_ms(archs: Sequence[Arch]) -> Floats:
    return np.array([0.3 * sum(arch.d) + 0.01 * sum(arch.ks) for arch in archs])


def phone_ms(archs: Sequence[Arch]) -> Floats:
    return np.array([0.1 * sum(k * k for k in arch.ks) for arch in archs])


def objectives(score: Any = error) -> list[Objective]:
    return [Objective("error", "min", score, cheap=False), Objective(HOST, "min", host_ms), Objective("size_bytes")]


def run(strategy: str = "default", **changes: Any) -> SearchResult:
    settings: dict[str, Any] = {
        "strategy": strategy,
        "evaluations": 40,
        "seed": 3,
        "initial": [place(PRESETS["EEEA-Net-C1"], SPACE, 64), SPACE.smallest(), SPACE.largest()],
        "num_classes": 4,
        "in_channels": 1,
        **changes,
    }
    score = settings.pop("score", error)
    return search(SPACE, objectives(score), {HOST: 5.5, "params": 6e6}, **settings)


def test_bounds_are_kept_and_nothing_is_evaluated_twice() -> None:
    result = run()
    assert len(result.evaluated) == 40
    assert len({row.arch for row in result.evaluated}) == 40
    archs = [row.arch for row in result.evaluated]
    params = count(archs, num_classes=4, in_channels=1).params
    latency = host_ms(archs)
    for i, row in enumerate(result.evaluated):
        assert row.feasible == (params[i] <= 6e6 and latency[i] <= 5.5)
        assert row.feasible or row.initial
    assert [row.initial for row in result.evaluated] == [True] * 3 + [False] * 37
    assert not result.evaluated[2].feasible  # the largest is scored all the same, and marked
    assert 2 not in (*result.front, *result.finalists)


def test_predicted_counted_and_measured_stay_apart() -> None:
    row = run(evaluations=26).evaluated[-1]
    assert set(row.measured) == {"error"}
    assert {"params", "macs", "size_bytes", "peak_activation_bytes"} <= set(row.counted)
    assert set(row.predicted) == {"error", "error_std", HOST}
    assert row.value("error") == row.measured["error"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["default", "linas"])
def test_interrupted_slow_strategies_end_the_same(strategy: str, tmp_path: Path) -> None:
    _interrupt_and_compare(strategy, tmp_path)


@pytest.mark.parametrize("strategy", ["random", "eeea", "nsga2"])
def test_interrupted_and_called_again_it_ends_the_same(strategy: str, tmp_path: Path) -> None:
    _interrupt_and_compare(strategy, tmp_path)


def _interrupt_and_compare(strategy: str, folder: Path) -> None:
    evaluations = {"default": 45, "linas": 60}.get(strategy, 110)
    whole = run(strategy, evaluations=evaluations)
    scored: list[Arch] = []

    def stops(archs: Sequence[Arch]) -> Floats:
        if len(scored) > 40:
            raise KeyboardInterrupt
        scored.extend(archs)
        return error(archs)

    path = folder / "search.json"
    with pytest.raises(KeyboardInterrupt):
        run(strategy, evaluations=evaluations, checkpoint=path, score=stops)
    before = SearchResult.from_json(path)
    assert 0 < len(before.evaluated) < evaluations
    again: list[Arch] = []

    def counted(archs: Sequence[Arch]) -> Floats:
        again.extend(archs)
        return error(archs)

    resumed = run(strategy, evaluations=evaluations, checkpoint=path, score=counted)
    assert not {row.arch for row in before.evaluated} & set(again)
    untimed = {"search_seconds": 0.0, "scoring_seconds": 0.0}
    assert resumed.model_copy(update=untimed) == whole.model_copy(update=untimed)
    assert SearchResult.from_json(path) == resumed


def test_a_checkpoint_of_another_search_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    run("random", checkpoint=path)
    with pytest.raises(InputError, match="is of another search \\(seed was 3, now 4\\)"):
        run("random", checkpoint=path, seed=4)


def test_a_search_of_infeasible_archs_alone_has_no_finalist() -> None:
    result = run("random", evaluations=1, initial=[SPACE.largest()])
    assert [row.feasible for row in result.evaluated] == [False]
    assert result.front == result.finalists == ()


def test_cut_off_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = run("random", evaluations=5).to_json(tmp_path / "search.json")
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match="is cut off or no JSON"):
        SearchResult.from_json(path)
    path.write_text("{}")
    with pytest.raises(InputError, match="is not a tutelage-search-1 file"):
        SearchResult.from_json(path)
    damaged = json.loads(text)
    damaged["evaluated"][1]["measured"]["error"] = "low"
    path.write_text(json.dumps(damaged))
    with pytest.raises(InputError, match=r"damaged at evaluated\.1\.measured\.error"):
        SearchResult.from_json(path)
    damaged = {**json.loads(text), "front": [99]}
    path.write_text(json.dumps(damaged))
    with pytest.raises(InputError, match="names architectures it does not hold"):
        SearchResult.from_json(path)
    with pytest.raises(InputError, match="cannot be read"):
        SearchResult.from_json(tmp_path / "none.json")


def test_several_devices_each_with_its_budget() -> None:
    two = [*objectives(), Objective(PHONE, "min", phone_ms)]
    result = search(SPACE, two, {HOST: 5.0, PHONE: 30.0}, strategy="random", evaluations=20, num_classes=4)
    assert len(result.evaluated) == 20
    assert all(row.predicted[HOST] <= 5.0 and row.predicted[PHONE] <= 30.0 for row in result.evaluated)


def test_impossible_and_contradicting_bounds() -> None:
    with pytest.raises(InfeasibleBudgetError, match="params"):
        search(SPACE, objectives(), {"params": 1e5}, evaluations=5)
    with pytest.raises(InfeasibleBudgetError, match="latency_ms@host"):
        search(SPACE, objectives(), {HOST: 0.5}, evaluations=5)
    with pytest.raises(InputError, match="bound on 'latency_ms@watch'"):
        search(SPACE, objectives(), {"latency_ms@watch": 5.0}, evaluations=5)
    with pytest.raises(InputError, match="bound macs = -1"):
        search(SPACE, objectives(), {"macs": -1.0}, evaluations=5)
    with pytest.raises(InputError, match="unknown strategy 'annealing'"):
        search(SPACE, objectives(), strategy="annealing", evaluations=5)
    with pytest.raises(InputError, match="all cheap"):
        search(SPACE, objectives()[1:], evaluations=5)


def test_a_score_that_is_not_a_number_is_named() -> None:
    with pytest.raises(InputError, match="objective error is nan"):
        search(SPACE, objectives(lambda archs: np.full(len(archs), np.nan)), strategy="random", evaluations=5)


def test_same_seed_same_search_other_seed_another() -> None:
    first, second, third = (run("random", seed=seed).evaluated for seed in (1, 1, 2))
    assert first == second
    assert first != third


def test_a_direction_of_max_is_the_mirror_of_min() -> None:
    best = [Objective("accuracy", "max", lambda archs: -error(archs), cheap=False), *objectives()[1:]]
    mirrored = search(SPACE, best, strategy="random", evaluations=30, seed=1)
    plain = search(SPACE, objectives(), strategy="random", evaluations=30, seed=1)
    assert mirrored.front == plain.front
    assert mirrored.hypervolume[-1][1] == pytest.approx(plain.hypervolume[-1][1])


def test_front_and_finalists_by_hand() -> None:
    points = np.array([[1.0, 5.0], [2.0, 3.0], [4.0, 1.0], [4.0, 4.0], [2.0, 3.0]])
    assert non_dominated(points).tolist() == [0, 1, 2]
    # To (6, 6): 5x1 + 4x2 + 2x2 = 17 squares; (2, 3) alone covers 12, (4, 1) adds 4, (1, 5) the last one.
    assert hypervolume(points, np.array([6.0, 6.0])) == pytest.approx(17)
    chosen, gains = choose_finalists(points[:3], np.array([6.0, 6.0]), 3)
    assert chosen == [1, 2, 0]
    np.testing.assert_allclose(gains, [12 / 17, 4 / 17, 1 / 17])


def test_hypervolume_never_falls_and_progress_counts_up() -> None:
    seen: list[tuple[int, int]] = []
    result = run("random", evaluations=110, progress=lambda done, total: seen.append((done, total)))
    volumes = [volume for _, volume in result.hypervolume]
    assert volumes == sorted(volumes)
    assert seen == [(3, 110), (53, 110), (103, 110), (110, 110)]


def test_a_file_that_says_asked_is_read_and_goes_on(tmp_path: Path) -> None:
    """Files of older versions call the evaluated archs `asked`; so may scripts."""
    path = tmp_path / "search.json"
    whole = run("random", checkpoint=path)
    data = json.loads(path.read_text())
    assert "asked" not in data
    data["asked"] = data.pop("evaluated")
    path.write_text(json.dumps(data))
    old = SearchResult.from_json(path)
    assert old == whole
    assert old.asked == whole.evaluated
    data["asked"] = data["asked"][:3]  # stopped after the first batch, the caller's own
    data |= {"front": [], "finalists": [], "finalist_gains": [], "hypervolume": []}
    path.write_text(json.dumps(data))
    assert [row.arch for row in run("random", checkpoint=path).evaluated] == [row.arch for row in whole.evaluated]
