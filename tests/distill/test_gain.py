"""What a teacher was worth: signs, intervals, and no gain where there is none."""

import math

import numpy as np
import pytest

from tutelage.distill.evaluate import evaluate
from tutelage.distill.gain import Gain, correct, measure_gain
from tutelage.distill.statistics import delong, mcnemar
from tutelage.records import InputError


def probs_of(labels: np.ndarray, skill: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    second = 1 / (1 + np.exp(-(skill * (labels - 0.5) + rng.standard_normal(len(labels)))))
    return np.stack([1 - second, second], 1)


LABELS = np.random.default_rng(0).integers(0, 2, 400)


def test_a_gain_is_the_difference_of_the_evaluations() -> None:
    good, poor = probs_of(LABELS, 3.0, 1), probs_of(LABELS, 1.0, 2)
    gain = measure_gain([good], [poor], LABELS, first_thresholds=[0.4], second_thresholds=[0.6])
    a, b = evaluate(good, LABELS, threshold=0.4), evaluate(poor, LABELS, threshold=0.6)
    assert a.auc is not None
    assert b.auc is not None
    assert gain.auc == pytest.approx(a.auc - b.auc)
    assert gain.accuracy == pytest.approx(a.accuracy - b.accuracy)
    assert gain.auc_p == pytest.approx(delong(good[:, 1], poor[:, 1], LABELS == 1).p)
    assert gain.accuracy_p == pytest.approx(mcnemar((good[:, 1] >= 0.4) == LABELS, (poor[:, 1] >= 0.6) == LABELS).p)
    assert gain.auc_lo is not None
    assert gain.auc_lo > 0
    assert gain.verdict.startswith("gained +")
    back = measure_gain([poor], [good], LABELS)
    assert back.verdict.startswith("lost -")


def test_the_bootstrap_agrees_with_delong() -> None:
    good, poor = probs_of(LABELS, 1.5, 1), probs_of(LABELS, 1.2, 2)
    gain, closed = measure_gain([good], [poor], LABELS), delong(good[:, 1], poor[:, 1], LABELS == 1)
    assert gain.auc_lo == pytest.approx(closed.low, abs=0.01)
    assert gain.auc_hi == pytest.approx(closed.high, abs=0.01)


@pytest.mark.slow
def test_no_gain_is_called_nothing_about_as_often_as_it_should() -> None:
    nothing = 0
    for seed in range(40):
        labels = np.random.default_rng(seed).integers(0, 2, 200)
        pairs = [[probs_of(labels, 1.0, 1000 * side + 10 * seed + i) for i in range(3)] for side in (1, 2)]
        nothing += measure_gain(*pairs, labels, bootstrap=200).verdict.startswith("gained nothing")
    assert nothing >= 34  # 38 expected


def test_several_seeds_and_groups() -> None:
    groups = np.repeat(np.arange(100), 4).astype(str)
    good, poor = ([probs_of(LABELS, skill, 10 + seed) for seed in range(3)] for skill in (2.0, 1.0))
    gain = measure_gain(good, poor, LABELS, groups)
    assert gain.num_seeds == 3
    expected = [evaluate(a, LABELS).accuracy - evaluate(b, LABELS).accuracy for a, b in zip(good, poor, strict=True)]
    assert gain.accuracy == pytest.approx(np.mean(expected))
    assert gain.accuracy_p is not None
    assert gain.accuracy_p >= 2 / 1001
    assert gain == measure_gain(good, poor, LABELS, groups)


def test_several_classes_and_several_labels() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 150)
    good, poor = (rng.dirichlet(np.ones(3), 150) * (1 - w) + np.eye(3)[labels] * w for w in (0.5, 0.1))
    gain = measure_gain([good], [poor], labels)
    a, b = evaluate(good, labels), evaluate(poor, labels)
    assert a.auc is not None
    assert b.auc is not None
    assert gain.auc == pytest.approx(a.auc - b.auc)
    truth = np.eye(3)[labels]
    truth[:20, 1] = np.nan
    several = measure_gain([good], [poor], truth, multi_label=True)
    first, second = (evaluate(p, truth, multi_label=True) for p in (good, poor))
    assert several.accuracy == pytest.approx(first.accuracy - second.accuracy)


def test_an_undefined_gain_is_none() -> None:
    gain = measure_gain([probs_of(LABELS, 1, 1)], [probs_of(LABELS, 1, 2)], np.zeros(400, int))
    assert (gain.auc, gain.auc_lo, gain.auc_p) == (None, None, None)
    assert "accuracy" in gain.verdict


def test_holm_over_several_comparisons() -> None:
    gains = [
        Gain(num_seeds=1, accuracy=0.1, accuracy_lo=0, accuracy_hi=0.2, accuracy_p=p, auc=None, auc_lo=None,
             auc_hi=None, auc_p=None)
        for p in (0.01, 0.04, 0.03)
    ]  # fmt: skip
    assert [gain.accuracy_p for gain in correct(gains)] == pytest.approx([0.03, 0.06, 0.06])
    assert all(gain.auc_p is None for gain in correct(gains))


def test_twins_come_in_pairs() -> None:
    with pytest.raises(InputError, match="got 1 with and 0 without"):
        measure_gain([probs_of(LABELS, 1, 1)], [], LABELS)
    assert math.isfinite(measure_gain([probs_of(LABELS, 1, 1)], [probs_of(LABELS, 1, 1)], LABELS).accuracy)
