"""Thresholds against brute force, a closed form, and the cases in which no cut is meant."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from tutelage.distill.thresholds import choose_threshold, choose_thresholds, youden_log_odds
from tutelage.records import InputError

RNG = np.random.default_rng


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _j(second: np.ndarray, positive: np.ndarray, cut: float) -> float:
    answer = second >= cut
    return float(answer[positive].mean() - answer[~positive].mean())


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_no_cut_between_scores_is_better(seed: int) -> None:
    rng = RNG(seed)
    positive = np.r_[True, False, rng.random(23) < 0.5]
    second = np.round(rng.random(25), 1) * 0.98 + 0.01
    if len(np.unique(second)) == 1:
        return
    cut = float(_sigmoid(np.array(youden_log_odds(second, positive))))
    levels = np.unique(second)
    best = max(_j(second, positive, middle) for middle in (levels[1:] + levels[:-1]) / 2)
    assert _j(second, positive, cut) == pytest.approx(best)


def test_of_equal_cuts_the_widest_gap_is_halved() -> None:
    second, positive = np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True])
    assert youden_log_odds(second, positive) == pytest.approx(0, abs=1e-9)  # log-odds of .2 and .8 are opposite


def test_the_cut_nears_the_closed_form_and_bagging_steadies_it() -> None:
    """Two normals of equal spread in log-odds, at -2 and 2, cross at 0, whatever the class shares."""
    plain, bagged = [], []
    for seed in range(60):
        rng = RNG(seed)
        positive = rng.random(300) < 0.75
        second = _sigmoid(np.where(positive, 2.0, -2.0) + rng.standard_normal(300) * 1.5)
        plain.append(youden_log_odds(second, positive))
        cut = choose_threshold(np.stack([1 - second, second], 1), positive.astype(int))
        bagged.append(np.log(cut / (1 - cut)))
    assert abs(np.mean(bagged)) < 0.2
    assert np.std(bagged) < 0.8 * np.std(plain)


def test_the_same_images_give_the_same_cut() -> None:
    second = RNG(3).random(80)
    probs, labels = np.stack([1 - second, second], 1), (RNG(4).random(80) < second).astype(int)
    assert choose_threshold(probs, labels) == choose_threshold(probs, labels)


def test_one_class_alone_leaves_the_cut_at_one_half() -> None:
    probs = np.array([[0.1, 0.9], [0.6, 0.4]])
    assert choose_threshold(probs, np.array([1, 1])) == 0.5
    with pytest.raises(InputError, match="two classes, got probabilities of shape \\(3, 4\\)"):
        choose_threshold(np.ones((3, 4)), np.array([0, 1, 1]))


def test_certain_answers_are_parted_too() -> None:
    probs = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert 0 < choose_threshold(probs, np.array([0, 0, 1, 1])) < 1


def test_thresholds_for_labels_maximise_f1() -> None:
    rng = RNG(7)
    truth = (rng.random((80, 2)) < 0.3).astype(float)
    scores = np.round(truth * 0.2 + rng.random((80, 2)) * 0.8, 2)
    for k, cut in enumerate(choose_thresholds(scores, truth)):
        best = max(metrics.f1_score(truth[:, k], scores[:, k] >= c) for c in np.linspace(0, 1, 201))
        assert metrics.f1_score(truth[:, k], scores[:, k] >= cut) == pytest.approx(best)
    assert choose_thresholds(scores, np.zeros((80, 2))) == (0.5, 0.5)
