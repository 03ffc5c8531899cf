"""Evaluation against scikit-learn, brute force and closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn import metrics

from tutelage.distill.evaluation import statistics
from tutelage.distill.evaluation.evaluate import evaluate, predict_logits, probabilities
from tutelage.distill.evaluation.statistics import (
    auc,
    average_precision,
    holm,
    interval,
    midranks,
    resample_groups,
    weighted_auc,
)
from tutelage.records import InputError

RNG = np.random.default_rng


def two_class(num: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = RNG(seed)
    labels = rng.integers(0, 2, num)
    second = np.clip(np.round(0.5 + 0.2 * (labels - 0.5) + 0.2 * rng.standard_normal(num), 2), 0, 1)  # many ties
    return np.stack([1 - second, second], 1), labels


@given(st.integers(0, 10_000), st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_auc_is_the_share_of_right_pairs(seed: int, levels: int) -> None:
    rng = RNG(seed)
    scores, positive = rng.integers(0, levels, 20).astype(float), rng.random(20) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    if pairs:
        assert auc(scores, positive) == pytest.approx(np.mean(pairs))
        assert average_precision(scores, positive) == pytest.approx(metrics.average_precision_score(positive, scores))
    else:
        assert math.isnan(auc(scores, positive))


def test_a_weight_is_a_repetition() -> None:
    probs, labels = two_class(60)
    weights, _ = resample_groups(None, 60, 40, RNG(1))
    areas = weighted_auc(probs[:, 1], labels == 1, weights)
    for row, area in zip(weights.astype(int), areas, strict=True):
        again = np.repeat(np.arange(60), row)
        assert area == pytest.approx(metrics.roc_auc_score(labels[again], probs[again, 1]))


def image_by_image(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Give AUCs by cumulated weights over all score levels, one weight an image: as they were computed before."""
    order = np.argsort(scores, kind="stable")
    ordered, is_positive, weights = scores[order], positive[order], weights[:, order].astype(np.float64)
    starts = np.flatnonzero(np.r_[True, np.diff(ordered) != 0])
    pos, neg = (np.add.reduceat(weights * kind, starts, axis=1) for kind in (is_positive, ~is_positive))
    below = np.cumsum(neg, axis=1) - neg / 2
    with np.errstate(invalid="ignore"):
        return (pos * below).sum(1) / (pos.sum(1) * neg.sum(1))


@given(st.integers(0, 10_000), st.sampled_from([2, 7, 1000]), st.sampled_from([0.03, 0.5, 0.9]))
@settings(max_examples=40, deadline=None)
def test_weights_of_groups_give_the_same_bits_as_those_of_images(seed: int, levels: int, prevalence: float) -> None:
    rng = RNG(seed)
    scores, positive = rng.integers(0, levels, 80) / levels, rng.random(80) < prevalence
    groups = rng.integers(0, 25, 80)
    counts, index = resample_groups(groups, 80, 30, rng)
    expected = image_by_image(scores, positive, counts[:, index])
    np.testing.assert_array_equal(weighted_auc(scores, positive, counts, index), expected)


def test_the_intervals_of_a_seed_are_those_of_earlier_versions() -> None:
    """Computed as before, from one weight an image; multi-label with unknown labels, and groups."""
    rng = RNG(7)
    truth = (rng.random((120, 3)) < [0.1, 0.5, 0.8]).astype(float)
    truth[rng.random(truth.shape) < 0.1] = np.nan
    probs = np.clip(np.round(0.2 * np.nan_to_num(truth) + 0.8 * rng.random(truth.shape), 2), 0, 1)
    groups = np.array([f"p{n}" for n in rng.integers(0, 40, 120)])
    found = evaluate(probs, truth, groups, multi_label=True, bootstrap=60, seed=3)
    names, index = np.unique(groups, return_inverse=True)
    draws = RNG(3).integers(0, len(names), size=(60, len(names)))
    weights = np.stack([np.bincount(row, minlength=len(names)) for row in draws])[:, index]
    known = np.isfinite(truth)
    areas = [image_by_image(probs[at, k], truth[at, k] == 1, weights[:, at]) for k, at in enumerate(known.T)]
    assert (found.auc_lo, found.auc_hi) == interval(np.mean(areas, axis=0))
    right = ((probs >= 0.5) == (truth == 1)) & known
    assert (found.accuracy_lo, found.accuracy_hi) == interval(weights @ right.sum(1) / (weights @ known.sum(1)))


