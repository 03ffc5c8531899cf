"""Importances of parameters: what was made to decide comes first, and noise decides nothing."""

import numpy as np
import pytest

from tutelage.records import Arch
from tutelage.search.importances import LEAST_TRIALS, parameter_importances
from tutelage.search.result import SearchResult
from tutelage.search.spaces.space import SPACES


@pytest.fixture(scope="module")
def archs() -> list[Arch]:
    space = SPACES["mbconv_small_w1.0"]
    genes = space.random(80, np.random.default_rng(0))
    return list(space.decode(genes))


def test_what_decides_the_error_comes_first(archs):
    errors = [1.0 - 0.2 * arch.d[1] + 0.02 * arch.d[0] for arch in archs]
    found = parameter_importances(archs, errors)
    names = list(found)
    assert names[0] == "depth of stage 2"
    assert found[names[0]] > 5 * max(value for name, value in found.items() if "depth of stage 2" not in name)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert all(value >= 0 for value in found.values())
    assert found == parameter_importances(archs, errors)  # the same bits each time


def test_nothing_is_told_of_noise_of_few_trials_or_of_one_figure(archs):
    noise = np.random.default_rng(3).normal(size=len(archs)).tolist()
    assert parameter_importances(archs, noise) == {}
    assert parameter_importances(archs[: LEAST_TRIALS - 1], noise[: LEAST_TRIALS - 1]) == {}
    assert parameter_importances(archs, [0.5] * len(archs)) == {}
    assert parameter_importances(archs, [float("nan")] * len(archs)) == {}


def test_they_are_filed_with_the_search_in_their_order():
    result = SearchResult(space="s", strategy="random", seed=0, evaluations=1, objectives={"error": "min"},
                          cheap={"error": False}, bounds={}, importances={"b": 0.5, "a": 0.1})  # fmt: skip
    assert list(SearchResult.from_dict(result.to_dict()).importances) == ["b", "a"]
