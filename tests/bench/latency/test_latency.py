"""The latency model: recovers what it should, states its errors, refuses nonsense, and meets the public GPU table."""

import math
from pathlib import Path

import numpy as np
import pytest

from tutelage.bench.latency import evidence
from tutelage.bench.latency import model as latency
from tutelage.bench.latency.features import block_features, choose_archs, count_features, design
from tutelage.bench.latency.labels import merge_repeats
from tutelage.bench.latency.model import LatencyModel
from tutelage.records import Arch, InputError
from tutelage.search.costs.counts import block_specs
from tutelage.search.spaces.space import SPACES

SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((64,))


def draw(num: int, seed: int = 0) -> list[Arch]:
    return SPACE.decode(SPACE.random(num, np.random.default_rng(seed)))


@pytest.fixture(scope="module")
def table() -> dict[str, float]:
    """A made-up block table: every block costs in proportion to its MACs, 7x7 kernels five times as much."""
    specs = {spec.key: spec for arch in draw(300) for spec in block_specs(arch, 1000, 3)}
    return {key: spec.macs / 1e8 * (5 if spec.kernel == 7 else 1) for key, spec in specs.items()}


def true_ms(archs: list[Arch], table: dict[str, float]) -> np.ndarray:
    return np.array([0.05 + 1.2 * sum(table[spec.key] for spec in block_specs(arch, 1000, 3)) for arch in archs])


def test_ten_nets_and_a_block_table_predict_what_macs_cannot(table: dict[str, float]):
    pool = draw(200, seed=1)
    train = [pool[index] for index in choose_archs(pool, 10)]
    test = draw(100, seed=2)
    ms = true_ms(train, table)
    mean, low, high = LatencyModel.fit(train, ms, blocks=table).predict(test)
    np.testing.assert_allclose(mean, true_ms(test, table), rtol=0.02)
    assert (low <= mean).all()
    assert (mean <= high).all()
    on_counts = LatencyModel.fit(train, ms).predict(test)[0]
    assert np.abs(on_counts / true_ms(test, table) - 1).mean() > 0.05  # no count sees the kernel's price


def test_fit_on_an_instance_and_on_the_class_are_the_same(table: dict[str, float]):
    train, test = draw(12), draw(5, seed=3)
    ms = true_ms(train, table)
    instance = LatencyModel()
    assert instance.fit(train, ms, blocks=table) is instance
    np.testing.assert_array_equal(instance.predict(test)[0], LatencyModel.fit(train, ms, blocks=table).predict(test)[0])


def test_round_trip_keeps_every_bit(table: dict[str, float], tmp_path: Path):
    train, test = draw(12), draw(5, seed=3)
    for blocks in (table, None):
        model = LatencyModel.fit(train, true_ms(train, table), blocks=blocks)
        model.save(tmp_path / "m.json")
        again = LatencyModel.load(tmp_path / "m.json")
        for one, two in zip(model.predict(test), again.predict(test), strict=True):
            np.testing.assert_array_equal(one, two)


def test_more_coverage_means_wider_intervals(table: dict[str, float]):
    train, test = draw(12), draw(5, seed=3)
    model = LatencyModel.fit(train, true_ms(train, table) * np.random.default_rng(0).uniform(0.9, 1.1, 12))
    widths = [np.ptp(np.stack(model.predict(test, coverage)[1:]), axis=0) for coverage in (0.5, 0.9, 0.99)]
    assert (widths[0] < widths[1]).all()
    assert (widths[1] < widths[2]).all()


def test_one_outlier_does_not_bend_the_fit(table: dict[str, float]):
    train, test = draw(40), draw(50, seed=3)
    ms = true_ms(train, table)
    spoiled = ms.copy()
    spoiled[7] *= 3
    mean = LatencyModel.fit(train, spoiled, blocks=table).predict(test)[0]
    assert np.abs(mean / true_ms(test, table) - 1).mean() < 0.03


