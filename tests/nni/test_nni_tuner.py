"""NNI's TPE as a strategy: bounds kept, nothing asked twice, resumed to the same end, better than chance."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tutelage.records import Arch
from tutelage.search.loop import Objective, SearchResult, search
from tutelage.search.spaces.space import SPACES, Space

SPACE = SPACES["ofa_mbv3_w0.75"].with_resolutions((32,))
BOUND = 1.8e6
Floats = NDArray[np.float64]


def error(archs: Sequence[Arch]) -> Floats:
    """Separable over the genes, so that what TPE can know is all there is: kernels of 7 and small expands are good."""
    return np.array([1 - sum(np.array(a.ks) == 7) / 20 + sum(a.e) / 240 for a in archs])


def run(strategy: str, evaluations: int = 60, seed: int = 0, checkpoint: Path | None = None) -> SearchResult:
    objectives = [Objective("error", "min", error, cheap=False), Objective("macs")]
    return search(
        SPACE, objectives, {"params": BOUND}, strategy=strategy, evaluations=evaluations, seed=seed,
        num_classes=2, in_channels=1, checkpoint=checkpoint,
    )  # fmt: skip


def test_bounds_are_kept_and_nothing_is_asked_twice() -> None:
    result = run("nni-tpe")
    assert len({row.arch for row in result.evaluated}) == 60
    assert all(row.counted["params"] <= BOUND for row in result.evaluated)


def test_it_finds_better_than_chance() -> None:
    best = {
        strategy: np.mean(
            [min(row.measured["error"] for row in run(strategy, seed=seed).evaluated) for seed in range(3)]
        )
        for strategy in ("nni-tpe", "random")
    }
    assert best["nni-tpe"] < best["random"]


def test_a_search_cut_short_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = run("nni-tpe")
    path = tmp_path / "search.json"
    calls = 0

    def stops(archs: Sequence[Arch]) -> Floats:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise KeyboardInterrupt
        return error(archs)

    objectives = [Objective("error", "min", stops, cheap=False), Objective("macs")]
    with pytest.raises(KeyboardInterrupt):
        search(
            SPACE, objectives, {"params": BOUND}, strategy="nni-tpe", evaluations=60, seed=0,
            num_classes=2, in_channels=1, checkpoint=path,
        )  # fmt: skip
    assert 0 < len(SearchResult.from_json(path).evaluated) < 60
    again = run("nni-tpe", checkpoint=path)
    assert [row.arch for row in again.evaluated] == [row.arch for row in whole.evaluated]


@pytest.mark.parametrize("num_feasible", [1, 2, 7, 25, 32])
def test_it_ends_when_every_feasible_arch_is_evaluated(num_feasible: int) -> None:
    """Of 32 archs 20 are a first batch, and the tuner then suggests each of the others before it has none left."""
    narrow = Space(
        "ofa_mbv3_w1.0", SPACES["ofa_mbv3_w1.0"].family, (3,), (3,), (2, 3), SPACES["ofa_mbv3_w1.0"].widths, 2, (32,)
    )
    objectives = [Objective("error", "min", error, cheap=False), Objective("macs")]
    every = search(narrow, objectives, strategy="random", evaluations=32).evaluated
    macs = sorted(row.counted["macs"] for row in every)[num_feasible - 1]
    result = search(narrow, objectives, {"macs": macs}, strategy="nni-tpe", evaluations=100)
    assert len({row.arch for row in result.evaluated}) == len(result.evaluated) == num_feasible
    assert result.ended == f"the feasible set is exhausted after {num_feasible} architectures"
