"""What a teacher was worth: a test over seeds and groups whose error rates hold, and no verdict from a few seeds."""

import math

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from tutelage.distill.evaluation.gain import compare_labels, compare_trainings, over_seeds, seeds_test
from tutelage.distill.evaluation.paired import Figure, FileFigures, compare_files, file_figures
from tutelage.records import Comparison, InputError

RNG = np.random.default_rng
LABELS = RNG(0).integers(0, 2, 400)
GROUPS = np.repeat(np.arange(100), 4).astype(str)


def files(skills: list[float], seed: int, labels: np.ndarray = LABELS) -> list[FileFigures]:
    """Give a file for each skill: a normal score that is so much higher for positives."""
    rng = RNG(seed)
    found = []
    for skill in skills:
        second = 1 / (1 + np.exp(-(skill * (labels - 0.5) + rng.standard_normal(len(labels)))))
        found.append(file_figures(np.stack([1 - second, second], 1), labels, threshold=0.5))
    return found


def test_a_gain_is_the_mean_difference_over_seeds() -> None:
    good, poor = files([2.0, 2.1, 1.9, 2.0, 2.2], 1), files([1.0, 1.1, 0.9, 1.2, 1.0], 2)
    found = compare_trainings(good, poor)
    assert found["auc"].difference == pytest.approx(
        np.mean([a.auc.value - b.auc.value for a, b in zip(good, poor, strict=True)])
    )
    assert [one.verdict for one in found.values()] == ["gained", "gained"]
    assert [one.claim for one in found.values()] == ["teacher", "teacher"]
    assert [one.verdict for one in compare_trainings(poor, good).values()] == ["lost", "lost"]


def test_fewer_than_five_seeds_are_inconclusive_about_a_teacher_and_not_about_files() -> None:
    good, poor = files([3.0] * 5, 1), files([1.0] * 5, 2)
    assert compare_trainings(good, poor)["auc"].verdict == "gained"
    four = compare_trainings(good[:4], poor[:4])["auc"]
    assert four.verdict == "inconclusive"
    assert four.p is not None
    assert four.p < 0.001
    assert "4 of the 5 seeds needed" in four.text
    one = compare_trainings(good[:1], poor[:1])["auc"]
    assert (one.low, one.p, one.verdict) == (None, None, "inconclusive")
    assert one.difference == pytest.approx(good[0].auc.value - poor[0].auc.value)
    assert compare_files(good[0], poor[0])["auc"].verdict == "gained"


def figure(value: float, components: list[float]) -> Figure:
    return Figure(value, np.array(components), 0.01)


def test_where_images_share_nothing_it_is_the_t_test_of_the_seeds() -> None:
    values = [0.03, 0.01, 0.02, 0.05, 0.01]
    found = seeds_test([figure(value, list(row)) for value, row in zip(values, np.eye(5) / 100, strict=True)])
    expected = ttest_1samp(values, 0)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_where_seeds_are_alike_it_is_the_test_of_the_groups() -> None:
    components = [0.01, -0.02, 0.015, -0.005, 0.0]
    found = seeds_test([figure(0.04, components)] * 5)
    deviation = math.sqrt(sum(value**2 for value in components))
    assert found.high - 0.04 == pytest.approx(t.ppf(0.975, 4) * deviation)
    assert found.p == pytest.approx(2 * t.sf(0.04 / deviation, 4))


def test_seeds_and_groups_add_up_by_hand() -> None:
    # Values .00 .02 .04: s^2 / S = .0004 / 3. Components (1, -1), (1, -1), (0, 0) hundredths: one of three pairs
    # covaries, by .0002: Cov = .0002 / 3. Together .0002; freedom .0002^2 / (.0004^2 / 9 / 2 + .0002^2 / 9 / 1).
    found = seeds_test([figure(0.0, [0.01, -0.01]), figure(0.02, [0.01, -0.01]), figure(0.04, [0.0, 0.0])])
    freedom = 0.0002**2 / (0.0004**2 / 18 + 0.0002**2 / 9)
    assert found.high - found.difference == pytest.approx(t.ppf(0.975, freedom) * math.sqrt(0.0002))


