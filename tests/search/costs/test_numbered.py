"""The numbered blocks of a space are those that `block_specs` lists, one arch after the other."""

import numpy as np
import pytest

from tutelage.records import Arch, InputError
from tutelage.search.costs.counts import block_specs
from tutelage.search.costs.numbered import by_space
from tutelage.search.spaces.space import SPACES


@pytest.mark.parametrize("name", sorted(SPACES))
def test_the_blocks_of_an_arch_are_those_that_it_lists(name: str):
    sides = (32, 65)
    space = SPACES[name].with_resolutions(sides)
    ends = [end for side in sides for end in (space.smallest(side), space.largest(side))]
    archs = [*ends, *space.decode(space.random(40, np.random.default_rng(0)))]
    seen = []
    for rows, blocks, numbers in by_space(archs, 7, 2):
        for row, chosen in zip(rows, numbers, strict=True):
            specs = [blocks.specs[number] for number in chosen if number < len(blocks.specs)]
            assert specs == block_specs(archs[row], 7, 2)
            seen.append(int(row))
    assert sorted(seen) == list(range(len(archs)))


def test_archs_of_several_spaces_are_told_apart_and_unknown_ones_refused():
    small, large = SPACES["mbconv_small_w1.0"].smallest(), SPACES["ofa_mbv3_w1.0"].with_resolutions((64,)).largest()
    archs = [large, small, large]
    found = {blocks.space.name: rows.tolist() for rows, blocks, _ in by_space(archs, 4, 1)}
    assert found == {"ofa_mbv3_w1.0": [0, 2], "mbconv_small_w1.0": [1]}
    with pytest.raises(InputError, match="nowhere"):
        list(by_space([Arch(space="nowhere", d=(1,), ks=(3,), e=(3,), r=32)], 4, 1))