@pytest.mark.parametrize("block", [1, 100])
def test_blocks_of_resamples_change_no_auc(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    probs, labels = two_class(30)
    weights, _ = resample_groups(None, 30, 11, RNG(1))
    whole = weighted_auc(probs[:, 1], labels == 1, weights)
    monkeypatch.setattr(statistics, "_BLOCK", block)
    assert np.array_equal(weighted_auc(probs[:, 1], labels == 1, weights), whole)


def test_the_smallest_auc_is_of_one_pair_and_without_images_there_is_none() -> None:
    assert auc(np.array([0.2, 0.1]), np.array([True, False])) == 1.0
    assert weighted_auc(np.array([0.2, 0.1]), np.array([True, False]), np.full((1, 2), 0.5)) == [1.0]
    assert math.isnan(auc(np.array([0.2]), np.array([True])))
    assert math.isnan(auc(np.zeros(0), np.zeros(0, bool)))


@given(st.lists(st.integers(0, 5), max_size=20))
@settings(max_examples=50, deadline=None)
def test_midranks_are_scipys(values: list[int]) -> None:
    assert midranks(np.array(values, float)).tolist() == rankdata(values).tolist()


def test_groups_are_drawn_whole() -> None:
    groups = np.array(["a", "a", "b", "c", "c", "c"])
    counts, index = resample_groups(groups, 6, 100, RNG(0))
    weights = counts[:, index]
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, [0, 2, 3]].sum(1) == 3).all()
    # Each image counts once a resample on average; the mean of 100 draws has a standard deviation below .1.
    assert np.abs(weights.mean(0) - 1).max() < 0.4
    assert np.abs(resample_groups(None, 6, 100, RNG(0))[0].mean(0) - 1).max() < 0.4


def test_figures_agree_with_scikit_learn() -> None:
    probs, labels = two_class()
    figures = evaluate(probs, labels, threshold=0.45)
    chosen = probs[:, 1] >= 0.45
    assert figures.accuracy == pytest.approx(metrics.accuracy_score(labels, chosen))
    assert figures.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, chosen))
    assert figures.auc == pytest.approx(metrics.roc_auc_score(labels, probs[:, 1]))
    assert figures.f1 == pytest.approx(metrics.f1_score(labels, chosen))
    assert figures.sensitivity == pytest.approx(metrics.recall_score(labels, chosen))
    assert figures.specificity == pytest.approx(metrics.recall_score(1 - labels, ~chosen))
    assert figures.brier == pytest.approx(2 * metrics.brier_score_loss(labels, probs[:, 1]))
    assert np.array_equal(figures.confusion, metrics.confusion_matrix(labels, chosen))
    assert figures.auc_lo is not None
    assert figures.auc_hi is not None
    assert figures.auc_lo < figures.auc < figures.auc_hi


def test_several_classes_and_several_labels() -> None:
    rng = RNG(2)
    labels = rng.integers(0, 3, 200)
    probs = rng.dirichlet(np.ones(3), 200) * 0.7 + np.eye(3)[labels] * 0.3
    figures = evaluate(probs, labels, bootstrap=50)
    assert figures.auc == pytest.approx(metrics.roc_auc_score(labels, probs, multi_class="ovr"))
    assert figures.f1 == pytest.approx(metrics.f1_score(labels, probs.argmax(1), average="macro"))
    truth = (rng.random((200, 3)) < 0.3).astype(float)
    scores = np.clip(truth * 0.3 + rng.random((200, 3)) * 0.7, 0, 1)
    several = evaluate(scores, truth, multi_label=True, bootstrap=50)
    assert several.auc == pytest.approx(metrics.roc_auc_score(truth, scores))
    assert several.accuracy == pytest.approx(((scores >= 0.5) == truth).mean())
    assert several.confusion == ()


def test_an_unknown_label_counts_nowhere() -> None:
    rng = RNG(3)
    truth = (rng.random((100, 2)) < 0.5).astype(float)
    scores = rng.random((100, 2))
    truth[10:30, 0] = np.nan
    figures = evaluate(scores, truth, multi_label=True, bootstrap=0)
    known = np.isfinite(truth[:, 0])
    assert figures.per_class[0].auc == pytest.approx(metrics.roc_auc_score(truth[known, 0], scores[known, 0]))
    right = ((scores >= 0.5) == (truth > 0.5))[np.isfinite(truth)]
    assert figures.accuracy == pytest.approx(right.mean())


