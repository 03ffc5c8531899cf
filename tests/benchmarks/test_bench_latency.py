"""How long fitting a latency model takes, and predicting a thousand archs with it."""

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from tutelage.bench.latency.model import LatencyModel
from tutelage.search.costs.counts import count
from tutelage.search.spaces.space import SPACES

SPACE = SPACES["ofa_mbv3_w1.0"].with_resolutions((64,))


def test_fit_on_fifty_nets(benchmark: BenchmarkFixture):
    archs = SPACE.decode(SPACE.random(50, np.random.default_rng(0)))
    ms = count(archs).macs / 2e7 + 0.1
    assert benchmark.pedantic(LatencyModel.fit, (archs, ms), rounds=5, warmup_rounds=1).error < 0.02


def test_predict_a_thousand_new_archs(benchmark: BenchmarkFixture):
    archs = SPACE.decode(SPACE.random(1000, np.random.default_rng(0)))
    model = LatencyModel.fit(archs[:50], count(archs[:50]).macs / 2e7 + 0.1)

    assert benchmark.pedantic(lambda: len(model.predict(archs)[0]), rounds=5, warmup_rounds=1) == 1000
