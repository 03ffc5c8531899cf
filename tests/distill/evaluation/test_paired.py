"""Paired tests by group: against DeLong by brute force, a jackknife over groups, and what may not be paired."""

import math

import numpy as np
import pytest
from scipy.stats import t
from sklearn.metrics import roc_auc_score

from tutelage.distill.evaluation.evaluate import evaluate
from tutelage.distill.evaluation.paired import (
    Figure,
    compare_figures,
    compare_files,
    correct,
    figure_of_label,
    file_figures,
    group_variance,
    mean_figure,
    mean_figures,
    t_test,
)
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
    freedom = min(len(over_pos), len(over_neg)) - 1
    found = compare_files(file_figures(a, labels), file_figures(b, labels))["auc"]
    assert found.difference == pytest.approx(difference.mean())
    assert found.high is not None
    assert found.low is not None
    assert (found.high - found.low) / 2 == pytest.approx(t.ppf(0.975, freedom) * math.sqrt(variance))
    assert found.p == pytest.approx(2 * t.sf(abs(difference.mean()) / math.sqrt(variance), freedom))


def test_values_are_those_of_the_evaluation() -> None:
    rng = RNG(3)
    labels = rng.integers(0, 3, 150)
    probs = rng.dirichlet(np.ones(3), 150) * 0.8 + np.eye(3)[labels] * 0.2
    several, whole = file_figures(probs, labels), evaluate(probs, labels, bootstrap=0)
    assert several.auc.value < 0.95
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


def test_of_two_classes_the_second_column_decides() -> None:
    labels = RNG(1).integers(0, 2, 40)
    probs = drawn(labels, 1.0, RNG(2))
    noise = np.stack([RNG(3).random(40), probs[:, 1]], 1)
    assert file_figures(noise, labels).auc.value == file_figures(probs, labels).auc.value
    level = float(probs[:, 1].max())  # a score that is the threshold is a positive
    assert file_figures(probs, labels == 1, threshold=[level]).accuracy.value == pytest.approx(
        ((probs[:, 1] == level) == labels).mean()
    )


def test_by_group_the_variance_of_an_auc_is_obuchowskis_by_brute_force() -> None:
    """Each of five groups holds both classes: Var = S10 / m + S01 / n + 2 S11 / (m n), Obuchowski (1997)."""
    rng = RNG(6)
    groups = np.concatenate([np.repeat(np.arange(5), 2), rng.integers(0, 5, 30)])
    labels = np.concatenate([np.tile([0, 1], 5), rng.integers(0, 2, 30)])
    probs = drawn(labels, 1.0, rng)
    pairs = kernel(probs[:, 1], labels == 1)
    area, (m, n) = pairs.mean(), pairs.shape
    of_pos, of_neg = groups[labels == 1], groups[labels == 0]
    by_pos = np.array([(pairs.mean(1)[of_pos == group] - area).sum() for group in range(5)])
    by_neg = np.array([(pairs.mean(0)[of_neg == group] - area).sum() for group in range(5)])
    variance = 5 / 4 * (np.square(by_pos).sum() / m**2 + np.square(by_neg).sum() / n**2 + 2 * by_pos @ by_neg / (m * n))
    found = file_figures(probs, labels, groups.astype(str))
    assert found.num_groups == 5
    assert found.auc.resolution == 0.5 / 5
    assert group_variance(found.auc) == pytest.approx((variance, 4))


