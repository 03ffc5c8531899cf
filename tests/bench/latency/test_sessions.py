"""What a later session adds to a model's intervals, and the factor that corrects a model by a few networks."""

import math

import numpy as np
import pytest

from tutelage.bench.latency.model import LatencyModel
from tutelage.bench.latency.sessions import COMMON, OWN, SessionNoise, correction_of, session_noise
from tutelage.search.costs.counts import count
from tutelage.search.spaces.space import SPACES

SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((64,))


def sessions(num: int, nets: int, common: float, own: float, rng: np.random.Generator) -> list[dict[str, float]]:
    shifts = common * rng.standard_normal(num)
    return [{f"net {i}": shift + own * rng.standard_normal() + i for i in range(nets)} for shift in shifts]


def test_the_noise_of_sessions_is_found_where_many_were_seen():
    """A later session is compared with the mean of those that were seen: sqrt(1 + 1/200) of each deviation."""
    rng = np.random.default_rng(0)
    found = session_noise(sessions(200, 20, 0.1, 0.05, rng))
    assert found.common == pytest.approx(0.1, rel=0.15)
    assert found.own == pytest.approx(0.05, rel=0.1)
    assert found.total == pytest.approx(math.hypot(found.common, found.own))


def test_of_few_sessions_what_is_known_beforehand_counts():
    one = session_noise([{"net": 0.0}])
    assert (one.common, one.own) == (COMMON, OWN)
    equal = session_noise([{"a": 0.0, "b": 1.0}, {"a": 0.0, "b": 1.0}])
    # Four sessions' worth of the prior and one without any spread, to which a single session is compared.
    assert equal.common == pytest.approx(COMMON * math.sqrt(4 / 5 * 1.5))
    assert equal.common < session_noise([{"a": 0.0, "b": 1.0}, {"a": 0.3, "b": 1.3}]).common
    assert SessionNoise().seen(0.2).common == pytest.approx(math.sqrt((4 * COMMON**2 + 0.04) / 5))


def test_intervals_cover_what_a_later_session_measures():
    """Of 60 devices, each calibrated in two sessions and measured again in a third; 90 % are asked for.

    The sessions of a device differ by 3 % in common and 2 % a network. By the errors of networks left out alone, which
    are of the same two sessions, far fewer are covered.
    """
    rng = np.random.default_rng(1)
    pool = SPACE.decode(SPACE.random(200, rng))
    true = count(pool).macs / 2e7 + 0.1
    covered, before = [], []
    for _ in range(60):
        train, test = rng.permutation(200)[:12], rng.permutation(200)[:40]
        logs = [np.log(true) + 0.03 * rng.standard_normal() + 0.02 * rng.standard_normal(200) for _ in range(3)]
        seen = [{f"net {i}": float(log[i]) for i in train} for log in logs[:2]]
        model = LatencyModel.fit([pool[i] for i in train], np.exp((logs[0] + logs[1])[train] / 2))
        later = np.exp(logs[2][test])
        for session, rates in ((None, before), (session_noise(seen), covered)):
            model.session = session
            _, low, high = model.predict([pool[i] for i in test])
            rates.append(np.mean((low <= later) & (later <= high)))
    assert np.mean(covered) > 0.9
    assert np.mean(before) < 0.85


def test_a_model_keeps_what_later_sessions_differ_by():
    rng = np.random.default_rng(2)
    archs = SPACE.decode(SPACE.random(12, rng))
    model = LatencyModel.fit(archs, count(archs).macs / 2e7 + 0.1)
    narrow = model.predict(archs)
    model.session = SessionNoise(0.1, 0.0)
    mean, _, high = model.predict(archs)
    np.testing.assert_array_equal(mean, narrow[0])
    assert (high - mean > 0.16 * mean).all()  # 1.645 deviations of 10 %
    again = LatencyModel.from_dict(model.to_dict())
    assert again.session == model.session
    old = {key: value for key, value in model.to_dict().items() if key != "session_noise"}
    assert LatencyModel.from_dict(old).session is None  # published times
    assert LatencyModel.from_dict({**old, "anchor_ms": 2.0}).session == SessionNoise()  # measured by an older version


@pytest.mark.parametrize("factor", [0.77, 1.0, 1.21, 5.0])
def test_a_factor_that_all_nets_show_is_believed_however_large(factor: float):
    predicted = np.array([1.0, 2.0, 4.0, 8.0])
    found = correction_of(predicted, 0.03, predicted * factor * np.array([1.01, 0.99, 1.02, 0.98]), COMMON)
    assert found.factor == pytest.approx(factor, rel=0.03)
    assert found.low < factor < found.high
    assert found.num_nets == 4
    assert found.apart < 0.04


def test_one_slow_net_makes_no_factor():
    predicted = np.ones(5)
    found = correction_of(predicted, 0.03, [1.0, 1.01, 0.99, 3.0, 1.0], COMMON)
    assert found.factor == pytest.approx(1.0, abs=0.02)


def test_two_nets_that_are_a_little_off_correct_by_less():
    """What is within the noise of one network is taken for it, in part."""
    found = correction_of([1.0, 1.0], 0.05, [1.05, 1.05], 0.02)
    assert 1.0 < found.factor < 1.03
