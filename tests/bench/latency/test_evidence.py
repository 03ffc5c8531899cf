"""The latency model's regression by closed forms: its evidence and slope, weights, noise and half-width."""

import numpy as np
import pytest

from tutelage.bench.latency import evidence


def test_the_gradient_of_the_evidence_is_its_slope(monkeypatch: pytest.MonkeyPatch):
    from scipy import optimize

    caught = {}

    def keep(cost, start, **_):  # type: ignore[no-untyped-def]
        caught["cost"] = cost
        return optimize.OptimizeResult(x=start)

    monkeypatch.setattr(optimize, "minimize", keep)
    rng = np.random.default_rng(0)
    features = np.hstack([np.ones((12, 1)), rng.standard_normal((12, 5))])
    latencies, trust = rng.uniform(1, 2, 12), rng.uniform(0.5, 1.2, 12)
    known = rng.uniform(0.001, 0.05, 12)  # the labels' own noise
    start = evidence.most_evident(features, latencies, trust, np.array([-1, 0, 1, 1, 2, 2]), None, known)
    for at in (start, start + rng.standard_normal(4)):
        for i, step in enumerate(1e-5 * np.eye(4)):
            slope = (caught["cost"](at + step)[0] - caught["cost"](at - step)[0]) / 2e-5
            assert caught["cost"](at)[1][i] == pytest.approx(slope, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("num", "rank"), [(5, 5), (8, 8), (9, 9), (10, 10), (19, 18), (20, 19), (50, 46)])
def test_the_half_width_is_the_conformal_quantile(num: int, rank: int):
    """The ceil(.9 (n + 1))-th smallest score, or the largest where there are too few."""
    scores = np.random.default_rng(0).permutation(np.arange(1.0, num + 1))
    assert evidence.stretch(scores) == rank


def test_weights_are_ridge_regression_of_trusted_nets():
    """As least squares of stacked rows: each net over its deviation, each weight over its prior's."""
    rng = np.random.default_rng(4)
    features, latencies = rng.standard_normal((9, 3)), rng.uniform(1, 2, 9)
    precision, trust = np.array([1.0, 4.0, 9.0]), rng.uniform(0.5, 1.2, 9)
    weights, covariance, again = evidence.solve(features, latencies, 0.1, precision, trust)
    deviation = 0.1 * latencies / np.sqrt(trust)
    rows = np.vstack([features / deviation[:, None], np.diag(np.sqrt(precision))])
    expected = np.linalg.lstsq(rows, np.append(latencies / deviation, np.zeros(3)), rcond=None)[0]
    np.testing.assert_allclose(weights, expected)
    np.testing.assert_allclose(covariance @ rows.T @ rows, np.eye(3), atol=1e-9)
    # Student's t with 4 degrees of freedom: a net two of its deviations off counts 5 / (4 + 2^2).
    scores = (latencies - features @ expected) / (0.1 * latencies)
    np.testing.assert_allclose(again, 5 / (4 + scores**2))


def test_the_prior_variance_of_a_group_is_divided_among_its_columns():
    groups = evidence.column_groups(["total", "stage", "stage", "total", "stage"])
    assert groups.tolist() == [-1, 0, 1, 1, 0, 1]
    found = evidence.precisions(np.array([0.5, 3.0]), groups)
    np.testing.assert_allclose(found, [1, 2 / 0.25, 3 / 9, 3 / 9, 2 / 0.25, 3 / 9])


def test_the_evidence_is_that_of_a_gaussian_and_its_priors(monkeypatch: pytest.MonkeyPatch):
    """Twice the negative log evidence of t ~ N(0, X V X' + S), without constants, and log-normal priors."""
    from scipy import optimize

    caught = {}

    def keep(cost, start, **options):  # type: ignore[no-untyped-def]
        caught.update(options, cost=cost, start=start)
        return optimize.OptimizeResult(x=start)

    monkeypatch.setattr(optimize, "minimize", keep)
    rng = np.random.default_rng(6)
    features = np.hstack([np.ones((9, 1)), rng.standard_normal((9, 3))])
    target, trust = rng.uniform(0.5, 1.5, 9), rng.uniform(0.5, 1.2, 9)
    evidence.most_evident(features, target, trust, np.array([-1, 0, 1, 1]), None)
    # A group's width is 8 % of the mean latency within a factor 20, the noise 2 % within a factor 4.5.
    prior, deviation = np.array([-2.5, -2.5, -4.0]), np.array([3.0, 3.0, 1.5])
    for logs in (prior, prior + rng.standard_normal(3)):
        width = np.exp(logs[:-1])
        variances = np.diag([1, width[0] ** 2, width[1] ** 2 / 2, width[1] ** 2 / 2])
        noise = np.diag((np.exp(logs[-1]) * target) ** 2 / trust)
        covariance = features @ variances @ features.T + noise
        expected = target @ np.linalg.solve(covariance, target) + np.linalg.slogdet(covariance)[1]
        expected += np.sum(((logs - prior) / deviation) ** 2)
        assert caught["cost"](logs)[0] == pytest.approx(0.5 * expected)
    assert len(caught["bounds"]) == len(caught["start"])
    assert all(low < start < high for (low, high), start in zip(caught["bounds"], caught["start"], strict=True))
    again = evidence.most_evident(features, target, trust, np.array([-1, 0, 1, 1]), np.array([-1.0, -2.0, -3.0]))
    assert again.tolist() == [-1, -2, -3]  # a search goes on where the last one ended


def test_noise_is_found_between_a_thousandth_and_more_than_a_third():
    """Nobody measures to a thousandth; of nets that their features tell nothing about, the noise is the spread."""
    rng = np.random.default_rng(7)
    features = np.hstack([np.ones((40, 1)), rng.standard_normal((40, 2))])
    groups = np.array([-1, 0, 1])
    exact = evidence.robust_fit(features, 1 + features[:, 1] * 0.1, groups)[2]
    assert 0.0009 < exact < 0.002
    assert evidence.robust_fit(features, np.exp(0.9 * rng.standard_normal(40)), groups)[2] > 0.4


def test_the_noise_of_labels_is_not_taken_for_that_of_the_model():
    """Of labels that are known to 5 % and off by as much, the line itself is exact."""
    rng = np.random.default_rng(3)
    features = np.hstack([np.ones((60, 1)), rng.standard_normal((60, 2))])
    groups = np.array([-1, 0, 1])
    target = (1 + 0.1 * features[:, 1]) * (1 + 0.05 * rng.standard_normal(60))
    known = np.full(60, 0.05)
    assert evidence.robust_fit(features, target, groups)[2] > 0.03
    assert evidence.robust_fit(features, target, groups, known)[2] < 0.02