def test_leave_one_out_error_is_near_the_held_out_error(table: dict[str, float]):
    test = draw(200, seed=99)
    rng = np.random.default_rng(0)
    stated, held_out, covered = [], [], []
    for seed in range(6):
        train = draw(25, seed=seed)
        noisy = true_ms(train, table) * np.exp(0.05 * rng.standard_normal(25))
        model = LatencyModel.fit(train, noisy, blocks=table)
        truth = true_ms(test, table) * np.exp(0.05 * rng.standard_normal(200))
        mean, low, high = model.predict(test)
        stated.append(model.error)
        held_out.append(np.abs(mean / truth - 1).mean())
        covered.append(((low <= truth) & (truth <= high)).mean())
    assert np.mean(stated) == pytest.approx(np.mean(held_out), rel=0.25)
    assert 0.83 <= np.mean(covered) <= 0.97


def test_a_held_out_error_comes_from_a_fit_that_did_not_see_the_net():
    """Whatever the held-out net took, what the others predict for it is the same, hyperparameters included."""
    rng = np.random.default_rng(1)
    columns = rng.standard_normal((12, 3))
    latencies = 1 + 0.1 * columns @ np.array([1.0, 0.5, 0.2]) + 0.02 * rng.standard_normal(12)
    features = np.hstack([np.ones((12, 1)), columns])
    groups = np.array([-1, 0, 0, 1])
    errors, scores = evidence.held_out(features, latencies, groups)
    odd = latencies.copy()
    odd[3] *= 1.5
    again, _ = evidence.held_out(features, odd, groups)
    rest = np.arange(12) != 3
    weights, covariance, noise = evidence.robust_fit(features[rest], latencies[rest], groups)
    mean = float(features[3] @ weights)
    assert errors[3] == pytest.approx(abs(latencies[3] - mean) / latencies[3])
    assert again[3] == pytest.approx(abs(odd[3] - mean) / odd[3])
    spread = np.sqrt(features[3] @ covariance @ features[3] + (noise * mean) ** 2)
    assert scores[3] == pytest.approx(abs(latencies[3] - mean) / spread)
    assert evidence.robust_fit(features, latencies, groups)[2] != pytest.approx(
        noise, rel=1e-3
    )  # the whole fit differs


def test_the_interval_is_the_stretched_deviation_of_the_posterior():
    from scipy.stats import t

    train, test = draw(12), draw(5, seed=3)
    ms = np.linspace(2, 4, 12) * np.random.default_rng(0).uniform(0.9, 1.1, 12)
    model = LatencyModel.fit(train, ms)
    features, groups = count_features(train, 1000, 3)
    spread = features.std(axis=0)
    used = spread > 1e-9 * np.abs(features.mean(axis=0))

    def columns(values: np.ndarray) -> np.ndarray:
        scaled = np.where(used, (values - features.mean(axis=0)) / np.where(used, spread, 1), 0)
        return np.hstack([np.ones((len(values), 1)), scaled])

    width_of = evidence.column_groups(groups)
    target = ms / ms.mean()
    weights, covariance, noise = evidence.robust_fit(columns(features), target, width_of)
    errors, scores = evidence.held_out(columns(features), target, width_of)
    new = columns(count_features(test, 1000, 3)[0])
    mean = new @ weights
    deviation = np.sqrt(np.diag(new @ covariance @ new.T) + (noise * mean) ** 2)
    for coverage in (0.5, 0.9):
        half = deviation * np.sort(scores)[11] * t.ppf((1 + coverage) / 2, 4) / t.ppf(0.95, 4)  # of twelve, the largest
        found, low, high = model.predict(test, coverage)
        np.testing.assert_allclose(found, mean * ms.mean(), rtol=1e-6)
        np.testing.assert_allclose(high, (mean + half) * ms.mean(), rtol=1e-6)
        np.testing.assert_allclose(low, np.maximum((mean - half) * ms.mean(), 0), rtol=1e-6)
    assert model.error == pytest.approx(errors.mean())
    assert model.error_se == pytest.approx(np.sqrt(errors.var(ddof=1) / 12))


