"""Winners of a search: measured until each slice has one, never the same twice; where one is missing it is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tutelage.bench.latency.sessions import correction_of
from tutelage.pipeline.device import budgets_ms
from tutelage.pipeline.objectives import Subnets, read_objectives, scored_name
from tutelage.pipeline.recipe import load_recipe
from tutelage.pipeline.sections import DeviceSection
from tutelage.pipeline.stages.winners import ChosenWinners, choose_winners, slicing_of
from tutelage.records import Arch, Budget, InfeasibleBudgetError, InputError
from tutelage.search.costs.counts import count
from tutelage.search.family import Slicing
from tutelage.search.loop import search
from tutelage.search.objectives import Objective, Scores
from tutelage.search.result import SearchResult
from tutelage.search.spaces.space import SPACES

SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((32,))
MS = "latency_ms@box"


def ms(archs: Sequence[Arch]) -> Any:
    return count(list(archs), 4, 1).macs / 1e6


class Box:
    """A device within reach whose predictions are the mean of the upper ends that the search weighed."""

    name, reachable, budgets_ms = "box", True, ()
    profile = SimpleNamespace(precision="fp32")
    model = SimpleNamespace(
        predict=lambda archs: (ms(archs) / 1.1,),
        correction=lambda archs, times: correction_of(ms(archs) / 1.1, 0.03, times, 0.03),
    )


class Clock:
    """Measures what is predicted, but for those that `slower` says; keeps what it was given."""

    def __init__(self, slower: Callable[[Arch], float] = lambda arch: 1.0) -> None:
        self.slower, self.rounds = slower, list[list[Arch]]()

    def __call__(self, archs: Sequence[Arch]) -> Any:
        self.rounds.append(list(archs))
        times = [float(value) * self.slower(arch) for arch, value in zip(archs, ms(archs) / 1.1, strict=True)]
        return {
            "box": {
                arch.id: {"p50_ms": time, "anchored_ms": time, "drift": 0.0}
                for arch, time in zip(archs, times, strict=True)
            }
        }


def searched(noise: float = 0.0, bound: float = 9.0, num: int = 40, initial: Sequence[Arch] = ()) -> SearchResult:
    """Search 40 random subnets; the wider the more accurate."""

    def error(archs: Sequence[Arch]) -> Scores:
        return Scores(np.array([0.5 - sum(a.e) / 400 for a in archs]), np.full(len(archs), noise))

    goals = [Objective("error", fn=error, cheap=False), Objective(MS, fn=ms)]
    settings: dict[str, Any] = {"strategy": "random", "evaluations": num, "num_classes": 4, "in_channels": 1}
    return search(SPACE, goals, {MS: bound}, initial=initial, **settings)


@pytest.fixture(scope="module")
def result() -> SearchResult:
    return searched()


def chosen(result: SearchResult, slicing: Slicing, clock: Clock, bound: float = 9.0) -> ChosenWinners:
    box: Any = Box()
    return choose_winners(result, SPACE, [box], Budget(latency_ms={"box": bound}), slicing, clock)


def test_a_family_has_the_most_accurate_of_each_slice_cheapest_first(result: SearchResult) -> None:
    found = chosen(result, Slicing(cost=MS, number=4), Clock())
    assert len(found.winners) >= 3
    assert len({winner.arch for winner in found.winners}) == len(found.winners)
    for winner in found.winners:
        assert winner.slice is not None
        inside = [row for row in result.evaluated if winner.slice.low < row.value(MS) <= winner.slice.high]
        assert winner.error <= min(row.measured["error"] for row in inside)
    assert [w.slice.high for w in found.winners if w.slice] == sorted(w.slice.high for w in found.winners if w.slice)
    errors = [winner.error for winner in found.winners]
    assert errors == sorted(errors, reverse=True)  # exact scores: what costs more is better, or it is no winner
    best = min(row.measured["error"] for row in result.evaluated if row.feasible)
    assert errors[-1] == best


def test_what_the_supernet_trained_most_leaves_no_slice_empty() -> None:
    """The smallest subnet, by inherited weights the best of all, is a winner beside others, and the run says why."""
    smallest = SPACE.smallest()

    def error(archs: Sequence[Arch]) -> Scores:
        return Scores(np.array([0.1 if a == smallest else 0.5 - sum(a.e) / 400 for a in archs]), np.zeros(len(archs)))

    settings: dict[str, Any] = {"strategy": "random", "evaluations": 40, "num_classes": 4, "in_channels": 1}
    goals = [Objective("error", fn=error, cheap=False), Objective(MS, fn=ms)]
    result = search(SPACE, goals, {MS: 9.0}, initial=[smallest], **settings)
    box: Any = Box()
    budget, slicing = Budget(latency_ms={"box": 9.0}), Slicing(cost=MS, number=4)
    (alone,) = choose_winners(result, SPACE, [box], budget, slicing, Clock()).winners
    assert alone.arch == smallest
    found = choose_winners(result, SPACE, [box], budget, slicing, Clock(), {smallest})
    assert len(found.winners) >= 3
    assert found.winners[0].arch == smallest
    names = ", ".join(winner.name for winner in found.winners[1:])
    assert [winner.flattered for winner in found.winners] == [True, *[False] * (len(found.winners) - 1)]
    assert any(note.startswith(f"{names}: surely less accurate with inherited") for note in found.notes)


def test_one_winner_is_the_most_accurate_within_the_budget(result: SearchResult) -> None:
    (winner,) = chosen(result, Slicing(cost=MS, number=1), Clock()).winners
    assert winner.error == min(row.measured["error"] for row in result.evaluated if row.feasible)


def test_finalists_that_break_the_budget_are_followed_by_the_next_ones(result: SearchResult) -> None:
    """Only the eleventh of them holds: three are not the end."""
    order = sorted((row for row in result.evaluated if row.feasible), key=lambda row: row.measured["error"])
    holds = order[10].arch
    clock = Clock(lambda arch: 1.0 if arch == holds else 100.0)
    found = chosen(result, Slicing(cost=MS, number=1), clock)
    assert [winner.arch for winner in found.winners] == [holds]
    assert found.broke == found.finalists - 1 >= 10
    assert [len(archs) for archs in clock.rounds] == [2, 4, 8]
    assert len({arch for archs in clock.rounds for arch in archs}) == found.finalists  # none is measured twice


def test_finalists_that_are_slower_than_predicted_correct_what_the_next_ones_are_chosen_by(
    result: SearchResult,
) -> None:
    clock = Clock(lambda arch: 1.4)
    found = chosen(result, Slicing(cost=MS, number=1), clock)
    assert found.corrections["box"].factor == pytest.approx(1.4, rel=0.01)
    assert found.corrections["box"].num_nets == found.finalists
    assert len(clock.rounds) == 2
    assert all(float(ms([arch])[0]) * 1.39 <= 9.0 for archs in clock.rounds[1:] for arch in archs)
    held = [row for row in result.evaluated if row.value(MS) * 1.4 <= 9.0]
    (winner,) = found.winners
    assert winner.error == min(row.measured["error"] for row in held)
    assert winner.predicted_ms["box"] == pytest.approx(float(ms([winner.arch])[0]) / 1.1)  # as the search had it


def test_finalists_that_are_faster_than_predicted_bring_others_within_the_budget() -> None:
    """An architecture beyond the budget, as predicted, is the most accurate one that keeps it."""
    pool = SPACE.decode(SPACE.random(2000, np.random.default_rng(7)))
    beyond = max((arch for arch in pool if 10.0 < float(ms([arch])[0]) < 11.0), key=lambda arch: sum(arch.e))
    result = searched(initial=[beyond])
    assert not result.evaluated[0].feasible
    (winner,) = chosen(result, Slicing(cost=MS, number=1), Clock(lambda arch: 0.7)).winners
    assert winner.arch == beyond
    (kept,) = chosen(result, Slicing(cost=MS, number=1), Clock()).winners
    assert kept.arch != beyond


def test_where_none_is_left_the_run_ends_and_counts_them(result: SearchResult) -> None:
    num = sum(row.feasible for row in result.evaluated)
    with pytest.raises(InfeasibleBudgetError, match=rf"all {num} finalists break .* \(box 9 ms\)"):
        chosen(result, Slicing(cost=MS, number=1), Clock(lambda arch: 100.0))


def test_each_of_several_budgets_has_its_winner_and_holds_by_measurement(result: SearchResult) -> None:
    limits = (5.5, 7.0, 9.0)
    found = chosen(result, Slicing(cost=MS, number=3, limits=limits), Clock(lambda arch: 1.2))
    for winner in found.winners:
        assert winner.slice is not None
        assert winner.measured_ms["box"] <= winner.slice.high
    assert len(found.winners) + sum(note.startswith("No winner for") for note in found.notes) == 3


def test_a_slice_without_a_winner_says_why() -> None:
    found = chosen(searched(), Slicing(cost=MS, number=2, limits=(0.5, 9.0)), Clock())
    assert found.notes == (f"No winner for {MS} up to 0.5: no architecture of it was evaluated.",)
    dearest = max(row.value(MS) for row in searched().evaluated)
    noisy = chosen(searched(noise=0.2), Slicing(cost=MS, number=2, limits=(dearest * 0.999, dearest)), Clock())
    (winner,) = noisy.winners
    assert f"is no different from {winner.name} beyond the noise" in noisy.notes[0]


def test_a_winner_that_the_search_started_from_is_said_to_be_one() -> None:
    found = chosen(searched(num=3, initial=[SPACE.smallest()]), Slicing(cost=MS, number=4), Clock())
    winner = next(one for one in found.winners if one.arch == SPACE.smallest())
    assert winner.seed_name == "the smallest subnet"
    assert f"{winner.name} is the smallest subnet, from which the search started" in " ".join(found.notes)
    assert all(not one.seed_name for one in found.winners if one.arch != SPACE.smallest())


def test_errors_that_do_not_tell_architectures_apart_are_said_to(result: SearchResult) -> None:
    flat = chosen(searched(noise=0.2), Slicing(cost=MS, number=1), Clock())
    assert "architectures are within the noise of the least error" in flat.notes[-1]
    assert not any("within the noise" in note for note in chosen(result, Slicing(cost=MS), Clock()).notes)


def test_budgets_are_read_in_order_and_each_has_a_winner() -> None:
    model: Any = SimpleNamespace(predict=lambda archs: (np.array([1.0, 5.0]),))
    assert budgets_ms(DeviceSection(name="b", max_latency="1ms, 25%,4ms"), model, SPACE) == (1.0, 2.0, 4.0)
    assert budgets_ms(DeviceSection(name="b"), model, SPACE) == ()
    with pytest.raises(InputError, match="is 4 ms, 2 ms: give the budgets in ascending order, each once"):
        budgets_ms(DeviceSection(name="b", max_latency="4ms,25%"), model, SPACE)
    for wrong in ("4ms,1ms", "1ms,1ms", "50%,25%"):  # known without the device
        with pytest.raises(ValidationError, match=f"'{wrong}': give the budgets in ascending order"):
            DeviceSection(name="b", max_latency=wrong)
    several = ["devices.0.max_latency='1ms,2ms,4ms'"]
    assert load_recipe("demo", [*several, "search.winners=null"]).num_winners == 3
    with pytest.raises(InputError, match=r"search\.winners = 5, and device host-ort-64px has 3 latency budgets"):
        load_recipe("demo", [*several, "search.winners=5"])
    with pytest.raises(InputError, match="winners are spread over one: give one of them a single max_latency"):
        load_recipe("demo", ["devices.0.max_latency='1ms,2ms'", "devices.1={name: b, max_latency: '1ms,2ms'}"])


def test_winners_are_spread_over_a_latency_else_another_cost() -> None:
    recipe = load_recipe("demo", ["search.winners=3"])
    ctx: Any = SimpleNamespace(recipe=recipe)
    box: Any = Box()
    assert slicing_of(ctx, [box], ("error", "size_bytes", MS)) == Slicing(cost=MS, number=3)
    assert slicing_of(ctx, [], ("auc", "size_bytes")) == Slicing(cost="size_bytes", number=3)
    limited: Any = SimpleNamespace(name="far", budgets_ms=(1.0, 2.0), profile=SimpleNamespace(precision="fp32"))
    assert slicing_of(ctx, [box, limited], ("error", MS)).limits == (1.0, 2.0)


def test_loss_and_auc_can_be_ranked_by() -> None:
    for name in ("loss", "auc"):
        recipe = load_recipe("demo", [f"search.objectives=[{name}, latency_ms@host-ort-64px]"])
        assert scored_name(read_objectives(recipe)).figure == name
    with pytest.raises(InputError, match="one of error, error@int8, loss, auc"):
        read_objectives(load_recipe("demo", ["search.objectives=[loss, auc]"]))


def test_the_parts_of_the_validation_images_are_disjoint_and_alike() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 12])
    dataset = SimpleNamespace(labels=labels, indices=lambda name: np.arange(102))
    subnets = object.__new__(Subnets)
    vars(subnets).update(_here=SimpleNamespace(dataset=dataset), _seed=0, _num_images=30)
    parts = [part for part in subnets.parts if part is not None]
    assert sorted(np.concatenate(parts)) == list(range(102))
    assert [len(part) for part in parts] == [34, 34, 34]
    assert all(np.bincount(labels[part]).tolist() == [20, 10, 4] for part in parts)
    whole = object.__new__(Subnets)
    vars(whole).update(_num_images=None)
    assert whole.parts == [None]
