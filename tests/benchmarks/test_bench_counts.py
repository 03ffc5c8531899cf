"""Speed of counting: 100,000 architectures are to take at most .2 s on one core; and of drawing from a budget."""

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tutelage.search.costs import counts
from tutelage.search.costs.counts import count, count_genes
from tutelage.search.costs.sampling import FeasibleSampler
from tutelage.search.spaces.space import SPACES

NUM_ARCHS = 100_000


@pytest.mark.parametrize("name", SPACES)
def test_count_genes(benchmark: BenchmarkFixture, name: str) -> None:
    """All input sides of the space, mixed."""
    genes = SPACES[name].random(NUM_ARCHS, np.random.default_rng(0))
    assert len(benchmark(count_genes, SPACES[name], genes).macs) == NUM_ARCHS


@pytest.mark.parametrize("name", SPACES)
def test_count_genes_with_cold_tables(benchmark: BenchmarkFixture, name: str) -> None:
    """The first call of a process: the tables of all 58 input sides are made too."""
    genes = SPACES[name].random(NUM_ARCHS, np.random.default_rng(0))

    def forget() -> None:
        for cached in (counts.cost_tables, counts._slots_table, counts._block_costs):
            cached.cache_clear()

    counted = benchmark.pedantic(count_genes, (SPACES[name], genes), setup=forget, rounds=7, warmup_rounds=1)
    assert len(counted.macs) == NUM_ARCHS


def test_count_archs(benchmark: BenchmarkFixture) -> None:
    """From records, encoding included."""
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((64, 224))
    archs = space.decode(space.random(NUM_ARCHS, np.random.default_rng(0)))
    assert len(benchmark(count, archs).macs) == NUM_ARCHS


@pytest.mark.parametrize(
    "bounds", [{"macs": 30e6}, {"macs": 30e6, "params": 4e6, "peak_activation_bytes": 4e5}], ids=len
)
def test_draw_from_a_budget(benchmark: BenchmarkFixture, bounds: dict[str, float]) -> None:
    """The tables, then 1,000 draws."""
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((64,))
    genes = benchmark(lambda: FeasibleSampler(space, bounds).draw(1000, np.random.default_rng(0)))
    assert len(genes) == 1000
