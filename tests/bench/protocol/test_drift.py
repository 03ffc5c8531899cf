"""The drift of a host: what all models show at a time is taken out, at the pace of turns; one model's own is not."""

import numpy as np
import pytest

from tutelage.bench.protocol.drift import neighbour_medians, polish, slowdown, typical_log_ms

MODELS = np.log(np.array([0.5, 1.0, 2.0, 4.0, 0.7, 1.5, 3.0, 0.9]))


def shuffled(rng: np.random.Generator, rounds: int) -> np.ndarray:
    num = len(MODELS)
    return np.stack([turn * num + rng.permutation(num) for turn in range(rounds)], axis=1)


def test_no_drift_gives_the_medians_exactly():
    when = shuffled(np.random.default_rng(0), 9)
    table = np.repeat(MODELS[:, None], 9, axis=1)
    np.testing.assert_allclose(typical_log_ms(table, when), MODELS, atol=1e-12)


def test_slow_spells_inside_rounds_are_taken_out_where_whole_rounds_cannot():
    rng = np.random.default_rng(1)
    errors, by_rounds = [], []
    for _ in range(20):
        when = shuffled(rng, 12)
        spells = np.repeat(0.3 * (rng.random(12) < 0.4), len(MODELS))
        spells = np.roll(spells, 4)  # a spell begins in the middle of a round
        table = MODELS[:, None] + spells[when] + 0.01 * rng.standard_normal(when.shape)
        for found, into in ((typical_log_ms(table, when), errors), (polish(table), by_rounds)):
            into.append(np.std(found - MODELS))
    assert np.mean(errors) < 0.01
    assert np.mean(errors) < 0.5 * np.mean(by_rounds)


def test_a_model_of_its_own_is_not_bent_by_the_others():
    rng = np.random.default_rng(2)
    when = shuffled(rng, 15)
    table = np.repeat(MODELS[:, None], 15, axis=1)
    table[3] += 1.0  # always slow: it is its time, no drift
    np.testing.assert_allclose(typical_log_ms(table, when) - MODELS, np.eye(8)[3], atol=1e-9)


def test_one_model_alone_and_one_round_give_its_median():
    assert typical_log_ms(np.array([[1.0, 2.0, 9.0]]), np.array([[0, 1, 2]])).shape == (1,)
    np.testing.assert_array_equal(typical_log_ms(np.array([[1.5]]), np.array([[0]])), [1.5])


@pytest.mark.parametrize("num", range(1, 14))
def test_the_drift_of_a_turn_is_the_median_of_at_most_five_neighbours_on_each_side(num: int):
    """A second implementation, by lists; one turn alone has no neighbours, and no drift."""
    values = np.random.default_rng(num).standard_normal(num)
    found = neighbour_medians(values)
    for place in range(num):
        beside = [*values[max(0, place - 5) : place], *values[place + 1 : place + 6]]
        assert found[place] == pytest.approx(np.median(beside) if beside else 0.0)


def test_a_clock_that_falls_for_a_quarter_of_a_session_shows_in_full_and_single_turns_do_not() -> None:
    anchors = np.log(np.array([1.0, 2.0, 3.0]))[:, None] + np.zeros((1, 16))
    assert slowdown(anchors) == 0
    for first in (0, 4, 12):  # boosted at first, slow in between, throttled at the end
        fallen = anchors.copy()
        fallen[:, first : first + 4] += np.log(1.25)
        assert slowdown(fallen) == pytest.approx(0.25)
    disturbed = anchors.copy()
    disturbed[:, [3, 9]] += np.log(5)
    assert slowdown(disturbed) == 0
    assert slowdown(anchors[:, :1]) == 0
