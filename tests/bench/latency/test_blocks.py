"""The blocks that are measured: how many, that the others follow by their law, and what is measured whole."""

import numpy as np
import pytest

from tutelage.bench.latency.blocks import chosen_blocks, completed_table
from tutelage.bench.latency.calibrate import block_table_specs
from tutelage.search.costs.counts import BlockSpec, block_specs
from tutelage.search.spaces.space import SPACES


@pytest.fixture(scope="module")
def specs() -> list[BlockSpec]:
    return block_table_specs(SPACES["ofa_mbv3_w1.0"].with_resolutions((64,)), 1000, 3)


def _ms(spec: BlockSpec) -> float:
    """A call costs 0.02 ms; a channel of the expanded map what its three convolutions compute."""
    return 0.02 + spec.macs / 1e8


def test_each_kernel_is_measured_once_and_the_smallest_twice(specs: list[BlockSpec]) -> None:
    # Five stages, a first and a later kind of block, 3 kernels and one more; stem, first block, head: 43 of 93.
    chosen = chosen_blocks(specs)
    assert (len(chosen), len(specs)) == (5 * 2 * 4 + 3, 5 * 2 * 9 + 3)
    assert [spec for spec in specs if spec in chosen] == chosen
    small = block_table_specs(SPACES["mbconv_small_w1.0"].with_resolutions((32,)), 10, 3)
    assert (len(chosen_blocks(small)), len(small)) == (27, 51)


def test_blocks_that_follow_the_law_are_computed_exactly(specs: list[BlockSpec]) -> None:
    plain = [spec for spec in specs if not spec.se]  # squeeze and excitation adds the square of the width
    table = completed_table(plain, {spec.key: _ms(spec) for spec in chosen_blocks(plain)})
    assert list(table) == [spec.key for spec in plain]
    np.testing.assert_allclose(list(table.values()), [_ms(spec) for spec in plain], rtol=1e-6)


def test_sums_of_blocks_measured_within_a_percent_are_off_by_less(specs: list[BlockSpec]) -> None:
    space, rng = SPACES["ofa_mbv3_w1.0"].with_resolutions((64,)), np.random.default_rng(0)
    archs = space.decode(space.random(40, rng))
    noisy = {spec.key: _ms(spec) * np.exp(0.01 * rng.standard_normal()) for spec in chosen_blocks(specs)}
    table = completed_table(specs, noisy)
    nets = [block_specs(arch, 1000, 3) for arch in archs]
    sums = np.array([[sum(table[spec.key] for spec in net), sum(map(_ms, net))] for net in nets])
    assert np.std(sums[:, 0] / sums[:, 1]) < 0.01


def test_what_was_measured_stays_and_no_block_takes_less_than_nothing(specs: list[BlockSpec]) -> None:
    chosen = chosen_blocks(specs)
    odd = {spec.key: 1.0 if index % 2 else 0.01 for index, spec in enumerate(chosen)}
    table = completed_table(specs, odd)
    assert all(table[key] == pytest.approx(value) for key, value in odd.items())
    assert min(table.values()) > 0


def test_bottlenecks_and_incomplete_groups_are_measured_whole(specs: list[BlockSpec]) -> None:
    resnet = block_table_specs(SPACES["ofa_resnet50"].with_resolutions((64,)), 1000, 3)
    assert chosen_blocks(resnet) == resnet
    few = [spec for spec in specs if spec.kind == "block"][:2]
    assert chosen_blocks(few) == few