@pytest.mark.parametrize("num_groups", [2, 5])
def test_by_groups_of_one_size_the_variance_of_accuracy_is_that_of_their_mean(num_groups: int) -> None:
    right = RNG(num_groups).random((num_groups, 6)) < np.linspace(0.3, 0.9, num_groups)[:, None]
    found = file_figures(np.eye(2)[right.ravel().astype(int)], np.ones(6 * num_groups), np.arange(6 * num_groups) // 6)
    assert found.accuracy.value == pytest.approx(right.mean())
    assert found.accuracy.resolution == 1 / (6 * num_groups)
    expected = right.mean(1).var(ddof=1) / num_groups
    assert group_variance(found.accuracy) == pytest.approx((expected, num_groups - 1))


def test_a_label_of_several_has_the_auc_of_its_known_images_and_a_component_for_every_group() -> None:
    rng = RNG(4)
    labels = rng.integers(0, 2, 60).astype(float)
    scores = rng.random(60) + 0.3 * labels
    groups = np.arange(60) // 3
    labels[57:] = np.nan  # nothing is known of the last group
    found = figure_of_label(scores, labels, groups)
    assert found.value == pytest.approx(roc_auc_score(labels[:57], scores[:57]))
    assert (len(found.components), found.components[-1]) == (20, 0)
    for one, by in ((found, groups), (figure_of_label(scores, labels), None)):
        whole = file_figures(scores[:, None], labels[:, None], by, multi_label=True)
        assert whole.auc.value == pytest.approx(one.value)
        assert whole.auc.components == pytest.approx(one.components)
    assert len(figure_of_label(scores, labels).components) == 60


def test_a_label_without_a_threshold_is_predicted_from_a_half_and_unknown_labels_do_not_count() -> None:
    labels = np.array([[1.0, np.nan], [0.0, np.nan], [1.0, 0.0]])
    probs = np.array([[0.5, 0.9], [0.6, 0.9], [0.4, 0.1]])
    found = file_figures(probs, labels, multi_label=True)
    assert found.accuracy.value == 0.5  # right: .5 for 1, .1 for 0
    # Components are what each image adds to the mean of 4 known labels, times sqrt(3 / 2).
    assert found.accuracy.components == pytest.approx(np.array([0.5, -0.5, 0.0]) / 4 * math.sqrt(1.5))
    only = np.where(np.arange(6).reshape(3, 2) == 5, labels, np.nan)
    assert file_figures(probs, only, multi_label=True).accuracy.value == 1.0
    unknown = file_figures(probs, np.full((3, 2), np.nan), multi_label=True)
    assert (math.isnan(unknown.accuracy.value), math.isnan(unknown.auc.value)) == (True, True)
    assert len(unknown.accuracy.components) == len(unknown.auc.components) == 3
    assert math.isnan(unknown.accuracy.resolution)


def test_one_image_of_a_class_is_enough_for_an_auc_and_none_is_not() -> None:
    scores = np.array([0.9, 0.2, 0.4, 0.7])
    assert figure_of_label(scores, np.array([1, 1, 0, 1])).value == pytest.approx(2 / 3)
    assert figure_of_label(scores, np.array([0, 0, 0, 1])).value == pytest.approx(2 / 3)
    for labels in (np.zeros(4), np.ones(4)):
        found = figure_of_label(scores, labels)
        assert math.isnan(found.value)
        assert np.isnan(found.components).tolist() == [True] * 4


def test_what_has_no_spread_has_no_test() -> None:
    for nothing in (Figure(0.0, np.zeros(1), 0.1), Figure(0.0, np.ones(9), 0.1, freedom=0.0)):
        assert all(math.isnan(value) for value in group_variance(nothing))
    assert group_variance(Figure(0.0, np.zeros(2), 0.1)) == (pytest.approx(0.01), 1)
    assert group_variance(Figure(0.0, np.array([3e-9, 4e-9]), 0.1)) == (pytest.approx(2.5e-17), 1)
    assert group_variance(Figure(0.0, np.ones(9), 0.1, freedom=4.0)) == (9, 4)
    for found in (t_test(0.1, 0.0, 5), t_test(math.nan, 1.0, 5), t_test(0.1, math.nan, math.nan)):
        assert [math.isnan(value) for value in (found.low, found.high, found.p)] == [True] * 3
    assert t_test(-0.1, 0.01, 3).p == pytest.approx(2 * t.sf(1, 3))


def test_an_auc_has_the_degrees_of_freedom_of_the_rarer_class() -> None:
    labels = np.arange(100) < 5
    scores = RNG(9).random(100)
    assert figure_of_label(scores, labels.astype(float)).freedom == 4
    assert figure_of_label(scores, 1.0 - labels).freedom == 4
    by_group = figure_of_label(scores, labels.astype(float), np.arange(100) // 2)  # three groups hold the five
    assert by_group.freedom == 2
    other = figure_of_label(RNG(10).random(100), labels.astype(float))
    found = compare_figures("auc", figure_of_label(scores, labels.astype(float)), other, margin=0.01)
    parts = figure_of_label(scores, labels.astype(float)).components - other.components
    assert found.high is not None
    assert found.difference is not None
    assert found.high - found.difference == pytest.approx(t.ppf(0.975, 4) * math.sqrt(np.square(parts).sum()))
    alone = figure_of_label(scores, (np.arange(100) < 1).astype(float))  # one positive: nothing says how it varies
    assert compare_figures("auc", alone, alone, margin=0.01).p is None


def test_a_mean_has_the_degrees_of_freedom_of_what_makes_its_error() -> None:
    def made(size: float, freedom: float) -> Figure:
        return Figure(0.5, np.full(4, size), 0.1, freedom)

    assert mean_figure([made(1, 10), made(1, 10)]).freedom == pytest.approx(10)
    assert mean_figure([made(3, 2), made(1, 98)]).freedom == pytest.approx((9 + 1) / (9 / 2 + 1 / 98))
    assert mean_figure([made(0, 3), made(0, 8)]).freedom == 3
    assert mean_figure([made(1, math.inf), made(2, math.inf)]).freedom == math.inf
    assert mean_figure([made(1, 0), made(2, 9)]).freedom == 0


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
    assert group_variance(one)[0] == pytest.approx(jackknife, rel=0.06)
    alone = getattr(file_figures(probs, labels, threshold=0.5), figure)
    assert group_variance(alone)[0] < 0.7 * jackknife


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
    for few in ((probs, labels[1:]), (probs[:0], labels[:0])):
        with pytest.raises(InputError, match="do not belong together"):
            file_figures(*few)
    with pytest.raises(InputError, match="same test images"):
        mean_figures([])


def test_files_that_never_differ_are_equivalent_only_where_one_image_is_less_than_the_margin() -> None:
    for num, verdict in ((40, "inconclusive"), (1000, "equivalent")):
        labels = np.arange(num) % 2
        probs = np.eye(2)[labels] * 0.8 + 0.1
        found = compare_files(file_figures(probs, labels), file_figures(probs, labels))
        assert [(one.difference, one.verdict) for one in found.values()] == [(0, verdict)] * 2
        assert found["accuracy"].high == pytest.approx(t.ppf(0.975, num - 1) / num)
        assert found["auc"].high == pytest.approx(t.ppf(0.975, num / 2 - 1) * 0.5 / (num / 2))


def test_what_is_undefined_is_none_and_inconclusive() -> None:
    labels = np.zeros(30, int)
    a, b = drawn(labels, 0, RNG(1)), drawn(labels, 0, RNG(2))
    found = compare_files(file_figures(a, labels), file_figures(b, labels))
    assert (found["auc"].difference, found["auc"].p, found["auc"].verdict) == (None, None, "inconclusive")
    assert found["accuracy"].p is not None
    single = compare_files(file_figures(a, labels, ["x"] * 30), file_figures(b, labels, ["x"] * 30))["accuracy"]
    assert (single.low, single.p, single.verdict) == (None, None, "inconclusive")
    assert single.difference == found["accuracy"].difference
    assert (found["accuracy"].num_seeds, found["accuracy"].num_groups, found["accuracy"].claim) == (1, 30, "file")
    one = file_figures(a, labels).accuracy
    assert compare_figures("accuracy", one, one, margin=0.1).num_seeds == 1
    assert [(one.p, one.num_comparisons) for one in correct([found["auc"]] * 2)] == [(None, 2)] * 2


def test_a_mean_over_seeds_is_a_mean_of_values_and_of_components() -> None:
    labels = RNG(0).integers(0, 2, 60)
    files = [file_figures(drawn(labels, 1.0, RNG(seed)), labels) for seed in range(3)]
    assert mean_figures(files[:1]).auc.value == files[0].auc.value
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