def test_a_model_on_counts_reaches_beyond_three_sizes_by_a_quarter():
    archs = [arch.replace(r=r) for arch, r in zip(draw(9), (64, 96, 128) * 3, strict=True)]
    model = LatencyModel.fit(archs, np.linspace(1, 2, 9))
    assert [r for r in range(40, 200) if model.covers(archs[0].replace(r=r))] == list(range(52, 161))
    two = LatencyModel.fit([arch for arch in archs if arch.r < 128], np.linspace(1, 2, 6))
    assert [r for r in range(40, 200) if two.covers(archs[0].replace(r=r))] == [64, 96]
    assert not model.covers(archs[0].replace(space="ofa_mbv3_w1.2"))
    assert [len(values) for values in model.predict([])] == [0, 0, 0]
    for coverage in (0.0, 1.0, 1.5):
        with pytest.raises(InputError, match="coverage must lie between 0 and 1"):
            model.predict(archs, coverage)
    assert model.spaces == ("ofa_mbv3_w1.0",)


def test_every_net_is_held_out_and_none_is_predicted_to_take_no_time():
    """Of a steep line one net lies where the others promise less than nothing: its error is all of its time."""
    features = np.hstack([np.ones((12, 1)), np.append(np.linspace(0, 1, 11), -8.0)[:, None]])
    target = np.append(0.5 + features[:11, 1], 0.25)
    groups = np.array([-1, 0])
    errors, scores = evidence.held_out(features, target, groups)
    assert errors[11] == pytest.approx((0.25 - 1e-6) / 0.25, rel=1e-9)
    for fold in range(10):
        left = np.arange(12) % 10 == fold
        weights, covariance, noise = evidence.robust_fit(features[~left], target[~left], groups)
        mean = np.maximum(features[left] @ weights, 1e-6)
        spread = np.sqrt(np.diag(features[left] @ covariance @ features[left].T) + (noise * mean) ** 2)
        np.testing.assert_allclose(errors[left], np.abs(target[left] - mean) / target[left])
        np.testing.assert_allclose(scores[left], np.abs(target[left] - mean) / spread)


def test_no_interval_reaches_below_zero():
    train = draw(12)
    ms = np.random.default_rng(0).uniform(0.05, 0.3, 12)
    mean, low, high = LatencyModel.fit(train, ms).predict(draw(20, seed=3), 0.99)
    assert low.min() == 0
    assert (low < mean).all()
    assert (mean < high).all()


def test_a_count_that_is_zero_everywhere_is_not_used():
    """ResNet50 has no depthwise convolution: a column of zeros has no spread to be divided by."""
    space = SPACES["ofa_resnet50"].with_resolutions((64,))
    archs = space.decode(space.random(8, np.random.default_rng(0)))
    features, groups = count_features(archs, 1000, 3)
    assert (features[:, groups.index("depthwise")] == 0).all()
    ms = np.linspace(2, 4, 8)
    assert np.isfinite(LatencyModel.fit(archs, ms).predict(archs)).all()


def test_networks_are_of_1000_classes_and_colour_where_nothing_is_said():
    train, ms = draw(8), np.linspace(1, 2, 8)
    model = LatencyModel.fit(train, ms)
    assert (model.num_classes, model.in_channels) == (1000, 3)
    assert (LatencyModel().num_classes, LatencyModel().in_channels) == (1000, 3)
    assert LatencyModel.from_dict(model.to_dict()).to_dict() == model.to_dict()
    other = LatencyModel.fit(train, ms, num_classes=7, in_channels=1)
    assert (other.num_classes, other.in_channels) == (7, 1)