def test_it_is_never_surer_than_the_test_of_the_files_at_hand() -> None:
    # Components that are opposite in two seeds leave Cov below 0, and values that happen to agree leave s^2 at 0.
    found = seeds_test([figure(0.02, [0.01, -0.01]), figure(0.02, [0.01, -0.01]), figure(0.02, [-0.01, 0.01])])
    assert found.high - 0.02 == pytest.approx(t.ppf(0.975, 1) * math.sqrt(2 * (0.01 / 3) ** 2))
    single_group = seeds_test([figure(0.02, [0.0])] * 5)
    assert (single_group.difference, math.isnan(single_group.p)) == (pytest.approx(0.02), True)


def test_a_negative_covariance_over_images_takes_nothing_off_what_the_seeds_vary() -> None:
    values = [0.01, 0.09, 0.04, 0.06]
    components = [[0.01, -0.01], [-0.01, 0.01], [0.01, -0.01], [-0.01, 0.01]]
    found = seeds_test([figure(value, row) for value, row in zip(values, components, strict=True)])
    assert (found.low, found.high) == pytest.approx(tuple(ttest_1samp(values, 0).confidence_interval()))


def test_the_covariance_is_the_mean_over_pairs_of_seeds() -> None:
    # Four seeds, each pair with x . y = .0002: Cov = .0002; values .00 .02 .04 .06: s^2 / S = .002 / 3 / 4.
    found = seeds_test([figure(value, [0.01, -0.01]) for value in (0.0, 0.02, 0.04, 0.06)])
    of_seeds, of_groups = 0.002 / 12, 0.0002
    freedom = (of_seeds + of_groups) ** 2 / (of_seeds**2 / 3 + of_groups**2 / 1)
    half = t.ppf(0.975, freedom) * math.sqrt(of_seeds + of_groups)
    assert (found.low, found.high) == pytest.approx((0.03 - half, 0.03 + half))


def test_where_both_variances_are_equal_the_groups_degrees_of_freedom_count() -> None:
    # x . y = 0: the seeds' variance is d^2 / 4 and the files' (3^2 + 4^2) / 4, in 64ths, equal for d = 5.
    found = seeds_test([figure(0.0, [3 / 64, 0.0, 0.0]), figure(5 / 64, [0.0, 4 / 64, 0.0])])
    assert found.high - found.difference == pytest.approx(t.ppf(0.975, 2) * 2.5 / 64)


def test_seeds_that_saw_other_images_have_no_mean() -> None:
    with pytest.raises(InputError, match="same test images"):
        over_seeds([*files([1.0], 1), *files([1.0], 1, 1 - LABELS)])


def test_a_network_s_figures_over_seeds() -> None:
    some = files([1.0, 2.0, 3.0], 4)
    found = over_seeds(some)["auc"]
    assert found.difference == pytest.approx(np.mean([one.auc.value for one in some]))
    own = compare_files(some[1], files([0.0], 5)[0])["auc"]
    assert own.low is not None
    assert own.high is not None
    assert found.high - found.low > own.high - own.low  # seeds this far apart widen what one file's images leave
    near_one = over_seeds(files([9.0, 5.0], 6))["auc"]
    assert near_one.high == 1.0
    assert over_seeds(files([-9.0, -5.0], 6))["auc"].low == 0.0
    assert math.isnan(over_seeds(some[:1])["auc"].low)


