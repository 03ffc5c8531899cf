"""A search with several evaluations going on: no barrier, its order recorded and replayed, interrupted and resumed."""

from __future__ import annotations

import heapq
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tutelage.records import Arch, InputError
from tutelage.search.loop import Objective, SearchResult
from tutelage.search.objectives import Scores
from tutelage.search.parallel import check_replay, evaluate, search_in_parallel
from tutelage.search.replies import Evaluation, Failed, Reply
from tutelage.search.spaces.space import SPACES

SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((64,))


def error(archs: Sequence[Arch]) -> NDArray[np.float64]:
    return np.array([1 - sum(a.e) / 240 - sum(a.ks) / 470 + 0.02 * np.sin(sum(a.ks[:8])) for a in archs])


def noisy(archs: Sequence[Arch], before: Sequence[int] = ()) -> Scores:
    """Score with a noise that depends on the arch and on how often it was scored, and on nothing else."""
    times = list(before) or [0] * len(archs)
    seeds = [int(arch.id[:8], 16) + number for arch, number in zip(archs, times, strict=True)]
    noise = np.array([np.random.default_rng(seed).normal(0, 0.02) for seed in seeds])
    return Scores(error(archs) + noise, np.full(len(archs), 0.02))


GOALS = [Objective("error", "min", noisy, cheap=False, again=noisy, most=3), Objective("params")]


class Delayed:
    """Evaluates at once and replies after delays that are drawn, on a clock of its own."""

    def __init__(self, seed: int, die_after: int | None = None) -> None:
        self.rng, self.now, self.left = np.random.default_rng(seed), 0.0, die_after
        self.due: list[tuple[float, int, Evaluation]] = []
        self.most, self.going_at_reply = 0, list[int]()

    def submit(self, evaluation: Evaluation) -> None:
        heapq.heappush(self.due, (self.now + self.rng.exponential(), evaluation.number, evaluation))
        self.most = max(self.most, len(self.due))

    def next(self) -> tuple[int, Reply]:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        self.going_at_reply.append(len(self.due))
        self.now, number, evaluation = heapq.heappop(self.due)
        return number, evaluate(GOALS, evaluation)


def run(scorer: Any = None, strategy: str = "default", evaluations: int = 60, **changes: Any) -> SearchResult:
    return search_in_parallel(
        SPACE, GOALS, {"params": 4e6}, slots=5, scorer=scorer, strategy=strategy, evaluations=evaluations, seed=3,
        initial=[SPACE.smallest(), SPACE.largest()], num_classes=4, in_channels=1, **changes,
    )  # fmt: skip


def file_of(result: SearchResult, folder: Path) -> dict[str, Any]:
    """Give what the result's file holds but for the seconds."""
    data: dict[str, Any] = json.loads(result.to_json(folder / "search.json").read_text())
    assert data.pop("search_seconds") > 0
    data.pop("scoring_seconds")
    return data


@pytest.mark.parametrize("strategy", ["default", "nsga2"])
def test_a_recorded_order_is_replayed_to_the_same_file_whatever_the_delays(strategy: str, tmp_path: Path) -> None:
    recorded = run(Delayed(1), strategy)
    first, second = (file_of(one, tmp_path) for one in (recorded, run(Delayed(2), strategy)))
    assert first["order"] != second["order"]
    assert first["evaluated"] != second["evaluated"]
    for seed in (2, 7):
        assert file_of(run(Delayed(seed), strategy, replay=recorded), tmp_path) == first
    assert sorted(first["order"]) == list(range(60))
    archs = [json.dumps(row["arch"]) for row in first["evaluated"]]
    assert len(set(archs)) == len(archs)
    # The last .15 of 60 went to contenders, none of them twice at a time; where none was free, to a new one.
    again = sum(len(row["again"]) for row in first["evaluated"])
    assert 5 <= again <= 9
    assert again + len(archs) == 60
    assert all(len(row["again"]) <= 2 for row in first["evaluated"])


def test_no_reply_is_waited_for_while_a_slot_is_free() -> None:
    scorer = Delayed(1)
    run(scorer)
    assert scorer.most == 5
    # But for the start, before anything is known, and the end, after everything was asked.
    assert set(scorer.going_at_reply[2:-4]) == {5}


