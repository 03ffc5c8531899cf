"""Paired tests by group: against DeLong by brute force, a jackknife over groups, and what may not be paired."""

import math

import numpy as np
import pytest
from scipy.stats import t
from sklearn.metrics import roc_auc_score

from tutelage.distill.evaluate import evaluate
from tutelage.distill.paired import compare_files, correct, file_figures, group_variance, mean_figures
from tutelage.records import Comparison, InputError

RNG = np.random.default_rng


def drawn(labels: np.ndarray, skill: float, rng: np.random.Generator, common: np.ndarray | float = 0.0) -> np.ndarray:
    """Give probabilities `(n, 2)`: a normal score, `skill` higher for positives, rounded so that some are tied."""
    scores = np.round(skill * labels + rng.standard_normal(len(labels)) + common, 1)
    second = 1 / (1 + np.exp(-scores))
    return np.stack([1 - second, second], 1)


def kernel(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    x, y = scores[positive][:, None], scores[~positive][None]
    return np.asarray((x > y) + 0.5 * (x == y))


def test_without_groups_the_variance_is_delongs_by_brute_force() -> None:
    rng = RNG(8)
    labels = (rng.random(40) < 0.4).astype(int)
    a, b = drawn(labels, 1.0, rng), drawn(labels, 1.0, rng)
    difference = kernel(a[:, 1], labels == 1) - kernel(b[:, 1], labels == 1)
    over_pos, over_neg = difference.mean(1), difference.mean(0)
    variance = over_pos.var(ddof=1) / len(over_pos) + over_neg.var(ddof=1) / len(over_neg)
    found = compare_files(file_figures(a, labels), file_figures(b, labels))["auc"]
    assert found.difference == pytest.approx(difference.mean())
    assert found.high is not None
    assert found.low is not None
    assert (found.high - found.low) / 2 == pytest.approx(t.ppf(0.975, 39) * math.sqrt(variance))
    assert found.p == pytest.approx(2 * t.sf(abs(difference.mean()) / math.sqrt(variance), 39))


def test_values_are_those_of_the_evaluation() -> None:
    rng = RNG(3)
    labels = rng.integers(0, 3, 150)
    probs = rng.dirichlet(np.ones(3), 150) * 0.5 + np.eye(3)[labels] * 0.5
    several, whole = file_figures(probs, labels), evaluate(probs, labels, bootstrap=0)
    assert (several.auc.value, several.accuracy.value) == pytest.approx((whole.auc, whole.accuracy))
    truth = np.eye(3)[labels]
    truth[:20, 1] = np.nan
    cuts = (0.4, 0.5, 0.6)
    multi = file_figures(probs, truth, threshold=cuts, multi_label=True)
    whole = evaluate(probs, truth, threshold=cuts, multi_label=True, bootstrap=0)
    assert (multi.auc.value, multi.accuracy.value) == pytest.approx((whole.auc, whole.accuracy))
    two = drawn(labels % 2, 1.0, rng)
    accuracy = file_figures(two, labels % 2, threshold=0.6).accuracy.value
    assert accuracy == pytest.approx(evaluate(two, labels % 2, threshold=0.6, bootstrap=0).accuracy)


@pytest.mark.parametrize("figure", ["auc", "accuracy"])
def test_by_group_the_variance_is_that_of_a_jackknife_over_groups(figure: str) -> None:
    rng = RNG(5)
    groups = rng.integers(0, 60, 400)
    common = rng.standard_normal(60)[groups]  # a patient's images are scored high or low together,
    labels = rng.integers(0, 2, 60)[groups]  # and have one label
    probs = drawn(labels, 1.0, rng, common)

    def value(keep: np.ndarray) -> float:
        if figure == "auc":
            return float(roc_auc_score(labels[keep], probs[keep, 1]))
        return float(((probs[keep, 1] >= 0.5) == labels[keep]).mean())

    left_out = np.array([value(groups != group) for group in range(60)])
    jackknife = 59 / 60 * np.square(left_out - left_out.mean()).sum()
    one = getattr(file_figures(probs, labels, groups.astype(str), threshold=0.5), figure)
    assert group_variance(one.components, one.resolution)[0] == pytest.approx(jackknife, rel=0.06)
    alone = getattr(file_figures(probs, labels, threshold=0.5), figure)
    assert group_variance(alone.components, 0)[0] < 0.7 * jackknife


def test_a_pair_of_other_images_is_refused() -> None:
    labels = RNG(0).integers(0, 2, 50)
    probs = drawn(labels, 1.0, RNG(1))
    groups = np.arange(50) // 2
    with pytest.raises(InputError, match="same test images"):
        compare_files(file_figures(probs, labels, groups), file_figures(probs, labels))
    with pytest.raises(InputError, match="same test images"):
        compare_files(file_figures(probs, labels), file_figures(probs[::-1], labels[::-1]))
    with pytest.raises(InputError, match="do not belong together"):
        file_figures(probs, labels, groups[1:])


def test_files_that_never_differ_are_equivalent_only_where_one_image_is_less_than_the_margin() -> None:
    for num, verdict in ((40, "inconclusive"), (1000, "equivalent")):
        labels = np.arange(num) % 2
        probs = np.eye(2)[labels] * 0.8 + 0.1
        found = compare_files(file_figures(probs, labels), file_figures(probs, labels))
        assert [(one.difference, one.verdict) for one in found.values()] == [(0, verdict)] * 2
        assert found["accuracy"].high == pytest.approx(t.ppf(0.975, num - 1) / num)
        assert found["auc"].high == pytest.approx(t.ppf(0.975, num - 1) * 0.5 / (num / 2))


def test_what_is_undefined_is_none_and_inconclusive() -> None:
    labels = np.zeros(30, int)
    a, b = drawn(labels, 0, RNG(1)), drawn(labels, 0, RNG(2))
    found = compare_files(file_figures(a, labels), file_figures(b, labels))
    assert (found["auc"].difference, found["auc"].p, found["auc"].verdict) == (None, None, "inconclusive")
    assert found["accuracy"].p is not None
    single = compare_files(file_figures(a, labels, ["x"] * 30), file_figures(b, labels, ["x"] * 30))["accuracy"]
    assert (single.low, single.p, single.verdict) == (None, None, "inconclusive")
    assert single.difference == found["accuracy"].difference


def test_a_mean_over_seeds_is_a_mean_of_values_and_of_components() -> None:
    labels = RNG(0).integers(0, 2, 60)
    files = [file_figures(drawn(labels, 1.0, RNG(seed)), labels) for seed in range(3)]
    mean = mean_figures(files)
    assert mean.auc.value == pytest.approx(np.mean([one.auc.value for one in files]))
    assert mean.accuracy.components == pytest.approx(np.mean([one.accuracy.components for one in files], axis=0))


def test_holm_over_26_comparisons_rejects_strong_effects_and_corrects_each_figure_on_its_own() -> None:
    rng = RNG(7)
    labels = rng.integers(0, 2, 300)
    weak = file_figures(drawn(labels, 0.5, rng), labels)
    strong = [file_figures(drawn(labels, 2.0, rng), labels) for _ in range(26)]
    raw = [one for file in strong for one in compare_files(file, weak).values()]
    adjusted = correct(raw)
    assert [one.verdict for one in adjusted] == ["gained"] * 52
    assert {one.num_comparisons for one in adjusted} == {26}
    areas, corrected = ([one.p for one in some if one.figure == "auc"] for some in (raw, adjusted))
    assert min(p for p in corrected if p is not None) == pytest.approx(26 * min(p for p in areas if p is not None))


def test_verdicts_and_their_words() -> None:
    def made(claim: str, *figures: float | None, **more: object) -> Comparison:
        names = ("difference", "low", "high", "p")
        values = {"claim": claim, "figure": "auc", "margin": 0.01, "num_seeds": 5, "num_groups": 9}
        return Comparison.model_validate({**values, **dict(zip(names, figures, strict=True)), **more})

    gained = made("file", 0.012, 0.003, 0.021, 0.008)
    assert gained.text == "gained +.012 AUC [+.003, +.021], p .008"
    assert made("file", -0.012, -0.021, -0.003, 0.0004).text == "lost -.012 AUC [-.021, -.003], p < .001"
    assert made("teacher", 0.098, -0.02, 0.21, 0.14).text == "inconclusive: +.098 AUC [-.020, +.210], p .14"
    near = made("file", 0.00005, -0.001, 0.0011, 0.9, figure="accuracy")
    assert near.text == "equivalent within .01 accuracy: +.0001 accuracy [-.0010, +.0011], p .9"
    # A difference that is certain and too small to matter is a tie.
    assert made("file", 0.002, 0.001, 0.003, 0.001).verdict == "equivalent"
    assert made("file", 0.002, 0.001, 0.003, 0.001, margin=0.001).verdict == "gained"
    few = made("teacher", 0.1, 0.05, 0.15, 0.001, num_seeds=3)
    assert few.text == "inconclusive: +.100 AUC [+.050, +.150], p .001; 3 of the 5 seeds needed"
    assert made("file", 0.1, 0.05, 0.15, 0.001, num_seeds=3).verdict == "gained"
    assert made("teacher", None, None, None, None).text == "inconclusive: AUC is not defined"
    assert Comparison.from_dict(gained.to_dict()) == gained
    assert gained.to_dict()["verdict"] == "gained"