def test_a_hundredth_and_a_hundredfold_of_the_median_are_taken():
    kept = [1.0, 1.0, 0.01, 1.0, 100.0]
    assert latency.check_latencies(kept, 5).tolist() == kept
    with pytest.raises(InputError, match=r"latency of net 1 is 0\.00995 ms where the median is 1 ms"):
        latency.check_latencies([1.0, 0.00995, 1.0, 100.5, 1.0], 5)
    with pytest.raises(InputError, match=r"latency of net 1 is inf ms"):
        latency.check_latencies([1.0, float("inf"), 1.0, -1.0, 1.0], 5)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2}', '{"format": 2, "spaces": 5}'])
def test_a_file_that_is_no_model_is_refused(text: str, tmp_path: Path):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(InputError, match=r"bad\.json is not a latency model \(.*\): add the device again"):
        LatencyModel.load(tmp_path / "bad.json")


def test_block_features_sum_the_table_and_count_features_count(table: dict[str, float]):
    archs = draw(6)
    features, groups = block_features(archs, table, 1000, 3)
    total = groups.index("total")
    stages = [index for index, group in enumerate(groups) if group == "stage"]
    for arch, row in zip(archs, features, strict=True):
        specs = block_specs(arch, 1000, 3)
        assert row[total] == pytest.approx(sum(table[spec.key] for spec in specs))
        ends = sum(table[spec.key] for spec in specs if spec.kind != "block")
        assert row[stages].sum() == pytest.approx(row[total] - ends)
    counts, groups = count_features(archs, 1000, 3)
    dense, narrow = counts[:, groups.index("dense")], counts[:, groups.index("depthwise")]
    macs = [sum(spec.macs for spec in block_specs(arch, 1000, 3)) for arch in archs]
    np.testing.assert_allclose(dense + narrow, macs)
    np.testing.assert_array_equal(counts[:, groups.index("blocks")], [sum(arch.d) for arch in archs])


def test_features_of_many_archs_are_those_of_each_alone(table: dict[str, float]):
    """Two spaces and two resolutions at once, by hand from the list of blocks; the counts are whole numbers."""
    spaces = [SPACES[name].with_resolutions((64, 96)) for name in ("ofa_mbv3_w1.0", "ofa_proxyless_w1.3")]
    archs = [arch for space in spaces for arch in space.decode(space.random(8, np.random.default_rng(4)))]
    counts, groups = count_features(archs, 10, 1)
    depth = [index for index, group in enumerate(groups) if group == "depth"]
    for arch, row in zip(archs, counts, strict=True):
        specs = block_specs(arch, 10, 1)
        blocks = [spec for spec in specs if spec.kind == "block"]
        assert row[groups.index("params")] == sum(spec.params for spec in specs)
        assert row[groups.index("size")] == arch.r
        num = len(arch.d) + 1
        per_stage = [sum(min(spec.stage, num - 1) == stage for spec in blocks) for stage in range(num)]
        assert row[depth].tolist() == per_stage
    with pytest.raises(InputError, match=r"block \S+ of an arch of ofa_proxyless_w1.3 at (64|96) px is not in"):
        block_features(archs[8:], table, 10, 1)
    empty, groups = block_features([], table, 10, 1)
    assert empty.shape == (0, len(groups))


def test_design_spreads_out():
    line = np.linspace(-1, 1, 21)[:, None]
    assert sorted(design(line, ["x"], 2)) == [0, 20]  # the ends tell most about a slope


@pytest.mark.parametrize(
    ("ms", "message"),
    [
        ([1.0, 2.0, 0.0, 1.0, 2.0, 3.0], r"net 2 is 0\.0 ms"),
        ([1.0, 2.0, float("nan"), 1.0, 2.0, 3.0], "net 2 is nan"),
        ([1.0, 2.0, 1500.0, 1.0, 2.0, 3.0], "mixed units"),
        ([2.0] * 6, "equal times"),
        ([1.0, 2.0], "2 latencies for 6 archs"),
    ],
)
def test_nonsense_is_refused(ms: list[float], message: str):
    with pytest.raises(InputError, match=message):
        LatencyModel.fit(draw(6), ms)


