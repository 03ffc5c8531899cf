"""Thresholds against brute force, a closed form, and the cases in which no cut is meant."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from tutelage.distill.evaluation.thresholds import choose_threshold, choose_thresholds, youden_log_odds
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
    for seed in range(30):
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


def _best_youden(second: np.ndarray, positive: np.ndarray) -> float:
    """The middle, in log-odds, of the widest gap among the cuts of the largest J, by loops."""
    levels = np.unique(np.clip(second, 1e-7, 1 - 1e-7))
    odds = np.log(levels / (1 - levels))
    cuts = [((a + b) / 2, b - a) for a, b in pairwise(odds)]
    own = np.log(np.clip(second, 1e-7, 1 - 1e-7) / (1 - np.clip(second, 1e-7, 1 - 1e-7)))
    worth = [_j(own, positive, cut) for cut, _ in cuts]
    return max((round(j, 9), gap, cut) for j, (cut, gap) in zip(worth, cuts, strict=True))[2]


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_the_cut_is_the_middle_of_the_widest_best_gap(seed: int) -> None:
    rng = RNG(seed)
    positive, second = np.r_[True, False, rng.random(13) < 0.5], rng.random(15)
    second[rng.random(15) < 0.2] = 0.0  # equal scores, at the edge of what log-odds take
    assert youden_log_odds(second, positive) == pytest.approx(_best_youden(second, positive))


def test_the_cut_is_the_mean_log_odds_of_two_hundred_resamples() -> None:
    rng = RNG(5)
    truth = np.array([1, 0, 0, 0, 0, 0])  # a third of the resamples miss the only positive, and are drawn again
    second = np.array([0.6, 0.7, 0.1, 0.2, 0.3, 0.4])
    found = []
    while len(found) < 200:
        drawn = rng.integers(0, 6, 6)
        if len(set(truth[drawn])) == 2:
            found.append(_best_youden(second[drawn], truth[drawn] == 1))
    cut = choose_threshold(np.stack([1 - second, second], 1), truth, seed=5)
    assert np.log(cut / (1 - cut)) == pytest.approx(np.mean(found))
    assert choose_threshold(np.stack([1 - second, second], 1), truth) != cut  # seed 0
    tensors = torch.tensor(np.stack([1 - second, second], 1), requires_grad=True), torch.tensor(truth)
    assert choose_threshold(*tensors, seed=5) == cut


def test_shapes_that_are_no_two_classes_are_refused() -> None:
    for shape in ((3,), (3, 1), (3, 3), (3, 2, 2)):
        with pytest.raises(InputError, match="a threshold is for two classes"):
            choose_threshold(np.ones(shape), np.array([0, 1, 1]))


def _value(scores: np.ndarray, truth: np.ndarray, cut: float, by: str) -> float:
    answer, positive = scores >= cut, truth > 0.5
    hits, alarms = (answer & positive).sum(), (answer & ~positive).sum()
    if by == "youden":
        return float(hits / positive.sum() - alarms / (~positive).sum())
    return float(2 * hits / (answer.sum() + positive.sum()))


@pytest.mark.parametrize("by", ["f1", "youden"])
def test_a_cut_of_a_label_is_halfway_below_the_lowest_best_score(by: str) -> None:
    """Of all scores as cuts, the highest of the best ones; halfway to the next lower score, where there is one.

    Youden's J is a difference of two ratios, so of equal ones the last bit of a float chooses.
    """
    for seed in range(12):
        rng = RNG(seed)
        truth = (rng.random((12, 3)) < 0.4).astype(float)
        truth[:2] = [[0, 0, 0], [1, 1, 1]]
        truth[5, 0] = np.nan  # unknown: its score is none to cut at
        scores = np.round(rng.random((12, 3)), 1)
        for k, cut in enumerate(choose_thresholds(scores, truth, by)):
            known = np.isfinite(truth[:, k])
            levels = np.unique(scores[known, k])[::-1]
            values = [_value(scores[known, k], truth[known, k], level, by) for level in levels]
            best = np.flatnonzero(np.array(values) >= max(values) - 1e-9)[: 1 if by == "f1" else None]
            halfway = (levels[best] + levels[np.minimum(best + 1, len(levels) - 1)]) / 2
            assert np.abs(halfway - cut).min() < 1e-9
    assert choose_thresholds(scores, truth) == choose_thresholds(scores, truth, "f1")


def test_a_label_of_one_kind_is_cut_at_one_half_and_the_next_is_not() -> None:
    scores = np.array([[0.1, 0.2, 0.3], [0.2, 0.9, 0.1]] * 2)
    truth = np.array([[1, 0, 0], [1, 1, 0]] * 2)
    assert choose_thresholds(scores, truth) == (0.5, pytest.approx(0.55), 0.5)
    # Both answers "yes": the lowest score itself is the cut.
    assert choose_thresholds(scores[:2, :1], np.array([[1], [0]])) == (pytest.approx(0.1),)
    with pytest.raises(InputError, match="chosen by f1 or youden, not 'accuracy'"):
        choose_thresholds(scores, truth, "accuracy")


def test_thresholds_for_labels_maximise_f1() -> None:
    rng = RNG(7)
    truth = (rng.random((80, 2)) < 0.3).astype(float)
    scores = np.round(truth * 0.2 + rng.random((80, 2)) * 0.8, 2)
    for k, cut in enumerate(choose_thresholds(scores, truth)):
        best = max(metrics.f1_score(truth[:, k], scores[:, k] >= c) for c in np.unique(scores[:, k]))
        assert metrics.f1_score(truth[:, k], scores[:, k] >= cut) == pytest.approx(best)
    assert choose_thresholds(scores, np.zeros((80, 2))) == (0.5, 0.5)