def test_an_undefined_auc_is_none_and_never_a_half() -> None:
    probs, _ = two_class(20)
    figures = evaluate(probs, np.zeros(20, int))
    assert (figures.auc, figures.auc_lo, figures.auc_hi, figures.sensitivity) == (None, None, None, None)
    assert figures.accuracy_lo is not None


@pytest.mark.slow
def test_the_interval_covers_about_as_often_as_it_says() -> None:
    # Accuracy .8 of 200 independent images: the bootstrap interval should hold .8 in about 95 of 100 samples.
    covered = 0
    for seed in range(100):
        rng = RNG(seed)
        labels = rng.integers(0, 2, 200)
        answer = np.where(rng.random(200) < 0.8, labels, 1 - labels)
        figures = evaluate(np.eye(2)[answer], labels, bootstrap=200, seed=seed)
        assert figures.accuracy_lo is not None
        assert figures.accuracy_hi is not None
        covered += figures.accuracy_lo <= 0.8 <= figures.accuracy_hi
    assert 87 <= covered <= 100


def test_groups_widen_the_interval() -> None:
    rng = RNG(5)
    labels = np.repeat(rng.integers(0, 2, 30), 10)
    answer = np.where(np.repeat(rng.random(30) < 0.8, 10), labels, 1 - labels)  # a patient is right or wrong as one
    probs = np.eye(2)[answer]
    alone = evaluate(probs, labels)
    grouped = evaluate(probs, labels, np.repeat(np.arange(30), 10).astype(str))
    assert alone.accuracy_lo is not None
    assert grouped.accuracy_lo is not None
    assert grouped.num_groups == 30
    assert alone.accuracy - alone.accuracy_lo < 0.6 * (grouped.accuracy - grouped.accuracy_lo)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.02, math.nan])[0] == pytest.approx(0.02)


def test_ece_by_hand() -> None:
    # Confidence .8 four times, three right: |.8 - .75|; confidence .6 once, wrong: .6. Weighted: (4 x .05 + .6) / 5.
    probs = np.array([[0.2, 0.8]] * 4 + [[0.6, 0.4]])
    figures = evaluate(probs, np.array([1, 1, 1, 0, 1]), bootstrap=0)
    assert figures.ece == pytest.approx((4 * 0.05 + 0.6) / 5)


def test_same_seed_same_interval_and_round_trip() -> None:
    probs, labels = two_class()
    first = evaluate(probs, labels, seed=4)
    assert first == evaluate(probs, labels, seed=4)
    assert first != evaluate(probs, labels, seed=5)
    assert type(first).from_dict(first.to_dict()) == first


def test_interval_of_mostly_undefined_values() -> None:
    assert all(math.isnan(edge) for edge in interval(np.array([0.5, np.nan, np.nan])))
    assert all(math.isnan(edge) for edge in interval(np.array([0.5, np.nan])))
    assert interval(np.array([0.5] * 6 + [np.nan] * 4)) == (0.5, 0.5)


def test_an_interval_leaves_out_the_same_fraction_at_both_ends() -> None:
    assert interval(np.arange(101.0)) == pytest.approx((2.5, 97.5))
    assert interval(np.arange(101.0), 0.8) == pytest.approx((10, 90))


@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), "no images"),
        (np.full((2, 2), np.nan), np.zeros(2, int), "image 0 are not finite"),
        (np.full((2, 2), 0.5), np.array([0, 2]), "label 2 has no column"),
        (np.full((2, 2), 0.5), np.zeros(3, int), "do not belong together"),
    ],
)
def test_bad_input(probs: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(probs, labels)


def test_predict_logits_puts_the_mode_back() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)).train()
    images = torch.randn(10, 1, 2, 2)
    parts = predict_logits(model, images, batch_size=3)
    assert model.training
    assert torch.allclose(parts, model.eval()(images), atol=1e-6)
    assert probabilities(parts).sum(1) == pytest.approx(np.ones(10))
    assert list(itertools.chain(probabilities(parts, multi_label=True).shape)) == [10, 2]