def test_interrupted_and_called_again_it_goes_on_in_its_order(tmp_path: Path) -> None:
    record, undisturbed = tmp_path / "replies.jsonl", run(Delayed(1))
    whole = file_of(undisturbed, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(Delayed(1, die_after=37), record=record)
    with record.open("a") as file:
        file.write('{"number": 4')  # torn by a kill
    scorer = Delayed(9)
    resumed = run(scorer, record=record)
    assert resumed.order[:37] == tuple(whole["order"][:37])
    assert len(scorer.going_at_reply) == 23  # what was recorded is not scored again
    assert sorted(resumed.order) == list(range(60))
    assert file_of(run(Delayed(5), replay=resumed), tmp_path) == file_of(resumed, tmp_path)
    # In the order of the whole one it ends as that did.
    record.unlink()
    with pytest.raises(KeyboardInterrupt):
        run(Delayed(1, die_after=37), record=record)
    assert file_of(run(Delayed(9), record=record, replay=undisturbed), tmp_path) == whole


def test_a_result_or_a_record_of_another_search_is_refused(tmp_path: Path) -> None:
    found = run(evaluations=5, record=tmp_path / "replies.jsonl")
    with pytest.raises(InputError, match="is of another search"):
        run(evaluations=6, record=tmp_path / "replies.jsonl")
    with pytest.raises(InputError, match="the replayed search has evaluations 5, this one has 6"):
        run(evaluations=6, replay=found)
    with pytest.raises(InputError, match="the replayed search has num_classes 4, this one has 5"):
        check_replay(
            found, SPACE, GOALS, {"params": 4e6}, slots=5, evaluations=5, seed=3,
            initial=[SPACE.smallest(), SPACE.largest()], num_classes=5, in_channels=1,
        )  # fmt: skip
    with pytest.raises(InputError, match="holds no order"):
        run(evaluations=5, replay=found.model_copy(update={"order": ()}))
    with pytest.raises(InputError, match="went on otherwise than its file says"):
        run(evaluations=5, replay=found.model_copy(update={"order": (40,)}))


def test_a_replay_that_scores_otherwise_says_so(caplog: pytest.LogCaptureFixture) -> None:
    found = run(evaluations=5)
    run(evaluations=5, replay=found)
    assert not caplog.records
    run(evaluations=5, replay=found.model_copy(update={"evaluated": found.evaluated[::-1]}))
    assert "came to other architectures than its file holds" in caplog.text


class Failing(Delayed):
    """Fails some evaluations, by their numbers."""

    def __init__(self, seed: int, numbers: set[int], die_after: int | None = None) -> None:
        super().__init__(seed, die_after)
        self.numbers = numbers

    def next(self) -> tuple[int, Any]:
        number, reply = super().next()
        return number, Failed(f"evaluation {number} failed 3 times") if number in self.numbers else reply


def test_an_evaluation_that_failed_is_left_out_and_the_search_goes_on(tmp_path: Path) -> None:
    numbers, record = {0, 7, 30, 55}, tmp_path / "replies.jsonl"
    found = run(Failing(1, numbers), "nsga2")
    whole = file_of(found, tmp_path)
    assert found.failed == {number: f"evaluation {number} failed 3 times" for number in numbers}
    assert sorted(found.order) == list(range(60))
    again = sum(len(row.again) for row in found.evaluated)
    assert len(found.evaluated) + again == 60 - len(numbers)
    assert SPACE.smallest() not in [row.arch for row in found.evaluated]  # nor is what failed asked for again
    read = SearchResult.from_json(tmp_path / "search.json")
    assert read.failed == found.failed
    # A replay leaves the same out, although nothing fails there.
    assert file_of(run(Delayed(5), "nsga2", replay=read), tmp_path) == whole
    with pytest.raises(KeyboardInterrupt):
        run(Failing(1, numbers, die_after=37), "nsga2", record=record)
    assert file_of(run(Failing(9, numbers), "nsga2", record=record, replay=read), tmp_path) == whole


def test_what_failed_is_not_proposed_again() -> None:
    class Asked(Failing):
        archs: tuple[str, ...] = ()

        def submit(self, evaluation: Evaluation) -> None:
            self.archs += (evaluation.arch.id,) if evaluation.before is None else ()
            super().submit(evaluation)

    scorer = Asked(1, {2, 3})
    found = search_in_parallel(
        SPACE, GOALS, {"params": 1.001 * float(_params(SPACE.smallest())[0])}, slots=2, scorer=scorer,
        evaluations=30, strategy="random", num_classes=4, in_channels=1,
    )  # fmt: skip
    assert len(found.failed) == 2
    assert len(scorer.archs) == len(set(scorer.archs)) == len(found.evaluated) + 2


def test_a_search_ends_where_many_evaluations_fail_and_tries_them_again(tmp_path: Path) -> None:
    record = tmp_path / "replies.jsonl"
    with pytest.raises(
        InputError, match=r"7 of \d+ evaluations failed, the last one: evaluation \d+ failed 3 times: m"
    ):
        run(Failing(1, set(range(20, 60))), "nsga2", record=record)
    with pytest.raises(InputError, match="2 of 2 evaluations failed"):
        run(Failing(1, {0, 1}), "nsga2", evaluations=2, record=tmp_path / "few.jsonl")
    for path, evaluations in ((record, 60), (tmp_path / "few.jsonl", 2)):
        found = run(Delayed(1), "nsga2", evaluations=evaluations, record=path)
        assert not found.failed
        assert len(found.order) == evaluations


def test_a_feasible_set_that_runs_out_ends_the_search() -> None:
    params = float(_params(SPACE.smallest())[0])
    found = search_in_parallel(
        SPACE, [Objective("error", "min", error, cheap=False), Objective("params")], {"params": params},
        slots=3, evaluations=50, strategy="random", num_classes=4, in_channels=1,
    )  # fmt: skip
    assert "after" in found.ended
    assert 1 <= len(found.evaluated) < 50
    assert {row.counted["params"] for row in found.evaluated} == {params}


def _params(arch: Arch) -> NDArray[np.int64]:
    from tutelage.search.costs.counts import count

    return count([arch], num_classes=4, in_channels=1).params