def test_too_few_nets_and_unseen_archs_are_refused(table: dict[str, float], tmp_path: Path):
    with pytest.raises(InputError, match="at least 5"):
        LatencyModel.fit(draw(3), [1.0, 2.0, 3.0])
    train = draw(8)
    model = LatencyModel.fit(train, true_ms(train, table), blocks=table)
    with pytest.raises(InputError, match=r"no latency model at 96 px: it covers 64"):
        model.predict([train[0].replace(r=96)])
    with pytest.raises(InputError, match=r"no latency model for space ofa_mbv3_w1\.2"):
        model.predict([train[0].replace(space="ofa_mbv3_w1.2")])
    with pytest.raises(InputError, match="not fitted"):
        LatencyModel().predict(train)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(InputError, match="add the device again"):
        LatencyModel.load(tmp_path / "bad.json")
    with pytest.raises(InputError, match="cannot read"):
        LatencyModel.load(tmp_path / "none.json")


def test_times_of_other_anchors_are_not_taken_for_these(tmp_path: Path):
    model = LatencyModel.fit(draw(12), np.linspace(1, 2, 12))
    model.anchor_ms = 0.7
    kept = model.to_dict()
    assert LatencyModel.from_dict(kept).anchor_ms == 0.7
    assert LatencyModel.from_dict({**kept, "anchor_set": 1}).anchor_ms is None
    del kept["anchor_set"]  # of a version that had other anchors
    assert LatencyModel.from_dict(kept).anchor_ms is None


def test_an_architecture_is_held_out_with_its_other_resolutions():
    """A net that is in the training set at another size is not unseen: six at five sizes know little of others."""
    sizes = (48, 56, 64, 72, 80)
    rng = np.random.default_rng(6)

    def times(archs: list[Arch]) -> np.ndarray:  # what no count explains is the same at every size
        own = np.repeat(np.exp(rng.normal(0, 0.1, len(archs) // len(sizes))), len(sizes))
        return np.array([arch.r**2 / 1000 for arch in archs]) * own

    archs, unseen = ([arch.replace(r=r) for arch in draw(num, seed) for r in sizes] for num, seed in ((6, 0), (40, 8)))
    model = LatencyModel.fit(archs, times(archs))
    assert model.error > 0.6 * np.abs(model.predict(unseen)[0] / times(unseen) - 1).mean()
    with pytest.raises(InputError, match="4 architectures at 5 resolutions are too few"):
        LatencyModel.fit(archs[:20], times(archs[:20]))


def test_repeats_are_one_label_whose_noise_they_tell():
    archs, ms = draw(9), np.linspace(1, 3, 9)
    rng = np.random.default_rng(2)
    noisy = np.concatenate([ms, ms[:3]]) * np.exp(0.02 * rng.standard_normal(12))
    noisy[-1] *= 1.0001
    merged = merge_repeats([*archs, *archs[:3]], noisy)
    assert merged.archs == archs
    np.testing.assert_allclose(merged.latency_ms[3:], noisy[3:9])
    np.testing.assert_allclose(merged.latency_ms[:3], (noisy[:3] + noisy[9:]) / 2)
    spread = math.sqrt(float(((np.log(noisy[:3] / noisy[9:])) ** 2 / 2).sum()) / 3)
    assert merged.repeat_noise == pytest.approx(spread)
    np.testing.assert_allclose(merged.label_noise, [spread / math.sqrt(2)] * 3 + [spread] * 6)
    # One slow repeat of five moves no label.
    five = merge_repeats([archs[0]] * 5, [2.0, 2.0, 2.0, 2.0, 9.0])
    assert five.latency_ms.tolist() == [2.0]
    assert LatencyModel.from_dict(LatencyModel.fit([*archs, *archs[:3]], noisy).to_dict()).num_measurements == 12
