"""The interval of a median latency covers the true median as often as it says, rounds that drift included."""

import numpy as np
import pytest

from tutelage.bench.protocol.spread import NUM_BLOCKS, latency_bounds, median_interval
from tutelage.records import Measurement


def measurement(samples):
    return Measurement(
        device="d", runtime="r", runtime_version="1", threads=1, batch=1, precision="fp32", effective_precision="fp32",
        samples_ms=tuple(samples),
    )  # fmt: skip


@pytest.mark.parametrize("round_sd", [0.0, 0.03])
def test_it_covers_the_true_median_also_when_samples_of_a_round_belong_together(round_sd):
    """32 rounds of 8 samples around 1 ms; with `round_sd` a whole round is slower or faster."""
    rng = np.random.default_rng(0)
    covered, naive = 0, 0
    for _ in range(400):
        rounds = np.exp(rng.normal(0, round_sd, (32, 1)) + rng.normal(0, 0.02, (32, 8)))
        low, high = median_interval(rounds.ravel())
        covered += low <= 1.0 <= high
        half = 1.96 * 1.2533 * rounds.std() / np.sqrt(rounds.size)  # as if all samples were independent
        naive += abs(np.median(rounds) - 1.0) <= half
    assert covered / 400 >= 0.93
    if round_sd:
        assert naive / 400 < 0.75


def test_its_width_is_that_of_the_blocks_medians():
    """Blocks whose medians are 1 and 1.2 by turns: their standard deviation is .1 sqrt(8 / 7)."""
    samples = np.repeat([1.0, 1.2] * (NUM_BLOCKS // 2), 5)
    low, high = median_interval(samples)
    half = 2.3646 * 0.1 * np.sqrt(8 / 7) / np.sqrt(8)
    assert (low, high) == (pytest.approx(max(1.1 - half, 1.0)), pytest.approx(1.1 + half))


def test_it_is_unknown_where_there_are_too_few_samples():
    assert median_interval([1.0] * 15) is None
    assert latency_bounds(measurement([1.0] * 15)) == {}
    assert latency_bounds(None) == {}
    assert latency_bounds(measurement([2.0] * 16)) == {"latency_p50_ms_lo": 2.0, "latency_p50_ms_hi": 2.0}