def test_each_label_of_several_is_tested_by_group() -> None:
    rng = RNG(3)
    truth = rng.integers(0, 2, (400, 3)).astype(float)
    truth[:20, 1] = np.nan
    noise = [rng.standard_normal((400, 3)) for _ in range(4)]
    shift = np.array([3.0, 1.0, 1.0])  # only the first label is predicted better by the first files
    first = [1 / (1 + np.exp(-(shift * np.nan_to_num(truth) + one))) for one in noise[:2]]
    second = [1 / (1 + np.exp(-(np.nan_to_num(truth) + one))) for one in noise[2:]]
    tests = compare_labels(first, second, truth, GROUPS)
    assert [(one.claim, one.num_seeds, one.num_groups, one.num_comparisons) for one in tests] == [
        ("file", 2, 100, 3)
    ] * 3
    assert [one.verdict for one in tests] == ["gained", "inconclusive", "inconclusive"]


def test_trainings_come_in_pairs_on_the_same_images() -> None:
    some = files([1.0], 1)
    with pytest.raises(InputError, match="got 1 with and 0 without"):
        compare_trainings(some, [])
    with pytest.raises(InputError, match="same test images"):
        compare_trainings(some, files([1.0], 1, 1 - LABELS))


def test_an_undefined_auc_is_none() -> None:
    one_class = np.zeros(40, int)
    found = compare_trainings(files([1.0] * 5, 1, one_class), files([1.0] * 5, 2, one_class))
    assert (found["auc"].difference, found["auc"].p, found["auc"].verdict) == (None, None, "inconclusive")
    assert found["accuracy"].p is not None


def simulated(rng: np.random.Generator, num_seeds: int, seed_sd: float) -> list[list[FileFigures]]:
    """Draw two ways of training, none better: seeds differ in skill, and each way does better on some groups."""
    groups = np.repeat(np.arange(40), rng.integers(1, 4, 40))
    labels = rng.integers(0, 2, 40)[groups]
    hard = rng.normal(0, 0.5, 40)[groups]
    sides = []
    for _ in range(2):
        method = hard + rng.normal(0, 0.3, 40)[groups]
        side = []
        for skill in 1.5 + rng.normal(0, seed_sd, num_seeds):
            second = 1 / (1 + np.exp(-(skill * (labels - 0.5) + method + rng.standard_normal(len(labels)))))
            side.append(file_figures(np.stack([1 - second, second], 1), labels, groups, threshold=0.5))
        sides.append(side)
    return sides


def called(tests: list[dict[str, Comparison]], name: str) -> float:
    """Give the fraction that is called gained or lost; the margin is too small for "equivalent"."""
    return float(np.mean([one[name].verdict in ("gained", "lost") for one in tests]))


@pytest.mark.parametrize("seed_sd", [0.15, 0.6])
def test_of_1000_trainings_with_a_teacher_that_does_nothing_at_most_7_percent_are_called(seed_sd: float) -> None:
    rng = RNG(14)
    tests = [compare_trainings(*simulated(rng, 5, seed_sd), margin=1e-9) for _ in range(1000)]
    assert called(tests, "auc") <= 0.07
    assert called(tests, "accuracy") <= 0.07
    assert called(tests, "auc") >= 0.01  # a test that never calls anything would pass, too


def test_of_1000_pairs_of_equally_good_files_at_most_7_percent_are_called() -> None:
    rng = RNG(15)
    tests = []
    for _ in range(1000):
        (first,), (second,) = simulated(rng, 1, 0.0)
        tests.append(compare_files(first, second, margin=1e-9))
    assert called(tests, "auc") <= 0.07
    assert called(tests, "accuracy") <= 0.07
    assert called(tests, "auc") >= 0.02


def test_of_1000_pairs_of_equally_good_files_with_six_positive_images_at_most_7_percent_are_called() -> None:
    rng = RNG(16)
    labels = (np.arange(150) < 6).astype(int)
    tests = [compare_files(*(files([1.0], int(rng.integers(2**31)), labels)[0] for _ in "ab"), margin=1e-9)
             for _ in range(1000)]  # fmt: skip
    assert called(tests, "auc") <= 0.07
    assert called(tests, "auc") >= 0.005
